"""What nobody foresaw, kept where a person can find it: never a traceback on the terminal."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from preflight import __version__
from preflight.errors import PreflightError

__all__ = ["keep_crash_report"]

_FOLDER = "crashes"


def keep_crash_report(error: BaseException, words: Sequence[str], env: Mapping[str, str]) -> Path | None:
    """Writes the traceback to a file of mode 0600 in the state folder, else in the temporary one; None if neither.

    It holds the call, the versions and the lines of code, no values of variables; the message of the
    error is the only place where something of a user could stand. It never raises for want of a place.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    content = "\n".join(
        [
            f"codex-preflight {__version__}, Python {sys.version}",
            f"{stamp}  preflight {shlex.join(words)}",
            "No conversation is in here, unless the message of the error quotes one: read it before you pass it on.",
            "",
            "".join(traceback.format_exception(error)),
        ]
    ).encode("utf-8", "backslashreplace")
    name = f"crash-{stamp}-{os.getpid()}.txt"
    try:
        return _in_state_folder(name, content, env)
    except (PreflightError, OSError, ImportError):
        # The state folder, or the code that writes into it, may be what failed in the first place.
        return _in_temporary_folder(name, content)


def _in_state_folder(name: str, content: bytes, env: Mapping[str, str]) -> Path:
    from preflight.checkpoint.store import default_root
    from preflight.system import files

    folder = default_root(env) / _FOLDER
    files.private_folder(folder)
    files.publish(folder / name, content)
    return folder / name


def _in_temporary_folder(name: str, content: bytes) -> Path | None:
    try:
        descriptor, path = tempfile.mkstemp(prefix="preflight-", suffix=f"-{name}")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError:
        return None
    return Path(path)
