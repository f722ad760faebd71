"""A pace holds back by sleeping, never beyond the deadline."""

from __future__ import annotations

import pytest

from preflight.errors import TimeLimitReached
from preflight.system import pace as pace_module
from preflight.system.deadline import Deadline
from preflight.system.pace import Pace


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that only passes when somebody sleeps."""
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)

    monkeypatch.setattr(pace_module.time, "monotonic", lambda: 1000.0 + sum(naps))
    monkeypatch.setattr(pace_module.time, "sleep", sleep)
    return naps


def test_what_is_too_fast_is_held_back(slept: list[float]) -> None:
    pace = Pace(100, Deadline(None))
    pace.took(50)
    assert sum(slept) == pytest.approx(0.5)
    pace.took(250)
    assert sum(slept) == pytest.approx(3.0)
    assert max(slept) <= 0.5
    pace.took(0)
    assert sum(slept) == pytest.approx(3.0)


def test_a_pause_is_not_made_up_for(slept: list[float]) -> None:
    pace = Pace(100, Deadline(None))
    slept.append(60.0)  # a minute in which nobody read
    for _ in range(10):
        pace.took(100)
    assert sum(slept[1:]) == pytest.approx(9.75)


def test_without_a_rate_nobody_waits(slept: list[float]) -> None:
    Pace(None, Deadline(None)).took(10**12)
    assert slept == []


def test_the_deadline_ends_the_wait(slept: list[float]) -> None:
    pace = Pace(1, Deadline(2))
    pace.took(10**6)
    assert sum(slept) == pytest.approx(2.0)
    with pytest.raises(TimeLimitReached, match="copying"):
        pace.during("copying")(1)
