"""Starts programs one at a time for `measuring.Launcher`, and tells what each of them needed.

A process of its own, because Linux counts what a process was before `exec` into its peak memory
(`ru_maxrss`): whoever starts programs must itself be small. It is run as `python -I -S` and knows
nothing but the standard library, so the floor of every figure is about 10 MB.

Reads one JSON request a line on stdin and answers one JSON line a request; ends with its input.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any


def run(request: dict[str, Any]) -> dict[str, float]:
    """Start `argv` and wait for it; `limit` seconds later it and everything it started is killed."""
    opened = [os.open(request["stdin"], os.O_RDONLY)]
    os.lseek(opened[0], request["offset"], os.SEEK_SET)
    opened += [os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for name in ("stdout", "stderr")]
    os.chdir(request["folder"])
    began = time.perf_counter()
    pid = os.posix_spawnp(
        request["argv"][0],
        request["argv"],
        request["environment"],
        file_actions=[(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(opened)],
        setpgroup=0,
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
    )
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(pid, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, request["limit"])
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - began
    signal.setitimer(signal.ITIMER_REAL, 0)
    for descriptor in opened:
        os.close(descriptor)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "peak_bytes": usage.ru_maxrss * 1024,
    }


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(json.loads(line))) + "\n")
        sys.stdout.flush()
