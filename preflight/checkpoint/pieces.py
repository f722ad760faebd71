"""What there is to read in a store, piece by piece: each file of the checkpoints, each frame of the archives.

Nothing is locked meanwhile, so a piece can be gone, or have been taken in by a larger one, when its turn comes:
then reading it says that nothing is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from preflight.checkpoint.archive import Archive, FrameDamage
from preflight.checkpoint.archiving import archive_of
from preflight.checkpoint.frame_log import Frame
from preflight.checkpoint.generation import Generation
from preflight.checkpoint.manifest import MANIFEST_NAME, FileRecord
from preflight.checkpoint.store import Store, unreadable
from preflight.checkpoint.verify import Outcome, verify_digest
from preflight.codex.history import Seen
from preflight.codex.rollout import parse_name
from preflight.errors import DamagedFile, PreflightError, Unsupported, UsageProblem
from preflight.model import ArchiveReference, Finding, Severity
from preflight.system.deadline import Deadline

__all__ = ["Found", "Piece", "look"]


def _not_told(_: int) -> None:
    """Nobody waits for this piece."""


@dataclass(slots=True)
class Piece:
    """A file of checkpoints, or a frame of an archive: `length` bytes on the disk at `point` of the circle.

    `places` are the checkpoints that have the file, each with its folder and its record of it.
    """

    point: int
    length: int
    read: Callable[[Seen], Finding | None]
    places: list[tuple[str, FileRecord, str | None]] = field(default_factory=list)
    archive: tuple[str, int] | None = None


@dataclass(slots=True)
class Found:
    """What there is to read, and what was found on the way: `suspect` pieces are read again under the lock."""

    pieces: list[Piece] = field(default_factory=list)
    named: set[ArchiveReference] = field(default_factory=set)
    suspect: list[Piece] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    checkpoints: set[str] = field(default_factory=set)
    archives: set[tuple[str, int]] = field(default_factory=set)

    def damaged(self, piece: Piece, finding: Finding) -> None:
        self.findings.append(finding)
        self.checkpoints.update(checkpoint_id for checkpoint_id, _, _ in piece.places)
        if piece.archive is not None:
            self.archives.add(piece.archive)


def look(store: Store) -> Found:
    """All pieces of the store. Manifests are read one after the other and not kept."""
    found = Found()
    files: dict[object, Piece] = {}
    for checkpoint_id in store.checkpoints():
        try:
            _look_into(store, checkpoint_id, found, files)
        except UsageProblem:
            continue  # pruned just now
        except Unsupported as error:
            found.findings.append(unreadable(checkpoint_id, error, remedy=""))
        except DamagedFile:
            found.pieces.append(_unreadable_manifest(store, checkpoint_id))
    found.pieces += files.values()
    _look_at_archives(store, found)
    return found


def _look_into(store: Store, checkpoint_id: str, found: Found, files: dict[object, Piece]) -> None:
    """The files of a checkpoint; and what it names of the archives, which must be there."""
    folder = store.checkpoint_folder(checkpoint_id)
    manifest = store.manifest(checkpoint_id)
    threads = {record.file: record.thread_id for record in manifest.threads}
    for file in manifest.files:
        key = _identity(folder / file.path)
        piece = files.get(key)
        if piece is None:
            piece = files[key] = Piece(_point(file.sha256), file.length, _no_reader)
            piece.read = _file_reader(store, piece)
        piece.places.append((checkpoint_id, file, threads.get(file.path)))
    new = {s.archive for one in manifest.threads for s in one.sources if s.archive is not None} - found.named
    found.named |= new
    for reference in new:
        read = _reference_reader(store, reference)
        if read(_not_told) is not None:
            found.suspect.append(Piece(0, 0, read, archive=(reference.file, reference.generation)))


def _no_reader(_: Seen) -> Finding | None:
    raise AssertionError("a piece is given its reader when it is made")


def _identity(path: Path) -> object:
    try:
        facts = path.stat()
    except OSError:
        return path  # reading it will say what is wrong
    return (facts.st_dev, facts.st_ino)


def _unreadable_manifest(store: Store, checkpoint_id: str) -> Piece:
    """Read again in its turn, and then it counts: `prune` and `check` tell of it every time."""
    path = store.checkpoint_folder(checkpoint_id) / MANIFEST_NAME

    def read(_: Seen) -> Finding | None:
        try:
            store.manifest(checkpoint_id)
        except (UsageProblem, Unsupported):
            return None
        except DamagedFile as error:
            return Finding(
                finding_id="store-damaged",
                severity=Severity.BLOCK,
                cause=f"checkpoint {checkpoint_id} cannot be used: {error.message}; the other checkpoints can",
                remedy="look at it, and remove its folder by hand if nothing in it is of use",
                path=path,
            )
        return None

    length = path.stat().st_size if path.exists() else 0
    point = _point(hashlib.sha256(checkpoint_id.encode()).hexdigest())
    return Piece(point, length, read)


def _file_reader(store: Store, piece: Piece) -> Callable[[Seen], Finding | None]:
    """The file under the first of its names that still counts: a checkpoint that goes loses its manifest first."""

    def read(seen: Seen) -> Finding | None:
        for checkpoint_id, file, thread_id in piece.places:
            folder = store.checkpoint_folder(checkpoint_id)
            result = verify_digest(folder, file, seen)
            if result.outcome is Outcome.PASSED:
                return None
            if not (folder / MANIFEST_NAME).exists():
                continue
            return Finding(
                finding_id="store-damaged",
                severity=Severity.BLOCK,
                thread_id=thread_id,
                cause=f"a file of checkpoint {checkpoint_id} is damaged: {result.detail}; "
                "what else is damaged in it would be reported too",
                measured=f"bytes 0 to {file.length:,}",
                remedy="preflight checkpoint writes it anew if the thread is still there",
                path=folder / file.path,
            )
        return None

    return read


def _reference_reader(store: Store, reference: ArchiveReference) -> Callable[[Seen], Finding | None]:
    def read(_: Seen) -> Finding | None:
        try:
            archive_of(store.archive, reference.file).require(reference)
        except (PreflightError, OSError) as error:
            return _archive_unreadable(store.archive, reference.file, error)
        return None

    return read


def _look_at_archives(store: Store, found: Found) -> None:
    """The frames of each rollout's newest archive, and of older ones that a checkpoint names.

    One that nobody names is on its way out: a prune that was killed may have left a part of it.
    """
    named = {(one.file, one.generation) for one in found.named}
    try:
        folders = sorted(store.archive.iterdir()) if store.archive.is_dir() else []
    except OSError as error:
        found.findings.append(_archive_unreadable(store.archive, "", error))
        return
    for folder in folders:
        archive = Archive(folder)
        try:
            listed = [(name, archive.generations(name)) for name in archive.names()]
        except (PreflightError, OSError) as error:
            found.findings.append(_archive_unreadable(folder, "", error))
            continue
        for name, generations in listed:
            for generation in generations:
                if generation == generations[-1] or (name, generation) in named:
                    found.pieces += _frames(archive, folder, name, generation, found)


def _frames(archive: Archive, folder: Path, name: str, generation: int, found: Found) -> Iterator[Piece]:
    try:
        state = archive.state(name, generation)
    except (PreflightError, OSError):
        found.suspect.append(Piece(0, 0, _state_reader(archive, folder, name, generation), archive=(name, generation)))
        return
    for frame in state.frames if state is not None else ():
        read = _frame_reader(archive, folder, name, generation, frame)
        yield Piece(_point(frame.sha256), frame.stored_length, read, archive=(name, generation))


def _state_reader(archive: Archive, folder: Path, name: str, generation: int) -> Callable[[Seen], Finding | None]:
    def read(_: Seen) -> Finding | None:
        try:
            archive.state(name, generation)
        except (PreflightError, OSError) as error:
            return _archive_unreadable(folder, name, error)
        return None

    return read


def _frame_reader(
    archive: Archive, folder: Path, name: str, generation: int, frame: Frame
) -> Callable[[Seen], Finding | None]:
    """A frame that has been taken in by a larger one, or has gone with its generation, is nothing to be read."""

    def read(seen: Seen) -> Finding | None:
        try:
            state = archive.state(name, generation)
            if state is None or frame not in state.frames:
                return None
            verified = archive.verify(name, generation, [state.frames.index(frame)], deadline=Deadline(None))
        except (PreflightError, OSError) as error:
            return _archive_unreadable(folder, name, error)
        seen(frame.stored_length)
        if not verified.damage:
            return None
        replaced = generation != archive.generations(name)[-1]
        place = Generation(folder, name, generation).data
        return _frame_damaged(folder, place, verified.damage[0], verified.whole, replaced=replaced)

    return read


def _frame_damaged(
    folder: Path, place: Path, damage: FrameDamage, whole: tuple[tuple[int, int], ...], *, replaced: bool
) -> Finding:
    rest = ", ".join(f"{start:,} to {end:,}" for start, end in whole) or "nothing"
    return Finding(
        finding_id="store-damaged",
        severity=Severity.BLOCK,
        thread_id=folder.name,
        cause=f"frame {damage.frame} of the archive is damaged ({damage.cause}): bytes {damage.raw_offset:,} to "
        f"{damage.raw_offset + damage.raw_length:,} of the rollout cannot be had from it; "
        f"apart from what else is reported, bytes {rest} can",
        measured=f"stored bytes {damage.stored_offset:,} to {damage.stored_offset + damage.stored_length:,}",
        remedy="preflight prune, once the checkpoints that name it may go: the rollout has a newer archive"
        if replaced
        else "preflight checkpoint archives it anew if the rollout is still there",
        path=place,
    )


def _archive_unreadable(folder: Path, name: str, error: PreflightError | OSError) -> Finding:
    parsed = parse_name(name)
    what = error.message if isinstance(error, PreflightError) else error.strerror or str(error)
    return Finding(
        finding_id="store-damaged",
        severity=Severity.BLOCK,
        thread_id=parsed.thread_id if parsed is not None else None,
        cause=f"an archive of this thread cannot be read: {what}",
        remedy="preflight checkpoint archives it anew if the rollout is still there",
        path=(error.path if isinstance(error, PreflightError) else None) or folder,
    )


def _point(sha256: str) -> int:
    return int(sha256[:8], 16)
