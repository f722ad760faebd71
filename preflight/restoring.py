"""Getting a thread back from a checkpoint, into its own home or into a new one; and undoing that.

A killed call leaves a record of what it was at; the next one completes it or calls it off before it begins.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import time

from preflight.checkpoint import contents, restore
from preflight.checkpoint.contents import Content
from preflight.checkpoint.restore_plan import plan, require_same_beginnings
from preflight.checkpoint.restore_record import Phase, RestoreRecord, Restores
from preflight.checkpoint.restore_settle import (
    Settled,
    as_paused,
    complete,
    fence,
    no_place,
    put_back_as,
    require_usable,
)
from preflight.checkpoint.restore_source import LATEST, RestoreSource, every_store, holding
from preflight.checkpoint.store import Store, store_root
from preflight.codex import goals
from preflight.codex.home import find_homes
from preflight.codex.thread_rows import RowOutcome
from preflight.errors import DamagedFile, Unverified, UsageProblem
from preflight.model import Finding, Home, Result
from preflight.request import Request
from preflight.system import files
from preflight.system.deadline import Deadline
from preflight.system.locks import RunLock

__all__ = ["Restoring", "restore_thread", "undo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoring:
    """What is wanted: the `full` thread or what is needed to resume it, into its home or into the new folder `to`.

    `agree` puts a question to the person and raises unless the answer is yes.
    """

    thread_id: str
    full: bool
    to: Path | None
    agree: Callable[[str], None]


# ---- the verb ------------------------------------------------------------------------------------------------


def restore_thread(request: Request, how: Restoring) -> Result:
    """Put one thread back; what was there is kept beside it. With `dry_run` only say what would be done.

    Raises UsageProblem, ThreadInUse, Locked, NoSpace, Unverified, Unsupported, UnknownSchema, DamagedFile,
    DatabaseBusy, TimeLimitReached. Until the first file has its new name nothing of Codex's has been
    changed; from then on the next call completes what this one began.
    """
    deadline = Deadline(request.timeout)
    source = _source(request, how)
    wanted = _contents(source, full=how.full)
    what = "full" if how.full else "resume"
    if how.to is not None:
        return _to_new_home(request, source, wanted, how.to, what, deadline)
    assert source.home is not None  # noqa: S101  # `_source` has seen to it
    if request.dry_run:
        record, _, _ = _planned(source, source.home, wanted, what, deadline)
        return _result(record, dry_run=True)
    how.agree(f"Put thread {how.thread_id} of checkpoint {source.manifest.checkpoint_id} in the place of today's?")
    with _locked(source.store, "restore"):
        repaired = _repair(request, source.home, source.store, deadline)
        restores = Restores(source.store.restores)
        record, wanted, shared = _planned(source, source.home, wanted, what, deadline)
        restore.require_space(source.home.path, wanted)
        with fence(source.home, record.thread_id, deadline):
            with _called_off_unless_begun(restores, record):
                restores.save(record)
                record = restore.stage(record, wanted, deadline, request.progress)
                require_same_beginnings(record, shared)
            with _called_off_unless_begun(restores, record):
                restores.save(record)
                record, settled = complete(source.home, restores, record, source, deadline)
    return _result(record, settled=settled, repaired=repaired)


def undo(request: Request, thread_id: str | None, agree: Callable[[str], None]) -> Result:
    """Undo the newest restore into a home, of this thread or of any: the replaced file has its place again.

    What was restored, and gone on with perhaps, is kept beside it. Raises what `restore_thread` raises.
    """
    deadline = Deadline(request.timeout)
    found = [
        (record, home, store)
        for home in find_homes(request.homes, request.env, request.user_home)[0]
        if (store := Store.existing(store_root(request.store, request.env), home)) is not None
        for record in Restores(store.restores).all()
        if _can_be_undone(record, thread_id)
    ]
    if not found:
        raise UsageProblem("there is no restore to undo", hint="preflight list shows what can be restored")
    record, home, store = max(found, key=lambda one: one[0].restore_id)
    back = restore.inverse(record, Restores(store.restores).new_id(), _now_ms())
    if request.dry_run:
        return _result(back, dry_run=True)
    agree(f"Put the file of thread {record.thread_id} back that restore {record.restore_id} has replaced?")
    with _locked(store, "restore --undo"):
        repaired = _repair(request, home, store, deadline)
        restores = Restores(store.restores)
        record = next(one for one in restores.all() if one.restore_id == record.restore_id)
        if not _can_be_undone(record, thread_id):
            return _result(record, repaired=repaired)  # a killed undo of it, completed just now
        back = restore.inverse(record, restores.new_id(), _now_ms())
        with fence(home, record.thread_id, deadline), _called_off_unless_begun(restores, back):
            restores.save(back)
            back, settled = complete(home, restores, back, None, deadline)
    return _result(back, settled=settled, repaired=repaired)


@contextmanager
def _called_off_unless_begun(restores: Restores, record: RestoreRecord) -> Iterator[None]:
    """When the block fails before the first file has its name, leave no trace; after it, the next call completes it."""
    try:
        yield
    except BaseException:
        if not restore.begun(record):
            restore.call_off(record)
            restores.save(replace(record, phase=Phase.CANCELLED))
        raise


def _can_be_undone(record: RestoreRecord, thread_id: str | None) -> bool:
    named = thread_id is None or record.thread_id == thread_id.lower()
    finished = record.phase is Phase.DONE or (record.phase is Phase.SWAPPING and restore.begun(record))
    return named and finished and record.undoes is None and record.new_home is None


def _contents(source: RestoreSource, *, full: bool) -> tuple[Content, ...]:
    if full:
        return contents.whole(source.folder, source.store.archive, source.manifest, source.thread)
    return contents.reduced(source.folder, source.manifest, source.thread)


def _planned(
    source: RestoreSource, home: Home, wanted: Sequence[Content], what: str, deadline: Deadline
) -> tuple[RestoreRecord, tuple[Content, ...], Mapping[Path, int]]:
    restore_id = Restores(source.store.restores).new_id()
    planned = plan(source, home, wanted, what=what, restore_id=restore_id, at_ms=_now_ms(), deadline=deadline)
    require_usable(home, planned[0], source, deadline)
    return planned


# ---- where it comes from -------------------------------------------------------------------------------------


def _source(request: Request, how: Restoring) -> RestoreSource:
    """The checkpoint that was named, or the newest one that holds the thread."""
    wanted = request.checkpoint or LATEST
    root = store_root(request.store, request.env)
    places: list[tuple[Home | None, Store]] = []
    if how.to is None or request.homes:
        for home in find_homes(request.homes, request.env, request.user_home)[0]:
            store = Store.existing(root, home)
            places += [(home, store)] if store is not None else []
    else:
        # A thread is asked for most urgently when its home has been deleted: then the store alone knows it.
        places = [(None, store) for store in every_store(root)]
    found = [source for home, store in places for source in holding(home, store, wanted, how.thread_id.lower())]
    if not found:
        what = "no checkpoint" if wanted == LATEST else f"no checkpoint {wanted}"
        raise UsageProblem(
            f"there is {what} that holds thread {how.thread_id}",
            hint="preflight list shows the checkpoints, preflight show ID what one holds",
        )
    return max(found, key=lambda one: one.manifest.checkpoint_id)


# ---- after a kill --------------------------------------------------------------------------------------------


def _repair(request: Request, home: Home, store: Store, deadline: Deadline) -> list[dict[str, object]]:
    """Complete or call off what a killed call began; needs the run lock. Raises ThreadInUse like a restore."""
    restores = Restores(store.restores)
    told: list[dict[str, object]] = []
    for record in restores.unfinished():
        if record.new_home is not None:
            told.append(_repaired_new_home(restores, record))
            continue
        begun = restore.begun(record)
        if begun:
            request.progress(f"completing restore {record.restore_id}, which was interrupted")
            with fence(home, record.thread_id, deadline):
                complete(home, restores, record, _source_of(record, home, store), deadline)
        else:
            restore.call_off(record)
            restores.save(replace(record, phase=Phase.CANCELLED))
        told.append(_repaired(record, completed=begun))
    return told


def _repaired_new_home(restores: Restores, record: RestoreRecord) -> dict[str, object]:
    """The folder has its name, or it is taken away."""
    assert record.building is not None  # noqa: S101
    assert record.new_home is not None  # noqa: S101
    named = not os.path.lexists(record.building) and record.new_home.is_dir()
    if not named:
        restore.call_off(record)
    restores.save(replace(record, phase=Phase.DONE if named else Phase.CANCELLED))
    return _repaired(record, completed=named)


def _repaired(record: RestoreRecord, *, completed: bool) -> dict[str, object]:
    return {"restore_id": record.restore_id, "outcome": "completed" if completed else "called-off"}


def _source_of(record: RestoreRecord, home: Home, store: Store) -> RestoreSource | None:
    """The checkpoint of an interrupted restore; None when it has been removed since, or does not read."""
    try:
        manifest = store.manifest(record.checkpoint_id)
    except (UsageProblem, DamagedFile):
        return None
    thread = manifest.thread(record.thread_id)
    return None if thread is None else RestoreSource(home, store, manifest, thread)


# ---- into a new home -----------------------------------------------------------------------------------------


def _to_new_home(
    request: Request, source: RestoreSource, wanted: Sequence[Content], to: Path, what: str, deadline: Deadline
) -> Result:
    """A new folder that is a Codex home with this thread alone, and its goal, paused; complete or not there.

    Codex finds the thread by its file's name and makes the other databases when it starts (0.128 to 0.169).
    """
    _require_new(to, source)
    restores = Restores(source.store.restores)
    restore_id = restores.new_id()
    record = RestoreRecord(
        restore_id=restore_id,
        phase=Phase.STAGING,
        what=what,
        home=to,
        checkpoint_id=source.manifest.checkpoint_id,
        thread_id=source.thread.thread_id,
        at_ms=_now_ms(),
        files=tuple(restore.placed(content, to, (), restore_id) for content in wanted),
        new_home=to,
        building=to.with_name(f".{to.name}.{restore_id}{files.TEMPORARY_SUFFIX}"),
    )
    if request.dry_run:
        return _result(record, dry_run=True)
    with _locked(source.store, "restore --to"):
        repaired = _repair_new_homes(restores)
        restore.require_space(to.parent, wanted)
        with _called_off_unless_begun(restores, record):
            restores.save(record)
            record = restore.build(record, wanted, deadline, request.progress)
            goal, findings = _goal_of_new_home(record, source, deadline)
            _give_name(record)
        record = restores.save(replace(record, phase=Phase.DONE))
    return _result(record, settled=Settled(RowOutcome.LEFT, goal, 0, tuple(findings)), repaired=repaired)


def _require_new(to: Path, source: RestoreSource) -> None:
    if os.path.lexists(to):
        raise UsageProblem("this path exists already; restore only makes a new one", path=to, hint="name another one")
    if not to.parent.is_dir():
        raise UsageProblem("the folder to make it in does not exist", path=to.parent, hint="make it first")
    real = Path(os.path.realpath(to))
    for taken in (source.manifest.home.path, source.store.root):
        if real.is_relative_to(os.path.realpath(taken)):
            raise UsageProblem(
                "a new home cannot lie inside the old one, nor inside the store", path=to, hint="name another place"
            )


def _goal_of_new_home(
    record: RestoreRecord, source: RestoreSource, deadline: Deadline
) -> tuple[str | None, list[Finding]]:
    assert record.building is not None  # noqa: S101
    goal = as_paused(source.thread.goal, record.at_ms)
    if goal is None:
        return None, []
    copy = source.database("goals")
    if copy is None:
        return goals.Outcome.NO_PLACE.value, [no_place(goal)]
    goals.make_database(copy, record.building / copy.name, goal, deadline)
    return put_back_as(goals.Outcome.INSERTED, goal), []


def _give_name(record: RestoreRecord) -> None:
    """The last step. Somebody who has made the folder meanwhile keeps it, unless it is empty."""
    assert record.building is not None  # noqa: S101
    assert record.new_home is not None  # noqa: S101
    if os.path.lexists(record.new_home):
        raise Unverified("somebody else has made this folder meanwhile", path=record.new_home)
    with files.our_file(record.new_home):
        record.building.rename(record.new_home)
    files.sync_folder(record.new_home.parent)


def _repair_new_homes(restores: Restores) -> list[dict[str, object]]:
    """What a killed restore into a new home left; those into the old one wait for a call that may look at it."""
    return [_repaired_new_home(restores, one) for one in restores.unfinished() if one.new_home is not None]


# ---- what is told --------------------------------------------------------------------------------------------


def _result(
    record: RestoreRecord,
    *,
    settled: Settled | None = None,
    repaired: Sequence[dict[str, object]] = (),
    dry_run: bool = False,
) -> Result:
    kept = [file.kept for file in record.files if file.kept is not None] + [file.kept for file in record.aside]
    return Result(
        command="restore",
        exit_code=0,
        data={
            "restore_id": None if dry_run else record.restore_id,
            "what": record.what,
            "thread_id": record.thread_id,
            "checkpoint_id": record.checkpoint_id,
            "home": record.home,
            "new_home": record.new_home is not None,
            "files": [{"path": file.place, "size_bytes": file.length, "sha256": file.sha256} for file in record.files],
            "kept": kept,
            "row": settled.row.value if settled is not None else None,
            "goal": settled.goal if settled is not None else None,
            "projection_rows": settled.projection_rows if settled is not None else None,
            "repaired": list(repaired),
            "dry_run": dry_run,
        },
        findings=settled.findings if settled is not None else (),
    )


@contextmanager
def _locked(store: Store, program: str) -> Iterator[None]:
    with RunLock(store.folder).acquire(Deadline(0), {"program": f"preflight {program}"}):
        yield


def _now_ms() -> int:
    return int(time() * 1000)
