"""A call imports what it needs: start-up is most of the time that an updater waits for `check`.

What is pinned here are modules, not milliseconds. They are read from `sys.modules` at the end of the
call: `python -X importtime` does not see what `importlib.import_module` loads, which is how verbs are.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIGHT = {
    "preflight",
    "preflight.cli",
    "preflight.commands",
    "preflight.commands.options",
    "preflight.errors",
    "preflight.report",
}
TEXT = {"preflight.model", "preflight.report.lines", "preflight.report.text", "preflight.report.values",
        "preflight.report.verbs"}  # fmt: skip
OTHERS = {"asyncio", "filelock", "msgspec", "orjson", "platformdirs", "psutil", "rich", "sqlite3", "ssl", "tomllib",
          "websockets"}  # fmt: skip

Imported = Callable[..., set[str]]


@pytest.fixture
def imported(user: Path) -> Imported:
    """The names of all modules that a call imports, with an empty Codex home in reach."""
    home = user / ".codex"
    home.mkdir()

    program = (
        "import sys\n"
        "from preflight import cli\n"
        "code = cli.main(sys.argv[1:])\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr)\n"
        "sys.exit(code)\n"
    )

    def run(*words: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", program, *words], cwd=ROOT, env=os.environ, capture_output=True, text=True
        )
        assert done.returncode in (0, 2, 3), done.stderr
        return set(done.stderr.splitlines())

    return run


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] == "preflight"}


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["--version", "--json"]])
def test_version_and_help_import_the_command_line_and_nothing_else(imported: Imported, words: list[str]) -> None:
    modules = imported(*words)
    assert ours(modules) == LIGHT | ({"preflight.model", "preflight.report.json"} if "--json" in words else set())
    assert modules.isdisjoint(OTHERS)


def test_a_misspelled_verb_imports_no_verb(imported: Imported) -> None:
    modules = imported("chek")
    assert ours(modules) == LIGHT | TEXT
    assert modules.isdisjoint(OTHERS)


def test_a_verb_imports_no_other_verb(imported: Imported) -> None:
    verbs = {name for name in imported("config", "path") if name.startswith("preflight.commands.")}
    assert verbs == {"preflight.commands.options", "preflight.commands.config"}


def test_check_for_a_program_needs_no_lock_no_socket_and_no_screen(imported: Imported) -> None:
    modules = imported("check", "--json")
    assert "preflight.report.json" in modules
    assert modules.isdisjoint({"asyncio", "filelock", "rich", "ssl", "websockets", "preflight.report.text"})


@pytest.mark.parametrize("verb", ["check", "run", "finish", "list", "resume-goals"])
def test_json_never_imports_rich(imported: Imported, verb: str) -> None:
    assert "rich" not in imported(verb, "--json", "--color", "always")


def test_rich_is_imported_when_a_person_is_looking(imported: Imported) -> None:
    assert "rich" not in imported("list")
    assert "rich.console" in imported("list", "--color", "always")
