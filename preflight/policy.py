"""The verdict: what is wrong, how bad it is, and what the caller should do.

`decide` is a pure function of observations, thresholds and circumstances; it reads no file, no
clock and no environment. The most severe finding decides (design, section 4.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from preflight.config import Settings
from preflight.model import (
    Answer,
    Boundary,
    Finding,
    Home,
    HomeObservation,
    Observation,
    Severity,
    SizeClass,
    TurnState,
    Verdict,
    WriterState,
)

#: The longest string that V8 holds, in UTF-16 units; a desktop client cannot take a longer answer.
V8_STRING_LIMIT: Final = 2**29 - 24

#: Findings whose exit code is not that of their severity (design, section 5.2).
EXIT_CODES: Final[dict[str, int]] = {
    "archive-failed": 12,
    "archive-incomplete": 12,
    "checkpoint-damaged": 12,
    "checkpoint-failed": 12,
    "checkpoint-unfinished": 75,
    "checkpoint-unverified": 12,
    "store-damaged": 12,
    "trial-resume-failed": 12,
    "no-space": 12,
    "unknown-schema": 13,
    "home-refused": 13,
}
_RANK: Final = {0: 0, 3: 1, 10: 2, 75: 3, 12: 4, 13: 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What the verdict depends on besides the threads.

    `checkpointing` is True for a verb that pauses and writes checkpoints (`run`), False for one that
    only looks (`check`); `pausing` says that it has paused every goal that was active. `drops_goals` says
    whether the update from `current_version` to `target_version` loses the goals table. `nights_are_made`
    says that the nightly task has been at work since it was installed; `scheduled_seconds` is how long ago that
    was, None when `hooks` has not done it; `night_age_seconds` is how long ago the last good night was, None
    when none was good. `newest_unreadable` is the finding for a newest checkpoint
    that cannot be read.
    """

    checkpointing: bool
    pausing: bool = False
    machine_memory_bytes: int
    target_version: str | None = None
    current_version: str | None = None
    drops_goals: Answer = Answer.NO
    checkpoint_age_seconds: float | None = None
    nights_are_made: bool = False
    scheduled_seconds: float | None = None
    night_age_seconds: float | None = None
    newest_unreadable: Finding | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict, every finding with the worst first, and the exit code."""

    verdict: Verdict
    findings: tuple[Finding, ...]
    exit_code: int


def size_class(size_bytes: int, settings: Settings) -> SizeClass:
    """The class of a thread by the sum along its lineage; thresholds belong to the class they open."""
    if size_bytes >= settings.critical_bytes:
        return SizeClass.CRITICAL
    if size_bytes >= settings.danger_bytes:
        return SizeClass.DANGER
    if size_bytes >= settings.warning_bytes:
        return SizeClass.WARNING
    return SizeClass.OK


def needs_checkpoint(seen: Observation) -> bool:
    """Whether `run` makes a checkpoint of this thread: goal threads, and unarchived ones in danger or above.

    Not without a rollout: the goal's row is in every checkpoint, and that the file is gone is a finding already.
    """
    if not seen.thread.lineage:
        return False
    if seen.thread.is_goal_thread:
        return True
    return not seen.thread.archived and seen.size_class in (SizeClass.DANGER, SizeClass.CRITICAL)


def decide(homes: Iterable[tuple[HomeObservation, Circumstances]], settings: Settings) -> Decision:
    """The verdict on everything that was seen; the same input gives the same answer."""
    findings: list[Finding] = []
    for home, circumstances in homes:
        findings += home.findings
        findings += _of_home(home, circumstances, settings)
        # What reading a checkpoint back has told of a thread, its damaged lines, the tail need not tell again.
        told = {(finding.finding_id, finding.thread_id) for finding in home.findings}
        for seen in home.threads:
            findings += seen.findings
            findings += (f for f in _of_thread(seen, circumstances) if (f.finding_id, f.thread_id) not in told)
    return verdict_on(findings)


def verdict_on(findings: Iterable[Finding]) -> Decision:
    """The verdict that these findings make, the worst one first; what two stages have met is told once."""
    by_rank = sorted(findings, key=lambda f: (f.severity is not Severity.BLOCK, f.finding_id, f.thread_id or ""))
    told: dict[tuple[object, ...], Finding] = {}
    for finding in by_rank:
        told.setdefault((finding.finding_id, finding.thread_id, finding.path), finding)
    ordered = tuple(told.values())
    code = max((_code(f) for f in ordered), key=lambda c: _RANK[c], default=0)
    verdict = Verdict.PROCEED if code == 0 else Verdict.WARN if code == 3 else Verdict.BLOCK
    return Decision(verdict, ordered, code)


def _code(finding: Finding) -> int:
    if finding.severity is Severity.WARN:
        return 3
    return EXIT_CODES.get(finding.finding_id, 10)


def no_home() -> Finding:
    """The finding for a verdict that has nothing to rest on: no Codex there is more often a wrong place."""
    return Finding(
        finding_id="no-home",
        severity=Severity.WARN,
        cause="no Codex home was found, so nothing was looked at",
        remedy="name it with --home, or set CODEX_HOME",
    )


def empty_home(home: Home) -> Finding:
    """The finding for a folder that is a home of Codex by its name alone."""
    return Finding(
        finding_id="home-empty",
        severity=Severity.WARN,
        cause="this home has no thread and no database, so nothing was looked at",
        remedy="name the right home with --home",
        path=home.path,
    )


def _of_home(home: HomeObservation, now: Circumstances, settings: Settings) -> Iterator[Finding]:
    if not home.counts.get("threads") and home.home.state_db is None and home.home.goals_db is None:
        yield empty_home(home.home)
    if home.home.daemon_updater is not Answer.NO:
        sure = home.home.daemon_updater is Answer.YES
        yield Finding(
            finding_id="daemon-updater",
            severity=Severity.WARN,
            cause="the Codex daemon's own updater is switched on and may replace the runtime at any hour"
            if sure
            else "whether the Codex daemon's own updater is switched on could not be told",
            remedy="codex app-server daemon stop",
            path=home.home.path,
        )
    goals = [seen for seen in home.threads if seen.thread.is_goal_thread]
    if goals and now.drops_goals is not Answer.NO:
        yield Finding(
            finding_id="target-drops-goals",
            severity=Severity.WARN,
            cause=f"the update {'deletes' if now.drops_goals is Answer.YES else 'may delete'} the goals table of this "
            "version; preflight finish writes the goals anew",
            measured=now.current_version,
            expected=now.target_version,
            remedy="preflight run before the update, start the new version once, then preflight finish",
            path=home.home.path,
        )
    if now.checkpointing:
        return
    yield from _of_age(home, now, settings)


def _of_age(home: HomeObservation, now: Circumstances, settings: Settings) -> Iterator[Finding]:
    if now.newest_unreadable is not None:
        yield now.newest_unreadable
    longest, night, scheduled = settings.checkpoint_max_age_seconds, now.night_age_seconds, now.scheduled_seconds
    if now.nights_are_made and night is None:
        stale, cause = True, "the nightly task has been at work on this home, but no night was good yet"
    else:
        # One that was installed just now has not had its first night yet, whenever the last one of before was.
        waited = [age for age in (night, scheduled) if age is not None]
        stale = (now.nights_are_made or scheduled is not None) and min(waited, default=0.0) > longest
        cause = "the nightly task has been at work on this home, but its last good night is too long ago"
        if not now.nights_are_made:
            cause = "the nightly task is installed, but has not been at work on this home since"
    if stale:
        measured = night if now.nights_are_made else scheduled
        yield Finding(
            finding_id="schedule-stale",
            severity=Severity.WARN,
            cause=cause,
            measured=None if measured is None else int(measured),
            expected=int(longest),
            remedy="preflight hooks status says whether it would run; preflight checkpoint --nightly makes up for it",
            path=home.home.path,
        )
    # A good night that found nothing new has made no checkpoint, and the one there is is up to date.
    ages = [age for age in (now.checkpoint_age_seconds, night) if age is not None]
    age = min(ages, default=0.0)
    if age > longest:
        yield Finding(
            finding_id="checkpoint-stale",
            severity=Severity.WARN,
            cause="the newest checkpoint of this home is older than it should be",
            measured=int(age),
            expected=int(longest),
            remedy="preflight run",
            path=home.home.path,
        )


def _of_thread(seen: Observation, now: Circumstances) -> Iterator[Finding]:
    yield from _of_turn(seen, now)
    yield from _of_size(seen)
    yield from _of_resume(seen, now)
    yield from _of_damage(seen)


def _of_turn(seen: Observation, now: Circumstances) -> Iterator[Finding]:
    thread = seen.thread
    goal = thread.goal
    if goal is not None and goal.is_active:
        yield Finding(
            finding_id="goal-active",
            severity=Severity.BLOCK if now.pausing else Severity.WARN,
            thread_id=thread.thread_id,
            cause="the goal is active although this run has paused every goal: somebody has set it going since"
            if now.pausing
            else "the goal is active: it goes on by itself, also right after an update",
            measured=goal.status,
            expected="paused",
            remedy="preflight run pauses it and preflight finish puts it back",
        )
    if not thread.archived and seen.turn is TurnState.IN_PROGRESS and seen.writer is not WriterState.NONE:
        run_would_wait = not now.checkpointing and goal is not None and goal.is_active
        yield Finding(
            finding_id="turn-in-progress",
            severity=Severity.WARN if run_would_wait else Severity.BLOCK,
            thread_id=thread.thread_id,
            cause="a turn is in progress; replacing the runtime now would cut it off",
            measured=seen.turn.value,
            expected=TurnState.IDLE.value,
            remedy="wait for the turn to end, or: preflight run --wait 300",
        )
    if thread.is_goal_thread and seen.writer is WriterState.UNKNOWN:
        yield Finding(
            finding_id="writer-unknown",
            severity=Severity.BLOCK,
            thread_id=thread.thread_id,
            cause="whether a process writes to this goal thread could not be told",
            measured=seen.writer.value,
            expected=WriterState.NONE.value,
            remedy="close Codex, or run preflight on the system that owns the disk; then the same command again",
        )


def _of_size(seen: Observation) -> Iterator[Finding]:
    thread = seen.thread
    if thread.archived and not thread.is_goal_thread:
        return
    protected = seen.checkpoint is not None and seen.checkpoint.fresh and seen.checkpoint.verified
    large = seen.size_class in (SizeClass.DANGER, SizeClass.CRITICAL)
    must = seen.size_class is SizeClass.CRITICAL or (thread.is_goal_thread and large)
    if must and not protected:
        yield Finding(
            finding_id="checkpoint-missing",
            severity=Severity.BLOCK,
            thread_id=thread.thread_id,
            cause=f"{_what(seen)} of size class {seen.size_class.value} has no fresh verified checkpoint",
            measured=thread.size_bytes,
            remedy="open the thread once in Codex, which unpacks its rollout, then: preflight run"
            if thread.head is not None and thread.head.compressed
            else "preflight run",
        )
    elif seen.size_class is not SizeClass.OK:
        yield Finding(
            finding_id=f"size-{seen.size_class.value}",
            severity=Severity.WARN,
            thread_id=thread.thread_id,
            cause=f"{_what(seen)} is of size class {seen.size_class.value}"
            + (", and has a fresh verified checkpoint" if protected else ""),
            measured=thread.size_bytes,
            remedy=None if protected else f"preflight run --thread {thread.thread_id}",
        )
    if thread.size_bytes > V8_STRING_LIMIT:
        yield Finding(
            finding_id="v8-string-limit",
            severity=Severity.WARN,
            thread_id=thread.thread_id,
            cause="the rollout is longer than the longest string a desktop client can hold",
            measured=thread.size_bytes,
            expected=V8_STRING_LIMIT,
            remedy="after the update open the thread from the command line first",
        )


def _of_resume(seen: Observation, now: Circumstances) -> Iterator[Finding]:
    estimate = seen.estimate
    if estimate is None or (seen.thread.archived and not seen.thread.is_goal_thread):
        return
    memory = now.machine_memory_bytes
    boundary: Boundary | None = seen.tail.boundary if seen.tail is not None else None
    version = estimate.runtime_version or "an unknown version"
    if estimate.bytes > memory and boundary is None:
        yield Finding(
            finding_id="no-boundary",
            severity=Severity.BLOCK,
            thread_id=seen.thread.thread_id,
            cause=f"opening this thread needs more memory than this machine has (estimate for {version}, "
            f"{estimate.history_mode.value} layout, {estimate.factor:g} times its size), and it has no compaction "
            "from which a smaller one could go on",
            measured=estimate.bytes,
            expected=memory,
            remedy="open the thread in the present version and compact it (/compact), then preflight run",
        )
    elif estimate.bytes > memory // 2:
        yield Finding(
            finding_id="resume-memory",
            severity=Severity.WARN,
            thread_id=seen.thread.thread_id,
            cause=f"opening this thread may need more than half of this machine's memory (estimate for {version}, "
            f"{estimate.history_mode.value} layout, {estimate.factor:g} times its size)",
            measured=estimate.bytes,
            expected=memory // 2,
            remedy="close other programs before the thread is opened again",
        )


def _of_damage(seen: Observation) -> Iterator[Finding]:
    tail = seen.tail
    if tail is None:
        return
    if tail.damaged_lines:
        yield Finding(
            finding_id="damaged-lines",
            severity=Severity.WARN,
            thread_id=seen.thread.thread_id,
            cause="lines of the rollout cannot be read; Codex skips them, or refuses the thread if they are not UTF-8",
            measured=tail.damaged_lines,
            expected=0,
            remedy=f"preflight run --thread {seen.thread.thread_id} keeps a checkpoint of it",
        )
    torn = tail.identity.size_bytes - tail.complete_bytes
    if torn and seen.writer is WriterState.NONE:
        yield Finding(
            finding_id="torn-last-line",
            severity=Severity.WARN,
            thread_id=seen.thread.thread_id,
            cause="the last line of the rollout is cut off; versions up to 0.144 glue the next record to it",
            measured=torn,
            expected=0,
            remedy=f"preflight run --thread {seen.thread.thread_id} keeps a checkpoint without it",
        )


def _what(seen: Observation) -> str:
    return "a goal thread" if seen.thread.is_goal_thread else "a thread"
