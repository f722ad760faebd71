"""A thread's row in `state_N.sqlite`, put back with its rollout.

Without a row Codex finds the thread by its file's name and makes a row anew (0.128 to 0.169), but then
its name, its pin and its branch are gone: where a copy of the row exists, that is written. A row that
is there is only told where the rollout lies now: 0.147 and 0.169 do not look for a file that is not
where the row says, and do not read a legacy file as a paginated one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from preflight.codex.paths import RowPaths
from preflight.codex.schema import require_columns, require_known_number
from preflight.errors import DamagedFile
from preflight.model import Home, ThreadRow
from preflight.system import databases
from preflight.system.deadline import Deadline

__all__ = ["RowOutcome", "RowWanted", "put_back", "read_row", "require_can_be_put_back", "take_back"]

# Columns of `threads` in 0.128 to 0.169 that belong to the thread alone. Left out are those that refer to rows of
# other tables (sections, projects), which may be gone: Codex's own rule for that is to set them to nothing.
_KNOWN = (
    "id", "rollout_path", "created_at", "updated_at", "source", "model_provider", "cwd", "title", "sandbox_policy",
    "approval_mode", "tokens_used", "has_user_event", "archived", "archived_at", "git_sha", "git_branch",
    "git_origin_url", "cli_version", "first_user_message", "agent_nickname", "agent_role", "memory_mode", "model",
    "reasoning_effort", "agent_path", "created_at_ms", "updated_at_ms", "thread_source", "preview", "recency_at",
    "recency_at_ms", "history_mode", "name", "is_pinned", "originator", "daybreak_enabled", "creator_user_id",
    "creator_account_id", "attached_thread_parent_id",
)  # fmt: skip
_NEEDED = ("id", "rollout_path", "archived", "archived_at", "updated_at")
_ATTEMPTS = 3


class RowOutcome(StrEnum):
    KEPT = "kept"  # it says already what it should
    CHANGED = "changed"  # it was there and says now where the rollout lies
    INSERTED = "inserted"
    LEFT = "left-to-codex"  # there is no database, or no copy of the row: Codex makes it when it starts


@dataclass(frozen=True, slots=True, kw_only=True)
class RowWanted:
    """What the row has to say; `history_mode` None leaves it as it is."""

    thread_id: str
    place: Path
    archived: bool
    history_mode: str | None


def read_row(home: Home, thread_id: str, deadline: Deadline) -> ThreadRow | None:
    """The row of one thread; None when there is none. Raises DamagedFile, DatabaseBusy, UnknownSchema.

    DamagedFile also for a row whose place is no text, which no Codex writes: it could not be told the new one.
    """
    if home.state_db is None:
        return None
    require_known_number(home.state_db)
    with databases.connect_readonly(home.state_db, deadline) as connection:
        there = require_columns(connection, "threads", _NEEDED)
        mode = "history_mode" if "history_mode" in there else "NULL"
        row = connection.execute(
            f"SELECT rollout_path, archived, {mode} FROM threads WHERE id = ?",  # noqa: S608 -- names from above
            (thread_id,),
        ).fetchone()
    if row is None:
        return None
    if not isinstance(row[0], str):
        raise DamagedFile("the thread's row has values that no Codex writes", path=home.state_db)
    return ThreadRow(
        thread_id=thread_id,
        rollout_path=row[0],
        archived=bool(row[1]),
        history_mode=row[2],
        cli_version=None,
        updated_at_ms=None,
    )


def _spelled(home: Home, place: Path, *rows: ThreadRow | None) -> str:
    """How the row should spell this place: as one of these rows does, if it means it, else as the file system does."""
    paths = RowPaths(home.path)
    for row in rows:
        if row is not None and paths.local_path(row.rollout_path) == place:
            return row.rollout_path
    return os.path.join(os.path.realpath(place.parent), place.name)  # noqa: PTH118 -- a row holds text


def put_back(home: Home, wanted: RowWanted, copy: Path | None, deadline: Deadline) -> RowOutcome:
    """Make the thread's row say what is wanted, or insert it from `copy`, a copy of a state database.

    One statement, all or nothing. Against a runtime that makes or changes the row at the same moment: it
    is read again, and the second writer's word is that of the rollout's place, which is ours. Raises
    UnknownSchema when the table must have a value that we do not know, DamagedFile, DatabaseBusy; then
    nothing was changed.
    """
    if home.state_db is None:
        return RowOutcome.LEFT
    for _ in range(_ATTEMPTS):
        found = read_row(home, wanted.thread_id, deadline)
        if found is not None:
            changed = _change(home.state_db, home, found, wanted, deadline)
            if changed is not None:
                return changed
            continue
        if copy is None:
            return RowOutcome.LEFT
        values = _copied(home.state_db, home, copy, wanted, deadline)
        if values is None:
            return RowOutcome.LEFT
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        statement = f"INSERT INTO threads ({names}) VALUES ({marks}) ON CONFLICT (id) DO NOTHING"  # noqa: S608
        if databases.write_once(home.state_db, [(statement, tuple(values.values()))], deadline) == [1]:
            return RowOutcome.INSERTED
    return RowOutcome.LEFT


def require_can_be_put_back(home: Home, wanted: RowWanted, copy: Path | None, deadline: Deadline) -> None:
    """Raise what `put_back` would raise for a table that we do not know, without changing anything."""
    if home.state_db is None or read_row(home, wanted.thread_id, deadline) is not None or copy is None:
        return
    _copied(home.state_db, home, copy, wanted, deadline)


def take_back(home: Home, ours: ThreadRow | None, before: ThreadRow | None, deadline: Deadline) -> bool:
    """Undo `put_back`: the row says again what it said `before`; False when there is nothing to be changed.

    Where there was none, the row goes if it is still as `ours` was: one that a runtime has changed since stays. A row
    that is there gets the place of before, whoever wrote it: nothing else lies where a runtime would find it.
    """
    if home.state_db is None:
        return False
    if before is None:
        if ours is None:
            return False
        statement = "DELETE FROM threads WHERE id = ? AND rollout_path = ?"
        return databases.write_once(home.state_db, [(statement, (ours.thread_id, ours.rollout_path))], deadline) == [1]
    for _ in range(_ATTEMPTS):
        now = read_row(home, before.thread_id, deadline)
        if now is None or _says_the_same(now, before):
            return False
        if _write(home.state_db, now, before.rollout_path, before.archived, before.history_mode, deadline):
            return True
    return False


def _says_the_same(one: ThreadRow, other: ThreadRow) -> bool:
    return (one.rollout_path, one.archived, one.history_mode) == (
        other.rollout_path,
        other.archived,
        other.history_mode,
    )


def _change(path: Path, home: Home, found: ThreadRow, wanted: RowWanted, deadline: Deadline) -> RowOutcome | None:
    """None when a runtime has changed the row since it was read."""
    mode = found.history_mode if wanted.history_mode is None else wanted.history_mode
    same_mode = found.history_mode is None or found.history_mode == mode
    text = _spelled(home, wanted.place, found)
    if text == found.rollout_path and found.archived == wanted.archived and same_mode:
        return RowOutcome.KEPT
    return RowOutcome.CHANGED if _write(path, found, text, wanted.archived, mode, deadline) else None


def _write(path: Path, found: ThreadRow, text: str, archived: bool, mode: str | None, deadline: Deadline) -> bool:
    """`archived_at` goes with `archived`: the time of the last use stands for one that is not known."""
    sets = "rollout_path = ?, archived = ?, archived_at = CASE WHEN ? THEN coalesce(archived_at, updated_at) END"
    values: list[str | int | None] = [text, int(archived), int(archived)]
    if found.history_mode is not None:  # the column exists since 0.144, and must not be empty
        sets += ", history_mode = coalesce(?, history_mode)"
        values.append(mode)
    statement = f"UPDATE threads SET {sets} WHERE id = ? AND rollout_path = ?"  # noqa: S608 -- names from above
    return databases.write_once(path, [(statement, (*values, found.thread_id, found.rollout_path))], deadline) == [1]


def _copied(
    path: Path, home: Home, copy: Path, wanted: RowWanted, deadline: Deadline
) -> dict[str, databases.Value] | None:
    """The values of the copied row that this database takes; None when the copy does not have the row."""
    require_known_number(copy)
    with databases.connect_readonly(path, deadline) as connection:
        takes = databases.table_columns(connection, "threads")
    with databases.connect_readonly(copy, deadline) as connection:
        has = require_columns(connection, "threads", _NEEDED)
        names = [name for name in _KNOWN if name in has]
        row = connection.execute(
            f"SELECT {', '.join(names)} FROM threads WHERE id = ?",  # noqa: S608 -- names from above
            (wanted.thread_id,),
        ).fetchone()
    if row is None:
        return None
    values: dict[str, databases.Value] = dict(zip(names, row, strict=True))
    values.setdefault("preview", values.get("first_user_message", ""))  # 0.128 has none; later ones list by it
    old = ThreadRow(
        thread_id=wanted.thread_id,
        rollout_path=str(values["rollout_path"]),
        archived=bool(values["archived"]),
        history_mode=None,
        cli_version=None,
        updated_at_ms=None,
    )
    values["rollout_path"] = _spelled(home, wanted.place, old)
    values["archived"] = int(wanted.archived)
    values["archived_at"] = (values["archived_at"] or values["updated_at"]) if wanted.archived else None
    if wanted.history_mode is not None:
        values["history_mode"] = wanted.history_mode
    taken = {name: value for name, value in values.items() if name in takes}
    with databases.connect_readonly(path, deadline) as connection:
        require_columns(connection, "threads", taken, insertable=True)
    return taken
