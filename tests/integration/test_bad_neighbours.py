"""Two runs at once, what a killed one left behind, and a store that is not ours alone."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest

from preflight.codex.sample_rollout import RolloutWriter
from tests.fixtures_codex import contents
from tests.second_process import second_process
from tests.troubled_home import PATIENT, SOUND, TroubledHome, answer_of, in_the_background, make_troubled_home

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and permissions as POSIX has them")


@pytest.fixture(autouse=True)
def no_codex(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(user))


@pytest.fixture
def home(tmp_path: Path) -> TroubledHome:
    return make_troubled_home(tmp_path)


# ---- two runs at once ---------------------------------------------------------------------------------------

RUNTIME_IN_A_TURN = """
with open(sys.argv[1], "ab", buffering=0) as rollout:
    say("ready")
    wait()
    rollout.write(sys.argv[2].encode())
    say("ended")
    wait()
"""
TURN_ENDS = (
    '{"timestamp":"2026-05-30T10:00:00.000Z","type":"event_msg","payload":{"type":"task_complete","turn_id":"TURN"}}\n'
)


@contextmanager
def run_that_waits_for_a_turn(tmp_path: Path) -> Iterator[tuple[TroubledHome, Popen[str], Popen[str]]]:
    """A run that has paused both goals and waits: a process has the patient's rollout open, in a turn."""
    turn_ids = []

    def in_a_turn(writer: RolloutWriter) -> None:
        turn_ids.append(writer.turn("This takes a while.", end="open"))

    home = make_troubled_home(tmp_path, in_a_turn)
    with (
        second_process(RUNTIME_IN_A_TURN, home.rollouts[PATIENT], TURN_ENDS.replace("TURN", turn_ids[0])) as runtime,
        in_the_background(home, "run", "--wait", "60") as run,
    ):
        until = time.monotonic() + 60
        while {row["status"] for row in home.goals().values()} != {"paused"} or len(journal(home)) < 4:
            assert time.monotonic() < until
            assert run.poll() is None, run.communicate()
            time.sleep(0.02)
        yield home, run, runtime


def journal(home: TroubledHome) -> list[str]:
    return [event for path in home.store.glob("*/journal.jsonl") for event in path.read_text().splitlines()]


def tell(runtime: Popen[str], line: str = "") -> None:
    assert runtime.stdin is not None
    runtime.stdin.write(line + "\n")
    runtime.stdin.flush()


def test_of_two_runs_at_once_one_is_told_to_stay_away_and_changes_nothing(tmp_path: Path) -> None:
    with run_that_waits_for_a_turn(tmp_path) as (home, run, runtime):
        paused, events = home.goal_rows(), journal(home)
        rollouts = home.digests()

        with in_the_background(home, "run", "--wait", "0") as second:
            refused = answer_of(second)
        (error,) = refused.envelope["errors"]
        assert (refused.code, refused.verdict, error["code"]) == (11, "block", "locked")
        assert str(run.pid) in error["message"]
        for verb in ("finish", "resume-goals"):
            assert home.call(verb, "--timeout", "0.3").code == 11
        assert home.call("check").code in (3, 10), "to look needs no lock"
        assert home.call("run", "--dry-run").code in (3, 10)
        assert (home.goal_rows(), journal(home), home.digests()) == (paused, events, rollouts)

        tell(runtime)  # the turn ends; the process keeps the rollout open
        first = answer_of(run)
        assert (first.code, first.findings()) == (0, {})
        for thread_id in (SOUND, PATIENT):
            home.checkpoint_of(thread_id, first)

        with in_the_background(home, "run") as third:
            again = answer_of(third)
        assert (again.code, again.findings()) == (0, {})
        assert home.call("finish").code == 0
    assert {row["status"] for row in home.goals().values()} == {"active"}


def test_a_turn_that_does_not_end_blocks_and_the_goals_are_as_they_were(tmp_path: Path) -> None:
    with run_that_waits_for_a_turn(tmp_path) as (home, run, _):
        run.send_signal(signal.SIGTERM)
        stopped = answer_of(run)
        assert (stopped.code, stopped.verdict) == (128 + signal.SIGTERM, "block")
        assert {row["status"] for row in home.goals().values()} == {"active"}

        answer = home.call("run", "--wait", "0.5")
        assert (answer.code, answer.findings(PATIENT).keys()) == (10, {"goal-not-paused", "turn-in-progress"})
        assert answer.findings(SOUND) == {}
        assert {row["status"] for row in home.goals().values()} == {"active"}
        home.checkpoint_of(SOUND, answer)


# ---- what a killed run left behind --------------------------------------------------------------------------


@contextmanager
def killed_while_it_waited(tmp_path: Path) -> Iterator[TroubledHome]:
    with run_that_waits_for_a_turn(tmp_path) as (home, run, runtime):
        run.kill()
        run.communicate()
        tell(runtime)
        assert runtime.stdout is not None
        assert runtime.stdout.readline() == "ended\n"
    assert {row["status"] for row in home.goals().values()} == {"paused"}
    yield home


@POSIX
@pytest.mark.parametrize("verb", ["resume-goals", "finish"])
def test_goals_that_a_killed_run_left_paused_are_put_back(tmp_path: Path, verb: str) -> None:
    with killed_while_it_waited(tmp_path) as home:
        answer = home.call(verb)
        assert answer.code == (0 if verb == "resume-goals" else 3)
        assert answer.findings().keys() == (set() if verb == "resume-goals" else {"no-run"})
        assert {row["status"] for row in home.goals().values()} == {"active"}
        assert home.call("resume-goals").data["goals"] == []


@POSIX
def test_the_next_run_takes_over_what_a_killed_one_left_paused(tmp_path: Path) -> None:
    with killed_while_it_waited(tmp_path) as home:
        answer = home.call("run")
        assert (answer.code, answer.findings()) == (0, {})
        assert answer.thread(SOUND)["paused_by_us"]
        assert answer.thread(PATIENT)["paused_by_us"]
        assert {row["status"] for row in home.goals().values()} == {"paused"}
        assert home.call("finish").code == 0
        assert {row["status"] for row in home.goals().values()} == {"active"}


@POSIX
def test_the_next_run_that_blocks_puts_back_what_a_killed_one_left_paused(tmp_path: Path) -> None:
    with killed_while_it_waited(tmp_path) as home:
        home.rollouts[PATIENT].write_bytes(b"")
        answer = home.call("run")
        assert answer.code == 12
        assert {row["status"] for row in home.goals().values()} == {"active"}
        assert not answer.thread(SOUND)["paused_by_us"]


@POSIX
@pytest.mark.parametrize("words", [("check",), ("run", "--dry-run")])
def test_to_look_at_what_a_killed_run_left_changes_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    with killed_while_it_waited(tmp_path) as home:
        rows, events = home.goal_rows(), journal(home)
        answer = home.call(*words)
        assert answer.code == 0
        assert answer.thread(SOUND)["paused_by_us"]
        assert (home.goal_rows(), journal(home)) == (rows, events)


def left_paused(home: TroubledHome) -> Path:
    """A run that ended well, and whose `finish` never came; its journal."""
    assert home.call("run").code == 0
    (path,) = home.store.glob("*/journal.jsonl")
    return path


@pytest.mark.parametrize("torn", ["{", '{"schema":1,"event":"restored","run_id":"', "\0\0\0"])
def test_a_journal_whose_last_line_is_torn_is_as_good_as_without_it(home: TroubledHome, torn: str) -> None:
    goals = home.goals()
    with left_paused(home).open("a") as journal_file:
        journal_file.write(torn)
    answer = home.call("finish")
    assert (answer.code, answer.findings()) == (0, {})
    assert home.goals() == goals


@pytest.mark.parametrize("verb", ["resume-goals", "finish"])
@pytest.mark.parametrize("line", ["nonsense", "[]", "{}", '{"event":"paused"}', "\0" * 100])
def test_a_line_of_the_journal_that_cannot_be_read_is_told_and_the_others_hold(
    home: TroubledHome, line: str, verb: str
) -> None:
    goals = home.goals()
    path = left_paused(home)
    path.write_text(line + "\n" + path.read_text())
    answer = home.call(verb)
    assert answer.findings().keys() == {"journal-damaged"}
    assert answer.findings()["journal-damaged"]["path"] == str(path)
    assert answer.code == (3 if verb == "finish" else 0)
    assert home.goals() == goals


def test_a_journal_that_is_gone_leaves_a_paused_goal_to_its_person(home: TroubledHome) -> None:
    left_paused(home).unlink()
    answer = home.call("finish")
    assert answer.code == 0
    assert answer.data["finished"][0]["goals"] == []
    assert {row["status"] for row in home.goals().values()} == {"paused"}


def test_a_journal_that_cannot_be_read_at_all_stops_every_verb_that_would_need_it(home: TroubledHome) -> None:
    path = left_paused(home)
    rows = home.goal_rows()
    path.unlink()
    path.mkdir()
    for verb in ("run", "finish", "resume-goals"):
        answer = home.call(verb)
        assert answer.code not in (0, 3)
        assert str(path) in str(answer.envelope["errors"])
        assert home.goal_rows() == rows


@pytest.mark.parametrize("verb", ["resume-goals", "finish"])
def test_a_last_checkpoint_that_cannot_be_read_keeps_no_goal_paused(home: TroubledHome, verb: str) -> None:
    goals = home.goals()
    left_paused(home)
    (manifest,) = home.store.rglob("manifest.json")
    manifest.chmod(0o600)
    manifest.write_bytes(manifest.read_bytes()[:200])
    answer = home.call(verb)
    if verb == "finish":
        assert (answer.code, answer.findings().keys()) == (12, {"checkpoint-damaged"})
    else:
        assert answer.code == 0
    assert home.goals() == goals


def test_what_a_killed_run_had_begun_is_cleared_away_and_what_it_finished_stays(home: TroubledHome) -> None:
    left_paused(home)
    (finished,) = home.store.glob("*/checkpoints/*")
    begun = finished.with_name("20260101T000000Z-abcdef")
    (begun / "threads").mkdir(parents=True)
    (begun / "threads" / "half").write_bytes(b"half of a rollout")
    assert home.call("run").code == 0
    assert not begun.exists()
    assert finished.exists()


# ---- a store that is not ours alone -------------------------------------------------------------------------


def anybody_can_write(store: Path) -> None:
    store.chmod(0o777)


def the_group_can_write(store: Path) -> None:
    store.chmod(0o770)


def others_can_write_to_this_homes_part(store: Path) -> None:
    next(store.iterdir()).chmod(0o702)


def anybody_can_replace_it(store: Path) -> None:
    store.parent.chmod(0o777)


def it_belongs_to_somebody_else(store: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(store, 65534, 65534)


def the_checkpoints_belong_to_somebody_else(store: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(next(store.glob("*/checkpoints")), 65534, 65534)


@POSIX
@pytest.mark.parametrize(
    "open_up",
    [
        anybody_can_write,
        the_group_can_write,
        others_can_write_to_this_homes_part,
        anybody_can_replace_it,
        it_belongs_to_somebody_else,
        the_checkpoints_belong_to_somebody_else,
    ],
)
def test_a_store_that_others_can_write_to_is_refused_by_every_verb(
    home: TroubledHome, open_up: Callable[[Path], None]
) -> None:
    """Somebody else's journal would decide which goals go on, and their rollouts would be taken for checkpoints."""
    home.store = home.path.parent / "state" / "store"
    assert home.call("run").code == 0
    assert home.call("finish").code == 0
    open_up(home.store)
    rows, stored = home.goal_rows(), contents(home.store)
    before = contents(home.path)
    for verb in ("check", "run", "finish", "resume-goals", "list", "show", "verify"):
        answer = home.call(verb)
        (error,) = answer.envelope["errors"]
        assert (answer.code, error["code"]) == (13, "store-refused"), verb
        assert error["hint"]
    assert home.goal_rows() == rows
    assert contents(home.store) == stored
    assert contents(home.path).keys() == before.keys()


@POSIX
def test_a_store_that_is_a_file_or_lies_in_one_is_refused(home: TroubledHome) -> None:
    goals = home.goals()
    home.store.write_bytes(b"")
    for store in (home.store, home.store / "below"):
        home.store = store
        answer = home.call("run")
        assert answer.code in (12, 13)
        assert home.goals() == goals


def test_every_file_of_the_store_is_for_its_owner_only(home: TroubledHome) -> None:
    old = os.umask(0)
    try:
        assert home.call("run").code == 0
        assert home.call("finish").code == 0
    finally:
        os.umask(old)
    for path in (home.store, *home.store.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    assert json.loads((next(home.store.rglob("manifest.json"))).read_bytes())["schema"] == 1
