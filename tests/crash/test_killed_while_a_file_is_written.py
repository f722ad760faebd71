"""Killed at any line, a file of ours is the old one or the new one, and the next try succeeds."""

from __future__ import annotations

import stat
from pathlib import Path

from preflight.system import files
from tests import killing

OLD, NEW = b"old" * 1000, b"new" * 2000


def leftovers(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.name.endswith(files.TEMPORARY_SUFFIX)]


def test_replacing_a_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    seen = set()
    for _ in killing.at_every_line(lambda: files.publish(path, NEW), inside=[files]):
        if path.exists():
            seen.add(path.read_bytes())
        others = [entry for entry in tmp_path.iterdir() if entry != path]
        assert others == leftovers(tmp_path)
        for entry in tmp_path.iterdir():
            assert stat.S_IMODE(entry.stat().st_mode) == 0o600
            entry.unlink()
        files.publish(path, OLD)
    assert seen == {OLD, NEW}


def test_publishing_under_a_free_name(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    ends = []
    for _ in killing.at_every_line(lambda: files.publish(path, NEW, replace=False), inside=[files]):
        ends.append(path.exists())
        if path.exists():
            assert path.read_bytes() == NEW
            path.unlink()
        for entry in leftovers(tmp_path):
            entry.unlink()
    assert ends[0] is False
    assert ends[-1] is True
    assert ends == sorted(ends)


def test_making_private_folders(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    for _ in killing.at_every_line(lambda: files.private_folder(deep), inside=[files]):
        files.private_folder(deep)
        for folder in (deep, deep.parent, deep.parent.parent):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            folder.rmdir()


def test_appending_a_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    files.append_line(path, b"first\n")
    for _ in killing.at_every_line(lambda: files.append_line(path, b"second\n"), inside=[files]):
        assert path.read_bytes() in {b"first\n", b"first\nsecond\n"}
        path.write_bytes(b"first\n")
