"""A Codex home in which one thread is in trouble and three are not, and what must never happen to those three.

Real folders, real SQLite databases in WAL mode, rollouts in the shapes of the real Codex; all content is
invented. The threads: `patient` is the one a test gives its trouble to; `sound` has an active goal,
compactions and a boundary; `bystander` is small and without a goal; `stored` is archived.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

from preflight.cli import main
from preflight.codex.sample_home import create_goals_database, create_state_database
from preflight.codex.sample_rollout import RolloutWriter, rollout_path
from preflight.model import Goal, GoalTable, ThreadRow

SOUND = "01a2036d-0000-7000-8000-00000000000a"
PATIENT = "01a2036d-0000-7000-8000-00000000000b"
BYSTANDER = "01a2036d-0000-7000-8000-00000000000c"
STORED = "01a2036d-0000-7000-8000-00000000000d"

OBJECTIVE = "move the harbour crane to the north pier"
CREATED_MS = 1_780_131_600_000

ROOT = Path(__file__).parents[1]

Goals = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    """What one call of the command line gave: exit code, the envelope of ``--json``, and stderr."""

    code: int
    envelope: Mapping[str, Any]
    stderr: str = ""

    @property
    def data(self) -> Mapping[str, Any]:
        return self.envelope["data"]

    @property
    def verdict(self) -> str | None:
        return self.envelope["verdict"]

    def findings(self, thread_id: str | None = None) -> dict[str, dict[str, Any]]:
        """The findings by id: all, or those of one thread."""
        chosen = (f for f in self.envelope["findings"] if thread_id is None or f["thread_id"] == thread_id)
        return {finding["id"]: finding for finding in chosen}

    def thread(self, thread_id: str) -> dict[str, Any]:
        (found,) = [thread for thread in self.data["threads"] if thread["thread_id"] == thread_id]
        return found


@dataclass
class TroubledHome:
    """The home, its store, and the calls that tests make of it."""

    path: Path
    store: Path
    goals_in: GoalTable = GoalTable.GOALS
    rollouts: dict[str, Path] = field(default_factory=dict)

    @property
    def goals_db(self) -> Path:
        return self.path / "goals_1.sqlite"

    @property
    def state_db(self) -> Path:
        return self.path / "state_5.sqlite"

    def call(self, *words: str | Path) -> Answer:
        """The command line in this process."""
        verb, *rest = map(str, words)
        return call(verb, "--json", "--home", self.path, "--store", self.store, *rest)

    # ---- what must not change

    def digests(self) -> dict[str, str]:
        """The SHA-256 of every file below the folders of rollouts, by its path."""
        found = {}
        for top in ("sessions", "archived_sessions"):
            for folder, _, names in os.walk(self.path / top):
                for name in names:
                    path = Path(folder, name)
                    if path.is_file():
                        found[str(path.relative_to(self.path))] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def goals(self) -> Goals:
        """Every goal row by thread, without the time of its last change, which putting it back renews."""
        rows = self.goal_rows()
        return {thread: {k: v for k, v in row.items() if k != "updated_at_ms"} for thread, row in rows.items()}

    def goal_rows(self) -> Goals:
        path = self.goals_db if self.goals_in is GoalTable.GOALS else self.state_db
        with closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            return {row["thread_id"]: dict(row) for row in connection.execute("SELECT * FROM thread_goals")}

    def change_goals(self, sql: str, *parameters: object) -> None:
        """What another program does to the goals."""
        path = self.goals_db if self.goals_in is GoalTable.GOALS else self.state_db
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(sql, parameters)

    # ---- what must be there

    def checkpoint_of(self, thread_id: str, answer: Answer) -> Path:
        """The resume rollout of a thread in the checkpoint that `answer` tells of, read back and proved right."""
        reference = answer.data["checkpoint"]
        assert reference is not None, answer.envelope["findings"]
        folder = Path(reference["path"])
        manifest = json.loads((folder / "manifest.json").read_bytes())
        (record,) = [one for one in manifest["threads"] if one["thread_id"] == thread_id]
        assert record["verification"]["digests"]["outcome"] == "passed"
        assert record["verification"]["structure"]["outcome"] == "passed"
        lengths = {one["path"]: (one["length"], one["sha256"]) for one in manifest["files"]}
        data = (folder / record["file"]).read_bytes()
        assert lengths[record["file"]] == (len(data), hashlib.sha256(data).hexdigest())
        original = self.rollouts[thread_id].read_bytes()
        lines = set(original.splitlines(keepends=True))
        assert data.splitlines(keepends=True)[0] == original.splitlines(keepends=True)[0]
        assert all(line in lines for line in data.splitlines(keepends=True)), "a line was changed on the way"
        return folder / record["file"]


def call(*words: str | Path) -> Answer:
    """One call of the command line in this process, with ``--json`` among its words."""
    out, err = TextIOWrapper(BytesIO(), "utf-8"), TextIOWrapper(BytesIO(), "utf-8")
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(word) for word in words])
    out.seek(0)
    err.seek(0)
    envelope = json.loads(out.read())
    assert envelope["exit_code"] == code
    return Answer(code, envelope, err.read())


def make_troubled_home(
    folder: Path,
    patient: Callable[[RolloutWriter], object] | bytes | None = None,
    *,
    goal: str | None = "active",
    paginated: bool = False,
    store: Path | None = None,
) -> TroubledHome:
    """A home in `folder`; `patient` writes that thread's rollout behind a healthy beginning, or is all of it.

    `goal` is the status of the patient's goal, None when it has none. The store is beside the home, or at `store`.
    """
    home = TroubledHome(folder / "codex home", store or folder / "store")
    for thread_id in (SOUND, PATIENT, BYSTANDER):
        home.rollouts[thread_id] = rollout_path(home.path, thread_id)
    home.rollouts[STORED] = rollout_path(home.path, STORED, archived=True)
    with RolloutWriter(home.rollouts[SOUND], SOUND, paginated=paginated) as writer:
        healthy(writer)
    if isinstance(patient, bytes):
        home.rollouts[PATIENT].write_bytes(patient)
    else:
        with RolloutWriter(home.rollouts[PATIENT], PATIENT, paginated=paginated) as writer:
            healthy(writer)
            if patient is not None:
                patient(writer)
    for thread_id in (BYSTANDER, STORED):
        with RolloutWriter(home.rollouts[thread_id], thread_id, paginated=paginated) as writer:
            writer.turn("Only this.", outputs=[300])
    create_state_database(home.state_db, [row(home, thread_id) for thread_id in home.rollouts])
    rows = [make_goal(SOUND)]
    if goal is not None:
        rows.append(make_goal(PATIENT, goal))
    create_goals_database(home.goals_db, rows)
    return home


def healthy(writer: RolloutWriter) -> None:
    """A thread with a goal, a compaction, and turns behind it: it has a boundary."""
    writer.turn("Please look around.", outputs=[2_000])
    writer.goal_turn(OBJECTIVE, outputs=[40_000])
    writer.compaction()
    writer.turn("How far are you?", outputs=[500])
    writer.goal_turn(OBJECTIVE, outputs=[500])


def healthy_bytes(folder: Path, thread_id: str = PATIENT, *, paginated: bool = False) -> bytes:
    """A healthy rollout as bytes, for tests that spoil it from the outside."""
    path = rollout_path(folder, thread_id)
    with RolloutWriter(path, thread_id, paginated=paginated) as writer:
        healthy(writer)
    data = path.read_bytes()
    path.unlink()
    return data


def row(home: TroubledHome, thread_id: str) -> ThreadRow:
    return ThreadRow(
        thread_id=thread_id,
        rollout_path=str(home.rollouts[thread_id]),
        archived=thread_id == STORED,
        history_mode=None,
        cli_version="0.134.0",
        updated_at_ms=CREATED_MS,
    )


def make_goal(thread_id: str, status: str = "active", table: GoalTable = GoalTable.GOALS) -> Goal:
    return Goal(
        thread_id=thread_id,
        goal_id=f"4d3c2b1a-0000-4000-8000-{thread_id[-12:]}",
        objective=OBJECTIVE,
        status=status,
        token_budget=5_000_000,
        tokens_used=11_380,
        time_used_seconds=7,
        created_at_ms=CREATED_MS,
        updated_at_ms=CREATED_MS + 361,
        table=table,
    )


@contextmanager
def in_the_background(home: TroubledHome, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The command line as a process of its own that runs while the block does; killed at the end if it still runs."""
    with subprocess.Popen(
        _command(home, words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def answer_of(process: subprocess.Popen[str]) -> Answer:
    """What a call in the background gave, once it has ended."""
    out, err = process.communicate(timeout=120)
    return Answer(process.returncode, json.loads(out), err)


def call_without_root_powers(home: TroubledHome, *words: str) -> Answer:
    """The command line as a process to which permissions apply, also where the tests are run by root."""
    ended = subprocess.run(
        _command(home, words),
        capture_output=True,
        text=True,
        cwd=ROOT,
        preexec_fn=_drop_root_powers if os.geteuid() == 0 else None,
    )
    return Answer(ended.returncode, json.loads(ended.stdout), ended.stderr)


def _command(home: TroubledHome, words: Iterable[str]) -> list[str]:
    places = ["--home", str(home.path), "--store", str(home.store)]
    return [sys.executable, "-m", "preflight", *words, "--json", *places]


def _drop_root_powers() -> None:
    """Root's right to read and write past permissions goes with the next exec (prctl(2), PR_CAPBSET_DROP)."""
    drop_from_bounding_set, dac_override, dac_read_search = 24, 1, 2
    libc = ctypes.CDLL(None, use_errno=True)
    for power in (dac_override, dac_read_search):
        if libc.prctl(drop_from_bounding_set, power, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "the powers of root cannot be dropped here")
