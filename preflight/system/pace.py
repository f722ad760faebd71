"""Reading or writing no faster than so many bytes in a second: the nightly task must not be felt."""

from __future__ import annotations

import time

from preflight.system.deadline import Deadline

__all__ = ["Pace"]

#: Slept in pieces, so that the deadline and a signal are met soon.
_LONGEST_SLEEP = 0.5


class Pace:
    """Holds the caller back until `done` bytes are not too many for the time since it was made.

    `rate` is in bytes for each second; None holds nobody back. Ends early when `deadline` comes: to
    give up is the caller's affair.
    """

    def __init__(self, rate: int | None, deadline: Deadline) -> None:
        self._rate = rate
        self._deadline = deadline
        self._started = time.monotonic()

    def keep(self, done: int) -> None:
        if self._rate is None:
            return
        due = self._started + done / self._rate
        while (left := due - time.monotonic()) > 0 and not self._deadline.expired:
            time.sleep(self._deadline.at_most(min(left, _LONGEST_SLEEP)))
