"""The rollout that is being archived: read at one rate, packed, and proved to be the file that was archived before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from threading import Event, Lock
from types import TracebackType
from typing import Self

from preflight.checkpoint.frame_log import Frame, Published
from preflight.checkpoint.zstd_frames import LONG, TAIL_BYTES, Packed, SourceChanged, pack, shape_of
from preflight.system import files
from preflight.system.deadline import Deadline
from preflight.system.growing import Write
from preflight.system.pace import Pace
from preflight.system.positional import read_at, read_into

__all__ = ["Progress", "Proof", "Source"]

_BLOCK = 1 << 20
_EACH_NIGHT = 7  # as many nights, of one new frame each, until every frame has been compared again
_MOST_THREADS = 8

#: Told what is being done, a participle, and how many raw bytes of how many.
Progress = Callable[[str, int, int], object]


class Proof(Enum):
    """How much of the rollout is read again before anything is added to its archive.

    TAIL: its identity, and the last MiB that was archived; adds a frame and leaves making one of several to
    the others, so that a caller in a hurry reads what is new and no more. SAMPLED: the whole last frame, and
    every seventh, others each time. FULL: everything. A file under the same name that is not the same file
    (restored, moved to another disk) is always proved in full.
    """

    TAIL = "tail"
    SAMPLED = "sampled"
    FULL = "full"


class Source:
    """A rollout's first `end` bytes, open while the value is used as a context; its OSErrors are passed on."""

    def __init__(
        self, path: Path, end: int, *, deadline: Deadline, max_rate: int | None, progress: Progress | None
    ) -> None:
        self._file = path.open("rb", buffering=0)
        self.identity = files.identity(self._file.fileno())
        self.end = end
        self.deadline = deadline
        self._pace = Pace(max_rate, deadline)
        self._progress = progress
        self._read = 0
        self._turn = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def pack(self, begun: int, after: int, write: Write, holds: Sequence[Frame]) -> Packed:
        """Write one frame of what stands behind offset `after`, `holds` taken in; progress counts from `begun` on."""
        start = reached = holds[0].raw_offset if holds else after

        def seen(position: int) -> None:
            nonlocal reached
            size, reached = position - reached, position
            self._took(size, "archived", max(position - begun, 0), self.end - begun)

        shape = shape_of(self._file.fileno(), start, min(self.end, start + LONG.frame_bytes))
        enough = self.end if holds else start + shape.frame_bytes
        return pack(
            self._file.fileno(),
            start,
            self.end,
            shape,
            write,
            enough=enough,
            holds=holds,
            deadline=self.deadline,
            seen=seen,
        )

    def gathers(self, published: Published) -> int:
        """The index of the first of the last frames that are made into one with the new bytes; their number if none."""
        first = len(published.frames)
        if published.raw_end == self.end:
            return first
        most = shape_of(self._file.fileno(), published.raw_end, self.end).gather_bytes
        while first and self.end - published.frames[first - 1].raw_offset <= most:
            first -= 1
        return first

    def prove(self, published: Published, packed_from: int, proof: Proof) -> None:
        """Raise SourceChanged unless it has what is published; frames from `packed_from` on are proved by `pack`."""
        frames = published.frames
        if not frames:
            return
        last = frames[-1]
        if not last.source.same_file(self.identity):
            proof = Proof.FULL
        if proof is Proof.TAIL:
            length = min(TAIL_BYTES, last.raw_length)
            data = read_at(self._file.fileno(), length, last.raw_end - length)
            if hashlib.sha256(data).hexdigest() != last.tail_sha256:
                raise SourceChanged("the source no longer ends as it was archived")
            return
        # A night adds a line as a rule; one that adds several passes a turn over. FULL leaves nothing to turns.
        tonight = published.lines % _EACH_NIGHT
        self._compare(
            [
                frame
                for index, frame in enumerate(frames[:packed_from])
                if proof is Proof.FULL or frame is last or index % _EACH_NIGHT == tonight
            ]
        )

    def _compare(self, frames: Sequence[Frame]) -> None:
        total = sum(frame.raw_length for frame in frames)
        enough = Event()
        done = 0

        def same(frame: Frame) -> bool:
            nonlocal done
            digest = hashlib.sha256()
            position = frame.raw_offset
            with memoryview(bytearray(_BLOCK)) as buffer:
                while position < frame.raw_end and not enough.is_set():
                    self.deadline.check("comparing the rollout with its archive")
                    size = read_into(self._file.fileno(), buffer[: min(_BLOCK, frame.raw_end - position)], position)
                    if not size:
                        break
                    digest.update(buffer[:size])
                    position += size
                    with counting:
                        done += size
                    self._took(size, "compared", done, total)
            return digest.hexdigest() == frame.sha256

        counting = Lock()
        with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as pool:
            try:
                for equal in pool.map(same, frames):
                    if not equal:
                        raise SourceChanged("the source no longer has the bytes that were archived")
            finally:
                enough.set()  # one answer is known: the others need not go on

    def _took(self, size: int, what: str, done: int, total: int) -> None:
        """Bytes were read, by any thread: tells how far it is, and sleeps as long as the rate asks for."""
        with self._turn:
            self._read += size
            read = self._read
            if self._progress is not None:
                self._progress(what, done, total)
        self._pace.keep(read)
