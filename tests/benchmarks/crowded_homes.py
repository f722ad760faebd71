"""Codex homes with thousands of threads, as a real Codex has laid out their databases.

The release makes the databases itself, at its first start; the rows are ours. Half of the small threads are
legacy and half paginated, over a year of dates, each a copy of one short thread under another id. The
one long rollout is hard-linked into the home: it costs no room, and whoever changes it changes all of them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from preflight.codex.sample_home import create_goals_database, create_state_database
from preflight.codex.sample_records import STARTED, sample_uuid
from preflight.codex.sample_rollout import RolloutWriter, rollout_path
from preflight.model import Goal, GoalStatus, GoalTable, HistoryMode, ThreadRow
from tests.benchmarks.long_rollouts import LongRollout
from tests.real_codex.app_server import AppServer
from tests.real_codex.codex_release import CodexRelease
from tests.real_codex.homes import CodexHome

__all__ = ["CrowdedHome", "make_crowded_home"]

_STARTED_MS = int(STARTED.timestamp() * 1000)
_GOAL_ID = "4d3c2b1a-0000-4000-8000-000000000001"
_OUTPUTS = (2_000, 5_000)  # with the first line of 14 KB, a file of 25 KB or so, as in a home that was looked at


@dataclass(frozen=True, slots=True)
class CrowdedHome:
    """A home, the goal thread in it, and how many threads it has in all."""

    home: CodexHome
    goal_thread_id: str
    goal_rollout: Path
    threads: int

    @property
    def path(self) -> Path:
        return self.home.path

    def databases(self) -> list[Path]:
        """The databases that a checkpoint holds: with threads, with goals."""
        return [self.path / "state_5.sqlite", self.path / "goals_1.sqlite"]

    def activate_goal(self) -> None:
        """Let the goal be active, whatever a run has made of it."""
        with closing(sqlite3.connect(self.path / "goals_1.sqlite")) as connection, connection:
            connection.execute("UPDATE thread_goals SET status = 'active'")


def make_crowded_home(
    place: Path, goal_rollout: LongRollout, threads: int, release: CodexRelease | None
) -> CrowdedHome:
    """Make the home at `place` with `threads` threads in all; without a release its databases are reduced ones."""
    home = CodexHome(place)
    home.make()
    if release is not None:
        with AppServer(release, home):
            pass
    linked = rollout_path(home.path, goal_rollout.thread_id)
    linked.parent.mkdir(parents=True)
    os.link(goal_rollout.path, linked)
    rows = [_row(goal_rollout.thread_id, linked, paginated=False), *_small_threads(home.path, threads - 1)]
    goal = Goal(
        thread_id=goal_rollout.thread_id,
        goal_id=_GOAL_ID,
        objective="Make every test of the sample pass.",
        status=GoalStatus.ACTIVE,
        token_budget=None,
        tokens_used=1_250_000,
        time_used_seconds=36_000,
        created_at_ms=_STARTED_MS,
        updated_at_ms=_STARTED_MS,
        table=GoalTable.GOALS,
    )
    reduced = place / "reduced"
    reduced.mkdir()
    create_state_database(reduced / "state_5.sqlite", rows)
    create_goals_database(reduced / "goals_1.sqlite", [goal])
    for name, table in (("state_5.sqlite", "threads"), ("goals_1.sqlite", "thread_goals")):
        if release is None:
            (reduced / name).rename(home.path / name)
        else:
            _copy_rows(reduced / name, home.path / name, table)
    return CrowdedHome(home, goal_rollout.thread_id, linked, threads)


def _copy_rows(source: Path, target: Path, table: str) -> None:
    """Put all rows of one database's table into the same table of another, which may have more columns."""
    with closing(sqlite3.connect(target)) as connection:
        connection.execute("ATTACH ? AS reduced", (str(source),))
        columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA reduced.table_info({table})"))
        with connection:
            connection.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM reduced.{table}")


def _row(thread_id: str, path: Path, *, paginated: bool) -> ThreadRow:
    return ThreadRow(
        thread_id=thread_id,
        rollout_path=str(path),
        archived=False,
        history_mode=HistoryMode.PAGINATED if paginated else HistoryMode.LEGACY,
        cli_version="0.169.0" if paginated else "0.134.0",
        updated_at_ms=_STARTED_MS,
    )


def _small_threads(home: Path, count: int) -> Iterator[ThreadRow]:
    """Write the files, of two kinds in turn; a row for each."""
    kinds = [_short_thread(home, paginated=paginated) for paginated in (False, True)]
    for number in range(count):
        created = STARTED - timedelta(days=number % 365, seconds=number)
        thread_id = sample_uuid(int(created.timestamp() * 1000), f"small {number}")
        old_id, content = kinds[number % 2]
        path = _place(home, created, thread_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.replace(old_id, thread_id.encode()))
        yield _row(thread_id, path, paginated=bool(number % 2))


def _place(home: Path, created: datetime, thread_id: str) -> Path:
    return home / "sessions" / f"{created:%Y/%m/%d}" / f"rollout-{created:%Y-%m-%dT%H-%M-%S}-{thread_id}.jsonl"


def _short_thread(home: Path, *, paginated: bool) -> tuple[bytes, bytes]:
    """The id and the bytes of a short thread."""
    thread_id = sample_uuid(_STARTED_MS, f"short {paginated}")
    path = home / "short.tmp"
    with RolloutWriter(path, thread_id, paginated=paginated) as writer:
        writer.turn(outputs=_OUTPUTS)
    content = path.read_bytes()
    path.unlink()
    return thread_id.encode(), content
