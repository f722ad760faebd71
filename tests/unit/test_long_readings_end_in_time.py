"""Reading a file of gigabytes ends within a block or so when the time limit comes, wherever it is at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from preflight.checkpoint.manifest import FileRecord
from preflight.checkpoint.verify import verify_digest
from preflight.codex import boundary, history
from preflight.codex.rollout import parse_name
from preflight.codex.sample_rollout import RolloutWriter, rollout_path
from preflight.codex.scratch_home import make_scratch_home
from preflight.errors import TimeLimitReached
from preflight.model import Segment
from preflight.system import files
from preflight.system.deadline import Deadline
from preflight.system.pace import Pace
from tests.fixtures_codex import thread_id

MIB = 1 << 20
SIZE = 24 * MIB


class Clock:
    """The time is over when two MiB have been read."""

    def __init__(self) -> None:
        self.read = 0

    def __call__(self, size: int) -> None:
        self.read += size
        if self.read >= 2 * MIB:
            raise TimeLimitReached("the time limit came")


@pytest.fixture(scope="module")
def rollout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = rollout_path(tmp_path_factory.mktemp("home"), thread_id(1))
    with RolloutWriter(path, thread_id(1)) as writer:
        for _ in range(SIZE // (3 * MIB)):
            writer.turn("On with it.", outputs=[300_000] * 10)
    assert path.stat().st_size > SIZE // 2
    return path


def opened(path: Path) -> tuple[Segment, ...]:
    from preflight.checkpoint.verify import _as_rollout

    assert parse_name(path.name) is not None
    return (Segment(file=_as_rollout(path), end_offset=None),)


def digest(path: Path, clock: Clock) -> object:
    return files.sha256_of(path, seen=clock)


def of_the_checkpoint(path: Path, clock: Clock) -> object:
    record = FileRecord(path=path.name, length=path.stat().st_size, sha256="0" * 64, role="resume-rollout")
    return verify_digest(path.parent, record, clock)


def replayed(path: Path, clock: Clock) -> object:
    with boundary.opened(opened(path)) as lineage:
        return history.replay(lineage, clock)


def all_records(path: Path, clock: Clock) -> object:
    with boundary.opened(opened(path)) as lineage:
        return history.of_all_records(lineage, clock)


@pytest.mark.parametrize("read", [digest, of_the_checkpoint, replayed, all_records])
def test_it_ends_at_once(rollout: Path, read: Callable[[Path, Clock], object]) -> None:
    clock = Clock()
    with pytest.raises(TimeLimitReached):
        read(rollout, clock)
    assert clock.read < 4 * MIB


def test_the_copy_for_a_trial_too(rollout: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir(0o700)
    with pytest.raises(TimeLimitReached):
        make_scratch_home(tmp_path / "scratch", rollout, dead_port=9, goals=False, deadline=Deadline(0))


def test_a_pace_is_what_verbs_hand_down(rollout: Path) -> None:
    with pytest.raises(TimeLimitReached, match="reading back"):
        files.sha256_of(rollout, seen=Pace(None, Deadline(0)).during("reading back"))
