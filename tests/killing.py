"""Ends a piece of work at one point after the other, as SIGKILL would: no handler, no flush, no tidying up."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, ModuleType

__all__ = ["at_every_file_operation", "at_every_line"]

_DONE, _KILLED, _FAILED = 0, 9, 1

_OPERATIONS = frozenset(
    {"open", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.truncate", "sqlite3.connect"}
)


def at_every_line(work: Callable[[], object], inside: Sequence[ModuleType]) -> Iterator[int]:
    """Runs `work` in a child of its own again and again, and each time kills it one line further on.

    Only the lines of the modules `inside` count. Gives the number of the line after each kill, so that the
    caller can look at what is left and must lay things out anew; ends when the work came to its own end.
    """
    files = {module.__file__ for module in inside}

    def watch(passed: Callable[[], None]) -> None:
        def trace(frame: FrameType, event: str, argument: object) -> object:
            if frame.f_code.co_filename not in files:
                return None
            if event == "line":
                passed()
            return trace

        sys.settrace(trace)

    return _one_point_further_each_time(work, watch)


def at_every_file_operation(work: Callable[[], object]) -> Iterator[int]:
    """As `at_every_line`, but kills just before each operation that can change what lies on the disk."""

    def watch(passed: Callable[[], None]) -> None:
        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event in _OPERATIONS:
                passed()

        sys.addaudithook(hook)

    return _one_point_further_each_time(work, watch)


def _one_point_further_each_time(
    work: Callable[[], object], watch: Callable[[Callable[[], None]], None]
) -> Iterator[int]:
    point = 0
    while True:
        point += 1
        child = os.fork()
        if child == 0:
            _work_until(work, watch, point)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in {_DONE, _KILLED}, f"the work failed before point {point}"
        yield point
        if code == _DONE:
            return


def _work_until(work: Callable[[], object], watch: Callable[[Callable[[], None]], None], last: int) -> None:
    count = 0

    def passed() -> None:
        nonlocal count
        count += 1
        if count == last:
            os._exit(_KILLED)

    code = _FAILED
    try:
        watch(passed)
        work()
        code = _DONE
    finally:
        # Never back into the test runner, whatever was raised: this is its second copy.
        os._exit(code)
