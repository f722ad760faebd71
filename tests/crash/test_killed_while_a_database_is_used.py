"""Killed at any point, a change to a database is made or not made, and a copy harms nobody."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest

from preflight.system import databases, files
from preflight.system.databases import backup, connect_readonly, quick_check, write_once
from preflight.system.deadline import Deadline
from tests import killing

OLD, NEW = "active", "paused"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    path = folder / "goals_1.sqlite"
    with sqlite3.connect(path, isolation_level=None) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE goal (id INTEGER PRIMARY KEY, status TEXT)")
        db.executemany("INSERT INTO goal VALUES (?, ?)", [(number, OLD) for number in range(500)])
    db.close()
    return path


def statuses(path: Path) -> set[str]:
    with connect_readonly(path, Deadline(5)) as db:
        return {row[0] for row in db.execute("SELECT status FROM goal")}


def test_a_change_is_made_in_all_rows_or_in_none(path: Path) -> None:
    change = [
        ("UPDATE goal SET status = ? WHERE id < 250", (NEW,)),
        ("UPDATE goal SET status = ? WHERE id > 249", (NEW,)),
    ]
    seen = set()
    for _ in killing.at_every_line(lambda: write_once(path, change, Deadline(5)), inside=[databases]):
        (status,) = statuses(path)
        assert quick_check(path) == []
        seen.add(status)
        write_once(path, [("UPDATE goal SET status = ?", (OLD,))], Deadline(5))
    assert seen == {OLD, NEW}


def test_a_copy_that_was_begun_leaves_the_original_as_it_was(path: Path, tmp_path: Path) -> None:
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    copy = tmp_path / "copy.sqlite"
    for _ in killing.at_every_line(lambda: backup(path, copy, Deadline(30)), inside=[databases, files]):
        assert statuses(path) == {OLD}
        assert hashlib.sha256(path.read_bytes()).hexdigest() == before
        for left in tmp_path.glob("copy.sqlite*"):
            left.unlink()
    assert [entry.name for entry in path.parent.glob("*") if not entry.name.endswith(("-shm", "-wal"))] == [path.name]


def test_killed_while_reading_a_database_at_rest_only_empty_helpers_stay(path: Path) -> None:
    """SQLite's own files, which the next one to open the database takes over, or takes away."""
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    for _ in killing.at_every_line(lambda: statuses(path), inside=[databases]):
        log = path.with_name("goals_1.sqlite-wal")
        assert not log.exists() or log.stat().st_size == 0
        assert hashlib.sha256(path.read_bytes()).hexdigest() == before
        with sqlite3.connect(path) as runtime:
            assert runtime.execute("SELECT count(*) FROM goal").fetchone() == (500,)
        runtime.close()
        assert not log.exists()
