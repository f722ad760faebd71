"""Inspect: read the threads that matter one by one, count the rest, judge nothing.

Each thread is read on its own: one that is damaged, locked or unreadable becomes a finding and the
others are handled as if it were not there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from preflight.codex import boundary, projection, writers
from preflight.codex.resume_rollout import plan_resume
from preflight.codex.runtime import RuntimeVersion, resume_cost
from preflight.codex.threads import ThreadsFound
from preflight.config import Settings
from preflight.errors import DamagedFile
from preflight.model import (
    CheckpointState,
    Estimate,
    Finding,
    HistoryMode,
    Home,
    HomeObservation,
    Observation,
    Runtime,
    Severity,
    SizeClass,
    Tail,
    Thread,
    TurnState,
    WriterState,
)
from preflight.policy import size_class
from preflight.system.deadline import Deadline
from preflight.system.pace import Pace


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspecting:
    """How to inspect: thresholds, threads asked for by id, and the version whose memory is estimated.

    `fenced` are threads whose writer lock this process holds itself. `before` is what an earlier look of
    this run saw, by thread: a rollout that has not changed since is not read again.
    """

    settings: Settings
    wanted: Collection[str]
    fenced: Collection[str]
    version: RuntimeVersion | None
    checkpoint_of: Callable[[Thread], CheckpointState | None]
    deadline: Deadline
    before: Mapping[str, Observation] = field(default_factory=dict)


def inspect(home: Home, found: ThreadsFound, runtimes: Sequence[Runtime], how: Inspecting) -> HomeObservation:
    """Every thread that matters as an observation: goal threads, large ones, those asked for, those with an open turn.

    Raises TimeLimitReached only; whatever is wrong with one thread is in its findings.
    """
    counts = {**found.counts, "inspected": 0}
    observed = []
    loaded, hidden = writers.loaded_threads(found.threads, runtimes)
    for thread in found.threads:
        matters = _matters(thread, how)
        if matters or thread.thread_id in loaded:
            how.deadline.check("inspecting threads")
            seen = _observe(thread, runtimes, how)
            if matters or seen.turn is TurnState.IN_PROGRESS:
                observed.append(seen)
    counts["inspected"] = len(observed)
    compressed = [seen.thread for seen in observed if seen.thread.head is not None and seen.thread.head.compressed]
    stale = projection.stale_projections(home, [seen.thread for seen in observed], how.deadline)
    return HomeObservation(
        home=home,
        runtimes=tuple(runtimes),
        threads=tuple(observed),
        counts=counts,
        findings=(*found.findings, *stale),
        not_checked=(
            *(f"turns in progress in small threads: process {pid} lets nobody look" for pid in hidden),
            *(f"thread {thread.thread_id}: it is compressed, and nobody has looked inside" for thread in compressed),
        ),
    )


def _matters(thread: Thread, how: Inspecting) -> bool:
    if thread.is_goal_thread or thread.thread_id in how.wanted:
        return True
    return size_class(thread.size_bytes, how.settings) is not SizeClass.OK


def _observe(thread: Thread, runtimes: Sequence[Runtime], how: Inspecting) -> Observation:
    findings = list(thread.findings)
    writer = WriterState.NONE
    holding: tuple[Runtime, ...] = ()
    tail: Tail | None = None
    resume_bytes: int | None = None
    head = thread.head
    if head is not None:
        writer, holding = writers.writer_of(thread, runtimes, lock_is_ours=thread.thread_id in how.fenced)
        earlier = how.before.get(thread.thread_id)
        if earlier is not None and earlier.resume_bytes is not None and earlier.thread.lineage == thread.lineage:
            tail, resume_bytes = earlier.tail, earlier.resume_bytes
        elif not head.compressed:
            try:
                with boundary.opened(thread.lineage) as files:
                    tail = boundary.read_tail(files, seen=Pace(None, how.deadline).during("inspecting threads"))
                    resume_bytes = plan_resume(files, tail).length
                    files.check_unchanged()
            except (DamagedFile, OSError) as error:
                findings.append(_unreadable(thread, error))
    return Observation(
        thread=thread,
        size_class=size_class(thread.size_bytes, how.settings),
        tail=tail,
        writer=writer,
        writers=holding,
        resume_bytes=resume_bytes,
        estimate=_estimate(thread, tail, how.version),
        checkpoint=how.checkpoint_of(thread),
        findings=tuple(_once(findings)),
    )


def _estimate(thread: Thread, tail: Tail | None, version: RuntimeVersion | None) -> Estimate | None:
    if thread.head is None or thread.head.compressed:
        return None  # of a compressed one the size is not known, and it is the whole of it that counts
    mode = tail.history_mode if tail is not None else HistoryMode.UNKNOWN
    cost = resume_cost(version, mode)
    return Estimate(
        bytes=cost.of(thread.size_bytes),
        factor=cost.factor,
        runtime_version=None if version is None else str(version),
        history_mode=mode,
    )


def _unreadable(thread: Thread, error: DamagedFile | OSError) -> Finding:
    what = error.message if isinstance(error, DamagedFile) else f"the rollout cannot be read: {error.strerror}"
    path = error.path if isinstance(error, DamagedFile) else None
    if path is None and thread.head is not None:
        path = thread.head.path
    return Finding(
        finding_id="rollout-damaged",
        severity=Severity.BLOCK if thread.is_goal_thread else Severity.WARN,
        thread_id=thread.thread_id,
        cause=what,
        remedy=(isinstance(error, DamagedFile) and error.hint) or "close Codex, then run the same command again",
        path=path,
    )


def _once(findings: list[Finding]) -> list[Finding]:
    """Lineage and tail may both meet the same damage: the first telling stays."""
    kept: dict[tuple[str, object], Finding] = {}
    for finding in findings:
        kept.setdefault((finding.finding_id, finding.path), finding)
    return list(kept.values())
