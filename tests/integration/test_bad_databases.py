"""Databases that are locked, malformed or of a version to come: an answer in time, and nothing changed by it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from preflight import home_run, pause
from tests.fixtures_codex import contents, held_by_another_process
from tests.troubled_home import (
    BYSTANDER,
    PATIENT,
    SOUND,
    TroubledHome,
    answer_of,
    in_the_background,
    make_troubled_home,
)

DATABASES = ("goals_1.sqlite", "state_5.sqlite")


@pytest.fixture(autouse=True)
def no_codex(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(user))


@pytest.fixture
def home(tmp_path: Path) -> TroubledHome:
    return make_troubled_home(tmp_path)


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def with_a_rollback_journal(path: Path) -> None:
    """Without a write-ahead log an exclusive lock keeps readers out too, for as long as it is held."""
    change(path, "PRAGMA journal_mode = DELETE")


# ---- locked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["check", "run", "run --dry-run"])
@pytest.mark.parametrize("database", DATABASES)
def test_a_database_that_is_locked_for_longer_than_the_call_may_take_ends_it_with_75(
    home: TroubledHome, database: str, verb: str
) -> None:
    with_a_rollback_journal(home.path / database)
    before, goals = contents(home.path), home.goals()
    with held_by_another_process(home.path / database, "BEGIN EXCLUSIVE"):
        answer = home.call(*verb.split(), "--timeout", "0.5")
        assert answer.code == 75
        (error,) = answer.envelope["errors"]
        assert error["code"] in ("database-busy", "time-limit")
        assert error["hint"]
    assert contents(home.path) == before
    assert home.goals() == goals
    assert not home.store.exists()
    assert home.call(*verb.split()).code in (0, 3), "the lock is gone, and so is the reason"


@pytest.mark.parametrize("verb", ["finish", "resume-goals"])
def test_a_locked_database_keeps_goals_paused_until_the_next_call(home: TroubledHome, verb: str) -> None:
    with_a_rollback_journal(home.goals_db)
    goals = home.goals()
    assert home.call("run").code == 0
    rows = home.goal_rows()
    with held_by_another_process(home.goals_db, "BEGIN EXCLUSIVE"):
        assert home.call(verb, "--timeout", "0.5").code == 75
    assert home.goal_rows() == rows
    assert home.call(verb).code == 0
    assert home.goals() == goals


def test_the_command_line_waits_no_longer_than_it_was_told_to(home: TroubledHome) -> None:
    """As an updater calls it: a process of its own, and a lock that outlasts it."""
    with_a_rollback_journal(home.goals_db)
    with (
        held_by_another_process(home.goals_db, "BEGIN EXCLUSIVE"),
        in_the_background(home, "run", "--timeout", "1") as process,
    ):
        assert answer_of(process).code == 75


def test_a_lock_that_comes_between_pause_and_confirmation_is_told_with_what_is_left_to_do(
    home: TroubledHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not 75: that says "nothing was left changed", and here a goal is left paused."""
    with_a_rollback_journal(home.goals_db)
    goals = home.goals()
    monkeypatch.setattr(home_run, "_PUT_BACK_SECONDS", 0.5)
    with ExitStack() as lock:
        really = pause._confirm

        def locked_by_now(*arguments: object) -> None:
            lock.enter_context(held_by_another_process(home.goals_db, "BEGIN EXCLUSIVE"))
            really(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(pause, "_confirm", locked_by_now)
        answer = home.call("run", "--timeout", "1")
    (error,) = answer.envelope["errors"]
    assert (answer.code, error["code"]) == (1, "goals-stay-paused")
    assert error["hint"] == "preflight resume-goals"
    assert {row["status"] for row in home.goals().values()} == {"paused"}

    assert home.call("resume-goals").code == 0
    assert home.goals() == goals


def test_a_reader_and_a_writer_of_a_database_with_a_log_keep_nobody_waiting(home: TroubledHome) -> None:
    with held_by_another_process(home.goals_db, "BEGIN", "SELECT * FROM thread_goals"):
        assert home.call("run").code == 0
    with held_by_another_process(home.goals_db, "BEGIN IMMEDIATE"):
        assert home.call("check").code == 0
        assert home.call("resume-goals", "--timeout", "0.5").code == 75
    assert home.call("resume-goals").code == 0


# ---- malformed ----------------------------------------------------------------------------------------------


def no_database(path: Path) -> None:
    path.write_bytes(b"this was a database once\n" * 400)


def garbled_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(range(256)) * ((len(data) - 4096) // 256)
    path.write_bytes(data)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def text_that_is_not_utf8(path: Path) -> None:
    change(path, "UPDATE thread_goals SET objective = CAST(x'fffe' AS TEXT)")


@pytest.mark.parametrize("spoil", [no_database, garbled_pages, cut_in_half, text_that_is_not_utf8])
def test_a_malformed_goals_database_blocks_and_is_left_as_it_is(
    home: TroubledHome, spoil: Callable[[Path], None]
) -> None:
    spoil(home.goals_db)
    before, rollouts = home.goals_db.read_bytes(), home.digests()

    looked = home.call("check")
    assert looked.code == 10
    assert looked.findings()["database-damaged"]["path"] == str(home.goals_db)

    answer = home.call("run", "--thread", SOUND)
    assert answer.verdict == "block"
    assert "database-damaged" in answer.findings()
    assert home.goals_db.read_bytes() == before
    assert home.digests() == rollouts
    home.checkpoint_of(SOUND, answer)
    assert [one["code"] for one in answer.envelope["errors"]] == []


@pytest.mark.parametrize("spoil", [no_database, garbled_pages, cut_in_half])
def test_a_malformed_state_database_blocks_and_goal_threads_are_found_by_their_files(
    home: TroubledHome, spoil: Callable[[Path], None]
) -> None:
    spoil(home.state_db)
    before, goals = home.state_db.read_bytes(), home.goals()
    assert home.call("check").findings()["database-damaged"]["path"] == str(home.state_db)
    answer = home.call("run")
    assert answer.code == 12
    assert answer.findings().keys() == {"database-damaged", "checkpoint-failed"}
    for thread_id in (SOUND, PATIENT):
        home.checkpoint_of(thread_id, answer)
    assert home.state_db.read_bytes() == before
    assert home.goals() == goals


def test_a_malformed_database_of_another_kind_fails_the_checkpoint_and_nothing_else(home: TroubledHome) -> None:
    (home.path / "memories_1.sqlite").write_bytes(b"not one" * 1000)
    goals = home.goals()
    answer = home.call("run")
    assert (answer.code, answer.findings().keys()) == (12, {"checkpoint-failed"})
    for thread_id in (SOUND, PATIENT):
        home.checkpoint_of(thread_id, answer)
    assert home.goals() == goals


def test_a_projection_that_cannot_be_read_is_a_warning_for_it_holds_nothing_of_its_own(home: TroubledHome) -> None:
    (home.path / "thread_history_1.sqlite").write_bytes(b"not one" * 1000)
    answer = home.call("run")
    assert (answer.code, answer.findings().keys()) == (3, {"projection-unreadable"})


# ---- rows that no Codex writes ------------------------------------------------------------------------------


def without_rules(home: TroubledHome, row: str) -> None:
    """Changes the patient's row to what the rules of the table forbid, and another version's may allow."""
    change(
        home.goals_db,
        "CREATE TABLE other AS SELECT * FROM thread_goals",
        "DROP TABLE thread_goals",
        "ALTER TABLE other RENAME TO thread_goals",
        f"UPDATE thread_goals SET {row} WHERE thread_id = '{PATIENT}'",
    )


def test_a_status_that_is_not_known_blocks_and_survives(home: TroubledHome) -> None:
    without_rules(home, "status = 'dreaming'")
    goals = home.goals()
    answer = home.call("run")
    assert (answer.code, answer.findings().keys()) == (10, {"goal-status-unknown"})
    assert answer.findings(PATIENT)["goal-status-unknown"]["measured"] == "dreaming"
    assert home.goals() == goals
    home.checkpoint_of(SOUND, answer)


@pytest.mark.parametrize(
    "row",
    [
        "tokens_used = 'many'",
        "updated_at_ms = 'yesterday'",
        "updated_at_ms = 1.5e300",
        "created_at_ms = x'00ff'",
        "token_budget = 'none'",
        "goal_id = x'00ff'",
        "objective = NULL",
        "status = x'01'",
    ],
)
def test_a_goal_row_that_no_codex_writes_blocks_and_is_not_touched(home: TroubledHome, row: str) -> None:
    """A line of the journal with such values could not be read back: the goal would stay paused for ever."""
    without_rules(home, row)
    rows, goals = home.goal_rows(), home.goals()
    looked = home.call("check")
    assert (looked.code, looked.findings(PATIENT).keys()) == (10, {"goal-row-damaged"})
    answer = home.call("run")
    assert (answer.code, answer.findings().keys()) == (10, {"goal-row-damaged"})
    home.checkpoint_of(SOUND, answer)
    assert home.goals() == goals
    assert home.goal_rows()[PATIENT] == rows[PATIENT]


@pytest.mark.parametrize("moment", [-1, 2**63 - 1])
def test_a_goal_of_an_impossible_time_is_paused_and_put_back_like_any_other(home: TroubledHome, moment: int) -> None:
    home.change_goals("UPDATE thread_goals SET updated_at_ms = ? WHERE thread_id = ?", moment, PATIENT)
    goals = home.goals()
    assert home.call("check").code == 3
    assert home.call("run").code == 0
    assert home.call("finish").code == 0
    assert home.goals() == goals


@pytest.mark.parametrize(
    "path",
    [
        "''",
        "NULL",
        "x'00ff'",
        "12",
        "'/'",
        "'.'",
        "'a' || char(0) || 'b'",
        "'~/x.jsonl'",
        "'\\\\server\\share\\x.jsonl'",
    ],
)
def test_a_row_that_names_no_sensible_place_is_a_finding_of_its_thread_only(home: TroubledHome, path: str) -> None:
    change(
        home.state_db,
        "CREATE TABLE other AS SELECT * FROM threads",
        "DROP TABLE threads",
        "ALTER TABLE other RENAME TO threads",
        f"UPDATE threads SET rollout_path = {path} WHERE id IN ('{PATIENT}', '{BYSTANDER}')",
    )
    answer = home.call("run")
    assert answer.envelope["errors"] == []
    assert answer.code == 3
    assert set(answer.findings()) == {"rollout-moved"}
    for thread_id in (SOUND, PATIENT):
        home.checkpoint_of(thread_id, answer)


# ---- of a version to come -----------------------------------------------------------------------------------


def a_second_goals_database(home: TroubledHome) -> None:
    change(home.path / "goals_2.sqlite", "CREATE TABLE thread_goals (thread_id TEXT)")


def a_sixth_state_database(home: TroubledHome) -> None:
    change(home.path / "state_6.sqlite", "CREATE TABLE threads (id TEXT)")


def a_new_layout(home: TroubledHome) -> None:
    change(home.path / "goals_v2_1.sqlite", "CREATE TABLE thread_goals (thread_id TEXT)")


def goals_without_a_status(home: TroubledHome) -> None:
    change(home.goals_db, "ALTER TABLE thread_goals RENAME COLUMN status TO phase")


def goals_that_need_more(home: TroubledHome) -> None:
    change(
        home.goals_db,
        "CREATE TABLE other AS SELECT * FROM thread_goals",
        "DROP TABLE thread_goals",
        "CREATE TABLE thread_goals (thread_id, goal_id, objective, status, token_budget, tokens_used,"
        " time_used_seconds, created_at_ms, updated_at_ms, owner TEXT NOT NULL)",
    )


def goals_under_another_name(home: TroubledHome) -> None:
    change(home.goals_db, "ALTER TABLE thread_goals RENAME TO objectives")


def an_empty_goals_database(home: TroubledHome) -> None:
    home.goals_db.write_bytes(b"")


def threads_without_a_path(home: TroubledHome) -> None:
    change(home.state_db, "ALTER TABLE threads RENAME COLUMN rollout_path TO place")


@pytest.mark.parametrize("verb", ["check", "run", "run --dry-run"])
@pytest.mark.parametrize(
    "lay",
    [
        a_second_goals_database,
        a_sixth_state_database,
        a_new_layout,
        goals_without_a_status,
        goals_that_need_more,
        goals_under_another_name,
        an_empty_goals_database,
        threads_without_a_path,
    ],
)
def test_a_schema_that_is_not_known_is_refused_before_anything_is_written(
    home: TroubledHome, lay: Callable[[TroubledHome], None], verb: str
) -> None:
    lay(home)
    before = contents(home.path)
    answer = home.call(*verb.split())
    (error,) = answer.envelope["errors"]
    assert (answer.code, error["code"]) == (13, "unknown-schema")
    assert ".sqlite" in error["message"]
    assert contents(home.path) == before
    assert not home.store.exists()


def test_an_update_to_a_schema_that_is_not_known_leaves_the_goals_to_a_later_finish(home: TroubledHome) -> None:
    goals = home.goals()
    assert home.call("run").code == 0
    rows = home.goal_rows()
    a_second_goals_database(home)
    for verb in ("finish", "resume-goals"):
        assert home.call(verb).code == 13
        assert home.goal_rows() == rows
    (home.path / "goals_2.sqlite").unlink()
    assert home.call("finish").code == 0
    assert home.goals() == goals


def test_tables_and_columns_that_only_add_something_are_no_reason_to_stop(home: TroubledHome) -> None:
    change(home.goals_db, "ALTER TABLE thread_goals ADD COLUMN mood TEXT", "CREATE TABLE moods (mood TEXT)")
    change(home.state_db, "ALTER TABLE threads ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'")
    assert home.call("run").code == 0
    assert home.call("finish").code == 0
