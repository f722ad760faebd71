"""The databases' part of a checkpoint: copies by SQLite's own backup, and how the originals were just before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from preflight.checkpoint.manifest import DatabaseRecord, FileRecord
from preflight.errors import DamagedFile
from preflight.model import FileIdentity, Finding, Home, Severity
from preflight.system import databases, files
from preflight.system.deadline import Deadline

__all__ = ["copy_databases", "database_state", "size_with_log"]


def size_with_log(path: Path) -> int:
    """A database's length with its log: only `stat`, an open would drop SQLite's locks."""
    sizes = [path.stat().st_size]
    log = path.with_name(path.name + "-wal")
    if log.exists():
        sizes.append(log.stat().st_size)
    return sum(sizes)


def copy_databases(
    paths: Sequence[Path], home: Home, folder: Path, deadline: Deadline
) -> tuple[list[tuple[DatabaseRecord, FileRecord]], list[Finding]]:
    """Copy them into `folder`; a damaged one becomes a finding. Raises DatabaseBusy, TimeLimitReached, NoSpace."""
    copies, failures = [], []
    for path in paths:
        try:
            copies.append(_copy_database(path, home, folder, deadline))
        except DamagedFile as error:
            failures.append(_database_failure(path, error))
    return copies, failures


def _copy_database(path: Path, home: Home, folder: Path, deadline: Deadline) -> tuple[DatabaseRecord, FileRecord]:
    name = f"databases/{path.name}"
    target = folder / name
    files.private_folder(target.parent)
    # Before the copy: what a runtime writes from now on makes the database one that has changed since.
    identity, log = database_state(path)
    databases.backup(path, target, deadline)
    file = FileRecord(path=name, length=target.stat().st_size, sha256=files.sha256_of(target), role="database")
    source = home.sqlite_home / path.name
    return DatabaseRecord(name=path.name, path=name, source=source, identity=identity, log=log), file


def database_state(path: Path) -> tuple[FileIdentity, FileIdentity | None]:
    """A database and its log as files; an empty log is none. Only `stat`: an open would drop SQLite's locks."""
    log = path.with_name(path.name + "-wal")
    try:
        written = files.identity(log)
    except FileNotFoundError:
        return files.identity(path), None
    return files.identity(path), written if written.size_bytes else None


def _database_failure(path: Path, error: DamagedFile) -> Finding:
    return Finding(
        finding_id="checkpoint-failed",
        severity=Severity.BLOCK,
        cause=f"{path.name} could not be copied: {error.message}",
        remedy=error.hint or "start Codex and let it repair its local data, then: preflight run",
        path=path,
    )
