"""How far a long work is, on stderr: one line that is written over on a terminal, else a line each 10 s.

    1.20 GB of 3.06 GB copied (39 %), 410 MB/s, 5 s left

The rate is that of the whole work so far, so that it does not jump; the first line comes when the rate
means something. Losing a line because stderr is closed is no reason to end the work.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from preflight.report.lines import human_size

__all__ = ["Progress"]

_EACH_ON_TERMINAL = 0.2
_EACH_ELSEWHERE = 10.0


class Progress:
    """`say` tells a sentence, `moved` how many bytes of how many are done; `end` leaves a clean line."""

    def __init__(
        self,
        sentence: Callable[[str], None],
        over: Callable[[str], None] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`over` writes a line over the one before, None where that cannot be done."""
        self._sentence, self._over, self._clock = sentence, over, clock
        self._each = _EACH_ELSEWHERE if over is None else _EACH_ON_TERMINAL
        self._what = ""
        self._earlier = self._done = 0
        self._started = self._told = 0.0
        self._shown = False

    def say(self, line: str) -> None:
        self.end()
        self._sentence(line)

    def moved(self, what: str, done: int, total: int) -> None:
        """`what` is a participle such as ``copied``; another one begins a new work.

        Bytes that are far fewer than before are those of the next file of the same work, which keeps its rate.
        """
        now = self._clock()
        if what != self._what:
            self._what, self._started, self._told = what, now, now
            self._earlier = self._done = 0
        if done < self._done // 2:  # by less, when two threads have told in the wrong order
            self._earlier += self._done
        self._done = done
        if now - self._told < self._each:
            return
        self._told = now
        line = _line(what, done, total, self._earlier + done, now - self._started)
        if self._over is None:
            self._sentence(line)
        else:
            self._over(line)
            self._shown = True

    def end(self) -> None:
        """Nothing of a line that is written over is left."""
        if self._shown and self._over is not None:
            self._over("")
        self._shown = False
        self._what = ""


def _line(what: str, done: int, total: int, in_all: int, seconds: float) -> str:
    rate = in_all / seconds if seconds > 0 else 0.0
    percent = f" ({100 * done // total} %)" if total else ""
    text = f"{human_size(done)} of {human_size(total)} {what}{percent}, {human_size(int(rate))}/s"
    return text + (f", {_time((total - done) / rate)} left" if rate else "")


def _time(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 5 min``: no more than a person wants to know while it is still being guessed."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
