"""What an updater calls: the hooks find preflight, hand its answer on, and never hang.

Real shells, real processes, real signals. `preflight` is a shell script that writes down how it was
called and then does what the test says; the last test calls the real one.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from preflight.codex.sample_home import SampleHome, make_sample_home
from tests.needs import cannot_be_had

HOOKS = Path(__file__).resolve().parents[2] / "hooks"
FILES = ("pre-update", "post-update", "preflight-hook.sh")
SHELLS = {"dash": ["dash"], "bash": ["bash"], "busybox": ["busybox", "sh"], "shebang": []}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the hooks are shell scripts")


@pytest.fixture(params=SHELLS)
def shell(request) -> list[str]:
    command = SHELLS[request.param]
    if command and shutil.which(command[0]) is None:
        cannot_be_had(f"{command[0]} is not installed")
    return [str(shutil.which(command[0])), *command[1:]] if command else []


@dataclass
class Machine:
    """A folder with the hooks in it, an empty user's home, and nothing else that could be found."""

    root: Path
    hooks: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def calls(self) -> Path:
        return self.root / "calls"

    def preflight(self, *, at: Path, does: str = "exit 0", ours: bool = True) -> Path:
        """A preflight that writes its pid and its arguments, one a line, to `calls`."""
        at.parent.mkdir(parents=True, exist_ok=True)
        mark = "# from preflight.cli import main" if ours else "# something else"
        at.write_text(f'#!/bin/sh\n{mark}\nprintf "%s\\n" "$$" "$@" >"{self.calls}"\n{does}\n')
        at.chmod(0o755)
        return at

    def command(self, name: str, *arguments: str, shell: list[str]) -> list[str]:
        return [*shell, str(self.hooks / name), *arguments]

    def call(self, name: str, *arguments: str, shell: list[str] = (), **env: str) -> subprocess.CompletedProcess:  # type: ignore[assignment]
        """Calls a hook and reads its streams to the end: whoever holds them open makes this time out."""
        return subprocess.run(
            self.command(name, *arguments, shell=list(shell)),
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def start(self, name: str, *, shell: list[str], **env: str) -> subprocess.Popen:
        """Starts a hook in a session of its own, whose members can be counted afterwards."""
        return subprocess.Popen(
            self.command(name, shell=shell),
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def arguments(self) -> list[str]:
        return self.calls.read_text().splitlines()[1:]

    def pid(self) -> int:
        return int(self.calls.read_text().splitlines()[0])

    def wait_for_call(self) -> None:
        wait_until(lambda: self.calls.exists() and self.calls.read_text().count("\n") > 1)


def wait_until(holds) -> None:
    for _ in range(600):
        if holds():
            return
        time.sleep(0.05)
    pytest.fail("waited for half a minute")


def nobody_is_left(session: int) -> bool:
    """Whether no process of that session is at work; what waits to be collected by process 1 is not."""
    members = [process for process in psutil.process_iter(["status"]) if _session(process.pid) == session]
    return all(process.info["status"] == psutil.STATUS_ZOMBIE for process in members)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


@pytest.fixture
def machine(tmp_path) -> Machine:
    hooks = tmp_path / "an updater's folder, caf\u00e9" / "hooks"
    hooks.mkdir(parents=True)
    for name in FILES:
        shutil.copy2(HOOKS / name, hooks / name)
    home = tmp_path / "home of the user"
    home.mkdir()
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "sleep", "dirname", "readlink", "grep", "id"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    return Machine(tmp_path, hooks, {"PATH": str(tools), "HOME": str(home)})


def beside(machine: Machine, does: str = "exit 0") -> Path:
    return machine.preflight(at=machine.hooks / "preflight", does=does)


# What is called


def test_pre_update_asks_for_the_gate_and_passes_the_version_on(machine, shell):
    beside(machine)
    done = machine.call("pre-update", "0.169.0", shell=shell)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.arguments() == ["run", "--reason", "update", "--target-version=0.169.0", "--timeout", "120"]


def test_post_update_asks_for_finish(machine, shell):
    beside(machine)
    done = machine.call("post-update", shell=shell)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.arguments() == ["finish", "--timeout", "120"]


def test_the_version_may_come_from_the_environment_and_the_argument_wins(machine, shell):
    beside(machine)
    machine.call("pre-update", shell=shell, PREFLIGHT_TARGET_VERSION="26.527 (alpha)")
    assert "--target-version=26.527 (alpha)" in machine.arguments()
    machine.call("pre-update", "0.169.0", shell=shell, PREFLIGHT_TARGET_VERSION="0.1")
    assert "--target-version=0.169.0" in machine.arguments()


def test_without_a_version_nothing_is_made_up(machine, shell):
    beside(machine)
    machine.call("pre-update", shell=shell)
    assert machine.arguments() == ["run", "--reason", "update", "--timeout", "120"]


def test_json_is_asked_for_and_comes_through_untouched(machine, shell):
    beside(machine, does="""printf '{"verdict":"block"}\\n'; exit 10""")
    done = machine.call("pre-update", "--json", "0.169.0", shell=shell)
    assert (done.returncode, done.stdout) == (10, '{"verdict":"block"}\n')
    assert "--json" in machine.arguments()
    assert machine.call("post-update", "--json", shell=shell).stdout == '{"verdict":"block"}\n'
    assert machine.arguments()[:2] == ["finish", "--json"]


@pytest.mark.parametrize("code", [0, 1, 2, 3, 10, 11, 12, 13, 75, 130])
@pytest.mark.parametrize("name", ["pre-update", "post-update"])
def test_the_exit_status_is_handed_on(machine, name, code):
    beside(machine, does=f"exit {code}")
    assert machine.call(name).returncode == code


def test_a_call_that_makes_no_sense_is_a_usage_error(machine, shell):
    beside(machine)
    assert machine.call("pre-update", "0.1", "0.2", shell=shell).returncode == 2
    assert machine.call("post-update", "0.1", shell=shell).returncode == 2
    assert not machine.calls.exists()


# Where preflight is found


@pytest.mark.parametrize(
    "place",
    [
        "home of the user/.local/bin/preflight",
        "home of the user/.local/share/pipx/venvs/codex-preflight/bin/preflight",
        "home of the user/.local/pipx/venvs/codex-preflight/bin/preflight",
        "home of the user/Library/Application Support/pipx/venvs/codex-preflight/bin/preflight",
        "home of the user/.local/share/uv/tools/codex-preflight/bin/preflight",
        "tools/preflight",
        "an updater's folder, caf\u00e9/hooks/preflight",
        "an updater's folder, caf\u00e9/.venv/bin/preflight",
    ],
)
def test_preflight_is_found_where_installers_put_it(machine, shell, place):
    machine.preflight(at=machine.root / place, does="exit 3")
    assert machine.call("pre-update", shell=shell).returncode == 3


def test_the_hooks_of_an_installed_wheel_find_the_program_of_their_environment(machine, shell):
    environment = machine.root / "an environment"
    machine.hooks = environment / "lib/python3.11/site-packages/preflight/_hooks"
    shutil.copytree(machine.root / "an updater's folder, caf\u00e9/hooks", machine.hooks)
    machine.preflight(at=environment / "bin/preflight", does="exit 3")
    assert machine.call("pre-update", shell=shell).returncode == 3


def test_the_named_program_wins_and_need_not_be_a_script_of_pip(machine, shell):
    beside(machine, does="exit 1")
    named = machine.preflight(at=machine.root / "named one", does="exit 3", ours=False)
    assert machine.call("pre-update", shell=shell, PREFLIGHT_BIN=str(named)).returncode == 3


def test_another_program_called_preflight_is_passed_over_unstarted(machine, shell):
    machine.preflight(at=machine.root / "tools/preflight", ours=False)
    done = machine.call("pre-update", shell=shell)
    assert done.returncode == 0
    assert "not found" in done.stderr
    assert not machine.calls.exists()


def test_a_module_without_a_script_is_found_through_python(machine, shell):
    site = machine.root / "site"
    (site / "codex_preflight-1.dist-info").mkdir(parents=True)
    (site / "codex_preflight-1.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: codex-preflight\nVersion: 1\n"
    )
    (site / "preflight").mkdir()
    (site / "preflight/cli.py").write_text("import sys\ndef main():\n    print(*sys.argv[1:])\n    return 3\n")
    (machine.root / "tools/python3").symlink_to(sys.executable)
    done = machine.call("pre-update", "0.169.0", shell=shell, PYTHONPATH=str(site))
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout == "run --reason update --target-version=0.169.0 --timeout 120\n"


def test_a_foreign_module_called_preflight_in_the_working_folder_is_not_run(machine, shell, monkeypatch):
    (machine.root / "preflight").mkdir()
    (machine.root / "preflight/cli.py").write_text("def main():\n    return 3\n")
    # Python as the system has it: without the packages of this test's environment.
    (machine.root / "tools/python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    (machine.root / "tools/python3").chmod(0o755)
    monkeypatch.chdir(machine.root)
    done = machine.call("pre-update", shell=shell)
    assert done.returncode == 0
    assert "not found" in done.stderr


# When it is not found


@pytest.mark.parametrize("name", ["pre-update", "post-update"])
def test_a_missing_preflight_is_one_line_and_no_obstacle(machine, shell, name):
    done = machine.call(name, shell=shell)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["pre-update", "post-update"])
def test_a_missing_preflight_blocks_when_it_is_required(machine, shell, name):
    done = machine.call(name, shell=shell, PREFLIGHT_REQUIRED="1")
    assert (done.returncode, done.stdout) == (10, "")
    assert done.stderr.count("\n") == 1


def test_a_named_program_that_is_not_there_is_missing_even_if_there_is_another(machine, shell):
    beside(machine)
    gone = str(machine.root / "gone")
    assert machine.call("pre-update", shell=shell, PREFLIGHT_BIN=gone, PREFLIGHT_REQUIRED="1").returncode == 10
    assert machine.call("pre-update", shell=shell, PREFLIGHT_BIN=gone).returncode == 0
    assert not machine.calls.exists()


def test_a_hook_that_was_copied_alone_does_not_say_yes(machine, shell):
    (machine.hooks / "preflight-hook.sh").unlink()
    beside(machine)
    done = machine.call("pre-update", shell=shell)
    assert done.returncode == 1
    assert "preflight-hook.sh" in done.stderr


# How it is called


def test_the_hooks_work_with_an_empty_environment(machine, shell):
    beside(machine, does=f'printf "%s" "$HOME" >"{machine.root}/home"')
    machine.env = {}
    done = machine.call("pre-update", shell=shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert (machine.root / "home").read_text() == pwd.getpwuid(os.getuid()).pw_dir


def test_the_hooks_work_through_symbolic_links(machine, shell):
    beside(machine, does="exit 3")
    (machine.root / "links").mkdir()
    first = machine.root / "links/first"
    first.symlink_to(machine.hooks / "pre-update")
    second = machine.root / "second link"
    second.symlink_to("links/first")
    machine.hooks = machine.root
    assert machine.call("second link", shell=shell).returncode == 3


def test_the_hooks_work_from_any_folder_with_a_relative_name(machine, shell, monkeypatch):
    beside(machine, does="exit 3")
    monkeypatch.chdir(machine.hooks.parent)
    machine.hooks = Path("hooks")
    assert machine.call("pre-update", shell=shell, CDPATH=str(machine.root)).returncode == 3


def test_preflight_gets_no_input_even_if_the_updater_never_closes_it(machine, shell):
    beside(machine, does="cat; exit 3")
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            machine.command("pre-update", shell=shell),
            env={**machine.env, "PATH": os.environ["PATH"]},
            stdin=reading,
            capture_output=True,
            timeout=60,
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert (done.returncode, done.stdout) == (3, b"")


def test_closed_standard_streams_do_no_harm(machine, shell):
    beside(machine, does="exit 3")
    words = machine.command("pre-update", shell=shell)
    done = subprocess.run(["/bin/sh", "-c", '"$@" <&- >&- 2>&-', "sh", *words], env=machine.env, timeout=60)
    assert done.returncode == 3


# Never hang


def test_a_preflight_that_does_not_end_is_ended_at_the_limit(machine, shell):
    beside(machine, does="exec sleep 1000")
    hook = machine.start("pre-update", shell=shell, PREFLIGHT_HOOK_LIMIT="1")
    _, errors = hook.communicate(timeout=60)
    assert hook.returncode == 75
    assert errors.count("\n") == 1
    assert machine.arguments()[-2:] == ["--timeout", "1"]
    assert nobody_is_left(hook.pid)


def test_a_preflight_that_ignores_the_request_to_end_is_killed(machine, shell):
    beside(machine, does="trap '' TERM\nexec sleep 1000")
    hook = machine.start("post-update", shell=shell, PREFLIGHT_HOOK_LIMIT="1")
    hook.communicate(timeout=60)
    assert hook.returncode == 75
    assert nobody_is_left(hook.pid)


def test_an_answer_given_at_the_last_moment_counts(machine, shell):
    beside(machine, does="trap 'exit 12' TERM\nwhile :; do sleep 0.1; done")
    done = machine.call("pre-update", shell=shell, PREFLIGHT_HOOK_LIMIT="1")
    assert (done.returncode, done.stderr) == (12, "")


def test_nothing_stays_behind_after_an_answer_in_time(machine, shell):
    beside(machine, does="exit 3")
    hook = machine.start("pre-update", shell=shell, PREFLIGHT_HOOK_LIMIT="99999")
    hook.communicate(timeout=60)
    assert hook.returncode == 3
    assert nobody_is_left(hook.pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_hook_reaches_preflight_which_ends_in_order(machine, shell, number):
    put_back = machine.root / "put back"
    beside(machine, does=f"trap 'sleep 0.2; : >\"{put_back}\"; exit 143' TERM\nwhile :; do sleep 0.1; done")
    hook = machine.start("pre-update", shell=shell)
    machine.wait_for_call()
    hook.send_signal(number)
    hook.communicate(timeout=60)
    assert hook.returncode == 128 + number
    assert put_back.exists()
    assert nobody_is_left(hook.pid)


def test_a_killed_hook_leaves_no_clock_behind(machine):
    beside(machine, does="exec sleep 1000")
    hook = machine.start("pre-update", shell=[])
    machine.wait_for_call()
    hook.kill()
    os.kill(machine.pid(), signal.SIGKILL)
    hook.communicate(timeout=60)
    wait_until(lambda: nobody_is_left(hook.pid))


@pytest.mark.parametrize("limit", ["soon", "-1", "0", "007", "1.5", "100000", "1 2"])
def test_a_limit_that_is_no_number_of_seconds_is_said_and_replaced(machine, shell, limit):
    beside(machine)
    done = machine.call("pre-update", shell=shell, PREFLIGHT_HOOK_LIMIT=limit)
    assert done.returncode == 0
    assert "PREFLIGHT_HOOK_LIMIT" in done.stderr
    assert machine.arguments()[-2:] == ["--timeout", "120"]


# With the real preflight


def test_the_hooks_carry_a_goal_through_an_update(machine, shell, tmp_path):
    home = make_sample_home(tmp_path / "codex home", large_bytes=300_000)
    program = machine.root / "preflight"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m preflight "$@"\n')
    program.chmod(0o755)
    settings = {
        "PREFLIGHT_BIN": str(program),
        "PREFLIGHT_STORE": str(tmp_path / "store"),
        "CODEX_HOME": str(home.path),
        "PYTHONPATH": str(HOOKS.parent),
    }
    before = machine.call("pre-update", "--json", "0.169.0", shell=shell, **settings)
    assert before.returncode in (0, 3), before.stdout + before.stderr
    assert json.loads(before.stdout)["verdict"] in ("proceed", "warn")
    assert _goal_status(home) == "paused"
    after = machine.call("post-update", shell=shell, **settings)
    assert after.returncode in (0, 3), after.stdout + after.stderr
    assert _goal_status(home) == "active"


def _goal_status(home: SampleHome) -> str:
    with closing(sqlite3.connect(home.goals_db)) as goals:
        return goals.execute("SELECT status FROM thread_goals").fetchone()[0]


# The files themselves


@pytest.mark.parametrize("name", FILES)
def test_every_shell_can_read_the_files(shell, name):
    subprocess.run([*(shell or ["/bin/sh"]), "-n", str(HOOKS / name)], check=True)


def test_shellcheck_has_nothing_to_say():
    beside_python = str(Path(sys.executable).parent)
    shellcheck = shutil.which("shellcheck", path=os.pathsep.join([beside_python, os.environ["PATH"]]))
    if shellcheck is None:
        cannot_be_had("shellcheck is not installed")
    subprocess.run([shellcheck, "-x", *FILES], cwd=HOOKS, check=True)


@pytest.mark.parametrize("name", ["pre-update", "post-update"])
def test_the_hooks_are_programs(name):
    assert (HOOKS / name).stat().st_mode & stat.S_IXUSR
    assert (HOOKS / name).read_text().startswith("#!/bin/sh\n")
