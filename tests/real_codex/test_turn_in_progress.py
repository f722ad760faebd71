"""A turn that does not end: the update is blocked, and the goal and its turn are as if nobody had asked."""

from __future__ import annotations

import pytest

from tests.real_codex.app_server import AppServer
from tests.real_codex.codex_release import PINNED
from tests.real_codex.conftest import Shelf
from tests.real_codex.goal_runs import answers_kept, goal_running
from tests.real_codex.homes import CodexHome
from tests.real_codex.mock_model import MockModel
from tests.real_codex.preflight_command import Preflight

pytestmark = [pytest.mark.real_codex, pytest.mark.slow]

# What a pause that was taken back may leave different in a goal's row.
TOUCHED = {"updated_at_ms", "tokens_used", "time_used_seconds"}


@pytest.mark.parametrize("version", PINNED)
def test_a_goal_turn_that_does_not_end_blocks_and_goes_on(
    version: str, shelf: Shelf, home: CodexHome, model: MockModel
) -> None:
    kept = shelf.put_back(home, version, "compacted")
    thread, preflight = kept.thread_id, Preflight(home)
    with goal_running(kept.release, home, model, thread) as server:
        model.wait_for_endless_turn()
        before = home.goals()[thread]

        blocked = preflight("run", "--wait", "2 s", "--target-version", "0.169.0")

        assert blocked.code == 10, str(blocked)
        assert blocked.json["verdict"] == "block"
        assert {finding["thread_id"] for finding in blocked.json["findings"] if finding["severity"] == "block"} == {
            thread
        }
        after = home.goals()[thread]
        assert {name: after[name] for name in after.keys() - TOUCHED} == {
            name: before[name] for name in before.keys() - TOUCHED
        }
        assert not server.is_idle(thread)
        assert blocked.thread(thread)["turn"] == "in-progress"

        model.hurry.set()  # the turn comes to its end, and the goal goes on by itself
        model.wait_for_goal_turns(2)
        assert home.goals()[thread]["status"] == "active"
        server.set_goal(thread, status="paused")
        server.wait_until_idle(thread)
    (rollout,) = home.rollouts(thread)
    assert {f"answer {request.number}" for request in model.final_answers()} <= answers_kept(rollout)


@pytest.mark.parametrize("version", ["0.134.0", "0.169.0"])
def test_the_last_turn_of_a_goal_that_was_paused_by_hand_is_waited_for(
    version: str, shelf: Shelf, home: CodexHome, model: MockModel
) -> None:
    """Nothing is left to pause, and still something is in progress: as after a run that was killed."""
    kept = shelf.put_back(home, version, "compacted")
    thread, preflight = kept.thread_id, Preflight(home)
    model.goal_delay = 3
    with goal_running(kept.release, home, model, thread) as server:
        server.set_goal(thread, status="paused")
        assert not server.is_idle(thread)
        ran = preflight("run")
        assert ran.code in (0, 3), str(ran)
        assert server.is_idle(thread)
        assert ran.thread(thread)["turn"] == "idle"
        assert not ran.thread(thread)["paused_by_us"]


@pytest.mark.parametrize("version", PINNED)
def test_a_turn_of_a_named_thread_blocks_without_any_goal(
    version: str, shelf: Shelf, home: CodexHome, model: MockModel
) -> None:
    """Somebody is at work in it by hand: replacing the runtime would cut that off as well."""
    kept = shelf.put_back(home, version, "compacted")
    thread, preflight = kept.thread_id, Preflight(home)
    home.point_at(model.url)
    with AppServer(kept.release, home) as server:
        server.resume(thread)
        server.start_turn(thread, "[[sleep 3600]]")
        model.wait("the turn's request", lambda: len(model.requests) > 0)
        blocked = preflight("run", "--wait", "1 s", "--thread", thread)
        assert blocked.code == 10, str(blocked)
        assert "turn-in-progress" in blocked.findings
        model.hurry.set()
        server.wait_until_idle(thread)
