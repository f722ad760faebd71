"""Kernel locks: one run of preflight per home, and Codex's own lock of a thread's writer.

A lock ends with the process that holds it, however that process ends; the file stays and means
nothing by itself. Where the file system has no locks there is no lock: never a file that only looks
like one.

Source of the Codex fact: since 0.147 a runtime holds an exclusive `flock` on
`thread-writer-locks/<thread id>.lock` while a thread is loaded; 0.128 to 0.144.6 hold none
(seen with 0.128.0 to 0.169.0).
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from preflight.errors import Locked, NoSpace, Unsupported
from preflight.model import Answer
from preflight.system import files
from preflight.system.deadline import Deadline

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = ["RunLock", "held", "lock_is_held"]

_TAKEN = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK})


class RunLock:
    """The lock of one home's folder in the store: `run.lock`, and `run.json` which tells who holds it.

    A context manager that is entered after `acquire` and releases at the end. The record is written
    once the lock is held and taken away before it is released; a killed run leaves it behind, and the
    next run writes its own over it. Only the kernel's lock decides.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "run.lock"
        self._record = folder / "run.json"
        self._lock: FileLock | None = None

    def acquire(self, deadline: Deadline, owner: Mapping[str, object]) -> Self:
        """Take the lock within `deadline` (`Deadline(0)`: now or not at all) and write down who we are.

        `owner` holds JSON values, such as `program` and `command`; `pid` and `since` are added.
        Locked names the holder; StoreRefused when others could touch the folder; Unsupported where
        the file system has no locks. On a full disk there is no record: a prune must be able to make room.
        When it cannot be written for another reason the lock is released again.
        """
        from filelock import Timeout

        files.require_private(self._folder)
        lock = _file_lock(self._path)
        wait = deadline.remaining()
        try:
            with _lock_errors(self._path):
                lock.acquire(timeout=wait if wait < _FOR_EVER else -1, poll_interval=0.05)
        except Timeout:
            raise self._locked() from None
        self._lock = lock
        since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        try:
            with suppress(NoSpace):
                files.publish(self._record, json.dumps({"pid": os.getpid(), "since": since, **owner}).encode() + b"\n")
        except BaseException:
            self.release()
            raise
        return self

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        try:
            with suppress(OSError):  # one that stays means nothing; the next run writes its own over it
                self._record.unlink(missing_ok=True)
        finally:
            lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _locked(self) -> Locked:
        # The holder may be between taking the lock and writing the record, or may just have taken the record away:
        # then we cannot name it, and it is no less locked.
        try:
            record = json.loads(self._record.read_bytes())
        except (OSError, ValueError):
            record = None
        if not isinstance(record, dict):
            record = {}
        pid, since, program = record.get("pid", "?"), record.get("since", "?"), record.get("program", "?")
        return Locked(
            f"another preflight is at work on this home: process {pid}, {program}, since {since}",
            path=self._path,
            hint="wait until it is done, or end that process",
        )


_FOR_EVER = 1e9


def lock_is_held(path: Path) -> Answer:
    """Tell whether a process holds an exclusive lock on this file; a file that does not exist is not held.

    Never makes the file. The question is asked with a shared lock that is given back at once: two
    preflights that ask together do not take each other for a writer. A runtime that loads the thread
    within these microseconds is refused by its own rules (0.147 and later), and its user tries again.
    UNKNOWN where the file cannot be opened or the file system has no locks.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return Answer.NO
    except OSError:
        return Answer.UNKNOWN
    try:
        _try_shared(descriptor)
    except OSError as error:
        return Answer.YES if error.errno in _TAKEN else Answer.UNKNOWN
    else:
        return Answer.NO
    finally:
        os.close(descriptor)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the exclusive lock of `path` for the length of the block; Locked at once when it is taken.

    A missing file is made 0600 and stays, free, as Codex itself leaves it when it is killed: taking
    it away could leave two runtimes with a lock each, on the old file and on a new one of that name.
    """
    from filelock import Timeout

    files.private_folder(path.parent)
    lock = _file_lock(path)
    try:
        with _lock_errors(path):
            lock.acquire(timeout=0)
    except Timeout:
        raise Locked("a runtime has this thread open", path=path, hint="close the thread there") from None
    try:
        yield
    finally:
        lock.release()


def _file_lock(path: Path) -> FileLock:
    from filelock import FileLock

    return FileLock(path, mode=0o600, fallback_to_soft=False)


@contextmanager
def _lock_errors(path: Path) -> Iterator[None]:
    from filelock import Timeout

    try:
        yield
    except Timeout:
        raise
    except (OSError, NotImplementedError) as error:  # the latter is filelock's word for a system without flock
        raise Unsupported(
            "this file cannot be locked", path=path, hint="use a local file system, which has kernel locks"
        ) from error


if sys.platform == "win32":
    import msvcrt

    def _try_shared(descriptor: int) -> None:
        # One byte is enough: Codex's lock spans the whole file.
        msvcrt.locking(descriptor, msvcrt.LK_NBRLCK, 1)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_shared(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
