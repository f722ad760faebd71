"""Lines of a rollout, read backwards or forwards in bounded memory.

A rollout is a sequence of JSON objects, one a line, each `{"timestamp", ["ordinal",] "type",
"payload"}` in this order (0.128 to 0.169). Reading backwards, almost every line is told from its
first bytes to be of no interest; a line whose beginning does not prove that is handed out, so an
unknown form costs time and never correctness.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from preflight.errors import DamagedFile
from preflight.system.positional import read_at, read_into

_CHUNK: Final = 1 << 20
_HEAD: Final = 512
_FIRST_WINDOW: Final = 64 << 10
_LARGEST_WINDOW: Final = 16 << 20
_MOST_PLACES: Final = 64 << 10  # of lines in a window, 8 MB of memory; the first window has no more bytes than this
_LONGEST_SEEN: Final = 64 << 20  # with room: 47 MB were reported (openai/codex#37346)

#: Codex reads no line whose arrays and objects lie deeper than this in each other: it skips it (0.128.0 to 0.169.0).
_DEEPEST: Final = 127
_NOT_STRUCTURE: Final = bytes(sorted(set(range(256)) - set(b'"[]{}')))

Buffer = bytes | bytearray
Sink = Callable[[memoryview], object]

_UNINTERESTING = re.compile(
    rb"""\r?\n | \{"timestamp":"[^"\\]*",(?:"ordinal":\d+,)?"type":"(?:
        event_msg","payload":\{"type":"
            (?!task_started"|turn_started"|task_complete"|turn_complete"|turn_aborted"|user_message"|thread_rolled_back")
            [a-z_]+"
      | response_item","payload":\{"type":"(?:
            (?!message")[a-z_]+"
          | message",(?:"id":"[^"\\]*",)?"role":"(?!user")[a-z]+" )
      | (?!event_msg"|response_item"|compacted"|turn_context"|session_meta")[a-z_]+","payload":
    )""",
    re.VERBOSE,
)


_KIND_FIRST = re.compile(rb'\{"type":"([a-z_]+)"').match


class Record(msgspec.Struct, frozen=True):
    """A line as far as every record has the same form; `payload` is its bytes, not decoded."""

    type: str
    payload: msgspec.Raw = msgspec.Raw(b"null")
    ordinal: int | None = None
    timestamp: str | None = None


class _Kind(msgspec.Struct):
    type: str | None = None


_decode_record = msgspec.json.Decoder(Record).decode
_decode_kind = msgspec.json.Decoder(_Kind).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


#: Where a line lies: its start, and the place behind its newline.
Span = tuple[int, int]


def complete_length(descriptor: int, size: int, known: int = 0) -> int:
    """The length up to and with the last newline before `size`; `known`, which is behind one, when there is none."""
    end = size
    while end > known:
        start = max(known, end - _CHUNK)
        block = read_at(descriptor, end - start, start)
        cut = block.rfind(b"\n")
        if cut >= 0:
            return start + cut + 1
        end = start
    return known


def lines_backwards(descriptor: int, end: int, path: Path, start: int = 0) -> Iterator[Span]:
    """Lines that may matter to the walk, newest first, from `end` down to `start`; both are behind a newline, or 0.

    Memory is one block of 1 MiB and the places of 65,536 lines at most, whatever the length of a line.
    Windows grow up to 16 MiB and are each read forwards, because kernels read ahead only that way; where
    too many lines of a window may matter, a smaller one is taken. Raises DamagedFile when the file is
    shorter than `end` (it shrank while being read).
    """
    buffer = bytearray(_CHUNK + _HEAD)
    window = _FIRST_WINDOW
    high = end
    newer_start = end
    while high > start:
        low = max(start, high - window)
        found, first_start = _window(descriptor, low, high, newer_start, buffer, path)
        if len(found) > _MOST_PLACES:
            window //= 4
            continue
        yield from reversed(found)
        if first_start is not None:
            newer_start = first_start
        high = low
        if len(found) <= _MOST_PLACES // 4:
            window = min(window * 4, _LARGEST_WINDOW)


def _window(
    descriptor: int, low: int, high: int, newer_start: int, buffer: bytearray, path: Path
) -> tuple[list[Span], int | None]:
    """Interesting lines that start in [low, high), and where the first line of any kind starts there.

    Ends early, with more than `_MOST_PLACES` lines, where there are so many.
    """
    skip = _UNINTERESTING.match
    found: list[Span] = []
    first_start: int | None = None
    open_start: int | None = None  # an interesting line whose end has not been seen yet
    position = low
    if low == 0:
        first_start = 0
        head = read_at(descriptor, _HEAD, 0)
        open_start = None if skip(head) else 0
    else:
        position = low - 1  # a newline right before the window makes a line start at `low`
    view = memoryview(buffer)
    while position < high - 1:
        want = min(_CHUNK, high - 1 - position)
        got = read_into(descriptor, view[: want + _HEAD], position)
        if got < want:
            raise DamagedFile("the rollout became shorter while it was read", path=path)
        at = buffer.find(b"\n", 0, want)
        while at >= 0:
            start = position + at + 1
            if open_start is not None:
                found.append((open_start, start))
                open_start = None
                if len(found) > _MOST_PLACES:
                    return found, None
            if first_start is None:
                first_start = start
            if skip(buffer, at + 1, got) is None:
                open_start = start
            at = buffer.find(b"\n", at + 1, want)
        position += want
    if open_start is not None:
        found.append((open_start, newer_start))
    return found, first_start


def is_hole(descriptor: int, span: Span) -> bool:
    """Whether a line is longer than any that Codex has been seen to write, and no JSON because of a NUL byte in it.

    A crash or a sparse copy can leave gigabytes of them. They are told in blocks, up to the first one,
    so that the line need not be read whole.
    """
    position, end = span
    if end - position <= _LONGEST_SEEN:
        return False
    while position < end:
        block = read_at(descriptor, min(_CHUNK, end - position), position)
        if not block or b"\0" in block:
            return bool(block)
        position += len(block)
    return False


def read_line(descriptor: int, span: Span, path: Path) -> bytearray:
    """The bytes of one line, newline included; raises DamagedFile when the file is shorter by now."""
    start, end = span
    data = read_at(descriptor, end - start, start)
    if len(data) < end - start:
        raise DamagedFile("the rollout became shorter while it was read", path=path)
    return data


def lines_forwards(
    descriptor: int, start: int, end: int, path: Path, sink: Sink | None = None
) -> Iterator[tuple[int, Buffer]]:
    """Each whole line in [start, end) with its offset; an unfinished last line is handed out as it is.

    Memory is one block of 1 MiB or the longest line. `sink` sees each block that was read, in order, before its
    lines are handed out, and must not keep it. Raises DamagedFile when the file ends early.
    """
    buffer = bytearray(_CHUNK)  # one for all blocks: half of the time would go into making new ones
    view = memoryview(buffer)
    pending = bytearray()
    pending_start = start
    position = start
    while position < end:
        got = read_into(descriptor, view[: min(_CHUNK, end - position)], position)
        if not got:
            raise DamagedFile("the rollout became shorter while it was read", path=path)
        if sink is not None:
            sink(view[:got])
        position += got
        cut = 0
        while (newline := buffer.find(b"\n", cut, got)) >= 0:
            if pending:
                pending += view[cut : newline + 1]
                yield pending_start, pending
                pending_start += len(pending)
                pending = bytearray()
            else:
                yield pending_start, bytes(view[cut : newline + 1])
                pending_start += newline + 1 - cut
            cut = newline + 1
        pending += view[cut:got]
    if pending:
        yield pending_start, pending


def parse(line: Buffer) -> Record | None:
    """The record of a line, or None when Codex would not read it as one (blank, torn, not JSON, bad UTF-8).

    Nothing but the envelope is decoded: a line of 50 MB costs its own length. How deep it is nested is
    looked at in `compacted` records only, one of which decides where a history begins: whether another
    line that is too deep is read or skipped changes nothing for us.
    """
    try:
        record = _decode_record(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not is_utf8(line) or (record.type == "compacted" and _is_too_deep(line)):
        return None
    return record


def payload_type(record: Record) -> str | None:
    """`payload.type`, for `event_msg` and `response_item`; None when there is none.

    Codex writes it first: then the rest of the payload, often megabytes, is not gone through again.
    """
    if found := _KIND_FIRST(record.payload):
        return found[1].decode()
    try:
        return _decode_kind(record.payload).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def is_damaged(line: Buffer) -> bool:
    """Whether a line is neither blank nor an object that Codex can read, of a form that we know or not.

    Codex is as strict as we are: no NaN, no lone surrogates, nothing nested too deep (0.128.0 to 0.169.0).
    """
    if not line or line.isspace() or parse(line) is not None:
        return False
    try:
        _decode_object(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return not is_utf8(line) or _is_too_deep(line)


def _is_too_deep(line: Buffer) -> bool:
    """Whether valid JSON is nested deeper than Codex reads. Holds 1 MiB, however long the line is.

    Not left to a parser's own limit: that of msgspec is the interpreter's, and another one in each version of it.
    """
    if line.count(b"[") + line.count(b"{") <= _DEEPEST:
        return False  # as in almost all lines; the largest ones are images in base64, which has no brackets
    depth = start = 0
    inside = False  # a string
    while start < len(line):
        block = bytes(line[start : start + _CHUNK])
        if (len(block) - len(block.rstrip(b"\\"))) % 2:  # an escape must not be cut in two
            block += bytes(line[start + len(block) : start + len(block) + 1])
        start += len(block)
        bare = block.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NOT_STRUCTURE)
        parts = bare.split(b'"')
        for part in parts[inside::2]:
            for sign in part:
                depth += 1 if sign in b"[{" else -1
                if depth > _DEEPEST:
                    return True
        inside ^= len(parts) % 2 == 0
    return False


def is_utf8(line: Buffer) -> bool:
    """Whether the bytes are UTF-8; a long line is decoded in blocks."""
    if line.isascii():
        return True
    try:
        if len(line) <= _CHUNK:
            line.decode()
            return True
        decoder = codecs.getincrementaldecoder("utf-8")("strict")
        view = memoryview(line)
        for start in range(0, len(view), _CHUNK):
            decoder.decode(bytes(view[start : start + _CHUNK]))
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
