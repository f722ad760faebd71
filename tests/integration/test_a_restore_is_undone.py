"""What a restore has replaced comes back, whatever Codex has done with the thread since; that is kept as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from preflight.checkpoint import restore
from preflight.checkpoint.restore_record import Phase
from preflight.errors import ThreadInUse, Unsupported, Unverified, UsageProblem
from preflight.model import Answer
from tests.fixtures_codex import CodexHome, thread_id
from tests.restoring import Bench, visible

LINE = b'{"timestamp":"2026-11-22T13:25:09.403Z","type":"event_msg","payload":{"type":"x"}}\n'


@pytest.fixture
def codex(tmp_path: Path) -> CodexHome:
    return CodexHome(tmp_path / "home")


@pytest.fixture
def bench(codex: CodexHome) -> Bench:
    return Bench(codex.path)


class Restored:
    """A thread that was longer by a line, `today`, and has been put back to `before`."""

    def __init__(self, bench: Bench, codex: CodexHome, *, ordinal: int | None = None) -> None:
        self.rollout = codex.thread(1, size=40_000, ordinal=ordinal)
        self.before = self.rollout.read_bytes()
        bench.checkpoint(thread_id(1))
        self.today = self.before + LINE
        self.rollout.write_bytes(self.today)
        self.told = bench.restore(thread_id(1), full=True)
        assert self.rollout.read_bytes() == self.before


def row_of(codex: CodexHome) -> dict[str, object]:
    (row,) = codex.rows("state_5.sqlite", "threads")
    return row


def test_turns_that_were_added_since_are_kept_and_told(bench: Bench, codex: CodexHome) -> None:
    restored = Restored(bench, codex)
    with restored.rollout.open("ab") as runtime:
        runtime.write(LINE * 2)
    (would,) = bench.undo(dry_run=True).findings
    told = bench.undo()
    assert restored.rollout.read_bytes() == restored.today
    (kept,) = told.data["kept"]  # type: ignore[misc]
    assert kept.read_bytes() == restored.before + LINE * 2
    (finding,) = told.findings
    assert (finding.finding_id, finding.measured, finding.path) == ("newer-turns-kept", 2 * len(LINE), kept)
    assert would.measured == finding.measured
    assert f"{2 * len(LINE)} bytes" in bench.asked[-1]


def test_archived_since_there_is_one_file_again_and_it_is_where_it_was(bench: Bench, codex: CodexHome) -> None:
    restored = Restored(bench, codex)
    archived = codex.path / "archived_sessions" / restored.rollout.name
    archived.parent.mkdir()
    restored.rollout.rename(archived)
    codex.execute("state_5.sqlite", ("UPDATE threads SET archived = 1, rollout_path = ?", (str(archived),)))
    told = bench.undo()
    assert list(visible(codex.path)) == [restored.rollout.name]
    assert restored.rollout.read_bytes() == restored.today
    (kept,) = told.data["kept"]  # type: ignore[misc]
    assert (kept.parent, kept.read_bytes()) == (archived.parent, restored.before)
    assert (row_of(codex)["rollout_path"], row_of(codex)["archived"]) == (str(restored.rollout), 0)


def test_reverted_since_the_newer_head_goes_with_what_it_goes_on_from(bench: Bench, codex: CodexHome) -> None:
    restored = Restored(bench, codex, ordinal=0)
    segment = codex.rollout(1, stamp="2026-11-23T09-00-00", segment=9, base=(thread_id(1), 1, 100), size=40_000)
    codex.execute("state_5.sqlite", ("UPDATE threads SET rollout_path = ?", (str(segment),)))
    told = bench.undo()
    assert list(visible(codex.path)) == [restored.rollout.name]
    assert restored.rollout.read_bytes() == restored.today
    assert len(told.data["kept"]) == 2  # type: ignore[arg-type]
    assert row_of(codex)["rollout_path"] == str(restored.rollout)


def test_forked_since_the_fork_keeps_what_it_goes_on_from(bench: Bench, codex: CodexHome) -> None:
    restored = Restored(bench, codex, ordinal=0)
    added = LINE.replace(b'"type"', b'"ordinal":2,"type"', 1)
    with restored.rollout.open("ab") as runtime:
        runtime.write(added)
    codex.thread(2, stamp="2026-11-23T09-00-00", base=(thread_id(1), 3, 40_000 + len(added)), size=30_000)
    before = visible(codex.path)
    with pytest.raises(Unsupported, match="another thread goes on from") as told:
        bench.undo()
    assert visible(codex.path) == before
    assert "what it was before lies in" in str(told.value.hint)


def test_a_fork_from_what_both_have_is_no_obstacle(bench: Bench, codex: CodexHome) -> None:
    restored = Restored(bench, codex, ordinal=0)
    codex.thread(2, stamp="2026-11-23T09-00-00", base=(thread_id(1), 2, 40_000), size=30_000)
    bench.undo()
    assert restored.rollout.read_bytes() == restored.today


def test_files_that_the_restore_had_left_alone_stay(bench: Bench, codex: CodexHome) -> None:
    base = codex.rollout(1, size=40_000, ordinal=0)
    head = codex.rollout(1, stamp="2026-11-23T09-00-00", segment=9, base=(thread_id(1), 2, 40_000), size=30_000)
    codex.row(1, head, history_mode="paginated")
    bench.checkpoint(thread_id(1))
    before = visible(codex.path)
    bench.restore(thread_id(1))
    assert visible(codex.path)[base.name] == before[base.name]
    bench.undo()
    assert visible(codex.path) == before


def test_without_the_kept_file_nothing_is_called_undone(bench: Bench, codex: CodexHome) -> None:
    restored = Restored(bench, codex)
    (kept,) = restored.told.data["kept"]  # type: ignore[misc]
    kept.unlink()
    with pytest.raises(Unverified, match="not there any more") as told:
        bench.undo()
    assert told.value.path == kept
    assert f"preflight restore latest {thread_id(1)}" in str(told.value.hint)
    assert restored.rollout.read_bytes() == restored.before
    assert bench.restores().all()[-1].phase is Phase.DONE


def test_one_after_the_other_the_newest_first(bench: Bench, codex: CodexHome) -> None:
    restored = Restored(bench, codex)
    restored.rollout.write_bytes(restored.before + LINE * 5)
    bench.restore(thread_id(1))
    bench.undo()
    assert restored.rollout.read_bytes() == restored.before + LINE * 5
    bench.undo()
    assert restored.rollout.read_bytes() == restored.today
    with pytest.raises(UsageProblem, match="no restore to undo"):
        bench.undo()


def test_a_runtime_that_opens_the_restored_file_in_the_last_moment_keeps_it_and_so_does_the_user_his(
    bench: Bench, codex: CodexHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was to be put back is the only copy there is: it must have its name again, and not be replaced."""
    restored = Restored(bench, codex)
    (kept,) = restored.told.data["kept"]  # type: ignore[misc]
    swap = restore.swap
    with restored.rollout.open("ab") as runtime:
        monkeypatch.setattr("preflight.codex.writers.processes.open_for_writing", lambda _: Answer.NO)

        def opened_meanwhile(record: object) -> None:
            monkeypatch.undo()
            swap(record)  # type: ignore[arg-type]

        monkeypatch.setattr(restore, "swap", opened_meanwhile)
        with pytest.raises(ThreadInUse):
            bench.undo()
        runtime.write(LINE)
    assert restored.rollout.read_bytes() == restored.before + LINE
    assert kept.read_bytes() == restored.today
    assert list(visible(codex.path)) == [restored.rollout.name]
    bench.undo()
    assert restored.rollout.read_bytes() == restored.today
