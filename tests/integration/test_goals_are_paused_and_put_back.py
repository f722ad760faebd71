"""A goal is paused only while it is active, and put back only when nobody has touched it since.

What Codex itself does to a paused row was measured on the real binaries (see `preflight/codex/goals.py`):
nothing at all, until somebody sets the goal, and then `updated_at_ms` tells.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from preflight.codex.goals import Outcome, insert_goal, pause, read_goals, restore_status
from preflight.errors import DamagedFile, DatabaseBusy, UnknownSchema
from preflight.model import Goal, Home
from preflight.system.deadline import Deadline
from tests.fixtures_codex import UPDATED_MS, CodexHome, contents, held_by_another_process, thread_id

_NOW = UPDATED_MS + 60_000
_LATER = _NOW + 3_600_000

VERSIONS = pytest.mark.parametrize("version", ["0.128.0", "0.134.0", "0.169.0"])


def _table(version: str) -> str:
    return "state_5.sqlite" if version == "0.128.0" else "goals_1.sqlite"


def _home(tmp_path: Path, version: str = "0.169.0", status: str = "active") -> tuple[CodexHome, Home, Goal]:
    codex = CodexHome(tmp_path / ".codex", version)
    codex.thread(1)
    codex.thread(2)
    codex.goal(1, status)
    codex.goal(2, "active")
    home = codex.found()
    return codex, home, read_goals(home, Deadline(10)).goals[0]


def _restored(home: Home, goal: Goal, paused_at_ms: int = _NOW, *, paused_until_ms: int | None = None) -> Outcome:
    return restore_status(
        home,
        thread_id=goal.thread_id,
        goal_id=goal.goal_id,
        paused_at_ms=paused_at_ms,
        paused_until_ms=paused_until_ms,
        now_ms=_LATER,
        deadline=Deadline(10),
    )


@VERSIONS
def test_pausing_changes_the_status_the_time_and_nothing_else(version: str, tmp_path: Path) -> None:
    codex, home, goal = _home(tmp_path, version)
    first, second = codex.rows(_table(version))

    assert pause(home, goal, _NOW, Deadline(10)) is True

    assert codex.rows(_table(version)) == [first | {"status": "paused", "updated_at_ms": _NOW}, second]


@VERSIONS
def test_what_was_paused_is_put_back_as_it_was(version: str, tmp_path: Path) -> None:
    codex, home, goal = _home(tmp_path, version)
    before = codex.rows(_table(version))
    pause(home, goal, _NOW, Deadline(10))

    assert _restored(home, goal) is Outcome.RESTORED

    assert codex.rows(_table(version)) == [before[0] | {"updated_at_ms": _LATER}, before[1]]
    assert _restored(home, goal) is Outcome.ALREADY_ACTIVE


@pytest.mark.parametrize("status", ["paused", "blocked", "usage_limited", "budget_limited", "complete"])
def test_a_goal_that_is_not_active_is_not_paused(status: str, tmp_path: Path) -> None:
    codex, home, goal = _home(tmp_path, status=status)
    before = codex.rows("goals_1.sqlite")

    assert pause(home, replace(goal, status="active"), _NOW, Deadline(10)) is False

    assert codex.rows("goals_1.sqlite") == before


def test_a_goal_that_was_replaced_meanwhile_is_not_paused(tmp_path: Path) -> None:
    codex, home, goal = _home(tmp_path)
    codex.execute("goals_1.sqlite", ("UPDATE thread_goals SET goal_id = 'new' WHERE thread_id = ?", (thread_id(1),)))

    assert pause(home, goal, _NOW, Deadline(10)) is False
    assert _restored(home, goal) is Outcome.REPLACED


def test_a_home_that_lost_its_goals_has_nothing_to_pause(tmp_path: Path) -> None:
    _, home, goal = _home(tmp_path)

    assert pause(replace(home, goals_db=None), goal, _NOW, Deadline(10)) is False
    assert _restored(replace(home, goals_db=None), goal) is Outcome.DROPPED


# Each of these is what a `thread/goal/set`, or the model at the end of its turn, leaves in the row.
@pytest.mark.parametrize(
    "change",
    [
        f"status = 'paused', updated_at_ms = {_NOW + 1}",
        f"objective = 'something else', updated_at_ms = {_NOW + 1}",
        f"token_budget = NULL, updated_at_ms = {_NOW + 1}",
        f"status = 'complete', updated_at_ms = {_NOW + 1}",
        f"status = 'blocked', updated_at_ms = {_NOW}",
        f"status = 'paused', updated_at_ms = {_NOW - 1}",
    ],
)
def test_what_a_person_changed_meanwhile_stays_as_it_is(change: str, tmp_path: Path) -> None:
    codex, home, goal = _home(tmp_path)
    pause(home, goal, _NOW, Deadline(10))
    codex.execute("goals_1.sqlite", (f"UPDATE thread_goals SET {change} WHERE thread_id = ?", (thread_id(1),)))
    before = codex.rows("goals_1.sqlite")

    assert _restored(home, goal) is Outcome.CHANGED

    assert codex.rows("goals_1.sqlite") == before


def test_a_goal_that_was_set_active_meanwhile_is_left_running(tmp_path: Path) -> None:
    codex, home, goal = _home(tmp_path)
    pause(home, goal, _NOW, Deadline(10))
    codex.execute("goals_1.sqlite", f"UPDATE thread_goals SET status = 'active', updated_at_ms = {_NOW + 9}")

    assert _restored(home, goal) is Outcome.ALREADY_ACTIVE
    assert {row["updated_at_ms"] for row in codex.rows("goals_1.sqlite")} == {_NOW + 9}


def test_a_pause_whose_answer_was_never_seen_is_known_by_its_time(tmp_path: Path) -> None:
    """The runtime paused it for us and wrote its own time; we were killed before we read it."""
    _, home, goal = _home(tmp_path)
    pause(home, goal, _NOW + 700, Deadline(10))

    assert _restored(home, goal, _NOW) is Outcome.CHANGED
    assert _restored(home, goal, _NOW, paused_until_ms=_NOW + 699) is Outcome.CHANGED
    assert _restored(home, goal, _NOW, paused_until_ms=_NOW + 10_000) is Outcome.RESTORED


def test_a_goal_that_an_update_dropped_is_written_anew_with_every_value(tmp_path: Path) -> None:
    """0.134 drops the table of 0.128 and makes an empty one of its own."""
    _, before, goal = _home(tmp_path / "before", "0.128.0")
    pause(before, goal, _NOW, Deadline(10))
    codex = CodexHome(tmp_path / "after" / ".codex", "0.134.0")
    codex.thread(1)
    after = codex.found()

    assert _restored(after, goal) is Outcome.DROPPED
    assert insert_goal(after, goal, Deadline(10)) is Outcome.INSERTED

    (found,) = read_goals(after, Deadline(10)).goals
    assert found == replace(goal, table=found.table)
    assert insert_goal(after, replace(goal, goal_id="another"), Deadline(10)) is Outcome.EXISTS
    assert read_goals(after, Deadline(10)).goals == (found,)


def test_a_dropped_goal_goes_back_to_0_128_only_when_its_thread_is_there(tmp_path: Path) -> None:
    codex, home, goal = _home(tmp_path, "0.128.0")
    codex.execute("state_5.sqlite", "DELETE FROM thread_goals", ("DELETE FROM threads WHERE id = ?", (thread_id(1),)))

    assert insert_goal(home, goal, Deadline(10)) is Outcome.NO_PLACE

    codex.row(1, "/anywhere")
    assert insert_goal(home, goal, Deadline(10)) is Outcome.INSERTED


def test_where_codex_has_made_no_table_yet_nothing_is_written(tmp_path: Path) -> None:
    _, home, goal = _home(tmp_path, "0.134.0")

    assert insert_goal(replace(home, goals_db=None), goal, Deadline(10)) is Outcome.NO_PLACE
    assert insert_goal(replace(home, goals_db=None, state_db=None), goal, Deadline(10)) is Outcome.NO_PLACE


def test_a_status_that_this_version_does_not_know_is_not_written(tmp_path: Path) -> None:
    codex, home, goal = _home(tmp_path, "0.128.0")
    codex.execute("state_5.sqlite", "DELETE FROM thread_goals")

    with pytest.raises(UnknownSchema):
        insert_goal(home, replace(goal, status="usage_limited"), Deadline(10))

    assert codex.rows("state_5.sqlite") == []


def test_a_table_of_the_future_is_not_written_to(tmp_path: Path) -> None:
    codex, home, goal = _home(tmp_path)
    codex.execute("goals_1.sqlite", "ALTER TABLE thread_goals RENAME COLUMN updated_at_ms TO changed_at_ms")
    before = contents(codex.path)

    with pytest.raises(UnknownSchema):
        pause(home, goal, _NOW, Deadline(10))
    with pytest.raises(UnknownSchema):
        _restored(home, goal)
    with pytest.raises(UnknownSchema):
        insert_goal(home, goal, Deadline(10))

    assert contents(codex.path) == before


def test_a_database_that_codex_keeps_locked_is_busy_and_unchanged(tmp_path: Path) -> None:
    codex, home, goal = _home(tmp_path)

    with held_by_another_process(home.path / "goals_1.sqlite", "BEGIN IMMEDIATE"), pytest.raises(DatabaseBusy):
        pause(home, goal, _NOW, Deadline(0.3))

    assert [row["status"] for row in codex.rows("goals_1.sqlite")] == ["active", "active"]
    assert pause(home, goal, _NOW, Deadline(10)) is True


def test_a_damaged_state_database_does_not_keep_a_goal_from_coming_back(tmp_path: Path) -> None:
    codex, home, goal = _home(tmp_path)
    pause(home, goal, _NOW, Deadline(10))
    for file in codex.path.glob("state_5.sqlite*"):
        file.write_bytes(b"not a database" * 1000)

    assert _restored(home, goal) is Outcome.RESTORED
    with pytest.raises(DamagedFile):
        insert_goal(home, goal, Deadline(10))


_ACCOUNTING = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
print("up", flush=True)
while True:
    row = connection.execute("SELECT status FROM thread_goals WHERE thread_id = ?", (sys.argv[2],)).fetchone()
    if row[0] != "active":
        break
    connection.execute(
        "UPDATE thread_goals SET tokens_used = tokens_used + 1, updated_at_ms = updated_at_ms + 1"
        " WHERE thread_id = ? AND status = 'active'", (sys.argv[2],))
"""


def test_a_running_goal_is_paused_once_and_for_all(tmp_path: Path) -> None:
    """Another process accounts tokens as fast as it can, as Codex does, and ends when it sees the pause."""
    codex, home, goal = _home(tmp_path)
    command = [sys.executable, "-c", _ACCOUNTING, str(home.goals_db), thread_id(1)]

    with subprocess.Popen(command, stdout=subprocess.PIPE) as runtime:
        assert runtime.stdout is not None
        assert runtime.stdout.readline() == b"up\n"
        assert pause(home, goal, _NOW, Deadline(10)) is True
        assert runtime.wait(20) == 0

    assert _restored(home, goal) is Outcome.RESTORED
    with closing(sqlite3.connect(codex.path / "goals_1.sqlite")) as connection:
        assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
