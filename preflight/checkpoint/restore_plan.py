"""What a restore into a thread's own home is going to change, and whether other threads allow it.

A fork or a revert names its base by byte offset or ordinal (0.154 and later): a base that is replaced by a reduced
file, or by a shorter one, cannot be gone on from any more ("cutoff byte offset is past the source rollout", 0.169).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from preflight.checkpoint import restore
from preflight.checkpoint.contents import Content
from preflight.checkpoint.restore_record import Phase, RestoreRecord
from preflight.checkpoint.restore_source import RestoreSource
from preflight.codex import lineage, thread_rows
from preflight.codex.rollout import read_meta
from preflight.codex.threads import ThreadsFound, find_threads, rollout_files
from preflight.errors import DamagedFile, Unsupported
from preflight.model import HistoryMode, Home, RolloutFile
from preflight.system import files
from preflight.system.deadline import Deadline

__all__ = ["plan", "require_same_beginnings"]


def plan(
    source: RestoreSource,
    home: Home,
    wanted: Sequence[Content],
    *,
    what: str,
    restore_id: str,
    at_ms: int,
    deadline: Deadline,
) -> tuple[RestoreRecord, tuple[Content, ...], dict[Path, int]]:
    """What is going to change places, what is to be written, and how much of each replaced file others go on from."""
    found = find_threads(home, deadline)
    wanted = _missing(wanted, rollout_files(found))
    thread_id = source.thread.thread_id
    current = _files_of(found, thread_id)
    placed = tuple(restore.placed(content, home.path, current, restore_id) for content in wanted)
    places = {file.place for file in placed}
    replaced_ids = {file.file_id for file in placed}
    known = {item.place.name for item in source.manifest.inventory if item.thread_id == thread_id}
    newer = [
        file
        for file in current
        if file.path not in places and (file.path.name not in known or file.file_id in replaced_ids)
    ]
    mode = source.thread.history_mode
    record = RestoreRecord(
        restore_id=restore_id,
        phase=Phase.STAGING,
        what=what,
        home=home.path,
        checkpoint_id=source.manifest.checkpoint_id,
        thread_id=thread_id,
        at_ms=at_ms,
        files=placed,
        aside=tuple(restore.set_aside(file, restore_id) for file in newer),
        archived=placed[0].place.parent.name == "archived_sessions",
        history_mode=None if mode is HistoryMode.UNKNOWN else mode.value,
        row_before=thread_rows.read_row(home, thread_id, deadline),
        goal_id=source.thread.goal.goal_id if source.thread.goal is not None else None,
    )
    return record, wanted, _shared_beginnings(record, found, reduced=what == "resume")


def _missing(wanted: Sequence[Content], there: Sequence[RolloutFile]) -> tuple[Content, ...]:
    """The newest file, and those of its bases of which the home has not the same beginning any more."""
    head, *bases = wanted
    return (head, *(base for base in bases if not any(_is_same_base(base, file) for file in there)))


def _is_same_base(base: Content, file: RolloutFile) -> bool:
    if file.file_id != base.file_id or file.compressed or file.size_bytes < base.length:
        return False
    start = restore.tail_start(base.length)
    try:
        return files.sha256_of(file.path, start, base.length - start) == base.tail_sha256
    except (OSError, DamagedFile):
        return False


def _files_of(found: ThreadsFound, thread_id: str) -> list[RolloutFile]:
    return [file for file in rollout_files(found) if file.thread_id == thread_id]


def _shared_beginnings(record: RestoreRecord, found: ThreadsFound, *, reduced: bool) -> dict[Path, int]:
    """How many bytes at the beginning of each replaced file must stay as they are, for the threads that go on from it.

    Raises Unsupported when a file must not be replaced at all: a reduced one, or none, has no such beginning.
    """
    moving = {file.place for file in record.files} | {file.place for file in record.aside}
    placed = {file.file_id: file for file in record.files}
    aside = {file.file_id for file in record.aside}
    needed: dict[Path, int] = {}
    for other, base in lineage.bases_named(file for file in rollout_files(found) if file.path not in moving):
        if base is None:
            if any(_is_paginated(file.place) for file in record.files if file.kept is not None):
                raise _depended_on(record, other.path, "it cannot be told whether another thread goes on from this one")
        elif base.file_id in aside or (reduced and base.file_id in placed):
            raise _depended_on(record, other.path, f"thread {other.thread_id} goes on from this one's rollout")
        elif (file := placed.get(base.file_id)) is not None and file.kept is not None:
            needed[file.place] = max(needed.get(file.place, 0), lineage.cut_offset(file.place, base))
    return needed


def _is_paginated(path: Path) -> bool:
    try:
        return read_meta(path).history_mode is HistoryMode.PAGINATED
    except (DamagedFile, OSError):
        return False  # Codex cannot open it, nor anything that goes on from it


def _depended_on(record: RestoreRecord, path: Path, why: str) -> Unsupported:
    return Unsupported(
        f"{why}: in another form it could not be opened any more",
        path=path,
        hint=f"preflight restore {record.checkpoint_id} {record.thread_id} --resume --to a-new-folder",
    )


def require_same_beginnings(record: RestoreRecord, needed: Mapping[Path, int]) -> None:
    """Raise Unsupported unless what other threads go on from is the same in the staged files."""
    for file in record.files:
        length = needed.get(file.place, 0)
        if length > file.length or (
            length and files.sha256_of(file.staged, 0, length) != files.sha256_of(file.place, 0, length)
        ):
            raise _depended_on(record, file.place, "another thread goes on from a part that the checkpoint has not")
