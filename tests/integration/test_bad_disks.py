"""A disk with no room for a checkpoint, or that fills up at any moment of a run: no goal stays paused for it.

The disk is a real one, small and in memory, in a mount namespace of its own. The home lies elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from tests.small_disk import on_a_small_disk
from tests.troubled_home import PATIENT, SOUND, Answer, Goals, TroubledHome, make_troubled_home

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="mount namespaces are Linux's")


@pytest.fixture(autouse=True)
def no_codex(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(user))


@pytest.fixture
def home(tmp_path: Path) -> TroubledHome:
    return make_troubled_home(tmp_path)


# ---- too little room from the beginning ---------------------------------------------------------------------


def test_a_reserve_that_the_disk_does_not_have_is_said_before_anything_is_copied(
    home: TroubledHome, tmp_path: Path
) -> None:
    goals, rollouts = home.goals(), home.digests()
    config = tmp_path / "preflight.toml"
    config.write_text('[store]\nkeep_free = "8000 TB"\n')
    answer = home.call("run", "--config", config)
    assert (answer.code, answer.findings().keys()) == (12, {"no-space"})
    assert answer.findings()["no-space"]["remedy"]
    assert answer.data["checkpoint"] is None
    assert home.goals() == goals
    assert home.digests() == rollouts
    assert not list(home.store.glob("*/checkpoints/*")), "what was begun is of no use, and may be what fills the disk"
    roomy = home.call("run")
    assert (roomy.code, roomy.findings()) == (0, {})


# ---- a disk that is full ------------------------------------------------------------------------------------

TRY = "import sys; from tests.integration import test_bad_disks as t; print(t.told(*sys.argv[1:]))"


def told(name: str, folder: str) -> str:
    """What the process on the small disk prints: how often a run ended with each exit code."""
    works = (fill_up_the_stores_disk, fill_up_the_disk_of_both)
    (work,) = (work for work in works if work.__name__ == name)
    return json.dumps(work(folder))


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


def run_that_meets_a_full_disk(home: TroubledHome, disk: Path, moment: int) -> tuple[Answer, bool]:
    """A run in a process of its own, before whose n-th step on that disk it fills up; False when it came to no such."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        steps, full = 0, False

        def count_steps(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal steps, full
            path = arguments[0] if arguments and event in STEPS else None
            if full or not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(os.fspath(disk)):
                return
            steps += 1
            if steps == moment:
                full = True
                fill(disk)

        sys.addaudithook(count_steps)
        answer = home.call("run")
        os.write(writer, json.dumps([answer.code, answer.envelope, full]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        code, envelope, full = json.loads(told.read())
    os.waitpid(child, 0)
    return Answer(code, envelope), full


#: What an audit hook sees of a process that changes something on a disk.
STEPS = frozenset({"open", "os.mkdir", "os.chmod", "os.link", "os.rename", "os.remove", "sqlite3.connect"})


def fill_up_the_stores_disk(folder: str) -> Counter[int]:
    """The store is on the disk that fills up, the home is not: whatever fails, no goal may stay paused."""
    codes: Counter[int] = Counter()
    for moment, home, disk in laid_anew(folder, lambda disk, place: make_troubled_home(place, store=disk / "store")):
        goals, rollouts = home.goals(), home.digests()
        answer, full = run_that_meets_a_full_disk(home, disk, moment)
        codes[answer.code] += 1
        if answer.code != 0:
            told = {*answer.findings(), *(one["code"] for one in answer.envelope["errors"])}
            assert (answer.code, answer.verdict) == (12, "block"), (moment, answer)
            assert told == {"no-space"}, (moment, answer)
            assert home.goals() == goals, (moment, answer)
        assert home.digests() == rollouts
        (disk / "filler").unlink(missing_ok=True)
        finishes_well(home, answer, goals, rollouts)
        if not full:
            return codes
    raise AssertionError("a run has an end")


def fill_up_the_disk_of_both(folder: str) -> Counter[int]:
    """With the home on it too a goal cannot be put back: SQLite needs room even to read. Then that is what is told."""
    codes: Counter[int] = Counter()
    for moment, home, disk in laid_anew(folder, lambda disk, place: make_troubled_home(disk / "user")):
        goals, rollouts = home.goals(), home.digests()
        answer, full = run_that_meets_a_full_disk(home, disk, moment)
        codes[answer.code] += 1
        (disk / "filler").unlink(missing_ok=True)
        if home.goals() != goals and answer.code != 0:
            (error,) = answer.envelope["errors"]
            assert (answer.code, error["code"]) == (1, "goals-stay-paused"), (moment, answer)
            assert error["hint"] == "preflight resume-goals"
        elif answer.code != 0:
            told = {*answer.findings(), *(one["code"] for one in answer.envelope["errors"])}
            assert told <= {"no-space", "goals-stay-paused"}, (moment, answer)
        assert home.digests() == rollouts
        finishes_well(home, answer, goals, rollouts)
        if not full:
            return codes
    raise AssertionError("a run has an end")


def laid_anew(folder: str, make: Callable[[Path, Path], TroubledHome]) -> Iterator[tuple[int, TroubledHome, Path]]:
    disk = Path(folder, "disk")
    for moment in count(1, 3):
        home = make(disk, Path(folder, str(moment)))
        yield moment, home, disk
        shutil.rmtree(home.store)
        shutil.rmtree(home.path)


def finishes_well(home: TroubledHome, answer: Answer, goals: Goals, rollouts: dict[str, str]) -> None:
    """With room again nothing is in the way: goals come back, a run succeeds, and after it `finish` has no finding."""
    if answer.code != 0:
        assert home.call("resume-goals").code == 0
        assert home.goals() == goals
        answer = home.call("run")
        assert (answer.code, answer.findings()) == (0, {}), answer
    for thread_id in (SOUND, PATIENT):
        home.checkpoint_of(thread_id, answer)
    finished = home.call("finish")
    assert (finished.code, finished.findings()) == (0, {}), finished
    assert home.goals() == goals
    assert home.digests() == rollouts


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("work", [fill_up_the_stores_disk, fill_up_the_disk_of_both])
def test_a_disk_that_fills_up_at_any_moment_of_a_run(tmp_path: Path, work: Callable[[str], Counter[int]]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    path = "/bin:/usr/bin:/sbin:/usr/sbin"
    codes = json.loads(
        on_a_small_disk(disk, "4m", TRY, work.__name__, tmp_path, PATH=path, PREFLIGHT_STORE_KEEP_FREE="0 B")
    )
    assert {"0", "12"} <= codes.keys() <= {"0", "1", "12"}
    assert codes["12"] > 5
