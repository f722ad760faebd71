"""A thread is restored and the real Codex lists it, opens it and asks the model what it would have asked that night.

In its own home after a day of other turns, in an emptied one, and in a new one on another path; by the release that
the checkpoint was made under, and by one before or after it. Its goal is there, paused, and nothing starts by itself.
"""

from __future__ import annotations

import shutil
import sqlite3
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

    def restore(self, *arguments: str | Path, what: str = "--resume") -> Report:
        done = self.preflight("restore", "latest", self.thread, what, *arguments)
        assert done.code == 0, str(done)
        return done

    def check(self, home: CodexHome) -> None:
        """Listed, openable, its goal paused, and the input of that night; nothing is asked before we do."""
        with MockModel() as model:
            home.point_at(model.url, self.provider)
            with AppServer(self.opened_by, home) as server:
                assert self.thread in [thread["id"] for thread in server.list_threads()]
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
        return Night(home, kept.thread_id, release, opener, known, expected, preflight, provider)

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
    ("made_by", "kind", "in_use", "opened_by"),
    [
        ("0.134.0", "compacted", "0.134.0", "0.169.0"),
        ("0.147.0", "compacted", "0.169.0", "0.147.0"),
        ("0.169.0", "compacted-legacy", "0.169.0", "0.147.0"),
    ],
)
def test_by_the_release_after_the_update_and_by_the_one_before(
    made_by: str, kind: str, in_use: str, opened_by: str, make_night: MakeNight, elsewhere: CodexHome
) -> None:
    night = make_night(made_by, kind, in_use, opened_by)
    a_day_later(night)
    night.restore("--to", elsewhere.path)
    night.restore("--in-place", "--yes")
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
