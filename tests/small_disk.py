"""A disk in memory that is really full when its bytes are used up, for one process and its children."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.needs import cannot_be_had

_ROOT = Path(__file__).parents[1]
_UNSHARE = shutil.which("unshare")  # before a test says that its user has no programs
_CANNOT_MOUNT = 77
_MOUNT = f'mount -t tmpfs -o size="$1" none "$0" || exit {_CANNOT_MOUNT}; shift; exec "$@"'


def on_a_small_disk(disk: Path, size: str, script: str, *arguments: str | Path, **settings: str) -> str:
    """What the Python `script` printed, in a process for which the folder `disk` is a disk of `size` ("300k").

    Fails when the script does. `settings` are variables of its environment.
    """
    if _UNSHARE is None:
        cannot_be_had("there is no unshare here")
    behind = ("/bin/sh", "-c", _MOUNT, disk, size, sys.executable, "-c", script, *arguments)
    ended = subprocess.run(
        [_UNSHARE, "--user", "--map-root-user", "--mount", *behind],
        cwd=_ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
    )
    if ended.returncode == _CANNOT_MOUNT or ended.stderr.startswith("unshare:"):
        cannot_be_had(f"this machine lets nobody mount: {ended.stderr.strip()}")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
