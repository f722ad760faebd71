"""The story: a goal at work on a 300 MB thread, preflight, the update, and the goal goes on."""

from __future__ import annotations

import time

import pytest

from tests.real_codex.app_server import AppServer
from tests.real_codex.conftest import Codex, Shelf
from tests.real_codex.goal_runs import BUDGET, OBJECTIVE, Prefix, answers_kept, goal_running
from tests.real_codex.homes import CodexHome
from tests.real_codex.inflate import inflate
from tests.real_codex.mock_model import MockModel
from tests.real_codex.preflight_command import Preflight

pytestmark = [pytest.mark.real_codex, pytest.mark.slow]

SIZE = 300_000_000
GOAL_TURN = 0.5


@pytest.mark.parametrize(("before", "after"), [("0.128.0", "0.134.0"), ("0.134.0", "0.169.0"), ("0.147.0", "0.169.0")])
def test_a_goal_survives_the_update(
    before: str, after: str, codex: Codex, shelf: Shelf, home: CodexHome, model: MockModel
) -> None:
    old, new = shelf.put_back(home, before, "compacted"), codex(after)
    thread, preflight = old.thread_id, Preflight(home)
    (rollout,) = home.rollouts(thread)
    inflate(rollout, SIZE)
    grown = rollout.stat().st_size
    model.goal_delay = GOAL_TURN

    with goal_running(old.release, home, model, thread) as server:
        goal = home.goals()[thread]
        at_work = Prefix.of(rollout)

        ran = preflight("run", "--runtime", new.binary, "--target-version", after)
        assert ran.code in (0, 3), str(ran)
        assert home.goals()[thread] | {"status": "paused"} == home.goals()[thread]
        assert home.goals()[thread]["goal_id"] == goal["goal_id"]
        assert server.is_idle(thread)
        asked = len(model.requests)
        time.sleep(3 * GOAL_TURN)  # time enough for a turn that should not come
        assert len(model.requests) == asked
        told = ran.thread(thread)
        assert told["paused_by_us"]
        assert told["checkpoint"]["fresh"]
        assert told["checkpoint"]["verified"]
        assert told["size_bytes"] == rollout.stat().st_size
        assert told["resume_bytes"] < told["size_bytes"] / 100

    assert {f"answer {request.number}" for request in model.final_answers()} <= answers_kept(rollout, grown)
    paused = Prefix.of(rollout)

    with AppServer(new, home) as server:
        server.list_threads()  # the new version has brought the databases up to date by now
        assert (thread in home.goals()) is (before != "0.128.0"), "0.134 drops the goals of 0.128"
        finished = preflight("finish")
        assert finished.code == 0, str(finished)
        put_back = home.goals()[thread]
        kept = ("goal_id", "objective", "token_budget", "created_at_ms")
        assert [put_back[name] for name in kept] == [goal[name] for name in kept]
        assert put_back["status"] == "active"
        assert put_back["tokens_used"] >= goal["tokens_used"]
        assert len(model.requests) == asked, "nothing starts before the thread is opened"

        server.resume(thread)
        model.wait_for_goal_turns(2)
        told_by_codex = server.goal(thread)
        assert told_by_codex is not None
        assert (told_by_codex["objective"], told_by_codex["tokenBudget"]) == (OBJECTIVE, BUDGET)
        server.set_goal(thread, status="paused")
        server.wait_until_idle(thread)

    assert {f"answer {request.number}" for request in model.final_answers()} <= answers_kept(rollout, grown)
    assert at_work.is_kept_by(rollout)
    assert paused.is_kept_by(rollout)


def test_goals_are_not_written_into_a_database_that_is_about_to_drop_them(
    codex: Codex, shelf: Shelf, home: CodexHome, model: MockModel
) -> None:
    """`finish` before 0.134 has been started once: it says so, and the next one does it, also for a paused goal."""
    old, new = shelf.put_back(home, "0.128.0", "compacted"), codex("0.134.0")
    thread, preflight = old.thread_id, Preflight(home)
    with goal_running(old.release, home, model, thread) as server:
        paused_by_hand = server.start_thread()
        server.turn(paused_by_hand, "hello")
        server.set_goal(paused_by_hand, objective="Wait for me", status="paused")
        ran = preflight("run", "--runtime", new.binary, "--target-version", new.version)
        assert ran.code == 3, str(ran)
        assert "target-drops-goals" in ran.findings
    goals = home.goals()

    too_early = preflight("finish")
    assert too_early.code in (3, 10), str(too_early)
    assert home.goals() == goals

    with AppServer(new, home) as server:
        server.list_threads()
        assert home.goals() == {}
        finished = preflight("finish")
        assert finished.code == 0, str(finished)
        assert home.goals()[thread]["status"] == "active"
        assert home.goals()[paused_by_hand] == goals[paused_by_hand]
