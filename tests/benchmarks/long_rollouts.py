"""Rollouts of any size for the benchmarks: real records, written quickly, with boundaries where they are wanted.

Some hundred turns of `RolloutWriter` are written once and then repeated up to the size, so that gigabytes
cost what the disk costs. Between them stand compactions at known distances from the end. A search is
given one of them by switching the others off in place: `compacted` becomes a type that no program knows,
of the same length. So every distance is measured on the same file.
"""

from __future__ import annotations

import base64
import itertools
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from preflight.codex.sample_records import STARTED, sample_uuid
from preflight.codex.sample_rollout import RolloutWriter
from preflight.model import RolloutFile, Segment
from preflight.system import files

__all__ = ["STAMP", "Compaction", "LongRollout", "write_images", "write_text", "write_with_hole"]

STAMP = f"{STARTED:%Y-%m-%dT%H-%M-%S}"

_KIND = b'"type":"compacted"'
_SWITCHED_OFF = b'"type":"compactex"'
_LINE_BEGINNING = 100  # of a line's bytes; its type stands in them
_OBJECTIVE = "Make every test of the sample pass."
# The outputs of one goal turn, as in reported threads: most commands say little, few say much, some say megabytes.
_OUTPUTS = (300, 1_200, 600, 2_500, 400, 900, 12_000, 300, 700, 5_000, 450, 1_800, 45_000, 350, 800, 3_000, 500)
_LARGE_OUTPUT, _LARGE_EVERY = 4_000_000, 40
_TURNS = 200
_ORDINARY_TURN = 200_000
_USER_TURN_EVERY = 7


@dataclass(frozen=True, slots=True)
class Compaction:
    """`turn_at` is where its turn begins, the boundary; `line_at` where its own line does."""

    turn_at: int
    line_at: int


@dataclass(frozen=True, slots=True)
class LongRollout:
    """One file, and its compactions by the distance from its end that was asked for."""

    path: Path
    thread_id: str
    size_bytes: int
    compactions: Mapping[int, Compaction]

    @property
    def lineage(self) -> tuple[Segment, ...]:
        file = RolloutFile(
            place=str(self.path),
            thread_id=self.thread_id,
            segment_id=None,
            stamp=STAMP,
            archived=False,
            compressed=False,
            identity=files.identity(self.path),
        )
        return (Segment(file=file, end_offset=None),)

    def only(self, distance: int | None) -> Compaction | None:
        """Leave this compaction alone switched on, or none; the file is on the disk when this returns."""
        with self.path.open("r+b", buffering=0) as file:
            for each, compaction in self.compactions.items():
                beginning = os.pread(file.fileno(), _LINE_BEGINNING, compaction.line_at)
                at = max(beginning.find(_KIND), beginning.find(_SWITCHED_OFF))
                os.pwrite(file.fileno(), _KIND if each == distance else _SWITCHED_OFF, compaction.line_at + at)
            os.fsync(file.fileno())
        return None if distance is None else self.compactions[distance]


def write_text(path: Path, name: str, size: int, distances: Iterable[int]) -> LongRollout:
    """Write a legacy rollout of at least `size` bytes, of text, with a compaction at each distance from its end."""
    thread_id = _thread_id(name)
    stock = _stock(path.with_name(f"{path.name}.stock"), thread_id)
    compactions = {}
    with path.open("xb", buffering=1 << 20) as file:
        file.write(stock.beginning)
        turns = itertools.cycle(stock.turns)
        for distance in sorted(distances, reverse=True):
            _fill(file, turns, size - distance)
            compactions[distance] = Compaction(file.tell(), file.tell() + stock.compacted_at)
            file.write(stock.compaction)
        _fill(file, turns, size)
        file.flush()
        os.fsync(file.fileno())
    return LongRollout(path, thread_id, path.stat().st_size, compactions)


def write_images(path: Path, name: str, line_bytes: Sequence[int]) -> LongRollout:
    """Write a rollout whose compactions keep images: one `compacted` line of each length, a short turn behind each.

    The newest one has the distance 1, the one before it 2, and so on.
    """
    thread_id = _thread_id(name)
    chance = random.Random(thread_id)
    compactions = {}
    with RolloutWriter(path, thread_id) as writer:
        writer.turn("Please look at these pictures.")
        for number, length in enumerate(line_bytes):
            image = "data:image/png;base64," + base64.b64encode(chance.randbytes(length * 3 // 4)).decode()
            content = [{"type": "input_text", "text": "Look."}, {"type": "input_image", "image_url": image}]
            history = [{"type": "message", "role": "user", "content": content}]
            turn_id = sample_uuid(number, thread_id)
            turn_at = writer.size_bytes
            writer.event("task_started", turn_id=turn_id, model_context_window=None, collaboration_mode_kind="default")
            compactions[len(line_bytes) - number] = Compaction(turn_at, writer.size_bytes)
            writer.record("compacted", {"message": "So far.", "replacement_history": history})
            writer.event("task_complete", turn_id=turn_id, last_agent_message=None)
            writer.turn("And now?", outputs=(2_000,))
    files.flush(path)
    return LongRollout(path, thread_id, path.stat().st_size, compactions)


def write_with_hole(path: Path, source: LongRollout, size: int, tail: int) -> LongRollout:
    """Write a sparse file of `size` bytes: the first line of `source`, a hole, and its last `tail` bytes.

    A hole reads as NUL bytes, and they make one line with what is left of the line behind them: this is
    a thread with a damaged middle. It takes `tail` bytes of the disk.
    """
    moved = size - source.size_bytes
    with source.path.open("rb", buffering=0) as whole, path.open("xb", buffering=0) as file:
        file.write(whole.readline())
        file.seek(size - tail)
        files.copy_range(whole.fileno(), file.fileno(), source.size_bytes - tail, tail)
        os.fsync(file.fileno())
    compactions = {
        distance: Compaction(found.turn_at + moved, found.line_at + moved)
        for distance, found in source.compactions.items()
        if distance < tail
    }
    return LongRollout(path, source.thread_id, path.stat().st_size, compactions)


def _thread_id(name: str) -> str:
    return sample_uuid(int(STARTED.timestamp() * 1000), name)


@dataclass(frozen=True, slots=True)
class _Stock:
    """What a rollout is put together from; `compaction` is a turn that compacts and a person's turn behind it."""

    beginning: bytes
    turns: Sequence[bytes]
    compaction: bytes
    compacted_at: int


def _stock(path: Path, thread_id: str) -> _Stock:
    cuts = []
    try:
        with RolloutWriter(path, thread_id) as writer:
            writer.turn()
            cuts.append(writer.size_bytes)
            for number in range(1, _TURNS + 1):
                outputs = (*_OUTPUTS, _LARGE_OUTPUT) if number % _LARGE_EVERY == 0 else _OUTPUTS
                if number % _USER_TURN_EVERY == 0:
                    writer.turn(f"Part {number} looks right.", outputs=outputs)
                else:
                    writer.goal_turn(_OBJECTIVE, outputs=outputs)
                cuts.append(writer.size_bytes)
            writer.compaction()
            writer.turn("How far are you?")
        data = path.read_bytes()
    finally:
        path.unlink(missing_ok=True)
    compaction = data[cuts[-1] :]
    return _Stock(
        beginning=data[: cuts[0]],
        turns=[data[start:end] for start, end in itertools.pairwise(cuts)],
        compaction=compaction,
        compacted_at=compaction.rindex(b"\n", 0, compaction.index(_KIND)) + 1,
    )


def _fill(file: BinaryIO, turns: Iterator[bytes], size: int) -> None:
    """Write turns until the file is as long, or at most an ordinary turn longer."""
    while (room := size - file.tell()) > 0:
        turn = next(turns)
        if len(turn) < room + _ORDINARY_TURN:
            file.write(turn)
