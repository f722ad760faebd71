"""Which checkpoints there are, and where everything lies."""

from __future__ import annotations

import re
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from preflight.checkpoint import manifest
from preflight.checkpoint import store as store_module
from preflight.checkpoint.store import Store, default_root
from preflight.errors import ConfigProblem, DamagedFile, UsageProblem
from preflight.model import Home
from tests.sample_checkpoint import sample_manifest


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(
        path=tmp_path / "codex",
        sqlite_home=tmp_path / "codex",
        home_id="codex-12",
        state_db=None,
        goals_db=None,
        history_db=None,
    )


@pytest.fixture
def store(tmp_path: Path, home: Home) -> Store:
    return Store.open(tmp_path / "state" / "codex-preflight", home)


def finish(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"{}")


def test_opening_makes_a_private_place_that_explains_itself(store: Store, tmp_path: Path, home: Home) -> None:
    for folder in (store.root, store.folder, store.folder / "checkpoints", store.reports):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((store.folder / "README").stat().st_mode) == 0o600
    assert b"manifest.json" in (store.folder / "README").read_bytes()
    assert store.lock == store.folder / "run.lock"
    assert store.journal == store.folder / "journal.jsonl"

    before = (store.folder / "README").stat().st_mtime_ns
    Store.open(store.root, home)
    assert (store.folder / "README").stat().st_mtime_ns == before


def test_looking_makes_nothing(tmp_path: Path, home: Home) -> None:
    assert Store.existing(tmp_path / "store", home) is None
    assert not (tmp_path / "store").exists()

    Store.open(tmp_path / "store", home)
    found = Store.existing(tmp_path / "store", home)
    assert found is not None
    assert found.checkpoints() == []
    assert found.latest() is None


def test_a_folder_without_a_manifest_is_no_checkpoint(store: Store) -> None:
    first, folder = store.new_checkpoint_folder()
    finish(folder)
    _, abandoned = store.new_checkpoint_folder()
    third, folder = store.new_checkpoint_folder()
    finish(folder)
    (store.folder / "checkpoints" / "notes").mkdir()

    assert store.checkpoints() == [first, third]
    assert store.unfinished() == [abandoned]


def test_what_a_killed_run_left_can_be_swept_away(store: Store) -> None:
    finished, folder = store.new_checkpoint_folder()
    finish(folder)
    _, abandoned = store.new_checkpoint_folder()
    (abandoned / "threads").mkdir()
    (abandoned / "threads" / "rollout.jsonl").write_bytes(b"half of a l")
    (store.reports / ".r.json.0a1b2c3d.preflight-tmp").touch()

    assert store.unfinished() == [abandoned]
    store.remove_unfinished()

    assert store.unfinished() == []
    assert store.checkpoints() == [finished]
    assert list(store.reports.iterdir()) == []
    assert (store.folder / "README").exists()


def test_ids_sort_by_time_even_in_one_second_and_when_the_clock_is_set_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [store.new_checkpoint_folder()[0] for _ in range(3)]

    class EarlierClock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> EarlierClock:
            return cls(2020, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(store_module, "datetime", EarlierClock)
    made.append(store.new_checkpoint_folder()[0])

    assert made == sorted(made)
    assert len(set(made)) == 4
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", one) for one in made)


def test_a_checkpoint_is_read_by_its_id(store: Store) -> None:
    checkpoint_id, folder = store.new_checkpoint_folder()
    written = replace(sample_manifest(), checkpoint_id=checkpoint_id, files=(), databases=(), threads=())
    manifest.publish(folder, written)

    assert store.manifest(checkpoint_id) == written
    assert store.latest() == written
    assert store.checkpoint_folder(checkpoint_id) == folder


def test_a_broken_manifest_is_told_and_not_passed_over(store: Store) -> None:
    checkpoint_id, folder = store.new_checkpoint_folder()
    finish(folder)

    with pytest.raises(DamagedFile):
        store.manifest(checkpoint_id)
    with pytest.raises(DamagedFile):
        store.latest()


@pytest.mark.parametrize("checkpoint_id", ["", "latest", "../../etc", "20261122T120000Z-0a1b2c/..", "20261122T120000Z"])
def test_what_is_no_id_is_a_mistake_of_the_call(store: Store, checkpoint_id: str) -> None:
    with pytest.raises(UsageProblem):
        store.manifest(checkpoint_id)


def test_a_checkpoint_that_is_not_there_is_a_mistake_of_the_call(store: Store) -> None:
    with pytest.raises(UsageProblem):
        store.manifest("20261122T120000Z-0a1b2c")


def test_the_store_lies_where_it_is_told_to_or_in_the_state_folder(user: Path, tmp_path: Path) -> None:
    assert default_root({"PREFLIGHT_STORE": str(tmp_path)}) == tmp_path
    assert default_root({"PREFLIGHT_STORE": "~/store"}) == user / "store"
    assert default_root({}).is_relative_to(user)
    assert default_root({}).name == "codex-preflight"
    with pytest.raises(ConfigProblem):
        default_root({"PREFLIGHT_STORE": "~nobody-of-this-name/store"})
