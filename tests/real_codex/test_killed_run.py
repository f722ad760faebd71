"""A run that is killed, at ten points: the next calls find their way, and every goal is as it was."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.real_codex.conftest import Shelf
from tests.real_codex.goal_runs import BUDGET, OBJECTIVE, answers_kept, goal_running
from tests.real_codex.homes import CodexHome
from tests.real_codex.mock_model import MockModel
from tests.real_codex.preflight_command import Preflight

pytestmark = [pytest.mark.real_codex, pytest.mark.slow]

PROGRAM = Path(__file__).with_name("killed_run.py")

# Audit event, name of the file, which one of them, seconds after it (see killed_run.py); the goal's status then.
POINTS = {
    "the lock is held, nobody knows by whom": ("os.rename", ".run.json.*", 1, 0.0, "active"),
    "before the promise to pause is written": ("open", "journal.jsonl", 1, 0.0, "active"),
    "promised, not paused": ("sqlite3.connect", "*_[0-9].sqlite", 1, 0.0, "active"),
    "paused, not confirmed": ("open", "journal.jsonl", 3, 0.0, "paused"),
    "paused, nothing copied": ("os.mkdir", "databases", 1, 0.0, "paused"),
    "a resume rollout without its name": ("os.rename", ".rollout-*", 1, 0.0, "paused"),
    "before the trial": ("subprocess.Popen", "* app-server", 1, 0.0, "paused"),
    "in the middle of the trial": ("subprocess.Popen", "* app-server", 1, 0.2, "paused"),
    "everything but the manifest": ("os.link", ".manifest.json.*", 1, 0.0, "paused"),
    "all done but the lock": ("os.remove", "run.json", 1, 0.0, "paused"),
}


def run_killed_at(point: str, preflight: Preflight) -> None:
    event, name, count, seconds, _ = POINTS[point]
    told = [PROGRAM, event, name, str(count), str(seconds)]
    process = preflight.start([sys.executable, "-W", "error", *told, *preflight.command("run")])
    with process:
        said, words = process.communicate(timeout=150)
    assert process.returncode == -signal.SIGKILL, f"there is no such point any more: {point}\n{said}\n{words}"


def identity(goal: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(goal[name] for name in ("goal_id", "objective", "token_budget", "created_at_ms"))


def left_running(store: Path) -> list[psutil.Process]:
    """Runtimes in a scratch home of this store, which their parent did not live to end."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("CODEX_HOME", "").startswith(str(store)):
                left.append(process)
        except psutil.Error:
            continue
    return left


@pytest.mark.parametrize("version", ["0.128.0", "0.169.0"])
def test_after_a_kill_every_goal_is_put_back(version: str, shelf: Shelf, home: CodexHome, model: MockModel) -> None:
    kept = shelf.put_back(home, version, "compacted")
    thread, preflight = kept.thread_id, Preflight(home)
    with goal_running(kept.release, home, model, thread) as server:
        goal = identity(home.goals()[thread])
        assert goal[1:3] == (OBJECTIVE, BUDGET)
        paused_by_hand = server.start_thread()
        server.turn(paused_by_hand, "hello")
        server.set_goal(paused_by_hand, objective="Wait for me", status="paused")
        theirs = home.goals()[paused_by_hand]
        for number, point in enumerate(POINTS):
            run_killed_at(point, preflight)
            assert identity(home.goals()[thread]) == goal, point
            assert home.goals()[thread]["status"] == POINTS[point][-1], point

            if number % 2:  # in every other round nobody calls `run` again before the goals are put back
                again = preflight("run")
                assert again.code in (0, 3), f"{point}\n{again}"
                assert home.goals()[thread]["status"] == "paused", point
            put_back = preflight("resume-goals")
            assert put_back.code == 0, f"{point}\n{put_back}"
            assert home.goals()[thread]["status"] == "active", point
            assert identity(home.goals()[thread]) == goal, point
            assert home.goals()[paused_by_hand] == theirs, point

            server.set_goal(thread, status="active")  # behind the back of an idle server a goal does not go on
            model.wait_for_goal_turns(1)
        server.set_goal(thread, status="paused")
        server.wait_until_idle(thread)

    (rollout,) = home.rollouts(thread)
    answered = {f"answer {request.number}" for request in model.final_answers() if request.thread_id == thread}
    assert set() < answered <= answers_kept(rollout)
    until = time.monotonic() + 20
    while left_running(preflight.store) and time.monotonic() < until:
        time.sleep(0.1)
    assert left_running(preflight.store) == []
