"""One moment by which everything must be over."""

from __future__ import annotations

import math
import time

import pytest

from preflight.errors import TimeLimitReached
from preflight.system.deadline import Deadline


def test_a_run_without_a_limit_never_ends() -> None:
    deadline = Deadline(None)

    assert deadline.remaining() == math.inf
    assert not deadline.expired
    assert deadline.at_most(5.0) == 5.0
    deadline.check("anything")


def test_what_is_left_shrinks_and_stops_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    deadline = Deadline(10)

    assert deadline.remaining() == 10.0
    now = 107.0
    assert deadline.at_most(60) == 3.0
    now = 500.0
    assert deadline.remaining() == 0.0
    assert deadline.expired


def test_the_step_that_was_not_begun_is_named() -> None:
    with pytest.raises(TimeLimitReached) as caught:
        Deadline(0).check("verifying the checkpoint")

    assert "verifying the checkpoint" in caught.value.message
    assert caught.value.exit_code == 75


def test_a_step_never_gets_more_time_than_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    run = Deadline(10)

    assert run.sub(3).remaining() == 3.0
    assert run.sub(60).remaining() == 10.0
    assert Deadline(None).sub(4).remaining() == 4.0
