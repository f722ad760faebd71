"""The README's two set-up lines, and that `.ci/run` runs the second one and then the checks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from preflight import cli

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO_LINE = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/preflight demo"
TEST_LINE = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest"
COMMANDS = re.findall(r"^    \$ (preflight .*)$", README, re.MULTILINE)


def test_the_two_lines_are_there_and_no_other_set_up() -> None:
    assert re.findall(r"^    (python3 .*)$", README, re.MULTILINE) == [DEMO_LINE, TEST_LINE]


def test_ci_runs_the_second_line_as_the_readme_has_it_and_then_lint_and_types(tmp_path: Path) -> None:
    """On a copy with nothing but the README, and a python3 that builds an environment of recorders."""
    (tmp_path / ".ci").mkdir()
    shutil.copy2(ROOT / ".ci/run", tmp_path / ".ci/run")
    shutil.copy2(ROOT / "README.md", tmp_path)
    calls = tmp_path / "calls"
    recorder = tmp_path / "recorder"
    recorder.write_text(
        f'#!/bin/sh\necho "${{0##*/}} $* codex=$PREFLIGHT_REQUIRE_CODEX" >>"{calls}"\n'
        'if [ "$2" = venv ]; then\n'
        f'  mkdir -p "$3/bin" && for tool in pip python ruff mypy; do cp "{recorder}" "$3/bin/$tool"; done\n'
        "fi\n"
    )
    recorder.chmod(0o755)
    (tmp_path / "programs").mkdir()
    shutil.copy2(recorder, tmp_path / "programs/python3")
    environment = {"PATH": f"{tmp_path}/programs{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([tmp_path / ".ci/run"], cwd="/", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert calls.read_text().splitlines() == [
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
