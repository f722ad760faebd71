"""Talking to a Codex app-server: requests and answers as JSON, over a child's pipes or the control socket.

One request at a time, each within a deadline; notifications that come meanwhile are kept. Nothing here
loads a thread but `thread_resume`, which starts a goal's loop where the goal is active: it is for a
scratch home only.

Source: the protocol of 0.128.0 to 0.169.0 (`app-server generate-json-schema`), tried on 0.128.0,
0.134.0, 0.147.0 and 0.169.0. Answers begin with their `id`.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import preflight
from preflight.codex.runtime import RuntimeVersion
from preflight.codex.wires import LARGEST_MESSAGE_BYTES, Pipes, Socket, TooLarge, Wire
from preflight.errors import AppServerError, TimeLimitReached
from preflight.model import GoalStatus, Home
from preflight.system.deadline import Deadline

__all__ = ["AppServer", "Notification", "RemoteGoal", "RemoteThread", "ServerInfo", "control_socket_of"]

_ANSWER_SECONDS = 20.0
_SOCKET_SECONDS = 2.0
_KEPT_NOTIFICATIONS = 4096
_PAGE = 1000
_ID_AT_THE_FRONT = re.compile(rb'\s*\{\s*"id"\s*:\s*(\d+)')
_CAPITAL = re.compile(r"(?<=[a-z])([A-Z])")

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Notification:
    """Something the server said unasked; `params` may hold text of the user's."""

    method: str
    params: Json = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What `initialize` told: the server's version, and the home it works on."""

    version: RuntimeVersion | None
    codex_home: Path | None


@dataclass(frozen=True, slots=True)
class RemoteGoal:
    """A goal as the server sees it; `status` is spelled as in the databases (`usage_limited`)."""

    status: str
    objective: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RemoteThread:
    """A thread as the server sees it; `status` is `notLoaded`, `idle`, `active` or `systemError`."""

    thread_id: str
    status: str | None


class AppServer:
    """A connection to an app-server that has been initialized; a context manager that hangs up at the end."""

    def __init__(self, wire: Wire, deadline: Deadline, *, ours_alone: bool) -> None:
        """Shake hands over the wire, which is closed when the server does not answer (AppServerError)."""
        self._wire = wire
        self._ours_alone = ours_alone
        self._asked = 0
        self.notifications: deque[Notification] = deque(maxlen=_KEPT_NOTIFICATIONS)
        try:
            self.info = self._initialize(deadline)
        except BaseException:
            self.close()
            raise

    @classmethod
    def on_pipes(cls, stdin: IO[bytes], stdout: IO[bytes], deadline: Deadline) -> Self:
        """Talk to a child of ours. AppServerError when it does not answer; the child is the caller's to end."""
        return cls(Pipes(stdin, stdout), deadline, ours_alone=True)

    @classmethod
    def on_socket(cls, path: Path, deadline: Deadline) -> Self:
        """Talk to the server that listens on a control socket. AppServerError when nobody answers there."""
        return cls(Socket(path, deadline), deadline, ours_alone=False)

    def close(self) -> None:
        """Hang up. A child of ours sees the end of its input and ends (0.128.0 to 0.169.0)."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- the verbs -----------------------------------------------------------------------------------------

    def goal_get(self, thread_id: str, deadline: Deadline) -> RemoteGoal | None:
        """The thread's goal, None when it has none. Does not load the thread."""
        return _goal(self.call("thread/goal/get", {"threadId": thread_id}, deadline).get("goal"))

    def goal_set_status(self, thread_id: str, status: GoalStatus, deadline: Deadline) -> RemoteGoal | None:
        """Change the status of a goal and nothing else of it; the goal as it is then.

        Only `status` is sent: an objective would make a paused goal active, and `origin` makes 0.169
        write to the rollout. A turn in progress is not interrupted.
        """
        params = {"threadId": thread_id, "status": _camel(status)}
        return _goal(self.call("thread/goal/set", params, deadline).get("goal"))

    def thread_read(self, thread_id: str, deadline: Deadline) -> RemoteThread:
        """The thread's state without its turns; its cost does not depend on its size (0.134.0 to 0.169.0)."""
        return _thread(self.call("thread/read", {"threadId": thread_id, "includeTurns": False}, deadline))

    def turn_interrupt(self, thread_id: str, turn_id: str, deadline: Deadline) -> None:
        """Stop the turn in progress. A goal stays as it is: pause it first, or the next turn begins."""
        self.call("turn/interrupt", {"threadId": thread_id, "turnId": turn_id}, deadline)

    def loaded_threads(self, deadline: Deadline) -> tuple[str, ...]:
        """The ids of the threads that this server process has open."""
        found: list[str] = []
        cursor: object = None
        while True:
            page = self.call("thread/loaded/list", {"limit": _PAGE, "cursor": cursor}, deadline)
            found += [str(thread_id) for thread_id in _list(page.get("data"))]
            cursor = page.get("nextCursor")
            if not cursor:
                return tuple(found)

    def thread_resume(self, thread_id: str, cwd: Path, deadline: Deadline, *, seconds: float) -> RemoteThread:
        """Load the thread, without its turns in the answer. For a scratch home: an active goal starts a turn."""
        params = {"threadId": thread_id, "cwd": str(cwd), "excludeTurns": True}
        return _thread(self.call("thread/resume", params, deadline, seconds=seconds))

    def turn_count(self, thread_id: str, deadline: Deadline, *, seconds: float) -> int:
        """How many turns the server shows; reads the whole file of a legacy thread.

        The turns come without their contents, but for 0.128.0, which does not know `itemsView`.
        """
        count = 0
        cursor: object = None
        while True:
            params = {"threadId": thread_id, "limit": _PAGE, "cursor": cursor, "itemsView": "notLoaded"}
            page = self.call("thread/turns/list", params, deadline, seconds=seconds)
            count += len(_list(page.get("data")))
            cursor = page.get("nextCursor")
            if not cursor:
                return count

    def listen(self, seconds: float) -> None:
        """Take in what the server says for this long. AppServerError when it hangs up meanwhile."""
        until = Deadline(seconds)
        while not until.expired:
            with suppress(TimeoutError):
                self._take("waiting", until.remaining())

    # ---- the protocol --------------------------------------------------------------------------------------

    def call(self, method: str, params: Json, deadline: Deadline, *, seconds: float = _ANSWER_SECONDS) -> Json:
        """One request and the `result` of its answer.

        TimeLimitReached when the deadline comes first; AppServerError when the server refuses, is not
        done after `seconds`, is gone, or answers with more than 64 MiB.
        """
        deadline.check(f"asking Codex: {method}")
        until = deadline.sub(seconds)
        self._asked += 1
        self._send({"id": self._asked, "method": method, "params": params}, method)
        while True:
            try:
                answer = self._take(method, until.remaining())
            except TimeoutError:
                deadline.check(f"waiting for Codex: {method}")
                raise AppServerError(f"Codex did not answer {method} within {seconds:.0f} s") from None
            if answer is not None:
                return _result(answer, method)

    def _initialize(self, deadline: Deadline) -> ServerInfo:
        client = {"name": "codex-preflight", "title": None, "version": preflight.__version__}
        params = {"clientInfo": client, "capabilities": {"experimentalApi": True}}
        said = self.call("initialize", params, deadline)
        self._send({"method": "initialized"}, "initialized")
        home = said.get("codexHome")
        # "codex-preflight/0.169.0 (Debian ...)": our own name and the server's version
        agent = str(said.get("userAgent", "")).partition("/")[2].partition(" ")[0]
        return ServerInfo(RuntimeVersion.parse(agent), Path(home) if isinstance(home, str) else None)

    def _send(self, message: Json, method: str) -> None:
        try:
            self._wire.send(json.dumps(message))
        except (OSError, EOFError):
            raise AppServerError(f"Codex hung up before {method}") from None

    def _take(self, method: str, seconds: float) -> Json | None:
        """One message: the answer to the latest request, or None after dealing with another one."""
        try:
            data = self._wire.receive(seconds)
        except TimeoutError:
            raise
        except (OSError, EOFError):
            raise AppServerError(f"Codex hung up during {method}") from None
        if isinstance(data, TooLarge):
            found = _ID_AT_THE_FRONT.match(data.front)
            if found and int(found[1]) == self._asked:
                size = LARGEST_MESSAGE_BYTES >> 20
                raise AppServerError(f"Codex answered {method} with more than {size} MiB", usable=True)
            return None
        try:
            message = json.loads(data)
        except (ValueError, RecursionError):
            raise AppServerError(f"Codex sent something that is not JSON during {method}") from None
        if not isinstance(message, dict):
            return None
        if isinstance(message.get("method"), str):
            self._heard(message)
            return None
        # An answer to an earlier request, that we no longer waited for, has another number.
        return message if message.get("id") == self._asked else None

    def _heard(self, message: dict[str, object]) -> None:
        if "id" not in message:
            self.notifications.append(Notification(str(message["method"]), _mapping(message.get("params"))))
        elif self._ours_alone:
            error = {"code": -32601, "message": "codex-preflight answers no questions"}
            self._send({"id": message["id"], "error": error}, "refusing a question")
        # On a shared server the question (an approval, say) is for its user's own client: to refuse it would be
        # to answer in that user's name.


def control_socket_of(home: Home, deadline: Deadline) -> AppServer | None:
    """The server that listens on the home's control socket; None when nothing answers there within 2 s.

    The desktop's own server is not reachable so: it talks over private pipes (0.128.0 to 0.169.0).
    """
    path = home.path / "app-server-control" / "app-server-control.sock"
    try:
        if not path.is_socket():
            return None
    except OSError:  # the folder is somebody else's
        return None
    try:
        return AppServer.on_socket(path, deadline.sub(_SOCKET_SECONDS))
    except AppServerError:
        return None
    except TimeLimitReached:
        deadline.check("connecting to the control socket")
        return None


def _result(answer: Json, method: str) -> Json:
    error = answer.get("error")
    if error is None:
        return _mapping(answer.get("result"))
    said = _mapping(error)
    code = said.get("code")
    raise AppServerError(
        f"Codex refused {method}",
        rpc_code=code if isinstance(code, int) else 0,
        rpc_data=_mapping(said.get("data")),
        rpc_message=str(said.get("message", "")),
        usable=True,
    )


def _goal(found: object) -> RemoteGoal | None:
    if not isinstance(found, dict):
        return None
    return RemoteGoal(status=_snake(str(found.get("status", ""))), objective=str(found.get("objective", "")))


def _thread(result: Json) -> RemoteThread:
    thread = _mapping(result.get("thread"))
    status = _mapping(thread.get("status")).get("type")
    return RemoteThread(str(thread.get("id", "")), status if isinstance(status, str) else None)


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _camel(status: str) -> str:
    first, *others = status.split("_")
    return first + "".join(word.capitalize() for word in others)


def _snake(status: str) -> str:
    return _CAPITAL.sub(r"_\1", status).lower()
