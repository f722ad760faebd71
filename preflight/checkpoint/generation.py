"""One archive file and its frames file: `<name>.zst` and `<name>.frames.jsonl`, later ones `<name>.g2.zst` and so on.

`zstd -d` of the archive file gives the rollout. It grows by whole frames; a frame counts when its line
is on the disk. Small frames at the end are made into one through a file beside it, named for the line
that will publish it:

    <name>.zst.<line>.tail written and flushed  ->  line appended  ->  its bytes put in the place of the
    small frames  ->  removed

Killed before the line: the tail file is nothing yet. Killed after it: the frame counts and lies in the
tail file, where it is read from, until `repair` has put it into its place. So the bytes of every
published frame are on the disk at each moment, in one of the two.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from preflight.checkpoint.frame_log import Frame, FrameLog, Published
from preflight.checkpoint.zstd_frames import Packed
from preflight.errors import DamagedFile
from preflight.model import FileIdentity
from preflight.system import files
from preflight.system.growing import Write, cut_back, growing
from preflight.system.positional import read_at

__all__ = ["Generation"]

_CHUNK = 1 << 20
_LOG_NAME = re.compile(r"(.+?)(?:\.g[1-9]\d*)?\.frames\.jsonl")


class Generation:
    """The archive of one rollout file since it was new or rewritten. Changing it needs the run lock."""

    def __init__(self, folder: Path, name: str, number: int) -> None:
        stem = name if number == 1 else f"{name}.g{number}"
        self.name = name
        self.number = number
        self.data = folder / f"{stem}.zst"
        self.log = FrameLog(folder / f"{stem}.frames.jsonl")

    @classmethod
    def all(cls, folder: Path, name: str) -> list[Generation]:
        """Those of a rollout that have published something, oldest first. DamagedFile when that cannot be told."""
        pattern = re.compile(re.escape(name) + r"(?:\.g([1-9]\d*))?\.frames\.jsonl")
        found = [match for name in _names_in(folder) if (match := pattern.fullmatch(name))]
        numbers = sorted(int(match[1] or 1) for match in found)
        return [one for number in numbers if (one := cls(folder, name, number)).log.has_lines()]

    @classmethod
    def names(cls, folder: Path) -> list[str]:
        """The rollouts that a folder has archives of, by name. DamagedFile when it cannot be listed."""
        return sorted({match[1] for name in _names_in(folder) if (match := _LOG_NAME.fullmatch(name))})

    def repair(self) -> Published:
        """Take away what a killed run left, put a published tail into its place, and say what is published.

        DamagedFile when the frames file is not what it should be, or the archive file is shorter than it
        says: then nothing more may be added to it.
        """
        self.log.cut_unfinished_line()
        published = self.log.read()
        for tail in self._tails():
            if tail == self._tail(published.lines):
                self._put_into_place(tail, published.frames[-1])
            else:
                files.remove(tail)
        self.require_length(published)
        if self._size() > published.stored_end:
            cut_back(self.data, keep=published.stored_end)
        return published

    def require_length(self, published: Published) -> None:
        """DamagedFile when the archive file is shorter than what is published in it."""
        if published.frames and self._tail(published.lines).exists():
            return  # its frame is read from there
        size = self._size()
        if size < published.stored_end:
            raise DamagedFile(
                f"the archive file has {size:,} bytes instead of {published.stored_end:,}", path=self.data
            )

    def add(
        self,
        published: Published,
        first: int,
        source: FileIdentity,
        sampled: int,
        fill: Callable[[Write, tuple[Frame, ...]], Packed],
    ) -> Published:
        """Publish one more frame, in the place of those from index `first` on; needs what `repair` returned.

        `fill` writes it and is given the frames that it takes in. When it fails, or anything else does,
        everything published is as it was.
        """
        takes_in = published.frames[first:]
        before = published.frames[:first]
        target = self._tail(published.lines + 1) if takes_in else self.data
        stored_offset = before[-1].stored_end if before else 0
        try:
            with growing(target, keep=0 if takes_in else stored_offset) as write:
                packed = fill(write, takes_in)
        except BaseException:
            if takes_in:
                with suppress(OSError):
                    target.unlink()
            raise
        frame = Frame(
            raw_offset=before[-1].raw_end if before else 0,
            raw_length=packed.raw_length,
            sha256=packed.sha256,
            tail_sha256=packed.tail_sha256,
            stored_offset=stored_offset,
            stored_length=packed.stored_length,
            source=source,
            sampled=sampled,
        )
        self.log.append(frame)
        if takes_in:
            self._put_into_place(target, frame)
        return self.log.read()

    def stored(self, published: Published, frame: Frame) -> Iterator[bytes]:
        """The bytes of a published frame as they lie on the disk; DamagedFile when they are not all there."""
        place, offset = self.data, frame.stored_offset
        if frame == published.frames[-1] and (tail := self._tail(published.lines)).exists():
            place, offset = tail, 0
        end = offset + frame.stored_length
        try:
            with place.open("rb", buffering=0) as file:
                while offset < end:
                    data = bytes(read_at(file.fileno(), min(_CHUNK, end - offset), offset))
                    if not data:
                        raise DamagedFile(f"the archive file ends {end - offset:,} bytes too early", path=place)
                    yield data
                    offset += len(data)
        except OSError as error:
            raise DamagedFile(f"the archive file cannot be read: {error.strerror}", path=place) from error

    def forget_cached(self) -> None:
        """Let the next reading come from the disk."""
        with suppress(OSError):  # what is missing or cannot be read is told by the reading itself
            files.forget_cached(self.data)

    def remove(self) -> None:
        """Take it off the disk, the frames file last: killed half-way it is still listed, and can be removed again."""
        for path in (*self._tails(), self.data, self.log.path):
            if path.exists():
                files.remove(path)

    def _tail(self, line: int) -> Path:
        return self.data.with_name(f"{self.data.name}.{line}.tail")

    def _tails(self) -> list[Path]:
        pattern = re.compile(re.escape(self.data.name) + r"\.\d+\.tail")
        folder = self.data.parent
        return [folder / name for name in _names_in(folder) if pattern.fullmatch(name)]

    def _put_into_place(self, tail: Path, frame: Frame) -> None:
        size = files.identity(tail).size_bytes
        if size != frame.stored_length:
            raise DamagedFile(f"the frame has {size:,} bytes instead of {frame.stored_length:,}", path=tail)
        with tail.open("rb", buffering=0) as file, growing(self.data, keep=frame.stored_offset) as write:
            offset = 0
            while data := bytes(read_at(file.fileno(), _CHUNK, offset)):
                write(data)
                offset += len(data)
        files.remove(tail)

    def _size(self) -> int:
        try:
            return files.identity(self.data).size_bytes
        except FileNotFoundError:
            return 0


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 -- names are all that is asked for
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DamagedFile(f"the folder of the archive cannot be read: {error.strerror}", path=folder) from error
