"""The frames of one archive file, a line each: what of the rollout lies where, and its digests.

A line is written when its frame is on the disk, so a frame counts when its line does; a last line
without its newline was never finished and does not. A line whose raw offset is not the end of those
before it takes the place of the frames from there on: small ones made into one that holds their bytes
and more. Lines are never changed, so a number of lines and their digest name a state for ever.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from preflight.checkpoint import jsonline
from preflight.errors import DamagedFile
from preflight.model import FileIdentity
from preflight.system import files
from preflight.system.growing import cut_back

__all__ = ["Frame", "FrameLog", "Published"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One zstd frame: raw bytes are the rollout's, stored ones the archive's; `source` is the file it was made from.

    `tail_sha256` is the digest of the last MiB of its raw bytes, of all when there are fewer; `sampled` how many
    times a sample of the frames had been compared with the rollout when it was published.
    """

    raw_offset: int
    raw_length: int
    sha256: str
    tail_sha256: str
    stored_offset: int
    stored_length: int
    source: FileIdentity
    sampled: int = 0

    @property
    def raw_end(self) -> int:
        return self.raw_offset + self.raw_length

    @property
    def stored_end(self) -> int:
        return self.stored_offset + self.stored_length


@dataclass(frozen=True, slots=True)
class Published:
    """The frames that count, gapless from 0, and the lines that say so with the digest of their bytes."""

    frames: tuple[Frame, ...] = ()
    lines: int = 0
    sha256: str = hashlib.sha256().hexdigest()

    @property
    def raw_end(self) -> int:
        return self.frames[-1].raw_end if self.frames else 0

    @property
    def stored_end(self) -> int:
        return self.frames[-1].stored_end if self.frames else 0

    @property
    def sampled(self) -> int:
        return self.frames[-1].sampled if self.frames else 0


class FrameLog:
    """The frames file of one archive file; it is made with the first line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def has_lines(self) -> bool:
        return b"\n" in self._bytes()

    def read(self, lines: int | None = None) -> Published:
        """What is published, or was when there were that many lines.

        DamagedFile when it cannot be read, a finished line is not one, the frames do not fit together,
        or there are fewer lines.
        """
        finished = self._bytes().split(b"\n")[:-1]
        if lines is not None and len(finished) < lines:
            raise DamagedFile(f"the frames file has {len(finished)} lines instead of {lines}", path=self.path)
        finished = finished[:lines]
        frames: list[Frame] = []
        for line in finished:
            _take(frames, jsonline.decode(line, Frame, self.path), self.path)
        digest = hashlib.sha256(b"".join(line + b"\n" for line in finished)).hexdigest()
        return Published(tuple(frames), len(finished), digest)

    def cut_unfinished_line(self) -> None:
        """Take off what a killed run left behind the last newline, or the next line would be glued to it."""
        data = self._bytes()
        finished = data.rfind(b"\n") + 1
        if finished != len(data):
            cut_back(self.path, keep=finished)

    def append(self, frame: Frame) -> None:
        """Publish a frame: when this returns its line is on the disk, and its bytes had to be there before."""
        files.append_line(self.path, jsonline.encode(frame, self.path))

    def _bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise DamagedFile(f"the frames file cannot be read: {error.strerror}", path=self.path) from error


def _take(frames: list[Frame], new: Frame, path: Path) -> None:
    end = frames[-1].raw_end if frames else 0
    while frames and frames[-1].raw_offset >= new.raw_offset:
        frames.pop()
    raw, stored = (frames[-1].raw_end, frames[-1].stored_end) if frames else (0, 0)
    if (new.raw_offset, new.stored_offset) != (raw, stored) or new.raw_end <= end or new.stored_length <= 0:
        raise DamagedFile(f"the frame at raw offset {new.raw_offset:,} does not fit those before it", path=path)
    frames.append(new)
