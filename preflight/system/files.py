"""Files are written whole or not at all, readable by their owner only, and stay after a power cut.

Everything the store holds goes through here: a new file is made under a temporary name in its own
folder, written, measured, flushed to the disk and only then given its name; then the folder is
flushed. Whoever dies half-way leaves a file whose name ends in `TEMPORARY_SUFFIX` and nothing else.
Modes do not depend on the umask. A failed flush is never tried again: the kernel may have dropped
the bytes and would call the second flush a success.

Errors: NoSpace when the disk or the quota is full; Unverified for anything else that keeps our own
file from being written; DamagedFile when a source is shorter than it was said to be. An OSError of
a source is not ours to name and is passed on as it is.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from preflight.errors import DamagedFile, NoSpace, StoreRefused, Unsupported, Unverified
from preflight.model import FileIdentity
from preflight.system.positional import read_into

__all__ = [
    "TEMPORARY_SUFFIX",
    "append_line",
    "copy_range",
    "create",
    "drop_write_permission",
    "flush",
    "forget_cached",
    "free_bytes",
    "identity",
    "our_file",
    "private_folder",
    "publish",
    "publishing",
    "remove",
    "require_private",
    "sha256_of",
    "sync",
    "sync_folder",
]

TEMPORARY_SUFFIX = ".preflight-tmp"

_BLOCK_BYTES = 1 << 20  # larger blocks write slower on ext4, smaller ones hash slower
_FILE_MODE = 0o600
_FOLDER_MODE = 0o700
_BINARY: int = getattr(os, "O_BINARY", 0)  # Windows would turn every \n into \r\n
_NO_FOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY | _NO_FOLLOW
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NOT_OFFERED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


def private_folder(path: Path) -> None:
    """Make sure that the folder exists; every folder made on the way is 0700 and on the disk.

    A folder that exists keeps its mode: `require_private` tells whether it will do. A symbolic link
    to a folder counts as one.
    """
    missing: list[Path] = []
    folder = path.absolute()
    with our_file(path):
        while not folder.is_dir() and folder.parent != folder:
            missing.append(folder)
            folder = folder.parent
    for folder in reversed(missing):
        with our_file(folder):
            try:
                folder.mkdir(_FOLDER_MODE)
            except FileExistsError:
                # Two processes may make it at once: the later one uses what the first one made, and leaves its
                # mode alone. What is there but not a folder is refused.
                if not folder.is_dir():
                    raise
                continue
            folder.chmod(_FOLDER_MODE)  # the umask may have taken bits away
        sync_folder(folder.parent)


def publish(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Give `path` exactly these bytes, 0600 and on the disk; see `publishing`."""
    with publishing(path, replace=replace, needed_bytes=len(data)) as file:
        file.write(data)


@contextmanager
def publishing(path: Path, *, replace: bool = True, needed_bytes: int | None = None) -> Iterator[BinaryIO]:
    """Lend a file to write front to back; when the block ends, it is at `path`, whole, 0600 and on the disk.

    With `replace=False` a file that is already there is an error (Unverified) and stays. Flush the
    file before writing to its descriptor directly. When the block or the flush fails nothing is left
    behind and an older file is as it was; when the very last step fails, flushing the folder, the new
    file may already be there. `needed_bytes` is only told in NoSpace.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        with our_file(path, needed_bytes):
            file = os.fdopen(os.open(temporary, _NEW_FILE, _FILE_MODE), "wb")
        try:
            with _space_for(path, needed_bytes):
                yield file
            with our_file(path, needed_bytes):
                _set_mode(file.fileno(), _FILE_MODE)
                file.flush()
                _require_length(path, file.fileno(), file.tell())
                sync(file.fileno())
        finally:
            with our_file(path, needed_bytes):
                file.close()
        with our_file(path, needed_bytes):
            if replace:
                temporary.replace(path)
            else:
                _name_only_if_free(temporary, path)
    except BaseException:
        # Also for KeyboardInterrupt. Failing to tidy up must not hide why; the name tells what it is.
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def remove(path: Path) -> None:
    """Take a file away, and its name off the disk; Unverified when that cannot be done."""
    with our_file(path):
        path.unlink()
    sync_folder(path.parent)


def create(path: Path) -> None:
    """Make an empty file, 0600, for another library to fill; Unverified when the name is taken. Not flushed."""
    with our_file(path):
        descriptor = os.open(path, _NEW_FILE, _FILE_MODE)
        try:
            _set_mode(descriptor, _FILE_MODE)
        finally:
            os.close(descriptor)


def flush(path: Path) -> None:
    """Put a file that another library has written, and its name, on the disk."""
    with our_file(path):
        descriptor = os.open(path, os.O_RDWR | _BINARY | _NO_FOLLOW)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(path.parent)


def append_line(path: Path, line: bytes) -> None:
    """Put one line, with its newline, at the end of the file and on the disk; a new file is 0600.

    One `write` call: a process that dies leaves the line, a front part of it, or nothing. When the
    write fails while we live, the part is taken off again. One writer at a time, by the run lock.
    """
    if not line.endswith(b"\n") or line.count(b"\n") != 1:
        raise ValueError("a line has one newline, at its end")
    with our_file(path, len(line)):
        existed = path.exists()
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _BINARY | _NO_FOLLOW, _FILE_MODE)
        try:
            if not existed:
                _set_mode(descriptor, _FILE_MODE)
            before = os.fstat(descriptor).st_size
            try:
                if os.write(descriptor, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, before)
                raise
            sync(descriptor)
        finally:
            os.close(descriptor)
    if not existed:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Put the names in a folder on the disk. Windows has no such call and writes them through its journal."""
    if sys.platform == "win32":
        return
    with our_file(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some network file systems do not offer it for folders; that is not a failed flush.
            if error.errno not in _NOT_OFFERED:
                raise
        finally:
            os.close(descriptor)


def free_bytes(path: Path) -> int:
    """Bytes that we may still write on the file system of `path`, or of its nearest folder that exists."""
    folder = path.absolute()
    while not folder.exists() and folder.parent != folder:
        folder = folder.parent
    if sys.platform == "win32":
        import shutil

        return shutil.disk_usage(folder).free
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize


def identity(path_or_descriptor: Path | int) -> FileIdentity:
    """Which file it is and how long, symbolic links followed."""
    facts = os.stat(path_or_descriptor)  # noqa: PTH116 -- Path.stat takes no descriptor
    return FileIdentity(
        device=facts.st_dev, inode=facts.st_ino, size_bytes=facts.st_size, modified_ns=facts.st_mtime_ns
    )


def sha256_of(
    path: Path, start: int = 0, length: int | None = None, seen: Callable[[int], object] | None = None
) -> str:
    """Hex SHA-256 of the file from `start` on, to its end or for exactly `length` bytes.

    DamagedFile when it ends before `length` bytes. `seen` is told of each block how long it is, and ends the
    reading by raising. Never for a database that this process has open: closing the file would drop SQLite's
    locks on it.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        for block in _blocks(file.fileno(), start, length):
            digest.update(block)
            if seen is not None:
                seen(len(block))
    return digest.hexdigest()


def forget_cached(path: Path) -> None:
    """Let the next reading of a flushed file come from the disk and not from memory, where the system can be asked.

    macOS and Windows have no such call; there a reading back may see the system's memory only.
    """
    if sys.platform == "linux":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def copy_range(
    source: int, target: int, start: int, length: int, sink: Callable[[memoryview], object] | None = None
) -> None:
    """Copy exactly `length` bytes of descriptor `source` from `start` on to where descriptor `target` stands.

    Holds 1 MiB, whatever the length. `sink` sees each block that was written, in order, and must not
    keep it. The position of `source` stays. DamagedFile when the source ends early, NoSpace with
    the bytes that were still needed; the target is then of no use and its maker takes it away.
    """
    reserve(target, length)
    left = length
    for block in _blocks(source, start, length):
        try:
            _write_whole(target, block)
        except OSError as error:
            if error.errno in _FULL:
                raise _no_space(None, left) from error
            raise
        left -= len(block)
        if sink is not None:
            sink(block)


def drop_write_permission(path: Path) -> None:
    """Take the write permission off a published file. On Windows nothing: there it would forbid removing it too."""
    if sys.platform != "win32":
        with our_file(path):
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)


def require_private(path: Path) -> None:
    """Raise StoreRefused unless the folder is ours alone to change, whatever links lead to it.

    Refused: a link or a folder that belongs to somebody else, a folder that its group or others can
    write to, and one below a folder where anybody can put another in its place (world-writable
    without the sticky bit). Windows: access lists come from the user's profile and are not read.
    """
    if sys.platform == "win32":
        return
    try:
        own = os.geteuid()
        if path.is_symlink() and path.lstat().st_uid != own:
            raise StoreRefused("the store is a symbolic link of somebody else", path=path, hint=_ANOTHER_STORE)
        folder = path.resolve(strict=True)
        facts = folder.stat()
        if not stat.S_ISDIR(facts.st_mode):
            raise StoreRefused("the store is not a folder", path=path, hint=_ANOTHER_STORE)
        if facts.st_uid != own:
            raise StoreRefused("the store belongs to somebody else", path=path, hint=_ANOTHER_STORE)
        if facts.st_mode & 0o022:
            raise StoreRefused("others can write to the store", path=path, hint=f"chmod go-w, or {_ANOTHER_STORE}")
        for parent in folder.parents:
            mode = parent.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                raise StoreRefused("others can replace the store's parent folder", path=parent, hint=_ANOTHER_STORE)
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle, before Python 3.13
        raise StoreRefused(f"the store cannot be looked at: {error}", path=path, hint=_ANOTHER_STORE) from error


_ANOTHER_STORE = "choose a folder of your own: --store"


def _blocks(descriptor: int, start: int, length: int | None) -> Iterator[memoryview]:
    """Give the bytes from `start` on in one reused buffer; DamagedFile if there are fewer than `length`."""
    view = memoryview(bytearray(_BLOCK_BYTES))
    end = None if length is None else start + length
    while end is None or start < end:
        count = read_into(descriptor, view if end is None else view[: min(end - start, _BLOCK_BYTES)], start)
        if not count:
            if end is None:
                return
            raise DamagedFile(f"the file ends {end - start} bytes too early", hint="it was cut meanwhile: try again")
        yield view[:count]
        start += count


def _write_whole(descriptor: int, block: memoryview) -> None:
    while block:
        block = block[os.write(descriptor, block) :]


def reserve(descriptor: int, length: int) -> None:
    """Take the room of what will be written from here on: faster, and NoSpace comes before the first byte."""
    if sys.platform != "linux" or length < _BLOCK_BYTES:
        return
    try:
        os.posix_fallocate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR), length)
    except OSError as error:
        if error.errno in _FULL:
            raise _no_space(None, length) from error
        # Pipes, devices and some file systems have no room to reserve.
        if error.errno not in {*_NOT_OFFERED, errno.ESPIPE, errno.ENODEV}:
            raise


def _name_only_if_free(temporary: Path, path: Path) -> None:
    if sys.platform == "win32":
        temporary.rename(path)  # refuses a name that is taken
        return
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno in {errno.EPERM, *_NOT_OFFERED}:
            raise Unsupported("this file system has no hard links", path=path.parent, hint=_ANOTHER_STORE) from error
        raise
    temporary.unlink()


def _require_length(path: Path, descriptor: int, expected: int) -> None:
    found = os.fstat(descriptor).st_size
    if found != expected:
        raise Unverified(f"{expected} bytes were written, the file has {found}", path=path)


def _set_mode(descriptor: int, mode: int) -> None:
    if sys.platform != "win32":
        os.fchmod(descriptor, mode)


def sync(descriptor: int) -> None:
    """Put an open file on the disk; an OSError is passed on."""
    if sys.platform == "darwin":
        import fcntl

        # fsync on macOS stops at the drive's cache; file systems that cannot do more say so.
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError as error:
            if error.errno not in _NOT_OFFERED:
                raise
        else:
            return
    os.fsync(descriptor)


def _no_space(path: Path | None, needed_bytes: int | None) -> NoSpace:
    return NoSpace("the disk or the quota is full", path=path, hint="make room, or --store", needed_bytes=needed_bytes)


@contextmanager
def _space_for(path: Path, needed_bytes: int | None) -> Iterator[None]:
    """Name a full disk, and the file that did not fit, in somebody else's block; every other error there is theirs."""
    try:
        yield
    except NoSpace as error:
        error.path = error.path or path  # `copy_range` knows descriptors only
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise _no_space(path, needed_bytes) from error
        raise


@contextmanager
def our_file(path: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn an OSError of our own file, or folder, into NoSpace or Unverified."""
    try:
        with _space_for(path, needed_bytes):
            yield
    except OSError as error:
        raise Unverified(f"could not be written: {error.strerror}", path=path) from error
