"""A thread that goes on from another file and has no compaction becomes one file; that nothing is missing is proved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from preflight import stored
from preflight.checkpoint import make
from preflight.checkpoint.coverage import is_verified
from preflight.checkpoint.manifest import ThreadRecord
from preflight.codex import resume_rollout
from preflight.codex.sample_rollout import RolloutWriter, rollout_path
from preflight.model import HistoryBase
from tests.fixtures_codex import thread_id
from tests.nights import Nights, found, nights_in

FORK = thread_id(7)


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    """The sample home and a fork of a thread without a compaction, in two files."""
    nights = nights_in(tmp_path)
    base = rollout_path(nights.sample.path, thread_id(6))
    with RolloutWriter(base, thread_id(6), paginated=True) as writer:
        for _ in range(3):
            writer.turn("In the base.", outputs=[300])
    cut = HistoryBase(
        file_id=thread_id(6), end_ordinal_exclusive=writer.next_ordinal, end_byte_offset=base.stat().st_size
    )
    with RolloutWriter(rollout_path(nights.sample.path, FORK), FORK, paginated=True, base=cut) as writer:
        writer.turn("In the fork.", outputs=[300])
    return nights


def held(nights: Nights) -> ThreadRecord:
    manifest = nights.store.latest()
    assert manifest is not None
    record = manifest.thread(FORK)
    assert record is not None
    return record


def test_every_record_of_both_files_is_compared(nights: Nights) -> None:
    assert nights.checkpoint(FORK).exit_code == 0
    record = held(nights)
    assert (len(record.sources), record.boundary) == (2, None)
    assert record.verification["history"]["outcome"] == "passed"
    assert record.history.records > 20
    assert is_verified(record)
    (told,) = [one for one in stored.verify(nights.request()).data["files"] if one.get("thread_id") == FORK]
    assert told["history"]["outcome"] == "passed"


def test_a_record_that_was_left_out_is_noticed(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    real = resume_rollout._renumbered

    def without_one(files: object, plan: object) -> object:
        for number, block in enumerate(real(files, plan)):
            if number != 14:
                yield block

    monkeypatch.setattr(resume_rollout, "_renumbered", without_one)
    result = nights.checkpoint(FORK)
    assert result.exit_code == 12
    assert [finding.thread_id for finding in found(result, "checkpoint-unverified")] == [FORK]
    assert not is_verified(held(nights))


def test_one_of_an_older_preflight_that_has_not_compared_them_does_not_count_as_verified(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = make.verify_thread

    def as_it_was(folder: Path, record: ThreadRecord, *rest: object) -> object:
        return real(folder, replace(record, history=None), *rest)

    monkeypatch.setattr(make, "verify_thread", as_it_was)
    nights.checkpoint(FORK)
    assert held(nights).verification["history"]["outcome"] == "not-checked"
    assert not is_verified(held(nights))
