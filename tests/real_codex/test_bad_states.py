"""Two runs at once, a person who acts in between, a turn that is interrupted: on real app-servers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.real_codex.app_server import AppServer
from tests.real_codex.codex_release import PINNED
from tests.real_codex.conftest import Shelf
from tests.real_codex.goal_runs import BUDGET, OBJECTIVE, goal_running
from tests.real_codex.homes import CodexHome
from tests.real_codex.mock_model import MockModel
from tests.real_codex.preflight_command import Preflight

pytestmark = [pytest.mark.real_codex, pytest.mark.slow]

WITH_A_SOCKET = ["0.134.0", "0.169.0"]


def journal(preflight: Preflight) -> list[dict[str, Any]]:
    (path,) = preflight.store.rglob("journal.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@contextmanager
def goal_at_work(
    version: str, shelf: Shelf, home: CodexHome, model: MockModel, *, control_socket: bool = False
) -> Iterator[tuple[AppServer, str]]:
    kept = shelf.put_back(home, version, "compacted")
    with goal_running(kept.release, home, model, kept.thread_id, control_socket=control_socket) as server:
        yield server, kept.thread_id


def statuses_told(server: AppServer, thread: str) -> list[str]:
    told = server.notifications("thread/goal/updated")
    return [note["goal"]["status"] for note in told if note["threadId"] == thread]


# ---- two runs at once --------------------------------------------------------------------------------------


def test_of_two_runs_at_once_the_second_is_told_to_stay_away(shelf: Shelf, home: CodexHome, model: MockModel) -> None:
    preflight = Preflight(home)
    with goal_at_work("0.147.0", shelf, home, model) as (_, thread):
        model.wait_for_endless_turn()
        first = preflight.begin("run", "--wait", "60 s")
        until = time.monotonic() + 60
        while home.goals()[thread]["status"] == "active" and time.monotonic() < until:
            time.sleep(0.05)

        second = preflight("run")
        assert second.code == 11, str(second)
        (error,) = second.json["errors"]
        assert error["code"] == "locked"
        assert str(first.pid) in error["message"] + error["hint"]
        assert preflight("resume-goals").code == 11
        assert preflight("check").code in (3, 10), "looking needs no lock"
        assert home.goals()[thread]["status"] == "paused", "the second has not undone what the first does"

        model.hurry.set()
        done = preflight.end(first)
        assert done.code in (0, 3), str(done)
        assert home.goals()[thread]["status"] == "paused"


# ---- a journal that is no longer true ----------------------------------------------------------------------


@pytest.mark.parametrize("version", PINNED)
def test_a_goal_that_a_person_took_in_hand_stays_as_the_person_left_it(
    version: str, shelf: Shelf, home: CodexHome, model: MockModel
) -> None:
    """Set going and paused again by hand: the pause is not ours any more."""
    preflight = Preflight(home)
    with goal_at_work(version, shelf, home, model) as (server, thread):
        assert preflight("run").code in (0, 3)
        server.set_goal(thread, status="active")
        model.wait_for_goal_turns(1)
        server.set_goal(thread, status="paused")
        server.wait_until_idle(thread)
        theirs = home.goals()[thread]

        left_alone = preflight("resume-goals")
        assert left_alone.code in (0, 3), str(left_alone)
        assert home.goals()[thread] == theirs


@pytest.mark.parametrize("version", ["0.128.0", "0.169.0"])
def test_another_goal_in_its_place_is_not_started(
    version: str, shelf: Shelf, home: CodexHome, model: MockModel
) -> None:
    preflight = Preflight(home)
    with goal_at_work(version, shelf, home, model) as (server, thread):
        assert preflight("run").code in (0, 3)
        server.call("thread/goal/clear", {"threadId": thread})
        server.set_goal(thread, objective="Something else", status="paused")
        theirs = home.goals()[thread]
        assert theirs["objective"] != OBJECTIVE

        left_alone = preflight("resume-goals")
        assert left_alone.code in (0, 3), str(left_alone)
        assert home.goals()[thread] == theirs


# ---- the control socket ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", WITH_A_SOCKET)
def test_through_the_control_socket_the_owner_hears_of_the_pause_and_of_its_end(
    version: str, shelf: Shelf, home: CodexHome, model: MockModel
) -> None:
    preflight = Preflight(home)
    with goal_at_work(version, shelf, home, model, control_socket=True) as (server, thread):
        goal = home.goals()[thread]
        ran = preflight("run")
        assert ran.code in (0, 3), str(ran)
        assert [line["how"] for line in journal(preflight) if line["event"] == "pause"] == ["socket"]
        assert statuses_told(server, thread)[-1] == "paused"
        assert home.goals()[thread]["status"] == "paused"

        put_back = preflight("resume-goals")
        assert put_back.code == 0, str(put_back)
        model.wait_for_goal_turns(2)  # by itself, because its owner was told
        told = server.goal(thread)
        assert told is not None
        assert (told["status"], told["objective"], told["tokenBudget"]) == ("active", OBJECTIVE, BUDGET)
        assert home.goals()[thread]["goal_id"] == goal["goal_id"]
        server.set_goal(thread, status="paused")
        server.wait_until_idle(thread)


@pytest.mark.parametrize("version", WITH_A_SOCKET)
def test_a_turn_is_interrupted_only_when_that_was_asked_for(
    version: str, shelf: Shelf, home: CodexHome, model: MockModel
) -> None:
    preflight = Preflight(home)
    with goal_at_work(version, shelf, home, model, control_socket=True) as (server, thread):
        model.wait_for_endless_turn()
        blocked = preflight("run", "--wait", "1 s")
        assert blocked.code == 10, str(blocked)
        assert not server.is_idle(thread)
        assert home.goals()[thread]["status"] == "active"

        ran = preflight("run", "--wait", "1 s", "--interrupt")
        assert ran.code in (0, 3), str(ran)
        assert server.is_idle(thread)
        assert server.notifications("turn/completed")[-1]["turn"]["status"] == "interrupted"
        assert home.goals()[thread]["status"] == "paused"
        assert ran.thread(thread)["checkpoint"]["fresh"]


def test_without_a_socket_even_an_interrupt_that_was_asked_for_cuts_nothing_off(
    shelf: Shelf, home: CodexHome, model: MockModel
) -> None:
    preflight = Preflight(home)
    with goal_at_work("0.169.0", shelf, home, model) as (server, thread):
        model.wait_for_endless_turn()
        blocked = preflight("run", "--wait", "1 s", "--interrupt")
        assert blocked.code == 10, str(blocked)
        assert not server.is_idle(thread)
        assert home.goals()[thread]["status"] == "active"
        model.hurry.set()
        model.wait_for_goal_turns(1)
