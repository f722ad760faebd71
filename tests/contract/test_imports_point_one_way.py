"""Imports point one way, so that a change of Codex's formats touches `codex/` and nothing else.

    cli -> commands -> gate, aftermath, stored -> stages -> codex -> system -> errors, model

The stages are inspection, pause, checkpoint, comparison and policy.

`report` knows `model` and `errors` only. The stages do not know each other; each exception has its
reason beside it. The message of a failure names the wrong arrow.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "preflight"
VALUES = {"errors", "model"}
SETTINGS = VALUES | {"config", "request"}

#: What the modules of a place may import besides their own place; a dotted name allows that one module.
ALLOWED = {
    "": set(),
    "errors": set(),
    "model": set(),
    "config": VALUES,
    "request": VALUES | {"config"},
    "system": VALUES,
    "codex": VALUES | {"system"},
    "policy": VALUES | {"config"},  # pure: no files, no Codex
    "checkpoint": VALUES | {"config", "system", "codex"},
    # The journal lies in the store and must be written before a goal is paused.
    "pause": VALUES | {"config", "system", "codex", "checkpoint.journal"},
    # The size class of a thread is a fact that is reported, and the thresholds' meaning is the policy's.
    "inspection": VALUES | {"config", "system", "codex", "policy"},
    # The manifest is what is compared with.
    "comparison": VALUES | {"system", "codex", "checkpoint.manifest"},
    "integrations": VALUES | {"config", "system"},  # nothing of Codex: they run a command
    "pruning": SETTINGS | {"system", "codex", "policy", "checkpoint", "stored"},
    "nightly": SETTINGS | {"system", "codex", "policy", "checkpoint", "pruning"},
    "stored": SETTINGS | {"system", "codex", "policy", "checkpoint"},
    "aftermath": SETTINGS | {"system", "codex", "policy", "checkpoint", "pause", "comparison"},
    # One home on its way through the stages; the gate says in which order.
    "home_run": SETTINGS | {"system", "codex", "policy", "checkpoint", "pause", "inspection"},
    "gate": SETTINGS | {"system", "codex", "policy", "checkpoint", "pause", "home_run"},
    "restoring": SETTINGS | {"system", "codex", "checkpoint"},
    "commands": SETTINGS
    | {"system", "codex", "checkpoint", "integrations"}
    | {"gate", "aftermath", "stored", "restoring", "nightly", "pruning"},
    "crash": VALUES | {"system", "checkpoint"},
    "report": VALUES,
    # The report is rendered where it is printed, and a copy of it lies in the store.
    "cli": VALUES | {"commands", "report", "crash", "checkpoint.store"},
    "__main__": {"cli"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name (without `preflight.`) of every import of the package's own modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the whole name of the module"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "preflight" and rest not in ("", "__version__"):
                yield node.lineno, rest


def is_allowed(importer: str, imported: str) -> bool:
    place, target = importer.partition(".")[0], imported.partition(".")[0]
    return target == place or any(
        imported == allowed or imported.startswith(f"{allowed}.") for allowed in ALLOWED[place]
    )


SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: module_name(path) or "preflight")
def test_no_import_points_upwards(source: Path) -> None:
    importer = module_name(source)
    assert importer.partition(".")[0] in ALLOWED, f"{importer} has no place yet: say above what it may import"
    wrong = [
        f"{source.relative_to(PACKAGE.parent)}:{line}: {importer} -> {imported}"
        for line, imported in imported_modules(ast.parse(source.read_text(encoding="utf-8")))
        if not is_allowed(importer, imported)
    ]
    assert not wrong, "wrong arrow:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("system.files", "codex.home"),
        ("codex.goals", "config"),
        ("pause", "checkpoint.capture"),
        ("checkpoint.capture", "pause"),
        ("policy", "codex.runtime"),
        ("report.text", "config"),
        ("gate", "report"),
        ("commands.check", "report.text"),
    ],
)
def test_the_test_would_notice(importer: str, imported: str) -> None:
    assert not is_allowed(importer, imported)


def test_an_import_inside_a_function_counts() -> None:
    tree = ast.parse("def f():\n    from preflight.codex import goals\n    import preflight.gate\n")
    assert list(imported_modules(tree)) == [(2, "codex.goals"), (3, "gate")]
