"""The verdict: the table of the design (4.2) line by line, and what holds for every home that can be observed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight import policy
from preflight.config import Settings
from preflight.model import (
    Answer,
    Boundary,
    CheckpointState,
    Estimate,
    FileIdentity,
    Finding,
    Goal,
    GoalTable,
    HistoryMode,
    Home,
    HomeObservation,
    Observation,
    RolloutFile,
    Segment,
    Severity,
    SizeClass,
    Tail,
    Thread,
    TurnState,
    Verdict,
    WriterState,
)
from preflight.policy import EXIT_CODES, V8_STRING_LIMIT, Circumstances, Decision, decide, no_home, verdict_on

MB = 1_000_000
GB = 1000 * MB
THREAD = "01a2036d-0000-7000-8000-000000000001"
OTHER = "01a2036d-0000-7000-8000-000000000002"
HOME = Home(
    path=Path("/home/ada/.codex"),
    sqlite_home=Path("/home/ada/.codex"),
    home_id="codex-5f3a",
    state_db=Path("/home/ada/.codex/state_5.sqlite"),
    goals_db=Path("/home/ada/.codex/goals_1.sqlite"),
    history_db=None,
)
SETTINGS = Settings()
MEMORY = 16 * GB
LOOKING = Circumstances(checkpointing=False, machine_memory_bytes=MEMORY)
RUNNING = Circumstances(checkpointing=True, machine_memory_bytes=MEMORY)
BOUNDARY = Boundary(segment=0, offset=1, base_segment=0, base_offset=2, base_sha256="", settings_sha256="")
PROTECTED = CheckpointState(checkpoint_id="20261122T120000Z-0a1b2c", fresh=True, verified=True)


def goal(status: str) -> Goal:
    return Goal(
        thread_id=THREAD,
        goal_id="goal",
        objective="paint the lighthouse",
        status=status,
        token_budget=None,
        tokens_used=0,
        time_used_seconds=0,
        created_at_ms=0,
        updated_at_ms=0,
        table=GoalTable.GOALS,
    )


def seen(
    size: int = MB,
    *,
    status: str | None = "paused",
    archived: bool = False,
    thread_id: str = THREAD,
    turn: TurnState = TurnState.IDLE,
    boundary: Boundary | None = BOUNDARY,
    damaged: int = 0,
    torn: int = 0,
    estimate: int | None = None,
    **rest: Any,
) -> Observation:
    """A thread about which there is nothing to say, but for what is given."""
    identity = FileIdentity(device=1, inode=2, size_bytes=size, modified_ns=3)
    file = RolloutFile(
        place=f"/home/ada/.codex/sessions/rollout-2026-05-30T09-00-00-{thread_id}.jsonl",
        thread_id=thread_id,
        segment_id=None,
        stamp="2026-05-30T09-00-00",
        archived=archived,
        compressed=False,
        identity=identity,
    )
    thread = Thread(
        home=HOME,
        thread_id=thread_id,
        row=None,
        lineage=(Segment(file=file, end_offset=None),),
        goal=None if status is None else replace(goal(status), thread_id=thread_id),
        archived=archived,
    )
    tail = Tail(
        identity=identity,
        complete_bytes=size - torn,
        turn=turn,
        turn_id=None,
        boundary=boundary,
        history_mode=HistoryMode.LEGACY,
        damaged_lines=damaged,
        scanned_bytes=0,
    )
    known: dict[str, Any] = {
        "size_class": policy.size_class(size, SETTINGS),
        "tail": tail,
        "writer": WriterState.NONE,
        "estimate": Estimate(
            bytes=MB if estimate is None else estimate,
            factor=5.7,
            runtime_version="0.134.0",
            history_mode=HistoryMode.LEGACY,
        ),
    }
    return Observation(thread=thread, **(known | rest))


def home(*threads: Observation, **rest: Any) -> HomeObservation:
    return HomeObservation(**{"home": HOME, "runtimes": (), "threads": threads, "counts": {"threads": 9}} | rest)


def on(*threads: Observation, now: Circumstances = RUNNING, **rest: Any) -> Decision:
    return decide([(home(*threads, **rest), now)], SETTINGS)


def told(decision: Decision) -> list[tuple[str, str]]:
    return [(finding.finding_id, finding.severity.value) for finding in decision.findings]


# ---- nothing to say -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [None, "paused", "blocked", "usage_limited", "budget_limited", "complete"])
@pytest.mark.parametrize("now", [LOOKING, RUNNING], ids=["check", "run"])
def test_a_thread_that_is_small_idle_and_readable_is_no_finding(status: str | None, now: Circumstances) -> None:
    assert on(seen(status=status), now=now) == Decision(Verdict.PROCEED, (), 0)


def test_nothing_at_all_is_no_finding_and_no_home_is_one() -> None:
    assert verdict_on(()) == Decision(Verdict.PROCEED, (), 0)
    assert decide([], SETTINGS) == Decision(Verdict.PROCEED, (), 0)
    assert told(verdict_on([no_home()])) == [("no-home", "warn")]
    nothing = replace(HOME, state_db=None, goals_db=None)
    assert told(on(home=nothing, counts={"threads": 0})) == [("home-empty", "warn")]
    assert told(on(home=nothing, counts={"threads": 1})) == []
    assert told(on(home=HOME, counts={"threads": 0})) == []


# ---- the first line: turns, goals that are not paused, writers ----------------------------------------------


@pytest.mark.parametrize("writer", [WriterState.LIVE, WriterState.UNKNOWN])
@pytest.mark.parametrize("status", [None, "complete", "paused", "active"])
def test_a_turn_in_progress_after_the_wait_blocks(writer: WriterState, status: str | None) -> None:
    decision = on(seen(status=status, turn=TurnState.IN_PROGRESS, writer=writer))
    assert ("turn-in-progress", "block") in told(decision)
    assert (decision.verdict, decision.exit_code) == (Verdict.BLOCK, 10)


def test_before_the_wait_the_turn_of_an_active_goal_is_what_run_would_wait_for() -> None:
    active = seen(status="active", turn=TurnState.IN_PROGRESS, writer=WriterState.LIVE)
    assert told(on(active, now=LOOKING)) == [("goal-active", "warn"), ("turn-in-progress", "warn")]
    person = seen(status="paused", turn=TurnState.IN_PROGRESS, writer=WriterState.LIVE)
    assert told(on(person, now=LOOKING)) == [("turn-in-progress", "block")]


@pytest.mark.parametrize("now", [LOOKING, RUNNING], ids=["check", "run"])
def test_a_turn_that_nobody_can_end_or_that_was_archived_is_none(now: Circumstances) -> None:
    assert told(on(seen(turn=TurnState.IN_PROGRESS, writer=WriterState.NONE), now=now)) == []
    assert told(on(seen(turn=TurnState.IN_PROGRESS, writer=WriterState.LIVE, archived=True), now=now)) == []


def test_a_goal_that_is_not_confirmed_paused_blocks() -> None:
    """`run` tells it as a finding of the home; a row that is active again after all was paused says so itself."""
    finding = Finding(finding_id="goal-not-paused", severity=Severity.BLOCK, thread_id=THREAD, cause="c")
    assert on(seen(), findings=(finding,)).exit_code == 10
    paused_all = replace(RUNNING, pausing=True)
    decision = on(seen(status="active"), now=paused_all)
    assert (told(decision), decision.exit_code) == ([("goal-active", "block")], 10)


@pytest.mark.parametrize("now", [LOOKING, RUNNING], ids=["check", "run"])
@pytest.mark.parametrize("status", ["paused", "blocked", "budget_limited", "usage_limited"])
def test_an_unknown_writer_blocks_on_a_goal_thread(now: Circumstances, status: str) -> None:
    decision = on(seen(status=status, writer=WriterState.UNKNOWN), now=now)
    assert (told(decision), decision.exit_code) == ([("writer-unknown", "block")], 10)


@pytest.mark.parametrize("status", [None, "complete"])
def test_an_unknown_writer_of_another_thread_is_no_finding(status: str | None) -> None:
    assert told(on(seen(status=status, writer=WriterState.UNKNOWN))) == []


# ---- the second line: size and checkpoints ------------------------------------------------------------------

STALE = replace(PROTECTED, fresh=False)
UNPROVEN = replace(PROTECTED, verified=False)


@pytest.mark.parametrize("checkpoint", [None, STALE, UNPROVEN])
@pytest.mark.parametrize("size", [500 * MB, 999 * MB, GB, 100 * GB])
@pytest.mark.parametrize("archived", [False, True])
def test_a_goal_thread_in_danger_without_a_fresh_verified_checkpoint_blocks(
    size: int, checkpoint: CheckpointState | None, archived: bool
) -> None:
    decision = on(seen(size, checkpoint=checkpoint, archived=archived))
    assert ("checkpoint-missing", "block") in told(decision)
    assert decision.exit_code == 10


@pytest.mark.parametrize("checkpoint", [None, STALE, UNPROVEN])
@pytest.mark.parametrize("status", [None, "complete"])
def test_any_unarchived_thread_in_critical_without_one_blocks(
    status: str | None, checkpoint: CheckpointState | None
) -> None:
    assert ("checkpoint-missing", "block") in told(on(seen(GB, status=status, checkpoint=checkpoint)))
    assert ("checkpoint-missing", "block") not in told(on(seen(GB - 1, status=status, checkpoint=checkpoint)))
    assert told(on(seen(GB, status=status, checkpoint=checkpoint, archived=True))) == []


@pytest.mark.parametrize("status", [None, "paused"])
@pytest.mark.parametrize(("size", "word"), [(250 * MB, "warning"), (500 * MB, "danger"), (GB, "critical")])
def test_with_a_fresh_verified_checkpoint_size_only_warns(status: str | None, size: int, word: str) -> None:
    decision = on(seen(size, status=status, checkpoint=PROTECTED))
    assert (f"size-{word}", "warn") in told(decision)
    assert decision.verdict is Verdict.WARN


def test_classes_begin_at_their_threshold() -> None:
    sizes = [0, 250 * MB - 1, 250 * MB, 500 * MB - 1, 500 * MB, GB - 1, GB]
    classes = [policy.size_class(size, SETTINGS) for size in sizes]
    assert [one.value for one in classes] == ["ok", "ok", "warning", "warning", "danger", "danger", "critical"]


# ---- the third line: failures of the checkpoint, and databases ----------------------------------------------


@pytest.mark.parametrize(
    "finding_id", ["checkpoint-failed", "checkpoint-unverified", "trial-resume-failed", "no-space"]
)
def test_a_checkpoint_that_failed_or_did_not_verify_blocks_as_unverified(finding_id: str) -> None:
    finding = Finding(finding_id=finding_id, severity=Severity.BLOCK, cause="c")
    decision = on(seen(), findings=(finding,))
    assert (decision.verdict, decision.exit_code) == (Verdict.BLOCK, 12)


def test_a_damaged_database_blocks() -> None:
    finding = Finding(finding_id="database-damaged", severity=Severity.BLOCK, cause="c")
    assert on(seen(), findings=(finding,)).exit_code == 10


# ---- the fourth line: no boundary, and not enough memory ----------------------------------------------------


def test_without_a_boundary_an_estimate_above_the_memory_blocks_and_one_that_fits_does_not() -> None:
    assert told(on(seen(boundary=None, estimate=MEMORY + 1))) == [("no-boundary", "block")]
    assert told(on(seen(boundary=None, estimate=MEMORY))) == [("resume-memory", "warn")]
    assert told(on(seen(boundary=BOUNDARY, estimate=MEMORY + 1))) == [("resume-memory", "warn")]


def test_a_rollout_whose_tail_could_not_be_read_has_no_boundary() -> None:
    assert told(on(seen(estimate=MEMORY + 1, tail=None))) == [("no-boundary", "block")]


def test_the_memory_of_an_archived_thread_matters_only_with_a_goal() -> None:
    assert told(on(seen(status=None, archived=True, boundary=None, estimate=MEMORY + 1))) == []
    assert told(on(seen(status="paused", archived=True, boundary=None, estimate=MEMORY + 1))) == [
        ("no-boundary", "block")
    ]


# ---- the last line: warnings --------------------------------------------------------------------------------


WARNINGS = [
    ("goal-active", on(seen(status="active"), now=LOOKING)),
    ("goal-active", on(seen(status="active"), now=RUNNING)),  # run --no-pause
    ("size-warning", on(seen(250 * MB))),
    ("size-warning", on(seen(250 * MB, status=None))),
    ("size-danger", on(seen(500 * MB, status=None))),
    ("resume-memory", on(seen(estimate=MEMORY // 2 + 1))),
    ("daemon-updater", on(home=replace(HOME, daemon_updater=Answer.YES))),
    ("daemon-updater", on(home=replace(HOME, daemon_updater=Answer.UNKNOWN))),
    ("target-drops-goals", on(seen(), now=replace(RUNNING, drops_goals=Answer.YES))),
    ("target-drops-goals", on(seen(), now=replace(RUNNING, drops_goals=Answer.UNKNOWN))),
    ("checkpoint-stale", on(now=replace(LOOKING, checkpoint_age_seconds=48 * 3600.0 + 1))),
    ("schedule-stale", on(now=replace(LOOKING, scheduled_seconds=48 * 3600.0 + 1))),
    ("schedule-stale", on(now=replace(LOOKING, nights_are_made=True, scheduled_seconds=60.0))),
    (
        "schedule-stale",
        on(now=replace(LOOKING, nights_are_made=True, night_age_seconds=48 * 3600.0 + 1, checkpoint_age_seconds=60.0)),
    ),
    ("damaged-lines", on(seen(damaged=1))),
    ("torn-last-line", on(seen(torn=1))),
    ("projection-stale", on(findings=(Finding(finding_id="projection-stale", severity=Severity.WARN, cause="c"),))),
    ("homes-share-files", on(findings=(Finding(finding_id="homes-share-files", severity=Severity.WARN, cause="c"),))),
]


@pytest.mark.parametrize(("finding_id", "decision"), WARNINGS, ids=[f"{n}-{w}" for n, (w, _) in enumerate(WARNINGS)])
def test_each_of_these_warns_and_no_more(finding_id: str, decision: Decision) -> None:
    assert told(decision) == [(finding_id, "warn")]
    assert (decision.verdict, decision.exit_code) == (Verdict.WARN, 3)


def test_each_of_these_has_a_value_below_which_it_is_silent() -> None:
    assert told(on(seen(estimate=MEMORY // 2))) == []
    assert told(on(now=replace(LOOKING, checkpoint_age_seconds=48 * 3600.0))) == []
    assert told(on(now=replace(LOOKING, checkpoint_age_seconds=None))) == []
    assert told(on(now=replace(RUNNING, checkpoint_age_seconds=1e9))) == [], "run makes a new one"
    assert told(on(now=replace(LOOKING, scheduled_seconds=48 * 3600.0))) == [], "the first night may still come"
    long_ago = replace(LOOKING, night_age_seconds=1e6, checkpoint_age_seconds=60.0)
    assert told(on(now=long_ago)) == [], "nobody has promised any more nights"
    assert told(on(now=replace(long_ago, scheduled_seconds=60.0))) == [], "installed anew"
    assert told(on(now=replace(long_ago, scheduled_seconds=1e6))) == [("schedule-stale", "warn")]
    assert told(on(now=replace(RUNNING, scheduled_seconds=1e6))) == []
    assert told(on(seen(status=None), now=replace(RUNNING, drops_goals=Answer.YES))) == [], "no goal to lose"
    assert told(on(seen(torn=9, writer=WriterState.LIVE))) == [], "a line that is being written"
    assert told(on(seen(V8_STRING_LIMIT, status=None, checkpoint=PROTECTED))) == [("size-danger", "warn")]
    assert told(on(seen(V8_STRING_LIMIT + 1, status=None, checkpoint=PROTECTED))) == [
        ("size-danger", "warn"),
        ("v8-string-limit", "warn"),
    ]


def test_what_verification_has_counted_is_not_told_again_from_the_tail() -> None:
    counted = Finding(
        finding_id="damaged-lines", severity=Severity.WARN, thread_id=THREAD, cause="in the copy", measured=3
    )
    decision = on(seen(damaged=1), findings=(counted,))
    assert decision.findings == (counted,)


# ---- a checkpoint is made of ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [MB, 250 * MB, 500 * MB, GB])
@pytest.mark.parametrize("status", [None, "active", "paused", "blocked", "budget_limited", "usage_limited", "complete"])
@pytest.mark.parametrize("archived", [False, True])
def test_goal_threads_and_unarchived_ones_in_danger_get_a_checkpoint(
    size: int, status: str | None, archived: bool
) -> None:
    one = seen(size, status=status, archived=archived)
    goes_on = status not in (None, "complete")
    assert policy.needs_checkpoint(one) is (goes_on or (not archived and size >= 500 * MB))
    assert not policy.needs_checkpoint(replace(one, thread=replace(one.thread, lineage=())))


def test_every_thread_that_blocks_without_a_checkpoint_gets_one() -> None:
    """Otherwise `run` could never end well."""
    for size, status, archived in itertools.product(
        (MB, 250 * MB, 500 * MB, GB), (None, "paused", "complete"), (False, True)
    ):
        one = seen(size, status=status, archived=archived)
        if ("checkpoint-missing", "block") in told(on(one)):
            assert policy.needs_checkpoint(one)


# ---- what holds for every home --------------------------------------------------------------------------------

FINDING = st.builds(
    Finding,
    finding_id=st.sampled_from([*EXIT_CODES, "database-damaged", "unreadable", "goal-not-paused", "rollout-missing"]),
    severity=st.sampled_from(Severity),
    thread_id=st.sampled_from([None, THREAD, OTHER]),
    cause=st.just("c"),
    path=st.sampled_from([None, Path("/a"), Path("/b")]),
)
CHECKPOINT = st.none() | st.builds(
    CheckpointState, checkpoint_id=st.just("id"), fresh=st.booleans(), verified=st.booleans()
)
SIZE = st.sampled_from([0, MB, 250 * MB, 500 * MB, V8_STRING_LIMIT + 1, GB, 98 * GB])
SEEN = st.builds(
    seen,
    SIZE,
    status=st.sampled_from([None, "active", "paused", "blocked", "complete", "a status of the future"]),
    archived=st.booleans(),
    thread_id=st.sampled_from([THREAD, OTHER]),
    turn=st.sampled_from(TurnState),
    boundary=st.sampled_from([None, BOUNDARY]),
    damaged=st.integers(0, 3),
    torn=st.integers(0, 3),
    estimate=st.sampled_from([MB, MEMORY // 2, MEMORY // 2 + 1, MEMORY, MEMORY + 1]),
    writer=st.sampled_from(WriterState),
    checkpoint=CHECKPOINT,
    findings=st.lists(FINDING, max_size=2).map(tuple),
)
NOW = st.builds(
    Circumstances,
    checkpointing=st.booleans(),
    pausing=st.booleans(),
    machine_memory_bytes=st.just(MEMORY),
    drops_goals=st.sampled_from(Answer),
    checkpoint_age_seconds=st.sampled_from([None, 0.0, 1e9]),
)
HOMES = st.lists(
    st.tuples(
        st.builds(
            home,
            st.just(seen()),
            SEEN,
            SEEN,
            home=st.builds(replace, st.just(HOME), daemon_updater=st.sampled_from(Answer)),
            findings=st.lists(FINDING, max_size=3).map(tuple),
        ),
        NOW,
    ),
    max_size=3,
)

_ORDER = [0, 3, 10, 75, 12, 13]


def code_of(finding: Finding) -> int:
    return 3 if finding.severity is Severity.WARN else EXIT_CODES.get(finding.finding_id, 10)


def worst(findings: Iterable[Finding]) -> int:
    return max((code_of(finding) for finding in findings), key=_ORDER.index, default=0)


@given(homes=HOMES)
def test_the_most_severe_finding_decides(homes: list[tuple[HomeObservation, Circumstances]]) -> None:
    decision = decide(homes, SETTINGS)
    severities = [finding.severity for finding in decision.findings]
    if Severity.BLOCK in severities:
        assert decision.verdict is Verdict.BLOCK
    elif severities:
        assert decision.verdict is Verdict.WARN
    else:
        assert decision.verdict is Verdict.PROCEED
    assert decision.exit_code == worst(decision.findings)
    assert (decision.exit_code == 0, decision.exit_code == 3) == (
        decision.verdict is Verdict.PROCEED,
        decision.verdict is Verdict.WARN,
    )
    assert severities == sorted(severities, key=lambda severity: severity is not Severity.BLOCK), "the worst come first"


@given(homes=HOMES)
def test_no_finding_that_a_stage_has_made_is_lost(homes: list[tuple[HomeObservation, Circumstances]]) -> None:
    decision = decide(homes, SETTINGS)
    kept = {(finding.finding_id, finding.thread_id, finding.path): finding for finding in decision.findings}
    given_findings = [f for one, _ in homes for f in (*one.findings, *(f for t in one.threads for f in t.findings))]
    for finding in given_findings:
        found = kept[finding.finding_id, finding.thread_id, finding.path]
        assert _ORDER.index(code_of(found)) >= _ORDER.index(code_of(finding))
    assert len(kept) == len(decision.findings), "each is told once"


@given(homes=HOMES, data=st.data())
def test_the_same_input_in_any_order_gives_the_same_verdict(
    homes: list[tuple[HomeObservation, Circumstances]], data: st.DataObject
) -> None:
    decision = decide(homes, SETTINGS)
    assert decide(homes, SETTINGS) == decision
    assert decide(iter(homes), SETTINGS) == decision
    shuffled = [
        (
            replace(
                one,
                threads=tuple(data.draw(st.permutations(one.threads))),
                findings=tuple(data.draw(st.permutations(one.findings))),
            ),
            now,
        )
        for one, now in data.draw(st.permutations(homes))
    ]
    other = decide(shuffled, SETTINGS)
    assert (other.verdict, other.exit_code) == (decision.verdict, decision.exit_code)
    assert {(f.finding_id, f.thread_id, f.severity) for f in other.findings} == {
        (f.finding_id, f.thread_id, f.severity) for f in decision.findings
    }


@given(homes=HOMES, more=FINDING)
def test_one_more_finding_never_makes_the_verdict_better(
    homes: list[tuple[HomeObservation, Circumstances]], more: Finding
) -> None:
    before = decide(homes, SETTINGS)
    after = decide([*homes, (home(findings=(more,)), RUNNING)], SETTINGS)
    assert _ORDER.index(after.exit_code) >= _ORDER.index(before.exit_code)
    assert _ORDER.index(after.exit_code) >= _ORDER.index(code_of(more))


@given(homes=HOMES)
def test_every_finding_of_the_policy_says_what_to_do_next(homes: list[tuple[HomeObservation, Circumstances]]) -> None:
    bare = [
        (replace(one, findings=(), threads=tuple(replace(t, findings=()) for t in one.threads)), now)
        for one, now in homes
    ]
    for finding in decide(bare, SETTINGS).findings:
        protected = finding.finding_id.startswith("size-") and "has a fresh verified checkpoint" in finding.cause
        assert finding.remedy or protected
        assert finding.cause[0].islower()
        assert "paint the lighthouse" not in f"{finding.cause}{finding.remedy}"


@given(size=st.integers(0, 10**12), other=st.integers(0, 10**12))
def test_more_bytes_are_never_of_a_lower_class(size: int, other: int) -> None:
    order = list(SizeClass)
    small, large = sorted((size, other))
    assert order.index(policy.size_class(small, SETTINGS)) <= order.index(policy.size_class(large, SETTINGS))
