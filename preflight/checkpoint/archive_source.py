"""The rollout that is being archived: read at one rate, packed, and proved to be the file that was archived before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from enum import Enum
from pathlib import Path
from threading import Lock
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
_TURNS = 7
_MOST_THREADS = 8

#: Told what is being done, a participle, and how many raw bytes of how many.
Progress = Callable[[str, int, int], object]


class Proof(Enum):
    """How much of the rollout is read again before what was added to it is published.

    TAIL: its identity, and the last MiB that was archived; adds a frame and leaves making one of several to
    the others, so that a caller in a hurry reads what is new and no more. SAMPLED: the whole last frame, and
    every seventh, others each time: any seven that added something have read every frame there was, however
    many frames each of them added, and whatever came between them. FULL: everything. A file under the same
    name that is not the same file (restored, moved to another disk) is always proved in full.
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
        self._doing = ""
        self._turn = Lock()
        self._comparison: _Comparison | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_comparing()
        self._file.close()

    def pack(self, begun: int, after: int, write: Write, holds: Sequence[Frame]) -> Packed:
        """Write one frame of what stands behind offset `after`, `holds` taken in; progress counts from `begun` on.

        When this returns what was to be proved is proved.
        """
        self._doing = "archived"
        start = reached = holds[0].raw_offset if holds else after

        def seen(position: int) -> None:
            nonlocal reached
            size, reached = position - reached, position
            if self._comparison is not None:
                self._comparison.require_none_other()
            self._took(size, "archived", max(position - begun, 0), self.end - begun)

        shape = shape_of(self._file.fileno(), start, min(self.end, start + LONG.frame_bytes))
        enough = self.end if holds else start + shape.frame_bytes
        packed = pack(
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
        self.require_proved()
        return packed

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
        """Begin to prove that it has what is published; frames from `packed_from` on are proved by `pack`.

        What is long is done beside packing, and nothing packed meanwhile may count before `require_proved`
        has returned. SourceChanged when it is known already that the source is another.
        """
        self._stop_comparing()
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
        tonight = published.sampled % _TURNS
        compared = [
            frame
            for index, frame in enumerate(frames[:packed_from])
            if proof is Proof.FULL or frame is last or index % _TURNS == tonight
        ]
        if compared:
            self._doing = "compared"
            self._comparison = _Comparison(self._same, compared)

    def require_proved(self) -> None:
        """Wait for the end of the proof. SourceChanged, TimeLimitReached; OSErrors of the source are passed on."""
        if self._comparison is None:
            return
        self._doing = "compared"
        self._comparison.require_all_same()
        self._took(0, "compared", self._comparison.total, self._comparison.total)
        self._stop_comparing()

    def _stop_comparing(self) -> None:
        if self._comparison is not None:
            self._comparison.stop()
            self._comparison = None

    def _same(self, frame: Frame, comparison: _Comparison) -> bool:
        digest = hashlib.sha256()
        position = frame.raw_offset
        with memoryview(bytearray(_BLOCK)) as buffer:
            while position < frame.raw_end and not comparison.stopped:
                self.deadline.check("comparing the rollout with its archive")
                size = read_into(self._file.fileno(), buffer[: min(_BLOCK, frame.raw_end - position)], position)
                if not size:
                    break
                digest.update(buffer[:size])
                position += size
                self._took(size, "compared", comparison.read(size), comparison.total)
        return digest.hexdigest() == frame.sha256

    def _took(self, size: int, what: str, done: int, total: int) -> None:
        """Bytes were read, by any thread: tells how far it is, and sleeps as long as the rate asks for."""
        with self._turn:
            if self._progress is not None and what == self._doing:
                self._progress(what, done, total)
        self._pace.took(size)


class _Comparison:
    """Frames that are compared with the source, in threads of their own, from the moment when it is made."""

    def __init__(self, same: Callable[[Frame, _Comparison], bool], frames: Sequence[Frame]) -> None:
        self.total = sum(frame.raw_length for frame in frames)
        self.stopped = False
        self._done = 0
        self._counting = Lock()
        self._pool = ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS))
        self._answers: list[Future[bool]] = [self._pool.submit(same, frame, self) for frame in frames]

    def read(self, size: int) -> int:
        """Count bytes; how many it were until now."""
        with self._counting:
            self._done += size
            return self._done

    def require_none_other(self) -> None:
        """Raise what is known already."""
        for answer in self._answers:
            if answer.done() and not answer.result():
                raise SourceChanged("the source no longer has the bytes that were archived")

    def require_all_same(self) -> None:
        """Wait until everything is known, or one answer says that the others need not be."""
        left = set(self._answers)
        while left:
            left = wait(left, return_when=FIRST_COMPLETED).not_done
            self.require_none_other()

    def stop(self) -> None:
        """Let go of the source; returns when no thread reads it any more."""
        self.stopped = True
        self._pool.shutdown(cancel_futures=True)
