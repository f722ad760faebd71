"""Who has a thread open, and talking to the server that has: with each release."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from preflight.codex.app_server import AppServer as Client
from preflight.codex.app_server import control_socket_of
from preflight.codex.home import find_homes
from preflight.codex.runtime import RuntimeVersion, find_binary, has_writer_lock
from preflight.codex.threads import find_threads
from preflight.codex.writers import runtimes_of, writer_lock_path, writer_of
from preflight.errors import AppServerError
from preflight.model import Answer, GoalStatus, Home, Role, Thread, WriterState
from preflight.system.deadline import Deadline
from preflight.system.locks import held, lock_is_held
from tests.real_codex.app_server import AppServer
from tests.real_codex.codex_release import PINNED
from tests.real_codex.conftest import Codex
from tests.real_codex.homes import CodexHome
from tests.real_codex.mock_model import MockModel

pytestmark = [pytest.mark.real_codex]

LIMIT = 60.0


def read_home(home: CodexHome) -> Home:
    (found,) = find_homes([home.path], {}, home.user)[0]
    return found


def thread_of(home: Home, thread_id: str) -> Thread:
    return next(t for t in find_threads(home, Deadline(LIMIT)).threads if t.thread_id == thread_id)


def client_of(home: Home) -> Client:
    client = control_socket_of(home, Deadline(LIMIT))
    assert client is not None
    return client


@pytest.mark.parametrize("version", PINNED)
def test_a_loaded_thread_has_a_writer_and_one_that_nobody_loaded_has_none(
    version: str, codex: Codex, home: CodexHome, model: MockModel, tmp_path: Path
) -> None:
    home.make(model.url)
    release = codex(version)
    with AppServer(release, home) as server:
        loaded, idle = server.start_thread(), server.start_thread()
        server.turn(loaded, "hello")
        server.turn(idle, "hello")
    here = read_home(home)
    assert writer_of(thread_of(here, loaded), ()) == (WriterState.NONE, ())
    with AppServer(release, home) as server:
        server.resume(loaded)
        runtimes = runtimes_of(here)
        assert [(r.pid, r.version, r.executable) for r in runtimes] == [(server.process.pid, version, release.binary)]
        assert writer_of(thread_of(here, loaded), runtimes) == (WriterState.LIVE, runtimes)
        assert writer_of(thread_of(here, idle), runtimes) == (WriterState.NONE, ())
        assert runtimes_of(replace(here, path=tmp_path, sqlite_home=tmp_path, state_db=None, goals_db=None)) == ()
        found = find_binary(None, {}, runtimes)
        assert found is not None
        assert (found.path, str(found.version)) == (release.binary, version)
        assert (lock_is_held(writer_lock_path(here, loaded)) is Answer.YES) == has_writer_lock(found.version)
        server.kill()
    # Killed, it leaves its lock file behind, and a turn without an end; nobody writes any more.
    assert writer_of(thread_of(here, loaded), ()) == (WriterState.NONE, ())
    assert runtimes_of(here) == ()


@pytest.mark.parametrize("version", [v for v in PINNED if has_writer_lock(RuntimeVersion.parse(v))])
def test_codex_respects_the_writer_lock_that_we_hold(
    version: str, codex: Codex, home: CodexHome, model: MockModel
) -> None:
    home.make(model.url)
    with AppServer(codex(version), home) as server:
        thread = server.start_thread()
        server.turn(thread, "hello")
    with AppServer(codex(version), home) as server:
        with held(writer_lock_path(read_home(home), thread)), pytest.raises(Exception, match="already has an active"):
            server.resume(thread)
        assert server.resume(thread)["id"] == thread


@pytest.mark.parametrize("version", PINNED)
def test_the_control_socket_pauses_a_goal_and_interrupts_its_turn(
    version: str, codex: Codex, home: CodexHome, model: MockModel
) -> None:
    home.make(model.url)
    with AppServer(codex(version), home, control_socket=True) as server:
        thread = server.start_thread()
        server.turn(thread, "hello")
        server.set_goal(thread, objective="Never stop", status="active")
        model.wait_for_goal_turns(2)
        here = read_home(home)
        assert [runtime.role for runtime in runtimes_of(here)] == [Role.DAEMON]
        with client_of(here) as client:
            assert str(client.info.version) == version
            assert thread in client.loaded_threads(Deadline(LIMIT))
            goal = client.goal_set_status(thread, GoalStatus.PAUSED, Deadline(LIMIT))
            assert goal is not None
            assert (goal.status, goal.objective) == (GoalStatus.PAUSED, "Never stop")
            server.wait_until_idle(thread)
            turns = len(model.goal_turns())
            asked = len(model.requests)
            turn = server.start_turn(thread, "[[sleep 60]]")
            model.wait("the turn's request", lambda: len(model.requests) > asked)
            assert client.thread_read(thread, Deadline(LIMIT)).status == "active"
            with pytest.raises(AppServerError) as refused:
                client.turn_interrupt(thread, "01a2036d-0000-7000-8000-000000000000", Deadline(LIMIT))
            assert refused.value.usable
            client.turn_interrupt(thread, turn, Deadline(LIMIT))
            server.wait_until_idle(thread)
            still = client.goal_get(thread, Deadline(LIMIT))
        assert still is not None
        assert still.status == GoalStatus.PAUSED
        assert len(model.goal_turns()) == turns
    # It listened there until it was ended; what it may have left behind answers nobody.
    assert control_socket_of(here, Deadline(LIMIT)) is None
