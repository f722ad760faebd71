"""A real small disk runs full under a checkpoint, a prune or a restore: told, nothing lost, and put right with room.

It is one in memory, in a mount namespace of its own, and is filled to the last byte before a system call of the verb
that is drawn at random. A prune makes room on a disk that has none; a reserve is kept before anything is written.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import interrupted
from tests.interrupted import CHECKPOINT, PRUNE, Scene, answer_of, require_nothing_lost, require_put_right, small_scene
from tests.small_disk import on_a_small_disk
from tests.system_calls import LINUX, Call, Decision

pytestmark = [pytest.mark.slow, LINUX]

SEED = 25215
MOMENTS = 14

WORK = "import sys; from tests.crash import test_a_disk_that_runs_full as t; print(t.told(*sys.argv[1:]))"


def exit_codes(work: str, folder: Path) -> dict[str, int]:
    """What `told` printed, in a process of its own whose `folder`/disk holds 8 MiB and not a byte more."""
    disk = folder / "disk"
    disk.mkdir()
    codes = json.loads(on_a_small_disk(disk, "8m", WORK, work, folder))
    assert isinstance(codes, dict)
    return codes


# ---- in the process on the small disk ----------------------------------------------------------------------------


def told(work: str, folder: str) -> str:
    """How often the verb ended with each exit code."""
    before, verb, whose = WORKS[work]
    disk = Path(folder, "disk")
    with pytest.MonkeyPatch.context() as monkeypatch:
        place = {"store": {"store": disk / "store"}, "home": {"home": disk / "home"}}[whose]
        scene = small_scene(Path(folder), monkeypatch, **place)
        before(scene)
        scene.save()
        return json.dumps(filled_at_random_moments(scene, verb, disk))


WORKS: dict[str, tuple[Callable[[Scene], None], str, str]] = {
    "first archive": (interrupted.first_time, "checkpoint", "store"),
    "next archive": (interrupted.grown, "checkpoint", "store"),
    "prune": (interrupted.to_be_pruned, "prune", "store"),
    "restore in place": (interrupted.cut_short, "restore", "home"),
    "restore to another place": (interrupted.cut_short, "restore --to", "home"),
    "undo": (interrupted.put_back, "undo", "home"),
}


@dataclass
class FullFrom:
    """Fills the disk before one of the calls; `number` -1 never does."""

    disk: Path
    number: int
    seen: int = 0

    def __call__(self, call: Call) -> Decision:
        self.seen += 1
        if self.seen == self.number:
            fill(self.disk)
        return Decision.PASS


def fill(disk: Path) -> None:
    """Not a byte is left; a page in a file is the smallest thing that a disk in memory gives out."""
    descriptor = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (1 << 16, 1 << 12, 1):
            with suppress(OSError):
                while os.write(descriptor, bytes(size)) == size:
                    pass
    finally:
        os.close(descriptor)


def filled_at_random_moments(scene: Scene, verb: str, disk: Path) -> Counter[int]:
    choice, codes = random.Random(SEED), Counter[int]()
    stays = interrupted.what_stays(scene, verb)
    roomy = FullFrom(disk, -1)
    assert answer_of(scene.watched_call(interrupted.words(scene, verb), roomy)).code == 0
    for moment in [1, *(choice.randrange(roomy.seen) + 1 for _ in range(MOMENTS))]:
        scene.lay_out()
        answer = answer_of(scene.watched_call(interrupted.words(scene, verb), FullFrom(disk, moment)))
        where = f"seed {SEED}, call {moment} of {roomy.seen}: {answer}"
        codes[answer.code] += 1
        assert answer.code == 0 or "no-space" in interrupted.said(answer), where
        require_nothing_lost(scene, verb, stays)
        (disk / "filler").unlink(missing_ok=True)
        require_put_right(scene, verb)
    return codes


# ---- what came of it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("work", [name for name in WORKS if name not in ("prune", "undo")])
def test_what_does_not_fit_is_told_and_done_when_there_is_room(tmp_path: Path, work: str) -> None:
    codes = exit_codes(work, tmp_path)
    assert {"12"} <= codes.keys() <= {"0", "12"}
    assert codes["12"] > MOMENTS // 3


def test_a_prune_makes_room_on_a_disk_that_has_none(tmp_path: Path) -> None:
    assert exit_codes("prune", tmp_path) == {"0": MOMENTS + 1}


def test_what_was_replaced_is_put_back_when_there_is_room(tmp_path: Path) -> None:
    """Files only change names; what is told is that the databases, on the same disk, cannot be written."""
    codes = exit_codes("undo", tmp_path)
    assert codes.keys() <= {"0", "12"}


def test_a_reserve_that_would_be_touched_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = small_scene(tmp_path, monkeypatch)
    interrupted.grown(scene)
    before, held = scene.published(), sizes(scene)
    monkeypatch.setenv("PREFLIGHT_STORE_KEEP_FREE", "8000 TB")
    answer = scene.call(*CHECKPOINT)
    assert (answer.code, "no-space" in answer.findings()) == (12, True)
    assert (scene.published(), sizes(scene)) == (before, held)
    assert scene.call(*PRUNE).code == 0, "a prune only takes away"
    monkeypatch.setenv("PREFLIGHT_STORE_KEEP_FREE", "0 B")
    assert scene.call(*CHECKPOINT).code == 0
    assert scene.left_half_way() == []


def sizes(scene: Scene) -> dict[str, int]:
    """What lies in the store but for reports, and a checkpoint's folder that was begun."""
    files = (path for top in ("archive", "checkpoints") for path in (scene.store / top).rglob("*") if path.is_file())
    return {str(path.relative_to(scene.store)): path.stat().st_size for path in files}
