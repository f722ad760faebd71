"""Frames read back from an archive: unpacked, hashed and written at the same time, as far as there are cores for it.

The time is that of SHA-256 over the raw bytes and of unpacking them, on two cores. Memory is that of the
frames' windows, of which a large one is held at a time, and of a few blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import chain
from threading import Lock
from typing import BinaryIO

from preflight.checkpoint.frame_log import Frame, Published
from preflight.checkpoint.generation import Generation
from preflight.checkpoint.zstd_frames import has_large_window, unpack
from preflight.errors import DamagedFile
from preflight.system import files
from preflight.system.beside import Beside
from preflight.system.growing import EarlyFlush

__all__ = ["AHEAD", "read_back", "writer"]

#: Blocks of half a MiB that wait for being hashed, or written, while the next one is unpacked.
AHEAD = 8

#: Held while a frame with a large window is read back, by whichever thread: there is memory for one of them.
_large_window = Lock()


def read_back(
    generation: Generation,
    published: Published,
    frame: Frame,
    *,
    alone: bool,
    take: Callable[[int, bytes], None] | None = None,
) -> str | None:
    """Read a whole frame; `take` is given each block and its offset in the rollout. Returns what is wrong with it.

    `alone`: no other is read meanwhile, so another core is to hash it.
    """
    digest = hashlib.sha256()
    position = frame.raw_offset
    try:
        stored = generation.stored(published, frame)
        first = next(stored)
        with ExitStack() as held:
            update: Callable[[bytes], None] = digest.update
            is_large = has_large_window(first)
            if is_large:
                held.enter_context(_large_window)
            if is_large or alone:
                update = partial(held.enter_context(Beside(AHEAD)).give, digest.update)
            for raw in unpack(chain([first], stored)):
                update(raw)
                if take is not None:
                    take(position, raw)
                position += len(raw)
    except DamagedFile as error:
        return error.message
    if position != frame.raw_end or digest.hexdigest() != frame.sha256:
        return "its bytes are not those that were archived"
    return None


def writer(target: BinaryIO, length: int, sink: Callable[[memoryview], object] | None) -> Callable[[memoryview], None]:
    """The call that writes a block; where the target is a file there is room for `length` bytes from here on."""
    early = None
    if (descriptor := _descriptor(target)) is not None:
        files.reserve(descriptor, length)
        early = EarlyFlush(descriptor)

    def write(block: memoryview) -> None:
        target.write(block)
        if early is not None:
            early.wrote(len(block))
        if sink is not None:
            sink(block)

    return write


def _descriptor(target: BinaryIO) -> int | None:
    try:
        return target.fileno()
    except OSError:  # it is in memory
        return None
