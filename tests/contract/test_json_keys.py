"""The keys of ``--json`` are a promise: they are compared for equality, so that a new one is a decision.

A key that is missing here was added without a decision; one that is missing in the answer was
renamed or removed, which schema 1 does not allow.
"""

from __future__ import annotations

import json
from pathlib import Path

from preflight.model import CheckpointRef, CheckpointState, Finding, Result, Severity, Verdict
from preflight.report import Failure, Printed
from preflight.report.json import render
from tests.observations import OBJECTIVE, THREAD, goal, home_observation, observation

ENVELOPE = [
    "schema", "tool", "version", "command", "verdict", "exit_code", "started_at", "finished_at",
    "data", "findings", "not_checked", "errors",
]  # fmt: skip
DATA = ["homes", "threads", "counts", "checkpoint", "checkpoints"]
HOME = ["path", "sqlite_home", "history_modes", "runtimes", "last_good_night"]
RUNTIME = ["pid", "version", "role"]
THREAD_KEYS = [
    "thread_id", "home", "rollouts", "size_bytes", "size_class", "history_mode", "archived", "goal", "writer",
    "turn", "boundary", "resume_bytes", "resume_memory_bytes", "paused_by_us", "checkpoint",
]  # fmt: skip
GOAL = ["goal_id", "status", "token_budget", "tokens_used", "updated_at"]
FINDING = ["id", "severity", "thread_id", "cause", "measured", "expected", "remedy", "path"]
ERROR = ["code", "message", "hint"]

CHECKED = Result(
    command="check",
    verdict=Verdict.BLOCK,
    data={
        "homes": (
            home_observation(observation(checkpoint=CheckpointState(checkpoint_id="c", fresh=True, verified=False))),
        ),
        "checkpoint": (
            CheckpointRef(checkpoint_id="20261122T120000Z-0a1b2c", path=Path("/s/c"), manifest_sha256="ff"),
        ),
    },
    findings=(Finding(finding_id="goal-active", severity=Severity.WARN, cause="the goal is active", thread_id=THREAD),),
    not_checked=("trial resume: no Codex binary was found",),
)


def rendered(answer: Result | Failure | Printed, *, show_text: bool = False) -> dict:
    content = render(answer, started_at=1_763_812_800.0, finished_at=1_763_812_801.5, show_text=show_text)
    assert content.endswith(b"}\n")
    assert content.count(b"\n") == 1
    return json.loads(content)


def test_the_envelope() -> None:
    envelope = rendered(CHECKED)
    assert list(envelope) == ENVELOPE
    assert {key: envelope[key] for key in ENVELOPE[3:8]} | {"schema": envelope["schema"], "tool": envelope["tool"]} == {
        "schema": 1,
        "tool": "codex-preflight",
        "command": "check",
        "verdict": "block",
        "exit_code": 10,
        "started_at": "2025-11-22T12:00:00Z",
        "finished_at": "2025-11-22T12:00:01Z",
    }
    assert envelope["not_checked"] == ["trial resume: no Codex binary was found"]
    assert envelope["errors"] == []


def test_homes_threads_and_checkpoints() -> None:
    data = rendered(CHECKED)["data"]
    (home,), (thread,) = data["homes"], data["threads"]
    assert list(data) == DATA
    assert list(home) == HOME
    assert list(home["runtimes"][0]) == RUNTIME
    assert home["history_modes"] == ["legacy"]
    assert list(thread) == THREAD_KEYS
    assert list(thread["goal"]) == GOAL
    assert list(thread["rollouts"][0]) == ["path", "size_bytes"]
    assert thread["boundary"] == {"offset": 3_060_000_000, "kind": "compaction"}
    assert thread["checkpoint"] == {"id": "c", "fresh": True, "verified": False}
    assert thread["size_class"] == "critical"
    assert thread["goal"]["updated_at"] == "2025-11-22T12:00:00Z"
    assert data["counts"] == {"threads": 120, "goals": 3}
    assert data["checkpoint"] == {"id": "20261122T120000Z-0a1b2c", "path": "/s/c", "manifest_sha256": "ff"}
    assert data["checkpoints"] == [data["checkpoint"]]


def test_what_could_not_be_read_is_null_or_unknown_and_never_left_out() -> None:
    result = Result(command="check", data={"homes": (home_observation(observation(read=False, status=None)),)})
    (thread,) = rendered(result)["data"]["threads"]
    assert list(thread) == THREAD_KEYS
    assert {key for key, value in thread.items() if value is None} == {
        "goal", "boundary", "resume_bytes", "resume_memory_bytes", "checkpoint",
    }  # fmt: skip
    assert (thread["turn"], thread["writer"], thread["history_mode"]) == ("unknown", "unknown", "unknown")


def test_no_checkpoint_is_null() -> None:
    for nothing in (None, (), (None,)):
        data = rendered(Result(command="check", data={"checkpoint": nothing}))["data"]
        assert data == {"checkpoint": None, "checkpoints": []}


def test_no_home_is_an_empty_list() -> None:
    assert rendered(Result(command="check", data={"homes": ()}))["data"] == {"homes": [], "threads": [], "counts": {}}


def test_a_finding() -> None:
    (finding,) = rendered(CHECKED)["findings"]
    assert list(finding) == FINDING
    assert (finding["id"], finding["severity"], finding["path"]) == ("goal-active", "warn", None)


def test_a_failure_is_the_same_envelope_with_an_error() -> None:
    failure = Failure(
        command=None, code="usage", message="there is no verb 'chek'", hint="preflight --help", exit_code=2,
        verdict=Verdict.BLOCK,
    )  # fmt: skip
    envelope = rendered(failure)
    assert list(envelope) == ENVELOPE
    assert list(envelope["errors"][0]) == ERROR
    assert (envelope["command"], envelope["verdict"], envelope["exit_code"]) == (None, "block", 2)
    assert envelope["data"] == {}


def test_help_and_version_travel_as_text() -> None:
    envelope = rendered(Printed(None, "preflight 1.2.3\n"))
    assert list(envelope) == ENVELOPE
    assert (envelope["exit_code"], envelope["data"]) == (0, {"text": "preflight 1.2.3\n"})


def test_an_objective_is_there_only_when_asked_for() -> None:
    elsewhere = Result(command="show", data={"goals": [goal()], "homes": CHECKED.data["homes"]})
    assert OBJECTIVE not in json.dumps(rendered(elsewhere))
    assert list(rendered(CHECKED, show_text=True)["data"]["threads"][0]["goal"]) == [*GOAL, "objective"]
