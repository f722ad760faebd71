"""The only place that opens a SQLite file, and the only one that knows sqlite3's errors.

A database is opened through SQLite and in no other way while this process has it open: POSIX locks
belong to the process, so closing any other descriptor of the file would drop SQLite's own.

What a read leaves behind, measured with SQLite 3.40.1 on a WAL database that had been closed
cleanly (no `-wal` beside it): `mode=ro` makes an empty `-wal` and a 32 KiB `-shm` and leaves both;
`mode=rw` with `query_only` makes them too and takes them away again when it closes as the last one,
by SQLite's own protocol; the database file itself keeps bytes and times either way. With a `-wal`
there, `mode=rw` would write it back into the database on closing, `mode=ro` changes nothing; only
where the `-shm` beside it is missing (0.147 and 0.169 end so now and then) a new one stays. Hence
`_reading_mode`. Never `immutable=1`: it reads past the locks and past the `-wal`.

Errors: DatabaseBusy, DamagedFile (malformed, or no database), UnknownSchema (a table or column that
is not there, a row that a rule forbids), NoSpace, Unverified (a write failed), Unsupported (cannot be
opened). No fact about a file leaves this module, or a `with connect_readonly(...)` block, as sqlite3.Error.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

from preflight.errors import DamagedFile, DatabaseBusy, NoSpace, PreflightError, UnknownSchema, Unsupported, Unverified
from preflight.system import files
from preflight.system.deadline import Deadline

__all__ = [
    "ColumnInfo",
    "Parameters",
    "ReadOnlyConnection",
    "Value",
    "backup",
    "connect_readonly",
    "create",
    "quick_check",
    "table_columns",
    "write_once",
]

BUSY_SECONDS = 10.0  # twice what Codex itself waits (5 s, 0.128 to 0.169): who holds it longer is no runtime at work

_PAGES_A_STEP = 4096
_INDEX_BYTES = 64 << 10  # twice the -shm that SQLite makes beside a log

Kind = TypeVar("Kind", bound=sqlite3.Connection)

Value = str | int | float | bytes | None
Parameters = Sequence[Value] | Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnInfo:
    """One column as `PRAGMA table_info` tells it; `default` is SQL text."""

    type: str
    not_null: bool
    default: str | None
    primary_key: bool


class ReadOnlyConnection(sqlite3.Connection):
    """A connection that cannot change anything. As a context manager it closes and turns sqlite3.Error into ours."""

    path: Path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        self.close()
        if isinstance(error, sqlite3.Error) and not isinstance(error, _MISUSE):
            raise _translated(error, self.path) from error
        return False


def connect_readonly(path: Path, deadline: Deadline) -> ReadOnlyConnection:
    """Open a database for reading; to be used as a context manager, which closes it.

    Waits for a lock until the deadline, 10 s at most. Each statement is a transaction of its own. The
    first page has been read when this returns. Works beside a running runtime, after it was killed,
    and on what it left behind.
    """
    with _errors(path):
        connection = _open(path, _reading_mode(path), deadline, ReadOnlyConnection)
        connection.path = path
        try:
            connection.execute("PRAGMA query_only = 1")
            connection.execute("PRAGMA schema_version").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection


def table_columns(connection: sqlite3.Connection, table: str) -> dict[str, ColumnInfo]:
    """The columns of a table by name, in their order; empty when there is no such table."""
    rows = connection.execute('SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info(?)', (table,))
    return {
        name: ColumnInfo(type=kind, not_null=bool(not_null), default=default, primary_key=bool(key))
        for name, kind, not_null, default, key in rows
    }


def quick_check(path: Path, deadline: Deadline | None = None) -> list[str]:
    """What SQLite finds wrong with the database, at most 100 lines; empty when it is sound."""
    try:
        with connect_readonly(path, deadline or Deadline(None)) as connection:
            return _problems(connection)
    except DamagedFile as error:
        return [error.message]


def backup(path: Path, target: Path, deadline: Deadline) -> None:
    """Write a copy of the database, as it is at one moment, to the new file `target`: 0600, checked, on the disk.

    SQLite's online backup, so it may be in use meanwhile: a reader's snapshot is held for the length
    of the copy, which keeps nobody from writing in WAL mode. The copy is in DELETE mode, one file
    that needs no other, and has passed `quick_check`. On any error `target` does not exist: DatabaseBusy
    or TimeLimitReached when the deadline comes first, DamagedFile when the source is malformed.
    """
    files.create(target)
    try:
        with connect_readonly(path, deadline) as source:
            # An open snapshot: otherwise each write by a runtime between two steps would start the copy anew.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            with closing(_open(target, "rw", deadline, sqlite3.Connection)) as copy:
                copy.execute("PRAGMA synchronous = OFF")  # flushed once, below
                _copy_pages(source, copy, target, deadline)
                copy.execute("PRAGMA journal_mode = DELETE").fetchone()
                problems = _problems(copy)
        if problems:
            raise DamagedFile(f"the database is damaged: {problems[0]}", path=path, hint=_REPAIR)
        files.flush(target)
    except BaseException:
        with suppress(OSError):
            target.unlink()
        raise


def write_once(path: Path, statements: Sequence[tuple[str, Parameters]], deadline: Deadline) -> list[int]:
    """Carry out the statements in one short transaction, all or none; return how many rows each one changed.

    The write lock is asked for first (BEGIN IMMEDIATE; DatabaseBusy after 10 s or at the deadline) and
    kept for these statements only. On the disk when this returns. Foreign keys are obeyed, as Codex does.
    """
    with _errors(path):
        connection = _open(path, "rw", deadline, sqlite3.Connection)
        try:
            connection.execute("PRAGMA foreign_keys = 1")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")  # a long -wal is not written back at our expense
            connection.execute("BEGIN IMMEDIATE")
            try:
                counts = [connection.execute(sql, parameters).rowcount for sql, parameters in statements]
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return counts
        finally:
            connection.close()


def create(path: Path, statements: Sequence[tuple[str, Parameters]]) -> None:
    """Make the new database `path`, in WAL mode as Codex keeps its own, with these statements: all or none.

    Raises Unverified when the name is taken. After any error of its own `path` does not exist. Not flushed.
    """
    files.create(path)
    try:
        with _errors(path), closing(_open(path, "rw", Deadline(None), sqlite3.Connection)) as connection:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("BEGIN")
            for sql, parameters in statements:
                connection.execute(sql, parameters)
            connection.execute("COMMIT")
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def _copy_pages(source: sqlite3.Connection, copy: sqlite3.Connection, target: Path, deadline: Deadline) -> None:
    def within_time(_status: int, _remaining: int, _total: int) -> None:
        deadline.check("copying a database")  # sqlite3 itself would try a busy source again for ever

    try:
        source.backup(copy, pages=_PAGES_A_STEP, progress=within_time)
    except sqlite3.OperationalError as error:
        # The source is only read: what could not be written is the copy.
        if _primary_code(error) == sqlite3.SQLITE_FULL:
            (pages,), (size,) = (source.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
            raise NoSpace(_FULL, path=target, hint="make room, or --store", needed_bytes=pages * size) from error
        if error.sqlite_errorcode in _WRITE_CODES:
            raise _translated(error, target) from error
        raise


def _problems(connection: sqlite3.Connection) -> list[str]:
    found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(100)")]
    return [] if found == ["ok"] else found


def _reading_mode(path: Path) -> Literal["ro", "rw"]:
    """`rw` only for a database at rest in one file, so that nothing stays behind; see the top of this module.

    A runtime may start between this look and the opening. Then we close while it has the database open,
    SQLite sees that we are not the last one and touches nothing. Should it have ended again by then, we are the
    last one and SQLite completes what that runtime had committed, as its own closing would have done.
    """
    real = os.path.realpath(path)  # where SQLite keeps its files when the name is a link
    return "ro" if any(os.path.lexists(real + end) for end in ("-wal", "-journal")) else "rw"


def _open(path: Path, mode: str, deadline: Deadline, kind: type[Kind]) -> Kind:
    deadline.check("opening a database")
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=deadline.at_most(BUSY_SECONDS), isolation_level=None, factory=kind)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except _MISUSE:
        raise
    except sqlite3.Error as error:
        raise _translated(error, path) from error


_FULL = "the disk or the quota is full"
_REPAIR = "close every Codex and start it once: it offers to repair its data"
_MISUSE = (sqlite3.ProgrammingError, sqlite3.InterfaceError)  # our mistakes, not facts about the file
_BUSY_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_CLOSED_CODES = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_READONLY})
_WRITE_CODES = frozenset({sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE})
_DAMAGE_CODES = frozenset({sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS})
_SCHEMA_CODES = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH})


def _primary_code(error: sqlite3.Error) -> int | None:
    """SQLite's result code without its extension; None for an error that the Python module found by itself."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _translated(error: sqlite3.Error, path: Path) -> PreflightError:
    code = _primary_code(error)
    if code in _BUSY_CODES:
        return DatabaseBusy("another process keeps the database locked", path=path, hint="try again")
    # SHMSIZE: also for reading a WAL database SQLite needs room for its 32 KiB of shared memory.
    if code == sqlite3.SQLITE_FULL or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_SHMSIZE:
        return NoSpace(_FULL, path=path, hint="make room")
    if getattr(error, "sqlite_errorcode", None) in _WRITE_CODES:
        return Unverified("could not be written", path=path)
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_ROLLBACK:
        return Unsupported("a change of the database was interrupted", path=path, hint="start Codex once: it undoes it")
    if code == sqlite3.SQLITE_IOERR and getattr(error, "sqlite_errorcode", None) not in _DAMAGE_CODES:
        # Nothing is known of the database itself: with no room for the index of its log not even reading works.
        if files.free_bytes(path) < _INDEX_BYTES:
            return NoSpace(_FULL, path=path, hint="make room")
        return Unsupported(f"the database cannot be read: {error}", path=path, hint="look at the disk that it lies on")
    if code in _CLOSED_CODES:
        return Unsupported(
            f"the database cannot be opened: {error}", path=path, hint="look at its owner and permissions"
        )
    if code in _SCHEMA_CODES:
        return UnknownSchema(f"the database is not laid out as expected: {error}", path=path)
    if code is None:
        # The module's own error quotes the text, which may be an objective: it must not get into a report.
        return DamagedFile("the database is damaged: it holds text that is not UTF-8", path=path, hint=_REPAIR)
    return DamagedFile(f"the database is damaged: {error}", path=path, hint=_REPAIR)
