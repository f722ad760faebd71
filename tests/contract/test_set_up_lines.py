"""The README's two set-up lines, and that `.ci/run` gets what tests need, runs the second one and then the checks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from preflight import cli

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci/run").read_text(encoding="utf-8")
DEMO_LINE = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/preflight demo"
TEST_LINE = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest"
#: The programs that `.ci/run` looks for, each with its package.
NEEDED = dict(line.split() for line in CI.partition("<<'END'\n")[2].partition("END\n")[0].splitlines())
COMMANDS = re.findall(r"^    \$ (preflight .*)$", README, re.MULTILINE)


def test_the_two_lines_are_there_and_no_other_set_up() -> None:
    assert re.findall(r"^    (python3 .*)$", README, re.MULTILINE) == [DEMO_LINE, TEST_LINE]


@dataclass(frozen=True)
class Checkout:
    """A copy with nothing but the README, and a `python3` that builds an environment of recorders."""

    folder: Path

    def ci(self, path: str) -> list[str]:
        """What `.ci/run` called, of what writes it down."""
        environment = {"PATH": f"{self.folder}/programs{path}"}
        done = subprocess.run([self.folder / ".ci/run"], cwd="/", env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return (self.folder / "calls").read_text().splitlines()

    def record(self, *names: str) -> None:
        for name in names:
            shutil.copy2(self.folder / "recorder", self.folder / "programs" / name)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    (tmp_path / ".ci").mkdir()
    shutil.copy2(ROOT / ".ci/run", tmp_path / ".ci/run")
    shutil.copy2(ROOT / "README.md", tmp_path)
    calls, recorder = tmp_path / "calls", tmp_path / "recorder"
    recorder.write_text(
        f'#!/bin/sh\necho "${{0##*/}} $* codex=$PREFLIGHT_REQUIRE_CODEX" >>"{calls}"\n'
        'if [ "$2" = venv ]; then\n'
        f'  mkdir -p "$3/bin" && for tool in pip python ruff mypy; do cp "{recorder}" "$3/bin/$tool"; done\n'
        "fi\n"
    )
    recorder.chmod(0o755)
    (tmp_path / "programs").mkdir()
    found = Checkout(tmp_path)
    found.record("python3")
    return found


def test_ci_runs_the_second_line_as_the_readme_has_it_and_then_lint_and_types(checkout: Checkout) -> None:
    checkout.record(*NEEDED)  # nothing is missing, and nothing is installed
    assert checkout.ci(os.pathsep + os.environ["PATH"]) == [
        f"{call} codex=1"
        for call in (
            "python3 -m venv .venv",
            "pip install -e .[test]",
            "python -m pytest",
            "ruff check",
            "ruff format --check",
            "mypy --platform linux",
            "mypy --platform darwin",
            "mypy --platform win32",
        )
    ]


def test_ci_installs_the_programs_that_tests_run_and_the_machine_has_not(checkout: Checkout) -> None:
    for name in ("bash", "cp", "dirname", "grep", "mkdir", "sh"):
        (checkout.folder / "programs" / name).symlink_to(str(shutil.which(name)))
    (checkout.folder / "programs/id").write_text("#!/bin/sh\necho 0\n")
    (checkout.folder / "programs/id").chmod(0o755)
    checkout.record("apt-get", "zstd")
    update, install, *rest = checkout.ci("")
    # Those of administrators are looked for where they are, whatever the PATH.
    missing = [package for program, package in NEEDED.items() if shutil.which(program, path="/usr/sbin:/sbin") is None]
    missing.remove("zstd")
    assert update == "apt-get -qq update codex=1"
    assert install == f"apt-get -qq install -y --no-install-recommends {' '.join(missing)} codex=1"
    assert rest[0] == "python3 -m venv .venv codex=1"


@pytest.mark.parametrize("call", COMMANDS)
def test_the_examples_of_the_readme_can_be_typed(call: str) -> None:
    words = re.split(r"\s[|>]", call, maxsplit=1)[0].split()[1:]
    command: click.Command = cli.group
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None, call
        command = found
    known = {name for option in command.params for name in option.opts}
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known
