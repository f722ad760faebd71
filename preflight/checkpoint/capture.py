"""Writing a checkpoint: databases first, resume rollouts after, nothing published yet.

In this order every row refers to bytes that are in the copy: a rollout only grows, so what a row of
the earlier database copy names is in the later rollout copy. Where each rollout is cut is looked at
before (how much room is needed?) and again when its turn comes, if it has grown meanwhile. The
manifest is `manifest.publish`'s, after everything has been verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from preflight.checkpoint.coverage import is_untouched
from preflight.checkpoint.database_copies import copy_databases, size_with_log
from preflight.checkpoint.manifest import DatabaseRecord, FileRecord, Manifest, SourceRecord, ThreadRecord
from preflight.checkpoint.verify import Outcome, verify_digest
from preflight.codex import boundary, history
from preflight.codex.boundary import OpenLineage
from preflight.codex.history import Seen
from preflight.codex.lines import Buffer
from preflight.codex.resume_rollout import ResumePlan, plan_resume, write_resume_rollout
from preflight.errors import DamagedFile, NoSpace, TimeLimitReached
from preflight.model import FileIdentity, Finding, HistoryMode, Home, Severity, Tail, Thread
from preflight.system import files
from preflight.system.deadline import Deadline
from preflight.system.digests import BesideSha256
from preflight.system.pace import Pace
from preflight.system.positional import read_at

_TAIL = 64 << 10
_COPY = 1 << 20


@dataclass(frozen=True, slots=True)
class CapturedThread:
    """One thread as it was written; `record.history` is the history that the original has.

    `file` and `path` are None of one that is left to the archive.
    """

    record: ThreadRecord
    file: FileRecord | None
    path: Path | None


@dataclass(frozen=True, slots=True)
class Capture:
    """What was written into a checkpoint's folder; `failures` are the threads that could not be copied."""

    databases: tuple[DatabaseRecord, ...]
    files: tuple[FileRecord, ...]
    threads: tuple[CapturedThread, ...]
    failures: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Earlier:
    """A checkpoint from which the resume rollouts of threads that nobody has touched since are taken over."""

    manifest: Manifest
    folder: Path


@dataclass(frozen=True, slots=True)
class _Planned:
    """How a thread is to be copied, as its files were when that was looked at; `plan` None copies a compressed one.

    `copied` False: nothing is, the archive is to have it; then nothing else need be known.
    """

    thread: Thread
    identities: tuple[FileIdentity, ...]
    tail: Tail | None
    plan: ResumePlan | None
    copied: bool = True

    @property
    def length(self) -> int:
        if not self.copied:
            return 0
        return self.identities[0].size_bytes if self.plan is None else self.plan.length


class _Count:
    """Tells how far the copying is: `done` bytes of `total`, as they were planned; ends it when the deadline comes."""

    def __init__(self, total: int, moved: Callable[[int, int], None] | None, seen: Seen) -> None:
        self._done, self._total, self._moved, self.seen = 0, total, moved, seen

    def add(self, size: int) -> None:
        self.seen(size)
        self._done += size
        if self._moved is not None:
            self._moved(self._done, max(self._total, self._done))


@dataclass(slots=True)
class _Work:
    """The threads on their way; each one that cannot go on becomes a failure and the others go on."""

    folder: Path
    looking: Seen
    seen: Seen
    progress: Callable[[str], None]
    in_parts: bool
    whole_below: int | None
    tails: Mapping[str, Tail]
    planned: list[_Planned] = field(default_factory=list)
    captured: list[CapturedThread] = field(default_factory=list)
    failures: list[Finding] = field(default_factory=list)

    def plan(self, thread: Thread) -> None:
        with self._one(thread):
            self.looking(0)
            self.planned.append(_plan(thread, self.whole_below, self.tails.get(thread.thread_id), self.looking))
            return
        # Where it could be cut is not known, for want of time or because it is damaged: the archive can have it.
        if self.whole_below is not None and thread.lineage and thread.size_bytes >= self.whole_below:
            self.planned.append(_Planned(thread, (), None, None, copied=False))

    def leave_what_does_not_fit(self, room: int) -> None:
        """Leave the longest ones to the archive until the others fit: one thread must not keep all from a copy."""
        needed = sum(item.length for item in self.planned)
        for item in sorted(self.planned, key=lambda item: item.length, reverse=True):
            if needed <= room:
                return
            needed -= item.length
            self.failures.append(_does_not_fit(item.thread, item.length, self.folder))
            self.planned.remove(item)
            if item.plan is not None:
                self.planned.append(replace(item, copied=False))

    def take_over(self, thread: Thread, record: ThreadRecord, earlier: Earlier) -> bool:
        """False when it has to be copied after all."""
        with self._one(thread):
            same = _taken_over(thread, record, earlier, self.folder, self.seen)
            if same is not None:
                self.captured.append(same)
            return same is not None
        return True

    def copy_planned(self, moved: Callable[[int, int], None] | None) -> None:
        count = _Count(sum(item.length for item in self.planned), moved, self.seen)
        for item in self.planned:
            with self._one(item.thread):
                if item.copied:
                    self.seen(0)
                    self.progress(f"copying {item.length:,} bytes of thread {item.thread.thread_id}")
                self.captured.append(_copy_thread(item, self.folder, count, self.whole_below))

    @contextmanager
    def _one(self, thread: Thread) -> Iterator[None]:
        try:
            yield
        except TimeLimitReached:
            if not self.in_parts:
                raise
            self.failures.append(not_in_time(thread.thread_id, thread.size_bytes))
        except (DamagedFile, OSError) as error:
            self.failures.append(failure(thread, error))


def capture(
    home: Home,
    threads: Sequence[Thread],
    folder: Path,
    *,
    database_files: Sequence[Path],
    keep_free_bytes: int,
    deadline: Deadline,
    progress: Callable[[str], None],
    moved: Callable[[int, int], None] | None = None,
    earlier: Earlier | None = None,
    in_parts: bool = False,
    max_rate: int | None = None,
    whole_below: int | None = None,
    tails: Mapping[str, Tail] | None = None,
) -> Capture:
    """Copy the databases and the resume rollouts of `threads` into `folder`, which must be new and empty.

    Free space is checked before the first byte is written. A thread or database that cannot be read
    becomes a failure and the others are copied. The resume rollout of a thread that is as it was in
    the `earlier` checkpoint is that file under a second name, if it reads back as what was written.
    `moved` is told how many bytes of how many are written, about each MiB; `max_rate` is how many are read in a
    second at the most. With `in_parts` the threads for which there is no time or no room are failures too: the
    next checkpoint takes the others over. Then a quarter of the time is for looking, and as much for copying, so
    that what was copied can also be proved. A thread of which nothing can be left out is left to the archive if
    it has `whole_below` bytes or more. `tails` are what has been read of the threads' ends: where the rollout is
    still that one, it is not read again. Raises NoSpace, DatabaseBusy, TimeLimitReached; what was written until
    then stays in the folder, which is no checkpoint.
    """
    left = deadline.remaining()
    looking = Pace(max_rate, deadline.sub(left / 4) if in_parts else deadline).during("looking at the threads")
    seen = Pace(max_rate, deadline.sub(left / 2) if in_parts else deadline).during("copying the threads")
    work = _Work(folder, looking, seen, progress, in_parts, whole_below, tails or {})
    untouched = {} if earlier is None else _untouched(threads, earlier.manifest)
    for thread in threads:
        if thread.thread_id not in untouched:
            work.plan(thread)
    if in_parts:
        room = files.free_bytes(folder) - keep_free_bytes - sum(size_with_log(path) for path in database_files)
        work.leave_what_does_not_fit(max(room, 0))
    _require_space(folder, [item.length for item in work.planned], database_files, keep_free_bytes)
    copies, damaged = copy_databases(database_files, home, folder, deadline)
    for thread, record in untouched.values():
        if earlier is None or not work.take_over(thread, record, earlier):
            work.plan(thread)
    work.copy_planned(moved)
    return Capture(
        databases=tuple(record for record, _ in copies),
        files=(*(file for _, file in copies), *(one.file for one in work.captured if one.file is not None)),
        threads=tuple(work.captured),
        failures=(*work.failures, *damaged),
    )


def failure(thread: Thread, error: DamagedFile | OSError) -> Finding:
    """The finding for a thread whose checkpoint could not be written."""
    what = error.message if isinstance(error, DamagedFile) else error.strerror or str(error)
    path = error.path if isinstance(error, DamagedFile) else None
    return Finding(
        finding_id="checkpoint-failed",
        severity=Severity.BLOCK,
        thread_id=thread.thread_id,
        cause=f"no checkpoint of this thread could be written: {what}",
        remedy=(isinstance(error, DamagedFile) and error.hint) or "preflight run",
        path=path,
    )


def not_in_time(thread_id: str, size_bytes: int) -> Finding:
    """The finding for a thread that the time limit has kept out of the checkpoint."""
    return Finding(
        finding_id="checkpoint-unfinished",
        severity=Severity.BLOCK,
        thread_id=thread_id,
        cause="the time limit came before this thread was copied and read back; the next checkpoint goes on with it",
        measured=size_bytes,
        remedy="preflight checkpoint, with more time: --timeout",
    )


def _does_not_fit(thread: Thread, length: int, folder: Path) -> Finding:
    return Finding(
        finding_id="no-space",
        severity=Severity.BLOCK,
        thread_id=thread.thread_id,
        cause="there is no room for a copy of what this thread needs to go on; it is archived as far as it fits",
        measured=length,
        remedy="make room there, or choose another place with --store",
        path=folder.parent,
    )


def _untouched(threads: Sequence[Thread], earlier: Manifest) -> dict[str, tuple[Thread, ThreadRecord]]:
    records = {record.thread_id: record for record in earlier.threads}
    found = ((thread, records.get(thread.thread_id)) for thread in threads)
    return {
        thread.thread_id: (thread, record)
        for thread, record in found
        if record is not None and is_untouched(record, thread)
    }


def _taken_over(
    thread: Thread, record: ThreadRecord, earlier: Earlier, folder: Path, seen: Seen
) -> CapturedThread | None:
    """The earlier checkpoint's copy as a part of this one; None when it will not do.

    Published files are never changed, so a second name does no harm, and is no second copy: a disk that
    loses the file loses it in both. Where there are no hard links the thread is copied. A runtime that
    has added to the rollout while the databases were copied: then the thread is copied as well.
    """
    try:
        if any(files.identity(source.path) != source.identity for source in record.sources):
            return None
    except OSError:
        return None
    file = next((one for one in earlier.manifest.files if one.path == record.file), None)
    target = None
    if file is not None:
        if verify_digest(earlier.folder, file, seen).outcome is not Outcome.PASSED:
            return None
        target = folder / file.path
        files.private_folder(target.parent)
        try:
            target.hardlink_to(earlier.folder / file.path)
        except OSError:
            return None
        files.sync_folder(target.parent)
    now = replace(
        record,
        cli_version=thread.row.cli_version if thread.row is not None else None,
        archived=thread.archived,
        goal=thread.goal,
        row=thread.row,
        verification={},
    )
    return CapturedThread(record=now, file=file, path=target)


def _plan(thread: Thread, whole_below: int | None, known: Tail | None, seen: Seen) -> _Planned:
    if thread.head is None:
        raise DamagedFile("its rollout was not found", hint="put the rollout back where it was, then: preflight run")
    with boundary.opened(thread.lineage) as opened:
        same = known is not None and opened.identities == (known.identity,)
        return _planned(thread, opened, whole_below, seen, known if same else None)


def _planned(
    thread: Thread, opened: OpenLineage, whole_below: int | None, seen: Seen, tail: Tail | None = None
) -> _Planned:
    if thread.head is not None and thread.head.compressed:
        return _Planned(thread, opened.identities, None, None)
    tail = tail or boundary.read_tail(opened, seen=seen)
    plan = plan_resume(opened, tail)
    copied = not plan.whole or whole_below is None or plan.length < whole_below
    return _Planned(thread, opened.identities, tail, plan, copied)


def _require_space(folder: Path, lengths: list[int], database_files: Sequence[Path], reserve: int) -> None:
    needed = sum(lengths) + sum(size_with_log(path) for path in database_files)
    free = files.free_bytes(folder)
    if free < needed + reserve:
        raise NoSpace(
            f"the checkpoint needs {needed:,} bytes and {reserve:,} are to stay free, but only {free:,} are free",
            path=folder,
            hint="make room there, or choose another place with --store",
        )


def _copy_thread(item: _Planned, folder: Path, count: _Count, whole_below: int | None) -> CapturedThread:
    with boundary.opened(item.thread.lineage) as opened:
        if item.copied and opened.identities != item.identities:
            item = _planned(item.thread, opened, whole_below, count.seen)
        file = _copy_opened(item, opened, folder, count) if item.copied else None
        opened.check_unchanged()
        record = _record(item, opened, file, count)
        return CapturedThread(record=record, file=file, path=None if file is None else folder / file.path)


def _record(item: _Planned, opened: OpenLineage, file: FileRecord | None, count: _Count) -> ThreadRecord:
    thread, tail = item.thread, item.tail
    return ThreadRecord(
        thread_id=thread.thread_id,
        file=None if file is None else file.path,
        whole=file is not None and (item.plan is None or item.plan.whole),
        boundary=tail.boundary if tail is not None else None,
        sources=tuple(_source(opened, n) for n in range(len(opened.lineage))),
        size_bytes=thread.size_bytes,
        history_mode=tail.history_mode if tail is not None else HistoryMode.UNKNOWN,
        cli_version=thread.row.cli_version if thread.row is not None else None,
        archived=thread.archived,
        goal=thread.goal,
        row=thread.row,
        history=None if tail is None or file is None else history.history_of_original(opened, tail, count.seen),
    )


def _copy_opened(item: _Planned, opened: OpenLineage, folder: Path, count: _Count) -> FileRecord:
    plan = item.plan
    name = f"threads/{item.thread.thread_id}/{opened.path(0).name}"
    target = folder / name
    files.private_folder(target.parent)
    with BesideSha256() as digest:

        def seen(block: Buffer | memoryview) -> None:
            digest.update(block)
            count.add(len(block))

        with files.publishing(target, needed_bytes=item.length) as file:
            if plan is None:
                size = opened.identities[0].size_bytes
                files.copy_range(opened.descriptors[0], file.fileno(), 0, size, seen)
                length = size
            else:
                length = write_resume_rollout(opened, plan, file, seen)
    return FileRecord(path=name, length=length, sha256=digest.hexdigest(), role="resume-rollout")


def _source(opened: OpenLineage, segment: int) -> SourceRecord:
    """Which bytes of a file were used, and the digest of their end: what `finish` compares later."""
    used = opened.identities[0].size_bytes if opened.lineage[segment].file.compressed else opened.ends[segment]
    start = max(0, used - _TAIL)
    return SourceRecord(
        path=opened.path(segment),
        file_id=opened.lineage[segment].file.file_id,
        identity=opened.identities[segment],
        used_bytes=used,
        tail_sha256=hashlib.sha256(read_at(opened.descriptors[segment], used - start, start)).hexdigest(),
    )
