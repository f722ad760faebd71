"""What no test may touch: the Codex home, the store and the settings of whoever runs the tests.

Every test gets a home, a store and a configuration folder of its own through the environment (see
conftest.py). The guard below is for the day when a piece of code finds the real ones in another
way: an audit hook of the interpreter sees each file that is opened, listed, made, moved or removed
in this process. Child processes have only the environment; none of ours looks anywhere else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from platformdirs import user_config_path, user_state_path

__all__ = ["PROTECTED", "RealHomeTouched", "watch"]

_WATCHED_EVENTS = frozenset(
    {
        "open", "os.chmod", "os.link", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.rmdir",
        "os.scandir", "os.symlink", "os.truncate", "os.utime", "shutil.rmtree", "sqlite3.connect",
    }
)  # fmt: skip


class RealHomeTouched(BaseException):
    """Not an Exception: no boundary of the product may turn it into a tidy exit code."""


def _protected() -> tuple[Path, ...]:
    folders = [
        Path.home() / ".codex",
        user_state_path("codex-preflight", appauthor=False),
        user_config_path("codex-preflight", appauthor=False),
        *(
            Path(os.environ[name])
            for name in ("CODEX_HOME", "CODEX_SQLITE_HOME", "PREFLIGHT_STORE")
            if os.environ.get(name)
        ),
    ]
    return tuple(dict.fromkeys(spelling for folder in folders for spelling in (folder.absolute(), folder.resolve())))


#: Absolute folders of the real user, as written and with symbolic links resolved.
PROTECTED = _protected()


def watch() -> None:
    """Makes every later touch of a protected folder raise RealHomeTouched, until the process ends."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in _WATCHED_EVENTS:
            for path in _paths(arguments):
                if any(path.is_relative_to(folder) for folder in PROTECTED):
                    raise RealHomeTouched(f"{event} of {path}: a test must use folders of its own")

    sys.addaudithook(hook)


def _paths(arguments: Iterable[object]) -> Iterable[Path]:
    for argument in arguments:
        if isinstance(argument, str | bytes | os.PathLike):
            yield Path(os.fsdecode(argument).removeprefix("file:").partition("?")[0]).absolute()
