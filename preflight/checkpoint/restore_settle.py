"""The one step of a restore that changes Codex's own files: rollouts change places, databases follow.

Only while nobody has the thread open, and with Codex's writer lock of the thread held where there are
such locks (0.147 and later). Against a runtime without them that opens the thread at the same moment: we
look again once the files have changed places; if it has opened the older file, that one gets its place
back and the restore is called off. Either way no turn of its goes to a file without a name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from preflight.checkpoint import restore
from preflight.checkpoint.restore_record import Phase, RestoreRecord, Restores
from preflight.checkpoint.restore_source import RestoreSource
from preflight.codex import goals, projection, thread_rows, writers
from preflight.codex.thread_rows import RowOutcome, RowWanted
from preflight.codex.threads import find_threads
from preflight.errors import DamagedFile, Locked, ThreadInUse
from preflight.model import Answer, Finding, Goal, GoalStatus, Home, Severity, Thread, WriterState
from preflight.system import files, locks, processes, swapping
from preflight.system.deadline import Deadline

__all__ = ["Settled", "as_paused", "complete", "fence", "no_place", "put_back_as", "require_usable"]


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of the thread's places in the databases."""

    row: RowOutcome
    goal: str | None
    projection_rows: int
    findings: tuple[Finding, ...]


@contextmanager
def fence(home: Home, thread_id: str, deadline: Deadline) -> Iterator[None]:
    """Make sure that nobody has the thread open, and that no runtime of 0.147 or later opens it until we are done."""
    thread = next((one for one in find_threads(home, deadline).threads if one.thread_id == thread_id), None)
    if thread is None:
        thread = Thread(home=home, thread_id=thread_id, row=None, lineage=(), goal=None, archived=False)
    runtimes = writers.runtimes_of(home)
    _require_unused(thread, writers.writer_of(thread, runtimes)[0])
    lock = writers.writer_lock_path(home, thread_id)
    with ExitStack() as stack:
        if lock.parent.is_dir():  # releases before 0.147 know no such lock, and have no such folder
            try:
                stack.enter_context(locks.held(lock))
            except Locked:
                raise _in_use(thread_id, WriterState.LIVE) from None
            _require_unused(thread, writers.writer_of(thread, runtimes, lock_is_ours=True)[0])
        yield


def _require_unused(thread: Thread, state: WriterState) -> None:
    if state is not WriterState.NONE:
        raise _in_use(thread.thread_id, state)


def _in_use(thread_id: str, state: WriterState) -> ThreadInUse:
    return ThreadInUse(
        f"a runtime has thread {thread_id} open"
        if state is WriterState.LIVE
        else f"it cannot be told whether a runtime has thread {thread_id} open",
        hint="close every Codex of this home, then try again; or restore to a new folder with --to",
    )


def row_wanted(record: RestoreRecord) -> RowWanted:
    """What the thread's row has to say once the files have changed places."""
    assert record.head is not None  # noqa: S101  # only an undo may have none
    return RowWanted(
        thread_id=record.thread_id,
        place=record.head.place,
        archived=record.archived,
        history_mode=record.history_mode,
    )


def require_usable(home: Home, record: RestoreRecord, source: RestoreSource, deadline: Deadline) -> None:
    """Raise now, before files change places, what the row's or the goal's database would raise afterwards.

    UnknownSchema or DamagedFile: a restore that can never be completed would be in the way of all later ones.
    """
    for finding in goals.read_goals(home, deadline).findings:
        if finding.finding_id == "database-damaged":
            raise DamagedFile(finding.cause, path=finding.path, hint=finding.remedy)
    thread_rows.require_can_be_put_back(home, row_wanted(record), source.database("state"), deadline)


def complete(
    home: Home, restores: Restores, record: RestoreRecord, source: RestoreSource | None, deadline: Deadline
) -> tuple[RestoreRecord, Settled]:
    """Carry out what lies ready, files and databases; may be done again after a kill.

    The projection goes first: with the older file it is built anew, with the newer one it would be wrong.
    """
    forgotten = projection.forget(home, record.file_ids, deadline)
    restore.swap(record)
    if any(file.kept is not None and processes.open_for_writing(file.kept) is Answer.YES for file in record.files):
        restore.unswap(record)
        restores.save(replace(record, phase=Phase.CANCELLED))
        raise _in_use(record.thread_id, WriterState.LIVE)
    row, findings = RowOutcome.LEFT, list[Finding]()
    goal: str | None = None
    if record.undoes is not None:
        goal = _undone_goal(home, restores, record, deadline)  # before the row: with it 0.128 deletes the goal
        row = _undone_row(home, record, deadline)
        undone = next(one for one in restores.all() if one.restore_id == record.undoes)
        restores.save(replace(undone, phase=Phase.UNDONE))
    else:
        copy = source.database("state") if source is not None else None
        row = thread_rows.put_back(home, row_wanted(record), copy, deadline)
        goal, findings = _goal_put_back(home, record, source, deadline)
    record = replace(record, phase=Phase.DONE, row_after=thread_rows.read_row(home, record.thread_id, deadline))
    return restores.save(record), Settled(row, goal, forgotten, tuple(findings))


def _undone_row(home: Home, record: RestoreRecord, deadline: Deadline) -> RowOutcome:
    """The row as it was before the restore: `row_before` is what that left, `row_after` what there was."""
    ours, before = record.row_before, record.row_after
    if ours is None or ours == before:
        return RowOutcome.KEPT
    changed = thread_rows.take_back(home, ours, before, deadline)
    return RowOutcome.CHANGED if changed else RowOutcome.KEPT


def _undone_goal(home: Home, restores: Restores, record: RestoreRecord, deadline: Deadline) -> str | None:
    undone = next(one for one in restores.all() if one.restore_id == record.undoes)
    goal = next((g for g in goals.read_goals(home, deadline).goals if g.thread_id == record.thread_id), None)
    if goal is None or goal.goal_id != undone.goal_id or goal.updated_at_ms != undone.at_ms:
        return None
    return "withdrawn" if goals.withdraw(home, goal, deadline) else None


def _goal_put_back(
    home: Home, record: RestoreRecord, source: RestoreSource | None, deadline: Deadline
) -> tuple[str | None, list[Finding]]:
    """The goal of the checkpoint, paused; one that the thread has by now stays as it is."""
    now = next((g for g in goals.read_goals(home, deadline).goals if g.thread_id == record.thread_id), None)
    if now is not None:
        return goals.Outcome.EXISTS.value, [_still_active(now)] if now.is_active else []
    goal = as_paused(source.thread.goal, record.at_ms) if source is not None else None
    if goal is None or source is None:
        return None, []
    outcome = goals.insert_goal(home, goal, deadline)
    if outcome is goals.Outcome.NO_PLACE and home.goals_db is None and (copy := source.database("goals")) is not None:
        building = home.sqlite_home / f".{copy.name}.{record.restore_id}{files.TEMPORARY_SUFFIX}"
        for torn in home.sqlite_home.glob(f"{building.name}*"):
            files.remove(torn)
        goals.make_database(copy, building, goal, deadline)
        swapping.put_in_place(building, home.sqlite_home / copy.name, None)
        outcome = goals.Outcome.INSERTED
    if outcome is goals.Outcome.NO_PLACE:
        return outcome.value, [no_place(goal)]
    return put_back_as(outcome, goal), []


def put_back_as(outcome: goals.Outcome, goal: Goal) -> str:
    """What is told of a goal that was written: `inserted-paused`, or `inserted` where it was complete."""
    return (
        "inserted-paused" if outcome is goals.Outcome.INSERTED and goal.status == GoalStatus.PAUSED else outcome.value
    )


def as_paused(goal: Goal | None, at_ms: int) -> Goal | None:
    """A goal that is complete stays so; every other one would, or might, go on by itself."""
    if goal is None:
        return None
    return replace(goal, status=goal.status if goal.is_complete else GoalStatus.PAUSED, updated_at_ms=at_ms)


def _still_active(goal: Goal) -> Finding:
    return Finding(
        finding_id="goal-active",
        severity=Severity.WARN,
        thread_id=goal.thread_id,
        cause="the thread has an active goal, which goes on by itself when the thread is opened",
        measured=goal.status,
        expected=GoalStatus.PAUSED.value,
        remedy="pause the goal in Codex, or preflight run pauses it",
    )


def no_place(goal: Goal) -> Finding:
    return Finding(
        finding_id="goal-not-put-back",
        severity=Severity.WARN,
        thread_id=goal.thread_id,
        cause="there is no table of goals here yet, so the goal could not be put back; the checkpoint still has it",
        remedy="start Codex once, then restore the thread again",
    )
