"""`preflight hooks`: which schedulers there are, what would be installed, and what the nightly call would mean."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from preflight.integrations.machine import Machine, command_faults, nightly_python
from tests.fake_schedulers import installed_beside_cron
from tests.private_machine import own_python

NAMES = ["systemd", "cron", "launchd", "taskscheduler"]
Hooks = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hooks(user: Path, tmp_path: Path) -> Hooks:
    call = installed_beside_cron(tmp_path, user)
    return lambda *words, **env: call("hooks", *words, **env)


def data(done: subprocess.CompletedProcess[str]) -> dict:
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)["data"]


def test_list_offers_what_is_here(hooks: Hooks) -> None:
    listed = data(hooks("list", "--json"))["hooks"]
    assert [(each["name"], each["available"], each["state"]) for each in listed] == [
        (name, name == "cron", "absent") for name in NAMES
    ]
    assert hooks("list").stdout.splitlines()[0].split() == ["scheduler", "here", "state", "at"]


def test_the_whole_way(hooks: Hooks, user: Path) -> None:
    plan = data(hooks("install", "cron", "--at", "4:05", "--dry-run", "--json"))
    assert list(plan) == ["name", "did", "dry_run", "before", "state", "at", "steps", "details"]
    assert (plan["state"], plan["at"], plan["dry_run"], len(plan["steps"])) == ("absent", "04:05", True, 1)
    assert not (user / "the-table").exists()
    done = data(hooks("install", "cron", "--at", "4:05", "--json"))
    assert (done["before"], done["state"], done["steps"]) == ("absent", "installed", plan["steps"])
    assert "is installed already" in hooks("install", "cron").stdout
    moved = hooks("install", "cron", "--at", "4:06", "--dry-run").stdout.splitlines()
    assert [each[4:13].rstrip() for each in moved if each.startswith("    ")] == [
        "- # begin", "- 5 4 * *", "- 35 * *", "- # end c", "+ # begin", "+ 6 4 * *", "+ 36 * *", "+ # end c",
    ]  # fmt: skip
    (status,) = data(hooks("status", "cron", "--json"))["hooks"]
    assert list(status) == ["name", "available", "state", "at", "interpreter", "details"]
    assert (status["state"], status["at"]) == ("installed", "04:05")
    assert "nothing of ours any more" in hooks("uninstall", "cron").stdout
    assert "has nothing of ours" in hooks("uninstall", "cron").stdout
    assert not (user / "the-table").exists()


def test_what_needs_something_done_is_a_finding_with_the_command_for_it(hooks: Hooks, user: Path) -> None:
    hooks("install", "cron")
    table = user / "the-table"
    table.write_text(table.read_text().replace("10 3", "11 3"))
    (finding,) = json.loads(hooks("status", "--json").stdout)["findings"]
    assert (finding["id"], finding["severity"], finding["remedy"]) == (
        "hook-edited",
        "warn",
        "preflight hooks install cron --force",
    )
    refused = hooks("install", "cron")
    assert refused.returncode == 2
    assert "next: preflight hooks install cron --force" in refused.stderr


def test_print_gives_the_bytes_of_the_file_and_nothing_else(hooks: Hooks) -> None:
    assert hooks("print", "cron").stdout.startswith("# begin codex-preflight hook, format 1, sha256 ")
    systemd = hooks("print", "systemd", "--at", "23:59").stdout
    assert systemd.splitlines()[0].endswith("/systemd/user/codex-preflight.service")
    assert "OnCalendar=*-*-* 23:59:00" in systemd
    shown = data(hooks("print", "taskscheduler", "--json"))["files"]
    assert [file["text"][:5] for file in shown] == ["<?xml"]


@pytest.mark.parametrize(
    ("words", "env", "meant"),
    [
        ((), {}, ""),
        (("--home", "/a b", "--store", "/s"), {}, "--home '/a b' --store /s"),
        ((), {"PREFLIGHT_STORE": "/s"}, "--store /s"),
        ((), {"XDG_STATE_HOME": "/x"}, "--store /x/codex-preflight"),
        ((), {"PREFLIGHT_CONFIG": "/c.toml"}, "--config /c.toml"),
        ((), {"CODEX_HOME": "/srv/codex"}, "--home /srv/codex"),
        ((), {"CODEX_SQLITE_HOME": "/srv/a b"}, "--env 'CODEX_SQLITE_HOME=/srv/a b'"),
        ((), {"PREFLIGHT_RETENTION_KEEP_DAILY": "3"}, "--env PREFLIGHT_RETENTION_KEEP_DAILY=3"),
        ((), {"PREFLIGHT_THRESHOLDS_WARNING": "", "UNRELATED": "1"}, ""),
    ],
)
def test_the_night_means_the_same_places_as_the_one_who_installs_it(
    hooks: Hooks, words: tuple[str, ...], env: dict[str, str], meant: str
) -> None:
    line = hooks("print", "cron", *words, **env).stdout.splitlines()[1]
    assert line.partition("--timeout 900 -q")[2].strip() == meant


def test_the_default_home_stays_beside_the_one_of_a_variable(hooks: Hooks, user: Path) -> None:
    (user / ".codex").mkdir()
    line = hooks("print", "cron", CODEX_HOME="/srv/codex").stdout.splitlines()[1]
    assert line.endswith(f" -q --home /srv/codex --home {user}/.codex")


def test_the_night_finds_the_codex_that_the_one_who_installs_it_has(hooks: Hooks, tmp_path: Path) -> None:
    """A scheduler's PATH has not the folder of nvm, npm or Homebrew: no trial, and nobody would know the version."""
    codex = tmp_path / "npm/bin/codex"
    codex.parent.mkdir(parents=True)
    codex.touch(0o755)
    line = hooks("print", "cron", PATH=str(codex.parent)).stdout.splitlines()[1]
    assert line.endswith(f" -q --env PATH={codex.parent}")


@pytest.mark.parametrize("words", [["list"], ["print", "cron"], ["status"], ["status", "cron"]])
def test_what_changes_nothing_can_be_run_dry_as_well(hooks: Hooks, words: list[str]) -> None:
    assert data(hooks(*words, "--dry-run", "--json")) == data(hooks(*words, "--json"))


@pytest.mark.parametrize("words", [["install", "cron", "--at", "24:00"], ["install", "atd"], ["print"], ["install"]])
def test_a_call_that_cannot_be_understood_is_a_usage_error(hooks: Hooks, words: list[str]) -> None:
    assert hooks(*words).returncode == 2


@pytest.mark.parametrize("where", ["home", "config"])
def test_a_night_that_would_fail_every_time_is_not_installed(hooks: Hooks, user: Path, where: str) -> None:
    done = hooks("install", "cron", f"--{where}", "/not/there")
    assert done.returncode == 2
    assert "/not/there" in done.stderr
    assert not (user / "the-table").exists()


def test_a_scheduler_that_is_not_here_is_refused(hooks: Hooks) -> None:
    done = hooks("install", "systemd")
    assert (done.returncode, done.stdout) == (13, "")
    assert "there is no systemctl on this machine" in done.stderr


def test_an_interpreter_that_only_works_with_variables_is_refused(
    preflight: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, user: Path
) -> None:
    """At night there is no PYTHONPATH, which the fixture sets: what is found through it alone is not found then."""
    bare = tmp_path / "bare"
    python = own_python(bare)
    (next(bare.rglob("*.pth"))).unlink()
    machine = Machine(env=dict(os.environ), user_home=user, folder=tmp_path)
    assert "PYTHONPATH" in machine.env
    assert command_faults(machine, [str(python)]) == (f"its interpreter cannot start preflight: {python}",)
    assert command_faults(machine, [str(own_python(tmp_path / "good"))]) == ()
    assert command_faults(machine, ["/gone"]) == ("its interpreter is gone: /gone",)


def test_windows_gets_the_interpreter_that_opens_no_window(tmp_path: Path) -> None:
    python = tmp_path / "python.exe"
    assert nightly_python(str(python)) == str(python)
    (tmp_path / "pythonw.exe").touch()
    assert nightly_python(str(python)) == str(tmp_path / "pythonw.exe")
    assert nightly_python("/usr/bin/python3") == "/usr/bin/python3"
