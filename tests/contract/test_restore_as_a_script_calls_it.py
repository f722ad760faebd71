"""`preflight restore` from the outside: what it wants to be told, what it answers, and that it asks before it swaps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL, CompletedProcess

import pytest

from tests.fixtures_codex import CodexHome, thread_id
from tests.restoring import Bench, digest

DATA = [
    "restore_id", "what", "thread_id", "checkpoint_id", "home", "new_home", "files", "kept", "row", "goal",
    "projection_rows", "repaired", "dry_run",
]  # fmt: skip
THREAD = thread_id(1)

Preflight = Callable[..., CompletedProcess[str]]


@pytest.fixture
def codex(tmp_path: Path) -> CodexHome:
    codex = CodexHome(tmp_path / "home")
    codex.thread(1, size=40_000)
    Bench(codex.path).checkpoint(THREAD)
    return codex


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["latest"],
        ["latest", THREAD],
        ["latest", THREAD, "--full"],
        ["latest", THREAD, "--full", "--resume", "--in-place"],
        ["latest", THREAD, "--in-place"],
        ["latest", THREAD, "--full", "--in-place", "--to", "new"],
        ["latest", THREAD, "--undo"],
        ["--undo", "--full"],
        ["20261122T120000Z-000000", THREAD, "--full", "--in-place", "--yes"],
    ],
)
def test_half_a_call_is_a_usage_error(preflight: Preflight, codex: CodexHome, words: list[str]) -> None:
    done = preflight("restore", *words, "--home", codex.path, "--store", codex.path.parent / "store", stdin=DEVNULL)
    assert (done.returncode, done.stdout) == (2, "")


def test_without_yes_and_without_a_person_nothing_is_changed(preflight: Preflight, codex: CodexHome) -> None:
    where = ["--home", codex.path, "--store", codex.path.parent / "store"]
    (rollout,) = codex.path.rglob("rollout-*")
    rollout.write_bytes(rollout.read_bytes()[:30_000])
    before = digest(rollout)
    for more in ([], ["--json"]):
        done = preflight("restore", "latest", THREAD, "--full", "--in-place", *where, *more, stdin=DEVNULL)
        assert done.returncode == 2
        assert digest(rollout) == before
    assert json.loads(done.stdout)["errors"][0]["hint"] == "say --yes to go on"


def test_the_keys_and_the_words(preflight: Preflight, codex: CodexHome) -> None:
    where = ["--home", codex.path, "--store", codex.path.parent / "store"]
    told = json.loads(preflight("restore", "latest", THREAD, "--full", "--in-place", "--yes", "--json", *where).stdout)
    assert (told["command"], told["verdict"], told["exit_code"]) == ("restore", None, 0)
    assert list(told["data"]) == DATA
    assert [list(file) for file in told["data"]["files"]] == [["path", "size_bytes", "sha256"]]
    undone = preflight("restore", "--undo", THREAD, "--yes", *where)
    assert undone.stdout.startswith(f"The restore of thread {THREAD} is undone.\n")
    new = preflight("restore", "latest", THREAD, "--resume", "--to", codex.path.parent / "a new one", *where)
    assert new.stdout.endswith(f"open it: CODEX_HOME='{codex.path.parent}/a new one' codex resume {THREAD}\n")
