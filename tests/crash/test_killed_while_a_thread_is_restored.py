"""A restore that is killed at any point: no byte is lost, and the next call puts everything right by itself."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from preflight.checkpoint.restore_record import Phase
from preflight.codex.rollout import parse_name
from tests import killing
from tests.fixtures_codex import CodexHome, thread_id
from tests.restoring import Bench

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="there is no fork"),
    pytest.mark.slow,
]

THREAD = thread_id(1)


@dataclass
class Scene:
    """A home in which the thread has lost its end, its row and its goal; the checkpoint has all of them."""

    folder: Path

    def __post_init__(self) -> None:
        self._saved = self.folder / "saved"
        self.place = self.folder / "at"
        self.codex = CodexHome(self.place / "home")
        self.bench = Bench(self.codex.path)
        self.rollout = self.codex.thread(1, size=20_000, ordinal=0)
        self.codex.goal(1)
        self.whole = self.rollout.read_bytes()
        self.bench.checkpoint(THREAD)
        self.today = self.whole[:-50] + b"x\n"
        self.rollout.write_bytes(self.today)
        self.codex.execute("goals_1.sqlite", "DELETE FROM thread_goals")
        self.codex.execute("state_5.sqlite", "DELETE FROM threads")
        self.codex.execute(
            "thread_history_1.sqlite", f"INSERT INTO thread_history_projection_state VALUES ('{THREAD}', 30000, 7)"
        )
        self.save()

    def save(self) -> None:
        shutil.rmtree(self._saved, ignore_errors=True)
        shutil.copytree(self.place, self._saved)

    def lay_out(self) -> None:
        shutil.rmtree(self.place)
        shutil.copytree(self._saved, self.place)

    def killed_at_every_point(self, work: Callable[[], object]) -> Iterator[int]:
        for point in killing.at_every_file_operation(work):
            yield point
            self.lay_out()

    def versions(self) -> set[bytes]:
        """The bytes of every file of the thread in its folder, whatever its name."""
        return {path.read_bytes() for path in self.rollout.parent.iterdir() if not path.name.startswith(".")}

    def check_never_without(self, point: int) -> None:
        """What Codex would find: one of the two, whole; and today's is not lost."""
        seen = [path for path in self.codex.path.rglob("*") if path.is_file() and parse_name(path.name)]
        assert seen == [self.rollout], point
        assert self.rollout.read_bytes() in (self.today, self.whole), point
        assert self.today in self.versions(), point

    def check_restored(self, point: int) -> None:
        assert self.rollout.read_bytes() == self.whole, point
        assert self.today in self.versions(), point
        (row,) = self.codex.rows("state_5.sqlite", "threads")
        assert (row["id"], row["rollout_path"]) == (THREAD, str(self.rollout)), point
        (goal,) = self.codex.rows("goals_1.sqlite")
        assert goal["status"] == "paused", point
        assert self.codex.rows("thread_history_1.sqlite", "thread_history_projection_state") == [], point
        self.check_tidy(point)

    def check_tidy(self, point: int) -> None:
        assert self.bench.left_behind() == [], point
        phases = {record.phase for record in self.bench.restores().all()}
        assert phases <= {Phase.DONE, Phase.CANCELLED, Phase.UNDONE}, point


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("scene"))


def test_killed_in_place_it_is_completed_by_the_next_restore_and_can_be_undone(scene: Scene) -> None:
    """At every other point the next call is an undo, where there is something to undo."""
    undone = 0
    for point in scene.killed_at_every_point(lambda: scene.bench.restore(THREAD, full=True)):
        scene.check_never_without(point)
        if point % 2 and scene.rollout.read_bytes() == scene.whole:
            undone += 1
            scene.bench.undo()
            assert scene.rollout.read_bytes() == scene.today, point
            assert scene.codex.rows("state_5.sqlite", "threads") == [], point
            assert scene.codex.rows("goals_1.sqlite") == [], point
            scene.check_tidy(point)
        else:
            scene.bench.restore(THREAD, full=True)
            scene.check_restored(point)
    assert undone > 1


def test_a_killed_undo_is_completed_by_the_next_one(scene: Scene) -> None:
    scene.lay_out()
    scene.bench.restore(THREAD, full=True)
    shutil.copytree(scene.place, scene.folder / "restored")
    for point in killing.at_every_file_operation(scene.bench.undo):
        scene.check_never_without(point)
        records = scene.bench.restores().all()
        if any(record.phase is Phase.DONE and record.undoes is None for record in records):
            scene.bench.undo()
        assert scene.rollout.read_bytes() == scene.today, point
        assert scene.whole in scene.versions(), point
        shutil.rmtree(scene.place)
        shutil.copytree(scene.folder / "restored", scene.place)
    scene.lay_out()


def test_killed_on_the_way_to_a_new_home_there_is_all_of_it_or_none(scene: Scene) -> None:
    scene.lay_out()
    new = scene.place / "new"
    complete = []
    for point in scene.killed_at_every_point(lambda: scene.bench.restore(THREAD, full=True, to=new)):
        complete.append(new.exists())
        if not new.exists():
            scene.bench.restore(THREAD, full=True, to=new)
        else:
            scene.bench.restore(THREAD, full=True, to=scene.place / "another")
        assert (new / scene.rollout.relative_to(scene.codex.path)).read_bytes() == scene.whole, point
        assert (new / "goals_1.sqlite").exists(), point
        assert [path.name for path in scene.place.iterdir() if path.name.startswith(".")] == [], point
        assert scene.rollout.read_bytes() == scene.today, point
        scene.check_tidy(point)
    assert (complete[0], complete[-1]) == (False, True)
