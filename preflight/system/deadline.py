"""One moment by which a run must be over, handed from step to step instead of a number of seconds.

Seconds are floats of the monotonic clock: a clock that is set back or a machine that changes its
time zone does not lengthen a run. `Deadline(None)` never comes.
"""

from __future__ import annotations

import math
import time

from preflight.errors import TimeLimitReached

__all__ = ["Deadline"]


class Deadline:
    """The end of the time that a run, or one step of it, may take."""

    __slots__ = ("_moment",)

    def __init__(self, seconds: float | None) -> None:
        self._moment = math.inf if seconds is None else time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds that are left: never negative, infinite when there is no limit."""
        return max(0.0, self._moment - time.monotonic())

    @property
    def expired(self) -> bool:
        return self.remaining() <= 0.0

    def check(self, step: str) -> None:
        """Do nothing while there is time left; otherwise raise TimeLimitReached, naming the step that was not begun."""
        if self.expired:
            raise TimeLimitReached(
                f"the time limit came before this was done: {step}", hint="give it longer: --timeout"
            )

    def at_most(self, seconds: float) -> float:
        """Return the smaller of `seconds` and what is left: the wait that one call may be given."""
        return min(seconds, self.remaining())

    def sub(self, seconds: float) -> Deadline:
        """Return the deadline of a step: `seconds` from now, or this one if it comes first."""
        return Deadline(self.at_most(seconds))
