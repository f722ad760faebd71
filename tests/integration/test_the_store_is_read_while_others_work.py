"""Reading the store back takes hours and no lock: a run goes on beside it, and what is pruned then is no damage."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from preflight import pruning
from preflight.checkpoint import nights as record
from preflight.checkpoint import pieces, rereading
from preflight.checkpoint.archive import Archive
from preflight.checkpoint.retention import Policy
from preflight.checkpoint.store import Store
from preflight.config import EVERYTHING, Part, Settings
from preflight.errors import TimeLimitReached
from preflight.model import Finding
from preflight.system.deadline import Deadline
from preflight.system.locks import RunLock
from tests.nights import Nights, found, nights_in


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    nights = nights_in(tmp_path)
    for _ in range(3):
        nights.grow()
        nights.checkpoint()
    return nights


def read_slowly(nights: Nights, *words: str) -> subprocess.Popen[bytes]:
    """A real process that reads the store back, so slowly that it is still at it when the test is over."""
    command = [sys.executable, "-m", "preflight", *words, "--json", "--max-rate", "1 B"]
    command += ["--home", os.fspath(nights.sample.path), "--store", os.fspath(nights.root)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"PREFLIGHT_STORE_KEEP_FREE": "0 B"})


@pytest.mark.parametrize("words", [("verify", "--read-data"), ("checkpoint", "--nightly", "--if-changed")])
def test_a_run_is_not_refused_while_the_store_is_read_back(nights: Nights, words: tuple[str, ...]) -> None:
    noted = record.recall(nights.store.nights)
    reader = read_slowly(nights, *words)
    try:
        if words[0] == "checkpoint":
            # From then on it reads: the night is noted when all is written.
            while record.recall(nights.store.nights) == noted:
                assert reader.poll() is None
        result = nights.run()  # raises Locked where it would exit with 11
        assert result.exit_code == 0
        assert reader.poll() is None, "it was to be at work all the while"
    finally:
        reader.kill()
        reader.wait()


def test_what_is_pruned_while_it_is_read_is_no_damage(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    before = nights.store.checkpoints()
    once(monkeypatch, lambda: nights.prune(keep_last=1))
    result = nights.verify(read_part=EVERYTHING)
    assert (result.exit_code, result.findings) == (0, ())
    assert nights.store.checkpoints() == before[-1:]


def test_a_file_that_lost_one_of_its_names_is_read_under_the_other(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights.checkpoint()  # shares the rollout with the one before it
    once(monkeypatch, lambda: nights.prune(keep_last=1))
    assert nights.verify(read_part=EVERYTHING).findings == ()
    (rollout,) = (nights.store.checkpoint_folder(nights.store.checkpoints()[-1]) / "threads").rglob("*.jsonl")
    rollout.chmod(0o600)
    rollout.write_bytes(rollout.read_bytes().replace(b"token", b"tokem", 1))
    assert found(nights.verify(read_part=EVERYTHING), "store-damaged")


def test_frames_that_are_taken_in_while_they_are_read_are_no_damage(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grow() -> None:
        nights.grow(by=100)
        nights.checkpoint()

    once(monkeypatch, grow)
    assert nights.verify(read_part=EVERYTHING).findings == ()


def test_an_archive_that_goes_while_it_is_read_is_no_damage(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = nights.sample.large_rollout
    rollout.write_bytes(b"".join(rollout.read_bytes().splitlines(keepends=True)[:-3]))
    nights.checkpoint()
    once(monkeypatch, lambda: nights.prune(keep_last=1))
    result = nights.verify(read_part=EVERYTHING)
    assert (result.exit_code, result.findings) == (0, ())
    (archive,) = (nights.store.archive / nights.sample.large_thread_id).glob("*.zst")
    assert ".g2." in archive.name


def test_a_frame_that_only_looked_damaged_is_read_again_when_nobody_else_is_at_work(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Archive.verify, []

    def torn_the_first_time(self: Archive, *arguments: object, **options: object) -> object:
        calls.append(arguments)
        found = real(self, *arguments, **options)
        if len(calls) > 1:
            return found
        frame = self.state(*arguments[:2]).frames[0]
        damage = pieces.FrameDamage(
            frame=0, raw_offset=0, raw_length=frame.raw_length, stored_offset=0, stored_length=1, cause="torn"
        )
        return type(found)(checked=(0,), checked_raw_bytes=1, damage=(damage,), whole=(), complete=True)

    monkeypatch.setattr(Archive, "verify", torn_the_first_time)
    assert nights.verify(read_part=EVERYTHING).findings == ()
    assert len(calls) > 1


def test_when_another_preflight_never_ends_the_result_is_told_all_the_same(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rereading, "_LOCK_SECONDS", 0.0)
    (archive,) = (nights.store.archive / nights.sample.large_thread_id).glob("*.zst")
    data = bytearray(archive.read_bytes())
    data[100] ^= 1
    archive.chmod(0o600)
    archive.write_bytes(data)
    with RunLock(nights.store.folder).acquire(Deadline(0), {"program": "preflight checkpoint"}):
        result = nights.verify(read_part=EVERYTHING)
    assert (result.exit_code, len(found(result, "store-damaged"))) == (12, 1)
    assert any("another preflight" in gap for gap in result.not_checked)
    assert record.recall(nights.store.nights).damaged_archives == ()


def test_what_there_was_no_time_to_read_is_not_called_verified(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pieces.look

    def and_the_time_is_over(store: Store) -> pieces.Found:
        everything = real(store)
        for piece in everything.pieces:
            piece.read = late
        return everything

    def late(seen: pieces.Seen) -> Finding | None:
        raise TimeLimitReached("the time limit came")

    monkeypatch.setattr(rereading, "look", and_the_time_is_over)
    result = nights.verify(read_part=EVERYTHING)
    assert (result.exit_code, result.data["read_back"][0]["complete"]) == (75, False)
    assert any("time limit" in gap for gap in result.not_checked)


def test_a_manifest_that_was_changed_is_damage_and_is_found_within_a_week(nights: Nights) -> None:
    path = nights.store.checkpoint_folder(nights.store.checkpoints()[0]) / "manifest.json"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b'"objective":"', b'"objective":"X'))
    week = [nights.verify(read_part=Part(1, 7)) for _ in range(7)]
    (finding,) = [one for result in week for one in found(result, "store-damaged")]
    assert finding.path == path
    assert "the manifest is not what was written" in finding.cause
    assert sorted(result.exit_code for result in week) == [0] * 6 + [12]


def test_pieces_that_stay_for_a_week_are_read_in_it_while_the_store_grows_and_is_pruned(tmp_path: Path) -> None:
    nights = nights_in(tmp_path)
    nights.settings = Settings(keep_free_bytes=0, keep_last=3, keep_daily=0, keep_weekly=0, keep_within_seconds=0)
    read: list[set[tuple[object, ...]]] = []
    there: list[set[tuple[object, ...]]] = []
    for night in range(16):
        nights.grow(by=40 * night + 1)
        if night % 5 == 0:
            nights.checkpoint(all_threads=True)
        nights.checkpoint()
        pruning.prune(nights.request(), Policy(keep_last=3))
        tonight, names = spied(nights.store)
        there.append(names)
        read.append(tonight)
    for night in range(7, 16):
        week = range(night - 6, night + 1)
        stayed = set.intersection(*(there[one] for one in week))
        assert stayed
        assert stayed <= set.union(*(read[one] for one in week))


def spied(store: Store) -> tuple[set[tuple[object, ...]], set[tuple[object, ...]]]:
    """Read a seventh back; which pieces were read, and which there were."""
    read: set[tuple[object, ...]] = set()
    there: set[tuple[object, ...]] = set()
    real = pieces.look

    def watched(store: Store) -> pieces.Found:
        all_of_it = real(store)
        for piece in all_of_it.pieces:
            name = (piece.point, piece.length)
            there.add(name)
            piece.read = noted(piece.read, read, name)
        return all_of_it

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rereading, "look", watched)
        how = rereading.Reading(
            how_much=Part(1, 7), deadline=Deadline(None), moved=lambda *_: None, program="preflight verify"
        )
        assert rereading.read_back(store, how).findings == ()
    return read, there


def noted(
    real: Callable[[pieces.Seen], Finding | None], read: set[tuple[object, ...]], name: tuple[object, ...]
) -> Callable[[pieces.Seen], Finding | None]:
    def reading(seen: pieces.Seen) -> Finding | None:
        read.add(name)
        return real(seen)

    return reading


def once(monkeypatch: pytest.MonkeyPatch, deed: Callable[[], object]) -> None:
    """`deed` happens when everything that there is to read has been listed, and nothing of it has been read."""
    real = pieces.look

    def listed(store: Store) -> pieces.Found:
        everything = real(store)
        deed()
        return everything

    monkeypatch.setattr(rereading, "look", listed)
