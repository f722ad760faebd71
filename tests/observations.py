"""Values as the stages make them, for tests of what is reported about them."""

from __future__ import annotations

from pathlib import Path

from preflight.model import (
    Boundary,
    CheckpointState,
    Estimate,
    FileIdentity,
    Goal,
    GoalTable,
    HistoryMode,
    Home,
    HomeObservation,
    Observation,
    Role,
    RolloutFile,
    Runtime,
    Segment,
    SizeClass,
    Tail,
    Thread,
    TurnState,
    WriterState,
)

THREAD = "0199a213-81c0-7800-8aa1-bbab2a035a53"
OBJECTIVE = "port the tax module of the acme project"
HOME = Home(
    path=Path("/home/ada/.codex"),
    sqlite_home=Path("/home/ada/.codex"),
    home_id="codex-5f3a",
    state_db=None,
    goals_db=None,
    history_db=None,
)
RUNTIME = Runtime(pid=4711, version="0.134.0", role=Role.DESKTOP, executable=Path("/opt/codex/codex"))


def goal(status: str = "active", thread_id: str = THREAD) -> Goal:
    return Goal(
        thread_id=thread_id,
        goal_id="goal-1",
        objective=OBJECTIVE,
        status=status,
        token_budget=1_000_000,
        tokens_used=250_000,
        time_used_seconds=3600,
        created_at_ms=1_763_800_000_000,
        updated_at_ms=1_763_812_800_000,
        table=GoalTable.GOALS,
    )


def observation(
    *,
    thread_id: str = THREAD,
    size_bytes: int = 3_063_881_398,
    size_class: SizeClass = SizeClass.CRITICAL,
    status: str | None = "active",
    checkpoint: CheckpointState | None = None,
    folder: Path = Path("/home/ada/.codex/sessions/2026/11/22"),
    read: bool = True,
) -> Observation:
    """One thread with one rollout; `read` False is a thread whose rollout could not be read."""
    identity = FileIdentity(device=1, inode=2, size_bytes=size_bytes, modified_ns=3)
    rollout = RolloutFile(
        place=str(folder / f"rollout-2026-11-22T12-00-00-{thread_id}.jsonl"),
        thread_id=thread_id,
        segment_id=None,
        stamp="2026-11-22T12-00-00",
        archived=False,
        compressed=False,
        identity=identity,
    )
    boundary = Boundary(
        segment=0, offset=3_060_000_000, base_segment=0, base_offset=3_060_000_900, base_sha256="", settings_sha256=""
    )
    tail = Tail(
        complete_bytes=size_bytes,
        turn=TurnState.IDLE,
        turn_id=None,
        boundary=boundary,
        history_mode=HistoryMode.LEGACY,
        damaged_lines=0,
        scanned_bytes=4_000_000,
        identity=identity,
    )
    return Observation(
        thread=Thread(
            home=HOME,
            thread_id=thread_id,
            row=None,
            lineage=(Segment(file=rollout, end_offset=None),),
            goal=goal(status, thread_id) if status is not None else None,
            archived=False,
        ),
        size_class=size_class,
        tail=tail if read else None,
        writer=WriterState.LIVE if read else WriterState.UNKNOWN,
        resume_bytes=4_000_000 if read else None,
        estimate=Estimate(bytes=15_300_000_000, factor=5.0, runtime_version="0.134.0", history_mode=HistoryMode.LEGACY)
        if read
        else None,
        checkpoint=checkpoint,
    )


def home_observation(*threads: Observation) -> HomeObservation:
    return HomeObservation(home=HOME, runtimes=(RUNTIME,), threads=threads, counts={"threads": 120, "goals": 3})
