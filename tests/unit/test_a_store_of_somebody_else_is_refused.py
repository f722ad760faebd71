"""Nobody else can change what a checkpoint holds, or put another store in its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preflight.checkpoint.store import Store
from preflight.errors import StoreRefused
from preflight.model import Home
from preflight.system import files
from preflight.system.deadline import Deadline
from preflight.system.locks import RunLock

SOMEBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")


def home_in(folder: Path) -> Home:
    return Home(path=folder, sqlite_home=folder, home_id="home-1234", state_db=None, goals_db=None, history_db=None)


def test_a_folder_of_our_own_serves_directly_and_through_our_link(tmp_path: Path) -> None:
    files.private_folder(tmp_path / "store")
    (tmp_path / "link").symlink_to(tmp_path / "store")

    files.require_private(tmp_path / "store")
    files.require_private(tmp_path / "link")


@pytest.mark.parametrize("mode", [0o770, 0o720, 0o702, 0o707, 0o1777], ids=oct)
def test_a_store_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    store = tmp_path / "store"
    store.mkdir()
    store.chmod(mode)

    with pytest.raises(StoreRefused) as caught:
        Store.open(store, home_in(tmp_path))

    assert caught.value.exit_code == 13
    assert caught.value.path == store
    assert list(store.iterdir()) == []


def test_the_folder_of_one_home_is_looked_at_as_well(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", home_in(tmp_path))
    store.folder.chmod(0o777)

    with pytest.raises(StoreRefused):
        Store.open(tmp_path / "store", home_in(tmp_path))
    with pytest.raises(StoreRefused):
        Store.existing(tmp_path / "store", home_in(tmp_path))
    with pytest.raises(StoreRefused):
        RunLock(store.folder).acquire(Deadline(0), {})


def test_readable_for_others_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o755)

    files.require_private(tmp_path / "store")


def test_a_parent_that_anybody_can_rename_in_is_refused_and_a_sticky_one_is_not(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    files.private_folder(shared / "store")

    shared.chmod(0o777)
    with pytest.raises(StoreRefused) as caught:
        files.require_private(shared / "store")
    assert caught.value.path == shared

    shared.chmod(0o1777)
    files.require_private(shared / "store")


def test_a_file_in_the_place_of_the_store_and_a_link_to_nowhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")

    for path in (tmp_path / "file", tmp_path / "link", tmp_path / "circle", tmp_path / "missing"):
        with pytest.raises(StoreRefused):
            files.require_private(path)


@as_root
def test_a_store_of_somebody_else_is_refused(tmp_path: Path) -> None:
    files.private_folder(tmp_path / "store")
    os.chown(tmp_path / "store", SOMEBODY, SOMEBODY)

    with pytest.raises(StoreRefused):
        files.require_private(tmp_path / "store")


@as_root
def test_a_link_of_somebody_else_is_refused_even_when_it_leads_to_our_own_folder(tmp_path: Path) -> None:
    files.private_folder(tmp_path / "store")
    (tmp_path / "link").symlink_to(tmp_path / "store")
    os.chown(tmp_path / "link", SOMEBODY, SOMEBODY, follow_symlinks=False)

    with pytest.raises(StoreRefused):
        files.require_private(tmp_path / "link")


@as_root
def test_our_link_to_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    files.private_folder(tmp_path / "theirs")
    os.chown(tmp_path / "theirs", SOMEBODY, SOMEBODY)
    (tmp_path / "link").symlink_to(tmp_path / "theirs")

    with pytest.raises(StoreRefused):
        Store.open(tmp_path / "link", home_in(tmp_path))
