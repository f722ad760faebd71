"""Grows a real rollout in front of its last compaction, so that the model's history after a resume stays the same.

What is inserted are whole turns of the thread itself, earlier compactions among them, with ids of their own, padded
tool outputs and, in a paginated rollout, ordinals that go on. The bytes depend on the source and the size only.
Streams: 300 MB take about a second and no memory to speak of.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["inflate"]

# An id's last eight hexadecimal digits are what a clone changes.
ID = re.compile(
    rb"((?:[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{4}|(?:call|fc|fco|msg|resp|rs)_[0-9a-f]{16,24}))([0-9a-f]{8})(?![0-9a-f])"
)
ORDINAL = re.compile(rb'^(\{"timestamp":"[^"]*","ordinal":)(\d+)')
OUTPUT = re.compile(rb'"(?:output|aggregated_output)":"')
# Most tool outputs are short, a few are long, as in a thread that has run for days.
PAD_SIZES = (2_000, 12_000, 2_000, 45_000, 12_000, 2_000, 200_000, 12_000)
PAD_LINE = 'src/lib.rs:120: error: expected `\\"text\\"`, found C:\\\\temp \u2713 d\u00e9j\u00e0 vu \U0001f680\\n'


def inflate(rollout: Path, size: int) -> None:
    """Grows the file in place to at least `size` bytes; the file must be small and hold a compaction."""
    lines = rollout.read_bytes().splitlines(keepends=True)
    records = [json.loads(line) for line in lines]
    starts = [at for at, record in enumerate(records) if record["payload"].get("type") == "task_started"]
    compacted = max(at for at, record in enumerate(records) if record["type"] == "compacted")
    cut = max(start for start in starts if start <= compacted)
    turns = [lines[start:end] for start, end in itertools.pairwise(starts) if end <= cut]
    own = {match.group() for match in ID.finditer(lines[0])}
    donors = [[_Line(line, own) for line in turn] for turn in turns]
    first = records[cut].get("ordinal")

    grown = rollout.with_name("grown.tmp")
    with grown.open("wb", buffering=1 << 20) as file:
        file.writelines(lines[:cut])
        ordinal = first
        for line in _clones(donors, size - sum(map(len, lines))):
            file.write(line if ordinal is None else ORDINAL.sub(rb"\g<1>%d" % ordinal, line))
            ordinal = None if ordinal is None else ordinal + 1
        for line in lines[cut:]:
            if ordinal is None:
                file.write(line)
            else:
                moved = json.loads(line)["ordinal"] + ordinal - first
                file.write(ORDINAL.sub(rb"\g<1>%d" % moved, line))
    grown.replace(rollout)


def _clones(donors: list[list[_Line]], size: int) -> Iterator[bytes]:
    pads = [(PAD_LINE * (length // len(PAD_LINE))).encode() for length in PAD_SIZES]
    written = 0
    for number in itertools.count(1):
        if written >= size:
            return
        for line in donors[number % len(donors)]:
            clone = line.clone(number, pads[number % len(pads)])
            written += len(clone)
            yield clone


class _Line:
    """A line taken apart at its ids and at the place where its tool output begins."""

    def __init__(self, line: bytes, own: set[bytes]) -> None:
        output = OUTPUT.search(line)
        at = output.end() if output else None
        self._before = self._split(line[:at], own)
        self._after = [] if at is None else self._split(line[at:], own)

    @staticmethod
    def _split(text: bytes, own: set[bytes]) -> list[bytes]:
        """Pieces between which the number of a clone belongs."""
        pieces, since = [], 0
        for match in ID.finditer(text):
            if match.group() not in own:
                pieces.append(text[since : match.start(2)])
                since = match.end()
        return [*pieces, text[since:]]

    def clone(self, number: int, pad: bytes) -> bytes:
        tail = b"%08x" % number
        before = tail.join(self._before)
        return before if not self._after else b"".join((before, pad, tail.join(self._after)))
