"""A goal at work in a real app-server, and the proof afterwards that none of its turns was lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real_codex.app_server import AppServer
from tests.real_codex.codex_release import CodexRelease
from tests.real_codex.homes import CodexHome
from tests.real_codex.mock_model import MockModel

__all__ = ["BUDGET", "OBJECTIVE", "Prefix", "answers_kept", "goal_running"]

OBJECTIVE = "Count every file there is, then count them again"
BUDGET = 90_000_000


@contextmanager
def goal_running(
    release: CodexRelease, home: CodexHome, model: MockModel, thread: str, *, control_socket: bool = False
) -> Iterator[AppServer]:
    """An app-server that has the thread open and has begun its third turn for the goal."""
    home.point_at(model.url)
    with AppServer(release, home, control_socket=control_socket) as server:
        server.resume(thread)
        server.set_goal(thread, objective=OBJECTIVE, status="active", tokenBudget=BUDGET)
        model.wait_for_goal_turns(3)
        yield server


def answers_kept(rollout: Path, since: int = 0) -> set[str]:
    """The last words of every turn that the rollout shows as completed, from a byte offset on."""
    kept = set()
    with rollout.open("rb") as file:
        file.seek(since)
        for line in file:
            payload = json.loads(line)["payload"]
            if payload.get("type") == "task_complete" and payload.get("last_agent_message"):
                kept.add(payload["last_agent_message"])
    return kept


@dataclass(frozen=True, slots=True)
class Prefix:
    """The bytes of a file as they were; `of` takes them as they are."""

    length: int
    sha256: str

    @classmethod
    def of(cls, path: Path, length: int | None = None) -> Prefix:
        length = path.stat().st_size if length is None else length
        digest, left = hashlib.sha256(), length
        with path.open("rb") as file:
            while left and (block := file.read(min(left, 1 << 20))):
                digest.update(block)
                left -= len(block)
        return cls(length - left, digest.hexdigest())

    def is_kept_by(self, path: Path) -> bool:
        return self.of(path, self.length) == self
