"""The sample home is what the real Codex takes it for: it resumes its threads and goes on with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from preflight.codex.sample_home import SampleHome, make_sample_home
from preflight.model import GoalStatus
from tests.real_codex.app_server import AppServer, RpcError
from tests.real_codex.conftest import Codex
from tests.real_codex.homes import CodexHome
from tests.real_codex.mock_model import MockModel, text_of

pytestmark = [pytest.mark.real_codex, pytest.mark.slow]

RELEASES = [("0.134.0", False), ("0.169.0", False), ("0.169.0", True)]


def sample(home: CodexHome, model: MockModel, *, paginated: bool) -> SampleHome:
    """A small sample home whose threads belong to the model of this test, without the reduced state database."""
    made = make_sample_home(home.path, large_bytes=300_000, paginated=paginated, goal_status=GoalStatus.PAUSED)
    made.state_db.unlink()
    home.point_at(model.url)
    for rollout in (made.large_rollout, made.damaged_rollout, made.control_rollout):
        own = rollout.read_bytes().replace(b'"model_provider":"openai"', b'"model_provider":"loopback"', 1)
        rollout.write_bytes(own)
    return made


def turns_in(rollout: Path) -> int:
    return rollout.read_bytes().count(b'"type":"task_started"')


def last_summary(rollout: Path) -> str:
    compacted = [line for line in rollout.read_bytes().splitlines() if b'"type":"compacted"' in line]
    return json.loads(compacted[-1])["payload"]["message"]


@pytest.mark.parametrize(("version", "paginated"), RELEASES)
def test_it_resumes_a_sample_thread_and_the_model_gets_its_history(
    codex: Codex, home: CodexHome, model: MockModel, version: str, paginated: bool
) -> None:
    made = sample(home, model, paginated=paginated)
    turns, summary = turns_in(made.large_rollout), last_summary(made.large_rollout)
    with AppServer(codex(version), home) as server:
        thread = server.resume(made.large_thread_id)
        assert len(thread["turns"]) == turns
        assert model.requests == []
        server.turn(made.large_thread_id, "And now?")
        goal = server.goal(made.large_thread_id)
    told = [text_of(item) for item in model.requests[0].input]
    assert summary in told
    assert told[-1] == "And now?"
    assert goal is not None
    assert (goal["status"], goal["objective"]) == ("paused", made.goal.objective)


@pytest.mark.parametrize("version", ["0.134.0", "0.169.0"])
def test_it_refuses_the_damaged_thread_and_goes_on_with_the_healthy_one(
    codex: Codex, home: CodexHome, model: MockModel, version: str
) -> None:
    made = sample(home, model, paginated=False)
    with AppServer(codex(version), home) as server:
        with pytest.raises(RpcError, match="UTF-8"):
            server.resume(made.damaged_thread_id)
        assert len(server.resume(made.control_thread_id)["turns"]) == turns_in(made.control_rollout)
