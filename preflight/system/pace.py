"""Reading or writing no faster than so many bytes in a second: the nightly task must not be felt."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from preflight.system.deadline import Deadline

__all__ = ["Pace"]

#: Slept in pieces, so that the deadline and a signal are met soon.
_LONGEST_SLEEP = 0.5

#: Time that went by without a byte is not made up for, but for this much: no burst after a pause.
_CREDIT_SECONDS = 0.25


class Pace:
    """Holds whoever reads back as long as the bytes that they took were too many; for several threads together.

    `rate` is in bytes for each second; None holds nobody back.
    """

    def __init__(self, rate: int | None, deadline: Deadline) -> None:
        self._rate = rate
        self._deadline = deadline
        self._turn = threading.Lock()
        self._due = time.monotonic()

    def took(self, size: int) -> None:
        """So many bytes were read. Ends early when the deadline comes: to give up is the caller's affair."""
        if self._rate is None:
            return
        with self._turn:
            self._due = due = max(self._due, time.monotonic() - _CREDIT_SECONDS) + size / self._rate
        while (left := due - time.monotonic()) > 0 and not self._deadline.expired:
            time.sleep(self._deadline.at_most(min(left, _LONGEST_SLEEP)))

    def during(self, step: str) -> Callable[[int], None]:
        """The same, and TimeLimitReached, which names the step, when the deadline has come."""

        def took(size: int) -> None:
            self._deadline.check(step)
            self.took(size)

        return took
