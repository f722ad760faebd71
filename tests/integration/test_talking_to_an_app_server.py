"""A conversation with an app-server: an answer goes to its question, nothing waits or grows for ever."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from preflight.codex import app_server, wires
from preflight.codex.app_server import AppServer
from preflight.errors import AppServerError, TimeLimitReached
from preflight.model import GoalStatus
from preflight.system.children import Child
from preflight.system.deadline import Deadline
from tests.integration.fake_app_server import make_fake

THREAD = "01a2036d-c442-7320-ada6-1a77b942a3c1"
SOON = 20.0


@contextmanager
def talking(folder: Path, **behaviour: Any) -> Iterator[AppServer]:
    program = make_fake(folder / "codex", notes=str(folder / "notes"), **behaviour)
    (folder / "config.toml").touch()
    env = {"CODEX_HOME": str(folder), "PATH": os.defpath}
    with (
        Child([str(program), "app-server"], env=env, cwd=folder) as child,
        AppServer.on_pipes(child.stdin, child.stdout, Deadline(SOON)) as server,
    ):
        yield server


def received(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "notes").read_text().splitlines()[1:]]


def test_the_server_is_told_who_we_are_and_tells_who_it_is(tmp_path: Path) -> None:
    with talking(tmp_path) as server:
        assert str(server.info.version) == "0.169.0"
        assert server.info.codex_home == tmp_path
    hello, ready = received(tmp_path)
    assert hello["params"]["clientInfo"]["name"] == "codex-preflight"
    assert hello["params"]["capabilities"] == {"experimentalApi": True}
    assert ready == {"method": "initialized"}


def test_pausing_sends_the_status_and_nothing_else(tmp_path: Path) -> None:
    goal = {"goal": {"threadId": THREAD, "status": "usageLimited", "objective": "secret"}}
    with talking(tmp_path, results={"thread/goal/set": goal}) as server:
        told = server.goal_set_status(THREAD, GoalStatus.USAGE_LIMITED, Deadline(SOON))
    assert told is not None
    assert told.status == GoalStatus.USAGE_LIMITED
    assert "secret" not in repr(told)
    assert received(tmp_path)[-1]["params"] == {"threadId": THREAD, "status": "usageLimited"}


def test_a_thread_without_a_goal_has_none(tmp_path: Path) -> None:
    with talking(tmp_path, results={"thread/goal/get": {"goal": None}}) as server:
        assert server.goal_get(THREAD, Deadline(SOON)) is None


def test_interrupting_and_reading_name_the_thread(tmp_path: Path) -> None:
    with talking(tmp_path) as server:
        server.turn_interrupt(THREAD, "turn-1", Deadline(SOON))
        assert server.thread_read(THREAD, Deadline(SOON)) == app_server.RemoteThread(THREAD, "idle")
    interrupted, read = received(tmp_path)[-2:]
    assert interrupted["params"] == {"threadId": THREAD, "turnId": "turn-1"}
    assert read["params"] == {"threadId": THREAD, "includeTurns": False}


def test_loaded_threads_and_turns_come_in_pages(tmp_path: Path) -> None:
    pages = [{"data": ["a", "b"], "nextCursor": "2"}, {"data": ["c"], "nextCursor": None}]
    with talking(tmp_path, results={"thread/loaded/list": pages, "thread/turns/list": list(pages)}) as server:
        assert server.loaded_threads(Deadline(SOON)) == ("a", "b", "c")
        assert server.turn_count(THREAD, Deadline(SOON), seconds=SOON) == 3
    assert [m["params"]["cursor"] for m in received(tmp_path)[-4:]] == [None, "2", None, "2"]


def test_notifications_are_kept_and_do_not_count_as_answers(tmp_path: Path) -> None:
    says = {"thread/read": [{"method": "turn/started", "params": {"text": "secret"}}, {"id": 77, "result": {}}]}
    with talking(tmp_path, says=says) as server:
        assert server.thread_read(THREAD, Deadline(SOON)).thread_id == THREAD
        assert [note.method for note in server.notifications] == ["turn/started"]
        assert "secret" not in repr(server.notifications)


def test_a_question_of_our_own_child_is_refused(tmp_path: Path) -> None:
    asks = {"thread/goal/get": "item/commandExecution/requestApproval"}
    with talking(tmp_path, asks=asks) as server:
        answer = server.goal_get(THREAD, Deadline(SOON))
    assert answer is not None
    assert json.loads(answer.objective)["error"]["code"] == -32601


def test_a_refusal_carries_the_servers_code_and_keeps_its_words_out_of_the_message(tmp_path: Path) -> None:
    error = {"code": -32600, "message": "thread at /home/secret not found", "data": {"type": "threadNotFound"}}
    with talking(tmp_path, errors={"thread/read": error}) as server:
        with pytest.raises(AppServerError) as refused:
            server.thread_read(THREAD, Deadline(SOON))
        told = refused.value
        assert (told.rpc_code, told.rpc_data, told.rpc_message) == (-32600, error["data"], error["message"])
        assert told.usable
        assert "secret" not in str(told)
        assert pickle.loads(pickle.dumps(told)).rpc_code == -32600
        server.turn_interrupt(THREAD, "t", Deadline(SOON))  # it is still there


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one(tmp_path: Path) -> None:
    goal = {"goal": {"status": "active", "objective": "late"}}
    with talking(tmp_path, late_on="thread/goal/get", results={"thread/goal/get": goal}) as server:
        with pytest.raises(AppServerError, match="did not answer"):
            server.call("thread/goal/get", {"threadId": THREAD}, Deadline(SOON), seconds=0.2)
        assert server.thread_read(THREAD, Deadline(SOON)).thread_id == THREAD


def test_the_deadline_goes_before_the_servers_own_time(tmp_path: Path) -> None:
    with talking(tmp_path, silent_on="thread/read") as server, pytest.raises(TimeLimitReached):
        server.thread_read(THREAD, Deadline(0.2))


@pytest.mark.parametrize("behaviour", [{"dies_on": "thread/read"}, {"garbage_on": "thread/read"}])
def test_a_server_that_is_gone_or_babbles_is_an_error_at_once(tmp_path: Path, behaviour: dict[str, str]) -> None:
    with talking(tmp_path, **behaviour) as server:
        with pytest.raises(AppServerError) as failed:
            server.thread_read(THREAD, Deadline(SOON))
        assert not failed.value.usable


def test_after_the_end_every_question_is_an_error(tmp_path: Path) -> None:
    with talking(tmp_path, dies_on="thread/read") as server:
        for _ in range(3):
            with pytest.raises(AppServerError, match="hung up"):
                server.thread_read(THREAD, Deadline(SOON))


def test_an_answer_that_is_too_large_is_thrown_away_as_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wires, "LARGEST_MESSAGE_BYTES", 1 << 20)
    with talking(tmp_path, padding={"thread/turns/list": 5 << 20}, results={"thread/turns/list": {}}) as server:
        with pytest.raises(AppServerError, match="more than") as failed:
            server.turn_count(THREAD, Deadline(SOON), seconds=SOON)
        assert failed.value.usable
        assert server.thread_read(THREAD, Deadline(SOON)).thread_id == THREAD


def test_a_flood_waits_in_the_childs_own_memory(tmp_path: Path) -> None:
    note = {"method": "item/agentMessage/delta", "params": {"delta": "y" * 1000}}
    with talking(tmp_path, says={"thread/read": [note] * 20_000}) as server:
        assert server.thread_read(THREAD, Deadline(SOON)).thread_id == THREAD
        assert len(server.notifications) == server.notifications.maxlen


def test_a_program_that_is_no_app_server_is_an_error(tmp_path: Path) -> None:
    with Child(["/bin/echo", "hello"], env={}, cwd=tmp_path) as child, pytest.raises(AppServerError):
        AppServer.on_pipes(child.stdin, child.stdout, Deadline(SOON))
