"""`preflight demo`: the whole story, nothing of the user's touched, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from preflight import aftermath, cli, gate, stored
from preflight.errors import Locked
from preflight.model import Result, Verdict
from preflight.system import files

Preflight = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a demo makes its own."""
    folder = tmp_path / "temporary files"
    folder.mkdir()
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture
def demo(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict]]:
    """The demo in this process, so that a test can stand in for one of its steps."""

    def run(*options: str) -> tuple[int, dict]:
        code = cli.main(["demo", "--size", "5 MB", "--json", *options])
        return code, json.loads(capfd.readouterr().out)

    return run


def test_it_ends_well_and_says_so_and_leaves_nothing(preflight: Preflight, temporary: Path, user: Path) -> None:
    before = sorted(user.rglob("*"))
    done = preflight("demo", "--size", "5 MB")
    assert done.returncode == 0, done.stderr
    told = done.stderr.splitlines()
    assert [line[:2] for line in told if line[0] != " "] == ["1.", "2.", "3.", "4.", "5.", "6."]
    assert any("BLOCK" in line for line in told)
    assert any("every byte" in line for line in told)
    # A path is never broken, however long the name of the folder for temporary files is.
    assert [line for line in told if len(line) > 80 and not line.strip().startswith(str(temporary.parent))] == []
    assert list(temporary.iterdir()) == []
    assert sorted(user.rglob("*")) == before


def test_its_steps_are_those_of_an_update(demo) -> None:
    code, answer = demo()
    assert (code, answer["exit_code"], answer["command"]) == (0, 0, "demo")
    steps = [(step["step"], step["answer"]) for step in answer["data"]["steps"]]
    assert steps == [("check", "block"), ("run", "warn"), ("finish", "proceed"), ("verify", "done")]
    assert set(answer["data"]["afterwards"].values()) == {True}
    assert answer["data"]["folder"] is None
    assert any("trial resume" in gap for gap in answer["not_checked"])


def test_the_damaged_thread_is_a_finding_and_no_obstacle(demo, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Result] = []
    real = gate.run
    monkeypatch.setattr(gate, "run", lambda request: seen.append(real(request)) or seen[0])
    assert demo()[0] == 0
    damaged = {finding.thread_id for finding in seen[0].findings if finding.finding_id == "damaged-lines"}
    assert len(damaged) == 1
    threads = {thread.thread.thread_id: thread for home in seen[0].data["homes"] for thread in home.threads}
    assert all(thread.checkpoint is not None and thread.checkpoint.verified for thread in threads.values())
    assert damaged < threads.keys()


def test_json_is_one_object_and_nothing_else(preflight: Preflight) -> None:
    done = preflight("demo", "--size", "5 MB", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout)["data"]["large_rollout_bytes"] >= 5_000_000


def test_what_the_user_has_set_up_is_not_looked_at(
    preflight: Preflight, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = tmp_path / "called"
    programs = tmp_path / "programs"
    programs.mkdir()
    codex = programs / "codex"
    codex.write_text(f'#!/bin/sh\n: >"{called}"\n')
    codex.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setenv("CODEX_HOME", str(tmp_path / "a file"))
    (tmp_path / "a file").write_text("not a home")
    monkeypatch.setenv("PREFLIGHT_STORE", str(tmp_path / "another store"))
    monkeypatch.setenv("PREFLIGHT_THRESHOLDS_DANGER", "900 MB")
    done = preflight("demo", "--size", "5 MB", "--json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["data"]["steps"][0]["answer"] == "block"
    assert not called.exists()
    assert not (tmp_path / "another store").exists()


def test_a_home_or_store_of_the_user_is_refused(preflight: Preflight, tmp_path: Path) -> None:
    for option in ("--home", "--store"):
        done = preflight("demo", option, tmp_path / "mine")
        assert done.returncode == 2
        assert option in done.stderr
    assert not (tmp_path / "mine").exists()


def test_keep_leaves_a_home_on_which_the_other_verbs_work(preflight: Preflight, temporary: Path) -> None:
    done = preflight("demo", "--size", "5 MB", "--keep", "--json")
    assert done.returncode == 0
    (folder,) = temporary.iterdir()
    assert json.loads(done.stdout)["data"]["folder"] == str(folder)
    assert folder.stat().st_mode & 0o077 == 0
    where = ("--home", folder / "codex-home", "--store", folder / "store")
    assert preflight("verify", *where).returncode == 0
    assert preflight("check", *where).returncode == 3


# When something does not hold, the demo must not say that it does.


def test_a_goal_that_was_not_put_back_fails_the_demo(demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aftermath, "finish", lambda request: Result(command="finish", verdict=Verdict.PROCEED))
    code, answer = demo()
    assert code == 1
    assert answer["data"]["afterwards"]["goals_as_before"] is False
    assert [finding["id"] for finding in answer["findings"]] == ["demo-failed"]


def test_a_changed_byte_fails_the_demo(demo, monkeypatch: pytest.MonkeyPatch) -> None:
    real = aftermath.finish

    def changes_a_byte(request) -> Result:
        rollout = max(request.homes[0].rglob("*.jsonl"), key=lambda path: path.stat().st_size)
        with rollout.open("r+b") as file:
            file.seek(1_000_000)
            file.write(b"#")
        return real(request)

    monkeypatch.setattr(aftermath, "finish", changes_a_byte)
    code, answer = demo()
    assert code == 1
    assert answer["data"]["afterwards"]["rollouts_as_before"] is False


def test_a_gate_that_blocks_fails_the_demo(demo, monkeypatch: pytest.MonkeyPatch) -> None:
    real = gate.run
    monkeypatch.setattr(gate, "run", lambda request: replace(real(request), verdict=Verdict.BLOCK))
    assert demo()[0] == 1


def test_a_checkpoint_that_does_not_read_back_fails_the_demo(demo, monkeypatch: pytest.MonkeyPatch) -> None:
    real = stored.verify
    monkeypatch.setattr(stored, "verify", lambda request: replace(real(request), exit_code=12))
    assert demo()[0] == 1


# However it ends, the folder is gone.


def test_an_error_in_a_step_is_its_exit_code_and_leaves_nothing(
    demo, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(request) -> Result:
        raise Locked("somebody else is at work")

    monkeypatch.setattr(gate, "run", locked)
    assert demo()[0] == 11
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(temporary: Path, number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-m", "preflight", "demo"], stderr=subprocess.PIPE, cwd=Path.cwd())
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"1.")
    assert len(list(temporary.iterdir())) == 1
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert list(temporary.iterdir()) == []


# The disk.


def test_a_short_disk_gets_a_smaller_thread_and_the_same_story(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda path: 109_000_000)
    assert cli.main(["demo", "--json"]) == 0
    data = json.loads(capfd.readouterr().out)["data"]
    assert 9_000_000 <= data["large_rollout_bytes"] < 10_000_000
    assert data["steps"][0]["answer"] == "block"


def test_a_disk_that_is_too_short_is_said_before_anything_is_written(
    demo, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda path: 50_000_000)
    code, answer = demo()
    assert code == 12
    assert answer["errors"][0]["code"] == "no-space"
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("size", ["5", "big", "4 MB", "-5 MB"])
def test_a_size_that_cannot_be_is_a_usage_error(preflight: Preflight, size: str) -> None:
    assert preflight("demo", "--size", size).returncode == 2
