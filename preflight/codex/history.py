"""What the model would see of a thread, read forwards and read backwards, to be compared.

The boundary walk goes backwards and picks a base compaction and the settings of a user turn.
`replay` goes forwards over a resume rollout, knows nothing of the walk, and picks them again by
keeping turns on a stack. When both pick the same two records, and every record behind the base is
the same, Codex rebuilds the same history from either file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import msgspec

from preflight.codex.boundary import (
    OpenLineage,
    digest_of,
    has_replacement_history,
    is_user_message,
    rolled_back_turns,
)
from preflight.codex.lines import Buffer, Record, is_damaged, is_utf8, lines_forwards, parse, payload_type
from preflight.model import History, Tail


@dataclass(frozen=True, slots=True)
class Replay:
    """What reading a rollout forwards told.

    `history` is None without a surviving base compaction. `thread_id` is the one of line 0.
    `turns_shown` is how many turns a runtime shows of the file (0.128 to 0.169): one for each
    `task_started` and each `user_message` outside of a turn, less those rolled back. `damaged` lines
    are not what Codex reads. `ordinals_rise` is False when an ordinal is not above the one before it; `complete`
    says that the file ends in a newline.
    """

    thread_id: str | None
    history: History | None
    records: int
    turns_shown: int
    damaged: int
    not_utf8: int
    ordinals_rise: bool
    complete: bool


@dataclass(slots=True)
class _Turn:
    is_user: bool = False
    settings_sha256: str | None = None
    bases: list[tuple[int, str]] = field(default_factory=list)


def history_of_original(files: OpenLineage, tail: Tail) -> History | None:
    """The history as the backward walk chose it, with the records behind the base read from the original."""
    boundary = tail.boundary
    if boundary is None:
        return None
    digest = hashlib.sha256()
    records = 0
    for segment in range(boundary.base_segment, -1, -1):
        is_base = segment == boundary.base_segment
        start = boundary.base_offset if is_base else 0
        skip_first = is_base or segment != len(files.lineage) - 1  # the base itself; a file's own line 0
        for _, data in lines_forwards(files.descriptors[segment], start, files.ends[segment], files.path(segment)):
            if skip_first:
                skip_first = False
                continue
            records += _feed(digest, parse(data))
    return History(boundary.base_sha256, boundary.settings_sha256, records, digest.hexdigest())


def replay(files: OpenLineage) -> Replay:
    """Read one whole file forwards, once; from its base on again only where a rollback drops the newest one."""
    descriptor, end, path = files.descriptors[0], files.identities[0].size_bytes, files.path(0)
    reading = _Reading()
    last: Buffer = b""
    for offset, data in lines_forwards(descriptor, 0, end, path):
        reading.take(offset, parse(data), data)
        last = data
    return Replay(
        thread_id=reading.thread_id,
        history=_history(files, reading, end),
        records=reading.records,
        turns_shown=reading.shown,
        damaged=reading.damaged,
        not_utf8=reading.not_utf8,
        ordinals_rise=reading.ordinals_rise,
        complete=last.endswith(b"\n"),
    )


def _history(files: OpenLineage, reading: _Reading, end: int) -> History | None:
    base = next((turn.bases[-1] for turn in reversed(reading.turns) if turn.bases), None)
    settings = next(
        (turn.settings_sha256 for turn in reversed(reading.turns) if turn.is_user and turn.settings_sha256), None
    )
    if base is None or settings is None:
        return None
    newest = reading.behind
    if newest is not None and newest.base_offset == base[0]:
        return History(base[1], settings, newest.records, newest.digest.hexdigest())
    digest = hashlib.sha256()
    records = -1  # the base itself is not behind the base
    for _, data in lines_forwards(files.descriptors[0], base[0], end, files.path(0)):
        if records < 0:
            records = 0
            continue
        records += _feed(digest, parse(data))
    return History(base[1], settings, records, digest.hexdigest())


def _feed(digest: hashlib._Hash, record: Record | None) -> int:
    """Everything of a record but its time and its ordinal; lines that Codex skips do not count."""
    if record is None:
        return 0
    digest.update(record.type.encode())
    digest.update(b"\0")
    digest.update(memoryview(record.payload))
    digest.update(b"\n")
    return 1


@dataclass(slots=True)
class _Behind:
    """The records met so far behind the base at `base_offset`."""

    base_offset: int
    records: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)


@dataclass(slots=True)
class _Reading:
    """Turns as a stack: a rollback takes the newest ones off, down to the n-th user turn."""

    turns: list[_Turn] = field(default_factory=lambda: [_Turn()])
    behind: _Behind | None = None
    thread_id: str | None = None
    records: int = 0
    shown: int = 0
    in_turn: bool = False
    damaged: int = 0
    not_utf8: int = 0
    ordinal: int = -1
    ordinals_rise: bool = True

    def take(self, offset: int, record: Record | None, data: Buffer) -> None:
        if record is None:
            self._refused(data)
            return
        self._count(record)
        turn = self.turns[-1]
        match record.type:
            case "response_item":
                turn.is_user = turn.is_user or is_user_message(record)
            case "event_msg":
                self._event(record)
            case "turn_context":
                turn.settings_sha256 = digest_of(record)
            case "compacted":
                if has_replacement_history(record):
                    turn.bases.append((offset, digest_of(record)))
                    self.behind = _Behind(offset)
            case "session_meta":
                if offset == 0:
                    self.thread_id = _thread_id(record)
            case _:
                return

    def _count(self, record: Record) -> None:
        self.records += 1
        if self.behind is not None:
            self.behind.records += _feed(self.behind.digest, record)
        if record.ordinal is not None:
            self.ordinals_rise = self.ordinals_rise and record.ordinal > self.ordinal
            self.ordinal = record.ordinal

    def _event(self, record: Record) -> None:
        kind = payload_type(record)
        if kind in ("task_started", "turn_started"):
            self.shown += 1
            self.in_turn = True
            self.turns.append(_Turn())
        elif kind in ("task_complete", "turn_complete", "turn_aborted"):
            self.in_turn = False
        elif kind == "user_message":
            self.shown += not self.in_turn
            self.turns[-1].is_user = True
        elif kind == "thread_rolled_back":
            count = rolled_back_turns(record)
            self.shown = max(0, self.shown - count)
            self._roll_back(count)

    def _roll_back(self, count: int) -> None:
        while count > 0 and self.turns:
            count -= self.turns.pop().is_user
        self.turns.append(_Turn())

    def _refused(self, data: Buffer) -> None:
        if is_damaged(data):
            self.damaged += 1
        if not is_utf8(data):
            self.not_utf8 += 1


def _thread_id(record: Record) -> str | None:
    try:
        found = msgspec.json.decode(record.payload, type=dict[str, msgspec.Raw]).get("id")
        return None if found is None else str(msgspec.json.decode(found, type=str)).lower()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
