"""The boundary: how far back Codex reads a thread to rebuild what the model sees (design, section 6).

Codex rebuilds newest to oldest, turn by turn (rollout_reconstruction.rs; behaviour equal on 0.134 to
0.169). It needs the newest compaction with a `replacement_history` that no rollback has dropped, and
the newest user turn with its `turn_context`. We walk the same way. Where Codex versions differ in
what counts as a user turn we count only what counts in all of them: that can only lead further back,
and more lines than needed give the same history.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from preflight.codex.lines import (
    Record,
    Span,
    complete_length,
    is_damaged,
    is_hole,
    lines_backwards,
    lines_forwards,
    parse,
    payload_type,
    read_line,
)
from preflight.codex.rollout import identity_of, read_meta
from preflight.errors import DamagedFile
from preflight.model import Boundary, FileIdentity, Piece, Segment, Tail, TurnState

#: A gap between the needed user turn and the base turn that is smaller than this is kept, so that
#: the turns in it stay visible in the app; a larger one holds nothing that Codex reads.
GAP_LIMIT = 8 << 20

_TOLD_EACH = 1 << 20
_MOST_PIECES = 4096  # of one turn: a copy of all of it costs less than a manifest with more of them

_STARTED = ("task_started", "turn_started")
_ENDED = ("task_complete", "turn_complete", "turn_aborted")
_CONTEXT_MARKS = ("<", "#", "Another language model started to solve")


class _Event(msgspec.Struct):
    turn_id: str | None = None
    num_turns: int | None = None


class _Compacted(msgspec.Struct):
    replacement_history: list[msgspec.Raw] | None = None


class _Part(msgspec.Struct):
    text: str | None = None


class _Message(msgspec.Struct):
    role: str | None = None
    content: list[_Part] | str | None = None


_event = msgspec.json.Decoder(_Event).decode
_compacted = msgspec.json.Decoder(_Compacted).decode
_message = msgspec.json.Decoder(_Message).decode


@dataclass(slots=True)
class _Turn:
    """What has been met, going back, since the last `task_started` that closed a turn."""

    turn_id: str | None = None
    is_user: bool = False
    context_sha256: str | None = None
    base: tuple[int, int] | None = None
    base_sha256: str = ""

    def compatible(self, other: str | None) -> bool:
        return self.turn_id is None or other is None or self.turn_id == other


@dataclass(slots=True)
class _Walk:
    """The state of the walk; `done` once base and settings have been met."""

    turn: _Turn = field(default_factory=_Turn)
    dropped_turns: int = 0
    base: tuple[int, int] | None = None
    base_sha256: str = ""
    settings_sha256: str = ""
    base_turn: tuple[int, int] | None = None
    settings_turn: tuple[int, int] | None = None
    settings_end: tuple[int, int] | None = None
    newer_turn: tuple[int, int] | None = None
    lifecycle: TurnState | None = None
    lifecycle_turn: str | None = None
    damaged: int = 0

    @property
    def done(self) -> bool:
        return self.base is not None and self.settings_turn is not None

    def take(self, segment: int, offset: int, record: Record) -> None:
        """One record, the next older one."""
        match record.type:
            case "compacted":
                if self.turn.base is None and has_replacement_history(record):
                    self.turn.base = (segment, offset)
                    self.turn.base_sha256 = digest_of(record)
            case "turn_context":
                self._context(record)
            case "event_msg":
                self._event(segment, offset, record)
            case "response_item":
                self.turn.is_user = self.turn.is_user or is_user_message(record)
            case _:
                return

    def _context(self, record: Record) -> None:
        turn_id = _fields(record).turn_id
        if self.turn.turn_id is None:
            self.turn.turn_id = turn_id
        if self.turn.compatible(turn_id) and self.turn.context_sha256 is None:
            self.turn.context_sha256 = digest_of(record)

    def _event(self, segment: int, offset: int, record: Record) -> None:
        kind = payload_type(record)
        if kind == "user_message":
            self.turn.is_user = True
        elif kind == "thread_rolled_back":
            self.dropped_turns += rolled_back_turns(record)
        elif kind in _ENDED:
            self._lifecycle(TurnState.IDLE, None, segment)
            if self.turn.turn_id is None:
                self.turn.turn_id = _fields(record).turn_id
        elif kind in _STARTED:
            turn_id = _fields(record).turn_id
            self._lifecycle(TurnState.IN_PROGRESS, turn_id, segment)
            if self.turn.compatible(turn_id):
                self._close((segment, offset))

    def _lifecycle(self, state: TurnState, turn_id: str | None, segment: int) -> None:
        if self.lifecycle is None and segment == 0:
            self.lifecycle, self.lifecycle_turn = state, turn_id

    def _close(self, place: tuple[int, int]) -> None:
        turn, self.turn = self.turn, _Turn()
        newer, self.newer_turn = self.newer_turn, place
        if self.dropped_turns > 0:
            self.dropped_turns -= turn.is_user
            return
        if self.base is None and turn.base is not None:
            self.base, self.base_turn, self.base_sha256 = turn.base, place, turn.base_sha256
        if self.settings_turn is None and turn.is_user and turn.context_sha256 is not None:
            self.settings_turn, self.settings_end = place, newer
            self.settings_sha256 = turn.context_sha256


def digest_of(record: Record) -> str:
    """SHA-256 of a record's payload as it stands in the file."""
    return hashlib.sha256(memoryview(record.payload)).hexdigest()


def has_replacement_history(record: Record) -> bool:
    """Whether a `compacted` record carries the history that replaces everything before it (0.128 and later)."""
    try:
        return _compacted(record.payload).replacement_history is not None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def is_user_message(record: Record) -> bool:
    """Whether a `response_item` is a message that a person wrote, in the reading of every Codex version.

    Context that Codex puts in as a user message (environment, AGENTS.md, goals, summaries) begins
    with a tag, a heading or the summary's words; a person's message that begins so is not counted
    here, but has its own `user_message` event in legacy files.
    """
    if payload_type(record) != "message":
        return False
    try:
        message = _message(record.payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    if message.role != "user" or not message.content:
        return False
    texts = [message.content] if isinstance(message.content, str) else [part.text for part in message.content]
    written = [text for text in texts if text]
    return bool(written) and not any(text.lstrip().startswith(_CONTEXT_MARKS) for text in written)


def rolled_back_turns(record: Record) -> int:
    """How many user turns a `thread_rolled_back` event drops; an unreadable number drops all of them."""
    count = _fields(record).num_turns
    return 1 << 32 if count is None or count < 0 else count


def _fields(record: Record) -> _Event:
    try:
        return _event(record.payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Event()


class OpenLineage:
    """The files of a lineage, opened for reading: `descriptors[n]` is the n-th, newest first.

    Opened once and read through these descriptors only, so that a file renamed over one of them
    cannot mix into what is read.
    """

    def __init__(self, lineage: tuple[Segment, ...], descriptors: tuple[int, ...]) -> None:
        self.lineage = lineage
        self.descriptors = descriptors
        self.identities = tuple(identity_of(os.fstat(d)) for d in descriptors)
        self.ends = tuple(
            complete_length(descriptor, identity.size_bytes) if segment.end_offset is None else segment.end_offset
            for segment, descriptor, identity in zip(lineage, descriptors, self.identities, strict=True)
        )

    def path(self, segment: int) -> Path:
        return self.lineage[segment].file.path

    def read(self, segment: int, span: Span) -> bytearray:
        return read_line(self.descriptors[segment], span, self.path(segment))

    def check_unchanged(self) -> None:
        """Raise DamagedFile when a file was replaced or became shorter since it was opened; growth is fine."""
        for segment, descriptor, identity in zip(self.lineage, self.descriptors, self.identities, strict=True):
            path = segment.file.path
            if os.fstat(descriptor).st_size < identity.size_bytes:
                raise DamagedFile("the rollout became shorter while it was read", path=path, hint=_AGAIN)
            try:
                now = identity_of(path.stat())
            except FileNotFoundError:
                raise DamagedFile("the rollout was moved while it was read", path=path, hint=_AGAIN) from None
            if not now.same_file(identity):
                raise DamagedFile("the rollout was replaced while it was read", path=path, hint=_AGAIN)


_AGAIN = "close Codex, then run the same command again"


@contextmanager
def opened(lineage: tuple[Segment, ...]) -> Iterator[OpenLineage]:
    """The files of a lineage, open while the body runs. Raises OSError when one cannot be opened."""
    with ExitStack() as stack:
        descriptors = []
        for segment in lineage:
            descriptor = os.open(segment.file.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            stack.callback(os.close, descriptor)
            descriptors.append(descriptor)
        yield OpenLineage(lineage, tuple(descriptors))


@dataclass(frozen=True, slots=True)
class TurnReading:
    """The turn state of a rollout at one moment, and which file it was; `complete_bytes` of it were whole lines."""

    turn: TurnState
    turn_id: str | None
    identity: FileIdentity
    complete_bytes: int

    @property
    def size_bytes(self) -> int:
        return self.identity.size_bytes


def read_turn(path: Path, earlier: TurnReading | None = None) -> TurnReading:
    """The newest lifecycle event of a rollout, read backwards. Raises DamagedFile when it shrinks, OSError.

    Of a file that has only grown since an `earlier` reading no more is read than what was added: whoever waits
    for the end of a turn of 100 MB asks five times a second.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        identity = identity_of(os.fstat(descriptor))
        if earlier is not None and not (
            identity.same_file(earlier.identity) and identity.size_bytes >= earlier.size_bytes
        ):
            earlier = None
        known = earlier.complete_bytes if earlier is not None else 0
        end = complete_length(descriptor, identity.size_bytes, known)
        for span in lines_backwards(descriptor, end, path, known):
            record = None if is_hole(descriptor, span) else parse(read_line(descriptor, span, path))
            if record is None or record.type != "event_msg":
                continue
            kind = payload_type(record)
            if kind in _STARTED:
                return TurnReading(TurnState.IN_PROGRESS, _fields(record).turn_id, identity, end)
            if kind in _ENDED:
                return TurnReading(TurnState.IDLE, None, identity, end)
        if earlier is not None:
            return TurnReading(earlier.turn, earlier.turn_id, identity, end)
        return TurnReading(TurnState.IDLE, None, identity, end)
    finally:
        os.close(descriptor)


def read_tail(files: OpenLineage, *, gap_limit: int = GAP_LIMIT, seen: Callable[[int], object] | None = None) -> Tail:
    """Turn state and boundary of a thread, read backwards from its newest complete line.

    Cost grows with the distance of the boundary, not with the thread; memory is one block and the
    longest line met. `seen` is told of each MiB or so, and ends the reading by raising: a thread without
    a boundary is read whole. Raises DamagedFile when a first line is unusable or a file shrinks meanwhile.
    """
    meta = read_meta(files.path(0))
    walk = _Walk()
    scanned = 0
    for segment, (descriptor, end) in enumerate(zip(files.descriptors, files.ends, strict=True)):
        oldest = told = end
        for span in lines_backwards(descriptor, end, files.path(segment)):
            oldest = span[0]
            if seen is not None and told - oldest >= _TOLD_EACH:
                seen(told - oldest)
                told = oldest
            if is_hole(descriptor, span):
                walk.damaged += 1
                continue
            data = files.read(segment, span)
            record = parse(data)
            if record is None:
                walk.damaged += is_damaged(data)
            else:
                walk.take(segment, span[0], record)
            if walk.done:
                break
        scanned += end - oldest if walk.done else end
        if walk.done:
            break
    return Tail(
        identity=files.identities[0],
        complete_bytes=files.ends[0],
        turn=walk.lifecycle or TurnState.IDLE,
        turn_id=walk.lifecycle_turn,
        boundary=_boundary(files, walk, gap_limit),
        history_mode=meta.history_mode,
        damaged_lines=walk.damaged,
        scanned_bytes=scanned,
    )


def _boundary(files: OpenLineage, walk: _Walk, gap_limit: int) -> Boundary | None:
    if walk.base is None or walk.base_turn is None or walk.settings_turn is None:
        return None
    place, older = walk.base_turn, walk.settings_turn
    settings: tuple[Piece, ...] = ()
    if _is_older(older, place):
        end = walk.settings_end or place
        if _distance(files, older, place) <= gap_limit:
            place = older
        else:
            settings = _settings_pieces(files, older, end, gap_limit)
    segment, offset = place
    if segment == len(files.lineage) - 1 and offset <= _meta_end(files, segment):
        return None  # the whole file is needed: there is nothing to cut
    return Boundary(
        segment=segment,
        offset=offset,
        base_segment=walk.base[0],
        base_offset=walk.base[1],
        base_sha256=walk.base_sha256,
        settings_sha256=walk.settings_sha256,
        settings=settings,
    )


def _meta_end(files: OpenLineage, segment: int) -> int:
    return read_meta(files.path(segment)).line_bytes


def _is_older(place: tuple[int, int], other: tuple[int, int]) -> bool:
    return (-place[0], place[1]) < (-other[0], other[1])


def _distance(files: OpenLineage, older: tuple[int, int], newer: tuple[int, int]) -> int:
    if older[0] == newer[0]:
        return newer[1] - older[1]
    between = sum(files.ends[n] for n in range(newer[0] + 1, older[0]))
    return files.ends[older[0]] - older[1] + between + newer[1]


def _settings_pieces(
    files: OpenLineage, start: tuple[int, int], end: tuple[int, int], gap_limit: int
) -> tuple[Piece, ...]:
    """The lines of the user turn that settings are taken from; of a huge turn only those that Codex needs."""
    segment = start[0]
    stop = end[1] if end[0] == segment else files.ends[segment]
    if stop - start[1] <= gap_limit:
        return (Piece(segment=segment, start=start[1], end=stop),)
    return select_lines(files, segment, start[1], stop, _is_turn_frame)


def select_lines(
    files: OpenLineage, segment: int, start: int, end: int, wanted: Callable[[Record], bool]
) -> tuple[Piece, ...]:
    """The lines in [start, end) that are wanted, joined where they touch. All of the range where they are many."""
    pieces: list[Piece] = []
    for offset, data in lines_forwards(files.descriptors[segment], start, end, files.path(segment)):
        record = parse(data)
        if record is None or not wanted(record):
            continue
        if pieces and pieces[-1].end == offset:
            pieces[-1] = Piece(segment=segment, start=pieces[-1].start, end=offset + len(data))
        else:
            pieces.append(Piece(segment=segment, start=offset, end=offset + len(data)))
            if len(pieces) > _MOST_PIECES:
                return (Piece(segment=segment, start=start, end=end),)
    return tuple(pieces)


def _is_turn_frame(record: Record) -> bool:
    if record.type in ("turn_context", "world_state"):
        return True
    if record.type == "response_item":
        return is_user_message(record)
    return record.type == "event_msg" and payload_type(record) in (*_STARTED, *_ENDED, "user_message")
