"""Child processes that cannot outlive their purpose: own session, list of arguments, an end that always comes.

A child gets exactly the environment and folder that it is given, never a shell. Should we be killed,
its standard input ends with us, which ends a Codex app-server (seen with 0.128.0 to 0.169.0).
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from preflight.errors import TimeLimitReached

__all__ = ["Child", "Completed", "network_free_prefix", "run"]

_GRACE_SECONDS = 5.0
_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a child ended: its exit status (minus the signal's number when a signal ended it) and what it wrote."""

    returncode: int
    stdout: bytes
    stderr: bytes


class Child:
    """A running child with pipes; a context manager that stops it, and all it has started, at the end.

    `stdin` and `stdout` are raw pipes for one talking thread each; standard error is read all the time, so that
    the child never waits for us, and its last 64 KiB are kept.
    """

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        """Start it. An OSError (no such program, not permitted) is passed on; nothing runs then."""
        self._process = _start(argv, env, cwd, stdin=subprocess.PIPE)
        self._tail = bytearray()
        self._reader = threading.Thread(target=self._read_errors, name="child-stderr", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None  # noqa: S101 -- both are pipes by construction
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None  # noqa: S101
        return self._process.stdout

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; None when it still runs after `seconds`."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def errors(self) -> str:
        """The last 64 KiB that it wrote to standard error; may hold text of the user's, not for reports."""
        return self._tail.decode(errors="replace")

    def stop(self) -> int:
        """End it: close its input, then SIGTERM, SIGKILL 5 seconds later; the whole group goes. Return its status.

        Harmless when it has ended already.
        """
        with suppress(OSError):  # it may be gone, with the rest of our last message still in the buffer
            self.stdin.close()
        # An app-server ends by itself when its input ends; one that is busy is told so.
        if self.wait(_GRACE_SECONDS / 5) is None:
            _terminate_group(self._process)
            self.wait(_GRACE_SECONDS)
        _kill_group(self._process)
        status = self._process.wait()
        self._reader.join(_GRACE_SECONDS)
        with suppress(OSError):
            self.stdout.close()
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _read_errors(self) -> None:
        stream = self._process.stderr
        assert stream is not None  # noqa: S101
        with stream:
            while block := os.read(stream.fileno(), _TAIL_BYTES):
                self._tail += block
                del self._tail[:-_TAIL_BYTES]


def run(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, timeout: float, stdin: bytes | None = None
) -> Completed:
    """Run a program to its end, with `stdin` as its whole input, or none.

    TimeLimitReached after `timeout` seconds; its whole group is gone then. An OSError (no such
    program) is passed on.
    """
    process = _start(argv, env, cwd, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE)
    try:
        stdout, stderr = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise TimeLimitReached(f"{Path(argv[0]).name} did not end within {timeout:.0f} s") from error
    finally:
        # Also when all is well: what it left running in the background must not stay.
        _kill_group(process)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    return Completed(returncode=process.returncode, stdout=stdout, stderr=stderr)


def network_free_prefix() -> list[str]:
    """Words to put before a command so that it has no network, not even loopback; empty where that is not possible.

    Linux: `unshare` with a network namespace of its own, as root or through a user namespace. Tried
    once with a program that does nothing: containers and hardened kernels often forbid it.
    """
    return list(_working_prefix())


@functools.cache
def _working_prefix() -> tuple[str, ...]:
    unshare = shutil.which("unshare") if sys.platform == "linux" else None
    true = shutil.which("true")
    if unshare is None or true is None:
        return ()
    for options in (("--net",), ("--user", "--map-current-user", "--net"), ("--user", "--map-root-user", "--net")):
        prefix = (unshare, *options, "--")
        try:
            ended = run([*prefix, true], env={}, cwd=Path("/"), timeout=_GRACE_SECONDS)
        except (OSError, TimeLimitReached):
            continue
        if ended.returncode == 0:
            return prefix
    return ()


if sys.platform == "win32":

    def _start(argv: Sequence[str], env: Mapping[str, str], cwd: Path, *, stdin: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            list(argv),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            bufsize=0,
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
        )

    def _terminate_group(process: subprocess.Popen[bytes]) -> None:
        process.terminate()  # the only signal there, and it cannot be refused; nothing happens when it has ended

    _kill_group = _terminate_group

else:

    def _start(argv: Sequence[str], env: Mapping[str, str], cwd: Path, *, stdin: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            list(argv),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            bufsize=0,
            start_new_session=True,
        )

    def _terminate_group(process: subprocess.Popen[bytes]) -> None:
        _signal_group(process, signal.SIGTERM)

    def _kill_group(process: subprocess.Popen[bytes]) -> None:
        _signal_group(process, signal.SIGKILL)

    def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        # The group keeps its number as long as anybody is in it, also when the child itself has ended. macOS
        # answers EPERM for a group of which only zombies are left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
