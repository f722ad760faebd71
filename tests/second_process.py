"""A real second process: a few lines of Python that say `ready` and then do something until they are ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["second_process"]


@contextmanager
def second_process(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Runs `script` from when it has printed `ready` to the end of the block, when it is killed if it still runs.

    `say()` and `wait()` are there for it: to print a line at once, and to wait for a line or the end of its input.
    """
    root = Path(__file__).parents[1]
    prelude = "import os, sys, time\nsay = lambda w: print(w, flush=True)\nwait = sys.stdin.readline\n"
    with subprocess.Popen(
        [sys.executable, "-c", prelude + script, *map(os.fspath, map(str, arguments))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()
