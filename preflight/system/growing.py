"""A file that grows at its end: what is written behind the part that counts stays when it is on the disk, or goes.

Who dies half-way leaves bytes behind that part, and nothing else changed: the next one cuts them off.
One writer at a time, by the run lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from preflight.errors import Unverified
from preflight.system import files

__all__ = ["Write", "growing"]

Write = Callable[[bytes], None]


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

        def write(data: bytes) -> None:
            rest = memoryview(data)
            with files.our_file(path, len(rest)):
                while rest:
                    rest = rest[file.write(rest) :]

        try:
            yield write
            with files.our_file(path):
                files.sync(file.fileno())
        except BaseException:
            # Also for KeyboardInterrupt; the next one cuts it off where we cannot.
            with suppress(OSError):
                file.truncate(keep)
            raise
