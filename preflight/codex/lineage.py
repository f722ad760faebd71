"""Lineages: a rollout with a `history_base` goes on where another file stops (0.154 and later).

`history_base.thread_id` names a file, not always a thread: where the base is a revert's segment it
is the id behind the underscore of its name (seen on 0.169). Bases can have bases.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from preflight.codex.lines import lines_forwards, parse
from preflight.codex.rollout import read_meta
from preflight.errors import DamagedFile
from preflight.model import Finding, HistoryBase, RolloutFile, Segment, Severity
from preflight.system.positional import read_at

_DEEPEST = 64
_HEAD = 512
_ORDINAL = re.compile(rb'\{"timestamp":"[^"\\]*","ordinal":(\d+),')
# The first line of a file that goes on from no other: legacy files have no ordinal, others begin at 0.
_OWN_BEGINNING = re.compile(rb'\{"timestamp":"[^"\\]*",(?:"ordinal":0,)?"type":"session_meta"')
_FIRST_BYTES = 128


def lineage_of(
    head: RolloutFile, files_by_id: Mapping[str, Sequence[RolloutFile]]
) -> tuple[tuple[Segment, ...], tuple[Finding, ...]]:
    """The files that make a thread, newest first, and what is wrong with the chain.

    Reads the first line of each file. A base that is missing, compressed, shorter than what is
    needed of it, or that leads in a circle ends the chain with a finding of severity block: such a
    thread cannot be opened by Codex either ("cutoff byte offset is past the source rollout", 0.169).
    """
    chain: list[Segment] = []
    seen: set[str] = set()
    file, end_offset = head, None
    while True:
        if file.place in seen or len(chain) >= _DEEPEST:
            return tuple(chain), (_broken(head, "its history bases lead in a circle", file.path),)
        seen.add(file.place)
        if file.compressed:
            chain.append(Segment(file=file, end_offset=end_offset))
            return tuple(chain), ()
        try:
            base = read_meta(file.path).history_base
        except (DamagedFile, OSError) as error:
            chain.append(Segment(file=file, end_offset=end_offset))
            return tuple(chain), (_damaged(head, file.path, error),)
        chain.append(Segment(file=file, end_offset=end_offset, history_base=base))
        if base is None:
            return tuple(chain), ()
        found = _base_file(base, files_by_id)
        if found is None:
            return tuple(chain), (_broken(head, f"the rollout {base.file_id} that it goes on from is gone", file.path),)
        try:
            end_offset = cut_offset(found.path, base)
        except (DamagedFile, OSError) as error:
            return tuple(chain), (_broken(head, str(error), found.path),)
        file = found


def _base_file(base: HistoryBase, files_by_id: Mapping[str, Sequence[RolloutFile]]) -> RolloutFile | None:
    candidates = [f for f in files_by_id.get(base.file_id, ()) if f.file_id == base.file_id]
    return min(candidates, key=lambda f: (f.compressed, f.archived, f.stamp), default=None)


def begins_itself(path: str) -> bool:
    """Whether a rollout goes on from no other file; False also when its first bytes do not tell."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError:
        return False
    try:
        return _OWN_BEGINNING.match(os.read(descriptor, _FIRST_BYTES)) is not None
    except OSError:
        return False
    finally:
        os.close(descriptor)


def bases_named(files: Iterable[RolloutFile]) -> tuple[tuple[RolloutFile, HistoryBase | None], ...]:
    """Of these files those that go on from another one, and from where; None where that cannot be told.

    It cannot of one that may not be read. One that is damaged in its first line is left out: Codex cannot
    open it either (0.128 to 0.169).
    """
    found: list[tuple[RolloutFile, HistoryBase | None]] = []
    for file in files:
        if not file.compressed and begins_itself(file.place):
            continue
        try:
            base = read_meta(file.path).history_base
        except (DamagedFile, FileNotFoundError):
            continue
        except OSError:
            found.append((file, None))
            continue
        if base is not None:
            found.append((file, base))
    return tuple(found)


def cut_offset(path: Path, base: HistoryBase) -> int:
    """How many bytes of the base file count: up to the first line whose ordinal is not below the cut.

    The recorded byte offset is used when it proves right (behind a newline, and what follows has
    the ordinal of the cut or a later one), else the file is read forwards. Raises DamagedFile when
    the file ends before the cut.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        size = os.fstat(descriptor).st_size
        offset = base.end_byte_offset
        if offset is not None and 0 < offset <= size and _is_cut(descriptor, offset, size, base):
            return offset
        if base.end_ordinal_exclusive is None:
            raise DamagedFile("the place where it goes on from its base cannot be found", path=path)
        position = 0
        last = -1
        for start, data in lines_forwards(descriptor, 0, size, path):
            record = parse(data)
            if record is not None and record.ordinal is not None:
                if record.ordinal >= base.end_ordinal_exclusive:
                    return start
                last = record.ordinal
            if data.endswith(b"\n"):
                position = start + len(data)
        if last + 1 < base.end_ordinal_exclusive:
            raise DamagedFile("the base is shorter than the part of it that is needed", path=path)
        return position
    finally:
        os.close(descriptor)


def _is_cut(descriptor: int, offset: int, size: int, base: HistoryBase) -> bool:
    if read_at(descriptor, 1, offset - 1) != b"\n":
        return False
    if offset == size or base.end_ordinal_exclusive is None:
        return True
    following = _ORDINAL.match(read_at(descriptor, _HEAD, offset))
    return following is not None and int(following[1]) >= base.end_ordinal_exclusive


def _broken(head: RolloutFile, why: str, path: Path) -> Finding:
    return Finding(
        finding_id="lineage-broken",
        severity=Severity.BLOCK,
        thread_id=head.thread_id,
        cause=f"the thread cannot be put together: {why}",
        remedy="restore the missing rollout from a backup, or archive the thread in Codex; then run preflight check",
        path=path,
    )


def _damaged(head: RolloutFile, path: Path, error: DamagedFile | OSError) -> Finding:
    return Finding(
        finding_id="rollout-damaged",
        severity=Severity.BLOCK,
        thread_id=head.thread_id,
        cause=error.message if isinstance(error, DamagedFile) else f"the rollout cannot be read ({error.strerror})",
        remedy="keep the file; restore it from a backup, or archive the thread in Codex; then run preflight check",
        path=path,
    )
