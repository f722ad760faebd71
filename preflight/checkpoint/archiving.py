"""The archive part of a checkpoint: each rollout of each captured thread, brought up to what was captured.

Done after the resume rollouts have been verified and before the manifest is published, which then names
what the archive has. A rollout is archived up to its last complete line of now, which may be more than was
captured; bases that forks share are archived once, under the thread that they belong to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from preflight.checkpoint.archive import Appended, Archive, BeganAnew, Proof
from preflight.checkpoint.coverage import is_read_back
from preflight.checkpoint.manifest import SourceRecord, ThreadRecord
from preflight.checkpoint.verify import Level, LevelResult, Outcome
from preflight.codex.history import Seen
from preflight.codex.lines import complete_length
from preflight.codex.rollout import parse_name
from preflight.errors import DamagedFile, NoSpace, PreflightError, TimeLimitReached
from preflight.model import ArchiveReference, Finding, Severity
from preflight.system import files
from preflight.system.deadline import Deadline

__all__ = ["Archived", "Archiving", "Proof", "archive_of", "archive_threads", "named_generations", "read_archived"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Archiving:
    """How to archive, and how bad it is when that fails, or is not done in time (None: said, and no finding).

    `moved` is told what is being done, and how many bytes of how many; `folder` is that of all archives,
    `damaged` those, by rollout file and generation, that a reading found damaged: they are made anew.
    """

    folder: Path
    prove: Proof
    failed: Severity
    unfinished: Severity | None
    keep_free_bytes: int
    deadline: Deadline
    max_rate: int | None
    damaged: frozenset[tuple[str, int]]
    progress: Callable[[str], None]
    moved: Callable[[str, int, int], None]


def archive_of(folder: Path, name: str) -> Archive:
    """The archive that a rollout file of that name belongs to. DamagedFile when it is no rollout's name."""
    parsed = parse_name(name)
    if parsed is None:
        raise DamagedFile("this is no name of a rollout, so it is not archived", path=Path(name))
    return Archive(folder / parsed.thread_id)


@dataclass(frozen=True, slots=True)
class Archived:
    """The records with what the archive has of them, in their order; what went wrong, and what is not done yet."""

    records: tuple[ThreadRecord, ...]
    findings: tuple[Finding, ...]
    not_done: tuple[str, ...]


def archive_threads(records: Sequence[ThreadRecord], how: Archiving) -> Archived:
    """Bring the archive of each record's rollouts up to date.

    The time limit ends it between two frames; the next checkpoint goes on there. A rollout or archive
    that cannot be read or written is a finding of its thread, and a full disk one of all that follow.
    """
    work = _Work(how)
    done: list[ThreadRecord] = []
    not_done: list[str] = []
    for record in records:
        archived = record
        if not _is_copied_compressed(record):
            sources = [work.source(record.thread_id, source) for source in record.sources]
            archived = replace(record, sources=tuple(sources))
        done.append(archived)
        if not archived.has_everything and record.thread_id not in work.told:
            if how.unfinished is None:
                not_done.append(f"archive of thread {record.thread_id}: there was no time for all of it")
            else:
                work.findings.append(_incomplete(archived, how.unfinished))
    return Archived(tuple(done), tuple(work.findings), tuple(not_done))


@dataclass(slots=True)
class _Work:
    how: Archiving
    findings: list[Finding] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    _done: dict[Path, Appended] = field(default_factory=dict)
    _full: NoSpace | None = None

    def source(self, thread_id: str, source: SourceRecord) -> SourceRecord:
        if source.is_archived and source.archive is not None and self._is_good(source.archive):
            return source  # taken over from the checkpoint before, with the file itself untouched
        try:
            appended = self._appended(source.path, thread_id)
        except TimeLimitReached:
            return replace(source, archive=None)
        except (PreflightError, OSError) as error:
            self._failed(thread_id, error)
            return replace(source, archive=None)
        if not appended.raw_bytes:
            return replace(source, archive=None)
        length = min(appended.raw_bytes, source.used_bytes)
        return replace(source, archive=replace(appended.reference, raw_length=length))

    def _is_good(self, reference: ArchiveReference) -> bool:
        if (reference.file, reference.generation) in self.how.damaged:
            return False
        try:
            archive_of(self.how.folder, reference.file).require(reference)
        except (PreflightError, OSError):
            return False
        return True

    def _appended(self, path: Path, thread_id: str) -> Appended:
        if path in self._done:
            return self._done[path]
        if self._full is not None:
            raise self._full
        how = self.how
        how.deadline.check("archiving")
        how.progress(f"archiving thread {thread_id}")
        try:
            archive = archive_of(how.folder, path.name)
            latest = max(archive.generations(path.name), default=0)
            appended = archive.append(
                path,
                end=_complete_bytes(path),
                prove=how.prove,
                deadline=how.deadline,
                max_rate=how.max_rate,
                progress=self._moved,
                anew=(path.name, latest) in how.damaged,
            )
        except NoSpace as error:
            self._full = error
            raise
        self._done[path] = appended
        if appended.began_anew is not None:
            self.findings.append(_began_anew(path, thread_id, appended.began_anew))
        return appended

    def _moved(self, what: str, done: int, total: int) -> None:
        free = files.free_bytes(self.how.folder)
        if free < self.how.keep_free_bytes:
            raise NoSpace(
                f"{self.how.keep_free_bytes:,} bytes are to stay free, but only {free:,} are",
                path=self.how.folder,
                hint="make room there, or choose another place with --store",
            )
        self.how.moved(what, done, total)

    def _failed(self, thread_id: str, error: PreflightError | OSError) -> None:
        if thread_id not in self.told:
            self.told.add(thread_id)
            self.findings.append(_failed(thread_id, error, self.how.failed))


def _is_copied_compressed(record: ThreadRecord) -> bool:
    """Whether the checkpoint itself has the whole thread, as compressed as Codex left it."""
    return record.whole and len(record.sources) == 1 and record.file is not None and record.file.endswith(".zst")


def read_archived(folder: Path, record: ThreadRecord, before: ThreadRecord | None, seen: Seen) -> LevelResult:
    """Read back what the archive has of a thread that is nowhere else: every frame, its digest compared.

    What `before` names of it has been read back already when that checkpoint was made, and since then in turns.
    `seen` is told how many bytes have been read; what it raises is passed on.
    """
    frames = 0
    for source in record.sources:
        reference = source.archive
        if reference is None:
            return LevelResult(Level.DIGESTS, Outcome.NOT_CHECKED, "not all of it is archived yet")
        proved = _proved(before, reference)
        archive = archive_of(folder, reference.file)
        try:
            archive.require(reference)
            state = archive.state(reference.file, reference.generation)
            for index, frame in enumerate(state.frames if state is not None else ()):
                if frame.raw_end <= proved or frame.raw_offset >= reference.raw_length:
                    continue
                found = archive.verify(reference.file, reference.generation, [index], deadline=Deadline(None))
                if found.damage:
                    detail = f"frame {index} of the archive is damaged: {found.damage[0].cause}"
                    return LevelResult(Level.DIGESTS, Outcome.FAILED, detail)
                frames += 1
                seen(frame.stored_length)
        except (PreflightError, OSError) as error:
            if isinstance(error, TimeLimitReached):
                raise
            return LevelResult(Level.DIGESTS, Outcome.FAILED, f"the archive cannot be read: {error}")
    return LevelResult(Level.DIGESTS, Outcome.PASSED, "the thread is in the archive alone", {"frames": frames})


def _proved(before: ThreadRecord | None, reference: ArchiveReference) -> int:
    """Up to where the earlier checkpoint has read the same archive back."""
    if before is None or before.file is not None or not is_read_back(before):
        return 0
    named = [source.archive for source in before.sources if source.archive is not None]
    same = [one for one in named if (one.file, one.generation) == (reference.file, reference.generation)]
    return max((one.raw_length for one in same), default=0)


def _complete_bytes(path: Path) -> int:
    """How much of a rollout there is to archive: all of a compressed one, which has no lines."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        size = os.fstat(descriptor).st_size
        return size if path.suffix == ".zst" else complete_length(descriptor, size)
    finally:
        os.close(descriptor)


def _failed(thread_id: str, error: PreflightError | OSError, severity: Severity) -> Finding:
    what = error.message if isinstance(error, PreflightError) else error.strerror or str(error)
    return Finding(
        finding_id="no-space" if isinstance(error, NoSpace) else "archive-failed",
        severity=severity,
        thread_id=thread_id,
        cause=f"the whole of this thread could not be archived: {what}",
        remedy=(error.hint if isinstance(error, PreflightError) else None) or "preflight checkpoint",
        path=error.path if isinstance(error, PreflightError) else None,
    )


def _incomplete(record: ThreadRecord, severity: Severity) -> Finding:
    have = sum(source.archive.raw_length for source in record.sources if source.archive is not None)
    return Finding(
        finding_id="archive-incomplete",
        severity=severity,
        thread_id=record.thread_id,
        cause="the time limit came before the whole thread was archived; the next checkpoint goes on there",
        measured=have,
        expected=sum(source.used_bytes for source in record.sources),
        remedy="preflight checkpoint",
    )


_ANEW = {
    BeganAnew.REWRITTEN: "the rollout is not the one that was archived: it was rewritten",
    BeganAnew.TRUNCATED: "the rollout is shorter than what was archived of it",
    BeganAnew.DAMAGED: "what was archived of the rollout cannot be read any more",
}


def _began_anew(path: Path, thread_id: str, why: BeganAnew) -> Finding:
    return Finding(
        finding_id="archive-began-anew",
        severity=Severity.WARN,
        thread_id=thread_id,
        cause=f"{_ANEW[why]}; a new archive of it was begun, and the old one stays as it is",
        remedy=f"preflight show latest --json names the archives of thread {thread_id}",
        path=path,
    )


def named_generations(records: Iterable[ThreadRecord]) -> set[tuple[str, int]]:
    """Every archive generation that these records name: the rollout's file name and the number."""
    return {
        (source.archive.file, source.archive.generation)
        for record in records
        for source in record.sources
        if source.archive is not None
    }
