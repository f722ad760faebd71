"""Homes that are not there, no home, not to be read, or that lead in a circle: said clearly, nothing touched."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fixtures_codex import contents
from tests.troubled_home import (
    BYSTANDER,
    PATIENT,
    SOUND,
    Answer,
    TroubledHome,
    answer_of,
    call,
    call_without_root_powers,
    in_the_background,
    make_troubled_home,
)

LOOKING = ("check", "run", "finish")
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="permissions and links as POSIX has them")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets root give up its powers")


@pytest.fixture(autouse=True)
def no_codex(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(user))


# ---- no home, and what is none ------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["check", "run"])
def test_without_any_home_the_verdict_says_that_it_rests_on_nothing(verb: str, user: Path) -> None:
    answer = call(verb, "--json")
    assert (answer.code, answer.findings().keys()) == (3, {"no-home"})
    assert answer.envelope["not_checked"] == [
        f"there is no Codex home: {user / '.codex'} does not exist and CODEX_HOME is not set"
    ]
    assert list(user.iterdir()) == []


@pytest.mark.parametrize("verb", ["finish", "resume-goals", "list"])
def test_without_any_home_there_is_nothing_to_do_afterwards(verb: str, user: Path) -> None:
    answer = call(verb, "--json")
    assert (answer.code, answer.findings()) == (0, {})
    assert answer.envelope["not_checked"]
    assert list(user.iterdir()) == []


@pytest.mark.parametrize("verb", ["check", "run", "finish", "resume-goals", "list", "show", "verify"])
def test_a_home_that_was_named_and_is_not_there_is_a_mistake_of_the_call(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = call(verb, "--json", "--home", tmp_path / "nowhere", "--store", tmp_path / "store")
    (error,) = answer.envelope["errors"]
    assert (answer.code, error["code"]) == (2, "usage")
    assert str(tmp_path / "nowhere") in error["message"]

    monkeypatch.setenv("CODEX_HOME", str(tmp_path / "nowhere"))
    answer = call(verb, "--json", "--store", tmp_path / "store")
    (error,) = answer.envelope["errors"]
    assert (answer.code, error["code"]) == (13, "home-refused")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["check", "run"])
def test_an_empty_home_is_a_warning_and_stays_empty(verb: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    answer = call(verb, "--json", "--home", home, "--store", tmp_path / "store")
    assert (answer.code, answer.findings().keys()) == (3, {"home-empty"})
    assert answer.findings()["home-empty"]["path"] == str(home)
    assert list(home.iterdir()) == []


def test_a_home_that_was_emptied_by_an_update_is_not_an_empty_home(tmp_path: Path) -> None:
    home = make_troubled_home(tmp_path)
    assert home.call("run").code == 0
    home.path.rename(tmp_path / "away")
    home.path.mkdir()

    answer = home.call("finish")

    assert answer.code == 10
    told = [(finding["id"], finding["thread_id"]) for finding in answer.envelope["findings"]]
    assert {("rollout-missing", thread_id) for thread_id in home.rollouts} <= set(told)
    assert [kind for kind, _ in told].count("database-missing") == 2


@pytest.mark.parametrize("verb", LOOKING)
def test_a_home_that_is_a_file_is_refused_and_the_file_stays(verb: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_bytes(b"not a folder")
    answer = call(verb, "--json", "--home", home, "--store", tmp_path / "store")
    (error,) = answer.envelope["errors"]
    assert (answer.code, error["code"]) == (13, "home-refused")
    assert home.read_bytes() == b"not a folder"
    assert list(tmp_path.iterdir()) == [home]


def test_of_two_homes_one_bad_one_stops_the_run_before_the_other_is_touched(tmp_path: Path) -> None:
    """An updater that asked for both must not install; and no goal may stay paused for nothing."""
    home = make_troubled_home(tmp_path / "good")
    (tmp_path / "bad").write_bytes(b"")
    before, goals = contents(home.path), home.goals()
    answer = home.call("run", "--home", tmp_path / "bad")
    assert answer.code == 13
    assert home.goals() == goals
    assert contents(home.path).keys() == before.keys()
    assert not home.store.exists()


def test_a_homes_configuration_that_is_no_toml_is_refused_where_it_names_the_databases(tmp_path: Path) -> None:
    home = make_troubled_home(tmp_path)
    goals = home.goals()
    (home.path / "config.toml").write_text('sqlite_home = "/somewhere\n')
    answer = home.call("run")
    assert (answer.code, answer.envelope["errors"][0]["code"]) == (13, "home-refused")
    assert home.goals() == goals
    assert not home.store.exists()


# ---- what may not be read -----------------------------------------------------------------------------------


@contextmanager
def closed(path: Path, mode: int = 0) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


def ran_without(home: TroubledHome, place: Path, *words: str, mode: int = 0) -> Answer:
    """A run while `place` is closed; it has changed no rollout, and put every goal back if it blocked."""
    rollouts, goals = home.digests(), home.goals()
    with closed(place, mode):
        answer = call_without_root_powers(home, "run", *words)
    assert home.digests() == rollouts
    if answer.code not in (0, 3):
        assert home.goals() == goals
    return answer


@LINUX
@pytest.mark.parametrize("place", ["sessions/2025", "sessions/2025/12", "archived_sessions/old"])
def test_a_folder_of_other_threads_that_cannot_be_read_blocks_and_the_rest_is_protected(
    tmp_path: Path, place: str
) -> None:
    home = make_troubled_home(tmp_path)
    (home.path / place).mkdir(parents=True)
    answer = ran_without(home, home.path / place)
    assert (answer.code, answer.findings().keys()) == (10, {"unreadable"})
    assert answer.findings()["unreadable"]["path"] == str(home.path / place)
    for thread_id in (SOUND, PATIENT):
        home.checkpoint_of(thread_id, answer)


@LINUX
@pytest.mark.parametrize(("place", "mode"), [("sessions", 0), ("sessions/2026", 0), ("sessions/2026/05", 0o400)])
def test_nobody_is_told_to_delete_a_thread_that_only_cannot_be_read(tmp_path: Path, place: str, mode: int) -> None:
    home = make_troubled_home(tmp_path)
    answer = ran_without(home, home.path / place, mode=mode)
    assert (answer.code, answer.findings().keys()) == (10, {"unreadable", "rollout-missing"})
    for finding in answer.envelope["findings"]:
        assert "delete" not in finding["remedy"]
        assert "is gone" not in finding["cause"]


@LINUX
@pytest.mark.parametrize(
    ("place", "code"),
    [
        (".", "home-refused"),
        ("config.toml", "home-refused"),
        ("state_5.sqlite", "unsupported"),
        ("goals_1.sqlite", "unsupported"),
    ],
)
def test_a_home_or_database_that_cannot_be_read_is_refused_before_anything_is_written(
    tmp_path: Path, place: str, code: str
) -> None:
    home = make_troubled_home(tmp_path)
    (home.path / "config.toml").write_text("")
    answer = ran_without(home, home.path / place)
    (error,) = answer.envelope["errors"]
    assert (answer.code, error["code"]) == (13, code)
    assert str(home.path) in error["message"]
    assert error["hint"]
    assert not home.store.exists()


@LINUX
def test_a_goals_database_that_cannot_be_written_pauses_nothing(tmp_path: Path) -> None:
    home = make_troubled_home(tmp_path)
    rows = home.goal_rows()
    answer = ran_without(home, home.goals_db, mode=0o400)
    assert (answer.code, answer.envelope["errors"][0]["code"]) == (13, "unsupported")
    assert home.goal_rows() == rows


@LINUX
def test_a_goal_threads_rollout_that_cannot_be_read_blocks_and_the_other_has_its_checkpoint(tmp_path: Path) -> None:
    home = make_troubled_home(tmp_path)
    answer = ran_without(home, home.rollouts[PATIENT], "--wait", "0")
    told = answer.findings(PATIENT)
    assert answer.code == 12
    assert {"rollout-damaged", "writer-unknown", "checkpoint-failed"} <= told.keys()
    assert all(finding["severity"] == "block" for finding in told.values())
    assert answer.findings(SOUND) == {}
    home.checkpoint_of(SOUND, answer)


@LINUX
def test_a_rollout_that_cannot_be_read_of_a_thread_without_a_goal_matters_only_when_asked_for(tmp_path: Path) -> None:
    home = make_troubled_home(tmp_path, goal=None)
    assert ran_without(home, home.rollouts[PATIENT]).code == 0
    assert home.call("resume-goals").code == 0
    answer = ran_without(home, home.rollouts[PATIENT], "--thread", PATIENT)
    assert answer.code == 12
    assert answer.findings(PATIENT)["checkpoint-failed"]["severity"] == "block"
    home.checkpoint_of(SOUND, answer)


@LINUX
def test_after_the_update_a_folder_that_cannot_be_read_is_not_taken_for_lost_threads(tmp_path: Path) -> None:
    """The way back of a lost thread would put the resume rollout where the whole one lies."""
    home = make_troubled_home(tmp_path)
    assert home.call("run").code == 0
    with closed(home.path / "sessions"):
        answer = call_without_root_powers(home, "finish")
    assert answer.code == 10
    missing = [one for one in answer.envelope["findings"] if one["id"] == "rollout-missing"]
    assert {one["thread_id"] for one in missing} == {SOUND, PATIENT, BYSTANDER}
    assert not any("cp " in one["remedy"] for one in missing)
    assert {row["status"] for row in home.goals().values()} == {"paused"}, "on what is left they would go on"

    assert home.call("finish").code == 0
    assert {row["status"] for row in home.goals().values()} == {"active"}


# ---- links and pipes ----------------------------------------------------------------------------------------


def link_to_the_top(home: TroubledHome) -> None:
    (home.path / "sessions/2026/again").symlink_to(home.path / "sessions", target_is_directory=True)


def link_to_the_home(home: TroubledHome) -> None:
    (home.path / "sessions/home").symlink_to("..", target_is_directory=True)


def links_that_lead_to_each_other(home: TroubledHome) -> None:
    first, second = home.path / "sessions/one", home.path / "archived_sessions/two"
    first.symlink_to(home.path / "archived_sessions", target_is_directory=True)
    second.symlink_to(home.path / "sessions", target_is_directory=True)


def several_links_to_the_top(home: TroubledHome) -> None:
    for name in ("a", "z", "2027"):
        (home.path / "sessions" / name).symlink_to(home.path / "sessions", target_is_directory=True)


def links_to_each_rollout(home: TroubledHome) -> None:
    for path in home.rollouts.values():
        (home.path / "sessions" / path.name).symlink_to(path)


@POSIX
@pytest.mark.parametrize(
    "lay",
    [
        link_to_the_top,
        link_to_the_home,
        links_that_lead_to_each_other,
        several_links_to_the_top,
        links_to_each_rollout,
    ],
)
def test_a_loop_of_links_ends_and_shows_no_thread_twice(tmp_path: Path, lay: Callable[[TroubledHome], None]) -> None:
    """A thread that is its own duplicate would have somebody move it out of the home."""
    home = make_troubled_home(tmp_path)
    lay(home)
    before, goals = home.digests(), home.goals()

    answer = home.call("run")

    assert (answer.code, answer.findings()) == (0, {})
    assert answer.data["counts"]["rollouts"] == 4
    assert home.digests() == before
    for thread_id in (SOUND, PATIENT):
        home.checkpoint_of(thread_id, answer)
    finished = home.call("finish")
    assert (finished.code, finished.findings()) == (0, {})
    assert home.goals() == goals


@POSIX
def test_a_link_to_itself_is_told_and_the_rest_is_protected(tmp_path: Path) -> None:
    home = make_troubled_home(tmp_path)
    goals = home.goals()
    (home.path / "sessions/2026/self").symlink_to("self")
    answer = home.call("run")
    assert (answer.code, answer.findings().keys()) == (10, {"unreadable"})
    assert answer.findings()["unreadable"]["path"] == str(home.path / "sessions/2026/self")
    for thread_id in (SOUND, PATIENT):
        home.checkpoint_of(thread_id, answer)
    assert home.goals() == goals


@POSIX
def test_a_link_that_leads_nowhere_is_no_rollout(tmp_path: Path) -> None:
    home = make_troubled_home(tmp_path)
    path = home.rollouts[BYSTANDER]
    path.with_name(path.name.replace(BYSTANDER, BYSTANDER[:-1] + "e")).symlink_to(tmp_path / "unplugged" / "disk")
    answer = home.call("run")
    assert (answer.code, answer.findings()) == (0, {})


@POSIX
@pytest.mark.parametrize("goal", ["active", None])
def test_a_pipe_in_a_rollouts_place_does_not_keep_the_run_waiting(tmp_path: Path, goal: str | None) -> None:
    home = make_troubled_home(tmp_path, goal=goal)
    goals = home.goals()
    home.rollouts[PATIENT].unlink()
    os.mkfifo(home.rollouts[PATIENT])
    with in_the_background(home, "run") as process:
        process.wait(timeout=60)
        answer = answer_of(process)
    assert answer.findings()["rollout-missing"]["severity"] == ("block" if goal else "warn")
    assert answer.code == (10 if goal else 3)
    home.checkpoint_of(SOUND, answer)
    if goal:
        assert home.goals() == goals


@POSIX
def test_sessions_on_another_disk_behind_a_link_are_the_homes_own(tmp_path: Path) -> None:
    home = make_troubled_home(tmp_path)
    (home.path / "sessions").rename(tmp_path / "large disk")
    (home.path / "sessions").symlink_to(tmp_path / "large disk", target_is_directory=True)
    answer = home.call("run")
    assert (answer.code, answer.findings()) == (0, {})
    assert home.call("finish").code == 0
    (tmp_path / "large disk").rename(tmp_path / "unplugged")
    assert {one["id"] for one in home.call("run").envelope["findings"]} >= {"rollout-missing"}
