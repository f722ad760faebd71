"""`checkpoint`: what Codex goes on writing is copied up to a whole line, and nobody is paused for it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from preflight import nightly
from preflight.checkpoint import capture, make
from preflight.checkpoint.manifest import ThreadRecord
from preflight.checkpoint.store import Store
from preflight.codex import boundary
from preflight.codex.rollout import parse_name
from preflight.config import EVERYTHING, Settings
from preflight.errors import Locked, TimeLimitReached, UsageProblem
from preflight.system.deadline import Deadline
from preflight.system.locks import RunLock
from preflight.system.pace import Pace
from tests.fixtures_codex import contents
from tests.nights import Nights, found, nights_in, outcome

KEEPS_WRITING = """
import sys, time
line = b'{"timestamp":"2026-11-22T13:25:08.403Z","type":"event_msg","payload":{"type":"token_count"}}\\n'
with open(sys.argv[1], "ab", buffering=0) as file:
    print("begun", flush=True)
    while True:
        file.write(line[:40])
        file.write(line[40:])
"""


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return nights_in(tmp_path)


def rollout_in(nights: Nights, checkpoint_id: str, thread_id: str) -> Path:
    (path,) = (nights.store.checkpoint_folder(checkpoint_id) / "threads" / thread_id).iterdir()
    return path


def newest(nights: Nights) -> str:
    return nights.store.checkpoints()[-1]


def test_the_goal_thread_is_copied_and_nothing_of_the_home_changes(nights: Nights) -> None:
    before = contents(nights.sample.path)
    result = nights.checkpoint()
    assert (result.exit_code, outcome(result)) == (0, "made")
    assert contents(nights.sample.path) == before

    manifest = nights.store.latest()
    assert manifest is not None
    assert manifest.made_by == "checkpoint"
    assert [(thread.thread_id, thread.goal.status) for thread in manifest.threads] == [
        (nights.sample.large_thread_id, "active")
    ]
    assert manifest.threads[0].verification["history"]["outcome"] == "passed"
    assert manifest.threads[0].has_everything


@pytest.mark.parametrize(("options", "held"), [({}, 1), ({"all_threads": True}, 3)])
def test_which_threads_are_copied(nights: Nights, options: dict[str, bool], held: int) -> None:
    nights.checkpoint(**options)
    assert len(nights.store.latest().threads) == held


def test_large_threads_are_copied_without_a_goal(nights: Nights) -> None:
    nights.settings = Settings(keep_free_bytes=0, warning_bytes=nights.sample.control_rollout.stat().st_size)
    nights.checkpoint()
    held = {thread.thread_id for thread in nights.store.latest().threads}
    assert nights.sample.control_thread_id in held


def test_named_threads_are_copied_alone_and_one_that_is_not_there_is_a_mistake(nights: Nights) -> None:
    nights.checkpoint(nights.sample.control_thread_id.upper())
    assert [thread.thread_id for thread in nights.store.latest().threads] == [nights.sample.control_thread_id]
    with pytest.raises(UsageProblem):
        nights.checkpoint("01a2036e-0000-7000-8000-0123456789ab")


def test_a_goal_thread_whose_rollout_is_gone_is_told_and_no_night_fails_for_it(nights: Nights) -> None:
    nights.sample.large_rollout.unlink()
    result = nights.night()
    assert found(result, "rollout-missing")
    assert (result.exit_code, outcome(result)) == (0, "made")
    assert nights.store.latest().threads == ()
    assert outcome(nights.night()) == "unchanged"
    with_name = nights.checkpoint(nights.sample.large_thread_id)
    assert (with_name.exit_code, len(found(with_name, "checkpoint-failed"))) == (12, 1)


def test_no_home_and_an_empty_one_are_told(nights: Nights, tmp_path: Path) -> None:
    assert found(nights.checkpoint(homes=()), "no-home")
    (tmp_path / "empty").mkdir()
    result = nights.checkpoint(homes=(tmp_path / "empty",))
    assert (result.exit_code, len(found(result, "home-empty"))) == (0, 1)


def test_one_home_that_fails_keeps_no_other_from_its_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nightly, "_LOCK_SECONDS", 0.0)
    first, second = nights_in(tmp_path / "one"), nights_in(tmp_path / "two")
    store = Store.open(first.root, first.home)
    with RunLock(store.folder).acquire(Deadline(0), {"program": "a run"}), pytest.raises(Locked):
        first.night(homes=(first.sample.path, second.sample.path))
    assert Store(first.root, second.home.home_id).checkpoints()
    assert not store.checkpoints()


def test_a_thread_that_somebody_writes_to_is_copied_up_to_a_whole_line(nights: Nights) -> None:
    command = [sys.executable, "-c", KEEPS_WRITING, nights.sample.large_rollout]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout.readline() == b"begun\n"
            for _ in range(3):
                assert nights.checkpoint().exit_code == 0
        finally:
            writer.kill()
    whole = nights.sample.large_rollout.read_bytes()
    for checkpoint_id in nights.store.checkpoints():
        (record,) = nights.store.manifest(checkpoint_id).threads
        source = record.sources[0]
        copy = rollout_in(nights, checkpoint_id, record.thread_id).read_bytes()
        assert copy.endswith(b"\n")
        assert whole[: source.used_bytes].endswith(copy[-5000:])
        assert source.is_archived


def test_nothing_is_written_while_nothing_has_changed(nights: Nights) -> None:
    nights.checkpoint()
    before = contents(nights.root)
    result = nights.checkpoint(if_changed=True)
    assert outcome(result) == "unchanged"
    assert contents(nights.root) == before


@pytest.mark.parametrize("what", ["rollout", "another rollout", "database", "new", "gone", "touched", "selection"])
def test_whatever_has_changed_makes_a_new_one(nights: Nights, what: str) -> None:
    nights.checkpoint()
    options: dict[str, bool] = {}
    if what == "rollout":
        nights.grow()
    elif what == "another rollout":
        nights.grow(nights.sample.control_rollout)
    elif what == "database":
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(nights.sample.goals_db)) as db, db:
            db.execute("UPDATE thread_goals SET tokens_used = tokens_used + 1")
    elif what == "new":
        name = nights.sample.control_rollout.name.replace(
            nights.sample.control_thread_id, nights.sample.large_thread_id
        )
        (nights.sample.control_rollout.parent / name.replace("09-00", "10-00")).write_bytes(b"{}\n")
    elif what == "gone":
        nights.sample.control_rollout.unlink()
    elif what == "touched":
        os.utime(nights.sample.large_rollout)
    else:
        options = {"all_threads": True}
    assert outcome(nights.checkpoint(if_changed=True, **options)) == "made"


def test_looking_at_the_databases_does_not_change_them(nights: Nights) -> None:
    nights.checkpoint()
    nights.check()
    assert outcome(nights.checkpoint(if_changed=True)) == "unchanged"


def test_a_thread_that_nobody_touched_is_taken_over_and_one_that_grew_is_copied(nights: Nights) -> None:
    nights.checkpoint(all_threads=True)
    first = newest(nights)
    nights.grow()
    nights.checkpoint(all_threads=True)
    second = newest(nights)

    same, grown = nights.sample.control_thread_id, nights.sample.large_thread_id
    assert rollout_in(nights, first, same).samefile(rollout_in(nights, second, same))
    assert not rollout_in(nights, first, grown).samefile(rollout_in(nights, second, grown))
    assert nights.store.manifest(second).thread(same).verification["digests"]["outcome"] == "passed"
    assert nights.verify(checkpoint=second).exit_code == 0


def test_a_copy_that_has_been_damaged_is_not_taken_over(nights: Nights) -> None:
    nights.checkpoint()
    thread = nights.sample.large_thread_id
    damaged = rollout_in(nights, newest(nights), thread)
    damaged.chmod(0o600)
    damaged.write_bytes(damaged.read_bytes().replace(b"token", b"tokem", 1))
    assert nights.checkpoint().exit_code == 0
    assert not damaged.samefile(rollout_in(nights, newest(nights), thread))
    assert nights.verify(checkpoint="latest").exit_code == 0


def test_too_little_room_is_told_before_anything_is_copied(nights: Nights) -> None:
    nights.checkpoint()
    nights.grow()
    nights.settings = Settings(keep_free_bytes=10**18)
    result = nights.checkpoint()
    assert (result.exit_code, outcome(result)) == (12, "failed")
    assert found(result, "no-space")
    assert len(nights.store.checkpoints()) == 1


def test_a_time_limit_that_has_come_leaves_no_checkpoint(nights: Nights) -> None:
    with pytest.raises(TimeLimitReached):
        nights.checkpoint(timeout=0.0)
    assert not nights.root.exists()


def test_what_there_was_no_time_for_is_told_and_the_next_call_goes_on_with_the_rest(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = capture._copy_thread

    class Clock(Deadline):
        """Comes once one thread has been copied."""

        __slots__ = ("copied",)

        def remaining(self) -> float:
            return 0.0 if self.copied else 1e9

    clock = Clock(None)
    clock.copied = False

    def copied(*arguments: object) -> object:
        done = real(*arguments)
        clock.copied = True
        return done

    with monkeypatch.context() as patched:
        patched.setattr(capture, "_copy_thread", copied)
        patched.setattr(Deadline, "sub", lambda self, _: clock)
        result = nights.checkpoint(all_threads=True)
    assert (result.exit_code, outcome(result)) == (75, "made")
    assert len(found(result, "checkpoint-unfinished")) == 2
    # The goal thread comes first.
    assert [thread.thread_id for thread in nights.store.latest().threads] == [nights.sample.large_thread_id]

    first = newest(nights)
    assert outcome(nights.checkpoint(all_threads=True, if_changed=True)) == "made"
    assert len(nights.store.latest().threads) == 3
    goal = nights.sample.large_thread_id
    assert rollout_in(nights, first, goal).samefile(rollout_in(nights, newest(nights), goal))


def test_what_was_copied_and_could_not_be_read_back_in_time_is_no_part_of_the_checkpoint(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = make.verify_thread

    def in_time_for_one(folder: Path, record: ThreadRecord, *rest: object) -> object:
        if record.thread_id != nights.sample.large_thread_id:
            raise TimeLimitReached("the time limit came")
        return real(folder, record, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(make, "verify_thread", in_time_for_one)
        result = nights.checkpoint(all_threads=True)
    assert (result.exit_code, len(found(result, "checkpoint-unfinished"))) == (75, 2)
    assert [thread.thread_id for thread in nights.store.latest().threads] == [nights.sample.large_thread_id]
    folder = nights.store.checkpoint_folder(newest(nights))
    assert [path.parent.name for path in folder.rglob("*.jsonl")] == [nights.sample.large_thread_id]
    assert nights.verify(read_part=EVERYTHING).exit_code == 0


def test_finish_compares_with_the_run_before_the_update_and_not_with_the_night_after_it(nights: Nights) -> None:
    nights.run()
    run = newest(nights)
    nights.checkpoint(all_threads=True)
    assert nights.store.last_run().checkpoint_id == run


def test_what_would_be_copied_is_said_and_nothing_is_done(nights: Nights) -> None:
    result = nights.checkpoint(dry_run=True)
    assert result.data == {"would_checkpoint": [nights.sample.large_thread_id]}
    assert not nights.root.exists()


def test_all_that_is_read_is_read_at_the_rate(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(Pace, "took", lambda self, size: taken.append(size) if self._rate else None)
    nights.checkpoint(all_threads=True, max_rate=10**9)
    manifest = nights.store.latest()
    resumed = sum(file.length for file in manifest.files if file.role == "resume-rollout")
    whole = sum(record.size_bytes for record in manifest.threads)
    assert sum(taken) >= 2 * resumed + whole - 3 * 2**20  # copied, read back, archived; told by the MiB
    taken.clear()
    nights.verify(read_part=EVERYTHING, max_rate=10**9)
    assert sum(taken) >= sum(file.length for file in manifest.files)


def test_a_thread_that_takes_too_long_to_look_at_is_archived_all_the_same(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights.settings = Settings(keep_free_bytes=0, warning_bytes=100_000)
    real = boundary.read_tail

    def never_ends(files: boundary.OpenLineage, **how: object) -> object:
        if files.lineage[0].file.thread_id == nights.sample.large_thread_id:
            raise TimeLimitReached("the time limit came")
        return real(files, **how)

    monkeypatch.setattr(boundary, "read_tail", never_ends)
    result = nights.checkpoint(all_threads=True)
    (finding,) = found(result, "checkpoint-unfinished")
    assert (result.exit_code, finding.thread_id) == (75, nights.sample.large_thread_id)
    record = nights.store.latest().thread(nights.sample.large_thread_id)
    assert (record.file, record.has_everything) == (None, True)
    assert len(nights.store.latest().threads) == 3


def test_how_far_it_is_can_be_followed(nights: Nights) -> None:
    nights.checkpoint(all_threads=True)
    copied = [(done, total) for what, done, total in nights.moved if what == "copied"]
    assert copied
    assert copied == sorted(copied)
    assert copied[-1][0] == copied[-1][1]


def test_the_archive_has_every_byte_that_was_used(nights: Nights) -> None:
    nights.checkpoint(all_threads=True)
    nights.grow(by=1000)
    nights.checkpoint(all_threads=True)
    from preflight.checkpoint.archiving import archive_of

    for record in nights.store.latest().threads:
        for source in record.sources:
            target = nights.folder / "out"
            assert source.archive is not None
            with target.open("wb") as file:
                archive = archive_of(nights.store.archive, source.archive.file)
                archive.read(source.archive.file, source.archive.generation, source.used_bytes, file)
            original = source.path.read_bytes()[: source.used_bytes]
            assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(original).digest()
            assert parse_name(source.archive.file).thread_id == record.thread_id


def test_a_rollout_that_was_cut_is_a_finding_and_begins_a_new_archive(nights: Nights) -> None:
    nights.checkpoint()
    rollout = nights.sample.large_rollout
    lines = rollout.read_bytes().splitlines(keepends=True)
    rollout.write_bytes(b"".join(lines[:-3]))
    result = nights.checkpoint()
    (finding,) = found(result, "archive-began-anew")
    assert finding.thread_id == nights.sample.large_thread_id
    assert (result.exit_code, outcome(result)) == (0, "made")
    assert nights.store.latest().threads[0].sources[0].archive.generation == 2
