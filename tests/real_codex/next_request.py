"""What the model is asked next: the `input` of the first request after a resume, made comparable.

Ids and times that Codex makes up while it resumes are masked; ids that stand in the thread's rollouts are not, so
that an item that lost its identity is a difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.real_codex.app_server import AppServer
from tests.real_codex.codex_release import CodexRelease
from tests.real_codex.homes import LOOPBACK, CodexHome
from tests.real_codex.mock_model import MockModel

__all__ = ["ids_in", "next_input", "next_inputs"]

ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|(?<=_)[0-9a-f]{24,32}")
TIME = re.compile(r'("create_time": )[0-9.e+]+')
QUESTION = "what did we do so far?"


def ids_in(rollouts: Iterable[Path]) -> set[str]:
    return {found for path in rollouts for found in ID.findall(path.read_text(errors="replace"))}


def next_input(
    release: CodexRelease, home: CodexHome, thread: str, known_ids: set[str], provider: str = LOOPBACK
) -> list[Any]:
    """Resumes the thread, asks one question, and answers what the model was sent with it."""
    return next_inputs(release, home, [thread], known_ids, provider)[thread]


def next_inputs(
    release: CodexRelease,
    home: CodexHome,
    threads: Sequence[str],
    known_ids: set[str],
    provider: str = LOOPBACK,
    look: Callable[[AppServer, str], object] = lambda _server, _thread: None,
) -> dict[str, list[Any]]:
    """The same of several threads, one after the other; `look` sees each one when it is open and was not asked yet."""
    with MockModel() as model:
        home.point_at(model.url, provider)
        with AppServer(release, home) as server:
            for thread in threads:
                assert server.resume(thread)["id"] == thread
                look(server, thread)
                server.turn(thread, QUESTION)
        asked = [request for request in model.requests if request.input]
        assert [request.prompt for request in asked] == [QUESTION] * len(threads), "one request each, and it is ours"
    return {thread: _comparable(request.input, known_ids) for thread, request in zip(threads, asked, strict=True)}


def _comparable(asked: list[Any], known_ids: set[str]) -> list[Any]:
    text = json.dumps(asked, sort_keys=True)
    text = ID.sub(lambda found: found.group() if found.group() in known_ids else "ID", text)
    return json.loads(TIME.sub(r"\g<1>0", text))
