"""Pausing goals so that nothing is cut off and nothing is forgotten (design, section 4.1).

Every goal is written to the journal before it is touched, paused through its owner's control socket
or by a compare-and-set in the database, and counts as paused only when its row says so, no turn is
in progress and its rollout has stopped growing. `put_back` undoes exactly what the journal says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum

from preflight.checkpoint.journal import Journal, PauseEntry, PauseIntent, PauseMeans
from preflight.codex import boundary, goals, writers
from preflight.codex.app_server import AppServer, control_socket_of
from preflight.codex.goals import Outcome
from preflight.errors import AppServerError, DamagedFile, NoSpace, PreflightError, TimeLimitReached
from preflight.model import (
    Finding,
    Goal,
    GoalStatus,
    GoalTable,
    Home,
    Observation,
    Severity,
    Thread,
    TurnState,
    WriterState,
)
from preflight.system import files
from preflight.system.deadline import Deadline

_POLL_SECONDS = 0.2
_INTERRUPT_SECONDS = 10.0
_ROOM_BYTES = 1 << 20  # for the log that SQLite writes, and its index
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
    reading: boundary.TurnReading | None = None
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
    if not any(seen.thread.goal is not None and seen.thread.goal.is_active for seen in threads):
        return ()
    # Read anew under the run lock: since `threads` were looked at, a person may have paused one of them (a set
    # through the owner would make that pause ours), or a run that has ended since (its promise must stay in force).
    rows = {goal.thread_id: goal for goal in goals.read_goals(home, how.deadline).goals if goal.is_active}
    active = [
        replace(seen, thread=replace(seen.thread, goal=rows[seen.thread.thread_id]))
        for seen in threads
        if seen.thread.thread_id in rows
    ]
    if not active:
        return ()
    if files.free_bytes(home.sqlite_home) < _ROOM_BYTES:
        raise NoSpace(
            "the disk of the databases is full, and a goal that is paused now could not be put back",
            path=home.sqlite_home,
            hint="make room there, then: preflight run",
            needed_bytes=_ROOM_BYTES,
        )
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
        read = goals.read_goals(home, how.deadline)
        rows = {goal.thread_id: goal for goal in read.goals}
        damaged = {finding.path for finding in read.findings if finding.finding_id == "database-damaged"}
        for one in pending:
            place = home.goals_db if one.intent.table is GoalTable.GOALS else home.state_db
            if one.state is None and place not in damaged:
                _look(one, rows.get(one.seen.thread.thread_id), journal)
            elif one.state is None:
                one.waiting_for = "its database to be readable"  # no row is seen there, and none is gone
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
        one.reading = reading = boundary.read_turn(head.path, one.reading)
    except (DamagedFile, OSError):
        one.waiting_for = "its rollout to be readable"
        return
    one.turn_id = reading.turn_id
    grown, one.size = reading.size_bytes != one.size, reading.size_bytes
    if reading.turn is TurnState.IN_PROGRESS and not writers.nobody_writes(one.seen.thread):
        one.waiting_for = "its turn to end"
    elif grown:
        one.waiting_for = "its rollout to stop growing"
    else:
        one.state = PauseState.PAUSED


def wait_for_turns(threads: Sequence[Observation], until: Deadline, progress: Callable[[str], None]) -> bool:
    """Wait for the turns in progress that no active goal has begun; True when there was one, ended by now or not.

    Whoever looks at the threads again sees which have not ended.
    """
    waiting = [
        seen.thread
        for seen in threads
        if seen.turn is TurnState.IN_PROGRESS and seen.writer is not WriterState.NONE and not seen.thread.archived
    ]
    if waiting:
        progress("waiting for turns to end")
    readings: dict[str, boundary.TurnReading] = {}
    while not until.expired and any(_in_turn(thread, readings) for thread in waiting):
        time.sleep(until.at_most(_POLL_SECONDS))
    return bool(waiting)


def _in_turn(thread: Thread, readings: dict[str, boundary.TurnReading]) -> bool:
    """Whether its newest turn has not ended and somebody is there who could end it; keeps what was read of it."""
    if thread.head is None:
        return False
    try:
        reading = boundary.read_turn(thread.head.path, readings.get(thread.thread_id))
    except (DamagedFile, OSError):
        return False  # the next look says what is wrong with it
    readings[thread.thread_id] = reading
    return reading.turn is TurnState.IN_PROGRESS and not writers.nobody_writes(thread)


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


def still_paused(home: Home, error: PreflightError | OSError) -> Finding:
    """The finding for a home whose goals could not be put back after a run that did not end well."""
    what = error.message if isinstance(error, PreflightError) else error.strerror or str(error)
    return Finding(
        finding_id="goal-not-put-back",
        severity=Severity.BLOCK,
        cause=f"goals that this run had paused could not be put back: {what}",
        remedy="preflight resume-goals",
        path=(error.path if isinstance(error, PreflightError) else None) or home.path,
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
    `withheld` are threads whose goal stays paused, and in the journal, because the thread was harmed, as
    comparing it with checkpoint `compared_with` has told. A goal that was withheld stays so until comparing
    with the same checkpoint tells that the thread is whole, or until `release`: a person wants it all the same.
    """

    deadline: Deadline
    known: Mapping[str, Goal] = field(default_factory=dict)
    withheld: frozenset[str] = frozenset()
    compared_with: str | None = None
    release: bool = False


def put_back(home: Home, journal: Journal, how: PuttingBack) -> tuple[PutBack, ...]:
    """Make every goal of the journal again what it was before we paused it.

    Only a goal that is still ours is touched: same goal id, still paused, not set by anybody since.
    One that an update has dropped is written anew from `how.known`. A goal that could be neither put
    back nor written stays in the journal, and keeps no other from being put back. Raises DatabaseBusy,
    UnknownSchema, DamagedFile and what the journal raises: the first error, after all have been tried.
    """
    done: list[PutBack] = []
    errors: list[PreflightError] = []
    for entry in journal.pending():
        try:
            done.append(_restore(home, entry, journal, how))
        except PreflightError as error:
            errors.append(error)
    done = _tell_owner(home, done, how.deadline)
    if errors:
        raise errors[0]
    return tuple(done)


def _tell_owner(home: Home, done: Sequence[PutBack], deadline: Deadline) -> list[PutBack]:
    """Let idle loaded threads go on: only the owner's own set does that. A server that hangs costs this and no more.

    Every row is active and recorded by now. Against the goal's end at the same moment: the owner's set knows no
    condition and would win, so it is sent at once or, when the time is over, not at all.
    """
    told = list(done)
    active = [n for n, one in enumerate(done) if one.outcome in (Outcome.RESTORED, Outcome.INSERTED)]
    with suppress(TimeLimitReached):
        server = control_socket_of(home, deadline) if active else None
        if server is not None:
            with server:
                for n in active:
                    answered = _by_socket(server, done[n].thread_id, GoalStatus.ACTIVE, deadline)
                    told[n] = replace(done[n], owner_told=answered)
    return told


def _restore(home: Home, entry: PauseEntry, journal: Journal, how: PuttingBack) -> PutBack:
    intent = entry.intent
    if _withheld(home, entry, journal, how):
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
    if outcome is Outcome.DROPPED:
        outcome = _write_anew(home, intent, how)
    # A goal that went with its table may come back later; one that alone is gone was cleared by somebody.
    cleared = outcome is Outcome.DROPPED and intent.table is GoalTable.GOALS and home.goals_db is not None
    pending = outcome is Outcome.NO_PLACE or (outcome is Outcome.DROPPED and not cleared)
    if not pending:
        journal.record_restored(intent, outcome)
    return PutBack(intent.thread_id, intent.goal_id, outcome, pending)


def _withheld(home: Home, entry: PauseEntry, journal: Journal, how: PuttingBack) -> bool:
    """Whether the goal stays paused; that its thread was found harmed is written down, for the runs to come.

    A person who has set the goal since decided for themselves: then it is theirs.
    """
    harmed = entry.intent.thread_id in how.withheld
    if how.release or not (harmed or entry.withheld_by not in (None, how.compared_with)):
        return False
    if entry.withheld_by is None and how.compared_with is not None:
        journal.record_withheld(entry.intent, how.compared_with)
    rows = {goal.thread_id: goal for goal in goals.read_goals(home, how.deadline).goals}
    row = rows.get(entry.intent.thread_id)
    return row is None or (row.goal_id == entry.intent.goal_id and row.status == GoalStatus.PAUSED)


def _write_anew(home: Home, intent: PauseIntent, how: PuttingBack) -> Outcome:
    known = how.known.get(intent.thread_id)
    if known is None or known.goal_id != intent.goal_id:
        return Outcome.DROPPED
    return goals.insert_goal(home, replace(known, status=intent.status_before), how.deadline)


def _given_up_ms(intent: PauseIntent) -> int:
    """The latest moment at which a pause that nobody saw confirmed can have been written.

    Where we write the row ourselves it has our own time; a runtime writes its own, after we asked.
    """
    return intent.asked_at_ms if intent.how is PauseMeans.DATABASE else intent.asked_at_ms + _SOCKET_MS


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
