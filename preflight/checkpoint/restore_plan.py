"""What a restore into a thread's own home, or its undoing, is going to change, and whether other threads allow it.

A fork or a revert names its base by byte offset or ordinal (0.154 and later): a base that is replaced by a reduced
file, or by a shorter one, cannot be gone on from any more ("cutoff byte offset is past the source rollout", 0.169).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from preflight.checkpoint import restore
from preflight.checkpoint.contents import Content
from preflight.checkpoint.restore_record import Phase, PlacedFile, RestoreRecord
from preflight.checkpoint.restore_source import RestoreSource
from preflight.codex import lineage, thread_rows
from preflight.codex.rollout import read_meta
from preflight.codex.threads import find_threads, rollout_files
from preflight.errors import DamagedFile, Unsupported, Unverified
from preflight.model import Finding, HistoryMode, Home, RolloutFile, Severity
from preflight.system import files
from preflight.system.deadline import Deadline

__all__ = ["Plan", "plan", "plan_undo", "require_same_beginnings"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What changes places (`record`) and what is to be written for it.

    `shared` are the bytes at the beginning of each replaced file that other threads go on from. `newer_bytes`
    is what the thread has been given since: Codex does not show it any more, and it is kept.
    """

    record: RestoreRecord
    wanted: tuple[Content, ...]
    shared: Mapping[Path, int]
    newer_bytes: int = 0

    @property
    def question(self) -> str:
        """What a person is asked before anything is changed."""
        record = self.record
        if record.undoes is not None:
            asked, since = f"Undo the restore of thread {record.thread_id}?", "since then"
        else:
            asked = f"Put thread {record.thread_id} back as checkpoint {record.checkpoint_id} has it?"
            since = "since"
        if self.newer_bytes:
            newer = f"{self.newer_bytes:,} bytes"
            return f"{asked} The {newer} that were written to it {since} are not shown any more; they are kept."
        return f"{asked} Today's file is kept." if record.kept else asked

    def findings(self, *, dry_run: bool = False) -> tuple[Finding, ...]:
        """What a person who is about to lose sight of turns, or has just lost it, must read."""
        record = self.record
        if not self.newer_bytes:
            return ()
        shown = (
            "would not be shown by Codex any more; it would be" if dry_run else "is not shown by Codex any more; it is"
        )
        since = "the restore" if record.undoes is not None else "the checkpoint"
        return (
            Finding(
                finding_id="newer-turns-kept",
                severity=Severity.WARN,
                thread_id=record.thread_id,
                cause=f"what was written to the thread after {since} {shown} kept",
                measured=self.newer_bytes,
                remedy=None if dry_run or record.undoes is not None else f"preflight restore --undo {record.thread_id}",
                path=next(iter(record.kept), None),
            ),
        )


def plan(
    source: RestoreSource,
    home: Home,
    wanted: Sequence[Content],
    *,
    what: str,
    restore_id: str,
    at_ms: int,
    deadline: Deadline,
) -> Plan:
    """How the wanted contents get their places. Raises Unsupported when something is in the way, DamagedFile."""
    there = rollout_files(find_threads(home, deadline))
    thread_id = source.thread.thread_id
    current = _files_of(there, thread_id, home)
    wanted = _missing(wanted, there, source)
    placed = tuple(restore.placed(content, home.path, current, restore_id) for content in wanted)
    places, replaced = _real(file.place for file in placed), {file.file_id for file in placed}
    known = _known_sizes(source)
    stay = [
        file
        for file in current
        if restore.bare_name(file.path.name) in known
        and file.file_id not in replaced
        and os.path.realpath(file.path) not in places
    ]
    moving = [file for file in current if file not in stay]
    newer = [file for file in moving if os.path.realpath(file.path) not in places]
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
        stayed=tuple(restore.bare_name(file.path.name) for file in stay),
        archived=placed[0].place.parent.name == "archived_sessions",
        history_mode=None if mode is HistoryMode.UNKNOWN else mode.value,
        row_before=thread_rows.read_row(home, thread_id, deadline),
        goal_id=source.thread.goal.goal_id if source.thread.goal is not None else None,
    )
    is_whole = source.thread.file is None or (source.thread.whole and len(source.thread.sources) == 1)
    shared = _shared_beginnings(record, there, reduced=what == "resume" and not is_whole)
    return Plan(record, wanted, shared, sum(_newer_bytes(file, source, known) for file in moving))


def plan_undo(done: RestoreRecord, home: Home, *, restore_id: str, deadline: Deadline) -> Plan:
    """How what a restore kept gets its names again; what the thread consists of by now is kept in its turn.

    A base of another thread that was put back with this one stays: that thread may go on in it by now. Raises
    Unverified when what was kept is not there any more, Unsupported when something is in the way.
    """
    there = rollout_files(find_threads(home, deadline))
    current = _files_of(there, done.thread_id, home)
    kept = [(file.place, file.kept, file.file_id) for file in done.moving if file.kept is not None]
    back = []
    for place, older, file_id in kept:
        if not os.path.lexists(older):
            raise Unverified(
                "the file that was kept is not there any more, so the restore cannot be undone",
                path=older,
                hint=f"preflight restore latest {done.thread_id} puts the thread back from a checkpoint",
            )
        identity = files.identity(older)
        back.append(
            PlacedFile(
                place=place,
                staged=older,
                kept=restore.kept_name(place, current, restore_id),
                file_id=file_id,
                length=identity.size_bytes,
                identity=identity,
            )
        )
    places = _real(file.place for file in back)
    moving = [file for file in current if restore.bare_name(file.path.name) not in done.stayed]
    away = [file for file in moving if os.path.realpath(file.path) not in places]
    record = replace(
        done,
        restore_id=restore_id,
        phase=Phase.SWAPPING,
        what="undo",
        files=tuple(back),
        aside=tuple(restore.set_aside(file, restore_id) for file in away),
        row_before=done.row_after,
        row_after=done.row_before,
        undoes=done.restore_id,
    )
    restored = {file.identity.inode: file.length for file in done.files if file.identity is not None}
    grown = sum(max(0, file.size_bytes - restored.get(file.identity.inode, 0)) for file in moving)
    return Plan(record, (), _shared_beginnings(record, there, reduced=False), grown)


def _files_of(there: Sequence[RolloutFile], thread_id: str, home: Home) -> list[RolloutFile]:
    """The thread's files below the home. One elsewhere, which a row may name, is not ours to move; nor is one that
    the row names by the other end of a link, and that is among these already.
    """
    return [file for file in there if file.thread_id == thread_id and file.path.is_relative_to(home.path)]


def _real(paths: Iterable[Path]) -> set[str]:
    """By one spelling: a home may be named by a link the one time, and by its own name the other."""
    return {os.path.realpath(path) for path in paths}


def _known_sizes(source: RestoreSource) -> dict[str, int]:
    """The files that the thread had when the checkpoint was made, and how long they were."""
    sizes = {
        restore.bare_name(item.place.name): item.size_bytes
        for item in source.manifest.inventory
        if item.thread_id == source.thread.thread_id
    }
    for one in source.thread.sources:  # copied after the inventory was taken
        name = restore.bare_name(one.path.name)
        sizes[name] = max(sizes.get(name, 0), one.identity.size_bytes)
    return sizes


def _newer_bytes(file: RolloutFile, source: RestoreSource, known: Mapping[str, int]) -> int:
    """What the file has that the checkpoint has not: rollouts only grow, and compressed ones keep their time."""
    name = restore.bare_name(file.path.name)
    then = next((one for one in source.thread.sources if restore.bare_name(one.path.name) == name), None)
    if then is not None and (file.compressed or then.path.suffix == ".zst"):
        return file.size_bytes if file.identity.modified_ns > then.identity.modified_ns else 0
    return max(0, file.size_bytes - known.get(name, 0))


def _missing(wanted: Sequence[Content], there: Sequence[RolloutFile], source: RestoreSource) -> tuple[Content, ...]:
    """The newest file, and those of its bases of which the home has not the same beginning any more.

    Unsupported when such a base is another thread's, and is another file by now, or compressed: that thread needs it.
    """
    head, *bases = wanted
    missing = [head]
    for base in bases:
        now = [file for file in there if file.file_id == base.file_id]
        if any(_is_same_base(base, file) for file in now):
            continue
        for file in now:
            if file.thread_id != source.thread.thread_id:
                call = f"preflight restore {source.manifest.checkpoint_id} {source.thread.thread_id}"
                raise Unsupported(
                    f"this thread goes on from the rollout of thread {file.thread_id}, which "
                    + ("is compressed by now" if file.compressed else "is not what it was any more"),
                    path=file.path,
                    hint=f"{call} --resume --in-place, which does not need that file; or --full --to a-new-folder",
                )
        missing.append(base)
    return tuple(missing)


def _is_same_base(base: Content, file: RolloutFile) -> bool:
    if file.compressed or file.size_bytes < base.length:
        return False
    start = restore.tail_start(base.length)
    try:
        return files.sha256_of(file.path, start, base.length - start) == base.tail_sha256
    except (OSError, DamagedFile):
        return False


def _shared_beginnings(record: RestoreRecord, there: Sequence[RolloutFile], *, reduced: bool) -> dict[Path, int]:
    """How many bytes at the beginning of each replaced file must stay as they are, for the threads that go on from it.

    A thread that cannot go on from it today, because the file is too short, makes no demands: the restore can but
    help it. Raises Unsupported when a file must not be replaced at all: a reduced one, or none, has no such beginning.
    """
    moving = _real(file.place for file in record.moving)
    placed = {file.file_id: file for file in record.files}
    aside = {file.file_id for file in record.aside}
    others = [file for file in there if os.path.realpath(file.path) not in moving]
    needed: dict[Path, int] = {}
    for other, base in lineage.bases_named(others):
        if base is None:
            if any(_is_paginated(file.place) for file in record.files if file.kept is not None):
                raise _depended_on(record, other.path, "it cannot be told whether another thread goes on from this one")
        elif base.file_id in aside or (reduced and base.file_id in placed):
            raise _depended_on(record, other.path, f"thread {other.thread_id} goes on from this one's rollout")
        elif (file := placed.get(base.file_id)) is not None and file.kept is not None:
            try:
                needed[file.place] = max(needed.get(file.place, 0), lineage.cut_offset(file.place, base))
            except DamagedFile:
                continue
            except OSError as error:
                why = f"what thread {other.thread_id} goes on from cannot be read ({error.strerror})"
                raise _depended_on(record, file.place, why) from error
    return needed


def _is_paginated(path: Path) -> bool:
    try:
        return read_meta(path).history_mode is HistoryMode.PAGINATED
    except (DamagedFile, OSError):
        return False  # Codex cannot open it, nor anything that goes on from it


def _depended_on(record: RestoreRecord, path: Path, why: str) -> Unsupported:
    if record.undoes is not None:
        older = next((file.staged for file in record.files), None)
        hint = f"keep the thread as it is: what it was before lies in {older}" if older is not None else None
        return Unsupported(f"{why}, which could not be opened any more", path=path, hint=hint)
    call = f"preflight restore {record.checkpoint_id} {record.thread_id}"
    hint = f"{call} --resume --to a-new-folder" + ("; or --full --in-place" if record.what == "resume" else "")
    return Unsupported(f"{why}, which could not be opened any more", path=path, hint=hint)


def require_same_beginnings(planned: Plan, record: RestoreRecord) -> None:
    """Raise Unsupported unless what other threads go on from is the same in the files that lie ready in `record`."""
    for file in record.files:
        length = planned.shared.get(file.place, 0)
        if length > file.length or (
            length and files.sha256_of(file.staged, 0, length) != files.sha256_of(file.place, 0, length)
        ):
            raise _depended_on(record, file.place, "another thread goes on from a part that would not be there")
