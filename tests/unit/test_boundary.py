"""The boundary: what is kept gives Codex the same history, and nothing more is read than needed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preflight.codex import boundary, history, lineage, resume_rollout, rollout
from preflight.codex.sample_rollout import RolloutWriter, rollout_path
from preflight.errors import DamagedFile
from preflight.model import HistoryBase, RolloutFile, Segment, TurnState
from tests.codex_oracle import model_view

THREAD = "01a2036d-0000-7000-8000-000000000001"


def listed(path: Path) -> RolloutFile:
    name = rollout.parse_name(path.name)
    assert name is not None
    return RolloutFile(
        place=str(path),
        thread_id=name.thread_id,
        segment_id=name.segment_id,
        stamp=name.stamp,
        archived=False,
        compressed=name.compressed,
        identity=rollout.identity_of(path.stat()),
    )


def lineage_at(path: Path) -> tuple[Segment, ...]:
    files = rollout.scan(path.parents[4]).files
    by_id: dict[str, list[RolloutFile]] = {}
    for file in files:
        by_id.setdefault(file.file_id, []).append(file)
    chain, findings = lineage.lineage_of(listed(path), by_id)
    assert not findings
    return chain


def reduced(path: Path, gap_limit: int = boundary.GAP_LIMIT) -> tuple[bytes, resume_rollout.ResumePlan]:
    with boundary.opened(lineage_at(path)) as files:
        tail = boundary.read_tail(files, gap_limit=gap_limit)
        plan = resume_rollout.plan_resume(files, tail)
        out = io.BytesIO()
        resume_rollout.write_resume_rollout(files, plan, out, lambda block: None)
    return out.getvalue(), plan


STEP = st.sampled_from(
    ["turn", "turn", "aborted", "open", "goal", "goal", "compaction", "auto", "goal-auto", "roll1", "roll2", "roll3"]
)


def play(writer: RolloutWriter, steps: list[str]) -> None:
    for step in steps:
        match step:
            case "turn":
                writer.turn("please go on", outputs=[200])
            case "aborted" | "open":
                writer.turn("please go on", outputs=[200], end=step)  # type: ignore[arg-type]
            case "goal":
                writer.goal_turn("the goal", outputs=[100])
            case "compaction":
                writer.compaction()
            case "auto":
                writer.turn("a long one", outputs=[300, 300], compacts=True)
            case "goal-auto":
                writer.goal_turn("the goal", outputs=[300], compacts=True)
            case _:
                writer.rollback(int(step[-1]))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=24), gap=st.sampled_from([0, 3000, boundary.GAP_LIMIT]))
def test_the_resume_rollout_gives_the_same_history_as_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], gap: int
) -> None:
    path = rollout_path(tmp_path_factory.mktemp("home"), THREAD)
    with RolloutWriter(path, THREAD) as writer:
        play(writer, steps)
    data, plan = reduced(path, gap)
    if plan.whole:
        assert data == path.read_bytes()
        return
    assert model_view(data) == model_view(path.read_bytes())
    lines = set(path.read_bytes().splitlines(keepends=True))
    assert all(line in lines for line in data.splitlines(keepends=True)), "a line was changed on the way"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, min_size=3, max_size=20), gap=st.sampled_from([0, boundary.GAP_LIMIT]))
def test_backward_and_forward_reading_choose_the_same_records(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], gap: int
) -> None:
    home = tmp_path_factory.mktemp("home")
    path = rollout_path(home, THREAD)
    with RolloutWriter(path, THREAD) as writer:
        play(writer, steps)
    with boundary.opened(lineage_at(path)) as files:
        tail = boundary.read_tail(files, gap_limit=gap)
        original = history.history_of_original(files, tail)
        plan = resume_rollout.plan_resume(files, tail)
        copy = rollout_path(home / "copy", THREAD)
        copy.parent.mkdir(parents=True)
        with copy.open("wb") as target:
            resume_rollout.write_resume_rollout(files, plan, target, lambda block: None)
    with boundary.opened((Segment(file=listed(copy), end_offset=None),)) as files:
        again = history.replay(files)
    assert again.thread_id == THREAD
    assert again.complete
    assert again.damaged == 0
    if original is not None:
        assert again.history == original


@pytest.mark.parametrize("gap", [0, boundary.GAP_LIMIT])
def test_a_goal_that_runs_for_days_after_one_prompt_needs_only_that_prompt_and_its_last_compaction(
    tmp_path: Path, gap: int
) -> None:
    path = rollout_path(tmp_path, THREAD)
    with RolloutWriter(path, THREAD) as writer:
        writer.turn("set it up", outputs=[500])
        for _ in range(40):
            writer.goal_turn("the goal", outputs=[2000, 2000])
        writer.goal_turn("the goal", outputs=[2000], compacts=True)
        writer.goal_turn("the goal", outputs=[100])
    data, plan = reduced(path, gap)
    assert model_view(data) == model_view(path.read_bytes())
    if gap == 0:
        assert plan.length < path.stat().st_size / 4
        assert b"set it up" in data
    else:
        assert plan.whole or plan.length > path.stat().st_size / 2


def test_a_fork_and_its_base_become_one_file_that_stands_alone(tmp_path: Path) -> None:
    child_id = "01a2036d-0000-7000-8000-000000000002"
    parent = rollout_path(tmp_path, THREAD)
    with RolloutWriter(parent, THREAD, paginated=True) as writer:
        writer.turn("first words", outputs=[300])
        writer.turn("before", outputs=[300], answer="left out")
        writer.compaction()
        writer.turn("kept", outputs=[300])
        writer.close()
        base = HistoryBase(
            file_id=THREAD, end_ordinal_exclusive=writer.next_ordinal, end_byte_offset=parent.stat().st_size
        )
    child = rollout_path(tmp_path, child_id)
    with RolloutWriter(child, child_id, paginated=True, base=base) as writer:
        writer.turn("only in the fork", outputs=[100])
    with parent.open("ab") as more:  # the parent goes on after the fork
        more.write(b'{"timestamp":"2026-11-22T12:00:00.000Z","ordinal":900,"type":"world_state","payload":{}}\n')
    data, plan = reduced(child)
    assert plan.renumber
    assert not plan.whole
    records = [json.loads(line) for line in data.splitlines()]
    assert [r["ordinal"] for r in records] == list(range(len(records)))
    assert "history_base" not in records[0]["payload"]
    assert records[0]["payload"]["id"] == child_id
    whole = parent.read_bytes()[: base.end_byte_offset] + child.read_bytes().split(b"\n", 1)[1]
    assert model_view(data) == model_view(whole)
    assert b"first words" in data
    assert b"left out" not in data


def test_without_a_compaction_there_is_no_boundary(tmp_path: Path) -> None:
    path = rollout_path(tmp_path, THREAD)
    with RolloutWriter(path, THREAD) as writer:
        play(writer, ["turn", "goal", "turn"])
    data, plan = reduced(path)
    assert plan.whole
    assert data == path.read_bytes()


def test_a_rollback_over_the_only_compaction_leaves_no_boundary(tmp_path: Path) -> None:
    path = rollout_path(tmp_path, THREAD)
    with RolloutWriter(path, THREAD) as writer:
        play(writer, ["turn", "turn", "compaction", "turn", "roll2", "turn"])
    assert reduced(path)[1].whole


def test_a_torn_last_line_is_left_out_and_told(tmp_path: Path) -> None:
    path = rollout_path(tmp_path, THREAD)
    with RolloutWriter(path, THREAD) as writer:
        play(writer, ["turn", "compaction", "turn"])
        writer.raw(b'{"timestamp":"2026-11-22T12:00:00.000Z","type":"event_ms')
    with boundary.opened(lineage_at(path)) as files:
        tail = boundary.read_tail(files)
    assert tail.identity.size_bytes - tail.complete_bytes == 56
    data, _ = reduced(path)
    assert data.endswith(b"}\n")


@pytest.mark.parametrize(
    ("end", "state"), [("complete", TurnState.IDLE), ("aborted", TurnState.IDLE), ("open", TurnState.IN_PROGRESS)]
)
def test_the_newest_lifecycle_event_tells_the_turn_state(tmp_path: Path, end: str, state: TurnState) -> None:
    path = rollout_path(tmp_path, THREAD)
    with RolloutWriter(path, THREAD) as writer:
        writer.turn("go on", outputs=[100])
        turn_id = writer.turn("and on", outputs=[100], end=end)  # type: ignore[arg-type]
    with boundary.opened(lineage_at(path)) as files:
        tail = boundary.read_tail(files)
    assert tail.turn is state
    assert tail.turn_id == (turn_id if state is TurnState.IN_PROGRESS else None)


DECOYS = [
    b'{"timestamp":"2026-11-22T12:00:00.000Z","type":"response_item","payload":{"type":"function_call_output","output":"{\\"type\\":\\"compacted\\"}"}}\n',
    b'{"timestamp":"2026-11-22T12:00:00.000Z","type":"event_msg","payload":{"type":"compacted","replacement_history":[]}}\n',
    b'{"timestamp":"2026-11-22T12:00:00.000Z","type":"compacted","payload":{"message":"old form"}}\n',
    b'{"timestamp":"2026-11-22T12:00:00.000Z","type":"compacted","payload":{"message":"torn","replacement_history":[{"type\n',
    b'{"timestamp":"2026-11-22T12:00:00.000Z","type":"compacted","payload":{"replacement_history":"\xff"}}\n',
    b'{"timestamp":"2026-11-22T12:00:00.000Z","type":"compacted","payload":{"replacement_history":[1]}} trailing\n',
    b"\n",
    b"\r\n",
    b"\0" * 300 + b"\n",
    b'{"type":"a type of the future","payload":{"n":' + b"9" * 40 + b"}}\n",
    b'{"timestamp":"x","type":"world_state","payload":' + b"[" * 2000 + b"]" * 2000 + b"}\n",
    b'{"timestamp":"x","type":"event_msg","payload":{"type":"agent_message","message":"\\ud800"}}\n',
]


@pytest.mark.parametrize("decoy", DECOYS, ids=range(len(DECOYS)))
def test_what_only_looks_like_a_compaction_is_none(tmp_path: Path, decoy: bytes) -> None:
    path = rollout_path(tmp_path, THREAD)
    with RolloutWriter(path, THREAD) as writer:
        play(writer, ["turn", "compaction", "turn"])
    before = reduced(path)[1].pieces
    with path.open("ab") as more:
        more.write(decoy)
    with boundary.opened(lineage_at(path)) as files:
        found = boundary.read_tail(files).boundary
    assert found is not None
    assert found.offset == before[-1].start


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"compacted","payload":{"message":"m","replacement_history":[]},"timestamp":"x"}\n',
        b'{ "timestamp": "x", "type": "compacted", "payload": {"message":"m","replacement_history":[]} }\n',
        b'{"timestamp":"x","type":"\\u0063ompacted","payload":{"message":"m","replacement_history":[]}}\r\n',
    ],
)
def test_a_compaction_in_an_unusual_spelling_is_found(tmp_path: Path, line: bytes) -> None:
    path = rollout_path(tmp_path, THREAD)
    with RolloutWriter(path, THREAD) as writer:
        play(writer, ["turn", "turn"])
        writer.turn("the base is in this turn", outputs=[100], end="open")
        start = writer.size_bytes
        writer.raw(line)
        writer.event("task_complete", turn_id=None)
        play(writer, ["turn"])
    with boundary.opened(lineage_at(path)) as files:
        found = boundary.read_tail(files, gap_limit=0).boundary
    assert found is not None
    assert found.base_offset == start


def test_a_file_that_shrinks_or_is_replaced_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = rollout_path(tmp_path, THREAD)
    with RolloutWriter(path, THREAD) as writer:
        play(writer, ["turn", "compaction", "turn"])
    whole = path.read_bytes()
    with boundary.opened(lineage_at(path)) as files:
        with path.open("ab") as more:
            more.write(b"{}\n")
        files.check_unchanged()  # growth is what rollouts do
        path.write_bytes(whole[: whole.index(b"\n") + 1])
        with pytest.raises(DamagedFile, match="shorter"):
            files.check_unchanged()
        with pytest.raises(DamagedFile, match="shorter"):
            boundary.read_tail(files)
    path.write_bytes(whole)
    with boundary.opened(lineage_at(path)) as files:
        path.rename(path.with_suffix(".gone"))
        with pytest.raises(DamagedFile, match="moved"):
            files.check_unchanged()
        path.write_bytes(whole)
        with pytest.raises(DamagedFile, match="replaced"):
            files.check_unchanged()
