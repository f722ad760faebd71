"""A rollout of nothing but tiny lines, or tiny turns, is read in the memory of an ordinary one, and as exactly."""

from __future__ import annotations

import itertools
import os
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from preflight.codex import boundary, history, lines, rollout
from preflight.codex.sample_rollout import RolloutWriter, rollout_path
from preflight.model import RolloutFile, Segment
from tests.integration.test_bad_long_lines import NOW, peak_of_a_run
from tests.troubled_home import make_troubled_home

THREAD = "01a2036d-0000-7000-8000-000000000001"

TURN = NOW + b'"type":"event_msg","payload":{"type":"task_started","turn_id":"t"}}\n'
CONTEXT = NOW + b'"type":"turn_context","payload":{"turn_id":"t"}}\n'
WORDS = NOW + b'"type":"event_msg","payload":{"type":"user_message","message":"go on"}}\n'
BASE = NOW + b'"type":"compacted","payload":{"message":"m","replacement_history":[]}}\n'

#: What is repeated, and how often: with something kept for each of them it would take 25 MB and more.
TINY = {
    "empty objects": (b"{}\n", 500_000),
    "turns that nobody began": (TURN, 300_000),
    "user turns": (TURN + CONTEXT + WORDS, 150_000),
    "compactions": (BASE, 150_000),
    "contexts in turn with outputs": (CONTEXT + NOW + b'"type":"world","payload":1}\n', 200_000),
}


def made(folder: Path, fill: Callable[[RolloutWriter], None]) -> Path:
    path = rollout_path(folder, THREAD)
    with RolloutWriter(path, THREAD) as writer:
        writer.turn("The first one.", outputs=[300])
        writer.compaction()
        fill(writer)
    return path


def lineage_at(path: Path) -> tuple[Segment, ...]:
    file = RolloutFile(
        place=str(path),
        thread_id=THREAD,
        segment_id=None,
        stamp="",
        archived=False,
        compressed=False,
        identity=rollout.identity_of(path.stat()),
    )
    return (Segment(file=file, end_offset=None),)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("kind", TINY)
def test_a_run_needs_no_more_memory_for_them(tmp_path: Path, kind: str) -> None:
    line, count = TINY[kind]
    few = make_troubled_home(tmp_path / "few", lambda writer: writer.raw(line * 10))
    many = make_troubled_home(tmp_path / "many", lambda writer: writer.raw(line * count))
    (code, base), (same, peak) = (peak_of_a_run(home, "run", "--archive", "never") for home in (few, many))
    assert (code, same) == (0, 0)
    assert peak - base < 20_000_000, f"{base:,} bytes with 10 of them, {peak:,} with {count:,}"


def test_every_one_of_them_is_met_once_and_newest_first(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(TURN * 40_000 + b"{}\n" * 300_000 + TURN * 10 + b"x\n" * 100_000)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        spans = list(lines.lines_backwards(descriptor, path.stat().st_size, path))
    finally:
        os.close(descriptor)
    assert len(spans) == 440_010
    assert spans[0][1] == path.stat().st_size
    assert spans[-1][0] == 0
    assert all(newer[0] == older[1] for newer, older in itertools.pairwise(spans))


def test_the_places_of_no_more_than_some_thousands_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"{}\n" * 400_000)
    descriptor = os.open(path, os.O_RDONLY)
    tracemalloc.start()
    try:
        count = sum(1 for _ in lines.lines_backwards(descriptor, path.stat().st_size, path))
        _, needed = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        os.close(descriptor)
    assert count == 400_000
    assert needed < 20_000_000


@pytest.mark.parametrize("told_apart", [1 << 15, 4])
@pytest.mark.parametrize("rolled_back", [0, 1, 2, 3])
def test_turns_that_are_not_told_apart_count_until_a_rollback_reaches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told_apart: int, rolled_back: int
) -> None:
    monkeypatch.setattr(history, "_MOST_TURNS", told_apart)

    def fill(writer: RolloutWriter) -> None:
        for number in range(10):
            writer.turn(f"Number {number}.", outputs=[100])
            writer.goal_turn("The goal.", outputs=[100])
        if rolled_back:
            writer.rollback(rolled_back)

    with boundary.opened(lineage_at(made(tmp_path, fill))) as files:
        expected = history.history_of_original(files, boundary.read_tail(files, gap_limit=0))
        assert expected is not None
        assert history.replay(files).history == expected


def test_a_rollback_over_more_turns_than_are_told_apart_leaves_the_history_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(writer: RolloutWriter) -> None:
        for number in range(10):
            writer.turn(f"Number {number}.", outputs=[100])
        writer.rollback(8)

    with boundary.opened(lineage_at(made(tmp_path, fill))) as files:
        assert history.replay(files).history is not None
        monkeypatch.setattr(history, "_MOST_TURNS", 4)
        assert history.replay(files).history is None


def test_a_turn_of_very_many_pieces_is_copied_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(writer: RolloutWriter) -> None:
        writer.turn("Number 1.", outputs=[9_000] * 9)
        for _ in range(9):
            writer.goal_turn("The goal.", outputs=[300] * 9)
        writer.goal_turn("The goal.", compacts=True)

    with boundary.opened(lineage_at(made(tmp_path, fill))) as files:
        in_pieces = boundary.read_tail(files, gap_limit=0).boundary
        monkeypatch.setattr(boundary, "_MOST_PIECES", 1)
        whole = boundary.read_tail(files, gap_limit=0).boundary
    assert in_pieces is not None
    assert whole is not None
    assert len(in_pieces.settings) > 1
    (piece,) = whole.settings
    assert piece.start == in_pieces.settings[0].start
    assert piece.end >= in_pieces.settings[-1].end
