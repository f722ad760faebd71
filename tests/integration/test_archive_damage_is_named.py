"""Damage of an archive names the frame and its bytes; what is whole stays usable, nothing is built on damage."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from preflight.checkpoint import archive_source, zstd_frames
from preflight.checkpoint.archive import Archive, BeganAnew, Proof
from preflight.errors import DamagedFile, Unverified
from preflight.system import files, growing
from preflight.system.deadline import Deadline
from tests.archives import NAME, add_lines, append, archive_file, lines, restored, small_frames, unpacked


@pytest.fixture
def rollout(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_bytes(lines(20_000, seed=0))
    return path


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    small_frames(monkeypatch)
    return Archive(tmp_path / "thread")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "thread"


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def test_every_frame_or_some_are_read_back(rollout: Path, archive: Archive) -> None:
    frames = append(archive, rollout).frames
    found = archive.verify(NAME, 1, deadline=Deadline(None))
    assert found.checked == tuple(range(frames))
    assert (found.damage, found.complete, found.whole) == ((), True, ((0, rollout.stat().st_size),))
    assert found.checked_raw_bytes == rollout.stat().st_size
    assert archive.verify(NAME, 1, {1, 3}, deadline=Deadline(None)).checked == (1, 3)
    assert not archive.verify(NAME, 1, deadline=Deadline(0)).complete


@pytest.mark.parametrize("inside", [0, 15, -6, -1])
def test_a_flipped_bit_names_the_frame_and_what_is_whole(
    rollout: Path, archive: Archive, folder: Path, inside: int
) -> None:
    done = append(archive, rollout)
    state = archive.state(NAME)
    assert state is not None
    bad = state.frames[2]
    flip(archive_file(folder), (bad.stored_offset if inside >= 0 else bad.stored_end) + inside)

    found = archive.verify(NAME, 1, deadline=Deadline(None))

    (damage,) = found.damage
    assert (damage.frame, damage.raw_offset, damage.raw_length) == (2, bad.raw_offset, bad.raw_length)
    assert (damage.stored_offset, damage.stored_length) == (bad.stored_offset, bad.stored_length)
    assert damage.cause
    assert found.whole == ((0, bad.raw_offset), (bad.raw_end, done.raw_bytes))
    assert restored(archive, done, bad.raw_offset) == rollout.read_bytes()[: bad.raw_offset]
    with pytest.raises(DamagedFile, match=rf"frame 2 .* bytes {bad.raw_offset:,} to {bad.raw_end:,} "):
        restored(archive, done)


def test_a_frame_of_somebody_else_is_noticed_by_its_digest(rollout: Path, archive: Archive, folder: Path) -> None:
    append(archive, rollout)
    other = Archive(folder.with_name("other"))
    rollout.write_bytes(rollout.read_bytes().replace(b"a", b"b"))
    append(other, rollout)
    data = archive_file(folder.with_name("other")).read_bytes()
    log = (folder / f"{NAME}.frames.jsonl").read_bytes()
    if len(data) < archive_file(folder).stat().st_size:
        data = data.ljust(archive_file(folder).stat().st_size, b"\0")
    archive_file(folder).write_bytes(data)
    assert len(archive.verify(NAME, 1, deadline=Deadline(None)).damage) >= log.count(b"\n") - 1


def test_a_torn_tail_and_a_torn_line_are_cut_off(rollout: Path, archive: Archive, folder: Path) -> None:
    whole = append(archive, rollout)
    with archive_file(folder).open("ab") as file:
        file.write(b"\x28\xb5\x2f\xfd half a frame")
    with (folder / f"{NAME}.frames.jsonl").open("ab") as file:
        file.write(b'{"raw_offset":123')
    (folder / f"{NAME}.zst.99.tail").write_bytes(b"never published")
    assert restored(archive, whole) == rollout.read_bytes()
    add_lines(rollout, 4000, seed=1)
    done = append(archive, rollout, Proof.TAIL)
    assert not done.rewritten
    assert unpacked(archive_file(folder)) == rollout.read_bytes()
    assert len(list(folder.iterdir())) == 2


def test_a_shorter_archive_is_not_built_upon(rollout: Path, archive: Archive, folder: Path) -> None:
    first = append(archive, rollout)
    with archive_file(folder).open("r+b") as file:
        file.truncate(first.stored_bytes - 1)
    with pytest.raises(DamagedFile, match="instead of"):
        archive.require(first.reference)
    found = archive.verify(NAME, 1, deadline=Deadline(None))
    assert [one.frame for one in found.damage] == [first.frames - 1]
    done = append(archive, rollout, Proof.TAIL)
    assert (done.generation, done.began_anew) == (2, BeganAnew.DAMAGED)
    assert restored(archive, done) == rollout.read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"{}\n" + data,
        lambda data: b"\0" * 20 + data[20:],
        lambda data: data.split(b"\n", 1)[1],
        lambda data: data + data.splitlines(keepends=True)[2],
        lambda data: data.replace(b'"stored_length":', b'"stored_length":1'),
    ],
)
def test_a_frames_file_that_does_not_fit_together_is_not_built_upon(
    rollout: Path, archive: Archive, folder: Path, damage: object
) -> None:
    first = append(archive, rollout)
    log = folder / f"{NAME}.frames.jsonl"
    log.write_bytes(damage(log.read_bytes()))
    with pytest.raises(DamagedFile):
        archive.state(NAME)
    with pytest.raises(DamagedFile):
        archive.require(first.reference)
    done = append(archive, rollout)
    assert (done.generation, done.began_anew) == (2, BeganAnew.DAMAGED)
    assert unpacked(archive_file(folder)) == rollout.read_bytes()


def test_a_manifest_is_told_that_its_frames_are_others(rollout: Path, archive: Archive, folder: Path) -> None:
    reference = append(archive, rollout).reference
    log = folder / f"{NAME}.frames.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"sha256":"', b'"sha256":"0', 1))
    with pytest.raises(DamagedFile, match="not the one that the checkpoint names"):
        archive.require(reference)


def test_a_source_that_cannot_be_read_any_further(
    rollout: Path, archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fake: a disk that gives EIO from one offset on; no real one can be had here."""
    real = zstd_frames.read_into

    def failing(descriptor: int, target: memoryview, offset: int) -> int:
        if offset + len(target) > 12_000:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, target, offset)

    whole = rollout.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(zstd_frames, "read_into", failing)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            append(archive, rollout)
    state = archive.state(NAME)
    assert state is not None
    assert 6000 < state.raw_length < 12_000
    assert unpacked(archive_file(folder)) == whole[: state.raw_length]
    with monkeypatch.context() as patch:
        patch.setattr(archive_source, "read_into", failing)
        patch.setattr(zstd_frames, "read_into", failing)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            append(archive, rollout)
    done = append(archive, rollout)
    assert (done.generation, restored(archive, done)) == (1, whole)
    assert rollout.read_bytes() == whole


@pytest.mark.parametrize("number", range(1, 12))
def test_a_disk_that_fails_to_flush_loses_nothing_that_was_published(
    rollout: Path, archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Fake: the `number`-th flush of the night fails with EIO."""
    before = append(archive, rollout)
    add_lines(rollout, 300, seed=1)
    append(archive, rollout, Proof.TAIL)
    add_lines(rollout, 9000, seed=2)
    flushes = 0
    real = files.sync

    def failing(descriptor: int) -> None:
        nonlocal flushes
        flushes += 1
        if flushes == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync", failing)
        if number < 4:
            with pytest.raises(Unverified):
                append(archive, rollout, Proof.SAMPLED)
        else:
            try:
                append(archive, rollout, Proof.SAMPLED)
            except Unverified:
                assert flushes == number
    assert restored(archive, before) == rollout.read_bytes()[: before.raw_bytes]
    done = append(archive, rollout, Proof.SAMPLED)
    assert not done.rewritten
    assert unpacked(archive_file(folder)) == rollout.read_bytes() == restored(archive, done)


def test_a_rollout_that_is_cut_while_it_is_read(rollout: Path, archive: Archive) -> None:
    with pytest.raises(DamagedFile, match="too early"):
        append(archive, rollout, end=30_000)
    done = append(archive, rollout)
    assert restored(archive, done) == rollout.read_bytes()


def test_a_frame_that_waits_for_its_place_is_read_from_where_it_is(
    rollout: Path, archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill between the line of a frame made of several and its way into the archive file."""
    append(archive, rollout)
    add_lines(rollout, 300, seed=1)
    append(archive, rollout, Proof.TAIL)
    add_lines(rollout, 300, seed=2)
    real = growing.growing

    def failing(path: Path, keep: int) -> object:
        if keep and path == archive_file(folder):
            raise Unverified("a fake failure", path=path)
        return real(path, keep)

    with monkeypatch.context() as patch:
        patch.setattr("preflight.checkpoint.generation.growing", failing)
        with pytest.raises(Unverified):
            append(archive, rollout, Proof.SAMPLED)
    whole = rollout.read_bytes()
    state = archive.state(NAME)
    assert state is not None
    assert state.raw_length == len(whole)
    archive.require(state.reference)
    target = io.BytesIO()
    archive.read(NAME, 1, len(whole), target)
    assert target.getvalue() == whole
    assert archive.verify(NAME, 1, deadline=Deadline(None)).damage == ()
    done = append(archive, rollout)
    assert done.new_raw_bytes == 0
    assert unpacked(archive_file(folder)) == whole
    assert len(list(folder.iterdir())) == 2
