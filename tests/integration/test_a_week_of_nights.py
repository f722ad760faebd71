"""The nightly task reads the store back in turns, heals what is damaged, prunes, and says when it was last good."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from preflight.checkpoint import nights as record
from preflight.checkpoint import rereading
from preflight.checkpoint.archiving import Archiving, Proof, archive_threads
from preflight.checkpoint.nights import Nights as Remembered
from preflight.checkpoint.rereading import Reading, Reread
from preflight.config import EVERYTHING, Part, Settings
from preflight.model import Severity
from preflight.system.deadline import Deadline
from tests.nights import Nights, found, nights_in, outcome


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return nights_in(tmp_path)


def remembered(nights: Nights) -> Remembered:
    known = record.load(nights.store.nights)
    assert known is not None
    return known


def damage(path: Path, offset: int = 20) -> None:
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def read_back(nights: Nights, seconds: float | None = None) -> Reread:
    how = Reading(how_much=EVERYTHING, deadline=Deadline(seconds), moved=lambda *_: None, program="a test")
    return rereading.read_back(nights.store, how)


def archive_file(nights: Nights, thread_id: str) -> Path:
    (path,) = (nights.store.archive / thread_id).glob("*.jsonl.zst")
    return path


def all_files(nights: Nights) -> set[Path]:
    """Every file that the nights must read back once a week."""
    files = {path for path in nights.store.folder.rglob("*") if path.is_file() and path.stem != "manifest"}
    return {path for path in files if path.parent != nights.store.folder and ".frames." not in path.name}


def test_a_night_is_remembered_and_check_says_when_it_was(nights: Nights) -> None:
    assert nights.check().data["homes"][0].last_good_night is None
    assert not found(nights.check(), "schedule-stale")
    result = nights.night()
    assert (result.exit_code, outcome(result)) == (0, "made")
    assert outcome(nights.night()) == "unchanged"

    known = remembered(nights)
    assert known.last_good_at == known.last_at
    assert known.checkpoint_id == nights.store.checkpoints()[-1]
    assert nights.check().data["homes"][0].last_good_night == known.last_good_at


def test_nights_that_have_stopped_are_a_finding(nights: Nights) -> None:
    nights.night()
    long_ago = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    record.save(nights.store.nights, replace(remembered(nights), last_at=long_ago, last_good_at=long_ago))
    (finding,) = found(nights.check(), "schedule-stale")
    assert (finding.severity, finding.expected) == (Severity.WARN, 48 * 3600)
    assert int(str(finding.measured)) >= 3 * 86400
    nights.night()
    assert not found(nights.check(), "schedule-stale")


def test_a_home_that_rests_does_not_make_its_checkpoint_stale(nights: Nights) -> None:
    nights.night()
    nights.settings = Settings(keep_free_bytes=0, checkpoint_max_age_seconds=0.5)
    assert {"checkpoint-stale", "schedule-stale"} & {f.finding_id for f in late(nights).findings}
    nights.settings = Settings(keep_free_bytes=0)
    nights.night()
    assert not found(nights.check(), "checkpoint-stale")


def late(nights: Nights):
    """`check`, when the limit of half a second has passed."""
    while True:
        result = nights.check()
        if found(result, "schedule-stale"):
            return result


def test_a_night_without_room_is_not_good_and_removes_nothing(nights: Nights) -> None:
    for _ in range(3):
        nights.grow()
        nights.checkpoint()
    nights.grow()
    nights.settings = Settings(keep_free_bytes=10**18, keep_last=1, keep_daily=0, keep_weekly=0, keep_within_seconds=0)
    result = nights.night()
    assert result.exit_code == 12
    assert len(nights.store.checkpoints()) == 3
    known = remembered(nights)
    assert known.last_at is not None
    assert known.last_good_at is None
    (finding,) = found(nights.check(), "schedule-stale")
    assert finding.measured is None


def test_a_night_prunes_by_the_policy_of_the_settings(nights: Nights) -> None:
    nights.settings = Settings(keep_free_bytes=0, keep_last=2, keep_daily=0, keep_weekly=0, keep_within_seconds=0)
    made = []
    for _ in range(4):
        nights.grow()
        nights.night()
        made.append(nights.store.checkpoints()[-1])
    assert nights.store.checkpoints() == made[-2:]


def test_seven_nights_read_everything_back(nights: Nights) -> None:
    nights.checkpoint(all_threads=True)
    nights.grow()
    nights.checkpoint(all_threads=True)
    pieces = 0
    for _ in range(7):
        result = nights.checkpoint(if_changed=True, all_threads=True, nightly=True)
        (told,) = result.data["read_back"]
        pieces += told["pieces"]
    everything = read_back(nights)
    # The stretches are rounded up, so the seventh may reach a little into what the first one read.
    assert pieces >= everything.pieces


def test_each_damaged_file_is_found_within_a_week(nights: Nights) -> None:
    nights.checkpoint(all_threads=True)
    for path in all_files(nights):
        original = path.read_bytes()
        damage(path, len(original) // 2)
        results = [nights.verify(read_part=Part(1, 7)) for _ in range(7)]
        damaged = [finding for result in results for finding in found(result, "store-damaged")]
        assert damaged, path
        path.write_bytes(original)


def test_damage_in_an_archive_names_the_frame_and_the_bytes_and_is_healed_by_the_next_night(nights: Nights) -> None:
    nights.night()
    thread = nights.sample.large_thread_id
    damage(archive_file(nights, thread), 100)
    result = nights.verify(read_part=EVERYTHING)
    (finding,) = found(result, "store-damaged")
    assert result.exit_code == 12
    assert finding.thread_id == thread
    assert finding.cause.startswith("frame 0 of the archive is damaged")
    assert f"bytes 0 to {nights.sample.large_rollout.stat().st_size:,} of the rollout" in finding.cause

    assert outcome(nights.night()) == "made"  # although the rollout has not changed
    latest = nights.store.latest()
    assert latest is not None
    assert latest.threads[0].sources[0].archive.generation == 2
    assert latest.threads[0].has_everything
    nights.checkpoint()
    nights.prune(keep_last=1)
    assert not found(nights.verify(read_part=EVERYTHING), "store-damaged")


def test_damage_in_a_checkpoint_is_healed_by_the_next_night(nights: Nights) -> None:
    nights.night()
    (damaged,) = (nights.store.checkpoint_folder(nights.store.checkpoints()[-1]) / "threads").rglob("*.jsonl")
    damage(damaged)
    assert found(nights.verify(read_part=EVERYTHING), "store-damaged")
    assert outcome(nights.night()) == "made"
    assert nights.verify().exit_code == 0


def test_an_archive_that_somebody_removed_is_found_and_made_anew(nights: Nights) -> None:
    nights.night()
    for path in (nights.store.archive / nights.sample.large_thread_id).iterdir():
        path.unlink()
    assert found(nights.verify(read_part=Part(1, 100)), "store-damaged")
    assert outcome(nights.night()) == "made"
    assert nights.store.latest().threads[0].has_everything


def test_a_reading_that_is_cut_short_goes_on_where_it_stopped(nights: Nights) -> None:
    nights.checkpoint(all_threads=True)
    whole = read_back(nights)
    first = read_back(nights, 0)
    assert (first.pieces, first.complete) == (0, False)
    again = read_back(nights)
    assert (again.pieces, again.complete) == (whole.pieces, True)


def test_an_archive_without_time_is_told_and_goes_on_the_next_time(nights: Nights) -> None:
    nights.run(archive="never")
    manifest = nights.store.latest()
    assert manifest is not None
    assert manifest.threads[0].sources[0].archive is None

    def archived(seconds: float | None, unfinished: Severity | None):
        how = Archiving(
            folder=nights.store.archive,
            prove=Proof.SAMPLED,
            failed=Severity.BLOCK,
            unfinished=unfinished,
            keep_free_bytes=0,
            deadline=Deadline(seconds),
            max_rate=None,
            damaged=frozenset(),
            progress=lambda _: None,
            moved=lambda *_: None,
        )
        return archive_threads(manifest.threads, how)

    late = archived(0, Severity.WARN)
    assert [finding.finding_id for finding in late.findings] == ["archive-incomplete"]
    assert archived(0, None).not_done
    done = archived(None, Severity.WARN)
    assert (done.findings, done.not_done) == ((), ())
    assert done.records[0].has_everything


@pytest.mark.parametrize(("archive", "code"), [("always", 12), ("auto", 0)])
def test_only_always_lets_the_verdict_of_a_run_depend_on_the_archive(nights: Nights, archive: str, code: int) -> None:
    # A file in the place of the folder: the archive cannot be written, whatever else can.
    nights.checkpoint(nights.sample.control_thread_id)
    place = nights.store.archive / nights.sample.large_thread_id
    place.write_bytes(b"")
    result = nights.run(archive=archive)
    assert found(result, "archive-failed")
    assert result.exit_code == (code or 3)
    assert nights.store.latest().threads[0].verification["digests"]["outcome"] == "passed"


def test_a_run_archives_what_it_copied(nights: Nights) -> None:
    nights.run()
    assert nights.store.latest().threads[0].has_everything
