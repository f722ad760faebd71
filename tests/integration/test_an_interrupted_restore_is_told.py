"""A restore that was killed half-way: every verb that looks tells it, nothing it needs is removed, one word ends it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from preflight import gate, pruning, restoring, stored
from preflight.checkpoint import restore, restore_settle
from preflight.checkpoint.restore_record import Phase
from preflight.checkpoint.retention import Policy
from preflight.codex import thread_rows
from preflight.errors import DatabaseBusy, PreflightError, ThreadInUse, Unverified
from preflight.model import Result
from tests.fixtures_codex import CodexHome, contents, thread_id
from tests.restoring import Bench, visible
from tests.second_process import second_process

Preflight = Callable[..., CompletedProcess[str]]
THREAD = thread_id(1)


class Killed(BaseException):
    """As SIGKILL would: nothing of ours is done any more."""


@pytest.fixture
def codex(tmp_path: Path) -> CodexHome:
    return CodexHome(tmp_path / "home")


@pytest.fixture
def bench(codex: CodexHome) -> Bench:
    return Bench(codex.path)


def kill_after(moment: Callable[[], object]) -> None:
    """The work goes on in a child, which is gone at once when it calls `moment`'s name."""
    child = os.fork()
    if child == 0:
        try:
            moment()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def interrupt(bench: Bench, monkeypatch: pytest.MonkeyPatch, *, begun: bool, number: int = 1) -> None:
    """A restore that was killed when its files had just changed places, or just before."""
    module, name = (restore_settle.thread_rows, "put_back") if begun else (restore, "swap")
    with monkeypatch.context() as patched:
        patched.setattr(module, name, lambda *_: os._exit(9))
        kill_after(lambda: bench.restore(thread_id(number)))


def cut(rollout: Path) -> bytes:
    before = rollout.read_bytes()
    rollout.write_bytes(before[:30_000])
    return before


def told_by(result: Result) -> list[tuple[str, str | None, str | None]]:
    return [
        (finding.finding_id, finding.thread_id, finding.remedy)
        for finding in result.findings
        if finding.finding_id == "restore-interrupted"
    ]


@pytest.mark.parametrize("begun", [True, False])
def test_check_run_and_list_tell_it_and_restore_ends_it(
    bench: Bench, codex: CodexHome, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(THREAD)
    before = cut(rollout)
    codex.execute("state_5.sqlite", "DELETE FROM threads")
    interrupt(bench, monkeypatch, begun=begun)

    told = [("restore-interrupted", THREAD, "preflight restore")]
    assert told_by(gate.check(bench.request())) == told
    assert told_by(gate.run(bench.request(pause=False, archive="never"))) == told
    assert told_by(stored.list_checkpoints(bench.request())) == told
    store = contents(bench.store.folder / "restores")
    would = restoring.complete_interrupted(bench.request(dry_run=True))
    assert would is not None
    assert told_by(would) == told
    assert contents(bench.store.folder / "restores") == store

    ended = restoring.complete_interrupted(bench.request())
    assert ended is not None
    assert [one["outcome"] for one in ended.data["repaired"]] == ["completed" if begun else "called-off"]  # type: ignore[index, attr-defined]
    assert rollout.read_bytes() == (before if begun else before[:30_000])
    assert len(codex.rows("state_5.sqlite", "threads")) == begun
    assert bench.left_behind() == []
    assert restoring.complete_interrupted(bench.request()) is None
    assert told_by(gate.check(bench.request())) == []


def test_its_checkpoint_is_not_pruned_before_it_is_completed(
    bench: Bench, codex: CodexHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thread and goal are written from the checkpoint. What can be undone needs none: what was replaced is kept."""
    rollout = codex.thread(1, size=40_000)
    codex.goal(1)
    first = bench.checkpoint(THREAD)
    cut(rollout)
    codex.execute("goals_1.sqlite", "DELETE FROM thread_goals")
    interrupt(bench, monkeypatch, begun=True)
    for _ in range(2):
        bench.checkpoint(THREAD)

    def prune() -> list[str]:
        result = pruning.prune(bench.request(), Policy(keep_last=1))
        (home,) = result.data["pruned"]  # type: ignore[misc]
        return [one["checkpoint_id"] for one in home["removed"]]

    assert first not in prune()
    assert first in bench.store.checkpoints()
    restoring.complete_interrupted(bench.request())
    assert [goal["status"] for goal in codex.rows("goals_1.sqlite")] == ["paused"]
    assert prune() == [first]
    bench.undo()
    assert rollout.stat().st_size == 30_000
    assert codex.rows("goals_1.sqlite") == []


def test_a_record_that_cannot_be_read_keeps_every_checkpoint_and_is_told(bench: Bench, codex: CodexHome) -> None:
    codex.thread(1, size=40_000)
    for _ in range(3):
        bench.checkpoint(THREAD)
    bench.restore(THREAD)
    (record,) = (bench.store.folder / "restores").iterdir()
    record.write_bytes(record.read_bytes()[:100])
    (finding,) = [one for one in gate.check(bench.request()).findings if one.finding_id == "restore-interrupted"]
    assert finding.path == record
    before = bench.store.checkpoints()
    pruning.prune(bench.request(), Policy(keep_last=1))
    assert bench.store.checkpoints() == before
    with pytest.raises(PreflightError, match="record of a restore is damaged"):
        bench.restore(THREAD)


def test_the_next_restore_of_the_thread_begins_with_it(
    bench: Bench, codex: CodexHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(THREAD)
    before = cut(rollout)
    interrupt(bench, monkeypatch, begun=True)
    told = bench.restore(THREAD)
    assert [one["outcome"] for one in told.data["repaired"]] == ["completed"]  # type: ignore[index, attr-defined]
    assert rollout.read_bytes() == before


def test_one_thread_that_is_in_use_does_not_keep_another_one_waiting(
    bench: Bench, codex: CodexHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout, other = codex.thread(1, size=40_000), codex.thread(2, size=40_000)
    bench.checkpoint(THREAD, thread_id(2))
    before = cut(other)
    cut(rollout)
    interrupt(bench, monkeypatch, begun=True)
    with second_process("f = open(sys.argv[1], 'ab'); say('ready'); wait()", rollout):
        told = bench.restore(thread_id(2))
        with pytest.raises(ThreadInUse):
            bench.restore(THREAD)
    assert [one["outcome"] for one in told.data["repaired"]] == ["still-interrupted"]  # type: ignore[index, attr-defined]
    assert other.read_bytes() == before
    restoring.complete_interrupted(bench.request())
    assert bench.restores().unfinished() == []


def test_a_database_that_is_busy_in_the_end_does_not_count_as_nothing_changed(
    bench: Bench, codex: CodexHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(THREAD)
    before = cut(rollout)

    def busy(*_: object) -> None:
        raise DatabaseBusy("the state database was locked")

    with monkeypatch.context() as patched:
        patched.setattr(thread_rows, "put_back", busy)
        with pytest.raises(Unverified, match="has its place, but the rest could not be done") as told:
            bench.restore(THREAD)
    assert (told.value.exit_code, told.value.hint) == (12, "preflight restore")
    assert rollout.read_bytes() == before
    restoring.complete_interrupted(bench.request())
    assert [record.phase for record in bench.restores().all()] == [Phase.DONE]


@pytest.mark.parametrize("moment", ["before it is noted", "half-way", "before it is called off"])
def test_killed_while_the_files_are_given_back(
    bench: Bench, codex: CodexHome, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A runtime without a lock has opened the old file in the last moment, and then the machine goes down."""
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(THREAD)
    before = cut(rollout)[:30_000]
    with monkeypatch.context() as patched:
        patched.setattr(restore_settle, "_opened_meanwhile", lambda *_: True)
        if moment == "half-way":
            patched.setattr(restore, "give_back", lambda *_: os._exit(9))
        elif moment == "before it is called off":
            patched.setattr(restore, "call_off", lambda *_: os._exit(9))
        else:
            patched.setattr(restore_settle, "give_back", lambda *_: os._exit(9))
        kill_after(lambda: bench.restore(THREAD))
    restoring.complete_interrupted(bench.request())
    # Whether it had been noted decides: called off, or completed as if nobody had opened it.
    if moment == "before it is noted":
        assert rollout.stat().st_size == 40_000
    else:
        assert rollout.read_bytes() == before
        assert list(visible(codex.path)) == [rollout.name]
    assert bench.left_behind() == []
    assert bench.restores().unfinished() == []


def test_after_a_power_cut_the_disk_may_have_another_number(
    bench: Bench, codex: CodexHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(THREAD)
    before = cut(rollout)
    interrupt(bench, monkeypatch, begun=True)
    (record,) = bench.restores().all()
    stored_at = bench.store.folder / "restores" / f"{record.restore_id}.json"
    told = json.loads(stored_at.read_bytes())
    told["files"][0]["identity"]["device"] += 1
    stored_at.chmod(0o600)
    stored_at.write_text(json.dumps(told))
    restoring.complete_interrupted(bench.request())
    assert [one.phase for one in bench.restores().all()] == [Phase.DONE]
    assert rollout.read_bytes() == before


def test_the_words(preflight: Preflight, bench: Bench, codex: CodexHome, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(THREAD)
    cut(rollout)
    interrupt(bench, monkeypatch, begun=True)
    where = ["--home", codex.path, "--store", bench.store_root]
    assert "restore-interrupted" in preflight("check", *where).stdout
    done = preflight("restore", *where)
    assert done.returncode == 0
    assert done.stdout.startswith("Restore ")
    assert done.stdout.endswith("was interrupted, and is completed now.\n")
    again = preflight("restore", *where)
    assert (again.returncode, again.stdout) == (2, "")
