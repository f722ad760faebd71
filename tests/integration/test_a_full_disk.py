"""A disk that is really full: a small one in memory, in a mount namespace of its own."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.small_disk import on_a_small_disk

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mount namespaces are Linux's")

FILL_IT = """
import json, os, sys
from pathlib import Path
from preflight.errors import NoSpace
from preflight.system import databases, files
from preflight.system.deadline import Deadline

disk, database = Path(sys.argv[1]), Path(sys.argv[2])
told = {}

def tried(name, work):
    try:
        work()
    except NoSpace as error:
        told[name] = [error.needed_bytes, str(error.path), sorted(os.listdir(disk))]
    else:
        told[name] = "it fitted"

def copied():
    with open(database, "rb") as source, files.publishing(disk / "copied", needed_bytes=700_000) as target:
        files.copy_range(source.fileno(), target.fileno(), 0, os.path.getsize(database))

files.publish(disk / "kept", b"old")
tried("replaced", lambda: files.publish(disk / "kept", bytes(700_000)))
tried("copied", copied)
tried("backup", lambda: databases.backup(database, disk / "copy.sqlite", Deadline(30)))
with open(disk / "filler", "wb", buffering=0) as filler:
    try:
        while filler.write(bytes(4096)) == 4096:
            pass
    except OSError:
        pass
(disk / "journal").touch()
tried("appended", lambda: files.append_line(disk / "journal", b"line\\n"))
told["kept"] = (disk / "kept").read_text()
told["journal"] = (disk / "journal").read_text()
print(json.dumps(told))
"""


def test_everything_that_does_not_fit_is_told_and_leaves_what_was_there(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    database = tmp_path / "goals_1.sqlite"
    with sqlite3.connect(database) as db:
        db.execute("CREATE TABLE t (x)")
        db.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 600)
    db.close()
    size = database.stat().st_size

    told = json.loads(on_a_small_disk(disk, "300k", FILL_IT, disk, database))

    assert told["replaced"] == [700_000, str(disk / "kept"), ["kept"]]
    assert told["copied"] == [size, str(disk / "copied"), ["kept"]]
    assert told["backup"] == [size, str(disk / "copy.sqlite"), ["kept"]]
    assert told["appended"] == [5, str(disk / "journal"), ["filler", "journal", "kept"]]
    assert told["kept"] == "old"
    assert told["journal"] == ""
