"""Reading the store back from the disk: every file of every checkpoint, and every frame of every archive.

What there is to read lies on a circle, each piece at the point that its SHA-256 names, so that pieces keep
their place when others come and go. A part is a stretch of the circle; the next one begins where it
ended. So seven nights of a seventh read everything once, whatever has been added meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from preflight.checkpoint import nights
from preflight.checkpoint.archive import Archive, FrameDamage
from preflight.checkpoint.archiving import archive_of
from preflight.checkpoint.manifest import FileRecord, Manifest
from preflight.checkpoint.store import Store
from preflight.checkpoint.verify import Outcome, verify_digest
from preflight.codex.rollout import parse_name
from preflight.config import EVERYTHING, Part
from preflight.errors import DamagedFile, PreflightError, Unsupported
from preflight.model import ArchiveReference, Finding, Severity
from preflight.system.deadline import Deadline

__all__ = ["Reread", "read_back"]

_CIRCLE = 1 << 32


@dataclass(frozen=True, slots=True)
class Reread:
    """What was read and what is wrong; `position` is where the next part begins on the circle.

    What is damaged is named: checkpoints by id, archives by file and generation. `complete` False: the
    time limit came first.
    """

    findings: tuple[Finding, ...]
    damaged_checkpoints: frozenset[str]
    damaged_archives: frozenset[tuple[str, int]]
    pieces: int
    read_bytes: int
    total_bytes: int
    position: int
    complete: bool

    def as_json(self, home: Path) -> dict[str, object]:
        return {
            "home": home,
            "pieces": self.pieces,
            "read_bytes": self.read_bytes,
            "stored_bytes": self.total_bytes,
            "damaged": sum(finding.finding_id == "store-damaged" for finding in self.findings),
            "complete": self.complete,
        }


@dataclass(slots=True)
class _Piece:
    """A file of checkpoints, or a frame of an archive: `length` bytes on the disk at `point` of the circle."""

    point: int
    length: int
    read: Callable[[], Finding | None]
    checkpoints: set[str] = field(default_factory=set)
    archive: tuple[str, int] | None = None


def read_back(store: Store, how_much: Part, deadline: Deadline, moved: Callable[[str, int, int], None]) -> Reread:
    """Read the next part of the store, and remember where the one after it begins and what was damaged.

    Needs the run lock. Raises what `files.publish` raises when that cannot be written down.
    """
    before = nights.recall(store.nights)
    found = _reread(store, how_much, before.position, deadline, moved)
    everything = found.complete and how_much == EVERYTHING
    checkpoints = found.damaged_checkpoints | (set() if everything else set(before.damaged_checkpoints))
    archives = found.damaged_archives | (set() if everything else set(before.damaged_archives))
    after = replace(
        before,
        position=found.position,
        damaged_checkpoints=tuple(sorted(checkpoints.intersection(store.checkpoints()))),
        damaged_archives=tuple(sorted(archives)),
    )
    nights.save(store.nights, after)
    return found


def _reread(
    store: Store, how_much: Part, position: int, deadline: Deadline, moved: Callable[[str, int, int], None]
) -> Reread:
    """Read the part that begins at `position`; what cannot be read or is damaged becomes a finding.

    A file that several checkpoints have under a name each is read once. Published data only: a prune
    that runs meanwhile can make what it removes look lost, so the run lock is needed.
    """
    findings: list[Finding] = []
    lost: set[tuple[str, int]] = set()
    named: set[ArchiveReference] = set()
    files = _files(store, findings, lost, named)
    pieces = [*files, *_frames(store, findings, lost, {(one.file, one.generation) for one in named})]
    total = sum(piece.length for piece in pieces)
    width = _width(how_much, total)
    ahead = sorted((((piece.point - position) % _CIRCLE, place) for place, piece in enumerate(pieces)))
    wanted = [(distance, pieces[place]) for distance, place in ahead if distance < width]
    expected = sum(piece.length for _, piece in wanted)
    damaged: list[_Piece] = []
    reached, count, done = width, 0, 0
    for distance, piece in wanted:
        if deadline.expired:
            reached = distance
            break
        finding = piece.read()
        if finding is not None:
            findings.append(finding)
            damaged.append(piece)
        count += 1
        done += piece.length
        moved("read back", done, expected)
    return Reread(
        findings=tuple(findings),
        damaged_checkpoints=frozenset(one for piece in damaged for one in piece.checkpoints),
        damaged_archives=frozenset(lost.union(piece.archive for piece in damaged if piece.archive is not None)),
        pieces=count,
        read_bytes=done,
        total_bytes=total,
        position=(position + reached) % _CIRCLE,
        complete=count == len(wanted),
    )


def _width(how_much: Part, total_bytes: int) -> int:
    """The length of the stretch of the circle, rounded up: so many parts must reach all around."""
    numerator, denominator = how_much.of(total_bytes)
    return min(_CIRCLE, -(-_CIRCLE * numerator // max(denominator, 1)))


def _files(
    store: Store, findings: list[Finding], lost: set[tuple[str, int]], named: set[ArchiveReference]
) -> list[_Piece]:
    """The files of all checkpoints; and what they name of the archives, which must be there.

    Manifests are read one after the other and not kept.
    """
    pieces: dict[object, _Piece] = {}
    for checkpoint_id in store.checkpoints():
        folder = store.checkpoint_folder(checkpoint_id)
        try:
            manifest = store.manifest(checkpoint_id)
        except (DamagedFile, Unsupported) as error:
            findings.append(_unreadable(checkpoint_id, error))
            continue
        threads = {record.file: record.thread_id for record in manifest.threads}
        for file in manifest.files:
            key = _identity(folder / file.path)
            if key not in pieces:
                pieces[key] = _Piece(_point(file.sha256), file.length, _file_reader(folder, file, manifest, threads))
            pieces[key].checkpoints.add(checkpoint_id)
        new = {s.archive for one in manifest.threads for s in one.sources if s.archive is not None} - named
        named |= new
        for reference in new:
            if (gone := _missing(store, reference)) is not None:
                lost.add((reference.file, reference.generation))
                findings.append(gone)
    return list(pieces.values())


def _missing(store: Store, reference: ArchiveReference) -> Finding | None:
    try:
        archive_of(store.archive, reference.file).require(reference)
    except (PreflightError, OSError) as error:
        return _archive_unreadable(store.archive, reference.file, error)
    return None


def _identity(path: Path) -> object:
    try:
        facts = path.stat()
    except OSError:
        return path  # reading it will say what is wrong
    return (facts.st_dev, facts.st_ino)


def _file_reader(
    folder: Path, file: FileRecord, manifest: Manifest, threads: dict[str, str]
) -> Callable[[], Finding | None]:
    checkpoint_id, thread_id = manifest.checkpoint_id, threads.get(file.path)

    def read() -> Finding | None:
        result = verify_digest(folder, file)
        if result.outcome is Outcome.PASSED:
            return None
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

    return read


def _frames(
    store: Store, findings: list[Finding], lost: set[tuple[str, int]], named: set[tuple[str, int]]
) -> Iterator[_Piece]:
    """The frames of each rollout's newest archive, and of older ones that a checkpoint names.

    One that nobody names is on its way out: a prune that was killed may have left a part of it.
    """
    for folder in sorted(store.archive.iterdir()) if store.archive.is_dir() else ():
        archive = Archive(folder)
        for name in archive.names():
            generations = archive.generations(name)
            for generation in generations:
                if generation != generations[-1] and (name, generation) not in named:
                    continue
                try:
                    state = archive.state(name, generation)
                except (PreflightError, OSError) as error:
                    findings.append(_archive_unreadable(folder, name, error))
                    lost.add((name, generation))
                    continue
                for index, frame in enumerate(state.frames if state is not None else ()):
                    read = _frame_reader(archive, folder, name, generation, index)
                    yield _Piece(_point(frame.sha256), frame.stored_length, read, archive=(name, generation))


def _frame_reader(
    archive: Archive, folder: Path, name: str, generation: int, index: int
) -> Callable[[], Finding | None]:
    def read() -> Finding | None:
        try:
            verified = archive.verify(name, generation, [index], deadline=Deadline(None))
        except (PreflightError, OSError) as error:
            return _archive_unreadable(folder, name, error)
        return _frame_damaged(folder, name, verified.damage[0], verified.whole) if verified.damage else None

    return read


def _frame_damaged(folder: Path, name: str, damage: FrameDamage, whole: tuple[tuple[int, int], ...]) -> Finding:
    rest = ", ".join(f"{start:,} to {end:,}" for start, end in whole) or "nothing"
    return Finding(
        finding_id="store-damaged",
        severity=Severity.BLOCK,
        thread_id=folder.name,
        cause=f"frame {damage.frame} of the archive is damaged ({damage.cause}): bytes {damage.raw_offset:,} to "
        f"{damage.raw_offset + damage.raw_length:,} of the rollout cannot be had from it; "
        f"apart from what else is reported, bytes {rest} can",
        measured=f"stored bytes {damage.stored_offset:,} to {damage.stored_offset + damage.stored_length:,}",
        remedy="preflight checkpoint archives it anew if the rollout is still there",
        path=folder / name,
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


def _unreadable(checkpoint_id: str, error: PreflightError) -> Finding:
    return Finding(
        finding_id="checkpoint-damaged",
        severity=Severity.WARN,
        cause=f"checkpoint {checkpoint_id} cannot be read: {error.message}",
        remedy="preflight checkpoint makes a new one",
        path=error.path,
    )


def _point(sha256: str) -> int:
    return int(sha256[:8], 16)
