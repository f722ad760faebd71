"""The control socket of a running server: used when somebody answers there, passed over when nobody does.

The server here is a FAKE that speaks WebSocket over a real Unix socket; the real releases are tried in
tests/real_codex/test_writers.py.
"""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, unix_serve

from preflight.codex import wires
from preflight.codex.app_server import control_socket_of
from preflight.errors import AppServerError, TimeLimitReached
from preflight.model import GoalStatus, Home
from preflight.system.deadline import Deadline

THREAD = "01a2036d-c442-7320-ada6-1a77b942a3c1"
SOON = 20.0
HELLO = {"userAgent": "codex-preflight/0.169.0 (fake)", "codexHome": "/"}

Json = dict[str, Any]


@pytest.fixture
def home() -> Iterator[Home]:
    """Short, because the path of a Unix socket may have no more than 108 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="cs-"))
    (folder / "app-server-control").mkdir()
    yield Home(path=folder, sqlite_home=folder, home_id="h", state_db=None, goals_db=None, history_db=None)
    shutil.rmtree(folder)


def control_socket(home: Home) -> Path:
    return home.path / "app-server-control" / "app-server-control.sock"


@contextmanager
def fake_server(home: Home, answer: Callable[[Json], list[Json]]) -> Iterator[list[Json]]:
    """A fake that answers each request with the messages that `answer` makes; lends what it received."""
    received: list[Json] = []

    def handle(connection: ServerConnection) -> None:
        try:
            for message in connection:
                received.append(json.loads(message))
                for said in answer(received[-1]):
                    connection.send(json.dumps(said))
        except ConnectionClosed:
            pass

    with unix_serve(handle, str(control_socket(home)), compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()


def usual(message: Json) -> list[Json]:
    if "id" not in message:
        return []
    results: dict[str, Json] = {
        "initialize": HELLO,
        "thread/goal/set": {"goal": {"status": "paused", "objective": "o"}},
        "thread/loaded/list": {"data": [THREAD], "nextCursor": None},
    }
    return [{"id": message["id"], "result": results.get(message["method"], {})}]


def test_a_server_that_answers_is_talked_to(home: Home) -> None:
    with fake_server(home, usual) as received:
        server = control_socket_of(home, Deadline(SOON))
        assert server is not None
        with server:
            assert server.loaded_threads(Deadline(SOON)) == (THREAD,)
            told = server.goal_set_status(THREAD, GoalStatus.PAUSED, Deadline(SOON))
            assert told is not None
            assert told.status == GoalStatus.PAUSED
    assert [message["method"] for message in received[:2]] == ["initialize", "initialized"]


def test_a_question_meant_for_the_users_client_is_left_to_it(home: Home) -> None:
    def asking(message: Json) -> list[Json]:
        return [{"id": 5, "method": "item/fileChange/requestApproval", "params": {}}, *usual(message)]

    with fake_server(home, asking) as received:
        server = control_socket_of(home, Deadline(SOON))
        assert server is not None
        with server:
            server.turn_interrupt(THREAD, "turn", Deadline(SOON))
    assert all("error" not in message and "result" not in message for message in received)


def test_a_message_that_is_too_large_ends_the_conversation(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wires, "LARGEST_MESSAGE_BYTES", 1 << 16)

    def padded(message: Json) -> list[Json]:
        return [{"id": 0, "padding": "x" * (1 << 17)}] if message.get("method") == "turn/interrupt" else usual(message)

    with fake_server(home, padded):
        server = control_socket_of(home, Deadline(SOON))
        assert server is not None
        with server, pytest.raises(AppServerError, match="hung up"):
            server.turn_interrupt(THREAD, "turn", Deadline(SOON))


def test_no_socket_is_an_answer(home: Home) -> None:
    assert control_socket_of(home, Deadline(SOON)) is None
    control_socket(home).write_text("not a socket")
    assert control_socket_of(home, Deadline(SOON)) is None


def test_a_socket_that_a_killed_server_left_behind_is_passed_over(home: Home) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(control_socket(home)))
    assert control_socket_of(home, Deadline(SOON)) is None


def test_a_server_that_is_no_websocket_is_passed_over(home: Home) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(control_socket(home)))
        other.listen()

        def hang_up() -> None:
            connection, _ = other.accept()
            connection.sendall(b"SSH-2.0-other\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        assert control_socket_of(home, Deadline(SOON)) is None
        thread.join()


def test_a_server_that_refuses_us_is_passed_over(home: Home) -> None:
    def refuse(message: Json) -> list[Json]:
        return [{"id": message["id"], "error": {"code": -32600, "message": "no"}}]

    with fake_server(home, refuse):
        assert control_socket_of(home, Deadline(SOON)) is None


def test_a_server_that_hangs_is_passed_over_in_two_seconds(home: Home) -> None:
    with fake_server(home, lambda _: []):
        assert control_socket_of(home, Deadline(None)) is None


def test_the_runs_own_deadline_is_not_taken_for_a_server_that_hangs(home: Home) -> None:
    with fake_server(home, lambda _: []), pytest.raises(TimeLimitReached):
        control_socket_of(home, Deadline(0.3))
