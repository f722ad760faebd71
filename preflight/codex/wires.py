"""The two ways in which messages travel between a Codex app-server and us, each message whole and of bounded size.

Source: 0.128.0 to 0.169.0: one JSON message a line on stdio; on `app-server-control.sock` a WebSocket
over a Unix socket with one message a text frame.
"""

from __future__ import annotations

import os
import queue
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from preflight.errors import AppServerError
from preflight.system.deadline import Deadline

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

__all__ = ["LARGEST_MESSAGE_BYTES", "Pipes", "Socket", "TooLarge", "Wire"]

LARGEST_MESSAGE_BYTES = 64 << 20

_WAITING_MESSAGES = 8
_READ_BYTES = 64 << 10
_FRONT_BYTES = 64
_OPEN_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A message that was thrown away; of its beginning enough is kept to tell whose answer it was."""

    front: bytes


class Wire(Protocol):
    """A way to exchange whole messages. OSError or EOFError: the other side is gone."""

    def send(self, message: str) -> None:
        """Hand over one message."""
        ...

    def receive(self, seconds: float) -> bytes | str | TooLarge:
        """The next message; TimeoutError when none comes in time."""
        ...

    def close(self) -> None:
        """Hang up; harmless when the other side did so first."""
        ...


class Pipes:
    """One message a line on a child's pipes, read by a thread so that a wait can have an end on every system."""

    def __init__(self, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self._stdin = stdin
        self._messages: queue.Queue[bytes | TooLarge | None] = queue.Queue(_WAITING_MESSAGES)
        self._closed = threading.Event()
        # A descriptor of its own: the owner may close the pipe, and the number get a new meaning, while we read.
        self._descriptor = os.dup(stdout.fileno())
        threading.Thread(target=self._read, name="app-server-stdout", daemon=True).start()

    def send(self, message: str) -> None:
        data = memoryview(message.encode() + b"\n")
        try:
            while data:
                data = data[self._stdin.write(data) :]
        except ValueError as error:
            raise EOFError from error  # closed

    def receive(self, seconds: float) -> bytes | TooLarge:
        try:
            message = self._messages.get(timeout=min(seconds, threading.TIMEOUT_MAX))
        except queue.Empty:
            raise TimeoutError from None
        if message is None:
            self._messages.put(None)  # it has ended, for the next question too
            raise EOFError
        return message

    def close(self) -> None:
        self._closed.set()
        with suppress(OSError):  # it died with our last request unread
            self._stdin.close()

    def _read(self) -> None:
        line = bytearray()
        front: bytes | None = None  # of a line that is too long; the rest of it is thrown away
        try:
            while block := os.read(self._descriptor, _READ_BYTES):
                *ended, rest = block.split(b"\n")
                for part in ended:
                    self._hand_over(bytes(line + part) if front is None else TooLarge(front))
                    line.clear()
                    front = None
                if front is None:
                    line += rest
                if len(line) > LARGEST_MESSAGE_BYTES:
                    front = bytes(line[:_FRONT_BYTES])
                    line.clear()
        except OSError:
            pass  # a pipe that fails is a pipe that has ended: whoever receives is told so below
        finally:
            os.close(self._descriptor)
            self._hand_over(None)

    def _hand_over(self, message: bytes | TooLarge | None) -> None:
        # A full queue keeps the child waiting: its flood stays in its own memory. Nobody takes any more after
        # `close`, and the child is about to be ended.
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._messages.put(message, timeout=0.1)
                return


class Socket:
    """One message a text frame on a WebSocket over a Unix socket."""

    def __init__(self, path: Path, deadline: Deadline) -> None:
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import unix_connect

        self._open = ExitStack()
        try:
            connecting = unix_connect(
                str(path),
                "ws://localhost/",
                compression=None,
                max_size=LARGEST_MESSAGE_BYTES,
                open_timeout=deadline.at_most(_OPEN_SECONDS),
                close_timeout=1.0,
            )
            self._web: ClientConnection = self._open.enter_context(connecting)
        except (WebSocketException, OSError, EOFError) as error:
            raise AppServerError("nobody answers on the control socket", path=path) from error

    def send(self, message: str) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            self._web.send(message)
        except ConnectionClosed as error:
            raise EOFError from error

    def receive(self, seconds: float) -> bytes | str:
        from websockets.exceptions import ConnectionClosed

        try:
            return self._web.recv(timeout=min(seconds, threading.TIMEOUT_MAX))
        except ConnectionClosed as error:
            raise EOFError from error

    def close(self) -> None:
        self._open.close()
