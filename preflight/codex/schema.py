"""Which layouts of Codex's databases we know how to read and to change.

Told by the number in the file's name, which Codex raises for a layout that older builds cannot use,
and by the columns that we name. Migrations that only add tables, or columns that need no value, do
not stop us: state_5 went from migration 29 to 62 between 0.128 and 0.169. What we do not know is
refused before anything is written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from preflight.errors import UnknownSchema
from preflight.system.databases import ColumnInfo, ReadOnlyConnection, table_columns

__all__ = ["require_columns", "require_known_number"]

_KNOWN = {"state_5.sqlite", "goals_1.sqlite", "thread_history_1.sqlite"}  # 0.128 to 0.169
_HINT = "update codex-preflight: it does not know this version of Codex yet"


def require_known_number(path: Path) -> None:
    """Raise UnknownSchema for a database of a number that we have not seen."""
    if path.name not in _KNOWN:
        raise UnknownSchema(f"{path.name} is of a layout that is not known here", path=path, hint=_HINT)


def require_columns(
    connection: ReadOnlyConnection, table: str, needed: Collection[str], *, insertable: bool = False
) -> Mapping[str, ColumnInfo]:
    """The columns of a table that has at least those `needed`; UnknownSchema when it has not.

    With `insertable` the table must also take a row of these columns alone.
    """
    columns = table_columns(connection, table)
    missing = sorted(set(needed) - columns.keys())
    if missing:
        what = f"column {missing[0]} in table" if columns else "table"
        raise UnknownSchema(f"{connection.path.name} has no {what} {table}", path=connection.path, hint=_HINT)
    if insertable:
        for name, column in columns.items():
            if column.not_null and column.default is None and name not in needed:
                raise UnknownSchema(
                    f"{connection.path.name} has an unknown column {name} in table {table} that must have a value",
                    path=connection.path,
                    hint=_HINT,
                )
    return columns
