"""Compare: a home after the update against the checkpoint made before it; what is missing, and how to get it back.

A rollout may grow, be archived, compressed or migrated; it may not vanish or become shorter. Nothing
is changed here. The commands that findings name overwrite nothing: what lies in the way is moved aside.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from preflight.checkpoint.manifest import InventoryItem, Manifest, SourceRecord, ThreadRecord
from preflight.codex import threads as codex_threads
from preflight.codex.home import durable_databases
from preflight.codex.rollout import read_meta
from preflight.codex.threads import ThreadsFound
from preflight.errors import DamagedFile, PreflightError, TryLater
from preflight.model import Finding, Goal, GoalTable, HistoryMode, Home, RolloutFile, Severity
from preflight.system import databases
from preflight.system import files as system_files
from preflight.system.deadline import Deadline
from preflight.system.pace import Pace
from preflight.system.positional import read_at

_TAIL = 64 << 10
_NUMBER = re.compile(r"(_v\d+)?_\d+\.sqlite$")


def compare(
    home: Home, found: ThreadsFound, files: Sequence[RolloutFile], manifest: Manifest, folder: Path, deadline: Deadline
) -> tuple[Finding, ...]:
    """Findings on everything the checkpoint names that is missing, shorter or unreadable now.

    Goals are `dropped_goals`' part. Raises TimeLimitReached, DatabaseBusy.
    """
    seen_everywhere = all(finding.finding_id != "unreadable" for finding in found.findings)
    return (
        *_databases(home, manifest, folder, deadline),
        *_rollouts(files, manifest, folder, deadline, seen_everywhere=seen_everywhere),
        *_checkpointed(files, manifest, folder, deadline),
        *_rows(found, manifest, folder, deadline),
    )


def dropped_goals(goals: Sequence[Goal], manifest: Manifest) -> tuple[Goal, ...]:
    """The goals of the checkpoint whose threads have no goal row any more."""
    now = {goal.thread_id for goal in goals}
    return tuple(goal for goal in manifest.goals if goal.thread_id not in now)


def lost_with_their_table(home: Home, manifest: Manifest) -> tuple[Goal, ...]:
    """The goals that lay in the state database (0.128) of a home that keeps its goals elsewhere now.

    The update to 0.134 and later drops that table and copies nothing (seen with 0.134, 0.147, 0.169).
    """
    if home.goals_db is None:
        return ()
    return tuple(goal for goal in manifest.goals if goal.table is GoalTable.STATE)


def goal_gone(goal: Goal, manifest: Manifest) -> Finding:
    """The finding for a goal of the checkpoint that is not there any more."""
    dropped = goal.table is GoalTable.STATE
    return Finding(
        finding_id="goal-dropped" if dropped else "goal-gone",
        severity=Severity.BLOCK if dropped else Severity.WARN,
        thread_id=goal.thread_id,
        cause="the update has dropped the goal of this thread, and it is not written anew yet"
        if dropped
        else "the goal of this thread is gone since the checkpoint: somebody has cleared it, or deleted the thread",
        expected=goal.status,
        remedy="preflight finish" if dropped else f"preflight show {manifest.checkpoint_id} --show-text",
    )


def _databases(home: Home, manifest: Manifest, folder: Path, deadline: Deadline) -> Iterator[Finding]:
    now = {path.name: path for path in (home.state_db, home.goals_db) if path is not None}
    kinds = {_kind(name) for name in (*now, *(path.name for path in durable_databases(home)))}
    copies = {record.name: folder / record.path for record in manifest.databases}
    for record in manifest.databases:
        if _kind(record.name) not in kinds:
            yield Finding(
                finding_id="database-missing",
                # What else Codex keeps it may have given up: the copy stays, and a person decides.
                severity=Severity.BLOCK if _kind(record.name) in ("state", "goals") else Severity.WARN,
                cause=f"the database {record.name} is gone since the checkpoint",
                remedy=_put_back_database(copies[record.name], record.source),
                path=record.source,
            )
    for path in now.values():
        try:
            problems = databases.quick_check(path, deadline)
        except TryLater:
            raise
        except PreflightError as error:
            problems = [error.message]
        if problems:
            copy = copies.get(path.name)
            yield Finding(
                finding_id="database-damaged",
                severity=Severity.BLOCK,
                cause=f"{path.name} does not pass SQLite's quick_check: {problems[0]}",
                remedy="close every Codex and start it once: it offers to repair its data"
                if copy is None
                else _put_back_database(copy, path),
                path=path,
            )


def _kind(name: str) -> str:
    """`memories` of `memories_1.sqlite` and of `memories_v2_1.sqlite` (0.169)."""
    return _NUMBER.sub("", name)


def _put_back_database(copy: Path, place: Path) -> str:
    """A log without its database would be played back into the copy: it goes with it."""
    beside = [place, *(place.with_name(place.name + end) for end in ("-wal", "-shm"))]
    return _command(copy, place, [path for path in beside if os.path.lexists(path)])


def _rollouts(
    files: Sequence[RolloutFile], manifest: Manifest, folder: Path, deadline: Deadline, *, seen_everywhere: bool
) -> Iterator[Finding]:
    """Every rollout that the home had: still there under its name, whatever its folder, and not shorter."""
    now = {_bare(file.path.name): file for file in files}
    kept = {Path(record.file).name: record for record in manifest.threads if record.file is not None}
    for item in manifest.inventory:
        name = item.place.name
        file = now.get(_bare(name))
        record = kept.get(name)
        if file is None:
            yield _missing(item, record, manifest, folder) if seen_everywhere else _not_found(item, manifest)
        elif not file.compressed and not name.endswith(".zst") and file.size_bytes < item.size_bytes:
            if record is not None and _begins_with(file.path, record, manifest, deadline):
                yield _restored(item, file)
            else:
                yield _shrank(item, file, record, folder)


def _bare(name: str) -> str:
    return name.removesuffix(".zst")


def _begins_with(path: Path, record: ThreadRecord, manifest: Manifest, deadline: Deadline) -> bool:
    """Whether the file is the resume rollout of the checkpoint, and what was added to it since."""
    copy = next((one for one in manifest.files if one.path == record.file), None)
    if copy is None:
        return False
    try:
        return system_files.sha256_of(path, 0, copy.length, Pace(None, deadline).during("comparing")) == copy.sha256
    except (DamagedFile, OSError):
        return False


def _missing(item: InventoryItem, record: ThreadRecord | None, manifest: Manifest, folder: Path) -> Finding:
    place = manifest.home.path / item.place
    return Finding(
        finding_id="rollout-missing",
        severity=Severity.BLOCK,
        thread_id=item.thread_id,
        cause="a rollout that was there before the update is gone (unless you deleted the thread since)",
        measured=0,
        expected=item.size_bytes,
        remedy=_way_back(record, folder, place, ()),
        path=place,
    )


def _not_found(item: InventoryItem, manifest: Manifest) -> Finding:
    """No way back from the checkpoint: the whole rollout may well be in the folder that could not be read."""
    return Finding(
        finding_id="rollout-missing",
        severity=Severity.BLOCK,
        thread_id=item.thread_id,
        cause="a rollout that was there before the update was not found, and not every folder could be read",
        measured=0,
        expected=item.size_bytes,
        remedy="make the folders readable for your user, then: preflight finish",
        path=manifest.home.path / item.place,
    )


def _shrank(item: InventoryItem, file: RolloutFile, record: ThreadRecord | None, folder: Path) -> Finding:
    return Finding(
        finding_id="rollout-shrank",
        severity=Severity.BLOCK,
        thread_id=item.thread_id,
        cause="the rollout is shorter than it was before the update",
        measured=file.size_bytes,
        expected=item.size_bytes,
        remedy=_way_back(record, folder, file.path, [file.path]),
        path=file.path,
    )


def _restored(item: InventoryItem, file: RolloutFile) -> Finding:
    return Finding(
        finding_id="rollout-restored",
        severity=Severity.WARN,
        thread_id=item.thread_id,
        cause="the rollout is the resume rollout of the checkpoint: the thread goes on from its last compaction, "
        "and what was before it is not shown",
        measured=file.size_bytes,
        expected=item.size_bytes,
        remedy="put the whole rollout in its place if a backup of yours has it; otherwise nothing is left to do",
        path=file.path,
    )


_NO_COPY = "look for it in the system's trash and in your backups; this checkpoint has no copy of it"


def _way_back(record: ThreadRecord | None, folder: Path, place: Path, in_the_way: Sequence[Path]) -> str:
    """How to get the file back: by hand from the checkpoint, or out of the archive where only that has it."""
    if record is None:
        return _NO_COPY
    if record.file is None:
        return f"close Codex, then: preflight restore {folder.name} {record.thread_id} --full --in-place"
    return _command(folder / record.file, place, in_the_way)


def _look(record: ThreadRecord, folder: Path) -> str:
    copy = "" if record.file is None else f"; the copy is {folder / record.file}"
    return f"open the thread and look at its newest turn{copy}"


def _command(copy: Path, place: Path, in_the_way: Sequence[Path]) -> str:
    """How to put a copy in its place by hand."""
    steps = [["mkdir", "-p", place.parent]] if not place.parent.is_dir() else []
    steps += [["mv", "-n", path, _aside(path)] for path in in_the_way]
    steps.append(["cp", "-n", copy, place])
    return "close Codex, then: " + " && ".join(shlex.join(str(word) for word in step) for step in steps)


def _aside(path: Path) -> Path:
    """A name beside it that is free, and of a kind that Codex does not look at."""
    names = (path.with_name(f"{path.name}.aside{number or ''}") for number in count())
    return next(name for name in names if not os.path.lexists(name))


def _checkpointed(
    files: Sequence[RolloutFile], manifest: Manifest, folder: Path, deadline: Deadline
) -> Iterator[Finding]:
    """Threads that have a resume rollout: the bytes that were copied must still be there where they were."""
    now = {file.path.name: file for file in files}
    for record in manifest.threads:
        for source in record.sources:
            file = now.get(source.path.name)
            compressed = now.get(f"{source.path.name}.zst")
            if file is None and compressed is not None:
                yield _compressed(record, source, compressed, folder)
            if file is None or file.compressed or file.size_bytes < source.used_bytes:
                continue  # told above, or as compressed as it was
            try:
                same = _same_tail(file.path, source)
            except OSError as error:
                yield _unreadable(record, file, error)
                continue
            if not same and not _begins_with(file.path, record, manifest, deadline):
                yield _rewritten(record, source, file, folder)


def _compressed(record: ThreadRecord, source: SourceRecord, file: RolloutFile, folder: Path) -> Finding:
    """Codex does that to threads that have long been idle (0.144 and later), and unpacks them when they are opened."""
    return Finding(
        finding_id="rollout-compressed",
        severity=Severity.WARN,
        thread_id=record.thread_id,
        cause="the rollout was compressed since the checkpoint, so whether it holds what it held was not compared",
        measured=file.size_bytes,
        expected=source.used_bytes,
        remedy=_look(record, folder),
        path=file.path,
    )


def _rewritten(record: ThreadRecord, source: SourceRecord, file: RolloutFile, folder: Path) -> Finding:
    """Only a migration has a reason to: it makes a paginated rollout of a legacy one (0.169)."""
    migrated = record.history_mode is HistoryMode.LEGACY and _is_paginated(file.path)
    is_head = source is record.sources[0]
    return Finding(
        finding_id="rollout-rewritten",
        severity=Severity.WARN if migrated else Severity.BLOCK,
        thread_id=record.thread_id,
        cause="the runtime has migrated this rollout to its paginated layout; the checkpoint has the old one"
        if migrated
        else "the rollout does not hold what it held before the update, and no migration explains it",
        measured=file.size_bytes,
        expected=source.used_bytes,
        remedy=_way_back(record, folder, file.path, [file.path]) if is_head and not migrated else _look(record, folder),
        path=file.path,
    )


def _is_paginated(path: Path) -> bool:
    try:
        return read_meta(path).history_mode is HistoryMode.PAGINATED
    except (DamagedFile, OSError):
        return False


def _unreadable(record: ThreadRecord, file: RolloutFile, error: OSError) -> Finding:
    return Finding(
        finding_id="rollout-unreadable",
        severity=Severity.BLOCK,
        thread_id=record.thread_id,
        cause=f"the rollout could be read before the update, and cannot be read now: {error.strerror}",
        remedy="make it readable for your user, then: preflight finish",
        path=file.path,
    )


def _same_tail(path: Path, source: SourceRecord) -> bool:
    start = max(0, source.used_bytes - _TAIL)
    with path.open("rb", buffering=0) as file:
        data = read_at(file.fileno(), source.used_bytes - start, start)
    return hashlib.sha256(data).hexdigest() == source.tail_sha256


def _rows(found: ThreadsFound, manifest: Manifest, folder: Path, deadline: Deadline) -> Iterator[Finding]:
    """Thread rows of the copied state database that are gone, though their rollout is there."""
    copy = _copied_home(manifest, folder)
    if copy is None:
        return
    try:
        before: Mapping[str, object] = codex_threads.read_rows(copy, deadline)
    except PreflightError:
        return  # the copy was verified when it was made; `preflight verify` tells what became of it
    for thread in found.threads:
        if thread.row is None and thread.thread_id in before and thread.lineage:
            yield Finding(
                finding_id="thread-row-missing",
                severity=Severity.WARN,
                thread_id=thread.thread_id,
                cause="the thread is no longer in the state database; its rollout is there",
                remedy="open the thread by its id: Codex makes the row anew from the rollout",
                path=thread.head.path if thread.head is not None else None,
            )


def _copied_home(manifest: Manifest, folder: Path) -> Home | None:
    states = [folder / record.path for record in manifest.databases if record.name.startswith("state_")]
    if not states:
        return None
    home = Home(
        path=manifest.home.path,
        sqlite_home=folder / "databases",
        home_id=manifest.home.home_id,
        state_db=None,
        goals_db=None,
        history_db=None,
    )
    return replace(home, state_db=max(states))
