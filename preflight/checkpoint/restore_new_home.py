"""A thread into a new folder, which then is a Codex home with this thread alone, and its goal, paused.

Codex finds the thread by its file's name and makes the other databases when it starts (0.128 to 0.169). The
folder is built under another name beside its place: it has its own name when it is complete, or it is not there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from preflight.checkpoint import restore
from preflight.checkpoint.contents import Content
from preflight.checkpoint.restore_record import Phase, RestoreRecord, Restores
from preflight.checkpoint.restore_settle import Settled, as_paused, no_place, put_back_as
from preflight.checkpoint.restore_source import RestoreSource
from preflight.codex import goals
from preflight.codex.thread_rows import RowOutcome
from preflight.errors import Unverified, UsageProblem
from preflight.model import Finding
from preflight.system import files
from preflight.system.deadline import Deadline

__all__ = ["complete_new_home", "plan_new_home", "settle_interrupted"]


def plan_new_home(
    source: RestoreSource, wanted: Sequence[Content], to: Path, *, what: str, restore_id: str, at_ms: int
) -> RestoreRecord:
    """What goes where in the new home; the place of the old one will do, when that is gone.

    UsageProblem when it exists already, or lies where none must be made.
    """
    if os.path.lexists(to):
        raise UsageProblem("this path exists already; restore only makes a new one", path=to, hint="name another one")
    if not to.parent.is_dir():
        raise UsageProblem("the folder to make it in does not exist", path=to.parent, hint="make it first")
    real = Path(os.path.realpath(to))
    for taken in (source.manifest.home.path, source.store.root):
        if taken.exists() and real.is_relative_to(os.path.realpath(taken)):
            raise UsageProblem(
                "a new home cannot lie inside the old one, nor inside the store", path=to, hint="name another place"
            )
    return RestoreRecord(
        restore_id=restore_id,
        phase=Phase.STAGING,
        what=what,
        home=to,
        checkpoint_id=source.manifest.checkpoint_id,
        thread_id=source.thread.thread_id,
        at_ms=at_ms,
        files=tuple(restore.placed(content, to, (), restore_id) for content in wanted),
        new_home=to,
        building=to.with_name(f".{to.name}.{restore_id}{files.TEMPORARY_SUFFIX}"),
    )


def complete_new_home(
    restores: Restores, record: RestoreRecord, source: RestoreSource, deadline: Deadline
) -> tuple[RestoreRecord, Settled]:
    """Add the goal to the rollouts that are built, and give the folder its name."""
    goal, findings = _goal(record, source, deadline)
    _give_name(record)
    record = restores.save(replace(record, phase=Phase.DONE))
    return record, Settled(RowOutcome.LEFT, goal, 0, tuple(findings))


def settle_interrupted(restores: Restores, record: RestoreRecord) -> bool:
    """After a kill: True when the folder has its name already; else it is taken away."""
    assert record.building is not None  # noqa: S101
    assert record.new_home is not None  # noqa: S101
    named = not os.path.lexists(record.building) and record.new_home.is_dir()
    if not named:
        restore.call_off(record)
    restores.save(replace(record, phase=Phase.DONE if named else Phase.CANCELLED))
    return named


def _goal(record: RestoreRecord, source: RestoreSource, deadline: Deadline) -> tuple[str | None, list[Finding]]:
    assert record.building is not None  # noqa: S101
    goal = as_paused(source.thread.goal, record.at_ms)
    if goal is None:
        return None, []
    copy = source.database("goals")
    if copy is None:
        return goals.Outcome.NO_PLACE.value, [no_place(goal)]
    goals.make_database(copy, record.building / copy.name, goal, deadline)
    return put_back_as(goals.Outcome.INSERTED, goal), []


def _give_name(record: RestoreRecord) -> None:
    """The last step. Somebody who has made the folder meanwhile keeps it, unless it is empty."""
    assert record.building is not None  # noqa: S101
    assert record.new_home is not None  # noqa: S101
    if os.path.lexists(record.new_home):
        raise Unverified("somebody else has made this folder meanwhile", path=record.new_home)
    with files.our_file(record.new_home):
        record.building.rename(record.new_home)
    files.sync_folder(record.new_home.parent)
