"""Getting a thread back from a checkpoint, into its own home or into a new one; and undoing that.

A killed call leaves a record of what it was at; the next one completes it or calls it off before it begins.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import time

from preflight.checkpoint import contents, restore
from preflight.checkpoint.contents import Content
from preflight.checkpoint.restore_new_home import complete_new_home, plan_new_home, settle_interrupted
from preflight.checkpoint.restore_plan import Plan, plan, plan_undo, require_same_beginnings
from preflight.checkpoint.restore_record import Phase, RestoreRecord, Restores, interrupted
from preflight.checkpoint.restore_settle import Settled, complete, fence, give_back, require_usable
from preflight.checkpoint.restore_source import RestoreSource, find_source, with_everything
from preflight.checkpoint.store import Store, store_root
from preflight.codex.home import find_homes
from preflight.errors import DamagedFile, NoSpace, PreflightError, Unsupported, Unverified, UsageProblem
from preflight.model import Finding, Home, Result
from preflight.request import Request
from preflight.system.deadline import Deadline
from preflight.system.locks import RunLock

__all__ = ["Restoring", "complete_interrupted", "restore_thread", "undo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoring:
    """What is wanted: the `full` thread or what is needed to resume it, into its home or into the new folder `to`.

    `agree` puts a question to the person and raises unless the answer is yes.
    """

    thread_id: str
    full: bool
    to: Path | None
    agree: Callable[[str], None]

    @property
    def what(self) -> str:
        return "full" if self.full else "resume"


# ---- the verb ------------------------------------------------------------------------------------------------


def restore_thread(request: Request, how: Restoring) -> Result:
    """Put one thread back; what was there is kept beside it. With `dry_run` only say what would be done.

    Raises UsageProblem, ThreadInUse, Locked, NoSpace, Unverified, Unsupported, UnknownSchema, DamagedFile,
    DatabaseBusy, TimeLimitReached. Until the first file has its new name nothing of Codex's has been
    changed; from then on it is Unverified, and the next call completes what this one began.
    """
    deadline = Deadline(request.timeout)
    source = _source(request, how)
    wanted = _contents(source, how)
    if how.to is not None:
        return _to_new_home(request, source, wanted, how.to, how.what, deadline)
    home = source.home
    assert home is not None  # noqa: S101  # only a restore to a new home does without
    repaired = _settled_first(request, home, source.store, source.thread.thread_id, deadline)
    planned = _planned(source, home, wanted, how.what, deadline)
    if request.dry_run:
        return _result(planned.record, (*source.passed_over, *planned.findings(dry_run=True)), dry_run=True)
    how.agree(planned.question)
    with _locked(source.store, "restore"):
        restores = Restores(source.store.restores)
        planned = _planned(source, home, wanted, how.what, deadline)
        record = planned.record
        restore.require_space([file.place.parent for file in record.files], planned.wanted)
        with fence(home, record.thread_id, deadline):
            with _called_off_unless_begun(restores, record):
                restores.save(record)
                record = restore.stage(record, planned.wanted, _watched(request, record, deadline))
                require_same_beginnings(planned, record)
            with _called_off_unless_begun(restores, record):
                restores.save(record)
                record, settled = complete(home, restores, record, source, deadline)
    return _result(record, (*source.passed_over, *planned.findings()), settled=settled, repaired=repaired)


def undo(request: Request, thread_id: str | None, agree: Callable[[str], None]) -> Result:
    """Undo the newest restore into a home, of this thread or of any: the replaced file has its place again.

    What was restored, and gone on with perhaps, is kept beside it. Raises what `restore_thread` raises.
    """
    deadline = Deadline(request.timeout)
    found = [
        (record, home, store)
        for home, store in _stores(request)
        for record in Restores(store.restores).all()
        if _can_be_undone(record, thread_id)
    ]
    if not found:
        done = complete_interrupted(request) if _undo_was_interrupted(request, thread_id) else None
        if done is not None:
            return done
        of = f" of thread {thread_id}" if thread_id is not None else ""
        raise UsageProblem(f"there is no restore{of} to undo", hint="preflight list shows what can be restored")
    record, home, store = max(found, key=lambda one: one[0].restore_id)
    repaired = _settled_first(request, home, store, record.thread_id, deadline)
    restores = Restores(store.restores)
    record = restores.read(record.restore_id)
    if not _can_be_undone(record, thread_id):
        return _result(record, repaired=repaired)  # a killed undo of it, completed just now
    planned = plan_undo(record, home, restore_id=restores.new_id(), deadline=deadline)
    if request.dry_run:
        return _result(planned.record, planned.findings(dry_run=True), dry_run=True)
    agree(planned.question)
    with _locked(store, "restore --undo"):
        if not _can_be_undone(restores.read(record.restore_id), thread_id):
            raise UsageProblem("somebody has undone this restore meanwhile", hint="preflight check")
        planned = plan_undo(record, home, restore_id=restores.new_id(), deadline=deadline)
        back = planned.record
        require_same_beginnings(planned, back)
        with fence(home, record.thread_id, deadline), _called_off_unless_begun(restores, back):
            restores.save(back)
            back, settled = complete(home, restores, back, None, deadline)
    return _result(back, planned.findings(), settled=settled, repaired=repaired)


def complete_interrupted(request: Request) -> Result | None:
    """Complete or call off every restore that a killed call has left; None when there is none.

    Raises what `restore_thread` raises. With `dry_run` only say which there are.
    """
    deadline = Deadline(request.timeout)
    repaired: list[dict[str, object]] = []
    findings: list[Finding] = []
    for home, store in _stores(request):
        unfinished = Restores(store.restores).unfinished()
        if unfinished and request.dry_run:
            findings += interrupted(store.restores)
        elif unfinished:
            with _locked(store, "restore"):
                repaired += _repair(request, home, store, deadline, needed=None)
    if not repaired and not findings:
        return None
    data = {"repaired": repaired, "dry_run": request.dry_run}
    return Result(command="restore", exit_code=0, data=data, findings=tuple(findings))


@contextmanager
def _called_off_unless_begun(restores: Restores, record: RestoreRecord) -> Iterator[None]:
    """When the block fails before the first file has its name, leave no trace; after it, the next call completes it."""
    try:
        yield
    except BaseException as error:
        if not restore.begun(record):
            restore.call_off(record)
            restores.save(replace(record, phase=Phase.CANCELLED))
            raise
        if not isinstance(error, PreflightError | OSError):
            raise
        # Never the error itself: "try later, nothing was left changed" would not be true.
        why = error.message if isinstance(error, PreflightError) else error.strerror or str(error)
        kind = NoSpace if isinstance(error, NoSpace) else Unverified
        raise kind(
            f"the rollout of thread {record.thread_id} has its place, but the rest could not be done: {why}",
            path=getattr(error, "path", None),
            hint="preflight restore",
        ) from error


def _undo_was_interrupted(request: Request, thread_id: str | None) -> bool:
    """Whether an undo was killed of which only the last step was missing: to note that it is done."""
    return any(
        record.undoes is not None and _is_named(record, thread_id)
        for _, store in _stores(request)
        for record in Restores(store.restores).unfinished()
    )


def _is_named(record: RestoreRecord, thread_id: str | None) -> bool:
    return thread_id is None or record.thread_id == thread_id.lower()


def _can_be_undone(record: RestoreRecord, thread_id: str | None) -> bool:
    finished = record.phase is Phase.DONE or (record.phase is Phase.SWAPPING and restore.begun(record))
    return _is_named(record, thread_id) and finished and record.undoes is None and record.new_home is None


def _planned(source: RestoreSource, home: Home, wanted: Sequence[Content], what: str, deadline: Deadline) -> Plan:
    restore_id = Restores(source.store.restores).new_id()
    planned = plan(source, home, wanted, what=what, restore_id=restore_id, at_ms=_now_ms(), deadline=deadline)
    require_usable(home, planned.record, source, deadline)
    return planned


def _watched(request: Request, record: RestoreRecord, deadline: Deadline) -> restore.Watch:
    """Tells what is written, and how far that is; ends it when the time is over."""
    request.progress(f"writing {sum(file.length for file in record.files):,} bytes of thread {record.thread_id}")

    def seen(done: int, total: int) -> None:
        deadline.check("writing the rollout")
        request.moved("written", done, total)

    return seen


# ---- where it comes from -------------------------------------------------------------------------------------


def _source(request: Request, how: Restoring) -> RestoreSource:
    """The checkpoint that was named, or the newest one that holds the thread.

    A thread is asked for most urgently when its home has been deleted: then the store alone knows it.
    """
    gone = how.to is not None and not any(home.exists() for home in request.homes)
    homes = [] if gone else _homes(request)
    root = store_root(request.store, request.env)
    return find_source(homes, root, request.checkpoint or "latest", how.thread_id.lower(), homes_may_be_gone=gone)


def _homes(request: Request) -> list[Home]:
    try:
        return find_homes(request.homes, request.env, request.user_home)[0]
    except UsageProblem as error:
        hint = "make an empty folder there first, or restore to a new one with --to"
        raise UsageProblem(error.message, path=error.path, hint=hint) from error


def _stores(request: Request) -> Iterator[tuple[Home, Store]]:
    for home in _homes(request):
        store = Store.existing(store_root(request.store, request.env), home)
        if store is not None:
            yield home, store


def _contents(source: RestoreSource, how: Restoring) -> tuple[Content, ...]:
    def call(checkpoint_id: str, what: str) -> str:
        where = "--in-place" if how.to is None else f"--to {shlex.quote(str(how.to))}"
        return f"preflight restore {checkpoint_id} {source.thread.thread_id} {what} {where}"

    checkpoint_id, in_archive_alone = source.manifest.checkpoint_id, source.thread.file is None
    if not how.full and not in_archive_alone:
        return contents.reduced(source.folder, source.manifest, source.thread)
    instead = "preflight list" if in_archive_alone else call(checkpoint_id, "--resume")
    if not source.thread.has_everything:
        held = "only a part of this thread" if in_archive_alone else "only what is needed to go on with this thread"
        older = with_everything(source)
        raise UsageProblem(
            f"checkpoint {checkpoint_id} holds {held}"
            + (f"; all of it is in {older}" if older is not None else ", and no other one has all of it"),
            hint=instead if older is None else call(older, "--full"),
        )
    return contents.whole(source.folder, source.store.archive, source.manifest, source.thread, instead=instead)


# ---- after a kill --------------------------------------------------------------------------------------------


def _settled_first(
    request: Request, home: Home, store: Store, thread_id: str, deadline: Deadline
) -> list[dict[str, object]]:
    """Bring what killed calls began to its end, before anything is planned. Who began it had agreed to it."""
    unfinished = Restores(store.restores).unfinished()
    if not unfinished:
        return []
    if request.dry_run:
        if any(record.thread_id == thread_id for record in unfinished):
            raise UsageProblem(
                "a restore of this thread was interrupted: what would be done can be told when that one is completed",
                hint="preflight restore",
            )
        return []
    with _locked(store, "restore"):
        return _repair(request, home, store, deadline, needed=thread_id)


def _repair(
    request: Request, home: Home, store: Store, deadline: Deadline, *, needed: str | None
) -> list[dict[str, object]]:
    """Complete or call off what killed calls began; needs the run lock. Raises ThreadInUse like a restore.

    What cannot be completed of other threads than the `needed` one must not keep that one from its turn, and waits.
    """
    restores = Restores(store.restores)
    told: list[dict[str, object]] = []
    for record in restores.unfinished():
        try:
            completed = _settled(request, home, restores, record, store, deadline)
        except (PreflightError, OSError):
            if needed is None or record.thread_id == needed:
                raise
            told.append({"restore_id": record.restore_id, "outcome": "still-interrupted"})
        else:
            told.append({"restore_id": record.restore_id, "outcome": "completed" if completed else "called-off"})
    return told


def _settled(
    request: Request, home: Home, restores: Restores, record: RestoreRecord, store: Store, deadline: Deadline
) -> bool:
    """Whether the restore has been completed; else it is called off."""
    if record.new_home is not None:
        return settle_interrupted(restores, record)
    if record.phase is Phase.GIVING_BACK:
        give_back(restores, record)
        return False
    if not restore.begun(record):
        restore.call_off(record)
        restores.save(replace(record, phase=Phase.CANCELLED))
        return False
    request.progress(f"completing restore {record.restore_id}, which was interrupted")
    with fence(home, record.thread_id, deadline):
        complete(home, restores, record, _source_of(record, home, store), deadline)
    return True


def _source_of(record: RestoreRecord, home: Home, store: Store) -> RestoreSource | None:
    """The checkpoint of an interrupted restore; None when it has been removed since, or does not read."""
    try:
        manifest = store.manifest(record.checkpoint_id)
    except (UsageProblem, DamagedFile, Unsupported):
        return None
    thread = manifest.thread(record.thread_id)
    return None if thread is None else RestoreSource(home, store, manifest, thread)


# ---- into a new home -----------------------------------------------------------------------------------------


def _to_new_home(
    request: Request, source: RestoreSource, wanted: Sequence[Content], to: Path, what: str, deadline: Deadline
) -> Result:
    """Nothing changes places, so nobody is asked. Restores into the old home that were killed are left as they are:
    that home need not be there.
    """
    restores = Restores(source.store.restores)
    record = plan_new_home(source, wanted, to, what=what, restore_id=restores.new_id(), at_ms=_now_ms())
    if request.dry_run:
        return _result(record, source.passed_over, dry_run=True)
    with _locked(source.store, "restore --to"):
        repaired: list[dict[str, object]] = [
            {
                "restore_id": one.restore_id,
                "outcome": "completed" if settle_interrupted(restores, one) else "called-off",
            }
            for one in restores.unfinished()
            if one.new_home is not None
        ]
        restore.require_space([to.parent], wanted)
        with _called_off_unless_begun(restores, record):
            restores.save(record)
            record = restore.build(record, wanted, _watched(request, record, deadline))
            record, settled = complete_new_home(restores, record, source, deadline)
    return _result(record, source.passed_over, settled=settled, repaired=repaired)


# ---- what is told --------------------------------------------------------------------------------------------


def _result(
    record: RestoreRecord,
    findings: Sequence[Finding] = (),
    *,
    settled: Settled | None = None,
    repaired: Sequence[dict[str, object]] = (),
    dry_run: bool = False,
) -> Result:
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
            "kept": list(record.kept),
            "row": settled.row.value if settled is not None else None,
            "goal": settled.goal if settled is not None else None,
            "projection_rows": settled.projection_rows if settled is not None else None,
            "repaired": list(repaired),
            "dry_run": dry_run,
        },
        findings=(*findings, *(settled.findings if settled is not None else ())),
    )


@contextmanager
def _locked(store: Store, program: str) -> Iterator[None]:
    with RunLock(store.folder).acquire(Deadline(0), {"program": f"preflight {program}"}):
        store.remove_unnamed()  # a killed call's, whichever verb it was
        yield


def _now_ms() -> int:
    return int(time() * 1000)
