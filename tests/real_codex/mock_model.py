"""A stand-in for the Responses API, on loopback, that does what the text of a turn tells it to.

Every final answer reads ``answer N`` with the number of its request, so that a rollout shows which answers were
kept. What a user's message may ask for:

    [[run COMMAND]]   call the shell tool first
    [[print BYTES]]   call the shell tool with a command that prints that much
    [[sleep SECONDS]] keep the turn in progress for so long
    [[spawn TASK]]    start a sub-agent

A goal's continuation waits `goal_delay` seconds and, when `goal_command` is set, calls the shell tool with it:
0.128 goes on with a goal only after a turn that called a tool. Each of the three ways in which Codex asks for a
compaction gets a summary: its own prompt, a `compaction_trigger` item, and the `/responses/compact` endpoint.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

__all__ = ["MockModel", "Request", "text_of"]

Item = dict[str, Any]

DIRECTIVE = re.compile(r"\[\[(run|print|sleep|spawn) (.+?)\]\]", re.DOTALL)
ENDLESS = 1e6  # seconds
# Words of Codex's own prompts, the same in 0.128 to 0.169.
COMPACTION_PROMPT = "CONTEXT CHECKPOINT COMPACTION"
GOAL_PROMPT = "Continue working toward the active thread goal"


def text_of(item: Item) -> str:
    """The text a person or a model would read in one input item."""
    content = item.get("content") or []
    return content if isinstance(content, str) else "\n".join(part.get("text") or "" for part in content)


@dataclass
class Request:
    """What Codex asked; `answered` once the whole answer has been handed to it, `delay` after how many seconds."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    delay: float = 0.0
    answered: bool = False
    final: bool = False

    @property
    def input(self) -> list[Item]:
        return self.body.get("input") or []

    @property
    def turn_id(self) -> str | None:
        return self._metadata.get("turn_id")

    @property
    def thread_id(self) -> str | None:
        return self._metadata.get("thread_id") or self._metadata.get("session_id")

    @property
    def _metadata(self) -> dict[str, Any]:
        return json.loads(self.headers.get("x-codex-turn-metadata") or "{}")

    @property
    def prompt(self) -> str:
        """The newest message that is not the model's own."""
        theirs = (item for item in reversed(self.input) if item.get("type") == "message")
        return next((text_of(item) for item in theirs if item.get("role") != "assistant"), "")

    @property
    def is_goal_turn(self) -> bool:
        return GOAL_PROMPT in self.prompt

    @property
    def follows_a_tool(self) -> bool:
        return bool(self.input) and str(self.input[-1].get("type")).endswith("_call_output")


@dataclass
class _Answer:
    items: list[Item]
    delay: float = 0.0
    final: bool = True


@dataclass
class MockModel:
    """Serves until `close`; `requests` is everything that has reached it, in order.

    While `hurry` is set nothing takes any time: a turn that was to last for ever ends.
    """

    goal_delay: float = 0.3
    goal_command: str | None = "true"
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self.closing = threading.Event()
        self.hurry = threading.Event()
        self._server = _Server(self)
        self._serving = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._serving.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._serving.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- what a test asks ----------------------------------------------------------------------------------

    def goal_turns(self) -> list[Request]:
        """The requests that began a continuation of a goal, in order."""
        return [request for request in list(self.requests) if request.is_goal_turn and not request.follows_a_tool]

    def final_answers(self) -> list[Request]:
        """The requests whose answer ends a turn and has been handed over in full."""
        return [request for request in list(self.requests) if request.final and request.answered]

    def wait(self, what: str, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Waits for something that a request, or an answer, brings about."""
        with self._changed:
            if not self._changed.wait_for(condition, seconds):
                raise AssertionError(f"{what}: not seen in {seconds} s; {len(self.requests)} requests came")

    def wait_for_endless_turn(self) -> None:
        """From now on goal turns do not end, until `hurry` is set; waits for one that is in progress."""
        self.goal_delay = ENDLESS
        self.wait("a turn that does not end", lambda: any(request.delay == ENDLESS for request in self.requests))

    def wait_for_goal_turns(self, count: int, seconds: float = 60) -> None:
        """Waits until so many more continuations have begun."""
        wanted = len(self.goal_turns()) + count
        self.wait(f"{count} more goal turns", lambda: len(self.goal_turns()) >= wanted, seconds)

    # ---- what it answers -----------------------------------------------------------------------------------

    def answer(self, request: Request) -> _Answer:
        last = request.input[-1] if request.input else {}
        if request.path.endswith("/compact"):
            users = [item for item in request.input if item.get("role") == "user"]
            return _Answer([*users, _compaction(request)])
        if last.get("type") == "compaction_trigger":
            return _Answer([_compaction(request)])
        if last.get("type") == "message" and COMPACTION_PROMPT in text_of(last):
            return _Answer([_message(f"summary {request.number} of the work so far")])
        final = _message(f"answer {request.number}")
        if request.follows_a_tool:
            return _Answer([final])
        if request.is_goal_turn:
            if self.goal_command is None:
                return _Answer([final], self.goal_delay)
            return _Answer([_shell(request, self.goal_command)], self.goal_delay, final=False)
        return _directed(request, final)

    # ---- called by the threads that serve ------------------------------------------------------------------

    def received(
        self, method: str, path: str, headers: Iterable[tuple[str, str]], body: dict[str, Any]
    ) -> tuple[Request, _Answer]:
        with self._changed:
            named = {name.lower(): value for name, value in headers}
            request = Request(len(self.requests) + 1, method, path, named, body)
            answer = self.answer(request)
            request.delay = answer.delay
            self.requests.append(request)
            self._changed.notify_all()
        return request, answer

    def handed_over(self, request: Request, answer: _Answer) -> None:
        with self._changed:
            request.answered, request.final = True, answer.final
            self._changed.notify_all()


def _directed(request: Request, final: Item) -> _Answer:
    """What the user's message asks for, then `final`."""
    delay, calls = 0.0, []
    for verb, argument in DIRECTIVE.findall(request.prompt):
        if verb == "run":
            calls.append(_shell(request, argument))
        elif verb == "print":
            calls.append(_shell(request, f"yes 'some output' | head -c {int(argument)}"))
        elif verb == "spawn":
            calls.append(_spawn(request, argument))
        else:
            delay = float(argument)
    return _Answer(calls or [final], delay, final=not calls)


def _message(text: str) -> Item:
    content = [{"type": "output_text", "text": text}]
    return {"type": "message", "role": "assistant", "id": f"msg_{uuid.uuid4().hex}", "content": content}


def _compaction(request: Request) -> Item:
    return {"type": "compaction", "encrypted_content": f"summary {request.number} of the work so far"}


def _call(name: str, arguments: Item, **more: str) -> Item:
    ids = {"id": f"fc_{uuid.uuid4().hex}", "call_id": f"call_{uuid.uuid4().hex[:24]}"}
    return {"type": "function_call", "name": name, "arguments": json.dumps(arguments), **ids, **more}


def _shell(request: Request, command: str) -> Item:
    """A call of the shell tool by the name and shape under which this release offers it."""
    offered = {tool.get("name") for tool in request.body.get("tools") or []}
    if "exec_command" in offered:
        return _call("exec_command", {"cmd": command, "max_output_tokens": 100_000})
    if "shell_command" in offered:
        return _call("shell_command", {"command": command})
    return _call("shell", {"command": ["sh", "-c", command]})


def _spawn(request: Request, task: str) -> Item:
    """A call of spawn_agent: offered plainly, inside a namespace, or not listed because it must be searched for."""
    arguments = {"message": task}
    for tool in request.body.get("tools") or []:
        inner = next((one for one in tool.get("tools") or [] if one.get("name") == "spawn_agent"), None)
        found = tool if tool.get("name") == "spawn_agent" else inner
        if found is None:
            continue
        if "task_name" in (found.get("parameters") or {}).get("properties", {}):
            arguments["task_name"] = "count_files"
        return _call("spawn_agent", arguments, **({"namespace": tool["name"]} if found is inner else {}))
    return _call("spawn_agent", arguments, namespace="multi_agent_v1")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, mock: MockModel) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mock = mock

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is killed, or interrupts a turn, drops its connection; anything else is our own mistake."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the name is the base class's
        """Quiet: the tests look at `requests`."""

    def do_GET(self) -> None:
        self.server.mock.received("GET", self.path, self.headers.items(), {})
        self._send_json({"models": [], "data": []})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = self.path.partition("?")[0]
        request, answer = self.server.mock.received("POST", path, self.headers.items(), json.loads(raw))
        if path.endswith("/compact"):
            self._send_json({"output": answer.items})
        elif not self._stream(answer, len(raw)):
            return
        self.server.mock.handed_over(request, answer)

    def _send_json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, answer: _Answer, size: int) -> bool:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        response = {"id": f"resp_{uuid.uuid4().hex}"}
        self._event("response.created", {"response": response})
        if not self._think(answer.delay):
            return False
        for index, item in enumerate(answer.items):
            self._event("response.output_item.done", {"output_index": index, "item": item})
        tokens = {"input_tokens": size // 4, "output_tokens": 20, "total_tokens": size // 4 + 20}
        self._event("response.completed", {"response": {**response, "usage": tokens}})
        return True

    def _think(self, seconds: float) -> bool:
        """Keeps the turn in progress; false when the mock is closed meanwhile, an error when Codex hangs up."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.server.mock.hurry.is_set():
            if self.server.mock.closing.wait(min(left, 0.1)):
                return False
            self.wfile.write(b": still thinking\n\n")
        return True

    def _event(self, kind: str, data: Item) -> None:
        self.wfile.write(f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode())
