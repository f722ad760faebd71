"""Reading the store back from the disk: every file of every checkpoint, and every frame of every archive.

What there is to read lies on a circle, each piece at the point that its SHA-256 names, so that pieces keep
their place when others come and go. A part is a stretch of the circle; the next one begins where it
ended. So seven nights of a seventh read everything once, whatever has been added meanwhile.

Nobody waits for a reading: it takes no lock. Against a checkpoint that is archiving or pruning meanwhile the
reader loses, and that is no damage: a file that is not what it should be counts when its checkpoint is still
there afterwards, a frame when it is read once more under the run lock, which is held for that and for
writing down where the next reading begins.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from preflight.checkpoint import nights
from preflight.checkpoint.pieces import Found, look
from preflight.checkpoint.store import Store
from preflight.config import EVERYTHING, Part
from preflight.errors import Locked, TimeLimitReached
from preflight.model import Finding
from preflight.system.deadline import Deadline
from preflight.system.locks import RunLock
from preflight.system.pace import Pace

__all__ = ["Reading", "Reread", "read_back"]

_CIRCLE = 1 << 32

#: How long the end of a reading waits for another preflight to be done.
_LOCK_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How to read back: `program` is named to whoever finds the lock taken, `max_rate` is in bytes for each second."""

    how_much: Part
    deadline: Deadline
    moved: Callable[[str, int, int], None]
    program: str
    max_rate: int | None = None


@dataclass(frozen=True, slots=True)
class Reread:
    """What was read and what is wrong; `position` is where the next part begins on the circle.

    What is damaged is named: checkpoints by id, archives by file and generation. `complete` False: the
    time limit came first. `remembered` False: another preflight was at work all the while, so the next
    reading begins where this one did.
    """

    findings: tuple[Finding, ...]
    damaged_checkpoints: frozenset[str]
    damaged_archives: frozenset[tuple[str, int]]
    pieces: int
    read_bytes: int
    total_bytes: int
    position: int
    complete: bool
    remembered: bool = True

    def as_json(self, home: Path) -> dict[str, object]:
        return {
            "home": home,
            "pieces": self.pieces,
            "read_bytes": self.read_bytes,
            "stored_bytes": self.total_bytes,
            "damaged": sum(finding.finding_id == "store-damaged" for finding in self.findings),
            "complete": self.complete,
        }

    def not_checked(self) -> list[str]:
        """Sentences on what this reading leaves open."""
        gaps = []
        if not self.complete:
            gaps.append("what the store holds besides: the time limit came before all of that part was read")
        if not self.remembered:
            gaps.append(
                "where the next reading goes on: another preflight was at work, so it begins where this one did"
            )
        return gaps


def read_back(store: Store, how: Reading) -> Reread:
    """Read the next part of the store, and remember where the one after it begins and what was damaged.

    Takes the run lock at its end, for a moment. Raises what `files.publish` raises when that cannot be
    written down.
    """
    before = nights.recall(store.nights)
    found = look(store)
    read = _read(found, how, before.position)
    with ExitStack() as stack:
        remembered = True
        try:
            # Also when the time is over: what was read is not to be read in vain.
            wait = Deadline(max(how.deadline.at_most(_LOCK_SECONDS), 1.0))
            stack.enter_context(RunLock(store.folder).acquire(wait, {"program": how.program}))
        except Locked:
            remembered = False
        for piece in found.suspect:
            again = piece.read(_not_told)
            if again is not None:
                found.damaged(piece, again)
        read = replace(
            read,
            findings=tuple(found.findings),
            damaged_checkpoints=frozenset(found.checkpoints),
            damaged_archives=frozenset(found.archives),
            remembered=remembered,
        )
        if remembered:
            _remember(store, read, everything=read.complete and how.how_much == EVERYTHING)
    return read


def _not_told(_: int) -> None:
    """Nobody waits for this piece."""


def _remember(store: Store, read: Reread, *, everything: bool) -> None:
    before = nights.recall(store.nights)
    checkpoints = read.damaged_checkpoints | (set() if everything else set(before.damaged_checkpoints))
    archives = read.damaged_archives | (set() if everything else set(before.damaged_archives))
    after = replace(
        before,
        position=read.position,
        damaged_checkpoints=tuple(sorted(checkpoints.intersection(store.checkpoints()))),
        damaged_archives=tuple(sorted(archives)),
    )
    nights.save(store.nights, after)


def _read(found: Found, how: Reading, position: int) -> Reread:
    """Read the part that begins at `position`; what cannot be read or is damaged becomes a finding, or suspect.

    A file that several checkpoints have under a name each is read once.
    """
    total = sum(piece.length for piece in found.pieces)
    width = _width(how.how_much, total)
    ahead = sorted((((piece.point - position) % _CIRCLE, place) for place, piece in enumerate(found.pieces)))
    wanted = [(distance, found.pieces[place]) for distance, place in ahead if distance < width]
    expected = sum(piece.length for _, piece in wanted)
    in_time = Pace(how.max_rate, how.deadline).during("reading the store back")
    reached, count, done = width, 0, 0

    def seen(size: int) -> None:
        nonlocal done
        in_time(size)
        done += size
        how.moved("read back", done, expected)

    for distance, piece in wanted:
        before = done
        try:
            in_time(0)
            finding = piece.read(seen)
        except TimeLimitReached:
            reached, done = distance, before
            break
        if finding is not None and piece.archive is not None:
            found.suspect.append(piece)
        elif finding is not None:
            found.damaged(piece, finding)
        count += 1
        done = before + piece.length
    return Reread(
        findings=(),
        damaged_checkpoints=frozenset(),
        damaged_archives=frozenset(),
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
