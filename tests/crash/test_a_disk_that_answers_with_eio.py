"""A disk that fails under a checkpoint, a prune or a restore: told by its number, nothing lost, put right afterwards.

The kernel itself ends the calls of a real process with EIO, in SQLite as in Python: first those of one kind on one
kind of file for as long as the verb runs, then single ones, drawn at random from all that it makes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.interrupted import (
    Scene,
    answer_of,
    cut_short,
    first_time,
    grown,
    put_back,
    require_nothing_lost,
    require_put_right,
    said,
    small_scene,
    to_be_pruned,
    what_stays,
    words,
)
from tests.system_calls import LINUX, READS, Call, Decision, Fails

pytestmark = [pytest.mark.slow, LINUX]

SEED = 25215


@dataclass
class Broken:
    """Every call of these names on files of this pattern fails, after so many of them or a file of another pattern."""

    names: frozenset[str]
    pattern: str
    after: int | str
    passed: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)

    def __call__(self, call: Call) -> Decision | Fails:
        if isinstance(self.after, str) and _is_of(call, self.after):
            self.after = 0
        if call.name not in self.names or not _is_of(call, self.pattern):
            return Decision.PASS
        if isinstance(self.after, str) or self.passed < self.after:
            self.passed += 1
            return Decision.PASS
        self.failed += 1
        return Fails()


def _is_of(call: Call, pattern: str) -> bool:
    return any(fnmatchcase(str(path), pattern) for path in call.paths)


@dataclass
class Nth:
    """One call fails, whatever it is."""

    number: int
    seen: int = 0

    def __call__(self, call: Call) -> Decision | Fails:
        self.seen += 1
        return Fails() if self.seen == self.number else Decision.PASS


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return small_scene(tmp_path, monkeypatch)


WRITES, FLUSHES = frozenset({"write"}), frozenset({"fsync", "fdatasync"})
NAMING = frozenset({"rename", "link"})
REMOVING = frozenset({"unlink", "unlinkat", "rmdir"})
GOAL_THREAD = "*/sessions/*-{thread}.jsonl"


@pytest.mark.parametrize(
    ("before", "verb", "broken", "code", "told"),
    [
        # the source, from the first byte and from the middle of the archiving on
        (first_time, "checkpoint", (READS, GOAL_THREAD, 0), 12, {"checkpoint-failed"}),
        (first_time, "checkpoint", (READS, GOAL_THREAD, "*.zst"), 12, {"archive-failed"}),
        (grown, "checkpoint", (READS, GOAL_THREAD, "*.frames.jsonl"), 12, {"archive-failed"}),
        # the archive
        (first_time, "checkpoint", (WRITES, "*.zst", 1), 12, {"archive-failed"}),
        (first_time, "checkpoint", (FLUSHES, "*.zst", 1), 12, {"archive-failed"}),
        (first_time, "checkpoint", (WRITES, "*.frames.jsonl", 2), 12, {"archive-failed"}),
        (first_time, "checkpoint", (FLUSHES, "*.frames.jsonl", 2), 12, {"archive-failed"}),
        (grown, "checkpoint", (WRITES, "*.tail", 0), 12, {"archive-failed"}),
        (grown, "checkpoint", (FLUSHES, "*.tail", 0), 12, {"archive-failed"}),
        (grown, "checkpoint", (WRITES, "*.zst", 0), 12, {"archive-failed"}),
        (grown, "checkpoint", (FLUSHES, "*/archive/*", 0), 12, {"archive-failed"}),
        # the resume rollout, the databases, the manifest
        (grown, "checkpoint", (WRITES, "*/threads/*", 0), 12, {"checkpoint-failed"}),
        (grown, "checkpoint", (frozenset({"pwrite64"}), "*/checkpoints/*/databases/*", 0), 12, {"checkpoint-failed"}),
        (grown, "checkpoint", (FLUSHES, "*/.manifest.json.*", 0), 12, {"checkpoint-failed"}),
        (grown, "checkpoint", (NAMING, "*/.manifest.json.*", 0), 12, {"checkpoint-failed"}),
        # taking away
        (to_be_pruned, "prune", (NAMING, "*/manifest.json", 0), 0, {"not-removed"}),
        (to_be_pruned, "prune", (REMOVING, "*/checkpoints/*", 0), 0, {"not-removed"}),
        (to_be_pruned, "prune", (REMOVING, "*.zst", 0), 0, {"not-removed"}),
        (to_be_pruned, "prune", (frozenset({"getdents64"}), "*/archive/*", 0), 0, {"not-removed"}),
        # putting back
        (cut_short, "restore", (READS, "*.zst", 0), 12, {"unverified"}),
        (cut_short, "restore", (WRITES, "*.restore-*", 0), 12, {"unverified"}),
        (cut_short, "restore", (FLUSHES, "*.restore-*", 0), 12, {"unverified"}),
        (cut_short, "restore", (NAMING, "*.restore-*", 1), 12, {"unverified"}),
        (cut_short, "restore", (NAMING, "*.kept-*", 0), 12, {"unverified"}),
        (cut_short, "restore", (WRITES, "*/restores/*", 0), 12, {"unverified"}),
        (cut_short, "restore --to", (WRITES, "*/.new.*", 0), 12, {"unverified"}),
        (cut_short, "restore --to", (frozenset({"rename"}), "*/.new.*", 1), 12, {"unverified"}),
        (put_back, "undo", (NAMING, "*.kept-*", 0), 12, {"unverified"}),
    ],
)
def test_one_kind_of_call_fails(
    scene: Scene,
    before: Callable[[Scene], None],
    verb: str,
    broken: tuple[frozenset[str], str, int | str],
    code: int,
    told: set[str],
) -> None:
    before(scene)
    names, pattern, after = broken
    fault = Broken(names, pattern.format(thread=scene.thread), after)
    stays = what_stays(scene, verb)
    answer = answer_of(scene.watched_call(words(scene, verb), fault))
    assert fault.failed, "the disk never failed"
    assert answer.code == code, answer
    assert told <= said(answer), answer
    require_nothing_lost(scene, verb, stays)
    require_put_right(scene, verb)


@pytest.mark.parametrize(
    ("before", "verb"),
    [
        (first_time, "checkpoint"),
        (grown, "checkpoint"),
        (to_be_pruned, "prune"),
        (cut_short, "restore"),
        (cut_short, "restore --to"),
        (put_back, "undo"),
    ],
)
def test_single_calls_fail(scene: Scene, before: Callable[[Scene], None], verb: str) -> None:
    """Whichever it is: a number that is told, no fault of preflight's own, and the next call does all of it."""
    before(scene)
    scene.save()
    choice = random.Random(SEED)
    stays = what_stays(scene, verb)
    everything = Nth(-1)
    assert answer_of(scene.watched_call(words(scene, verb), everything)).code == 0
    for _ in range(12):
        scene.lay_out()
        one = Nth(choice.randrange(everything.seen) + 1)
        answer = answer_of(scene.watched_call(words(scene, verb), one))
        where = f"seed {SEED}, call {one.number} of {everything.seen}: {answer}"
        assert answer.code in (0, 12, 13, 75) or said(answer) == {"damaged-file"}, where
        require_nothing_lost(scene, verb, stays)
        require_put_right(scene, verb)
