"""A long thread without a compaction has nothing that could be left out: at night it is archived, and not copied."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

import pytest

from preflight import stored
from preflight.checkpoint.archiving import archive_of
from preflight.checkpoint.manifest import ThreadRecord
from preflight.config import EVERYTHING, Settings
from preflight.system import files
from tests.nights import Nights, found, nights_in, outcome

#: Every rollout of the sample home is longer, and only that of the goal thread has compactions.
SHORTER_THAN_ALL = 1000


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    nights = nights_in(tmp_path)
    nights.settings = Settings(keep_free_bytes=0, warning_bytes=SHORTER_THAN_ALL)
    return nights


def alone(nights: Nights) -> ThreadRecord:
    manifest = nights.store.latest()
    assert manifest is not None
    record = manifest.thread(nights.sample.control_thread_id)
    assert record is not None
    return record


def archived(nights: Nights, record: ThreadRecord) -> bytes:
    (source,) = record.sources
    assert source.archive is not None
    out = BytesIO()
    archive = archive_of(nights.store.archive, source.archive.file)
    archive.read(source.archive.file, source.archive.generation, source.used_bytes, out)
    return out.getvalue()


def test_it_is_archived_and_read_back_and_no_second_time_copied(nights: Nights) -> None:
    assert nights.checkpoint().exit_code == 0
    record = alone(nights)
    assert (record.file, record.whole, record.boundary) == (None, False, None)
    assert record.verification["digests"]["outcome"] == "passed"
    assert record.has_everything
    assert archived(nights, record) == nights.sample.control_rollout.read_bytes()[: record.sources[0].used_bytes]
    folder = nights.store.checkpoint_folder(nights.store.checkpoints()[-1])
    assert not (folder / "threads" / record.thread_id).exists()
    # The one with compactions is copied as ever.
    assert (folder / "threads" / nights.sample.large_thread_id).exists()
    assert nights.verify(read_part=EVERYTHING).exit_code == 0


def test_nothing_is_written_while_it_has_not_changed_and_the_next_night_reads_what_is_new(nights: Nights) -> None:
    nights.checkpoint()
    assert outcome(nights.checkpoint(if_changed=True)) == "unchanged"
    nights.grow(nights.sample.control_rollout, by=50)
    assert outcome(nights.checkpoint(if_changed=True)) == "made"
    assert alone(nights).has_everything
    nights.checkpoint()
    assert alone(nights).verification["digests"]["frames"] == 0  # read back by the one before


def test_a_run_copies_it_all_the_same(nights: Nights) -> None:
    nights.checkpoint()
    nights.run(threads=(nights.sample.control_thread_id,))
    assert alone(nights).whole
    assert nights.verify().exit_code == 0


def test_one_that_is_short_is_copied(nights: Nights) -> None:
    nights.settings = Settings(keep_free_bytes=0)
    nights.checkpoint(nights.sample.control_thread_id)
    assert alone(nights).whole


def test_damage_in_its_archive_is_found_and_healed(nights: Nights) -> None:
    nights.checkpoint()
    (path,) = (nights.store.archive / nights.sample.control_thread_id).glob("*.zst")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    result = nights.verify()
    (finding,) = found(result, "checkpoint-unverified")
    assert (result.exit_code, finding.thread_id) == (12, nights.sample.control_thread_id)
    assert "frame 0 of the archive is damaged" in finding.cause
    assert found(nights.verify(read_part=EVERYTHING), "store-damaged")
    assert nights.checkpoint().exit_code == 0
    assert nights.verify().exit_code == 0
    assert alone(nights).sources[0].archive.generation == 2


def test_what_is_shown_says_where_it_is(nights: Nights) -> None:
    nights.checkpoint()
    data = stored.show(nights.request(checkpoint="latest")).data
    (shown,) = [one for one in data["threads_held"] if one["thread_id"] == nights.sample.control_thread_id]
    assert (shown["file"], shown["resume_bytes"]) == (None, None)
    assert shown["archived_bytes"] == alone(nights).sources[0].used_bytes


def test_the_checkpoint_that_has_the_only_archive_of_it_stays(nights: Nights) -> None:
    nights.checkpoint()
    first = nights.store.checkpoints()[0]
    nights.checkpoint(nights.sample.large_thread_id)
    nights.prune(keep_last=1)
    assert first in nights.store.checkpoints()
    digest = hashlib.sha256(archived(nights, nights.store.manifest(first).thread(nights.sample.control_thread_id)))
    used = nights.store.manifest(first).thread(nights.sample.control_thread_id).sources[0].used_bytes
    assert digest.digest() == hashlib.sha256(nights.sample.control_rollout.read_bytes()[:used]).digest()


def test_a_copy_for_which_there_is_no_room_keeps_no_other_thread_from_being_copied(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights.settings = Settings(keep_free_bytes=0)
    databases = sum(path.stat().st_size for path in nights.sample.path.glob("*.sqlite*"))
    room = databases + nights.sample.control_rollout.stat().st_size * 3
    monkeypatch.setattr(files, "free_bytes", lambda _: room)
    result = nights.checkpoint(all_threads=True)
    (finding,) = found(result, "no-space")
    assert (result.exit_code, outcome(result)) == (12, "made")
    assert finding.thread_id == nights.sample.large_thread_id
    manifest = nights.store.latest()
    held = {record.thread_id: record.file is not None for record in manifest.threads}
    assert held.pop(nights.sample.large_thread_id) is False
    assert set(held.values()) == {True}
    assert manifest.thread(nights.sample.large_thread_id).has_everything
