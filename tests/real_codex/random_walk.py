"""A thread made by chance: the same seed takes the same steps on the same release.

walk = RandomWalk(release, home, model, seed)
thread = walk.go()          # what happened stands in walk.steps
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.real_codex.app_server import AppServer
from tests.real_codex.codex_release import CodexRelease
from tests.real_codex.homes import CodexHome
from tests.real_codex.mock_model import MockModel
from tests.real_codex.threads import REVERTS_SINCE, SMALL_CONTEXT, picture

__all__ = ["RandomWalk"]


class RandomWalk:
    """Steps of a person, a goal and a machine that may die; `turns` are the user turns that still count."""

    def __init__(self, release: CodexRelease, home: CodexHome, model: MockModel, seed: int) -> None:
        self.release, self.home, self.model = release, home, model
        self.chance = random.Random(seed)
        self.steps: list[str] = []
        self.turns: list[str] = []
        self.server = AppServer(release, home)
        self.thread = ""

    def go(self) -> str:
        """Takes the steps; the server is closed afterwards, as its owner would or by SIGKILL."""
        self.server.start()
        try:
            automatic = self.chance.random() < 0.3
            self.thread = self.server.start_thread(**({"config": SMALL_CONTEXT} if automatic else {}))
            self.steps.append("start, compacts by itself" if automatic else "start")
            self.talk()
            for _ in range(self.chance.randint(6, 14)):
                step = self.chance.choices(*zip(*self._choices(), strict=True))[0]
                self.steps.append(step.__name__)
                step()
            if self.chance.random() < 0.2:
                self.steps.append("killed at the end")
                self.server.kill()
        finally:
            if self.server.running:
                self.server.stop()
        return self.thread

    def _choices(self) -> list[tuple[Callable[[], None], int]]:
        return [
            (self.talk, 6),
            (self.use_a_tool, 4),
            (self.print_a_lot, 4),
            (self.compact, 5),
            (self.roll_back, 4),
            (self.fork, 2),
            (self.interrupt, 2),
            (self.pursue_a_goal, 2),
            (self.show_a_picture, 1),
            (self.restart, 2),
        ]

    def talk(self) -> None:
        self.turns.append(self.server.turn(self.thread, f"talk {self.chance.random()}"))

    def use_a_tool(self) -> None:
        self.turns.append(self.server.turn(self.thread, "[[run echo one; echo two]]"))

    def print_a_lot(self) -> None:
        self.turns.append(self.server.turn(self.thread, f"[[print {self.chance.randint(2000, 20000)}]]"))

    def show_a_picture(self) -> None:
        self.turns.append(self.server.turn(self.thread, "what is this?", image=picture(16)))

    def compact(self) -> None:
        self.server.compact(self.thread)

    def roll_back(self) -> None:
        """Takes back some of the last turns, and with them what lies between."""
        count = self.chance.randint(1, 3)
        if count >= len(self.turns):
            return
        first = self.turns[-count]
        if self.release.at_least(REVERTS_SINCE):
            self.server.revert(self.thread, first)
        else:
            self.server.roll_back(self.thread, count)
        del self.turns[-count:]

    def fork(self) -> None:
        self.thread = self.server.fork(self.thread)

    def interrupt(self) -> None:
        asked = len(self.model.requests)
        turn = self.server.start_turn(self.thread, "[[sleep 600]]")
        self.model.wait("the turn's request", lambda: len(self.model.requests) > asked)
        self.server.interrupt(self.thread, turn)
        self.server.wait_until_idle(self.thread)
        self.turns.append(turn)

    def pursue_a_goal(self) -> None:
        self.server.set_goal(self.thread, objective="Count every file there is", status="active")
        self.model.wait_for_goal_turns(2)
        self.server.set_goal(self.thread, status="paused")
        self.server.wait_until_idle(self.thread)
        self.server.call("thread/goal/clear", {"threadId": self.thread})

    def restart(self) -> None:
        """Dies in the middle of a turn, or is closed and opened again."""
        if self.chance.random() < 0.5:
            asked = len(self.model.requests)
            self.turns.append(self.server.start_turn(self.thread, "[[sleep 600]]"))
            self.model.wait("the turn's request", lambda: len(self.model.requests) > asked)
            self.server.kill()
        else:
            self.server.stop()
        self.server = AppServer(self.release, self.home)
        self.server.start()
        self.server.resume(self.thread)
