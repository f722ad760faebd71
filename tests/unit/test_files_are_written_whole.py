"""A file of ours is there whole, private and flushed, or it is not there at all."""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from preflight.errors import DamagedFile, NoSpace, Unverified
from preflight.system import files


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=["open umask", "usual umask", "umask that takes everything"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_published_file_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    files.private_folder(tmp_path / "a" / "b")
    files.publish(tmp_path / "a" / "b" / "published", b"words")
    files.append_line(tmp_path / "a" / "b" / "appended", b"line\n")
    files.create(tmp_path / "a" / "b" / "created")

    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700
    for name in ("published", "appended", "created"):
        assert mode(tmp_path / "a" / "b" / name) == 0o600
    assert (tmp_path / "a" / "b" / "published").read_bytes() == b"words"


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o755)

    files.private_folder(folder)

    assert mode(folder) == 0o755


def test_a_link_to_a_folder_serves_and_a_file_in_its_place_does_not(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()

    files.private_folder(tmp_path / "link" / "inner")

    assert (tmp_path / "real" / "inner").is_dir()
    with pytest.raises(Unverified):
        files.private_folder(tmp_path / "file")


def test_publishing_replaces_and_leaves_no_other_name(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    files.publish(path, b"first")
    files.publish(path, b"second")

    assert path.read_bytes() == b"second"
    assert names(tmp_path) == ["manifest.json"]


def test_what_must_not_be_replaced_stays(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    files.publish(path, b"first", replace=False)

    with pytest.raises(Unverified):
        files.publish(path, b"second", replace=False)

    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["manifest.json"]


def test_an_error_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    files.publish(path, b"old")

    with pytest.raises(KeyboardInterrupt), files.publishing(path) as file:
        file.write(b"half of the ne")
        raise KeyboardInterrupt

    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["report.json"]


def test_an_error_of_somebody_elses_file_is_not_renamed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.publishing(tmp_path / "copy"):
        (tmp_path / "source that is gone").read_bytes()

    assert names(tmp_path) == []


def test_bytes_that_went_missing_on_the_way_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(Unverified), files.publishing(tmp_path / "copy") as file:
        file.write(b"0123456789")
        file.flush()
        os.ftruncate(file.fileno(), 4)

    assert names(tmp_path) == []


def test_a_flush_that_fails_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def failing(descriptor: int) -> None:
        tried.append(descriptor)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)

    with pytest.raises(Unverified):
        files.publish(tmp_path / "copy", b"words")

    assert len(tried) == 1
    assert names(tmp_path) == []


def test_the_bytes_are_flushed_before_the_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []
    flush = os.fsync

    def recording(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append((kind, (tmp_path / "copy").exists()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    files.publish(tmp_path / "copy", b"words")

    assert seen == [("file", False), ("folder", True)]


def test_each_new_folder_is_flushed_into_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    flush = os.fsync

    def recording(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_ino)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    files.private_folder(tmp_path / "a" / "b")

    assert flushed == [tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino]


def test_a_full_disk_is_called_so_and_what_was_needed_is_told(fs: FakeFilesystem) -> None:
    """pyfakefs: a disk of a kilobyte. Its fsync and links are only imitated."""
    fs.set_disk_usage(1024)
    store = Path("/store")
    store.mkdir()

    with pytest.raises(NoSpace) as caught:
        files.publish(store / "copy", b"x" * 5000)

    assert caught.value.needed_bytes == 5000
    assert caught.value.exit_code == 12
    assert list(store.iterdir()) == []
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.message, again.path, again.needed_bytes) == (caught.value.message, store / "copy", 5000)


def test_a_line_is_appended_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    files.append_line(path, b'{"n":1}\n')
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))

    with pytest.raises(NoSpace):
        files.append_line(path, b'{"n":2}\n')

    monkeypatch.undo()
    assert path.read_bytes() == b'{"n":1}\n'
    files.append_line(path, b'{"n":3}\n')
    assert path.read_bytes() == b'{"n":1}\n{"n":3}\n'


@pytest.mark.parametrize("line", [b"", b"no newline", b"two\nlines\n", b"\n\n"])
def test_only_one_line_can_be_appended(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(ValueError, match="newline"):
        files.append_line(tmp_path / "journal.jsonl", line)

    assert names(tmp_path) == []


def test_a_line_is_not_appended_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"somebody's file\n")
    (tmp_path / "journal.jsonl").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(Unverified):
        files.append_line(tmp_path / "journal.jsonl", b"line\n")

    assert (tmp_path / "elsewhere").read_bytes() == b"somebody's file\n"


def test_a_range_is_copied_as_bytes_and_shown_once(tmp_path: Path) -> None:
    content = os.urandom(3 * (1 << 20) + 17)
    (tmp_path / "rollout").write_bytes(content)
    seen = hashlib.sha256()

    with (tmp_path / "rollout").open("rb", buffering=0) as source, files.publishing(tmp_path / "copy") as target:
        target.write(b"first line\n")
        target.flush()
        files.copy_range(source.fileno(), target.fileno(), 5, len(content) - 7, seen.update)
        assert source.tell() == 0

    assert (tmp_path / "copy").read_bytes() == b"first line\n" + content[5:-2]
    assert seen.hexdigest() == hashlib.sha256(content[5:-2]).hexdigest()


def test_a_source_that_was_cut_meanwhile_is_damage_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "rollout").write_bytes(b"x" * 100)

    with (
        pytest.raises(DamagedFile),
        (tmp_path / "rollout").open("rb") as source,
        files.publishing(tmp_path / "copy") as target,
    ):
        files.copy_range(source.fileno(), target.fileno(), 0, 101)

    assert names(tmp_path) == ["rollout"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_copying_onto_a_full_device_tells_what_was_still_needed(tmp_path: Path) -> None:
    (tmp_path / "rollout").write_bytes(b"x" * 100)

    with (
        (tmp_path / "rollout").open("rb") as source,
        Path("/dev/full").open("wb", buffering=0) as target,
        pytest.raises(NoSpace) as caught,
    ):
        files.copy_range(source.fileno(), target.fileno(), 10, 90)

    assert caught.value.needed_bytes == 90


def test_digests_are_of_the_range_that_was_asked_for(tmp_path: Path) -> None:
    content = os.urandom((1 << 20) + 5)
    path = tmp_path / "file"
    path.write_bytes(content)

    assert files.sha256_of(path) == hashlib.sha256(content).hexdigest()
    assert files.sha256_of(path, 7) == hashlib.sha256(content[7:]).hexdigest()
    assert files.sha256_of(path, 7, 11) == hashlib.sha256(content[7:18]).hexdigest()
    assert files.sha256_of(path, len(content)) == hashlib.sha256(b"").hexdigest()
    with pytest.raises(DamagedFile):
        files.sha256_of(path, 7, len(content))


def test_a_published_file_can_no_longer_be_changed(tmp_path: Path) -> None:
    files.publish(tmp_path / "manifest.json", b"{}")

    files.drop_write_permission(tmp_path / "manifest.json")

    assert mode(tmp_path / "manifest.json") == 0o400


def test_an_identity_tells_growth_and_replacement_apart(tmp_path: Path) -> None:
    path = tmp_path / "rollout"
    path.write_bytes(b"one\n")
    first = files.identity(path)
    with path.open("ab") as file:
        file.write(b"two\n")
    grown = files.identity(path)
    (tmp_path / "other").write_bytes(b"one\ntwo\n")
    (tmp_path / "other").replace(path)
    replaced = files.identity(path)

    assert grown.same_file(first)
    assert grown != first
    assert not replaced.same_file(first)
    with path.open("rb") as file:
        assert files.identity(file.fileno()) == replaced


def test_room_is_told_for_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert files.free_bytes(tmp_path / "store" / "home") > 0
