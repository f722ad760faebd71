"""Killed at any point, an archive still has every byte that was published, and the next run goes on from there."""

from __future__ import annotations

import io
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from preflight.checkpoint import archive as archive_module
from preflight.checkpoint import archive_source, frame_log, generation, zstd_frames
from preflight.checkpoint.archive import Appended, Archive, Proof
from preflight.system import files, growing
from tests import killing
from tests.archives import NAME, add_lines, append, archive_file, lines, small_frames, unpacked
from tests.second_process import second_process

pytestmark = pytest.mark.slow

MODULES = [archive_module, archive_source, frame_log, generation, zstd_frames, growing, files]


class Night:
    """A rollout and its archive as they were before the work that is killed, laid out anew for each kill."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.rollout = place / NAME
        self.folder = place / "thread"
        self.saved = place / "saved"
        self.before: list[tuple[Appended, bytes]] = []

    def archived(self, proof: Proof = Proof.FULL) -> None:
        self.before.append((append(Archive(self.folder), self.rollout, proof), self.rollout.read_bytes()))

    def lay_out(self) -> None:
        if not self.saved.exists():
            self.folder.mkdir(exist_ok=True)
            shutil.copytree(self.folder, self.saved)
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.saved, self.folder)

    def require_nothing_lost(self) -> None:
        archive = Archive(self.folder)
        for done, data in self.before:
            target = io.BytesIO()
            archive.read(NAME, done.generation, done.raw_bytes, target)
            assert target.getvalue() == data
            archive.require(done.reference)

    def require_repaired(self, generations: list[int]) -> None:
        whole = self.rollout.read_bytes()
        done = append(Archive(self.folder), self.rollout, Proof.FULL)
        assert done.complete
        assert Archive(self.folder).generations(NAME) == generations
        assert unpacked(archive_file(self.folder, generations[-1])) == whole == self.rollout.read_bytes()
        assert len(list(self.folder.iterdir())) == 2 * len(generations)
        self.require_nothing_lost()


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    small_frames(monkeypatch)
    made = Night(tmp_path)
    made.rollout.write_bytes(lines(4000, seed=0))
    return made


def killed_everywhere(night: Night, generations: list[int], work: Callable[[], object]) -> int:
    """The number of points at which the work was killed."""
    night.lay_out()
    points: list[int] = []
    source = night.rollout.read_bytes()
    for point in killing.at_every_line(work, inside=MODULES):
        points.append(point)
        assert night.rollout.read_bytes() == source
        night.require_nothing_lost()
        night.require_repaired(generations)
        night.lay_out()
    return len(points)


def test_the_first_time(night: Night) -> None:
    assert killed_everywhere(night, [1], lambda: append(Archive(night.folder), night.rollout)) > 200


def test_the_next_night_when_small_frames_become_one(night: Night) -> None:
    night.archived()
    for seed in range(2):
        add_lines(night.rollout, 300, seed=seed)
        night.archived(Proof.TAIL)
    add_lines(night.rollout, 700, seed=5)
    assert killed_everywhere(night, [1], lambda: append(Archive(night.folder), night.rollout, Proof.SAMPLED)) > 200


def test_the_night_after_the_rollout_was_rewritten(night: Night) -> None:
    night.archived()
    night.rollout.write_bytes(lines(4000, seed=9))
    assert killed_everywhere(night, [1, 2], lambda: append(Archive(night.folder), night.rollout)) > 200


def test_the_repair_of_what_a_killed_run_left(night: Night) -> None:
    """Killed while it puts a published tail into its place, and again, and again."""
    night.archived()
    add_lines(night.rollout, 300, seed=1)
    night.archived(Proof.TAIL)
    add_lines(night.rollout, 500, seed=2)

    def never(self: object, tail: Path, frame: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation.Generation, "_put_into_place", never)
        with pytest.raises(KeyboardInterrupt):
            append(Archive(night.folder), night.rollout, Proof.SAMPLED)
    state = Archive(night.folder).state(NAME)
    assert state is not None
    assert state.raw_length == night.rollout.stat().st_size
    assert len(list(night.folder.iterdir())) == 3
    assert killed_everywhere(night, [1], lambda: append(Archive(night.folder), night.rollout, Proof.TAIL)) > 50


def test_removing_a_generation(night: Night) -> None:
    append(Archive(night.folder), night.rollout)
    night.rollout.write_bytes(lines(3000, seed=3))
    night.archived()
    night.lay_out()
    for _ in killing.at_every_line(lambda: Archive(night.folder).remove_generation(NAME, 1), inside=MODULES):
        night.require_nothing_lost()
        if 1 in Archive(night.folder).generations(NAME):
            Archive(night.folder).remove_generation(NAME, 1)
        night.require_repaired([2])
        night.lay_out()


ARCHIVES = """
from pathlib import Path
from preflight.checkpoint import archive_source, zstd_frames
from preflight.checkpoint.archive import Archive, Proof
from preflight.checkpoint.zstd_frames import Shape
from preflight.system.deadline import Deadline

zstd_frames.PLAIN = zstd_frames.LONG = Shape(window_log=None, frame_bytes=3 << 20, gather_bytes=9 << 20)
rollout = Path(sys.argv[1])
say("ready")
Archive(Path(sys.argv[2])).append(rollout, end=rollout.stat().st_size, prove=Proof.FULL, deadline=Deadline(None))
"""


def test_a_real_process_is_killed_at_random_moments(tmp_path: Path) -> None:
    rollout, folder = tmp_path / NAME, tmp_path / "thread"
    rollout.write_bytes(lines(20_000_000, seed=0))
    choice = random.Random(25215)
    published = 0
    for _ in range(15):
        with second_process(ARCHIVES, rollout, folder) as process:
            time.sleep(choice.uniform(0, 0.15))
            process.kill()
        state = Archive(folder).state(NAME)
        if state is not None:
            assert state.raw_length >= published
            published = state.raw_length
            target = io.BytesIO()
            Archive(folder).read(NAME, 1, published, target)
            assert target.getvalue() == rollout.read_bytes()[:published]
        if published == rollout.stat().st_size:
            add_lines(rollout, 4_000_000, seed=published)
    done = append(Archive(folder), rollout)
    assert (done.generation, done.complete) == (1, True)
    assert unpacked(archive_file(folder)) == rollout.read_bytes()
