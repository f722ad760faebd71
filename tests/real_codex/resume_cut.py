"""The resume rollout of a real thread, written by the product, and a home in which nothing else is left of it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from preflight.codex import boundary, resume_rollout
from preflight.codex.boundary import GAP_LIMIT
from preflight.codex.home import find_homes
from preflight.codex.threads import find_threads
from preflight.system.deadline import Deadline
from tests.real_codex.homes import CodexHome

__all__ = ["Cut", "cut", "stand_alone"]


@dataclass(frozen=True, slots=True)
class Cut:
    """A resume rollout, and what it was made from: how many bytes of how many files.

    `settings_apart`: the lines of an older user turn were taken out of what is otherwise left away.
    """

    path: Path
    data: bytes
    whole: bool
    settings_apart: bool
    lineage_bytes: int
    files: int


def cut(home: CodexHome, thread: str, gap_limit: int = GAP_LIMIT) -> Cut:
    """The resume rollout of the thread as the product finds it in this home; `gap_limit` is `read_tail`'s."""
    (found,) = find_homes([home.path], {}, home.user)[0]
    (one,) = (one for one in find_threads(found, Deadline(60)).threads if one.thread_id == thread)
    assert one.findings == ()
    target = io.BytesIO()
    with boundary.opened(one.lineage) as files:
        tail = boundary.read_tail(files, gap_limit=gap_limit)
        plan = resume_rollout.plan_resume(files, tail)
        resume_rollout.write_resume_rollout(files, plan, target, len)
        return Cut(
            path=files.path(0),
            data=target.getvalue(),
            whole=plan.whole,
            settings_apart=tail.boundary is not None and tail.boundary.settings != (),
            lineage_bytes=sum(files.ends),
            files=len(files.lineage),
        )


def stand_alone(home: CodexHome, made: Cut) -> None:
    """A home that holds this one rollout and nothing else: no database knows the thread."""
    home.make()
    made.path.parent.mkdir(parents=True)
    made.path.write_bytes(made.data)
