"""Runs preflight in this process, and ends it with SIGKILL when it comes to a certain point.

    python killed_run.py EVENT NAME COUNT SECONDS preflight-arguments...

The point is the COUNT-th audit event EVENT of the interpreter whose file has a name like NAME (for a program: whose
arguments look like it), just before the deed, or SECONDS after it when that is not 0. Of databases only those that
are opened for writing count, and of files as well.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from fnmatch import fnmatch
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def name_of(event: str, arguments: tuple[object, ...]) -> str | None:
    """What an event is about, or None when it only reads."""
    what = arguments[0]
    if event == "subprocess.Popen":
        return " ".join(map(str, arguments[1]))  # type: ignore[call-overload]
    if event == "open" and not int(str(arguments[2])) & WRITING:
        return None
    if event == "sqlite3.connect":
        path, _, mode = str(what).partition("?")
        return Path(path).name if "mode=rw" in mode else None
    return Path(os.fsdecode(what)).name if isinstance(what, str | bytes | os.PathLike) else None


def main() -> int:
    wanted, like, count, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event != wanted or not fnmatch(name_of(event, arguments) or "", like):
            return
        seen += 1
        if seen == count and seconds:
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        elif seen == count:
            os.kill(os.getpid(), signal.SIGKILL)

    from preflight.cli import main as preflight

    sys.addaudithook(hook)
    return preflight(sys.argv[5:])


if __name__ == "__main__":
    sys.exit(main())
