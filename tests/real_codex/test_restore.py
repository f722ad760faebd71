"""A thread is restored and the real Codex lists it, opens it and asks the model what it would have asked that night.

In its own home after a day of other turns, in an emptied one, and in a new one on another path; by the release that
the checkpoint was made under, and by one before or after it. Its goal is there, paused, and nothing starts by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.real_codex.app_server import AppServer
from tests.real_codex.codex_release import CodexRelease
from tests.real_codex.conftest import Codex, Shelf
from tests.real_codex.homes import LOOPBACK, CodexHome
from tests.real_codex.mock_model import MockModel
from tests.real_codex.next_request import ids_in, next_input
from tests.real_codex.preflight_command import Preflight, Report
from tests.real_codex.threads import KINDS

pytestmark = [pytest.mark.real_codex, pytest.mark.slow]

MakeNight = Callable[..., "Night"]

OBJECTIVE = "Keep it tidy until somebody says stop"
# The release that made the thread, its kind, and the one that is in use when it is restored.
STORIES = [
    ("0.134.0", "compacted", "0.134.0"),
    ("0.134.0", "compacted", "0.169.0"),
    ("0.134.0", "rolled-back", "0.134.0"),
    ("0.147.0", "compacted", "0.147.0"),
    ("0.147.0", "compacted-automatically", "0.169.0"),
    ("0.169.0", "compacted", "0.169.0"),
    ("0.169.0", "compacted-legacy", "0.169.0"),
    ("0.169.0", "forked", "0.169.0"),
    ("0.169.0", "reverted", "0.169.0"),
    ("0.169.0", "small", "0.169.0"),
]
# 0.134 opens a paginated thread, and lists none, restored or not.
NEVER_LISTED = [("0.169.0", "compacted", "0.134.0")]


@dataclass(frozen=True, slots=True)
class Night:
    """A home with a checkpoint of the thread, and the rollouts of that night, which preflight does not know of.

    `release` is in use, `opened_by` is the one that opens the thread in the end.
    """

    home: CodexHome
    thread: str
    release: CodexRelease
    opened_by: CodexRelease
    known: set[str]
    expected: Mapping[Path, list[Any]]
    preflight: Preflight
    provider: str
    is_listed: bool

    def restore(self, *arguments: str | Path, what: str = "--resume") -> Report:
        done = self.preflight("restore", "latest", self.thread, what, *arguments)
        assert done.code == 0, str(done)
        return done

    def check(self, home: CodexHome) -> None:
        """Listed, openable, its goal paused, and the input of that night; nothing is asked before we do."""
        with MockModel() as model:
            home.point_at(model.url, self.provider)
            with AppServer(self.opened_by, home) as server:
                assert (self.thread in [thread["id"] for thread in server.list_threads()]) is self.is_listed
                assert server.resume(self.thread)["id"] == self.thread
                goal = server.goal(self.thread)
                assert goal is not None
                assert (goal["objective"], goal["status"]) == (OBJECTIVE, "paused")
                assert server.is_idle(self.thread)
            assert [request for request in model.requests if request.input] == []
        asked = next_input(self.opened_by, home, self.thread, self.known, self.provider)
        assert asked == self.expected[home.path]


@pytest.fixture
def elsewhere(home: CodexHome) -> Iterator[CodexHome]:
    """A place beside the home's, with no home in it yet."""
    other = CodexHome(home.place.with_name("other"))
    yield other
    shutil.rmtree(other.place)


@pytest.fixture
def make_night(shelf: Shelf, home: CodexHome, elsewhere: CodexHome, codex: Codex) -> MakeNight:
    """What is expected is asked from all rollouts of that night, whole and alone, at either place: a home's path is
    part of what 0.147 and later tell the model."""

    def make(made_by: str, kind: str, in_use: str, opened_by: str | None = None) -> Night:
        release, opener, provider = codex(in_use), codex(opened_by or in_use), KINDS[kind].provider
        kept = shelf.put_back(home, made_by, kind)
        known = ids_in(home.path.glob("sessions/*/*/*/*.jsonl"))
        expected = {}
        for place in (home, elsewhere):
            place.make()
            shutil.copytree(kept.saved / "sessions", place.path / "sessions")
            expected[place.path] = next_input(opener, place, kept.thread_id, known, provider)
        shutil.rmtree(elsewhere.path)
        shelf.put_back(home, made_by, kind)
        with AppServer(release, home) as server:
            server.set_goal(kept.thread_id, objective=OBJECTIVE, status="active")
        preflight = Preflight(home)
        made = preflight("run", "--no-pause", "--archive", "always", "--thread", kept.thread_id)
        assert made.code in (0, 3), str(made)
        listed = (made_by, kind, opener.version) not in NEVER_LISTED
        return Night(home, kept.thread_id, release, opener, known, expected, preflight, provider, listed)

    return make


def a_day_later(night: Night) -> None:
    """Turns that the checkpoint does not know, and the goal cleared."""
    with MockModel() as model:
        night.home.point_at(model.url, night.provider)
        with AppServer(night.release, night.home) as server:
            server.call("thread/goal/clear", {"threadId": night.thread})
            server.resume(night.thread)
            server.turn(night.thread, "[[print 3000]]")
            server.compact(night.thread)
            server.turn(night.thread, "something that was not said that night")


@pytest.mark.parametrize("what", ["--resume", "--full"])
@pytest.mark.parametrize(("made_by", "kind", "in_use"), STORIES)
def test_in_its_own_home_after_another_day(
    made_by: str, kind: str, in_use: str, what: str, make_night: MakeNight
) -> None:
    night = make_night(made_by, kind, in_use)
    before = night.home.rollouts(night.thread)[-1].read_bytes()
    a_day_later(night)
    done = night.restore("--in-place", "--yes", what=what)
    restored = Path(done.json["data"]["files"][0]["path"]).read_bytes()
    assert restored == before if what == "--full" else len(restored) <= len(before) or kind in ("forked", "reverted")
    assert done.json["data"]["goal"] == "inserted-paused"
    assert len(done.json["data"]["kept"]) == 1
    night.check(night.home)


@pytest.mark.parametrize("what", ["--resume", "--full"])
@pytest.mark.parametrize(("made_by", "kind", "in_use"), STORIES)
def test_in_a_new_home_on_another_path(
    made_by: str, kind: str, in_use: str, what: str, make_night: MakeNight, elsewhere: CodexHome
) -> None:
    night = make_night(made_by, kind, in_use)
    shutil.rmtree(night.home.path)
    night.preflight.home.path.mkdir()  # the new home must not need the old one
    night.restore("--to", elsewhere.path, what=what)
    night.check(elsewhere)


@pytest.mark.parametrize(
    ("made_by", "kind", "in_use", "opened_by", "what"),
    [
        ("0.134.0", "compacted", "0.134.0", "0.147.0", "--full"),
        ("0.134.0", "compacted", "0.134.0", "0.169.0", "--resume"),
        ("0.134.0", "compacted", "0.147.0", "0.134.0", "--resume"),
        ("0.147.0", "compacted", "0.147.0", "0.169.0", "--full"),
        ("0.147.0", "compacted", "0.147.0", "0.134.0", "--resume"),
        ("0.147.0", "compacted", "0.169.0", "0.147.0", "--resume"),
        ("0.169.0", "compacted-legacy", "0.169.0", "0.147.0", "--resume"),
        ("0.169.0", "compacted-legacy", "0.169.0", "0.134.0", "--full"),
        ("0.169.0", "compacted", "0.169.0", "0.147.0", "--full"),
        ("0.169.0", "compacted", "0.169.0", "0.147.0", "--resume"),
        ("0.169.0", "compacted", "0.169.0", "0.134.0", "--resume"),
    ],
)
def test_by_the_release_after_the_update_and_by_the_one_before(
    made_by: str, kind: str, in_use: str, opened_by: str, what: str, make_night: MakeNight, elsewhere: CodexHome
) -> None:
    night = make_night(made_by, kind, in_use, opened_by)
    a_day_later(night)
    night.restore("--to", elsewhere.path, what=what)
    night.restore("--in-place", "--yes", what=what)
    night.check(night.home)
    night.check(elsewhere)


@pytest.mark.parametrize("in_use", ["0.134.0", "0.147.0", "0.169.0"])
def test_row_and_file_are_gone_and_come_back(in_use: str, make_night: MakeNight) -> None:
    """As after 0.134 has met a row without a file. The row is the checkpoint's, not one that Codex makes up."""
    night = make_night(in_use, "compacted", in_use)
    before = row_of(night)
    for rollout in night.home.rollouts(night.thread):
        rollout.unlink()
    with closing(sqlite3.connect(night.home.path / "state_5.sqlite")) as database, database:
        database.execute("DELETE FROM threads WHERE id = ?", (night.thread,))
    with closing(sqlite3.connect(night.home.path / "goals_1.sqlite")) as database, database:
        database.execute("DELETE FROM thread_goals")
    done = night.restore("--in-place", "--yes")
    assert (done.json["data"]["row"], done.json["data"]["goal"]) == ("inserted", "inserted-paused")
    assert row_of(night) == before
    night.check(night.home)


def row_of(night: Night) -> dict[str, Any]:
    with closing(sqlite3.connect(night.home.path / "state_5.sqlite")) as database:
        database.row_factory = sqlite3.Row
        (row,) = database.execute("SELECT * FROM threads WHERE id = ?", (night.thread,)).fetchall()
        return dict(row)


@pytest.mark.parametrize("in_use", ["0.134.0", "0.147.0", "0.169.0"])
def test_not_while_a_real_runtime_has_the_thread_open(in_use: str, make_night: MakeNight) -> None:
    night = make_night(in_use, "compacted", in_use)
    (rollout,) = night.home.rollouts(night.thread)
    with MockModel() as model:
        night.home.point_at(model.url, LOOPBACK)
        with AppServer(night.release, night.home) as server:
            server.set_goal(night.thread, status="paused")
            server.resume(night.thread)
            server.turn(night.thread, "hello")
            before = rollout.read_bytes()
            refused = night.preflight("restore", "latest", night.thread, "--resume", "--in-place", "--yes")
            assert (refused.code, refused.json["errors"][0]["code"]) == (75, "thread-in-use")
            assert rollout.read_bytes() == before
    night.restore("--in-place", "--yes")


@pytest.mark.parametrize("in_use", ["0.134.0", "0.147.0", "0.169.0"])
def test_while_the_app_is_open_and_has_the_thread_closed(in_use: str, make_night: MakeNight) -> None:
    """It has listed the thread as it was, and opens what is there now: nothing of the other day is in its request."""
    night = make_night(in_use, "compacted", in_use)
    a_day_later(night)
    with MockModel() as model:
        night.home.point_at(model.url, night.provider)
        with AppServer(night.release, night.home) as server:
            assert night.thread in [thread["id"] for thread in server.list_threads()]
            night.restore("--in-place", "--yes")
            assert server.resume(night.thread)["id"] == night.thread
            goal = server.goal(night.thread)
            assert goal is not None
            assert goal["status"] == "paused"
            server.turn(night.thread, "and now to something else")
        (asked,) = [json.dumps(request.input) for request in model.requests if request.input]
    assert "something that was not said that night" not in asked
    (rollout,) = night.home.rollouts(night.thread)
    assert b"and now to something else" in rollout.read_bytes()


def test_undone_the_newer_turns_are_there_again(make_night: MakeNight) -> None:
    night = make_night("0.169.0", "compacted", "0.169.0")
    a_day_later(night)
    newer, turns = ids_in(night.home.rollouts(night.thread)), turns_shown(night)
    night.restore("--in-place", "--yes")
    assert len(turns_shown(night)) < len(turns)
    assert night.preflight("restore", "--undo", "--yes").code == 0
    assert ids_in(night.home.rollouts(night.thread)) == newer
    assert turns_shown(night) == turns


def turns_shown(night: Night) -> list[str]:
    with AppServer(night.release, night.home) as server:
        server.resume(night.thread)
        asked = {"threadId": night.thread, "limit": 100}
        return [turn["id"] for turn in server.call("thread/turns/list", asked)["data"]]


# ---- what Codex has done with the file since -------------------------------------------------------------------


def compressed(night: Night) -> None:
    """Codex packs what nobody has touched for a week, and takes the plain file away."""
    (rollout,) = night.home.rollouts(night.thread)
    long_ago = rollout.stat().st_mtime - 30 * 86_400
    os.utime(rollout, (long_ago, long_ago))
    with AppServer(night.release, night.home) as server:
        server.call("rollout/compress")
        until = time.monotonic() + 60
        while rollout.exists():
            assert time.monotonic() < until, "Codex has not compressed it"
            time.sleep(0.05)
    assert rollout.with_name(rollout.name + ".zst").exists()


def archived(night: Night) -> None:
    with AppServer(night.release, night.home) as server:
        server.call("thread/archive", {"threadId": night.thread})


def migrated(night: Night) -> None:
    """A legacy thread becomes a paginated one, in place."""
    done = subprocess.run(
        [night.release.binary, "migrate-rollouts", "--apply", "--thread", night.thread],
        env=night.home.environment(),
        cwd=night.home.work,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (rollout,) = night.home.rollouts(night.thread)
    assert b'"ordinal":0' in rollout.read_bytes()[:200], done.stdout


def taken_out_of_sight(night: Night) -> None:
    """Sessions on another disk, behind a link: Codex writes where the file really lies."""
    disk = night.home.place / "disk"
    (night.home.path / "sessions").rename(disk)
    (night.home.path / "sessions").symlink_to(disk)
    a_day_later(night)


@pytest.mark.parametrize(
    ("made_by", "kind", "in_use", "change", "what"),
    [
        ("0.169.0", "compacted", "0.169.0", compressed, "--full"),
        ("0.147.0", "compacted", "0.169.0", compressed, "--resume"),
        ("0.134.0", "compacted", "0.134.0", archived, "--full"),
        ("0.169.0", "compacted", "0.169.0", archived, "--resume"),
        ("0.147.0", "compacted", "0.169.0", migrated, "--full"),
        ("0.147.0", "compacted", "0.169.0", migrated, "--resume"),
        ("0.134.0", "compacted", "0.134.0", taken_out_of_sight, "--resume"),
        ("0.147.0", "compacted", "0.147.0", taken_out_of_sight, "--full"),
        ("0.169.0", "compacted", "0.169.0", taken_out_of_sight, "--resume"),
    ],
)
def test_whatever_codex_has_made_of_the_file_since(
    made_by: str, kind: str, in_use: str, change: Callable[[Night], None], what: str, make_night: MakeNight
) -> None:
    night = make_night(made_by, kind, in_use)
    with AppServer(night.release, night.home) as server:
        server.set_goal(night.thread, status="paused")
    change(night)
    done = night.restore("--in-place", "--yes", what=what)
    assert len(done.json["data"]["kept"]) == 1
    assert len(night.home.rollouts(night.thread)) == 1
    if change is archived:
        with AppServer(night.release, night.home) as server:
            server.call("thread/unarchive", {"threadId": night.thread})
    night.check(night.home)


@pytest.mark.parametrize("opened_by", ["0.147.0", "0.169.0"])
def test_a_checkpoint_of_a_compressed_file(opened_by: str, make_night: MakeNight, elsewhere: CodexHome) -> None:
    """The packed file comes back, under a row with the plain name; the releases that pack can read it."""
    night = make_night("0.147.0", "compacted", "0.169.0", opened_by)
    compressed(night)
    done = night.preflight("run", "--no-pause", "--thread", night.thread)
    assert done.code in (0, 3, 10), str(done)
    a_day_later(night)
    done = night.restore("--in-place", "--yes", what="--full")
    (file,) = done.json["data"]["files"]
    assert file["path"].endswith(".jsonl.zst")
    night.restore("--to", elsewhere.path, what="--full")
    night.check(night.home)
    night.check(elsewhere)


@pytest.mark.parametrize("in_use", ["0.134.0", "0.147.0", "0.169.0"])
def test_undone_after_codex_has_gone_on_with_the_restored_thread(in_use: str, make_night: MakeNight) -> None:
    night = make_night(in_use, "compacted", in_use)
    a_day_later(night)
    newer, turns = ids_in(night.home.rollouts(night.thread)), turns_shown(night)
    night.restore("--in-place", "--yes")
    with MockModel() as model:
        night.home.point_at(model.url, night.provider)
        with AppServer(night.release, night.home) as server:
            server.resume(night.thread)
            added = server.turn(night.thread, "this was said to the restored one")
    (gone_on_with,) = [path.read_bytes() for path in night.home.rollouts(night.thread)]
    undone = night.preflight("restore", "--undo", night.thread, "--yes")
    assert undone.code == 0, str(undone)
    assert "newer-turns-kept" in undone.findings
    (kept,) = undone.json["data"]["kept"]
    assert Path(kept).read_bytes() == gone_on_with
    assert ids_in(night.home.rollouts(night.thread)) == newer
    assert added not in turns_shown(night)
    assert turns_shown(night) == turns
