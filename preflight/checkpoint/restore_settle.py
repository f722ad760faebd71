"""The one step of a restore that changes Codex's own files: rollouts change places, databases follow.

Only while nobody has the thread open, and with Codex's writer lock of the thread held where there are
such locks (0.147 and later). Against a runtime without them that opens the thread at the same moment: we
look again once the files have changed places; if it has opened an older file, be it to read it first, every
file gets its place back and the restore is called off. Either way no turn of its goes to a file without a name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from preflight.checkpoint import restore
from preflight.checkpoint.restore_record import Phase, RestoreRecord, Restores
from preflight.checkpoint.restore_source import RestoreSource
from preflight.codex import goals, projection, thread_rows, writers
from preflight.codex.paths import is_same
from preflight.codex.thread_rows import RowOutcome, RowWanted
from preflight.codex.threads import find_threads
from preflight.errors import DamagedFile, Locked, ThreadInUse, UsageProblem
from preflight.model import Answer, Finding, Goal, GoalStatus, Home, Runtime, Severity, Thread, WriterState
from preflight.system import files, locks, processes, swapping
from preflight.system.deadline import Deadline

__all__ = ["Settled", "as_paused", "complete", "fence", "give_back", "no_place", "put_back_as", "require_usable"]


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
    _require_unused(thread, runtimes)
    lock = writers.writer_lock_path(home, thread_id)
    with ExitStack() as stack:
        if lock.parent.is_dir():  # releases before 0.147 know no such lock, and have no such folder
            try:
                stack.enter_context(locks.held(lock))
            except Locked:
                raise _in_use(thread_id, WriterState.LIVE) from None
            _require_unused(thread, runtimes, lock_is_ours=True)
        yield


def _require_unused(thread: Thread, runtimes: Sequence[Runtime], *, lock_is_ours: bool = False) -> None:
    """A runtime that reads the rollout is about to open it: of gigabytes that takes a minute (0.134)."""
    state = writers.writer_of(thread, runtimes, lock_is_ours=lock_is_ours)[0]
    if state is WriterState.NONE and writers.loaded_threads([thread], runtimes)[0]:
        state = WriterState.LIVE
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
        # Codex writes the name without `.zst`, also of a file that it has compressed (0.144 to 0.169).
        place=record.head.place.with_name(restore.bare_name(record.head.place.name)),
        archived=record.archived,
        history_mode=record.history_mode,
    )


def require_usable(home: Home, record: RestoreRecord, source: RestoreSource, deadline: Deadline) -> None:
    """Raise now, before files change places, what the row's or the goal's database would raise afterwards.

    UnknownSchema or DamagedFile: a restore that can never be completed would be in the way of all later ones.
    UsageProblem when the databases are where this call does not look: the thread would have no row and no goal.
    """
    elsewhere = next(
        (one.source.parent for one in source.manifest.databases if _lies_elsewhere(one.source, home)), None
    )
    if elsewhere is not None:
        raise UsageProblem(
            "the databases of this home are not in it, and nothing says where they are",
            path=elsewhere,
            hint=f"set CODEX_SQLITE_HOME to {elsewhere}, as it was when the checkpoint was made",
        )
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
    if _opened_meanwhile(home, record):
        give_back(restores, record)
        raise _in_use(record.thread_id, WriterState.LIVE)
    row, findings = RowOutcome.LEFT, list[Finding]()
    goal: str | None = None
    if record.undoes is not None:
        goal = _undone_goal(home, record, deadline)  # before the row: with it 0.128 deletes the goal
        row = _undone_row(home, record, deadline)
        for undone in restores.all():
            if undone.restore_id == record.undoes:
                restores.save(replace(undone, phase=Phase.UNDONE))
    else:
        copy = source.database("state") if source is not None else None
        row = thread_rows.put_back(home, row_wanted(record), copy, deadline)
        goal, findings = _goal_put_back(home, record, source, deadline)
    record = replace(record, phase=Phase.DONE, row_after=thread_rows.read_row(home, record.thread_id, deadline))
    return restores.save(record), Settled(row, goal, forgotten, tuple(findings))


def give_back(restores: Restores, record: RestoreRecord) -> None:
    """Call a restore off whose files have their names already; may be done again after a kill."""
    restores.save(replace(record, phase=Phase.GIVING_BACK))
    restore.give_back(record)
    restore.call_off(record)
    restores.save(replace(record, phase=Phase.CANCELLED))


def _opened_meanwhile(home: Home, record: RestoreRecord) -> bool:
    """Whether a runtime has one of the older files open, or may have: they were closed when the files were looked at.

    A process that we may not look into was asked for its writers before, and now again.
    """
    older = [path for path in record.kept if path.exists()]
    if any(processes.open_for_writing(path) is not Answer.NO for path in older):
        return True
    there = {(one.device, one.inode) for one in map(files.identity, older)}
    opened = (processes.open_files(runtime.pid) for runtime in writers.runtimes_of(home))
    return any(found is not None and not there.isdisjoint(found) for found in opened)


def _lies_elsewhere(database: Path, home: Home) -> bool:
    """Whether a database that the checkpoint copied is still there, and this home has none of its own."""
    if home.state_db is not None or home.goals_db is not None:
        return False
    return database.exists() and not is_same(database.parent, home.sqlite_home)


def _undone_row(home: Home, record: RestoreRecord, deadline: Deadline) -> RowOutcome:
    """The row as it was before the restore: `row_before` is what that left, `row_after` what there was."""
    ours, before = record.row_before, record.row_after
    if ours is None and before is None:
        return RowOutcome.KEPT
    changed = thread_rows.take_back(home, ours, before, deadline)
    return RowOutcome.CHANGED if changed else RowOutcome.KEPT


def _undone_goal(home: Home, record: RestoreRecord, deadline: Deadline) -> str | None:
    goal = next((g for g in goals.read_goals(home, deadline).goals if g.thread_id == record.thread_id), None)
    if goal is None or goal.goal_id != record.goal_id or goal.updated_at_ms != record.at_ms:
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
