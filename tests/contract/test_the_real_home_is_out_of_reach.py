"""A test cannot read or change the Codex home, the store or the settings of whoever runs the suite."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

import pytest

from preflight.checkpoint.store import default_root
from preflight.config import default_file
from tests.guard import PROTECTED, RealHomeTouched


def test_what_a_test_finds_by_itself_lies_in_a_folder_of_its_own(user: Path) -> None:
    assert Path.home() == user
    assert default_file().is_relative_to(user)
    assert default_root(os.environ).is_relative_to(user)
    assert "CODEX_HOME" not in os.environ


@pytest.mark.parametrize("folder", PROTECTED, ids=str)
def test_the_real_folders_cannot_be_read_even_by_their_path(folder: Path) -> None:
    touches = (
        (folder / "auth.json").read_bytes,
        lambda: os.open(folder / "auth.json", os.O_RDONLY),
        lambda: list(folder.iterdir()),
        lambda: list(os.scandir(folder)),
        lambda: sqlite3.connect(f"file:{folder}/state_5.sqlite?mode=ro", uri=True),
    )
    for touch in touches:
        with pytest.raises(RealHomeTouched):
            touch()


@pytest.mark.parametrize("event", ["os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"])
def test_the_real_folders_cannot_be_changed(event: str) -> None:
    # Announced and not done: if the guard were broken, doing it would break what it guards.
    with pytest.raises(RealHomeTouched):
        sys.audit(event, str(PROTECTED[0] / "sessions"))


def test_a_folder_beside_the_real_ones_is_not_meant() -> None:
    beside = PROTECTED[0].with_name(PROTECTED[0].name + "-beside-it")
    with pytest.raises(FileNotFoundError):
        (beside / "auth.json").read_bytes()
