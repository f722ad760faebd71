"""Killed at 200 random moments of a first archive, a next one, a prune and a restore: nothing published is lost.

Each time a real process, running the real verb, gets SIGKILL at one of the system calls that change the disk,
drawn at random, kind by kind; a write may be cut in its middle. The next call of the same verb, by nobody's
hand prepared, then gives what an undisturbed one gives. Now and then that one is killed as well.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.interrupted import CHECKPOINT, PRUNE, Published, Scene, answer_of, digests, small_scene
from tests.system_calls import CHANGES, LINUX, Call, Decision, KillTorn

pytestmark = [pytest.mark.slow, LINUX]

SEED = 25215
KILLED = -9


@dataclass
class Moment:
    """Lets a number of changes pass and then kills; if it is at a write, a part of that is still written."""

    after: int
    torn: float
    seen: list[tuple[str, str]] = field(default_factory=list, init=False)

    def __call__(self, call: Call) -> Decision | KillTorn:
        if call.name not in CHANGES:
            return Decision.PASS
        self.seen.append((call.name, call.paths[0].suffix))
        if len(self.seen) <= self.after:
            return Decision.PASS
        return KillTorn(self.torn) if self.torn else Decision.KILL


class Killer:
    """Kills calls of one verb at random moments, so many times; `lay_out` puts the scene back as it was before that.

    An undisturbed call comes first, and stays to be looked at: the scene is then to be laid out.
    """

    def __init__(
        self, scene: Scene, words: tuple[str | Path, ...], times: int, lay_out: Callable[[], None], seed: int = SEED
    ) -> None:
        self._scene, self._words, self._times, self.lay_out = scene, words, times, lay_out
        self._choice = random.Random(seed)
        self._seed = seed
        whole = Moment(sys.maxsize, 0.0)
        undisturbed = answer_of(scene.watched_call(words, whole))
        assert undisturbed.code == 0, undisturbed
        self._changes = whole.seen
        kinds = sorted(set(whole.seen))
        self._kinds = kinds + 5 * [kind for kind in kinds if "write" in kind[0]]

    def kills(self) -> Iterator[str]:
        """A sentence after each kill. The scene is then to be laid out, or left for the repair to be killed as well."""
        while self._times:
            moment = self._moment()
            ended = self._scene.watched_call(self._words, moment)
            if ended.status == KILLED:
                self._times -= 1
                where = f"after {moment.after} of {len(self._changes)} changes, {moment.torn} of {moment.seen[-1]}"
                yield f"seed {self._seed}, {where}, {self._times} to go"
            else:  # a repair, for which less is to be done
                self.lay_out()

    def _moment(self) -> Moment:
        """Each kind of change on each kind of file has its turns, writes six: SQLite's would have nearly all."""
        kind = self._choice.choice(self._kinds)
        after = self._choice.choice([index for index, one in enumerate(self._changes) if one == kind])
        return Moment(after, self._choice.choice([0.0, self._choice.random(), self._choice.random(), 1.0]))

    def is_repair_killed_too(self) -> bool:
        return self._choice.random() < 0.25


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return small_scene(tmp_path, monkeypatch)


def test_while_checkpoints_are_made_for_the_first_time(scene: Scene) -> None:
    killed_checkpoints(scene)


def test_while_what_was_added_is_archived(scene: Scene) -> None:
    """Frames of a few nights are made into one; the night before published a checkpoint."""
    assert scene.call(*CHECKPOINT).code == 0
    for seed in range(3):
        scene.grow(20_000, seed)
        assert scene.call(*CHECKPOINT).code == 0
    scene.grow(150_000, 9)
    killed_checkpoints(scene)


def killed_checkpoints(scene: Scene) -> None:
    scene.save()
    originals, before = scene.originals(), scene.published()
    killer = Killer(scene, CHECKPOINT, 50, partial(scene.lay_out, only_store=True))
    held = threads_held(scene)
    killer.lay_out()
    for where in killer.kills():
        assert scene.originals() == originals, where
        left = scene.published()
        before.require_in(left)
        if killer.is_repair_killed_too():
            continue
        require_as_undisturbed(scene, left, held, where)
        assert scene.originals() == originals, where
        killer.lay_out()


def threads_held(scene: Scene) -> dict[str, str]:
    """The resume rollouts of the newest checkpoint, by their place in it."""
    newest = max(scene.store.glob("checkpoints/*"))
    return digests(newest / "threads")


def require_as_undisturbed(scene: Scene, left: Published, held: dict[str, str], where: str) -> None:
    again = scene.call(*CHECKPOINT)
    assert again.code == 0, (where, again)
    left.require_in(scene.published())
    assert threads_held(scene) == held, where
    scene.require_whole_archives(1)
    assert scene.left_half_way() == [], where
    verified = scene.call("verify", "--read-data")
    assert verified.code == 0, (where, verified)


def test_while_checkpoints_are_pruned(scene: Scene) -> None:
    """Of six checkpoints four go, and with them the first generation of an archive; one that stays is pinned."""
    assert scene.call(*CHECKPOINT).code == 0
    scene.grow(20_000, 1)
    assert scene.call(*CHECKPOINT).code == 0
    scene.rewrite()
    for seed in range(4):
        assert scene.call(*CHECKPOINT).code == 0
        if seed == 1:
            assert scene.call("pin", "latest").code == 0
        scene.grow(20_000, seed)
    scene.save()
    originals = scene.originals()
    killer = Killer(scene, PRUNE, 50, partial(scene.lay_out, only_store=True))
    stays, wanted = scene.published(), contents(scene)
    assert (len(list(scene.store.glob("checkpoints/*"))), len(list(scene.store.glob("archive/*/*.zst")))) == (2, 3)
    killer.lay_out()
    for where in killer.kills():
        stays.require_in(scene.published())
        if killer.is_repair_killed_too():
            continue
        again = scene.call(*PRUNE)
        assert again.code == 0, (where, again)
        assert contents(scene) == wanted, where
        assert scene.left_half_way() == [], where
        assert scene.call("verify", "--read-data").code == 0, where
        assert scene.originals() == originals, where
        killer.lay_out()


def contents(scene: Scene) -> dict[str, str]:
    return digests(scene.store)


@dataclass
class Restored:
    """The thread has lost its end, its row and its goal; the checkpoint has all of them."""

    scene: Scene

    def __post_init__(self) -> None:
        scene = self.scene
        self.whole = scene.rollout.read_bytes()
        assert scene.call(*CHECKPOINT).code == 0
        (reduced,) = scene.store.glob(f"checkpoints/*/threads/{scene.thread}/*")
        self.reduced = reduced.read_bytes()
        assert len(self.reduced) < len(self.whole)
        self.today = self.whole[: -len(self.whole) // 3] + b"x\n"
        scene.rollout.write_bytes(self.today)
        scene.execute("state_5.sqlite", "DELETE FROM threads WHERE id = ?", scene.thread)
        scene.execute("goals_1.sqlite", "DELETE FROM thread_goals WHERE thread_id = ?", scene.thread)
        self.others = {name: digest for name, digest in digests(scene.home).items() if self.is_other(name)}
        self.published = scene.published()
        scene.save()

    def is_other(self, name: str) -> bool:
        return name.endswith(".jsonl") and self.scene.thread not in name

    def require_nothing_lost(self, now: set[bytes], where: str) -> None:
        """One of these rollouts has its place, whole; today's is not lost; nothing else is touched."""
        rollout = self.scene.rollout
        assert rollout.read_bytes() in now, where
        assert self.today in [one.read_bytes() for one in rollout.parent.iterdir() if one.name[0] != "."], where
        found = digests(self.scene.home)
        assert {name: digest for name, digest in found.items() if self.is_other(name)} == self.others, where
        self.published.require_in(self.scene.published())

    def require_restored(self, whole: bytes, where: str) -> None:
        scene = self.scene
        assert scene.rollout.read_bytes() == whole, where
        (row,) = [one for one in scene.rows("state_5.sqlite", "threads") if one["id"] == scene.thread]
        assert row["rollout_path"] == str(scene.rollout), where
        (goal,) = scene.rows("goals_1.sqlite", "thread_goals")
        assert goal["status"] == "paused", where
        assert scene.left_half_way() == [], where


@pytest.fixture
def restored(scene: Scene) -> Restored:
    return Restored(scene)


@pytest.mark.parametrize("what", ["--full", "--resume"])
def test_while_a_thread_is_put_back_into_its_place(restored: Restored, what: str) -> None:
    scene = restored.scene
    words = ("restore", "latest", scene.thread, what, "--in-place", "--yes")
    wanted = restored.whole if what == "--full" else restored.reduced
    killer = Killer(scene, words, 14, scene.lay_out, seed=SEED + len(what))
    restored.require_restored(wanted, "undisturbed")
    killer.lay_out()
    for where in killer.kills():
        restored.require_nothing_lost({restored.today, wanted}, where)
        if killer.is_repair_killed_too():
            continue
        again = scene.call(*words)
        assert again.code == 0, (where, again)
        restored.require_nothing_lost({restored.today, wanted}, where)
        restored.require_restored(wanted, where)
        killer.lay_out()


def test_while_that_is_undone(restored: Restored) -> None:
    scene = restored.scene
    words = ("restore", "--undo", "--yes")
    assert scene.call("restore", "latest", scene.thread, "--full", "--in-place", "--yes").code == 0
    scene.save("restored")
    killer = Killer(scene, words, 11, partial(scene.lay_out, "restored"))
    killer.lay_out()
    for where in killer.kills():
        restored.require_nothing_lost({restored.today, restored.whole}, where)
        if killer.is_repair_killed_too():
            continue
        again = scene.call(*words)
        # Nothing is left to be undone when all of it was, and the call was killed on its way out.
        assert again.code == 0 or again.envelope["errors"][0]["code"] == "usage", (where, again)
        restored.require_nothing_lost({restored.today, restored.whole}, where)
        assert scene.rollout.read_bytes() == restored.today, where
        assert scene.thread not in [row["id"] for row in scene.rows("state_5.sqlite", "threads")], where
        assert scene.rows("goals_1.sqlite", "thread_goals") == [], where
        assert scene.left_half_way() == [], where
        killer.lay_out()


def test_while_a_new_home_is_made(restored: Restored) -> None:
    scene = restored.scene
    new, another = scene.place / "new", scene.place / "another"
    words = ("restore", "latest", scene.thread, "--full", "--yes", "--to")
    originals = scene.originals()
    killer = Killer(scene, (*words, new), 11, scene.lay_out)
    files = {path.relative_to(new) for path in new.rglob("*") if path.is_file()}
    killer.lay_out()
    for where in killer.kills():
        restored.require_nothing_lost({restored.today}, where)
        if killer.is_repair_killed_too():
            continue
        complete = new.exists()
        again = scene.call(*words, another if complete else new)
        assert again.code == 0, (where, again)
        assert {path.relative_to(new) for path in new.rglob("*") if path.is_file()} == files, where
        assert (new / scene.rollout.relative_to(scene.home)).read_bytes() == restored.whole, where
        assert scene.left_half_way() == [], where
        assert {path.name for path in scene.place.iterdir()} <= {"home", "store", "new", "another"}, where
        assert scene.originals() == originals, where
        killer.lay_out()
