"""Reading at an offset without moving a file's position, on systems with and without `pread`."""

from __future__ import annotations

import os
import sys

if sys.platform == "win32":  # not run by us: only read and typed
    import threading

    # There is one position for all threads: whoever came between seeking and reading would move it.
    _turn = threading.Lock()

    def read_into(descriptor: int, target: memoryview, offset: int) -> int:
        """Fills `target` from `offset`; returns the bytes read, fewer only at the end of the file."""
        done = 0
        while done < len(target):
            with _turn:
                os.lseek(descriptor, offset + done, os.SEEK_SET)
                part = os.read(descriptor, len(target) - done)
            if not part:
                break
            target[done : done + len(part)] = part
            done += len(part)
        return done

else:

    def read_into(descriptor: int, target: memoryview, offset: int) -> int:
        """Fills `target` from `offset`; returns the bytes read, fewer only at the end of the file."""
        done = 0
        while done < len(target):
            part = os.preadv(descriptor, [target[done:]], offset + done)
            if part == 0:
                break
            done += part
        return done


def read_at(descriptor: int, length: int, offset: int) -> bytearray:
    """Up to `length` bytes from `offset`, fewer only at the end of the file."""
    buffer = bytearray(length)
    with memoryview(buffer) as view:
        done = read_into(descriptor, view, offset)
    del buffer[done:]
    return buffer
