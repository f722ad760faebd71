"""A file that grows at its end: what is written behind the part that counts stays when it is on the disk, or goes.

Who dies half-way leaves bytes behind that part, and nothing else changed: the next one cuts them off.
One writer at a time, by the run lock.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from preflight.errors import Unverified
from preflight.system import files

__all__ = ["EarlyFlush", "Write", "cut_back", "growing"]

Write = Callable[[bytes], None]

_FLUSHED_AT_ONCE = 32 << 20


class EarlyFlush:
    """Has the system begin to put on the disk what was written, so that flushing at the end finds little to do.

    A wish, not a promise: only flushing puts it there. Where the system cannot be asked it does nothing.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._begun = self._written = os.lseek(descriptor, 0, os.SEEK_CUR)

    def wrote(self, size: int) -> None:
        """So many bytes more were written behind those before."""
        self._written += size
        length = self._written - self._begun
        if sys.platform == "linux" and length >= _FLUSHED_AT_ONCE:
            # It has changed pages written out and forgets those that are written out already; these are not yet.
            os.posix_fadvise(self._descriptor, self._begun, length, os.POSIX_FADV_DONTNEED)
            self._begun = self._written


def cut_back(path: Path, keep: int) -> None:
    """Take off what lies behind the first `keep` bytes; on the disk when this returns. Raises as `growing` does."""
    with growing(path, keep):
        """Beginning to grow is what cuts it; nothing is added."""


@contextmanager
def growing(path: Path, keep: int) -> Iterator[Write]:
    """Lend the call that writes behind the first `keep` bytes of a file; when the block ends it is on the disk.

    What lies behind `keep` is cut off first; with `keep` 0 a missing file is made, 0600. When the block,
    a write or the flush fails, the file is cut back to `keep`. NoSpace and Unverified for our own
    writing, and for a file that is shorter than `keep`; other errors are the block's.
    """
    if not keep and not path.exists():
        files.create(path)
        files.sync_folder(path.parent)
    with files.our_file(path):
        file = path.open("r+b", buffering=0)
    with file:
        with files.our_file(path):
            if os.fstat(file.fileno()).st_size < keep:
                raise Unverified(f"the file is shorter than the {keep:,} bytes that were published", path=path)
            file.truncate(keep)
            file.seek(keep)
            early = EarlyFlush(file.fileno())

        def write(data: bytes) -> None:
            rest = memoryview(data)
            with files.our_file(path, len(rest)):
                while rest:
                    rest = rest[file.write(rest) :]
                early.wrote(len(data))

        try:
            yield write
            with files.our_file(path):
                files.sync(file.fileno())
        except BaseException:
            # Also for KeyboardInterrupt; the next one cuts it off where we cannot.
            with suppress(OSError):
                file.truncate(keep)
            raise
