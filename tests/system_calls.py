"""A child process whose system calls that meet a disk are laid before us first: each may pass, fail, or be the last.

The kernel itself stops the child at the call, asks, and does as it is told (seccomp's user notification, Linux 5.5
and later). So a read that fails with EIO fails inside SQLite as well as in Python, and a SIGKILL comes at the call
that was meant, on any machine, however busy. Nothing of the child is replaced, and no rights are needed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

from tests.needs import cannot_be_had

__all__ = ["CHANGES", "LINUX", "READS", "Call", "Decision", "Ended", "Fails", "KillTorn", "watched"]

LINUX = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="system calls are known by x86-64 Linux's numbers"
)

# By name: the number, and which arguments say what it is about: `f` a descriptor, `p` a path, `@` a path below the
# descriptor before it (linux/arch/x86/entry/syscalls/syscall_64.tbl).
_CALLS = {
    "read": (0, "f"), "pread64": (17, "f"), "readv": (19, "f"), "preadv": (295, "f"), "preadv2": (327, "f"),
    "getdents64": (217, "f"),
    "open": (2, "p"), "openat": (257, "f@"),
    "write": (1, "f"), "pwrite64": (18, "f"), "writev": (20, "f"), "pwritev": (296, "f"), "pwritev2": (328, "f"),
    "copy_file_range": (326, "f.f"),
    "sendfile": (40, "f"),
    "fsync": (74, "f"), "fdatasync": (75, "f"), "truncate": (76, "p"), "ftruncate": (77, "f"), "fallocate": (285, "f"),
    "rename": (82, "pp"), "renameat": (264, "f@f@"), "renameat2": (316, "f@f@"),
    "mkdir": (83, "p"), "mkdirat": (258, "f@"), "rmdir": (84, "p"),
    "link": (86, "pp"), "linkat": (265, "f@f@"), "unlink": (87, "p"), "unlinkat": (263, "f@"),
    "chmod": (90, "p"), "fchmod": (91, "f"), "fchmodat": (268, "f@"), "utimensat": (280, "f@"),
}  # fmt: skip
_NAMES = {number: name for name, (number, _) in _CALLS.items()}

READS = frozenset({"read", "pread64", "readv", "preadv", "preadv2", "getdents64"})
#: Those after which the disk may hold something else than before.
CHANGES = frozenset(_CALLS) - READS - {"open", "openat"} | {"creating"}

_WRITES = frozenset({"write", "pwrite64"})
_CREATES = os.O_CREAT | os.O_TRUNC
_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, _NO_NEW_PRIVS = 317, 1, 8, 38
_RECEIVE, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1
_USER_NOTIF, _ALLOW, _X86_64 = 0x7FC00000, 0x7FFF0000, 0xC000003E
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06  # of BPF's language
_NOT_HERE = 77
_PATH_BYTES = 4096


class Decision(Enum):
    PASS = "pass"
    KILL = "kill"  # before the call is carried out


@dataclass(frozen=True)
class Fails:
    """The call is not carried out and ends with this error."""

    error: int = errno.EIO


@dataclass(frozen=True)
class KillTorn:
    """Of a write this fraction still reaches the file; any other call is not carried out. Then as KILL."""

    fraction: float


@dataclass(frozen=True)
class Call:
    """One system call: its name (`creating` for an open that makes or empties a file), and the files it names."""

    name: str
    paths: tuple[Path, ...]

    def is_below(self, folder: Path) -> bool:
        return any(path.is_relative_to(folder) for path in self.paths)


@dataclass(frozen=True)
class Ended:
    """How the child ended: its exit status, or minus the number of the signal; and what its work returned."""

    status: int
    answer: bytes


def watched(work: Callable[[], bytes], decide: Callable[[Call], Decision | Fails | KillTorn]) -> Ended:
    """Run `work` in a child of its own, a copy of this process, and ask `decide` at each of its calls.

    A child that raises ends with 1 and its traceback on stderr.
    """
    ours, theirs = socket.socketpair()
    answer = os.memfd_create("answer")
    child = os.fork()
    if child == 0:
        _be_watched(work, theirs, answer)
    theirs.close()
    try:
        with ours:
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        if descriptors:
            _serve(child, descriptors[0], decide)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == _NOT_HERE:
            cannot_be_had("this kernel does not let a process watch another one's system calls")
        return Ended(status, os.pread(answer, os.fstat(answer).st_size, 0))
    finally:
        os.close(answer)


# ---- in the child ------------------------------------------------------------------------------------------------


def _be_watched(work: Callable[[], bytes], channel: socket.socket, answer: int) -> None:
    status = 1
    try:
        try:
            listener = _install_filter()
        except OSError:
            status = _NOT_HERE
        else:
            socket.send_fds(channel, [b"."], [listener])
            os.close(listener)
            channel.close()
            os.write(answer, work())
            status = 0
    finally:
        # Never back into the test runner, whatever was raised: this is its second copy.
        if sys.exc_info()[0] is not None:
            os.write(2, traceback.format_exc().encode())
        os._exit(status)


def _install_filter() -> int:
    """The descriptor on which the kernel asks about this process's calls from now on."""
    numbers = [number for number, _ in _CALLS.values()]
    program = [(_LOAD, 0, 0, 4), (_EQUALS, 0, len(numbers) + 1, _X86_64), (_LOAD, 0, 0, 0)]
    program += [(_EQUALS, len(numbers) - index, 0, number) for index, number in enumerate(numbers)]
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _USER_NOTIF)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    described = struct.pack("@HP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    listener = libc.syscall(_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, described)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return int(listener)


# ---- beside it ---------------------------------------------------------------------------------------------------


def _serve(child: int, listener: int, decide: Callable[[Call], Decision | Fails | KillTorn]) -> None:
    """Answer until the child has ended, or end it."""
    ended = os.pidfd_open(child)
    memory = os.open(f"/proc/{child}/mem", os.O_RDONLY)
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    waiting.register(ended, select.POLLIN)
    try:
        while all(descriptor != ended for descriptor, _ in waiting.poll()):
            asked = bytearray(80)
            try:
                fcntl.ioctl(listener, _RECEIVE, asked)
            except FileNotFoundError:
                continue  # it was killed meanwhile, or a signal ended the call
            token, _, _, number, _, _, *arguments = struct.unpack("=QIIiIQ6Q", asked)
            decision = decide(_described(child, memory, _NAMES[number], arguments))
            if isinstance(decision, KillTorn):
                _write_a_part(child, memory, _NAMES[number], arguments, decision.fraction)
            if decision is Decision.KILL or isinstance(decision, KillTorn):
                os.kill(child, signal.SIGKILL)
                return
            error, flags = (-decision.error, 0) if isinstance(decision, Fails) else (0, _CONTINUE)
            fcntl.ioctl(listener, _SEND, struct.pack("=QqiI", token, 0, error, flags))
    finally:
        for descriptor in (listener, ended, memory):
            os.close(descriptor)


def _described(child: int, memory: int, name: str, arguments: list[int]) -> Call:
    paths: list[Path] = []
    for kind, argument in zip(_CALLS[name][1], arguments, strict=False):
        if kind == "f":
            paths.append(_of_descriptor(child, argument))
        elif kind == "p":
            paths.append(Path(_text(memory, argument)))
        elif kind == "@":
            paths.append(paths.pop() / _text(memory, argument) if argument else paths.pop())
    flags = arguments[1] if name == "open" else arguments[2] if name == "openat" else 0
    return Call("creating" if flags & _CREATES else name, tuple(paths))


def _of_descriptor(child: int, number: int) -> Path:
    """What a descriptor is open on; the working folder for AT_FDCWD."""
    signed = struct.unpack("i", struct.pack("I", number & 0xFFFFFFFF))[0]
    try:
        return Path(f"/proc/{child}/cwd" if signed < 0 else f"/proc/{child}/fd/{signed}").readlink()
    except FileNotFoundError:
        return Path()  # not open: the call will say so


def _text(memory: int, address: int) -> str:
    data = b""
    while b"\0" not in data and len(data) < _PATH_BYTES:
        # Not beyond the end of a page: the next one need not be there.
        place = address + len(data)
        data += os.pread(memory, _PATH_BYTES - place % _PATH_BYTES, place)
    return os.fsdecode(data.partition(b"\0")[0])


def _write_a_part(child: int, memory: int, name: str, arguments: list[int], fraction: float) -> None:
    """What a kernel may do that kills a process in the middle of a write: the first bytes are in the file."""
    if name not in _WRITES:
        return
    number, address, count = arguments[:3]
    path = Path(f"/proc/{child}/fd/{number}")
    if not path.is_file():
        return
    facts = dict(line.split(":", 1) for line in Path(f"/proc/{child}/fdinfo/{number}").read_text().splitlines())
    target = os.open(path, os.O_WRONLY)
    try:
        if name == "pwrite64":
            place = arguments[3]
        else:
            place = os.fstat(target).st_size if int(facts["flags"], 8) & os.O_APPEND else int(facts["pos"])
        os.pwrite(target, os.pread(memory, int(count * fraction), address), place)
    finally:
        os.close(target)
