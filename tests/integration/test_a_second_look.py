"""A home that is looked at twice: the second look sees all that has changed, and takes over what has not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from preflight.codex.threads import ThreadsFound, find_threads
from preflight.system.deadline import Deadline
from tests.fixtures_codex import CodexHome, thread_id

Change = Callable[[CodexHome], object]


@pytest.fixture
def home(tmp_path: Path) -> CodexHome:
    """Three sound threads, one with a goal; the third one is paginated."""
    home = CodexHome(tmp_path / ".codex")
    for number in (1, 2):
        home.thread(number, size=20_000)
    home.thread(3, size=20_000, ordinal=0)
    home.goal(1)
    return home


def look(home: CodexHome, earlier: ThreadsFound | None = None) -> ThreadsFound:
    return find_threads(home.found(), Deadline(None), earlier)


def rollout(home: CodexHome, number: int) -> Path:
    (path,) = home.path.glob(f"sessions/*/*/*/rollout-*-{thread_id(number)}.jsonl")
    return path


def test_what_has_not_changed_is_taken_over(home: CodexHome) -> None:
    first = look(home)
    second = look(home, first)

    assert second == first
    assert all(one is other for one, other in zip(second.threads, first.threads, strict=True))


def grown(home: CodexHome) -> None:
    with rollout(home, 2).open("ab") as file:
        file.write(b"{}\n")


def replaced(home: CodexHome) -> None:
    """Another file of the same length under the same name."""
    path = rollout(home, 2)
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


@pytest.mark.parametrize(
    "change",
    [
        grown,
        lambda home: os.truncate(rollout(home, 2), 100),
        replaced,
        lambda home: rollout(home, 3).unlink(),
        lambda home: rollout(home, 2).rename(home.path / "sessions" / rollout(home, 2).name),
        lambda home: home.rollout(2, size=30_000, stamp="2026-11-23T08-00-00"),
        lambda home: home.rollout(3, segment=9, base=(thread_id(3), 1, 15_000), stamp="2026-11-23T08-00-00"),
        lambda home: home.thread(4, size=20_000),
        lambda home: home.thread(5, base=(thread_id(3), 1, 15_000)),
        lambda home: home.goal(2),
        lambda home: home.execute("goals_1.sqlite", "UPDATE thread_goals SET status = 'paused'"),
        lambda home: home.execute("goals_1.sqlite", "DELETE FROM thread_goals"),
        lambda home: home.execute("state_5.sqlite", "UPDATE threads SET archived = 1"),
        lambda home: home.execute("state_5.sqlite", "UPDATE threads SET rollout_path = '/elsewhere' || rollout_path"),
        lambda home: home.execute("state_5.sqlite", "DELETE FROM threads"),
        lambda home: home.execute("state_5.sqlite", ("DELETE FROM threads WHERE id = ?", (thread_id(1),))),
    ],
)
def test_what_has_changed_is_seen(home: CodexHome, change: Change) -> None:
    first = look(home)
    change(home)

    second = look(home, first)

    assert second == look(home)
    assert second != first


def test_a_thread_without_a_row_is_joined_anew_when_the_rows_can_be_read_again(home: CodexHome) -> None:
    home.execute("state_5.sqlite", ("DELETE FROM threads WHERE id = ?", (thread_id(1),)))
    database = home.path / "state_5.sqlite"
    content = database.read_bytes()
    database.write_bytes(b"not a database" * 1000)
    first = look(home)
    database.write_bytes(content)

    second = look(home, first)

    assert second == look(home)
    assert "row-missing" in {finding.finding_id for thread in second.threads for finding in thread.findings}
