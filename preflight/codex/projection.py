"""The projection of paginated threads: what the app shows of them, kept in `thread_history_N.sqlite` (0.154 and later).

It remembers how far it has read each rollout file, under the id in the file's name (a segment's, if it
has one). A rollout that became shorter than that, restored, reduced or cut off, is resumed, but its
new turns never appear: "durable rollout shrank before projection" (0.169). Nothing in it is original:
what is deleted from it Codex builds anew at the next resume.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from preflight.codex.schema import require_columns, require_known_number
from preflight.errors import DamagedFile, DatabaseBusy, Unsupported
from preflight.model import Finding, Home, RolloutFile, Severity, Thread
from preflight.system import databases
from preflight.system.deadline import Deadline

__all__ = ["forget", "stale_projections"]

_TABLE = "thread_history_projection_state"
_COLUMNS = ("thread_id", "next_rollout_byte_offset")
# The state last: its trigger deletes rows of another table (0.169).
_TABLES = ("thread_items", "thread_turns", "thread_realtime_items", _TABLE)


def forget(home: Home, file_ids: Iterable[str], deadline: Deadline) -> int:
    """Delete what the projection holds of these files, in one transaction; return how many rows went.

    For a rollout that gets other bytes: Codex builds it anew at the next resume. Only while nobody has the
    thread open, or the runtime goes on from what it remembers. Raises UnknownSchema, DamagedFile,
    DatabaseBusy; then nothing was changed.
    """
    ids = sorted(set(file_ids))
    if home.history_db is None or not ids:
        return 0
    require_known_number(home.history_db)
    with databases.connect_readonly(home.history_db, deadline) as connection:
        require_columns(connection, _TABLE, _COLUMNS)
        there = [table for table in _TABLES if "thread_id" in databases.table_columns(connection, table)]
    marks = ", ".join("?" * len(ids))
    statements = [(f"DELETE FROM {table} WHERE thread_id IN ({marks})", ids) for table in there]  # noqa: S608
    return sum(databases.write_once(home.history_db, statements, deadline))


def stale_projections(home: Home, threads: Iterable[Thread], deadline: Deadline) -> tuple[Finding, ...]:
    """A finding for each of these threads whose newest file is shorter than what its projection has read.

    A projection that cannot be read, because it is busy, damaged or of an unknown layout, is one finding:
    nothing is lost with it. Raises TimeLimitReached only. Changes nothing.
    """
    if home.history_db is None:
        return ()
    try:
        read_until = _read(home.history_db, deadline)
    except (DamagedFile, DatabaseBusy, Unsupported) as error:
        return (_unreadable(home.history_db, error),)
    found = []
    for head in (thread.head for thread in threads):
        if head is None or head.compressed:
            continue
        offset = read_until.get(head.file_id, 0)
        # A live thread has grown since its size was taken, and its projection with it: look again.
        if offset > head.size_bytes and offset > (size := _size_now(head)):
            found.append(_stale(home.history_db, head, size, offset))
    return tuple(found)


def _read(path: Path, deadline: Deadline) -> Mapping[str, int]:
    require_known_number(path)
    with databases.connect_readonly(path, deadline) as connection:
        require_columns(connection, _TABLE, _COLUMNS)
        rows = connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM {_TABLE}")  # noqa: S608 -- names from above
        return dict(rows.fetchall())


def _size_now(head: RolloutFile) -> int:
    try:
        return head.path.stat().st_size
    except OSError:
        return head.size_bytes


def _stale(database: Path, head: RolloutFile, size: int, offset: int) -> Finding:
    return Finding(
        finding_id="projection-stale",
        severity=Severity.WARN,
        thread_id=head.thread_id,
        cause="the rollout is shorter than what the app has already shown of it, so new turns will not appear",
        measured=size,
        expected=offset,
        remedy=f"close every Codex and move {database.name} out of the home, its -wal and -shm with it",
        path=head.path,
    )


def _unreadable(database: Path, error: DamagedFile | DatabaseBusy | Unsupported) -> Finding:
    return Finding(
        finding_id="projection-unreadable",
        severity=Severity.WARN,
        cause=f"what the app shows of paginated threads could not be compared with their rollouts: {error.message}",
        remedy=f"close every Codex and move {database.name} out of the home: it is built anew from the rollouts",
        path=database,
    )
