"""Whatever a Codex home holds, the report can be rendered: odd paths, cut characters, huge numbers, broken times."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from preflight.model import Answer, CheckpointRef, Finding, Result, Severity
from preflight.report.json import render
from tests.observations import home_observation, observation


def rendered(result: Result) -> dict:
    return json.loads(render(result, started_at=0, finished_at=0))


def test_a_path_that_is_not_utf8_travels_with_its_bytes() -> None:
    path = Path(os.fsdecode(b"/home/ada/caf\xe9"))
    finding = Finding(finding_id="x", severity=Severity.WARN, cause="c", path=path)
    (reported,) = rendered(Result(command="check", findings=(finding,)))["findings"]
    assert list(reported) == [
        "id",
        "severity",
        "thread_id",
        "cause",
        "measured",
        "expected",
        "remedy",
        "path",
        "path_b64",
    ]
    assert reported["path"] == "/home/ada/caf\ufffd"
    assert base64.b64decode(reported["path_b64"]) == b"/home/ada/caf\xe9"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2**70, 2**70),
        ("cut \ud83d pair", "cut ? pair"),
        (float("inf"), None),
        (float("nan"), None),
        (Answer.UNKNOWN, "unknown"),
        ((1, 2), [1, 2]),
        (CheckpointRef(checkpoint_id="c", path=Path("/c"), manifest_sha256="f"),
         {"checkpoint_id": "c", "path": "/c", "manifest_sha256": "f"}),
    ],
)  # fmt: skip
def test_a_value_of_any_kind_finds_its_way(value: object, expected: object) -> None:
    assert rendered(Result(command="show", data={"value": value}))["data"] == {"value": expected}


def test_a_value_without_a_rule_is_refused_rather_than_guessed() -> None:
    with pytest.raises(TypeError, match="complex"):
        rendered(Result(command="show", data={"value": 1j}))


@pytest.mark.parametrize("milliseconds", [2**62, -1, 253_402_300_800_000])
def test_a_time_that_no_calendar_holds_is_null(milliseconds: int) -> None:
    odd = observation()
    object.__setattr__(odd.thread.goal, "updated_at_ms", milliseconds)
    (thread,) = rendered(Result(command="check", data={"homes": (home_observation(odd),)}))["data"]["threads"]
    assert thread["goal"]["updated_at"] is None
