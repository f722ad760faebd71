"""The sample home is what the demo and many tests stand on: real formats, the same bytes every time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from preflight.codex.sample_home import create_goals_database, make_sample_home
from preflight.codex.sample_records import sample_uuid
from preflight.codex.sample_rollout import RolloutWriter, rollout_path
from preflight.model import GoalStatus, HistoryBase

THREAD = sample_uuid(1_780_131_600_000, "a thread")

# Keys in their order as Codex 0.134.0 wrote them: what follows `"payload":` for each kind of record.
SHAPES_0_134 = {
    "session_meta": "id timestamp cwd originator cli_version source model_provider base_instructions",
    "task_started": "type turn_id started_at model_context_window collaboration_mode_kind",
    "turn_context": "turn_id cwd current_date timezone approval_policy sandbox_policy permission_profile model "
    "personality collaboration_mode realtime_active summary",
    "user_message": "type message images local_images text_elements",
    "agent_message": "type message phase memory_citation",
    "message": "type role content",
    "function_call": "type name arguments call_id",
    "function_call_output": "type call_id output",
    "token_count": "type info rate_limits",
    "thread_goal_updated": "type threadId turnId goal",
    "compacted": "message replacement_history",
    "context_compacted": "type",
    "thread_rolled_back": "type num_turns",
    "task_complete": "type turn_id last_agent_message completed_at duration_ms time_to_first_token_ms",
}


def records_of(path: Path) -> Iterator[dict]:
    with path.open("rb") as lines:
        for line in lines:
            yield json.loads(line)


def kind_of(record: dict) -> str:
    return record["payload"].get("type", record["type"])


def test_the_same_call_gives_the_same_rollouts(tmp_path):
    first = make_sample_home(tmp_path / "first", large_bytes=300_000)
    second = make_sample_home(tmp_path / "second", large_bytes=300_000)
    for name in ("large_rollout", "damaged_rollout", "control_rollout"):
        assert getattr(first, name).read_bytes() == getattr(second, name).read_bytes()
    assert first.goal == second.goal


@pytest.mark.parametrize("paginated", [False, True])
@pytest.mark.parametrize("large_bytes", [150_000, 5_000_000])
def test_the_large_thread_has_its_size_many_compactions_and_its_boundary_near_the_end(tmp_path, large_bytes, paginated):
    home = make_sample_home(tmp_path / "home", large_bytes=large_bytes, paginated=paginated)
    content = home.large_rollout.read_bytes()
    assert large_bytes <= len(content) < large_bytes + 20_000
    assert content.count(b'"type":"compacted"') >= 2
    assert 0 < len(content) - content.rfind(b'"type":"compacted"') <= large_bytes // 4 + 10_000
    assert kind_of(list(records_of(home.large_rollout))[-1]) == "task_complete"


def test_every_line_of_a_healthy_thread_is_a_record_and_line_0_names_the_thread(tmp_path):
    home = make_sample_home(tmp_path / "home", large_bytes=200_000)
    for thread_id, path in (
        (home.large_thread_id, home.large_rollout),
        (home.control_thread_id, home.control_rollout),
    ):
        records = list(records_of(path))
        assert records[0]["type"] == "session_meta"
        assert records[0]["payload"]["id"] == thread_id
        assert path.name.endswith(f"{thread_id}.jsonl")
        assert all(list(record) == ["timestamp", "type", "payload"] for record in records)
        assert [r["timestamp"] for r in records] == sorted(r["timestamp"] for r in records)


def test_the_damaged_thread_has_bad_utf_8_nul_bytes_and_a_torn_last_line(tmp_path):
    home = make_sample_home(tmp_path / "home", large_bytes=100_000)
    content = home.damaged_rollout.read_bytes()
    assert b"\0" * 4096 in content
    assert not content.endswith(b"\n")
    with pytest.raises(UnicodeDecodeError):
        content.decode()
    whole_lines = [line for line in content.split(b"\n")[:-1] if b"\xff" not in line and b"\0" not in line]
    assert len([json.loads(line) for line in whole_lines]) > 10


def test_the_databases_hold_the_threads_and_the_goal_in_wal_mode(tmp_path):
    home = make_sample_home(tmp_path / "home", large_bytes=100_000, goal_status=GoalStatus.PAUSED)
    with closing(sqlite3.connect(home.goals_db)) as goals:
        assert goals.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert goals.execute("SELECT thread_id, goal_id, status FROM thread_goals").fetchall() == [
            (home.large_thread_id, home.goal.goal_id, "paused")
        ]
        assert goals.execute("SELECT version, success FROM _sqlx_migrations").fetchall() == [(1, 1)]
    with closing(sqlite3.connect(home.state_db)) as state:
        assert state.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        rows = dict(state.execute("SELECT id, rollout_path FROM threads"))
    assert rows == {
        home.large_thread_id: str(home.large_rollout),
        home.damaged_thread_id: str(home.damaged_rollout),
        home.control_thread_id: str(home.control_rollout),
    }


def test_the_goals_table_refuses_a_status_that_codex_would_refuse(tmp_path):
    create_goals_database(tmp_path / "goals_1.sqlite", [])
    with closing(sqlite3.connect(tmp_path / "goals_1.sqlite")) as goals, pytest.raises(sqlite3.IntegrityError):
        goals.execute("INSERT INTO thread_goals VALUES ('t', 'g', 'o', 'sleeping', NULL, 0, 0, 0, 0)")


def test_a_legacy_thread_has_the_keys_that_codex_0_134_wrote_in_their_order(tmp_path):
    path = rollout_path(tmp_path, THREAD)
    with RolloutWriter(path, THREAD) as writer:
        writer.turn("One", outputs=(100,))
        writer.rollback(1)
        writer.goal_turn("Finish")
        writer.compaction()
    seen = {kind_of(record): " ".join(record["payload"]) for record in records_of(path)}
    last_turn_had_no_answer = SHAPES_0_134["task_complete"].removesuffix(" time_to_first_token_ms")
    assert seen == {**SHAPES_0_134, "task_complete": last_turn_had_no_answer}


def test_a_paginated_thread_counts_its_records_and_shows_items_instead_of_messages(tmp_path):
    path = rollout_path(tmp_path, THREAD)
    with RolloutWriter(path, THREAD, paginated=True) as writer:
        writer.turn("One", outputs=(100,))
        writer.compaction()
    records = list(records_of(path))
    assert [record["ordinal"] for record in records] == list(range(len(records)))
    assert writer.next_ordinal == len(records)
    kinds = [kind_of(record) for record in records]
    assert "user_message" not in kinds
    shown = [record["payload"]["item"]["type"] for record in records if kind_of(record) == "item_completed"]
    assert shown == ["UserMessage", "CommandExecution", "AgentMessage", "ContextCompaction"]


def test_a_fork_goes_on_where_its_base_stops(tmp_path):
    base_path = rollout_path(tmp_path, THREAD)
    with RolloutWriter(base_path, THREAD, paginated=True) as base:
        base.turn("One")
    child = sample_uuid(1_780_131_600_000, "a fork")
    history_base = HistoryBase(file_id=THREAD, end_ordinal_exclusive=base.next_ordinal, end_byte_offset=base.size_bytes)
    with RolloutWriter(rollout_path(tmp_path, child), child, paginated=True, base=history_base) as fork:
        fork.turn("Two")
    first = next(records_of(fork.path))
    assert first["ordinal"] == base.next_ordinal
    assert first["payload"]["history_base"] == {
        "thread_id": THREAD,
        "end_ordinal_exclusive": base.next_ordinal,
        "end_byte_offset": base_path.stat().st_size,
    }


@pytest.mark.parametrize(("end", "last"), [("complete", "task_complete"), ("aborted", "turn_aborted")])
def test_a_turn_ends_as_it_is_told_to(tmp_path, end, last):
    with RolloutWriter(rollout_path(tmp_path, THREAD), THREAD) as writer:
        turn_id = writer.turn("One", end=end)
    record = list(records_of(writer.path))[-1]
    assert (kind_of(record), record["payload"]["turn_id"]) == (last, turn_id)


def test_an_open_turn_is_left_in_progress(tmp_path):
    with RolloutWriter(rollout_path(tmp_path, THREAD), THREAD) as writer:
        writer.turn("One", outputs=(10,), end="open")
    kinds = [kind_of(record) for record in records_of(writer.path)]
    assert "task_started" in kinds
    assert not {"task_complete", "turn_aborted"} & set(kinds)


def test_an_automatic_compaction_stands_behind_the_context_of_its_turn(tmp_path):
    with RolloutWriter(rollout_path(tmp_path, THREAD), THREAD) as writer:
        writer.turn("One", compacts=True)
    kinds = [kind_of(record) for record in records_of(writer.path)]
    assert kinds.index("turn_context") < kinds.index("compacted")


@pytest.mark.parametrize("size", [1, 64, 5_000, 3_000_000])
def test_an_output_is_as_long_as_asked_for_up_to_a_whole_line(tmp_path, size):
    with RolloutWriter(rollout_path(tmp_path, THREAD), THREAD) as writer:
        before = writer.size_bytes
        writer.turn("One", outputs=(size,))
    outputs = [r["payload"]["output"] for r in records_of(writer.path) if kind_of(r) == "function_call_output"]
    assert len(outputs) == 1
    assert outputs[0].endswith("\n")
    assert writer.size_bytes == writer.path.stat().st_size
    assert size <= writer.size_bytes - before < size + 64 + 5_000


def test_a_file_that_exists_is_left_alone(tmp_path):
    path = rollout_path(tmp_path, THREAD)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        RolloutWriter(path, THREAD)
    assert path.read_bytes() == b"mine"


def test_ids_are_version_7_uuids_of_their_instant():
    made = sample_uuid(0x0190ABCDEF12, "name")
    assert made.startswith("0190abcd-ef12-7")
    assert made[19] in "89ab"
    assert made == sample_uuid(0x0190ABCDEF12, "name") != sample_uuid(0x0190ABCDEF12, "other")
