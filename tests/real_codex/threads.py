"""Real threads of every kind that a boundary must be right for, each made by a few calls of the app-server.

A maker gets a started server and its model and answers the id of the thread it is about.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from tests.real_codex.app_server import AppServer
from tests.real_codex.codex_release import CodexRelease
from tests.real_codex.homes import LOOPBACK
from tests.real_codex.mock_model import MockModel

__all__ = ["KINDS", "Kind", "picture"]

SMALL_CONTEXT = {"model_auto_compact_token_limit": 14_000}  # two turns with some output fill it
REVERTS_SINCE = "0.158.0"  # thread/rollback before, thread/revert from then on
PAGINATED_SINCE = "0.154.0"


@dataclass(frozen=True, slots=True)
class Kind:
    """`boundary`: whether a resume rollout may be shorter than the thread; `provider` is the model provider's name:
    Codex has "OpenAI" compact by itself, through the service, instead of with a prompt."""

    name: str
    make: Callable[[AppServer, MockModel], str]
    boundary: bool = True
    since: str = "0.128.0"
    before: str | None = None
    provider: str = LOOPBACK

    def can_be_made_by(self, release: CodexRelease) -> bool:
        return release.at_least(self.since) and not (self.before and release.at_least(self.before))


def work(server: AppServer, thread: str) -> None:
    server.turn(thread, "please look around")
    server.turn(thread, "[[run echo one; echo two]]")
    server.turn(thread, "[[print 4000]]")


def small(server: AppServer, model: MockModel) -> str:
    thread = server.start_thread()
    work(server, thread)
    return thread


def compacted(server: AppServer, model: MockModel) -> str:
    """Two compactions by hand, work before, between and after."""
    return _compacted(server, server.start_thread())


def compacted_legacy(server: AppServer, model: MockModel) -> str:
    """The old layout on a release that paginates by itself."""
    return _compacted(server, server.start_thread(historyMode="legacy"))


def _compacted(server: AppServer, thread: str) -> str:
    for _ in range(2):
        work(server, thread)
        server.compact(thread)
    work(server, thread)
    return thread


def compacted_at_the_end(server: AppServer, model: MockModel) -> str:
    """Nothing after the compaction: the settings of the turn before it are still needed."""
    thread = server.start_thread()
    work(server, thread)
    server.compact(thread)
    work(server, thread)
    server.compact(thread)
    return thread


def compacted_automatically(server: AppServer, model: MockModel) -> str:
    thread = server.start_thread(config=SMALL_CONTEXT)
    for part in range(6):
        server.turn(thread, f"[[print 12000]] part {part}")
    return thread


def rolled_back(server: AppServer, model: MockModel) -> str:
    """The rollback stays behind the compaction."""
    thread = server.start_thread()
    work(server, thread)
    server.compact(thread)
    work(server, thread)
    server.compact(thread)
    server.turn(thread, "kept")
    server.turn(thread, "rolled back")
    server.roll_back(thread, 1)
    server.turn(thread, "after the rollback")
    return thread


def rolled_back_across(server: AppServer, model: MockModel) -> str:
    """The rollback takes the only compaction with it."""
    thread = server.start_thread()
    server.turn(thread, "kept")
    server.turn(thread, "rolled back")
    server.compact(thread)
    server.turn(thread, "rolled back as well")
    server.roll_back(thread, 2)
    server.turn(thread, "after the rollback")
    return thread


def rolled_back_automatic(server: AppServer, model: MockModel) -> str:
    """The turn that is rolled back has compacted while it ran; an older compaction is left."""
    thread = server.start_thread(config=SMALL_CONTEXT)
    work(server, thread)
    server.compact(thread)
    for part in range(4):
        server.turn(thread, f"[[print 12000]] part {part}")
    server.roll_back(thread, 1)
    server.turn(thread, "after the rollback")
    return thread


def forked(server: AppServer, model: MockModel) -> str:
    """From 0.154 on the fork's own file holds one turn, and the compaction is in the file it goes on from."""
    parent = server.start_thread()
    work(server, parent)
    server.compact(parent)
    work(server, parent)
    server.compact(parent)
    server.turn(parent, "the last that both have")
    fork = server.fork(parent)
    server.turn(fork, "only in the fork")
    return fork


def reverted(server: AppServer, model: MockModel) -> str:
    thread = server.start_thread()
    work(server, thread)
    server.compact(thread)
    server.turn(thread, "kept")
    dropped = server.turn(thread, "reverted")
    server.revert(thread, dropped)
    server.turn(thread, "after the revert")
    return thread


def reverted_across(server: AppServer, model: MockModel) -> str:
    """The revert takes the only compaction with it."""
    thread = server.start_thread()
    server.turn(thread, "kept")
    dropped = server.turn(thread, "reverted")
    server.compact(thread)
    server.turn(thread, "reverted as well")
    server.revert(thread, dropped)
    server.turn(thread, "after the revert")
    return thread


def reverted_fork(server: AppServer, model: MockModel) -> str:
    """Three files: a revert segment of a fork of a thread."""
    fork = forked(server, model)
    dropped = server.turn(fork, "reverted")
    server.revert(fork, dropped)
    server.turn(fork, "after the revert")
    return fork


def with_a_subagent(server: AppServer, model: MockModel) -> str:
    parent, _ = _spawned(server, model)
    server.compact(parent)
    work(server, parent)
    return parent


def subagent(server: AppServer, model: MockModel) -> str:
    """The sub-agent's own thread, grown until it had to be compacted."""
    _, child = _spawned(server, model)
    server.resume(child)
    work(server, child)
    server.compact(child)
    work(server, child)
    return child


def _spawned(server: AppServer, model: MockModel) -> tuple[str, str]:
    """A parent and its sub-agent, which Codex does not always announce: its first request tells."""
    parent = server.start_thread()
    work(server, parent)
    server.turn(parent, "[[spawn count the files here]]")

    def theirs() -> list[str]:
        return [str(one.thread_id) for one in model.final_answers() if one.thread_id != parent]

    model.wait("the sub-agent's answer", lambda: len(theirs()) > 0)
    child = theirs()[0]
    server.wait_until_idle(child)
    return parent, child


def with_images(server: AppServer, model: MockModel) -> str:
    thread = server.start_thread()
    server.turn(thread, "what is this? d\u00e9j\u00e0 vu \u4f60\u597d \U0001f600 \u2028", image=picture(64))
    work(server, thread)
    server.compact(thread)
    server.turn(thread, "and this?", image=picture(32))
    return thread


def picture(side: int) -> str:
    """A small valid PNG, as a data URL."""
    rows = b"".join(b"\0" + bytes(x * y % 256 for x in range(3 * side)) for y in range(side))

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()


def goal_loop(server: AppServer, model: MockModel) -> str:
    """A person's turns at the beginning, then a goal's alone, with compactions between them.

    The goal itself is gone at the end, so that a resume stays quiet.
    """
    thread = server.start_thread()
    work(server, thread)
    for _ in range(2):
        _go_on_with_a_goal(server, model, thread)
        server.compact(thread)
    _go_on_with_a_goal(server, model, thread)
    server.call("thread/goal/clear", {"threadId": thread})
    return thread


def _go_on_with_a_goal(server: AppServer, model: MockModel, thread: str) -> None:
    server.set_goal(thread, objective="Count every file there is", status="active")
    model.wait_for_goal_turns(2)
    server.set_goal(thread, status="paused")
    server.wait_until_idle(thread)


def killed(server: AppServer, model: MockModel) -> str:
    """The process died in the middle of a turn, with a tool call answered and nothing after it."""
    thread = _compacted(server, server.start_thread())
    asked = len(model.requests)
    server.start_turn(thread, "[[sleep 60]] [[run echo never]]")
    model.wait("the turn's request", lambda: len(model.requests) > asked)
    server.kill()
    return thread


KINDS = {
    kind.name: kind
    for kind in (
        Kind("small", small, boundary=False),
        Kind("compacted", compacted),
        Kind("compacted-legacy", compacted_legacy, since=PAGINATED_SINCE),
        Kind("compacted-remotely", compacted, provider="OpenAI"),
        Kind("compacted-at-the-end", compacted_at_the_end),
        Kind("compacted-automatically", compacted_automatically),
        Kind("rolled-back", rolled_back, before=REVERTS_SINCE),
        Kind("rolled-back-across", rolled_back_across, boundary=False, before=REVERTS_SINCE),
        Kind("rolled-back-automatic", rolled_back_automatic, before=REVERTS_SINCE),
        Kind("forked", forked),
        Kind("reverted", reverted, since=REVERTS_SINCE),
        Kind("reverted-across", reverted_across, boundary=False, since=REVERTS_SINCE),
        Kind("reverted-fork", reverted_fork, since=REVERTS_SINCE),
        Kind("with-a-sub-agent", with_a_subagent),
        Kind("sub-agent", subagent),
        Kind("with-images", with_images),
        Kind("goal-loop", goal_loop),
        Kind("killed", killed),
    )
}
