"""The resume rollout: the lines of a thread that Codex needs to go on with it, copied as bytes.

It is line 0, the events that show the first user message (so that lists keep their preview), the
lines of an older user turn where that is needed, and every byte from the boundary on. Without a
boundary it is the whole file up to the last complete line.

A thread that goes on in several files (`history_base`, 0.154 and later) becomes one file that stands
alone: its own line 0 without `history_base`, the needed part of the bases, its own lines, ordinals
counted anew from 0. These are the only bytes that ever change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from preflight.codex.boundary import OpenLineage
from preflight.codex.lines import Buffer, Record, lines_forwards, parse, payload_type
from preflight.codex.rollout import read_meta
from preflight.errors import DamagedFile
from preflight.model import Piece, Tail
from preflight.system.positional import read_at

Sink = Callable[[Buffer | memoryview], object]

_COPY = 1 << 20
_FIRST_WORDS_LIMIT = 4 << 20
_ORDINAL = re.compile(rb'\A(\{"timestamp":"[^"\\]*","ordinal":)\d+(?=,)')  # of the line, never of a value in it
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Item(msgspec.Struct):
    type: str | None = None


class _Shown(msgspec.Struct):
    type: str | None = None
    turn_id: str | None = None
    item: _Item | None = None


_shown = msgspec.json.Decoder(_Shown).decode


@dataclass(frozen=True, slots=True)
class ResumePlan:
    """Which bytes make the resume rollout: line 0 of the newest file, then `pieces` in this order.

    `whole` says that nothing is left out; `renumber` that several files become one. `length` is the
    sum of the pieces and line 0: exact unless ordinals are counted anew, when it can only shrink.
    """

    meta_bytes: int
    pieces: tuple[Piece, ...]
    whole: bool
    renumber: bool

    @property
    def length(self) -> int:
        return self.meta_bytes + sum(piece.length for piece in self.pieces)


def plan_resume(files: OpenLineage, tail: Tail) -> ResumePlan:
    """Decide which lines the resume rollout of this thread holds."""
    meta_ends = [read_meta(files.path(n)).line_bytes for n in range(len(files.lineage))]
    boundary = tail.boundary
    pieces: list[Piece] = []
    if boundary is None:
        first = len(files.lineage) - 1
    else:
        first = boundary.segment
        pieces += [
            piece for piece in _first_words(files, meta_ends[-1]) if not _covered(piece, boundary.settings, tail)
        ]
        pieces += boundary.settings
    for segment in range(first, -1, -1):
        start = meta_ends[segment]
        if boundary is not None and segment == boundary.segment:
            start = boundary.offset
        if start < files.ends[segment]:
            pieces.append(Piece(segment=segment, start=start, end=files.ends[segment]))
    return ResumePlan(
        meta_bytes=meta_ends[0], pieces=tuple(pieces), whole=boundary is None, renumber=len(files.lineage) > 1
    )


def _covered(piece: Piece, settings: tuple[Piece, ...], tail: Tail) -> bool:
    boundary = tail.boundary
    if boundary is None or piece.segment < boundary.segment:
        return True
    if piece.segment == boundary.segment and piece.end > boundary.offset:
        return True
    return any(s.segment == piece.segment and piece.start < s.end and s.start < piece.end for s in settings)


def _first_words(files: OpenLineage, start: int) -> list[Piece]:
    """The first user message's event in the oldest file, with its turn's start and end if they are near."""
    segment = len(files.lineage) - 1
    end = min(files.ends[segment], start + _FIRST_WORDS_LIMIT)
    started: Piece | None = None
    words: list[Piece] = []
    for offset, data in lines_forwards(files.descriptors[segment], start, end, files.path(segment)):
        record = parse(data) if data.endswith(b"\n") else None  # the limit may cut a line right before its newline
        if record is None or record.type != "event_msg":
            continue
        piece = Piece(segment=segment, start=offset, end=offset + len(data))
        kind = payload_type(record)
        if kind in ("task_started", "turn_started"):
            if words:
                break
            started = piece
        elif kind == "user_message" or (kind == "item_completed" and _shows_user_message(record)):
            if not words:
                words = [started, piece] if started is not None else [piece]
        elif kind in ("task_complete", "turn_complete", "turn_aborted") and words:
            words.append(piece)
            break
    return words


def _shows_user_message(record: Record) -> bool:
    try:
        item = _shown(record.payload).item
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return item is not None and item.type == "UserMessage"


def write_resume_rollout(files: OpenLineage, plan: ResumePlan, target: BinaryIO, sink: Sink) -> int:
    """Copy the planned bytes to `target` and to `sink` (a digest); return how many were written.

    Memory is one block, or the longest line when ordinals are counted anew. Raises DamagedFile when
    a file is shorter than planned; OSError when the target cannot take it. What was written until
    then is the caller's to throw away.
    """
    written = 0
    for block in _renumbered(files, plan) if plan.renumber else _verbatim(files, plan):
        target.write(block)
        sink(block)
        written += len(block)
    return written


def _verbatim(files: OpenLineage, plan: ResumePlan) -> Iterator[Buffer]:
    yield from _blocks(files, Piece(segment=0, start=0, end=plan.meta_bytes))
    for piece in plan.pieces:
        yield from _blocks(files, piece)


def _blocks(files: OpenLineage, piece: Piece) -> Iterator[Buffer]:
    position = piece.start
    while position < piece.end:
        block = read_at(files.descriptors[piece.segment], min(_COPY, piece.end - position), position)
        if not block:
            raise DamagedFile("the rollout became shorter while it was copied", path=files.path(piece.segment))
        position += len(block)
        yield block


def _renumbered(files: OpenLineage, plan: ResumePlan) -> Iterator[Buffer | memoryview]:
    meta = files.read(0, (0, plan.meta_bytes))
    yield from with_ordinal(without_history_base(meta), 0)
    ordinal = 1
    for piece in plan.pieces:
        path = files.path(piece.segment)
        for _, data in lines_forwards(files.descriptors[piece.segment], piece.start, piece.end, path):
            if _has_ordinal(data):
                yield from with_ordinal(data, ordinal)
                ordinal += 1
            else:
                yield data  # Codex skips it, or it never had a number


def _has_ordinal(line: Buffer) -> bool:
    record = parse(line)
    return record is not None and record.ordinal is not None


def write_renumbered(source: int, length: int, target: BinaryIO, sink: Sink, path: Path) -> int:
    """Copy a rollout with its ordinals counted anew from 0, no gaps; return how many bytes were written.

    0.147 shows no turns of a file with gaps, 0.169 passes over them. Bytes other than the ordinals stay.
    """
    written = ordinal = 0
    for _, data in lines_forwards(source, 0, length, path):
        parts: Iterable[Buffer | memoryview] = (data,)
        if _has_ordinal(data):
            parts = with_ordinal(data, ordinal)
            ordinal += 1
        for part in parts:
            target.write(part)
            sink(part)
            written += len(part)
    return written


def without_history_base(line: Buffer) -> bytes:
    """Line 0 without `payload.history_base`; every other value keeps its bytes."""
    members = _MEMBERS.decode(line)
    payload = _MEMBERS.decode(members["payload"])
    payload.pop("history_base", None)
    members["payload"] = msgspec.Raw(msgspec.json.encode(payload))
    return msgspec.json.encode(members) + b"\n"


def with_ordinal(line: Buffer, ordinal: int) -> Iterator[Buffer | memoryview]:
    """The parts of a line with another `ordinal`; every other byte as it was, where the record has its usual form.

    In parts, because a line may be tens of megabytes long and its end is the same one.
    """
    usual = _ORDINAL.match(line)
    if usual is not None:
        yield usual[1] + b"%d" % ordinal
        yield memoryview(line)[usual.end() :]
        return
    members = _MEMBERS.decode(line)
    members["ordinal"] = msgspec.Raw(b"%d" % ordinal)
    yield msgspec.json.encode(members) + b"\n"
