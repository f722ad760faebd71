"""Whoever waits for a turn reads what was added to the rollout since the last look, and learns the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflight.codex import boundary, lines
from preflight.codex.boundary import TurnReading
from preflight.model import TurnState

META = b'{"timestamp":"t","type":"session_meta","payload":{"id":"x"}}\n'
STARTED = b'{"timestamp":"t","type":"event_msg","payload":{"type":"task_started","turn_id":"%d"}}\n'
ENDED = b'{"timestamp":"t","type":"event_msg","payload":{"type":"task_complete","turn_id":"t"}}\n'
OUTPUT = b'{"timestamp":"t","type":"response_item","payload":{"type":"function_call_output","output":"x"}}\n'

ADDED = st.sampled_from(
    [STARTED % 1, STARTED % 2, ENDED, OUTPUT * 30, OUTPUT[:40], OUTPUT[40:], b"", b"\n", ENDED[:20]]
)


def add(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@settings(deadline=None)
@given(steps=st.lists(ADDED, max_size=12))
def test_each_look_says_what_one_from_the_start_says(
    tmp_path_factory: pytest.TempPathFactory, steps: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("home") / "rollout"
    path.write_bytes(META)
    reading: TurnReading | None = None
    for data in steps:
        add(path, data)
        reading = boundary.read_turn(path, reading)
        assert reading == boundary.read_turn(path)


def test_a_long_turn_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rollout"
    path.write_bytes(META + STARTED % 1 + OUTPUT * 50_000)
    first = boundary.read_turn(path)
    add(path, OUTPUT)
    read: list[int] = []
    read_into = lines.read_into

    def counted(descriptor: int, target: memoryview, offset: int) -> int:
        read.append(len(target))
        return read_into(descriptor, target, offset)

    monkeypatch.setattr(lines, "read_into", counted)
    second = boundary.read_turn(path, first)
    assert (second.turn, second.turn_id) == (TurnState.IN_PROGRESS, "1")
    assert sum(read) < 3 * len(OUTPUT) + lines._HEAD


def test_another_file_in_its_place_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "rollout"
    path.write_bytes(META + STARTED % 1)
    first = boundary.read_turn(path)
    assert first.turn is TurnState.IN_PROGRESS
    other = tmp_path / "other"
    other.write_bytes(META + STARTED % 1 + ENDED + OUTPUT)
    other.replace(path)
    assert boundary.read_turn(path, first).turn is TurnState.IDLE


def test_a_file_that_was_cut_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "rollout"
    path.write_bytes(META + OUTPUT + STARTED % 1)
    first = boundary.read_turn(path)
    with path.open("r+b") as file:
        file.truncate(len(META))
    assert boundary.read_turn(path, first).turn is TurnState.IDLE
