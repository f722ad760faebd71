"""A trial resume tells what the runtime saw, blames the checkpoint only for what is its fault, and leaves nothing.

The runtime is the FAKE of fake_app_server.py: the real releases pass their trials in
tests/real_codex/test_trial_resume.py, and do none of what is asked for here.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preflight.checkpoint import trial as trials
from preflight.checkpoint.trial import Trial, TrialOutcome, remove_left_behind, trial_resume
from preflight.codex.runtime import CodexBinary, RuntimeVersion
from preflight.errors import NoSpace, TimeLimitReached
from preflight.model import Goal, GoalTable
from preflight.system import children, files, locks, processes
from preflight.system.deadline import Deadline
from tests.integration.fake_app_server import make_fake

THREAD = "01a2036d-c442-7320-ada6-1a77b942a3c1"
OTHER = "01a2036d-0000-7320-ada6-1a77b942a3c1"
GOAL = Goal(
    thread_id=THREAD,
    goal_id="g1",
    objective="a secret objective",
    status="active",
    token_budget=None,
    tokens_used=7,
    time_used_seconds=1,
    created_at_ms=1,
    updated_at_ms=2,
    table=GoalTable.GOALS,
)

Try = Callable[..., Trial]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint's resume rollout with two turns, and its copy of a goals database with two goals."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    meta = {"id": THREAD, "model_provider": "openai", "cli_version": "0.147.0", "history_mode": "legacy"}
    records = [("session_meta", meta)]
    for number in range(2):
        records += [("event_msg", {"type": kind, "turn_id": str(number)}) for kind in ("task_started", "task_complete")]
    lines = [json.dumps({"timestamp": "t", "type": kind, "payload": payload}) for kind, payload in records]
    (folder / f"rollout-2026-11-22T13-24-15-{THREAD}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    with closing(sqlite3.connect(folder / "goals_1.sqlite")) as database:
        database.execute("CREATE TABLE thread_goals (thread_id TEXT PRIMARY KEY, objective TEXT, status TEXT)")
        rows = [(THREAD, GOAL.objective, "active"), (OTHER, "another", "active")]
        database.executemany("INSERT INTO thread_goals VALUES (?, ?, ?)", rows)
        database.commit()
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def attempt(checkpoint: Path, scratch: Path, tmp_path: Path) -> Try:
    """A trial with a fake that behaves as told; afterwards nothing of it may be left."""

    def run(
        *,
        version: str | None = "0.169.0",
        goal: Goal | None = GOAL,
        expected_turns: int | None = 2,
        seconds: float = 30.0,
        **behaviour: Any,
    ) -> Trial:
        program = make_fake(tmp_path / "codex", notes=str(tmp_path / "notes"), **behaviour)
        before = contents(checkpoint)
        try:
            return trial_resume(
                CodexBinary(program, RuntimeVersion.parse(version)),
                next(checkpoint.glob("rollout-*")),
                THREAD,
                scratch=scratch,
                deadline=Deadline(seconds),
                goal=goal,
                goals_database=checkpoint / "goals_1.sqlite",
                expected_turns=expected_turns,
            )
        finally:
            assert contents(checkpoint) == before
            assert list(scratch.iterdir()) == []

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def notes(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]


def asked(tmp_path: Path) -> list[str]:
    return [message["method"] for message in notes(tmp_path)[1:]]


def thread(thread_id: str = THREAD, status: str = "idle") -> dict[str, Any]:
    return {"thread": {"id": thread_id, "status": {"type": status}}}


# ---- what a trial tells ------------------------------------------------------------------------------------


def test_a_checkpoint_that_resumes_passes(attempt: Try) -> None:
    result = attempt()
    assert result.outcome is TrialOutcome.PASSED, result
    assert (result.turns, result.goal_status, result.objective_matches) == (2, "paused", True)
    assert result.runtime_version == "0.169.0"
    assert result.seconds is not None
    assert result.isolated == bool(children.network_free_prefix())
    assert (result.peak_memory_bytes or 0) > 10**6
    assert result.not_checked == ()
    assert GOAL.objective not in repr(result)


def test_the_runtime_gets_a_paused_goal_alone_and_knows_nothing_of_the_user(
    attempt: Try, tmp_path: Path, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("NO_PROXY", "*")
    attempt()
    about = notes(tmp_path)[0]
    environment = about["environment"]
    assert "secret" not in environment.values()
    assert "NO_PROXY" not in environment
    assert not any(str(user) in value for value in environment.values())
    for name in ("HOME", "CODEX_HOME", "CODEX_SQLITE_HOME", "TMPDIR"):
        assert environment[name].startswith(str(tmp_path / "scratch"))
    assert environment["HTTPS_PROXY"].startswith("http://127.0.0.1:")
    assert about["cwd"].startswith(str(tmp_path / "scratch"))
    assert about["files"] == [
        "config.toml",
        "goals_1.sqlite",
        f"sessions/2026/11/22/rollout-2026-11-22T13-24-15-{THREAD}.jsonl",
    ]


def test_nothing_but_the_scratch_home_is_resumed_and_no_turn_is_asked_for(attempt: Try, tmp_path: Path) -> None:
    attempt()
    assert asked(tmp_path) == [
        "initialize",
        "initialized",
        "thread/resume",
        "thread/turns/list",
        "thread/goal/get",
        "thread/read",
    ]


def test_a_provider_of_the_users_own_is_defined_and_leads_nowhere(
    attempt: Try, checkpoint: Path, tmp_path: Path
) -> None:
    rollout = next(checkpoint.glob("rollout-*"))
    rollout.write_text(rollout.read_text().replace('"openai"', '"my [provider]"'))
    attempt()
    config = notes(tmp_path)[0]["config"]
    assert '[model_providers."my [provider]"]' in config
    assert config.count("http://127.0.0.1:") == config.count("http")
    assert "[model_providers.openai]" not in config


def test_a_provider_that_only_the_runtime_knows_of_is_defined_when_it_asks_for_it(attempt: Try, tmp_path: Path) -> None:
    missing = {"type": "modelProviderNotConfigured", "modelProvider": "a later one"}
    result = attempt(errors_once={"thread/resume": {"code": -32600, "message": "m", "data": missing}})
    assert result.outcome is TrialOutcome.PASSED
    assert asked(tmp_path).count("thread/resume") == 2


def test_without_an_isolated_network_the_trial_says_so(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "network_free_prefix", list)
    result = attempt()
    assert (result.outcome, result.isolated) == (TrialOutcome.PASSED, False)


# ---- the goal ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.128.0", None])
def test_a_runtime_that_would_wake_the_goal_does_not_get_it(attempt: Try, tmp_path: Path, version: str | None) -> None:
    result = attempt(version=version)
    assert result.outcome is TrialOutcome.PASSED
    assert result.goal_status is None
    assert "the goal" in result.not_checked[0]
    assert "goals_1.sqlite" not in notes(tmp_path)[0]["files"]
    assert "goals = false" in notes(tmp_path)[0]["config"]


def test_a_runtime_that_turns_out_to_be_such_a_one_is_left_alone(attempt: Try, tmp_path: Path) -> None:
    home = str(tmp_path / "scratch")
    hello = {"userAgent": "codex-preflight/0.128.0 (fake)", "codexHome": None}
    result = attempt(results={"initialize": hello})
    assert result.outcome is TrialOutcome.NOT_POSSIBLE
    assert "thread/resume" not in asked(tmp_path)
    assert home not in str(result.reason)


def test_a_goal_of_the_state_database_is_not_asked_for(attempt: Try) -> None:
    result = attempt(goal=replace(GOAL, table=GoalTable.STATE))
    assert result.outcome is TrialOutcome.PASSED
    assert "drops such goals" in result.not_checked[0]


def test_a_thread_without_a_goal_is_not_asked_for_one(attempt: Try, tmp_path: Path) -> None:
    result = attempt(goal=None)
    assert (result.outcome, result.not_checked) == (TrialOutcome.PASSED, ())
    assert "thread/goal/get" not in asked(tmp_path)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"goal": {"status": "active", "objective": GOAL.objective}}, "paused"),
        ({"goal": {"status": "paused", "objective": "another"}}, "objective"),
        ({"goal": None}, "does not see the goal"),
    ],
)
def test_a_goal_that_is_not_as_it_was_fails(attempt: Try, told: dict[str, Any], reason: str) -> None:
    result = attempt(results={"thread/goal/get": told})
    assert result.outcome is TrialOutcome.FAILED
    assert reason in str(result.reason)
    assert GOAL.objective not in repr(result)


def test_a_runtime_without_goals_leaves_the_goal_unchecked(attempt: Try) -> None:
    refusal = {"code": -32600, "message": "goals feature is disabled"}
    result = attempt(errors={"thread/goal/get": refusal})
    assert result.outcome is TrialOutcome.PASSED
    assert result.not_checked == ("the goal: this Codex does not tell it",)


# ---- what fails --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"results": {"thread/resume": thread(OTHER)}}, "another thread"),
        ({"results": {"thread/read": thread(OTHER)}}, "another thread"),
        ({"results": {"thread/read": thread(status="active")}}, "a turn started"),
        ({"says": {"thread/goal/get": [{"method": "turn/started", "params": {}}]}}, "a turn started"),
        ({"dies_on": "thread/resume"}, "ended with status -6"),
        ({"garbage_on": "thread/resume"}, "not JSON"),
        ({"dies_on": "thread/read"}, "ended with status -6"),
    ],
)
def test_what_the_runtime_does_wrong_fails_the_checkpoint(attempt: Try, behaviour: Any, reason: str) -> None:
    result = attempt(**behaviour)
    assert result.outcome is TrialOutcome.FAILED
    assert reason in str(result.reason)


def test_a_thread_that_the_runtime_refuses_fails_and_its_words_stay_out_of_the_reason(attempt: Try) -> None:
    refusal = {"code": -32603, "message": "failed to read thread: /home/secret is empty"}
    result = attempt(errors={"thread/resume": refusal})
    assert result.outcome is TrialOutcome.FAILED
    assert result.runtime_words == refusal["message"]
    assert "secret" not in repr(result)


def test_turns_that_are_not_there_fail(attempt: Try) -> None:
    result = attempt(expected_turns=3)
    assert result.outcome is TrialOutcome.FAILED
    assert "2 turns" in str(result.reason)


def test_turns_that_nobody_counted_are_not_checked(attempt: Try) -> None:
    result = attempt(expected_turns=None)
    assert (result.outcome, result.turns) == (TrialOutcome.PASSED, 2)
    assert result.not_checked == ("the number of turns",)


def test_an_old_runtime_may_show_nothing_of_a_paginated_thread(attempt: Try, checkpoint: Path) -> None:
    nothing = {"data": [], "nextCursor": None}
    old = {"userAgent": "codex-preflight/0.147.0 (fake)", "codexHome": None}
    rollout = next(checkpoint.glob("rollout-*"))
    rollout.write_text(rollout.read_text().replace('"legacy"', '"paginated"'))
    shown = attempt(version="0.147.0", results={"thread/turns/list": nothing, "initialize": old})
    assert shown.outcome is TrialOutcome.PASSED
    assert "number of turns" in shown.not_checked[0]
    assert attempt(results={"thread/turns/list": nothing}).outcome is TrialOutcome.FAILED


def test_a_rollout_that_codex_would_refuse_fails_without_a_runtime(
    attempt: Try, checkpoint: Path, tmp_path: Path
) -> None:
    next(checkpoint.glob("rollout-*")).write_text("")
    assert attempt().outcome is TrialOutcome.FAILED
    assert not (tmp_path / "notes").exists()


# ---- what is not the checkpoint's fault --------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour",
    [
        {"errors": {"thread/resume": {"code": -32600, "message": "m", "data": {"type": "modelProviderNotConfigured"}}}},
        {"errors": {"thread/resume": {"code": -32600, "message": "failed to load configuration: x"}}},
        {"errors": {"initialize": {"code": -32600, "message": "no"}}},
        {"dies_on": "initialize"},
        {"garbage_on": "initialize"},
        {"results": {"initialize": {"userAgent": "codex-preflight/0.169.0 (fake)", "codexHome": "/"}}},
    ],
)
def test_a_runtime_that_cannot_be_asked_says_nothing_about_the_checkpoint(attempt: Try, behaviour: Any) -> None:
    result = attempt(**behaviour)
    assert result.outcome is TrialOutcome.NOT_POSSIBLE
    assert result.reason


def test_a_program_that_cannot_be_started_makes_no_trial(checkpoint: Path, scratch: Path, tmp_path: Path) -> None:
    program = tmp_path / "codex"
    program.write_bytes(b"\x7fELF but not really")
    program.chmod(0o755)
    for path in (program, tmp_path / "missing"):
        result = trial_resume(
            CodexBinary(path, None),
            next(checkpoint.glob("rollout-*")),
            THREAD,
            scratch=scratch,
            deadline=Deadline(30),
        )
        assert result.outcome is TrialOutcome.NOT_POSSIBLE
    assert list(scratch.iterdir()) == []


def test_a_rollout_that_could_fill_the_memory_is_not_tried(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "machine_memory_bytes", lambda: 200_000_000)
    result = attempt()
    assert result.outcome is TrialOutcome.NOT_POSSIBLE
    assert "memory" in str(result.reason)


def test_a_machine_wide_configuration_needs_an_isolated_network(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "system_configuration", lambda: (Path("/etc/codex/config.toml"),))
    monkeypatch.setattr(children, "network_free_prefix", list)
    assert attempt().outcome is TrialOutcome.NOT_POSSIBLE


def test_a_full_disk_makes_no_trial(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise NoSpace("the disk is full")

    monkeypatch.setattr(files, "copy_range", full)
    assert attempt().outcome is TrialOutcome.NOT_POSSIBLE


def test_a_scratch_place_that_is_not_there_makes_no_trial(checkpoint: Path, tmp_path: Path) -> None:
    result = trial_resume(
        CodexBinary(make_fake(tmp_path / "codex"), None),
        next(checkpoint.glob("rollout-*")),
        THREAD,
        scratch=tmp_path / "missing",
        deadline=Deadline(30),
    )
    assert result.outcome is TrialOutcome.NOT_POSSIBLE


# ---- its end -----------------------------------------------------------------------------------------------


def test_a_runtime_that_hangs_is_ended_with_all_it_started_when_the_time_is_over(attempt: Try, tmp_path: Path) -> None:
    child = tmp_path / "child"
    with pytest.raises(TimeLimitReached):
        attempt(seconds=2.0, silent_on="thread/resume", child_pid_in=str(child))
    assert_gone(int(child.read_text()))


def test_what_the_runtime_started_ends_with_it(attempt: Try, tmp_path: Path) -> None:
    child = tmp_path / "child"
    attempt(child_pid_in=str(child))
    assert_gone(int(child.read_text()))


def assert_gone(pid: int) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return  # dead, and whoever adopts it has not looked yet
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} is still there")


def test_no_time_left_starts_nothing(attempt: Try, tmp_path: Path) -> None:
    with pytest.raises(TimeLimitReached):
        attempt(seconds=0.0)
    assert not (tmp_path / "notes").exists()


def test_the_homes_of_killed_trials_are_removed_and_that_of_a_trial_at_work_is_not(scratch: Path) -> None:
    for name in ("trial-killed", "trial-at-work", "checkpoints"):
        (scratch / name / "home").mkdir(parents=True)
        (scratch / name / "at-work.lock").touch()
    with locks.held(scratch / "trial-at-work" / "at-work.lock"):
        assert remove_left_behind(scratch) == 1
    assert sorted(path.name for path in scratch.iterdir()) == ["checkpoints", "trial-at-work"]


def test_a_trial_that_goes_on_is_not_cleared_away(attempt: Try, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[int] = []
    put_goal = trials.put_goal

    def meanwhile(*arguments: Any) -> None:
        removed.append(remove_left_behind(scratch))
        put_goal(*arguments)

    monkeypatch.setattr(trials, "put_goal", meanwhile)
    assert attempt().outcome is TrialOutcome.PASSED
    assert removed == [0]
