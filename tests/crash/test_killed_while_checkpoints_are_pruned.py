"""Killed anywhere in a prune: what a checkpoint that stays needs is there, and the next prune ends the work."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from preflight import pruning
from preflight.checkpoint.retention import Policy
from preflight.checkpoint.store import Store
from preflight.config import EVERYTHING
from preflight.system.deadline import Deadline
from tests import killing
from tests.nights import Nights, nights_in

RULES = Policy(keep_last=1)


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    """Two checkpoints, of which one goes and takes an archive generation with it; a file that both share."""
    nights = nights_in(tmp_path, large_bytes=150_000)
    nights.checkpoint(all_threads=True)
    rollout = nights.sample.large_rollout
    rollout.write_bytes(b"".join(rollout.read_bytes().splitlines(keepends=True)[:-3]))
    nights.checkpoint(all_threads=True)
    return nights


def prune(store: Store) -> None:
    """What the verb does under the lock."""
    store.remove_unfinished()
    pruned = pruning.prune_store(store, RULES, None, Deadline(None), lambda _: None, dry_run=False)
    assert pruned.findings == ()


def test_killed_at_any_point(nights: Nights, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(nights.root, whole)
    stays = nights.store.checkpoints()[-1]
    points = 0
    for point in killing.at_every_file_operation(lambda: prune(nights.store)):
        points = point
        assert stays in nights.store.checkpoints()
        left = nights.verify(read_part=EVERYTHING)
        assert left.exit_code == 0, left.findings

        prune(nights.store)
        assert nights.store.checkpoints() == [stays]
        assert nights.store.unfinished() == []
        assert len(list((nights.store.archive / nights.sample.large_thread_id).glob("*.zst"))) == 1
        assert nights.verify(read_part=EVERYTHING).exit_code == 0
        shutil.rmtree(nights.root)
        shutil.copytree(whole, nights.root)
    assert points > 5
