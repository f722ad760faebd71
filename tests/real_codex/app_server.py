"""Drives the real ``codex app-server``, over stdio as a desktop application does, or over its control socket.

    with AppServer(release, home) as server:
        thread = server.start_thread()
        server.turn(thread, "hello")

Leaving the block closes it as a desktop would (end of input); `kill` is SIGKILL. Notifications are kept in order,
and `wait_for` finds one of them, so that nothing is missed between two calls.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, unix_connect

from tests.real_codex.codex_release import CodexRelease
from tests.real_codex.homes import CodexHome

__all__ = ["AppServer", "Notification", "RpcError", "ServerEndedError"]

Params = dict[str, Any]


class RpcError(Exception):
    """The server refused a request."""


class ServerEndedError(Exception):
    """The server is gone, or closed the connection."""


@dataclass(frozen=True, slots=True)
class Notification:
    method: str
    params: Params


class _Connection(Protocol):
    def send(self, text: str) -> None: ...
    def messages(self) -> Iterator[str]: ...
    def close(self) -> None: ...


class _Pipes:
    """One JSON message a line on the child's stdin and stdout."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    def send(self, text: str) -> None:
        try:
            self._stdin.write(text.encode() + b"\n")
            self._stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise ServerEndedError("its input is closed") from error

    def messages(self) -> Iterator[str]:
        for line in self._stdout:
            yield line.decode()

    def close(self) -> None:
        with suppress(BrokenPipeError):  # it died with our last request unread
            self._stdin.close()


class _Socket:
    """One JSON message a text frame on the WebSocket of the control socket."""

    def __init__(self, path: Path) -> None:
        self._open = ExitStack()
        connect = unix_connect(str(path), "ws://localhost/", compression=None, max_size=None)
        self._web: ClientConnection = self._open.enter_context(connect)

    def send(self, text: str) -> None:
        try:
            self._web.send(text)
        except ConnectionClosed as error:
            raise ServerEndedError("it closed the control socket") from error

    def messages(self) -> Iterator[str]:
        try:
            for message in self._web:
                yield message if isinstance(message, str) else message.decode()
        except ConnectionClosed:
            return  # killed, or we hung up first: neither says goodbye

    def close(self) -> None:
        self._open.close()


class AppServer:
    """A running app-server with one client. `control_socket` makes it listen there instead of on stdio."""

    def __init__(self, release: CodexRelease, home: CodexHome, *, control_socket: bool = False) -> None:
        self.release, self.home = release, home
        self._listen = ["--listen", "unix://"] if control_socket else []
        self._notes: list[Notification] = []
        self._answers: dict[int, Params] = {}
        self._asked = 0
        self._ended = False
        self._changed = threading.Condition()

    # ---- the process ---------------------------------------------------------------------------------------

    def start(self) -> Self:
        self.log = self.home.place / f"app-server-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [self.release.binary, "app-server", *self._listen],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.home.work,
                env=self.home.environment(),
                start_new_session=True,
            )
        try:
            self._connection: _Connection = self._connect()
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
            client = {"name": "preflight_tests", "title": None, "version": "1"}
            self.call("initialize", {"clientInfo": client, "capabilities": {"experimentalApi": True}})
            self._send({"method": "initialized"})
        except BaseException:
            self.kill()
            raise
        return self

    def _connect(self) -> _Connection:
        if not self._listen:
            return _Pipes(self.process)
        path = self.home.path / "app-server-control" / "app-server-control.sock"
        until = time.monotonic() + 60
        while True:
            try:
                return _Socket(path)
            except OSError as error:  # not there yet, or not listening yet
                if self.process.poll() is not None or time.monotonic() > until:
                    raise ServerEndedError(f"no control socket: {self._last_words()}") from error
                time.sleep(0.02)

    def stop(self, seconds: float = 30) -> int:
        """Closes it as its owner would: end of input, or SIGTERM when it listens on a socket."""
        self._connection.close()
        if self._listen:
            self._signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerEndedError(f"it had to be killed after {seconds} s: {self._last_words()}") from None
        return self._reap()

    def kill(self) -> int:
        self._signal(signal.SIGKILL)
        return self._reap()

    def _signal(self, number: int) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)  # its own session: a shell command of a turn goes with it

    def _reap(self) -> int:
        code = self.process.wait()
        if hasattr(self, "_reader"):
            self._connection.close()
            self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
        return code

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running:
            self.stop()
        else:
            self._reap()

    def _last_words(self) -> str:
        return self.log.read_bytes()[-1500:].decode(errors="replace")

    # ---- the protocol --------------------------------------------------------------------------------------

    def _send(self, message: Params) -> None:
        self._connection.send(json.dumps(message))

    def _read(self) -> None:
        try:
            for text in self._connection.messages():
                self._take(json.loads(text))
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _take(self, message: Params) -> None:
        if "method" in message and "id" in message:  # a question; approvals are switched off, so none is expected
            self._send({"id": message["id"], "error": {"code": -32601, "message": "this client cannot do that"}})
            return
        with self._changed:
            if "method" in message:
                self._notes.append(Notification(message["method"], message.get("params") or {}))
            else:
                self._answers[message["id"]] = message
            self._changed.notify_all()

    def call(self, method: str, params: Params | None = None, seconds: float = 120) -> Params:
        """One request and its answer; raises RpcError when it is refused."""
        with self._changed:
            self._asked += 1
            number = self._asked
        self._send({"id": number, "method": method, "params": params or {}})
        with self._changed:
            self._changed.wait_for(lambda: number in self._answers or self._ended, seconds)
            answer = self._answers.pop(number, None)
        if answer is None:
            raise ServerEndedError(f"{method} was not answered in {seconds} s: {self._last_words()}")
        if "error" in answer:
            raise RpcError(f"{method}: {answer['error']}")
        return answer["result"]

    def notifications(self, method: str) -> list[Params]:
        with self._changed:
            return [note.params for note in self._notes if note.method == method]

    def wait_for(
        self, method: str, wanted: Callable[[Params], bool] = lambda _: True, since: int = 0, seconds: float = 120
    ) -> Params:
        """The first such notification after the first `since` ones."""

        def found() -> Params | None:
            notes = self._notes[since:]
            return next((note.params for note in notes if note.method == method and wanted(note.params)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None or self._ended, seconds)
            note = found()
        if note is None:
            raise ServerEndedError(f"no {method} in {seconds} s: {self._last_words()}")
        return note

    # ---- the verbs -----------------------------------------------------------------------------------------

    def start_thread(self, **params: Any) -> str:
        return self.call("thread/start", {"cwd": str(self.home.work), **params})["thread"]["id"]

    def start_turn(self, thread: str, text: str, *, image: str | None = None) -> str:
        """Begins a turn, answers its id; `image` is a data URL."""
        parts: list[Params] = [{"type": "text", "text": text, "text_elements": []}]
        if image is not None:
            parts.append({"type": "image", "url": image})
        return self.call("turn/start", {"threadId": thread, "input": parts})["turn"]["id"]

    def turn(self, thread: str, text: str, *, image: str | None = None) -> str:
        """A whole turn; fails when it does not end as completed."""
        since = len(self._notes)
        turn = self.start_turn(thread, text, image=image)
        ended = self.wait_for("turn/completed", lambda note: note["turn"]["id"] == turn, since)
        assert ended["turn"]["status"] == "completed", ended["turn"]
        return turn

    def compact(self, thread: str) -> None:
        since = len(self._notes)
        self.call("thread/compact/start", {"threadId": thread})
        self.wait_for("turn/completed", lambda note: note["threadId"] == thread, since)

    def roll_back(self, thread: str, turns: int) -> None:
        self.call("thread/rollback", {"threadId": thread, "numTurns": turns})

    def revert(self, thread: str, before_turn: str) -> None:
        self.call("thread/revert", {"threadId": thread, "beforeTurnId": before_turn})

    def fork(self, thread: str) -> str:
        return self.call("thread/fork", {"threadId": thread})["thread"]["id"]

    def resume(self, thread: str) -> Params:
        return self.call("thread/resume", {"threadId": thread}, seconds=300)["thread"]

    def is_idle(self, thread: str) -> bool:
        status = self.call("thread/read", {"threadId": thread, "includeTurns": False})["thread"]["status"]
        return status["type"] != "active"

    def wait_until_idle(self, thread: str, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not self.is_idle(thread):
            if time.monotonic() > until:
                raise AssertionError(f"a turn is still in progress after {seconds} s")
            time.sleep(0.05)

    def interrupt(self, thread: str, turn: str) -> None:
        self.call("turn/interrupt", {"threadId": thread, "turnId": turn})

    def set_goal(self, thread: str, **changes: Any) -> Params:
        return self.call("thread/goal/set", {"threadId": thread, **changes})["goal"]

    def goal(self, thread: str) -> Params | None:
        return self.call("thread/goal/get", {"threadId": thread}).get("goal")

    def list_threads(self) -> list[Params]:
        return self.call("thread/list", {"modelProviders": []})["data"]
