"""stdout belongs to `report`, and only `system` asks which operating system it runs on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "preflight"
SOURCES = sorted(PACKAGE.rglob("*.py"))

PRINTING = {"print", "click.echo", "click.secho", "sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__"}
PLATFORM = {"sys.platform", "os.name", "platform.system", "platform.platform", "os.uname"}


def used_names(source: str) -> dict[str, int]:
    """Dotted names that the source uses, with the first line of each."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.setdefault(f"{node.value.id}.{node.attr}", node.lineno)
        elif isinstance(node, ast.Name):
            found.setdefault(node.id, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found.setdefault(f"{node.module}.{alias.name}", node.lineno)
    return found


def uses(source: Path, names: set[str]) -> list[str]:
    used = used_names(source.read_text(encoding="utf-8"))
    return [f"{source.relative_to(PACKAGE.parent)}:{used[name]} uses {name}" for name in sorted(names & used.keys())]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_else_prints(source: Path) -> None:
    if source.parent.name != "report" and source.name != "cli.py":
        assert uses(source, PRINTING) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_else_asks_for_the_system(source: Path) -> None:
    if source.parent.name != "system":
        assert uses(source, PLATFORM) == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("print('x')", "print"),
        ("import sys\nsys.stdout.write('x')", "sys.stdout"),
        ("from sys import platform", "sys.platform"),
        ("import os\nif os.name == 'nt': x = 1", "os.name"),
    ],
)
def test_the_test_would_notice(source: str, name: str) -> None:
    assert name in used_names(source)
