"""What the model would see of a thread, read forwards and read backwards, to be compared.

The boundary walk goes backwards and picks a base compaction and the settings of a user turn.
`replay` goes forwards over a resume rollout, knows nothing of the walk, and picks them again by
keeping turns on a stack. When both pick the same two records, and every record behind the base is
the same, Codex rebuilds the same history from either file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from preflight.codex.boundary import (
    OpenLineage,
    digest_of,
    has_replacement_history,
    is_user_message,
    rolled_back_turns,
)
from preflight.codex.lines import Buffer, Record, Sink, is_damaged, is_utf8, lines_forwards, parse, payload_type
from preflight.model import History, Tail
from preflight.system.digests import BesideSha256

#: Told how many bytes have been read since the last time; what it raises ends the reading.
Seen = Callable[[int], object]

_TOLD_EACH = 1 << 20
_MOST_TURNS = 1 << 15  # user turns that are told apart, in 9 MB


@dataclass(frozen=True, slots=True)
class Replay:
    """What reading a rollout forwards told.

    `history` is None without a surviving base compaction, and where a rollback has reached back over more
    than 32,768 user turns: so many are told apart. `thread_id` is the one of line 0.
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
    """A turn, and those behind it that no person began: a rollback takes them off together. Newest base, settings."""

    is_user: bool = False
    settings_sha256: str | None = None
    base: tuple[int, str] | None = None


def history_of_original(files: OpenLineage, tail: Tail, seen: Seen | None = None) -> History | None:
    """The history as the backward walk chose it, with the records behind the base read from the original.

    Where there is no base, all records count of a thread in several files, and None is the answer for a
    single one: that is copied as it is.
    """
    boundary = tail.boundary
    if boundary is None:
        return of_all_records(files, seen) if len(files.lineage) > 1 else None
    records = 0
    with BesideSha256() as digest:
        for segment in range(boundary.base_segment, -1, -1):
            is_base = segment == boundary.base_segment
            start = boundary.base_offset if is_base else 0
            skip_first = is_base or segment != len(files.lineage) - 1  # the base itself; a file's own line 0
            lines = lines_forwards(files.descriptors[segment], start, files.ends[segment], files.path(segment))
            for _, data in _telling(lines, seen):
                if skip_first:
                    skip_first = False
                    continue
                records += _feed(digest, parse(data))
        return History(boundary.base_sha256, boundary.settings_sha256, records, digest.hexdigest())


def of_all_records(files: OpenLineage, seen: Seen | None = None) -> History:
    """The history of a thread without a compaction: every record of all of its files, in their order.

    The files' own first lines do not count: of several files that become one, one is left.
    """
    records = 0
    with BesideSha256() as digest:
        for segment in range(len(files.lineage) - 1, -1, -1):
            lines = lines_forwards(files.descriptors[segment], 0, files.ends[segment], files.path(segment))
            for offset, data in _telling(lines, seen):
                records += _feed(digest, parse(data)) if offset else 0
        return History("", "", records, digest.hexdigest())


def replay(files: OpenLineage, seen: Seen | None = None, sink: Sink | None = None) -> Replay:
    """Read one whole file forwards, once; from its base on again only where a rollback drops the newest one.

    `seen` is told how far it is. `sink` gets every byte of the file once, in order, and must not keep it.
    """
    descriptor, end, path = files.descriptors[0], files.identities[0].size_bytes, files.path(0)
    last: Buffer = b""
    with BesideSha256() as behind:
        reading = _Reading(behind)
        for offset, data in _telling(lines_forwards(descriptor, 0, end, path, sink), seen):
            reading.take(offset, parse(data), data)
            last = data
        return Replay(
            thread_id=reading.thread_id,
            history=_history(files, reading, end, seen),
            records=reading.records,
            turns_shown=reading.shown,
            damaged=reading.damaged,
            not_utf8=reading.not_utf8,
            ordinals_rise=reading.ordinals_rise,
            complete=last.endswith(b"\n"),
        )


def _telling(lines: Iterator[tuple[int, Buffer]], seen: Seen | None) -> Iterator[tuple[int, Buffer]]:
    """The same lines; `seen` is told of each MiB of them, or of a longer line."""
    size = 0
    for offset, data in lines:
        yield offset, data
        size += len(data)
        if seen is not None and size >= _TOLD_EACH:
            seen(size)
            size = 0


def _history(files: OpenLineage, reading: _Reading, end: int, seen: Seen | None) -> History | None:
    base, settings = reading.base, reading.settings_sha256
    if base is None or settings is None:
        return None
    if reading.newest_base == base[0]:
        return History(base[1], settings, reading.records_behind, reading.behind.hexdigest())
    records = -1  # the base itself is not behind the base
    with BesideSha256() as digest:
        for _, data in _telling(lines_forwards(files.descriptors[0], base[0], end, files.path(0)), seen):
            if records < 0:
                records = 0
                continue
            records += _feed(digest, parse(data))
        return History(base[1], settings, records, digest.hexdigest())


def _feed(digest: BesideSha256, record: Record | None) -> int:
    """Everything of a record but its time and its ordinal; lines that Codex skips do not count."""
    if record is None:
        return 0
    digest.update(record.type.encode())
    digest.update(b"\0")
    digest.update(memoryview(record.payload))
    digest.update(b"\n")
    return 1


@dataclass(slots=True)
class _Reading:
    """Turns as a stack below the present one: a rollback takes the newest ones off, down to the n-th user turn.

    `behind` is fed with the records behind the newest base met, wherever the stack stands.
    """

    behind: BesideSha256
    newest_base: int | None = None
    records_behind: int = 0
    turn: _Turn = field(default_factory=_Turn)
    older: deque[_Turn] = field(default_factory=deque)
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
        turn = self.turn
        match record.type:
            case "response_item":
                turn.is_user = turn.is_user or is_user_message(record)
            case "event_msg":
                self._event(record)
            case "turn_context":
                turn.settings_sha256 = digest_of(record)
            case "compacted":
                if has_replacement_history(record):
                    turn.base = (offset, digest_of(record))
                    self.newest_base, self.records_behind = offset, 0
                    self.behind.restart()
            case "session_meta":
                if offset == 0:
                    self.thread_id = _thread_id(record)
            case _:
                return

    def _count(self, record: Record) -> None:
        self.records += 1
        if self.newest_base is not None:
            self.records_behind += _feed(self.behind, record)
        if record.ordinal is not None:
            self.ordinals_rise = self.ordinals_rise and record.ordinal > self.ordinal
            self.ordinal = record.ordinal

    def _event(self, record: Record) -> None:
        kind = payload_type(record)
        if kind in ("task_started", "turn_started"):
            self.shown += 1
            self.in_turn = True
            self._close()
        elif kind in ("task_complete", "turn_complete", "turn_aborted"):
            self.in_turn = False
        elif kind == "user_message":
            self.shown += not self.in_turn
            self.turn.is_user = True
        elif kind == "thread_rolled_back":
            count = rolled_back_turns(record)
            self.shown = max(0, self.shown - count)
            self._roll_back(count)

    def _close(self) -> None:
        turn, self.turn = self.turn, _Turn()
        if turn.is_user or not self.older:
            self.older.append(turn)
        elif turn.base is not None:
            self.older[-1].base = turn.base
        if len(self.older) > _MOST_TURNS:
            # The oldest two become one. A rollback down to there takes both off: too little is known, never too much.
            oldest, next_one = self.older.popleft(), self.older[0]
            next_one.base = next_one.base or oldest.base
            if oldest.is_user:
                next_one.settings_sha256 = next_one.settings_sha256 or oldest.settings_sha256

    def _roll_back(self, count: int) -> None:
        if count <= 0:
            self._close()
            return
        count -= self.turn.is_user
        while count > 0 and self.older:
            count -= self.older.pop().is_user
        self.turn = _Turn()

    @property
    def base(self) -> tuple[int, str] | None:
        """The newest base that no rollback has dropped: its offset and digest."""
        return next((turn.base for turn in (self.turn, *reversed(self.older)) if turn.base), None)

    @property
    def settings_sha256(self) -> str | None:
        turns = (self.turn, *reversed(self.older))
        return next((turn.settings_sha256 for turn in turns if turn.is_user and turn.settings_sha256), None)

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
