"""Runs preflight in this process on another day: its checkpoints and nights are dated by a clock that was set.

    python dated_run.py 2026-10-05T03:10:00+00:00 preflight-arguments...

The clock goes on from there. Limits of time, and the files of Codex, keep the real one.
"""

from __future__ import annotations

import datetime as dt
import sys
from typing import Self


def set_clock(moment: dt.datetime) -> None:
    """For every module that is imported from now on."""
    real = dt.datetime
    ahead = moment - real.now(dt.UTC)

    class Clock(real):  # type: ignore[valid-type, misc]
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Self:
            return super().now(tz) + ahead

    dt.datetime = Clock  # type: ignore[misc]


def main() -> int:
    set_clock(dt.datetime.fromisoformat(sys.argv[1]))

    from preflight.cli import main as preflight

    return preflight(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
