"""What a checkpoint can give back of a thread: the reduced rollout, or the whole one, file by file.

Nothing is trusted: a file of the checkpoint is compared with its record before a byte of it is used, and
what is written is digested on the way, for the reading back.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from preflight.checkpoint.archive import Archive
from preflight.checkpoint.archiving import archive_of
from preflight.checkpoint.manifest import FileRecord, Manifest, SourceRecord, ThreadRecord
from preflight.checkpoint.verify import Outcome, verify_digest
from preflight.codex.lines import Buffer
from preflight.codex.resume_rollout import write_renumbered
from preflight.codex.rollout import parse_name
from preflight.errors import DamagedFile, Unverified, UsageProblem
from preflight.model import ArchiveReference, HistoryMode
from preflight.system import files
from preflight.system.deadline import Deadline

__all__ = ["Content", "reduced", "whole"]

Sink = Callable[[Buffer | memoryview], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One rollout file that can be written: `place` is where it lay in its home, `write` puts it into a file.

    `length` is exact where `sha256` is there; else it is the most that it can be. `tail_sha256` is the digest of
    the last 64 KiB that the original had, where these bytes are its own.
    """

    place: PurePosixPath
    file_id: str
    length: int
    sha256: str | None
    modified_ns: int
    write: Callable[[BinaryIO, Sink], object]
    tail_sha256: str | None = None

    @property
    def name(self) -> str:
        return self.place.name


def reduced(folder: Path, manifest: Manifest, thread: ThreadRecord) -> tuple[Content, ...]:
    """The resume rollout: one file that stands alone. Ordinals with gaps are counted anew, nothing else changes.

    Only for a thread that has one: all of a thread without a compaction is needed to go on with it.
    """
    record = _record(manifest, thread)
    renumber = thread.history_mode is HistoryMode.PAGINATED and len(thread.sources) == 1 and not thread.whole
    return (
        Content(
            place=_place(manifest, thread, thread.sources[0]),
            file_id=thread.sources[0].file_id,
            length=record.length,
            sha256=None if renumber else record.sha256,
            modified_ns=thread.sources[0].identity.modified_ns,
            write=partial(_write_copy, folder, record, renumber),
        ),
    )


def whole(
    folder: Path, archives: Path, manifest: Manifest, thread: ThreadRecord, *, instead: str
) -> tuple[Content, ...]:
    """The whole thread as it was, newest file first, its bases as far as it goes on from them.

    Only for a thread of which the checkpoint has everything. `instead` is the call that needs no archive.
    """
    if thread.whole and len(thread.sources) == 1:
        return reduced(folder, manifest, thread)
    return tuple(_archived(archives, manifest, thread, source, instead) for source in thread.sources)


def _archived(archives: Path, manifest: Manifest, thread: ThreadRecord, source: SourceRecord, instead: str) -> Content:
    return Content(
        place=_place(manifest, thread, source),
        file_id=source.file_id,
        length=source.used_bytes,
        sha256=None,
        modified_ns=source.identity.modified_ns,
        write=partial(_write_archived, archives, source, instead),
        tail_sha256=source.tail_sha256,
    )


def _write_archived(archives: Path, source: SourceRecord, instead: str, target: BinaryIO, sink: Sink) -> None:
    """Frame by frame, each compared with its digest; the archive must still be the one that the manifest names."""
    assert source.archive is not None  # noqa: S101  # `has_everything`
    reference = source.archive
    archive = archive_of(archives, reference.file)
    try:
        archive.require(reference)
        archive.read(reference.file, reference.generation, source.used_bytes, target, sink)
    except (DamagedFile, UsageProblem) as error:
        whole = _still_whole(archive, reference, source.used_bytes)
        message = f"the archive of {source.path.name}: {error.message}; {whole}"
        raise Unverified(message, path=error.path, hint=instead) from error


def _still_whole(archive: Archive, reference: ArchiveReference, needed: int) -> str:
    """Which bytes of the rollout can be had in spite of the damage: all frames are read, to know it for certain."""
    try:
        found = archive.verify(reference.file, reference.generation, deadline=Deadline(None))
    except (DamagedFile, UsageProblem):
        return "nothing of this archive can be read"
    parts = [(start, min(end, needed)) for start, end in found.whole if start < needed]
    if not parts:
        return f"none of the {needed:,} bytes is whole"
    return "whole are bytes " + ", ".join(f"{start:,} to {end:,}" for start, end in parts) + f" of {needed:,}"


def _record(manifest: Manifest, thread: ThreadRecord) -> FileRecord:
    return next(record for record in manifest.files if record.path == thread.file)


def _place(manifest: Manifest, thread: ThreadRecord, source: SourceRecord) -> PurePosixPath:
    """Where the file lay below its home; one from elsewhere goes where Codex would have put it."""
    try:
        return PurePosixPath(source.path.relative_to(manifest.home.path).as_posix())
    except ValueError:
        name = parse_name(source.path.name)
    if name is None:
        raise DamagedFile("the checkpoint names a file that is no rollout", path=source.path)
    if thread.archived:
        return PurePosixPath("archived_sessions", source.path.name)
    return PurePosixPath("sessions", *name.stamp[:10].split("-"), source.path.name)


def _write_copy(folder: Path, record: FileRecord, renumber: bool, target: BinaryIO, sink: Sink) -> None:
    checked = verify_digest(folder, record)
    if checked.outcome is not Outcome.PASSED:
        raise Unverified(
            f"the checkpoint is damaged: {checked.detail}",
            path=folder,
            hint="name another checkpoint; preflight list shows them",
        )
    path = folder / record.path
    with path.open("rb", buffering=0) as source:
        if renumber:
            write_renumbered(source.fileno(), record.length, target, sink, path)
        else:
            target.flush()
            files.copy_range(source.fileno(), target.fileno(), 0, record.length, sink)
            target.seek(0, os.SEEK_END)
