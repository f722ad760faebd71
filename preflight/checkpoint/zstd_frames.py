"""A stretch of a file as one zstd frame, and back: read, hashed and compressed in one pass, on all cores.

Frames stand alone and carry zstd's own checksum; `zstd -d` reads them one after the other. Most bytes
of a long thread are repetitions: whole histories and screenshots in base64, on lines of many megabytes.
Such stretches are compressed with long-distance matching in frames as large as pay; the others
gain next to nothing from it, and cost a third more. What the numbers below were chosen from is printed by
`python -m tests.benchmarks --only choice`. Memory is that of the window and of a few blocks, whatever the length.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from preflight.checkpoint.frame_log import Frame
from preflight.errors import DamagedFile
from preflight.system.beside import Beside
from preflight.system.deadline import Deadline
from preflight.system.growing import Write
from preflight.system.positional import read_at, read_into

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = [
    "LONG",
    "PLAIN",
    "TAIL_BYTES",
    "Packed",
    "Shape",
    "SourceChanged",
    "has_large_window",
    "pack",
    "shape_of",
    "unpack",
]

#: As much of a frame's end has a digest of its own.
TAIL_BYTES = 1 << 20

_MIB = 1 << 20
_BLOCK = 4 * _MIB
_UNPACKED = _MIB // 2
_MOST_WORKERS = 8
_JOB = 2 * _MIB  # what a worker compresses at once: small, or the last ones leave the other workers idle
_SAMPLES = 64
_SAMPLE_BYTES = 64 << 10
_LONG_LINES = _SAMPLES // 16
_SMALL_WINDOW_LOG = 23


@dataclass(frozen=True, slots=True)
class Shape:
    """How a stretch is compressed: `window_log` None is the level's own, without long-distance matching.

    A frame ends after `frame_bytes`; frames of up to `gather_bytes` together may be made into one.
    """

    window_log: int | None
    frame_bytes: int
    gather_bytes: int
    level: int = 3


PLAIN = Shape(window_log=None, frame_bytes=128 * _MIB, gather_bytes=32 * _MIB)
LONG = Shape(window_log=27, frame_bytes=512 * _MIB, gather_bytes=512 * _MIB)


@dataclass(frozen=True, slots=True)
class Packed:
    """What one frame came to be; the digests are as in `Frame`."""

    raw_length: int
    stored_length: int
    sha256: str
    tail_sha256: str


class SourceChanged(DamagedFile):
    """The source is not the file that was archived: it was rewritten, or cut."""

    code = "source-changed"


def shape_of(source: int, start: int, end: int) -> Shape:
    """How that stretch is best compressed: told from 64 samples of 64 KiB, and those without a newline in them.

    Such a sample lies inside a long line, and long lines are what repeats.
    """
    step = max((end - start) // _SAMPLES, _SAMPLE_BYTES)
    inside = sum(
        b"\n" not in read_at(source, _SAMPLE_BYTES, place) for place in range(start, end - _SAMPLE_BYTES + 1, step)
    )
    taken = len(range(start, end - _SAMPLE_BYTES + 1, step))
    return LONG if inside * _SAMPLES > _LONG_LINES * taken else PLAIN


def pack(
    source: int,
    start: int,
    end: int,
    shape: Shape,
    write: Write,
    *,
    enough: int,
    holds: Sequence[Frame] = (),
    deadline: Deadline,
    seen: Callable[[int], object],
) -> Packed:
    """Write bytes of `source` from `start` on as one frame; `seen` is told each offset that was reached.

    It ends at `end`, or with a newline before that: near `enough`, or the next one when the deadline comes.
    `holds` are the frames that begin at `start` and whose bytes it takes in: SourceChanged when the
    source no longer has those, TimeLimitReached when the deadline comes before it has them all.
    DamagedFile when the source ends early; its OSErrors pass.
    """
    compressor = zstd.ZstdCompressor(options=_options(shape))
    whole = _Digests(holds)
    buffers = [bytearray(min(_BLOCK, end - start)) for _ in range(2)]
    held = holds[-1].raw_end if holds else start
    position, stored, tail, going_on = start, 0, b"", True

    def out(data: bytes) -> None:
        nonlocal stored
        write(data)
        stored += len(data)

    # While a block is hashed it is compressed, and the next one is read into the other buffer.
    with Beside(ahead=1) as hashing:
        while going_on and position < end:
            buffers.reverse()
            limit = whole.next_end(position, enough if position < enough else end)
            size = read_into(source, memoryview(buffers[0])[: limit - position], position)
            if not size:
                raise DamagedFile(f"the file ends {end - position:,} bytes too early", hint="it was cut: try again")
            if position < held:
                deadline.check("archiving")
            elif position + size < end and (deadline.expired or position + size >= enough):
                newline = buffers[0].rfind(b"\n", 0, size) + 1
                size, going_on = newline or size, not newline
            block = memoryview(buffers[0])[:size]
            hashing.give(whole.take, block)
            out(compressor.compress(block))
            tail = bytes(block[-TAIL_BYTES:]) if size >= TAIL_BYTES else (tail + bytes(block))[-TAIL_BYTES:]
            position += size
            seen(position)
        out(compressor.flush())
    return Packed(position - start, stored, whole.hexdigest(), hashlib.sha256(tail).hexdigest())


def unpack(stored: Iterable[bytes]) -> Iterator[bytes]:
    """Give the raw bytes of exactly one frame, a MiB at a time; DamagedFile where it is not one."""
    decompressor = zstd.ZstdDecompressor()
    try:
        for data in stored:
            if decompressor.eof:
                raise DamagedFile("the frame does not end where its bytes do")
            raw = decompressor.decompress(data, _UNPACKED)
            while raw or not (decompressor.needs_input or decompressor.eof):
                yield raw
                raw = b"" if decompressor.needs_input or decompressor.eof else decompressor.decompress(b"", _UNPACKED)
    except zstd.ZstdError as error:
        raise DamagedFile(f"the frame cannot be unpacked: {error}") from error
    if not decompressor.eof or decompressor.unused_data:
        raise DamagedFile("the frame does not end where its bytes do")


def has_large_window(frame: bytes) -> bool:
    """Whether unpacking a frame that begins so takes the memory of a large window; True for what is no frame of ours.

    The window is in the sixth byte: RFC 8878, 3.1.1.1.
    """
    is_segment = len(frame) < 6 or frame[4] & 0x20
    return bool(is_segment) or 10 + (frame[5] >> 3) > _SMALL_WINDOW_LOG


def _options(shape: Shape) -> dict[int, int]:
    parameter = zstd.CompressionParameter
    most = parameter.nb_workers.bounds()[1]  # 0 where zstd was built without threads
    options: dict[int, int] = {
        parameter.compression_level: shape.level,
        parameter.checksum_flag: 1,
        parameter.nb_workers: min(os.cpu_count() or 1, _MOST_WORKERS, most),
    }
    if most:
        options[parameter.job_size] = _JOB
    if shape.window_log is not None:
        options |= {parameter.window_log: shape.window_log, parameter.enable_long_distance_matching: 1}
    return options


class _Digests:
    """The digest of a stretch, and on the way those of the frames that it takes in."""

    def __init__(self, holds: Sequence[Frame]) -> None:
        self._whole = hashlib.sha256()
        self._ends = [frame.raw_end for frame in holds]
        self._left = list(holds)
        self._missing = holds[0].raw_length if holds else 0
        self._part: hashlib._Hash | None = None  # the first one's digest is the whole's

    def next_end(self, position: int, end: int) -> int:
        """Where a block that begins at `position` must end at the latest: `take` is given no bytes of two frames."""
        return next((one for one in self._ends if one > position), end)

    def take(self, block: memoryview) -> None:
        """The next bytes. SourceChanged when a frame ends with them and had others."""
        self._whole.update(block)
        if self._part is not None:
            self._part.update(block)
        if not self._left:
            return
        self._missing -= len(block)
        if self._missing:
            return
        if (self._part or self._whole).hexdigest() != self._left.pop(0).sha256:
            raise SourceChanged("the source no longer has the bytes that were archived")
        self._part = hashlib.sha256() if self._left else None
        self._missing = self._left[0].raw_length if self._left else 0

    def hexdigest(self) -> str:
        return self._whole.hexdigest()
