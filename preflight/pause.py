"""Pausing goals so that nothing is cut off and nothing is forgotten (design, section 4.1).

Every goal is written to the journal before it is touched, paused through its owner's control socket
or by a compare-and-set in the database, and counts as paused only when its row says so, no turn is
in progress and its rollout has stopped growing. `put_back` undoes exactly what the journal says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from preflight.checkpoint.journal import Journal, PauseEntry, PauseIntent, PauseMeans
from preflight.codex import boundary, goals
from preflight.codex.app_server import AppServer, control_socket_of
from preflight.codex.goals import Outcome
from preflight.errors import AppServerError, DamagedFile, PreflightError
from preflight.model import (
    Finding,
    Goal,
    GoalStatus,
    GoalTable,
    Home,
    Observation,
    Severity,
    TurnState,
    WriterState,
)
from preflight.system.deadline import Deadline

_POLL_SECONDS = 0.2
_INTERRUPT_SECONDS = 10.0
_SOCKET_MS = 30_000  # an answer is waited for no longer than this


class PauseState(StrEnum):
    """How a goal stands: paused and confirmed, over by itself, or not to be confirmed in time."""

    PAUSED = "paused"
    OVER = "over"
    NOT_CONFIRMED = "not-confirmed"


@dataclass(frozen=True, slots=True)
class GoalPause:
    """What became of one active goal; `waiting_for` says what was still missing."""

    thread_id: str
    state: PauseState
    waiting_for: str = ""


@dataclass(slots=True)
class _Pending:
    """A goal that we have asked to pause and that is not confirmed yet.

    `ours` is False when somebody else was first: then a row that reads paused is theirs.
    """

    seen: Observation
    intent: PauseIntent
    ours: bool = True
    size: int = -1
    recorded_ms: int | None = None
    turn_id: str | None = None
    waiting_for: str = "its row to read paused"
    state: PauseState | None = None


@dataclass(frozen=True, slots=True)
class Pausing:
    """How to pause: who runs, how long to wait for turns to end, and whether to cut them off then."""

    run_id: str
    wait_seconds: float
    interrupt: bool
    target_version: str | None
    deadline: Deadline
    progress: Callable[[str], None]


def pause_goals(home: Home, threads: Sequence[Observation], journal: Journal, how: Pausing) -> tuple[GoalPause, ...]:
    """Pause the active goals of `threads` and wait until each is confirmed, or until the wait is over.

    A turn is waited for, never cut off, unless `how.interrupt` says so, and then only through the
    owner's socket. Raises DatabaseBusy, TimeLimitReached and what the journal raises; whatever was
    paused by then is in the journal, and `put_back` undoes it.
    """
    active = [seen for seen in threads if seen.thread.goal is not None and seen.thread.goal.is_active]
    if not active:
        return ()
    server = control_socket_of(home, how.deadline)
    try:
        pending = [_ask(home, seen, journal, how, server) for seen in active]
        _confirm(home, pending, journal, how, server)
    finally:
        if server is not None:
            server.close()
    return tuple(
        GoalPause(one.seen.thread.thread_id, one.state or PauseState.NOT_CONFIRMED, one.waiting_for) for one in pending
    )


def _ask(home: Home, seen: Observation, journal: Journal, how: Pausing, server: AppServer | None) -> _Pending:
    goal = seen.thread.goal
    assert goal is not None  # noqa: S101  # the caller chose threads with an active goal
    means = PauseMeans.DATABASE if server is None else PauseMeans.SOCKET
    asked_at_ms = _now_ms()
    intent = PauseIntent.of(
        goal,
        run_id=how.run_id,
        home=home.path,
        how=means,
        target_version=how.target_version,
        asked_at_ms=asked_at_ms,
    )
    journal.record_pause(intent)
    how.progress(f"pausing the goal of thread {goal.thread_id}")
    if server is None:
        return _Pending(seen, intent, ours=goals.pause(home, goal, asked_at_ms, how.deadline))
    if not _by_socket(server, goal.thread_id, GoalStatus.PAUSED, how.deadline):
        # Ours even if it changes nothing: the server may have carried out what it did not answer in time.
        goals.pause(home, goal, asked_at_ms, how.deadline)
    return _Pending(seen, intent)


def _by_socket(server: AppServer, thread_id: str, status: GoalStatus, deadline: Deadline) -> bool:
    """Set the status through the owner; False when it does not know the goal or refuses, and the database serves."""
    try:
        told = server.goal_set_status(thread_id, status, deadline)
    except AppServerError:
        return False
    return told is not None and told.status == status


def _confirm(home: Home, pending: Sequence[_Pending], journal: Journal, how: Pausing, server: AppServer | None) -> None:
    until = how.deadline.sub(how.wait_seconds)
    interrupted = False
    while True:
        rows = {goal.thread_id: goal for goal in goals.read_goals(home, how.deadline).goals}
        for one in pending:
            if one.state is None:
                _look(one, rows.get(one.seen.thread.thread_id), journal)
        waiting = [one for one in pending if one.state is None]
        if not waiting:
            return
        if until.expired:
            if not how.interrupt or interrupted or server is None:
                return
            interrupted = True
            until = how.deadline.sub(_INTERRUPT_SECONDS)
            _interrupt(server, waiting, how)
        how.deadline.check("waiting for turns to end")
        time.sleep(until.at_most(_POLL_SECONDS))


def _interrupt(server: AppServer, waiting: Sequence[_Pending], how: Pausing) -> None:
    for one in waiting:
        if one.turn_id is not None:
            how.progress(f"interrupting the turn of thread {one.seen.thread.thread_id}")
            try:
                server.turn_interrupt(one.seen.thread.thread_id, one.turn_id, how.deadline)
            except AppServerError as error:
                one.waiting_for = f"its turn to end; the interrupt was refused: {error.message}"


def _look(one: _Pending, goal: Goal | None, journal: Journal) -> None:
    """Confirm one goal, or note what is missing."""
    if goal is None or goal.goal_id != one.intent.goal_id or goal.status not in (GoalStatus.PAUSED, GoalStatus.ACTIVE):
        # The turn that was in progress ended the goal, or a person replaced it: there is nothing left to pause.
        one.state = PauseState.OVER
        journal.record_restored(one.intent, "over")
        return
    if goal.is_active:
        one.waiting_for = "its row to read paused"
        return
    if not one.ours or one.recorded_ms not in (None, goal.updated_at_ms):
        # Against a person who pauses the goal at the same moment: it stays paused, by them and not by us.
        one.state = PauseState.OVER
        journal.record_restored(one.intent, Outcome.CHANGED)
        return
    if one.recorded_ms is None:
        journal.record_paused(one.intent, goal.updated_at_ms)
        one.recorded_ms = goal.updated_at_ms
    alive = one.seen.writer is not WriterState.NONE
    head = one.seen.thread.head
    if not alive or head is None or head.compressed:
        one.state = PauseState.PAUSED
        return
    try:
        reading = boundary.read_turn(head.path)
    except (DamagedFile, OSError):
        one.waiting_for = "its rollout to be readable"
        return
    one.turn_id = reading.turn_id
    grown, one.size = reading.size_bytes != one.size, reading.size_bytes
    if reading.turn is TurnState.IN_PROGRESS:
        one.waiting_for = "its turn to end"
    elif grown:
        one.waiting_for = "its rollout to stop growing"
    else:
        one.state = PauseState.PAUSED


def not_confirmed(pauses: Sequence[GoalPause]) -> tuple[Finding, ...]:
    """A blocking finding for each goal that could not be confirmed paused."""
    return tuple(
        Finding(
            finding_id="goal-not-paused",
            severity=Severity.BLOCK,
            thread_id=one.thread_id,
            cause=f"the goal could not be confirmed paused: still waiting for {one.waiting_for}",
            remedy="preflight run --wait 300, or --interrupt where a control socket answers",
        )
        for one in pauses
        if one.state is PauseState.NOT_CONFIRMED
    )


@dataclass(frozen=True, slots=True)
class PutBack:
    """What became of one goal of the journal; `pending` says that it stays there for the next try.

    `owner_told`: the runtime that has the thread open goes on with it at once. Without that, a goal goes
    on when its thread's turn ends or when the thread is opened (0.128 to 0.169).
    """

    thread_id: str
    goal_id: str
    outcome: Outcome
    pending: bool = False
    owner_told: bool = False


@dataclass(frozen=True, slots=True)
class PuttingBack:
    """How to put goals back.

    `known` are the goals of the last checkpoint by thread, for those that an update has dropped;
    `withheld` are threads whose goal stays paused, and in the journal, because the thread was harmed.
    """

    deadline: Deadline
    known: Mapping[str, Goal] = field(default_factory=dict)
    withheld: frozenset[str] = frozenset()


def put_back(home: Home, journal: Journal, how: PuttingBack) -> tuple[PutBack, ...]:
    """Make every goal of the journal again what it was before we paused it.

    Only a goal that is still ours is touched: same goal id, still paused, not set by anybody since.
    One that an update has dropped is written anew from `how.known`. A goal that could be neither put
    back nor written stays in the journal, and keeps no other from being put back. Raises DatabaseBusy,
    UnknownSchema, DamagedFile and what the journal raises: the first error, after all have been tried.
    """
    entries = journal.pending()
    if not entries:
        return ()
    server = control_socket_of(home, how.deadline)
    done: list[PutBack] = []
    errors: list[PreflightError] = []
    try:
        for entry in entries:
            try:
                done.append(_restore(home, entry, journal, how, server))
            except PreflightError as error:
                errors.append(error)
    finally:
        if server is not None:
            server.close()
    if errors:
        raise errors[0]
    return tuple(done)


def _restore(home: Home, entry: PauseEntry, journal: Journal, how: PuttingBack, server: AppServer | None) -> PutBack:
    intent = entry.intent
    if intent.thread_id in how.withheld:
        return PutBack(intent.thread_id, intent.goal_id, Outcome.CHANGED, pending=True)
    confirmed = entry.paused_updated_at_ms
    outcome = goals.restore_status(
        home,
        thread_id=intent.thread_id,
        goal_id=intent.goal_id,
        paused_at_ms=intent.asked_at_ms if confirmed is None else confirmed,
        paused_until_ms=_given_up_ms(intent) if confirmed is None else None,
        now_ms=_now_ms(),
        deadline=how.deadline,
    )
    told = False
    if outcome is Outcome.DROPPED:
        outcome = _write_anew(home, intent, how)
    if outcome in (Outcome.RESTORED, Outcome.INSERTED) and server is not None:
        # The row is active already; only the owner's own set lets an idle loaded thread go on.
        told = _by_socket(server, intent.thread_id, GoalStatus.ACTIVE, how.deadline)
    # A goal that went with its table may be written anew later; one that alone is gone was cleared by somebody.
    pending = outcome is Outcome.NO_PLACE or (outcome is Outcome.DROPPED and intent.table is GoalTable.STATE)
    if not pending:
        journal.record_restored(intent, outcome)
    return PutBack(intent.thread_id, intent.goal_id, outcome, pending, told)


def _write_anew(home: Home, intent: PauseIntent, how: PuttingBack) -> Outcome:
    known = how.known.get(intent.thread_id)
    if known is None or known.goal_id != intent.goal_id:
        return Outcome.DROPPED
    return goals.write_anew(home, replace(known, status=intent.status_before), how.deadline)


def _given_up_ms(intent: PauseIntent) -> int:
    """The latest moment at which a pause that nobody saw confirmed can have been written.

    Where we write the row ourselves it has our own time; a runtime writes its own, after we asked.
    """
    return intent.asked_at_ms if intent.how is PauseMeans.DATABASE else intent.asked_at_ms + _SOCKET_MS


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
