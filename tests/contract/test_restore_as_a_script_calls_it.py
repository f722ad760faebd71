"""`preflight restore` from the outside: what it wants to be told, what it answers, and that it asks before it swaps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL, CompletedProcess

import pytest

from tests.fixtures_codex import CodexHome, thread_id
from tests.restoring import Bench, digest, visible

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


OTHER = "01a2036e-0001-7000"


@pytest.mark.parametrize(
    ("words", "sentence", "step"),
    [
        (["latest"], "say which checkpoint", "preflight restore latest THREAD --full --in-place"),
        ([THREAD], "say which checkpoint", f"preflight restore latest {THREAD} --full --in-place"),
        (
            [THREAD, "latest", "--full", "--in-place"],
            "the checkpoint comes first",
            f"preflight restore latest {THREAD}",
        ),
        (["latest", OTHER, "--full", "--in-place"], "no checkpoint holds a thread", f"give the id in full: {THREAD}"),
        (["latest", thread_id(7), "--resume", "--in-place"], "no checkpoint holds thread", "preflight show latest"),
        (["2026", THREAD, "--full", "--in-place"], "there is no checkpoint 2026", "give the id in full: 2026"),
        (["nonsense", THREAD, "--full", "--in-place"], "there is no checkpoint nonsense", "preflight list"),
        (["latest", THREAD, "--full"], "say where to", "preflight restore --help"),
        (["latest", THREAD, "--in-place"], "say what to restore", "preflight restore --help"),
        (["latest", THREAD, "--full", "--to", "."], "this path exists already", "name another one"),
        (["latest", THREAD, "--full", "--to", "no/such"], "does not exist", "make it first"),
        (["--undo", THREAD], "there is no restore of thread", "preflight list"),
    ],
)
def test_a_tired_person_gets_one_sentence_and_the_next_step(
    preflight: Preflight, codex: CodexHome, words: list[str], sentence: str, step: str
) -> None:
    where = ["--home", codex.path, "--store", codex.path.parent / "store"]
    done = preflight("restore", *words, *where, "--yes", stdin=DEVNULL)
    assert (done.returncode, done.stdout) == (2, "")
    said = " ".join(done.stderr.split())
    assert said.startswith(f"USAGE: {sentence}") or sentence in said
    assert step in said


@pytest.mark.parametrize("verb", ["show", "verify", "pin", "unpin"])
def test_half_an_id_of_a_checkpoint_is_no_id_for_any_verb(preflight: Preflight, codex: CodexHome, verb: str) -> None:
    done = preflight(verb, "2026", "--home", codex.path, "--store", codex.path.parent / "store")
    assert done.returncode == 2
    assert "give the id in full: 2026" in done.stderr


def test_a_home_that_is_gone_is_not_taken_for_a_store_without_checkpoints(
    preflight: Preflight, codex: CodexHome, user: Path
) -> None:
    """`~/.codex` was deleted: the checkpoints are there, and the person must hear it."""
    store = ["--store", codex.path.parent / "store"]
    codex.path.rename(codex.path.with_name("was home"))
    told = preflight("restore", "latest", THREAD, "--full", "--in-place", *store)
    assert told.returncode == 2
    assert f"one of {codex.path} does" in " ".join(told.stderr.split())
    assert "--to" in told.stderr
    named = preflight("restore", "latest", THREAD, "--full", "--in-place", "--home", codex.path, *store)
    assert named.returncode == 2
    assert "make an empty folder there first" in " ".join(named.stderr.split())
    listed = preflight("list", *store)
    assert str(codex.path) in listed.stdout
    again = preflight("restore", "latest", THREAD, "--full", "--to", codex.path, "--home", codex.path, *store)
    assert again.returncode == 0, again.stderr
    assert list(visible(codex.path)) == list(visible(codex.path.with_name("was home")))
