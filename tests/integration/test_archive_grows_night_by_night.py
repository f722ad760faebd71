"""What was added since the last night is added to the archive; `zstd -d` alone gives the whole rollout at each time."""

from __future__ import annotations

import io
import shutil
import stat
import threading
from pathlib import Path

import pytest

from preflight.checkpoint import archive_source
from preflight.checkpoint.archive import Archive, BeganAnew, Proof
from preflight.codex.sample_rollout import RolloutWriter
from preflight.errors import DamagedFile, UsageProblem
from preflight.system.deadline import Deadline
from tests.archives import NAME, add_lines, append, archive_file, lines, restored, small_frames, unpacked

THREAD = "0197a000-0000-7000-8000-000000000001"


@pytest.fixture
def rollout(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_bytes(lines(20_000, seed=0))
    return path


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    small_frames(monkeypatch)
    return Archive(tmp_path / "archive" / "thread")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive" / "thread"


def test_zstd_alone_restores_a_rollout_of_any_kind(tmp_path: Path) -> None:
    for number, pictures in enumerate((0, 6)):
        path = tmp_path / f"{number}.jsonl"
        with RolloutWriter(path, THREAD, paginated=True) as writer:
            for _ in range(4):
                writer.turn(outputs=[300_000, 2_000], compacts=True)
                for picture in range(pictures):
                    writer.event("picture", data=f"{picture}" * 1_000_000)
        done = append(Archive(tmp_path / "archive"), path)
        assert done.complete
        assert done.frames == 1
        assert unpacked(tmp_path / "archive" / f"{path.name}.zst") == path.read_bytes()


def test_each_night_adds_frames_and_every_earlier_length_can_be_restored(
    rollout: Path, archive: Archive, folder: Path
) -> None:
    lengths = []
    for night in range(8):
        proof = [Proof.FULL, Proof.SAMPLED, Proof.TAIL, Proof.TAIL][night % 4]
        before = sum(done for done in lengths[-1:])
        done = append(archive, rollout, proof)
        assert (done.complete, done.generation, done.began_anew, done.rewritten) == (True, 1, None, False)
        assert done.raw_bytes == rollout.stat().st_size
        assert done.new_raw_bytes == done.raw_bytes - before
        assert done.stored_bytes == archive_file(folder).stat().st_size
        assert unpacked(archive_file(folder)) == rollout.read_bytes()
        lengths.append(done.raw_bytes)
        add_lines(rollout, 300 if night % 2 else 5000, seed=night)
    whole = rollout.read_bytes()
    for length in (0, 1, *lengths):
        assert restored(archive, done, length) == whole[:length]


def test_frames_end_with_a_line_and_fit_together(rollout: Path, archive: Archive) -> None:
    append(archive, rollout)
    state = archive.state(NAME)
    assert state is not None
    whole = rollout.read_bytes()
    assert len(state.frames) > 5
    assert [frame.raw_end for frame in state.frames[:-1]] == [frame.raw_offset for frame in state.frames[1:]]
    assert all(whole[frame.raw_end - 1 : frame.raw_end] == b"\n" for frame in state.frames)
    assert (state.raw_length, state.stored_bytes) == (len(whole), state.frames[-1].stored_end)


def test_a_line_longer_than_a_frame_is_not_cut(tmp_path: Path, archive: Archive) -> None:
    path = tmp_path / NAME
    path.write_bytes(b"short\n" + b"x" * 10_000_000 + b"\n" + lines(9000, seed=1))
    done = append(archive, path)
    state = archive.state(NAME)
    assert state is not None
    assert state.frames[0].raw_end in {6, 10_000_007} or state.frames[1].raw_end >= 10_000_007
    assert restored(archive, done) == path.read_bytes()


def test_small_frames_at_the_end_become_one(rollout: Path, archive: Archive, folder: Path) -> None:
    frames = append(archive, rollout).frames
    for night in range(6):
        add_lines(rollout, 100, seed=night)
        done = append(archive, rollout, Proof.SAMPLED)
        assert unpacked(archive_file(folder)) == rollout.read_bytes()
        assert restored(archive, done) == rollout.read_bytes()
    assert done.frames <= frames + 2
    assert sorted(path.name for path in folder.iterdir()) == [f"{NAME}.frames.jsonl", f"{NAME}.zst"]


def test_a_caller_in_a_hurry_only_adds(rollout: Path, archive: Archive) -> None:
    frames = append(archive, rollout).frames
    for night in range(3):
        add_lines(rollout, 100, seed=night)
        assert append(archive, rollout, Proof.TAIL).frames == frames + night + 1


def test_nothing_new_adds_nothing(rollout: Path, archive: Archive, folder: Path) -> None:
    before = append(archive, rollout)
    files = {path: path.read_bytes() for path in folder.iterdir()}
    for proof in Proof:
        done = append(archive, rollout, proof)
        assert (done.new_raw_bytes, done.new_stored_bytes, done.complete) == (0, 0, True)
        assert done.reference == before.reference
    assert {path: path.read_bytes() for path in folder.iterdir()} == files


def test_only_what_was_asked_for_is_archived(rollout: Path, archive: Archive) -> None:
    whole = rollout.read_bytes()
    with rollout.open("ab") as file:
        file.write(b'{"torn')
    done = append(archive, rollout, end=len(whole))
    assert restored(archive, done) == whole


@pytest.mark.parametrize("proof", list(Proof))
def test_a_rollout_that_was_rewritten_begins_a_new_generation(
    rollout: Path, archive: Archive, folder: Path, proof: Proof
) -> None:
    old = rollout.read_bytes()
    first = append(archive, rollout)
    rollout.write_bytes(lines(len(old) + 500, seed=7))
    done = append(archive, rollout, proof)
    assert (done.generation, done.began_anew, done.new_raw_bytes) == (2, BeganAnew.REWRITTEN, done.raw_bytes)
    assert archive.generations(NAME) == [1, 2]
    assert restored(archive, done) == rollout.read_bytes() == unpacked(archive_file(folder, 2))
    assert restored(archive, first) == old == unpacked(archive_file(folder, 1))
    add_lines(rollout, 200, seed=8)
    again = append(archive, rollout, proof)
    assert (again.generation, again.rewritten) == (2, False)


@pytest.mark.parametrize("place", [10, 8000, 19_000])
def test_one_changed_byte_anywhere_is_found_by_the_full_proof(rollout: Path, archive: Archive, place: int) -> None:
    append(archive, rollout)
    with rollout.open("r+b") as file:
        file.seek(place)
        file.write(b"\0")
    add_lines(rollout, 100, seed=3)
    assert append(archive, rollout, Proof.FULL).began_anew is BeganAnew.REWRITTEN


def test_what_was_packed_before_the_proof_came_out_is_not_published(
    rollout: Path, archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fake: the comparison waits until the new frame has been written."""
    append(archive, rollout)
    published = (folder / f"{NAME}.frames.jsonl").read_bytes()
    data = bytearray(rollout.read_bytes())
    data[50] ^= 1
    rollout.write_bytes(data + lines(2500, seed=4))
    packed = threading.Event()
    real_pack, real_same = archive_source.pack, archive_source.Source._same

    def packing(*arguments: object, **settings: object) -> object:
        made = real_pack(*arguments, **settings)
        packed.set()
        return made

    def comparing(*arguments: object) -> bool:
        assert packed.wait(60)
        return real_same(*arguments)

    monkeypatch.setattr(archive_source, "pack", packing)
    monkeypatch.setattr(archive_source.Source, "_same", comparing)
    done = append(archive, rollout)
    assert (done.generation, done.began_anew) == (2, BeganAnew.REWRITTEN)
    assert (folder / f"{NAME}.frames.jsonl").read_bytes() == published
    assert restored(archive, done) == rollout.read_bytes()


def test_one_changed_byte_is_found_by_samples_within_a_week(rollout: Path, archive: Archive) -> None:
    append(archive, rollout)
    with rollout.open("r+b") as file:
        file.seek(4000)
        file.write(b"\0")
    found = []
    for night in range(7):
        add_lines(rollout, 2500, seed=night)
        found.append(append(archive, rollout, Proof.SAMPLED).rewritten)
    assert found.count(True) == 1


def test_a_change_in_the_frames_that_are_made_into_one_is_found(rollout: Path, archive: Archive) -> None:
    append(archive, rollout)
    for night in range(3):
        add_lines(rollout, 300, seed=night)
        append(archive, rollout, Proof.TAIL)
    data = bytearray(rollout.read_bytes())
    data[-400] ^= 1
    rollout.write_bytes(data + lines(200, seed=5))
    done = append(archive, rollout, Proof.SAMPLED)
    assert done.began_anew is BeganAnew.REWRITTEN
    assert restored(archive, done) == rollout.read_bytes()


@pytest.mark.parametrize("proof", list(Proof))
def test_a_rollout_that_was_cut_begins_a_new_generation(rollout: Path, archive: Archive, proof: Proof) -> None:
    append(archive, rollout)
    shorter = lines(6000, seed=0)
    rollout.write_bytes(shorter)
    done = append(archive, rollout, proof)
    assert (done.generation, done.began_anew) == (2, BeganAnew.TRUNCATED)
    assert restored(archive, done) == shorter


def test_the_same_bytes_in_another_file_go_on(rollout: Path, archive: Archive) -> None:
    append(archive, rollout)
    shutil.copy(rollout, f"{rollout}.new")
    Path(f"{rollout}.new").replace(rollout)
    add_lines(rollout, 200, seed=2)
    told: list[str] = []
    done = append(archive, rollout, Proof.TAIL, progress=lambda what, now, total: told.append(what))
    assert (done.generation, done.rewritten) == (1, False)
    assert "compared" in told


def test_other_bytes_in_another_file_are_found_even_by_the_quick_proof(rollout: Path, archive: Archive) -> None:
    append(archive, rollout)
    data = bytearray(rollout.read_bytes())
    data[50] ^= 1
    Path(f"{rollout}.new").write_bytes(data)
    Path(f"{rollout}.new").replace(rollout)
    assert append(archive, rollout, Proof.TAIL).began_anew is BeganAnew.REWRITTEN


def test_the_time_limit_ends_a_frame_at_a_newline_and_the_next_run_goes_on(
    rollout: Path, archive: Archive, folder: Path
) -> None:
    class Ending(Deadline):
        """A fake clock: comes when it has been asked so many times."""

        __slots__ = ("left",)

        def __init__(self, left: int) -> None:
            super().__init__(None)
            self.left = left

        def remaining(self) -> float:
            self.left -= 1
            return 100.0 if self.left > 0 else 0.0

    whole = rollout.read_bytes()
    runs = []
    for asked in range(1, 40):
        done = append(archive, rollout, Proof.SAMPLED, deadline=Ending(asked))
        assert whole[: done.raw_bytes].endswith(b"\n") or not done.raw_bytes
        if done.raw_bytes:
            assert unpacked(archive_file(folder)) == whole[: done.raw_bytes]
        runs.append((done.raw_bytes, done.complete))
    assert runs[0] == (0, False)
    assert runs[-1] == (len(whole), True)
    assert runs == sorted(runs)


def test_a_rate_and_the_progress_are_kept(rollout: Path, archive: Archive) -> None:
    told: list[tuple[str, int, int]] = []
    size = rollout.stat().st_size
    append(archive, rollout, max_rate=1 << 40, progress=lambda *seen: told.append(seen))
    assert [what for what, _, _ in told] == ["archived"] * len(told)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1] == ("archived", size, size)


def test_a_rate_that_is_too_low_meets_the_time_limit(rollout: Path, archive: Archive) -> None:
    done = append(archive, rollout, max_rate=1, deadline=Deadline(0.5))
    assert not done.complete
    assert 0 < done.raw_bytes < rollout.stat().st_size


def test_the_archive_is_private(rollout: Path, archive: Archive, folder: Path) -> None:
    append(archive, rollout)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_reference_holds_for_ever(rollout: Path, archive: Archive) -> None:
    references = []
    for night in range(6):
        references.append(append(archive, rollout).reference)
        add_lines(rollout, 200 if night % 2 else 4000, seed=night)
    whole = rollout.read_bytes()
    for reference in references:
        archive.require(reference)
        target, seen = io.BytesIO(), bytearray()
        archive.read(reference.file, reference.generation, reference.raw_length, target, seen.extend)
        assert target.getvalue() == bytes(seen) == whole[: reference.raw_length]


def test_what_is_not_archived_is_told(rollout: Path, archive: Archive, folder: Path) -> None:
    assert archive.state(NAME) is None
    assert archive.generations(NAME) == []
    done = append(archive, rollout)
    with pytest.raises(UsageProblem):
        restored(archive, done, 1) if archive.remove_generation(NAME, 2) else None
    with pytest.raises(DamagedFile, match="bytes are archived"):
        restored(archive, done, done.raw_bytes + 1)


def test_a_generation_can_be_removed(rollout: Path, archive: Archive, folder: Path) -> None:
    append(archive, rollout)
    rollout.write_bytes(lines(5000, seed=9))
    done = append(archive, rollout)
    archive.remove_generation(NAME, 1)
    assert archive.generations(NAME) == [2]
    assert sorted(path.name for path in folder.iterdir()) == [f"{NAME}.g2.frames.jsonl", f"{NAME}.g2.zst"]
    add_lines(rollout, 100, seed=1)
    assert append(archive, rollout).generation == 2
    assert restored(archive, done) == lines(5000, seed=9)
