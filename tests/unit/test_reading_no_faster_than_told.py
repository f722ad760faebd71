"""A pace holds back by sleeping, never beyond the deadline."""

from __future__ import annotations

import pytest

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
    pace.keep(50)
    assert sum(slept) == pytest.approx(0.5)
    pace.keep(300)
    assert sum(slept) == pytest.approx(3.0)
    assert max(slept) <= 0.5
    pace.keep(300)
    assert sum(slept) == pytest.approx(3.0)


def test_without_a_rate_nobody_waits(slept: list[float]) -> None:
    Pace(None, Deadline(None)).keep(10**12)
    assert slept == []


def test_the_deadline_ends_the_wait(slept: list[float]) -> None:
    Pace(1, Deadline(2)).keep(10**6)
    assert sum(slept) == pytest.approx(2.0)
