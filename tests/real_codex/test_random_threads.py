"""Threads made by chance: whatever happened in one, its resume rollout gives the model what the whole thread gives."""

from __future__ import annotations

import pytest

from tests.real_codex.codex_release import PINNED
from tests.real_codex.conftest import Codex
from tests.real_codex.homes import CodexHome
from tests.real_codex.mock_model import MockModel
from tests.real_codex.next_request import ids_in, next_input
from tests.real_codex.random_walk import RandomWalk
from tests.real_codex.resume_cut import cut, stand_alone

pytestmark = [pytest.mark.real_codex, pytest.mark.slow]

SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("version", PINNED)
def test_a_random_thread_asks_the_same(
    version: str, seed: int, codex: Codex, home: CodexHome, model: MockModel
) -> None:
    release = codex(version)
    model.goal_delay = 0.1
    home.point_at(model.url)
    walk = RandomWalk(release, home, model, seed)
    thread = walk.go()
    known = ids_in(home.path.glob("sessions/*/*/*/*.jsonl"))
    made = cut(home, thread)
    whole = next_input(release, home, thread, known)
    stand_alone(home, made)
    assert next_input(release, home, thread, known) == whole, " > ".join(walk.steps)
