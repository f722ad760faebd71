"""A checkpoint is there when its manifest is, and then it is whole; what was begun is not listed."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from preflight.checkpoint import manifest
from preflight.checkpoint.store import Store
from preflight.model import Home
from preflight.system import files
from tests import killing
from tests.sample_checkpoint import DATABASE, ROLLOUT, sample_manifest


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(path=tmp_path, sqlite_home=tmp_path, home_id="codex-12", state_db=None, goals_db=None, history_db=None)


def make_checkpoint(root: Path, home: Home) -> None:
    """What a run does, with two files of a few bytes."""
    store = Store.open(root, home)
    checkpoint_id, folder = store.new_checkpoint_folder()
    for record, content in zip(sample_manifest().files, (DATABASE, ROLLOUT), strict=True):
        files.private_folder((folder / record.path).parent)
        files.publish(folder / record.path, content)
    manifest.publish(folder, replace(sample_manifest(), checkpoint_id=checkpoint_id))


def test_killed_at_any_point_a_checkpoint_is_whole_or_not_listed(tmp_path: Path, home: Home) -> None:
    root = tmp_path / "store"
    listed = []
    for _ in killing.at_every_file_operation(lambda: make_checkpoint(root, home)):
        store = Store(root, home.home_id)
        ids = store.checkpoints()
        listed.append(len(ids))
        for checkpoint_id in ids:
            for record in store.manifest(checkpoint_id).files:
                path = store.checkpoint_folder(checkpoint_id) / record.path
                assert hashlib.sha256(path.read_bytes()).hexdigest() == record.sha256
        if root.exists():
            shutil.rmtree(root)
    assert listed[0] == 0
    assert listed[-1] == 1


def test_the_next_run_makes_its_own_and_can_sweep_away_what_was_begun(tmp_path: Path, home: Home) -> None:
    root = tmp_path / "store"
    for point in killing.at_every_file_operation(lambda: make_checkpoint(root, home)):
        before = Store(root, home.home_id).checkpoints()
        make_checkpoint(root, home)

        store = Store.open(root, home)
        ids = store.checkpoints()
        assert ids[: len(before)] == before, point
        assert len(ids) == len(before) + 1
        assert store.latest() is not None
        store.remove_unfinished()
        assert store.unfinished() == []
        assert store.checkpoints() == ids
        shutil.rmtree(root)
