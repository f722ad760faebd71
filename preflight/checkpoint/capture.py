"""Writing a checkpoint: databases first, resume rollouts after, nothing published yet.

In this order every row refers to bytes that are in the copy: a rollout only grows, so what a row of
the earlier database copy names is in the later rollout copy. The manifest is `manifest.publish`'s,
after everything has been verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from preflight.checkpoint.manifest import DatabaseRecord, FileRecord, SourceRecord, ThreadRecord
from preflight.codex import boundary, history
from preflight.codex.boundary import OpenLineage
from preflight.codex.lines import Buffer
from preflight.codex.resume_rollout import ResumePlan, plan_resume, write_resume_rollout
from preflight.errors import DamagedFile, NoSpace
from preflight.model import Finding, HistoryMode, Home, Severity, Tail, Thread
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
class _Planned:
    thread: Thread
    files: OpenLineage
    tail: Tail | None
    plan: ResumePlan | None

    @property
    def length(self) -> int:
        return self.files.identities[0].size_bytes if self.plan is None else self.plan.length


def capture(
    home: Home,
    threads: Sequence[Thread],
    folder: Path,
    *,
    database_files: Sequence[Path],
    keep_free_bytes: int,
    deadline: Deadline,
    progress: Callable[[str], None],
) -> Capture:
    """Copy the databases and the resume rollouts of `threads` into `folder`, which must be new and empty.

    Free space is checked before the first byte is written. A thread or database that cannot be read
    becomes a failure and the others are copied. Raises NoSpace, DatabaseBusy, TimeLimitReached; what
    was written until then stays in the folder, which is no checkpoint.
    """
    with ExitStack() as stack:
        planned: list[_Planned] = []
        failures: list[Finding] = []
        for thread in threads:
            try:
                planned.append(_plan(stack, thread))
            except (DamagedFile, OSError) as error:
                failures.append(failure(thread, error))
        _require_space(folder, [p.length for p in planned], database_files, keep_free_bytes)
        copies = []
        for path in database_files:
            try:
                copies.append(_copy_database(path, home, folder, deadline))
            except DamagedFile as error:
                failures.append(_database_failure(path, error))
        captured: list[CapturedThread] = []
        for item in planned:
            deadline.check("writing the checkpoint")
            try:
                # What was appended while the databases were copied may be in their rows: it belongs into the copy.
                newest = _plan(stack, item.thread) if item.files.have_grown() else item
                progress(f"copying {newest.length:,} bytes of thread {item.thread.thread_id}")
                captured.append(_copy_thread(newest, folder, deadline))
            except (DamagedFile, OSError) as error:
                failures.append(failure(item.thread, error))
    return Capture(
        databases=tuple(record for record, _ in copies),
        files=(*(file for _, file in copies), *(one.file for one in captured)),
        threads=tuple(captured),
        failures=tuple(failures),
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


def _database_failure(path: Path, error: DamagedFile) -> Finding:
    return Finding(
        finding_id="checkpoint-failed",
        severity=Severity.BLOCK,
        cause=f"{path.name} could not be copied: {error.message}",
        remedy=error.hint or "start Codex and let it repair its local data, then: preflight run",
        path=path,
    )


def _plan(stack: ExitStack, thread: Thread) -> _Planned:
    head = thread.head
    if head is None:
        raise DamagedFile("its rollout was not found", hint="put the rollout back where it was, then: preflight run")
    opened = stack.enter_context(boundary.opened(thread.lineage))
    if head.compressed:
        return _Planned(thread, opened, None, None)
    tail = boundary.read_tail(opened)
    return _Planned(thread, opened, tail, plan_resume(opened, tail))


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


def _copy_database(path: Path, home: Home, folder: Path, deadline: Deadline) -> tuple[DatabaseRecord, FileRecord]:
    name = f"databases/{path.name}"
    target = folder / name
    files.private_folder(target.parent)
    databases.backup(path, target, deadline)
    record = FileRecord(path=name, length=target.stat().st_size, sha256=files.sha256_of(target), role="database")
    return DatabaseRecord(name=path.name, path=name, source=home.sqlite_home / path.name), record


def _copy_thread(item: _Planned, folder: Path, deadline: Deadline) -> CapturedThread:
    thread, opened, plan, tail = item.thread, item.files, item.plan, item.tail
    name = f"threads/{thread.thread_id}/{opened.path(0).name}"
    target = folder / name
    files.private_folder(target.parent)
    digest = hashlib.sha256()

    def took(block: Buffer | memoryview) -> None:
        deadline.check("writing the checkpoint")
        digest.update(block)

    with files.publishing(target, needed_bytes=item.length) as file:
        if plan is None:
            size = opened.identities[0].size_bytes
            files.copy_range(opened.descriptors[0], file.fileno(), 0, size, took)
            length = size
        else:
            length = write_resume_rollout(opened, plan, file, took)
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
