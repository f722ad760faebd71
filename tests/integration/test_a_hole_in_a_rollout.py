"""A large hole in a rollout, as a crash or a sparse copy leaves it: no memory is spent on it."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

from preflight.codex import boundary, rollout
from preflight.codex.sample_rollout import RolloutWriter, rollout_path
from preflight.model import RolloutFile, Segment, Tail, TurnState

THREAD = "01a2036d-0000-7000-8000-000000000001"
HOLE = 200 << 20
ENOUGH = 8 << 20


def with_hole(path: Path) -> Path:
    """A compaction, the beginning of a line, a hole that ends it, one more turn. It takes no room on the disk."""
    with RolloutWriter(path, THREAD) as writer:
        writer.turn()
        writer.compaction()
        writer.turn("Before the hole.")
        writer.raw(b'{"timestamp":"2026-05-30T09:00')
    with path.open("r+b") as file:
        file.seek(HOLE, 2)
        file.write(b"\n")
    later = path.with_name("later")
    with RolloutWriter(later, THREAD) as writer:
        writer.turn("Behind the hole.", end="open")
    with path.open("ab") as file:
        file.write(later.read_bytes().partition(b"\n")[2])
    return path


def read(path: Path) -> tuple[Tail, int]:
    """Its tail, and the most memory that Python had for it."""
    file = RolloutFile(
        place=str(path),
        thread_id=THREAD,
        segment_id=None,
        stamp="",
        archived=False,
        compressed=False,
        identity=rollout.identity_of(path.stat()),
    )
    tracemalloc.start()
    try:
        with boundary.opened((Segment(file=file, end_offset=None),)) as files:
            tail = boundary.read_tail(files)
        return tail, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_walk_goes_through_it_without_holding_it(tmp_path: Path) -> None:
    tail, needed = read(with_hole(rollout_path(tmp_path, THREAD)))

    assert tail.boundary is not None
    assert tail.boundary.offset < HOLE
    assert tail.damaged_lines == 1
    assert needed < ENOUGH


def test_the_newest_turn_is_seen_behind_it_and_before_it(tmp_path: Path) -> None:
    path = with_hole(rollout_path(tmp_path, THREAD))
    assert boundary.read_turn(path).turn is TurnState.IN_PROGRESS

    os.truncate(path, HOLE)
    with path.open("ab") as file:
        file.write(b"\n")
    assert boundary.read_turn(path).turn is TurnState.IDLE
