"""Goals are read from wherever a version of Codex keeps them, and nothing that is unclear is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from preflight.codex.goals import read_goals
from preflight.errors import DatabaseBusy, TimeLimitReached, UnknownSchema
from preflight.model import Finding, GoalTable, Severity
from preflight.system.deadline import Deadline
from tests.fixtures_codex import (
    CREATED_MS,
    OBJECTIVE,
    UPDATED_MS,
    CodexHome,
    contents,
    held_by_another_process,
    thread_id,
)

_STATUSES = ["active", "paused", "blocked", "usage_limited", "budget_limited", "complete"]


def _said(findings: tuple[Finding, ...]) -> str:
    return " ".join(str(finding) for finding in findings)


@pytest.mark.parametrize(
    ("version", "table"), [("0.128.0", GoalTable.STATE), ("0.134.0", GoalTable.GOALS), ("0.169.0", GoalTable.GOALS)]
)
def test_every_value_of_a_goal_is_kept(version: str, table: GoalTable, tmp_path: Path) -> None:
    codex = CodexHome(tmp_path / ".codex", version)
    codex.thread(1)
    goal_id = codex.goal(1)

    read = read_goals(codex.found(), Deadline(10))

    (goal,) = read.goals
    assert (goal.thread_id, goal.goal_id, goal.objective) == (thread_id(1), goal_id, OBJECTIVE)
    assert (goal.status, goal.token_budget, goal.tokens_used) == ("active", 5_000_000, 11_380)
    assert (goal.time_used_seconds, goal.created_at_ms, goal.updated_at_ms) == (7, CREATED_MS, UPDATED_MS)
    assert goal.table is table
    assert read.findings == read.set_aside == ()


def test_every_status_is_read_as_it_is_written(tmp_path: Path) -> None:
    codex = CodexHome(tmp_path / ".codex")
    for number, status in enumerate(_STATUSES):
        codex.goal(number, status)

    read = read_goals(codex.found(), Deadline(10))

    assert [goal.status for goal in read.goals] == _STATUSES
    assert [goal.is_active for goal in read.goals] == [True] + [False] * 5
    assert [goal.is_complete for goal in read.goals] == [False] * 5 + [True]
    assert read.findings == ()


def test_a_status_of_the_future_survives_and_blocks(tmp_path: Path) -> None:
    codex = CodexHome(tmp_path / ".codex")
    codex.goal(1)
    codex.execute(
        "goals_1.sqlite", "PRAGMA ignore_check_constraints = 1", "UPDATE thread_goals SET status = 'hibernating'"
    )

    read = read_goals(codex.found(), Deadline(10))

    assert [goal.status for goal in read.goals] == ["hibernating"]
    (finding,) = read.findings
    assert (finding.finding_id, finding.severity) == ("goal-status-unknown", Severity.BLOCK)
    assert finding.measured == "hibernating"
    assert OBJECTIVE not in _said(read.findings)


def test_a_home_without_goals_has_none(tmp_path: Path) -> None:
    after_0_128 = CodexHome(tmp_path / "later", "0.134.0")  # its state database has no goals
    (after_0_128.path / "goals_1.sqlite").unlink()

    assert read_goals(after_0_128.found(), Deadline(10)).goals == ()
    assert read_goals(CodexHome(tmp_path / "new").found(), Deadline(10)).goals == ()


def test_goals_that_agree_in_both_tables_are_one_goal(tmp_path: Path) -> None:
    codex = _with_both_tables(tmp_path, ("paused", "g"), ("paused", "g"))

    read = read_goals(codex.found(), Deadline(10))

    assert [(goal.table, goal.status) for goal in read.goals] == [(GoalTable.STATE, "paused")]
    assert [goal.table for goal in read.set_aside] == [GoalTable.GOALS]
    assert read.findings == ()


@pytest.mark.parametrize(
    ("in_state", "in_goals", "severity"),
    [
        (("active", "g"), ("paused", "g"), Severity.WARN),
        (("paused", "g"), ("paused", "other"), Severity.WARN),
        (("paused", "g"), ("active", "g"), Severity.BLOCK),
        (("active", "g"), ("active", "other"), Severity.BLOCK),
        (("active", "g"), ("active", "g"), Severity.BLOCK),
    ],
)
def test_goals_that_disagree_are_a_finding(
    in_state: tuple[str, str], in_goals: tuple[str, str], severity: Severity, tmp_path: Path
) -> None:
    codex = _with_both_tables(tmp_path, in_state, in_goals)

    read = read_goals(codex.found(), Deadline(10))

    assert [(goal.table, goal.status) for goal in read.goals] == [(GoalTable.STATE, in_state[0])]
    (finding,) = read.findings
    assert (finding.finding_id, finding.severity, finding.thread_id) == ("goals-disagree", severity, thread_id(1))
    assert (finding.measured, finding.expected) == (f"goals: {in_goals[0]}", f"state: {in_state[0]}")
    assert OBJECTIVE not in _said(read.findings)


def _with_both_tables(tmp_path: Path, in_state: tuple[str, str], in_goals: tuple[str, str]) -> CodexHome:
    codex = CodexHome(tmp_path / ".codex", "0.128.0")
    later = CodexHome(tmp_path / "later", "0.134.0")
    later.goal(1, in_goals[0], goal_id=in_goals[1])
    for file in later.path.glob("goals_1.sqlite*"):
        file.rename(codex.path / file.name)
    codex.thread(1)
    codex.goal(1, in_state[0], goal_id=in_state[1])
    return codex


def test_goals_can_be_read_while_codex_writes(tmp_path: Path) -> None:
    codex = CodexHome(tmp_path / ".codex")
    codex.goal(1)
    home = codex.found()

    with held_by_another_process(
        home.path / "goals_1.sqlite", "BEGIN IMMEDIATE", "UPDATE thread_goals SET tokens_used = 1"
    ):
        (goal,) = read_goals(home, Deadline(10)).goals

    assert goal.tokens_used == 11_380


def test_what_was_committed_and_never_written_back_is_seen(tmp_path: Path) -> None:
    """Codex leaves databases whose main file is empty and whose content is all in the -wal."""
    codex = CodexHome(tmp_path / ".codex")
    home = codex.found()
    with held_by_another_process(home.path / "goals_1.sqlite", "SELECT count(*) FROM thread_goals"):
        codex.goal(1)
        assert OBJECTIVE.encode() not in (home.path / "goals_1.sqlite").read_bytes()

        assert len(read_goals(home, Deadline(10)).goals) == 1


def test_a_goals_database_locked_for_a_minute_is_busy_at_the_deadline(tmp_path: Path) -> None:
    codex = CodexHome(tmp_path / ".codex")
    codex.goal(1)
    codex.execute("goals_1.sqlite", "PRAGMA journal_mode = DELETE")
    home = codex.found()
    before = contents(codex.path)

    with held_by_another_process(home.path / "goals_1.sqlite", "BEGIN EXCLUSIVE"):
        with pytest.raises(DatabaseBusy) as caught:
            read_goals(home, Deadline(0.5))
        with pytest.raises(TimeLimitReached):
            read_goals(home, Deadline(0))

    assert caught.value.exit_code == 75
    assert caught.value.path == home.goals_db
    assert contents(codex.path) == before


@pytest.mark.parametrize("rubbish", [b"this is not a database" * 500, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_malformed_goals_database_blocks_and_hides_nothing_else(rubbish: bytes, tmp_path: Path) -> None:
    codex = CodexHome(tmp_path / ".codex", "0.128.0")
    codex.thread(1)
    codex.goal(1)
    (codex.path / "goals_1.sqlite").write_bytes(rubbish)

    read = read_goals(codex.found(), Deadline(10))

    assert [goal.thread_id for goal in read.goals] == [thread_id(1)]
    (finding,) = read.findings
    assert (finding.finding_id, finding.severity) == ("database-damaged", Severity.BLOCK)
    assert finding.path == codex.path / "goals_1.sqlite"


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE thread_goals RENAME TO thread_goals_v2",
        "ALTER TABLE thread_goals RENAME COLUMN goal_id TO id",
        "ALTER TABLE thread_goals DROP COLUMN token_budget",
        "ALTER TABLE thread_goals RENAME COLUMN tokens_used TO tokens_spent",
    ],
)
def test_a_table_that_is_not_as_we_know_it_is_refused_and_left_alone(change: str, tmp_path: Path) -> None:
    codex = CodexHome(tmp_path / ".codex")
    codex.goal(1)
    codex.execute("goals_1.sqlite", change)
    home = codex.found()
    before = contents(codex.path)

    with pytest.raises(UnknownSchema) as caught:
        read_goals(home, Deadline(10))

    assert caught.value.exit_code == 13
    assert caught.value.path == home.goals_db
    assert contents(codex.path) == before


def test_a_new_column_that_must_have_a_value_is_refused(tmp_path: Path) -> None:
    codex = CodexHome(tmp_path / ".codex")
    codex.execute(
        "goals_1.sqlite",
        "DROP TABLE thread_goals",
        "CREATE TABLE thread_goals (thread_id TEXT PRIMARY KEY NOT NULL, goal_id TEXT NOT NULL,"
        " objective TEXT NOT NULL, status TEXT NOT NULL, token_budget INTEGER,"
        " tokens_used INTEGER NOT NULL DEFAULT 0, time_used_seconds INTEGER NOT NULL DEFAULT 0,"
        " created_at_ms INTEGER NOT NULL, updated_at_ms INTEGER NOT NULL, owner TEXT NOT NULL)",
    )

    with pytest.raises(UnknownSchema, match="owner"):
        read_goals(codex.found(), Deadline(10))


@pytest.mark.parametrize("addition", ["owner TEXT", "priority INTEGER NOT NULL DEFAULT 0"])
def test_a_new_column_that_needs_no_value_is_no_hindrance(addition: str, tmp_path: Path) -> None:
    codex = CodexHome(tmp_path / ".codex")
    codex.goal(1)
    codex.execute("goals_1.sqlite", f"ALTER TABLE thread_goals ADD COLUMN {addition}")

    assert len(read_goals(codex.found(), Deadline(10)).goals) == 1


@pytest.mark.parametrize("name", ["goals_2.sqlite", "goals_v2_1.sqlite", "state_6.sqlite"])
def test_a_database_of_a_higher_number_is_refused(name: str, tmp_path: Path) -> None:
    codex = CodexHome(tmp_path / ".codex")
    codex.goal(1)
    kind = name.partition("_")[0]
    (known,) = codex.path.glob(f"{kind}_?.sqlite")
    codex.execute(known.name, "PRAGMA journal_mode = DELETE")
    (codex.path / name).write_bytes(known.read_bytes())

    with pytest.raises(UnknownSchema, match=name):
        read_goals(codex.found(), Deadline(10))
