r"""Paths as Codex's databases spell them, and where they lie on this machine.

One home may be used by a Windows and by a Linux build (the desktop's WSL mode), so the same rollout
stands in `threads.rollout_path` as `/mnt/c/Users/..`, as `C:\Users\..` or as `\\?\C:\Users\..`, and in
joins of both that exist nowhere (`C:\mnt\e\..`, openai/codex#42292). What such a spelling means here
is decided by which folder exists here, never by asking which system this is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["RowPaths", "is_same", "local_folder", "same_file_name"]

_ROLLOUT_FOLDERS = ("sessions", "archived_sessions")
_DRIVE = re.compile(r"([A-Za-z]):[\\/]*(.*)", re.DOTALL)
_MOUNTED_DRIVE = re.compile(r"/mnt/([A-Za-z])(?:/(.*))?", re.DOTALL)
_WSL_SHARE = re.compile(r"\\\\wsl(?:\$|\.localhost)\\[^\\]+(.*)", re.DOTALL | re.IGNORECASE)


class RowPaths:
    """Finds the places that the rows of one home name.

    The file system is asked once for each folder that rows begin with, not once a row: a home of
    10,000 threads has one or two of them.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._folders: dict[str, Path] = {}

    def local_path(self, text: str) -> Path | None:
        """Where the rollout lies that a row spells like this, whether or not there is such a file.

        In this home when the row's own folder is this home under any name, or does not exist here (the
        home was moved, or the row was written on another system); else in the folder that it names.
        None for a spelling that means nothing here.
        """
        plain = _without_prefix(text)
        parts = plain.replace("\\", "/").split("/") if _is_windows(plain) else plain.split("/")
        for index in range(len(parts) - 2, -1, -1):
            if parts[index].lower() in _ROLLOUT_FOLDERS:
                prefix = plain[: len(plain) - len("/".join(parts[index:]))]
                return self._folder(prefix).joinpath(parts[index].lower(), *parts[index + 1 :])
        return next((path for path in _translations(plain) if path.is_absolute()), None)

    def _folder(self, prefix: str) -> Path:
        folder = self._folders.get(prefix)
        if folder is None:
            folder = local_folder(prefix) or self._home
            if folder is not self._home and is_same(folder, self._home):
                folder = self._home
            self._folders[prefix] = folder
        return folder


def local_folder(text: str) -> Path | None:
    """The folder on this machine that a spelling of any system means; None when none of its meanings exists."""
    for path in _translations(_without_prefix(text)):
        if path.is_absolute() and path.is_dir():
            return path
    return None


def same_file_name(text: str, path: Path) -> bool:
    """Whether a row's spelling ends in this file's name; case and a trailing `.zst` do not count."""
    name = re.split(r"[\\/]", text)[-1]
    return _bare(name) == _bare(path.name)


def _bare(name: str) -> str:
    return name.lower().removesuffix(".zst")


def _without_prefix(text: str) -> str:
    if text.startswith("\\\\?\\UNC\\"):
        return "\\\\" + text[8:]
    return text.removeprefix("\\\\?\\")


def _is_windows(text: str) -> bool:
    return _DRIVE.match(text) is not None or text.startswith("\\\\")


def _translations(text: str) -> Iterator[Path]:
    """The spelling itself first, then what the other side of the WSL border calls the same place."""
    yield Path(text)
    if found := _DRIVE.fullmatch(text):
        yield Path(f"/mnt/{found[1].lower()}/" + found[2].replace("\\", "/"))
    elif found := _MOUNTED_DRIVE.fullmatch(text):
        yield Path(f"{found[1].upper()}:/{found[2] or ''}")
    elif found := _WSL_SHARE.fullmatch(text):
        yield Path(found[1].replace("\\", "/") or "/")


def is_same(one: Path, other: Path) -> bool:
    """Whether both are the same existing file or folder."""
    try:
        return one.samefile(other)
    except OSError:
        return False
