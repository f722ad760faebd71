"""Writing a checkpoint: databases first, resume rollouts after, nothing published yet.

In this order every row refers to bytes that are in the copy: a rollout only grows, so what a row of
the earlier database copy names is in the later rollout copy. Where each rollout is cut is looked at
before (how much room is needed?) and again when its turn comes, if it has grown meanwhile. The
manifest is `manifest.publish`'s, after everything has been verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from preflight.checkpoint.coverage import is_untouched
from preflight.checkpoint.manifest import DatabaseRecord, FileRecord, Manifest, SourceRecord, ThreadRecord
from preflight.checkpoint.verify import Outcome, verify_digest
from preflight.codex import boundary, history
from preflight.codex.boundary import OpenLineage
from preflight.codex.lines import Buffer
from preflight.codex.resume_rollout import ResumePlan, plan_resume, write_resume_rollout
from preflight.errors import DamagedFile, NoSpace, TimeLimitReached
from preflight.model import FileIdentity, Finding, HistoryMode, Home, Severity, Tail, Thread
from preflight.system import databases, files
from preflight.system.deadline import Deadline
from preflight.system.positional import read_at

_TAIL = 64 << 10
_COPY = 1 << 20


@dataclass(frozen=True, slots=True)
class CapturedThread:
    """One thread as it was written; `record.history` is the history that the original has."""

    record: ThreadRecord
    file: FileRecord
    path: Path


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
    """How a thread is to be copied, as its files were when that was looked at; `plan` None copies a compressed one."""

    thread: Thread
    identities: tuple[FileIdentity, ...]
    tail: Tail | None
    plan: ResumePlan | None

    @property
    def length(self) -> int:
        return self.identities[0].size_bytes if self.plan is None else self.plan.length


class _Count:
    """Tells how far the copying is: `done` bytes of `total`, as they were planned; ends it when the deadline comes."""

    def __init__(self, total: int, moved: Callable[[int, int], None] | None, deadline: Deadline) -> None:
        self._done, self._total, self._moved, self._deadline = 0, total, moved, deadline

    def add(self, size: int) -> None:
        self._deadline.check("copying the threads")
        self._done += size
        if self._moved is not None:
            self._moved(self._done, max(self._total, self._done))


@dataclass(slots=True)
class _Work:
    """The threads on their way; each one that cannot go on becomes a failure and the others go on."""

    folder: Path
    deadline: Deadline
    progress: Callable[[str], None]
    in_parts: bool
    planned: list[_Planned] = field(default_factory=list)
    captured: list[CapturedThread] = field(default_factory=list)
    failures: list[Finding] = field(default_factory=list)

    def plan(self, thread: Thread) -> None:
        with self._one(thread):
            self.deadline.check("looking at the threads")
            self.planned.append(_plan(thread))

    def copy_planned(self, moved: Callable[[int, int], None] | None) -> None:
        count = _Count(sum(item.length for item in self.planned), moved, self.deadline)
        for item in self.planned:
            with self._one(item.thread):
                self.deadline.check("writing the checkpoint")
                self.progress(f"copying {item.length:,} bytes of thread {item.thread.thread_id}")
                self.captured.append(_copy_thread(item, self.folder, count))

    @contextmanager
    def _one(self, thread: Thread) -> Iterator[None]:
        try:
            yield
        except TimeLimitReached:
            if not self.in_parts:
                raise
            self.failures.append(_not_in_time(thread))
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
) -> Capture:
    """Copy the databases and the resume rollouts of `threads` into `folder`, which must be new and empty.

    Free space is checked before the first byte is written. A thread or database that cannot be read
    becomes a failure and the others are copied. The resume rollout of a thread that is as it was in
    the `earlier` checkpoint is that file under a second name, if it reads back as what was written.
    `moved` is told how many bytes of how many are written, about each MiB. With `in_parts` the threads
    for which there is no time are failures too: the next checkpoint takes the others over. Raises NoSpace,
    DatabaseBusy, TimeLimitReached; what was written until then stays in the folder, which is no checkpoint.
    """
    work = _Work(folder, deadline, progress, in_parts)
    untouched = {} if earlier is None else _untouched(threads, earlier.manifest)
    for thread in threads:
        if thread.thread_id not in untouched:
            work.plan(thread)
    _require_space(folder, [item.length for item in work.planned], database_files, keep_free_bytes)
    copies, damaged = _copy_databases(database_files, home, folder, deadline)
    for thread, record in untouched.values():
        same = None if earlier is None else _taken_over(thread, record, earlier, folder)
        if same is not None:
            work.captured.append(same)
        else:
            work.plan(thread)
    work.copy_planned(moved)
    return Capture(
        databases=tuple(record for record, _ in copies),
        files=(*(file for _, file in copies), *(one.file for one in work.captured)),
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


def _not_in_time(thread: Thread) -> Finding:
    return Finding(
        finding_id="checkpoint-unfinished",
        severity=Severity.BLOCK,
        thread_id=thread.thread_id,
        cause="the time limit came before this thread was copied; the next checkpoint goes on with it",
        measured=thread.size_bytes,
        remedy="preflight checkpoint, with more time: --timeout",
    )


def _database_failure(path: Path, error: DamagedFile) -> Finding:
    return Finding(
        finding_id="checkpoint-failed",
        severity=Severity.BLOCK,
        cause=f"{path.name} could not be copied: {error.message}",
        remedy=error.hint or "start Codex and let it repair its local data, then: preflight run",
        path=path,
    )


def _untouched(threads: Sequence[Thread], earlier: Manifest) -> dict[str, tuple[Thread, ThreadRecord]]:
    records = {record.thread_id: record for record in earlier.threads}
    found = ((thread, records.get(thread.thread_id)) for thread in threads)
    return {
        thread.thread_id: (thread, record)
        for thread, record in found
        if record is not None and is_untouched(record, thread)
    }


def _taken_over(thread: Thread, record: ThreadRecord, earlier: Earlier, folder: Path) -> CapturedThread | None:
    """The earlier checkpoint's copy as a part of this one; None when it will not do.

    Published files are never changed, so a second name does no harm, and is no second copy: a disk that
    loses the file loses it in both. Where there are no hard links the thread is copied. A runtime that
    has added to the rollout while the databases were copied: then the thread is copied as well.
    """
    file = next(one for one in earlier.manifest.files if one.path == record.file)
    try:
        if any(files.identity(source.path) != source.identity for source in record.sources):
            return None
    except OSError:
        return None
    if verify_digest(earlier.folder, file).outcome is not Outcome.PASSED:
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


def _plan(thread: Thread) -> _Planned:
    if thread.head is None:
        raise DamagedFile("its rollout was not found", hint="put the rollout back where it was, then: preflight run")
    with boundary.opened(thread.lineage) as opened:
        return _planned(thread, opened)


def _planned(thread: Thread, opened: OpenLineage) -> _Planned:
    if thread.head is not None and thread.head.compressed:
        return _Planned(thread, opened.identities, None, None)
    tail = boundary.read_tail(opened)
    return _Planned(thread, opened.identities, tail, plan_resume(opened, tail))


def _require_space(folder: Path, lengths: list[int], database_files: Sequence[Path], reserve: int) -> None:
    needed = sum(lengths) + sum(_size_with_log(path) for path in database_files)
    free = files.free_bytes(folder)
    if free < needed + reserve:
        raise NoSpace(
            f"the checkpoint needs {needed:,} bytes and {reserve:,} are to stay free, but only {free:,} are free",
            path=folder,
            hint="make room there, or choose another place with --store",
        )


def _size_with_log(path: Path) -> int:
    """A database's length with its log: only `stat`, an open would drop SQLite's locks."""
    sizes = [path.stat().st_size]
    log = path.with_name(path.name + "-wal")
    if log.exists():
        sizes.append(log.stat().st_size)
    return sum(sizes)


def _copy_databases(
    paths: Sequence[Path], home: Home, folder: Path, deadline: Deadline
) -> tuple[list[tuple[DatabaseRecord, FileRecord]], list[Finding]]:
    copies, failures = [], []
    for path in paths:
        try:
            copies.append(_copy_database(path, home, folder, deadline))
        except DamagedFile as error:
            failures.append(_database_failure(path, error))
    return copies, failures


def _copy_database(path: Path, home: Home, folder: Path, deadline: Deadline) -> tuple[DatabaseRecord, FileRecord]:
    name = f"databases/{path.name}"
    target = folder / name
    files.private_folder(target.parent)
    # Before the copy: what a runtime writes from now on makes the database one that has changed since.
    identity, log = database_state(path)
    databases.backup(path, target, deadline)
    file = FileRecord(path=name, length=target.stat().st_size, sha256=files.sha256_of(target), role="database")
    source = home.sqlite_home / path.name
    return DatabaseRecord(name=path.name, path=name, source=source, identity=identity, log=log), file


def database_state(path: Path) -> tuple[FileIdentity, FileIdentity | None]:
    """A database and its log as files; an empty log is none. Only `stat`: an open would drop SQLite's locks."""
    log = path.with_name(path.name + "-wal")
    try:
        written = files.identity(log)
    except FileNotFoundError:
        return files.identity(path), None
    return files.identity(path), written if written.size_bytes else None


def _copy_thread(item: _Planned, folder: Path, count: _Count) -> CapturedThread:
    with boundary.opened(item.thread.lineage) as opened:
        if opened.identities != item.identities:
            item = _planned(item.thread, opened)
        return _copy_opened(item, opened, folder, count)


def _copy_opened(item: _Planned, opened: OpenLineage, folder: Path, count: _Count) -> CapturedThread:
    thread, plan, tail = item.thread, item.plan, item.tail
    name = f"threads/{thread.thread_id}/{opened.path(0).name}"
    target = folder / name
    files.private_folder(target.parent)
    digest = hashlib.sha256()

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
    opened.check_unchanged()
    record = ThreadRecord(
        thread_id=thread.thread_id,
        file=name,
        whole=plan is None or plan.whole,
        boundary=tail.boundary if tail is not None else None,
        sources=tuple(_source(opened, n) for n in range(len(opened.lineage))),
        size_bytes=thread.size_bytes,
        history_mode=tail.history_mode if tail is not None else HistoryMode.UNKNOWN,
        cli_version=thread.row.cli_version if thread.row is not None else None,
        archived=thread.archived,
        goal=thread.goal,
        row=thread.row,
        history=None if tail is None else history.history_of_original(opened, tail),
    )
    copied = FileRecord(path=name, length=length, sha256=digest.hexdigest(), role="resume-rollout")
    return CapturedThread(record=record, file=copied, path=target)


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
