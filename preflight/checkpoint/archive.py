"""The whole of each rollout of a thread, compressed, kept up to date at the cost of what was added.

    <store>/archive/<thread id>/<rollout file name>.zst             zstd frames; `zstd -d` gives the rollout
                               /<rollout file name>.frames.jsonl    a line each: offsets, lengths, digests

The first run reads the file once. Later ones prove that it is still the file that was archived and read
what is new. A rollout that was rewritten or cut begins a new generation; what was published stays.
Nothing of the rollout is decoded or changed. Changing an archive needs the run lock; reading it does not.

Errors: NoSpace and Unverified when our own files cannot be written, DamagedFile when the rollout ends
early or an archive is damaged; an OSError of the rollout is passed on. Whatever happens, what was
published before stays as it was, and the next run takes away what was left half-way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import BinaryIO

from preflight.checkpoint.archive_source import Progress, Proof, Source
from preflight.checkpoint.frame_log import Frame, Published
from preflight.checkpoint.frame_reading import AHEAD, read_back, writer
from preflight.checkpoint.generation import Generation
from preflight.checkpoint.zstd_frames import SourceChanged
from preflight.errors import DamagedFile, TimeLimitReached, UsageProblem
from preflight.model import ArchiveReference
from preflight.system import files
from preflight.system.beside import Beside
from preflight.system.deadline import Deadline

__all__ = [
    "Appended",
    "Archive",
    "ArchiveReference",
    "ArchiveState",
    "BeganAnew",
    "FrameDamage",
    "Progress",
    "Proof",
    "Verified",
]


_MOST_READERS = 8


class BeganAnew(StrEnum):
    """Why an append began a new generation."""

    REWRITTEN = "rewritten"
    TRUNCATED = "truncated"
    DAMAGED = "damaged"  # the archive, not the rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveState:
    """What one generation holds: `raw_length` bytes of the rollout in `stored_bytes`; `reference` names all of it."""

    reference: ArchiveReference
    raw_length: int
    stored_bytes: int
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """What an append did. `complete` False: the time limit came first, and the next one goes on there.

    `new_stored_bytes` is by how much the archive file grew; a frame that took small ones in counts as
    the difference, which can be below zero.
    """

    generation: int
    raw_bytes: int
    new_raw_bytes: int
    stored_bytes: int
    new_stored_bytes: int
    frames: int
    began_anew: BeganAnew | None
    complete: bool
    reference: ArchiveReference

    @property
    def rewritten(self) -> bool:
        return self.began_anew is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameDamage:
    """A frame that cannot be read back as what was archived: which bytes of the rollout and of the archive file."""

    frame: int
    raw_offset: int
    raw_length: int
    stored_offset: int
    stored_length: int
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a reading back found: the indexes of the frames that were read, and those that are damaged.

    `whole` are the stretches of the rollout, from and to, without a frame that was found damaged;
    `complete` False: the time limit came before all that was asked for had been read.
    """

    checked: tuple[int, ...]
    checked_raw_bytes: int
    damage: tuple[FrameDamage, ...]
    whole: tuple[tuple[int, int], ...]
    complete: bool


class Archive:
    """The archives of one thread's rollout files; `folder` is made with the first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(
        self,
        rollout: Path,
        *,
        end: int,
        prove: Proof,
        deadline: Deadline,
        max_rate: int | None = None,
        progress: Progress | None = None,
        anew: bool = False,
    ) -> Appended:
        """Archive the first `end` bytes of the rollout, which must end with a complete line.

        `max_rate` limits how many bytes are read in a second. Frames are published one by one: when the
        deadline comes, or the disk is full, the finished ones stay. A deadline that comes ends the frame
        at the next newline. `anew` begins a new generation: the caller has read the latest one and found damage.
        """
        files.private_folder(self._folder)
        with Source(rollout, end, deadline=deadline, max_rate=max_rate, progress=progress) as source:
            latest = (self._all(rollout.name) or [Generation(self._folder, rollout.name, 1)])[-1]
            if anew:
                return self._begin_anew(latest, source, BeganAnew.DAMAGED)
            try:
                published = latest.repair()
            except DamagedFile:
                return self._begin_anew(latest, source, BeganAnew.DAMAGED)
            if end < published.raw_end:
                return self._begin_anew(latest, source, BeganAnew.TRUNCATED)
            try:
                return _go_on(latest, published, source, prove)
            except SourceChanged:
                return self._begin_anew(latest, source, BeganAnew.REWRITTEN)

    def names(self) -> list[str]:
        """The names of the rollout files that have an archive here."""
        return Generation.names(self._folder)

    def generations(self, name: str) -> list[int]:
        """The generations of a rollout file that hold something, oldest first."""
        return [generation.number for generation in self._all(name)]

    def state(self, name: str, generation: int | None = None) -> ArchiveState | None:
        """What is archived of a rollout file, by default in its latest generation; None when nothing is.

        Reads the frames file only. DamagedFile when that is damaged.
        """
        number = generation or max(self.generations(name), default=None)
        if number is None or number not in self.generations(name):
            return None
        one = Generation(self._folder, name, number)
        published = one.log.read()
        return ArchiveState(
            reference=_reference(one, published),
            raw_length=published.raw_end,
            stored_bytes=published.stored_end,
            frames=published.frames,
        )

    def require(self, reference: ArchiveReference) -> None:
        """Raise DamagedFile unless what a manifest names is still there, by its lines and its length."""
        one = self._one(reference.file, reference.generation)
        then = one.log.read(reference.frames)
        if then.sha256 != reference.frames_sha256 or then.raw_end < reference.raw_length:
            raise DamagedFile("the frames file is not the one that the checkpoint names", path=one.log.path)
        one.require_length(one.log.read())

    def read(
        self,
        name: str,
        generation: int,
        raw_length: int,
        target: BinaryIO,
        sink: Callable[[memoryview], object] | None = None,
    ) -> None:
        """Write the first `raw_length` bytes of the rollout to `target`; `sink` sees them too, in order.

        From a thread of its own, both; what they raise is passed on. NoSpace where there is no room for all of it.

        Each frame that is needed is read to its end and compared with its digest: DamagedFile, which names
        the frame and its bytes, when one is not what was archived. What is in the target then is of no use.
        """
        one = self._one(name, generation)
        published = one.log.read()
        if published.raw_end < raw_length:
            raise DamagedFile(f"only {published.raw_end:,} of {raw_length:,} bytes are archived", path=one.data)

        write = writer(target, raw_length, sink)
        with Beside(AHEAD) as writing:

            def take(position: int, raw: bytes) -> None:
                if position < raw_length:
                    writing.give(write, memoryview(raw)[: raw_length - position])

            for index, frame in enumerate(published.frames):
                if frame.raw_offset >= raw_length:
                    break
                cause = read_back(one, published, frame, alone=True, take=take)
                if cause is not None:
                    raise DamagedFile(
                        f"frame {index} of the archive, bytes {frame.raw_offset:,} to {frame.raw_end:,} of the "
                        f"rollout, is damaged: {cause}",
                        path=one.data,
                        hint="preflight verify --read-data says what is whole",
                    )

    def verify(
        self, name: str, generation: int, which: Collection[int] | None = None, *, deadline: Deadline
    ) -> Verified:
        """Read frames back from the disk, all or those of the given indexes, and compare them with their digests.

        On all cores. Damage is what it returns; DamagedFile only when the frames file itself cannot be read.
        """
        one = self._one(name, generation)
        published = one.log.read()
        one.forget_cached()
        chosen = [index for index in range(len(published.frames)) if which is None or index in which]

        def read(index: int) -> tuple[int, str | None] | None:
            if deadline.expired:
                return None
            return index, read_back(one, published, published.frames[index], alone=len(chosen) == 1)

        with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_READERS)) as pool:
            found = [told for told in pool.map(read, chosen) if told is not None]
        damage = []
        for index, cause in found:
            frame = published.frames[index]
            if cause is not None:
                damage.append(
                    FrameDamage(
                        frame=index,
                        raw_offset=frame.raw_offset,
                        raw_length=frame.raw_length,
                        stored_offset=frame.stored_offset,
                        stored_length=frame.stored_length,
                        cause=cause,
                    )
                )
        checked = tuple(index for index, _ in found)
        return Verified(
            checked=checked,
            checked_raw_bytes=sum(published.frames[index].raw_length for index in checked),
            damage=tuple(damage),
            whole=_whole(published.frames, {one.frame for one in damage}),
            complete=len(checked) == len(chosen),
        )

    def remove_generation(self, name: str, generation: int) -> None:
        """Take a generation off the disk. It is for the caller to know that nothing names it."""
        self._one(name, generation).remove()

    def _all(self, name: str) -> list[Generation]:
        return Generation.all(self._folder, name)

    def _one(self, name: str, number: int) -> Generation:
        for generation in self._all(name):
            if generation.number == number:
                return generation
        raise UsageProblem(f"there is no generation {number} of the archive of {name}", path=self._folder)

    def _begin_anew(self, latest: Generation, source: Source, why: BeganAnew) -> Appended:
        new = Generation(self._folder, latest.name, latest.number + 1)
        return _go_on(new, new.repair(), source, Proof.TAIL, why)


def _go_on(
    generation: Generation, before: Published, source: Source, proof: Proof, why: BeganAnew | None = None
) -> Appended:
    """Add what is new while what is published is proved; SourceChanged, and nothing added, when the proof fails."""
    published = before
    first = len(before.frames) if proof is Proof.TAIL else source.gathers(before)
    sampled = before.sampled + (proof is Proof.SAMPLED)
    with suppress(TimeLimitReached):  # told by `complete`; nothing of what was half done is published
        source.prove(before, first, proof)
        while published.raw_end < source.end:
            source.deadline.check("archiving")
            fill = partial(source.pack, before.raw_end, published.raw_end)
            published = generation.add(published, first, source.identity, sampled, fill)
            first = len(published.frames)
        source.require_proved()
    return Appended(
        generation=generation.number,
        raw_bytes=published.raw_end,
        new_raw_bytes=published.raw_end - before.raw_end,
        stored_bytes=published.stored_end,
        new_stored_bytes=published.stored_end - before.stored_end,
        frames=len(published.frames),
        began_anew=why,
        complete=published.raw_end == source.end,
        reference=_reference(generation, published),
    )


def _whole(frames: Sequence[Frame], damaged: Collection[int]) -> tuple[tuple[int, int], ...]:
    stretches: list[tuple[int, int]] = []
    for index, frame in enumerate(frames):
        if index in damaged:
            continue
        if stretches and stretches[-1][1] == frame.raw_offset:
            stretches[-1] = (stretches[-1][0], frame.raw_end)
        else:
            stretches.append((frame.raw_offset, frame.raw_end))
    return tuple(stretches)


def _reference(generation: Generation, published: Published) -> ArchiveReference:
    return ArchiveReference(
        file=generation.name,
        generation=generation.number,
        raw_length=published.raw_end,
        frames=published.lines,
        frames_sha256=published.sha256,
    )
