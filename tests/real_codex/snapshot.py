"""What a folder holds, file by file, so that whatever has changed in it can be told."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

__all__ = ["Entry", "changes", "everything_in"]

# What no reader of a database in WAL mode can leave alone: SQLite notes in `-shm`, the index of the log, how far each
# reader has come, and makes it where it is missing. Nothing of the database is in it; SQLite makes it anew from the
# log. The log itself, `-wal`, must stay byte for byte.
INDEX = "*.sqlite-shm"
OF_THE_SERVER = "logs_*"  # a running server writes its own log


@dataclass(frozen=True)
class Entry:
    """Everything of a file that somebody could miss; not when it was last read."""

    mode: int
    inode: int
    modified_ns: int | None
    size: int
    sha256: str | None


def everything_in(folder: Path) -> dict[str, Entry]:
    """By name; of folders not when something was last made in them, since SQLite makes and removes files beside."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        if fnmatch(path.name, INDEX) or fnmatch(path.name, OF_THE_SERVER):
            continue
        status = path.lstat()
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            entry = Entry(status.st_mode, status.st_ino, status.st_mtime_ns, status.st_size, content)
        else:
            entry = Entry(status.st_mode, status.st_ino, None, 0, None)
        found[str(path.relative_to(folder))] = entry
    return found


def changes(before: dict[str, Entry], after: dict[str, Entry]) -> dict[str, tuple[Entry | None, Entry | None]]:
    """By name, each file that was made, removed, or is not what it was: as it was and as it is."""
    names = sorted(before.keys() | after.keys())
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}
