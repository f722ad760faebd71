"""Goals are paused by promise, deed and confirmation, and exactly those are put back, whatever happens in between.

Real databases in WAL mode, real rollouts, real second processes for runtimes and persons. Only the
control socket's server is a FAKE (tests/real_codex has the real ones).
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from preflight import pause
from preflight.checkpoint.journal import Journal, PauseIntent, PauseMeans
from preflight.codex import goals
from preflight.codex.goals import Outcome
from preflight.codex.sample_rollout import RolloutWriter
from preflight.codex.threads import find_threads
from preflight.errors import DatabaseBusy, NoSpace
from preflight.model import Goal, GoalTable, Home, Observation, SizeClass, WriterState
from preflight.pause import GoalPause, PauseState, Pausing, PutBack, PuttingBack, not_confirmed, pause_goals, put_back
from preflight.system.deadline import Deadline
from tests.fixtures_codex import CREATED_MS, OBJECTIVE, UPDATED_MS, CodexHome, held_by_another_process, thread_id
from tests.integration.test_the_control_socket import Json, fake_server, usual
from tests.second_process import second_process

VERSIONS = ("0.128.0", "0.134.0", "0.169.0")
DATABASE = {"0.128.0": "state_5.sqlite", "0.134.0": "goals_1.sqlite", "0.169.0": "goals_1.sqlite"}

#: Every status that is not active, in goals of other threads: none of these is ever anybody's business.
OTHERS = {3: "paused", 4: "complete", 5: "budget_limited"}


@dataclass
class Scene:
    """A home with two active goals (threads 1 and 2) and others, and the journal of its store."""

    codex: CodexHome
    journal: Journal

    @property
    def home(self) -> Home:
        return self.codex.found()

    @property
    def database(self) -> str:
        return DATABASE[self.codex.version]

    def rows(self) -> dict[str, dict[str, Any]]:
        return {str(row["thread_id"]): row for row in self.codex.rows(self.database)}

    def row(self, number: int) -> dict[str, Any]:
        return self.rows()[thread_id(number)]

    def others(self) -> list[dict[str, Any]]:
        return [self.row(number) for number in OTHERS]

    def change(self, sql: str, number: int = 1) -> None:
        self.codex.execute(self.database, (f"{sql} WHERE thread_id = ?", (thread_id(number),)))

    def observations(self, writer: WriterState = WriterState.NONE) -> list[Observation]:
        found = find_threads(self.home, Deadline(None))
        return [
            Observation(thread=thread, size_class=SizeClass.OK, tail=None, writer=writer)
            for thread in found.threads
            if thread.goal is not None
        ]

    def pause(
        self, *, wait: float = 10.0, writer: WriterState = WriterState.NONE, interrupt: bool = False, run: str = "run-1"
    ) -> tuple[GoalPause, ...]:
        how = Pausing(
            run_id=run,
            wait_seconds=wait,
            interrupt=interrupt,
            target_version=None,
            deadline=Deadline(60),
            progress=lambda line: None,
        )
        return pause_goals(self.home, self.observations(writer), self.journal, how)

    def put_back(self, **how: Any) -> dict[str, PutBack]:
        done = put_back(self.home, self.journal, PuttingBack(**{"deadline": Deadline(30), **how}))
        return {one.thread_id: one for one in done}

    def pending(self) -> list[str]:
        return [entry.intent.thread_id for entry in self.journal.pending()]

    def promise(self, number: int, *, asked_at_ms: int, how: PauseMeans = PauseMeans.DATABASE) -> PauseIntent:
        """The line that a run writes before it touches the goal."""
        (goal,) = [g for g in goals.read_goals(self.home, Deadline(None)).goals if g.thread_id == thread_id(number)]
        intent = PauseIntent.of(
            goal, run_id="killed", home=self.home.path, how=how, target_version=None, asked_at_ms=asked_at_ms
        )
        self.journal.record_pause(intent)
        return intent


def scene(folder: Path, version: str = "0.169.0") -> Scene:
    codex = CodexHome(folder / ".codex", version)
    for number, status in ({1: "active", 2: "active"} | OTHERS).items():
        path = codex.rollout(number)
        path.unlink()
        with RolloutWriter(path, thread_id(number)) as writer:
            writer.turn("Begin.", outputs=[300])
        codex.row(number, path)
        codex.goal(number, status)
    (folder / "store").mkdir()
    return Scene(codex, Journal(folder / "store" / "journal.jsonl"))


@pytest.fixture
def one(tmp_path: Path) -> Scene:
    return scene(tmp_path)


# ---- paused, and put back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_active_goals_are_paused_and_put_back_and_no_other_goal_is_touched(tmp_path: Path, version: str) -> None:
    one = scene(tmp_path, version)
    before, others = one.rows(), one.others()

    pauses = one.pause()

    assert {each.thread_id: each.state for each in pauses} == dict.fromkeys(
        (thread_id(1), thread_id(2)), PauseState.PAUSED
    )
    assert not_confirmed(pauses) == ()
    for number in (1, 2):
        paused = one.row(number)
        assert paused["status"] == "paused"
        assert {k for k in paused if paused[k] != before[thread_id(number)][k]} == {"status", "updated_at_ms"}
    entries = {entry.intent.thread_id: entry for entry in one.journal.pending()}
    assert {name: entry.paused_updated_at_ms for name, entry in entries.items()} == {
        thread_id(number): one.row(number)["updated_at_ms"] for number in (1, 2)
    }
    assert one.others() == others

    done = one.put_back()

    assert {name: (each.outcome, each.pending) for name, each in done.items()} == dict.fromkeys(
        (thread_id(1), thread_id(2)), (Outcome.RESTORED, False)
    )
    for number in (1, 2):
        again = one.row(number)
        assert {k for k in again if again[k] != before[thread_id(number)][k]} == {"updated_at_ms"}
        assert again["updated_at_ms"] >= UPDATED_MS
    assert one.others() == others
    assert one.pending() == []


def test_what_was_put_back_once_is_not_touched_again(one: Scene) -> None:
    one.pause()
    one.put_back()
    rows = one.rows()
    assert one.put_back() == {}
    assert one.rows() == rows


def test_no_active_goal_is_nothing_to_do_and_writes_no_journal(one: Scene) -> None:
    for number in (1, 2):
        one.change("UPDATE thread_goals SET status = 'blocked'", number)
    assert one.pause() == ()
    assert not (one.journal._path).exists()


def test_the_promise_is_on_the_disk_before_the_goal_is_touched(one: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    promised: list[list[str]] = []
    really = goals.pause

    def watched(home: Home, goal: Goal, now_ms: int, deadline: Deadline) -> bool:
        promised.append([entry.intent.goal_id for entry in Journal(one.journal._path).pending()])
        assert goal.goal_id in promised[-1]
        assert one.rows()[goal.thread_id]["status"] == "active"
        return really(home, goal, now_ms, deadline)

    monkeypatch.setattr(goals, "pause", watched)
    one.pause()
    assert [len(each) for each in promised] == [1, 2]


def test_the_journal_holds_no_objective(one: Scene) -> None:
    one.pause()
    one.put_back()
    assert OBJECTIVE not in one.journal._path.read_text()


# ---- what a run left that was killed ------------------------------------------------------------------------


def test_a_promise_that_was_not_kept_is_taken_back_without_a_trace(one: Scene) -> None:
    one.promise(1, asked_at_ms=UPDATED_MS + 5)
    rows = one.rows()
    assert one.put_back()[thread_id(1)].outcome is Outcome.ALREADY_ACTIVE
    assert one.rows() == rows
    assert one.pending() == []


KILLED_AFTER_THE_DEED = """
from pathlib import Path
from preflight.codex import goals
from tests.integration.test_pause_and_put_back import Deadline, Journal, Scene
from tests.fixtures_codex import CodexHome

codex = CodexHome.__new__(CodexHome)
codex.path, codex.version, codex.sqlite_home = Path(sys.argv[1]), sys.argv[3], Path(sys.argv[1])
one = Scene(codex, Journal(Path(sys.argv[2])))
intent = one.promise(1, asked_at_ms=int(sys.argv[4]))
(goal,) = [g for g in goals.read_goals(one.home, Deadline(None)).goals if g.goal_id == intent.goal_id]
assert goals.pause(one.home, goal, intent.asked_at_ms, Deadline(10))
say("ready")
wait()
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_a_pause_that_a_killed_process_never_confirmed_is_known_by_its_time(tmp_path: Path, version: str) -> None:
    one = scene(tmp_path, version)
    asked = UPDATED_MS + 1234
    with second_process(KILLED_AFTER_THE_DEED, one.codex.path, one.journal._path, version, asked) as run:
        run.kill()
        run.wait()
    assert one.row(1)["status"] == "paused"
    (entry,) = one.journal.pending()
    assert entry.paused_updated_at_ms is None

    assert one.put_back()[thread_id(1)].outcome is Outcome.RESTORED
    assert one.row(1)["status"] == "active"


def test_the_next_run_adopts_a_stale_journal_and_pauses_only_what_is_active(one: Scene) -> None:
    one.pause(run="killed")
    one.change("UPDATE thread_goals SET status = 'active', updated_at_ms = 7", 2)  # by a person, since
    first = one.row(1)

    pauses = one.pause(run="next")

    assert [each.thread_id for each in pauses] == [thread_id(2)]
    assert one.row(1) == first
    assert sorted(one.pending()) == [thread_id(1), thread_id(2)]
    assert {each.outcome for each in one.put_back().values()} == {Outcome.RESTORED}
    assert {one.row(number)["status"] for number in (1, 2)} == {"active"}


# ---- a person in between ------------------------------------------------------------------------------------

#: What somebody does to a goal that we have paused, and what that makes of it for us.
BY_SOMEBODY = {
    "paused it again": ("UPDATE thread_goals SET updated_at_ms = updated_at_ms + 1", Outcome.CHANGED),
    "wrote another objective": (
        "UPDATE thread_goals SET objective = 'rest', updated_at_ms = updated_at_ms + 1",
        Outcome.CHANGED,
    ),
    "took its budget away": (
        "UPDATE thread_goals SET token_budget = NULL, updated_at_ms = updated_at_ms + 1",
        Outcome.CHANGED,
    ),
    "called it complete": ("UPDATE thread_goals SET status = 'complete'", Outcome.CHANGED),
    "called it blocked": ("UPDATE thread_goals SET status = 'blocked'", Outcome.CHANGED),
    "set it going": ("UPDATE thread_goals SET status = 'active', updated_at_ms = 7", Outcome.ALREADY_ACTIVE),
    "set another goal, which is paused": ("UPDATE thread_goals SET goal_id = 'another'", Outcome.REPLACED),
    "set another goal, which is active": (
        "UPDATE thread_goals SET goal_id = 'another', status = 'active'",
        Outcome.REPLACED,
    ),
    "cleared it": ("DELETE FROM thread_goals", Outcome.DROPPED),
}


@pytest.mark.parametrize("what", BY_SOMEBODY)
@pytest.mark.parametrize("version", ["0.134.0", "0.169.0"])
def test_what_somebody_did_since_we_paused_the_goal_stays_as_they_left_it(
    tmp_path: Path, version: str, what: str
) -> None:
    one = scene(tmp_path, version)
    one.pause()
    sql, outcome = BY_SOMEBODY[what]
    one.change(sql)
    rows = {name: row for name, row in one.rows().items() if name != thread_id(2)}
    known = {goal.thread_id: goal for goal in goals.read_goals(one.home, Deadline(None)).goals}

    done = one.put_back()

    assert (done[thread_id(1)].outcome, done[thread_id(1)].pending) == (outcome, False)
    assert done[thread_id(2)].outcome is Outcome.RESTORED
    assert {name: row for name, row in one.rows().items() if name != thread_id(2)} == rows
    assert one.pending() == []
    assert one.put_back(known=known) == {}


def first_by_a_person(one: Scene, monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    """Somebody else's change comes right before our compare-and-set of thread 1."""
    really = goals.pause

    def second(home: Home, goal: Goal, now_ms: int, deadline: Deadline) -> bool:
        if goal.thread_id == thread_id(1):
            one.change(sql)
        return really(home, goal, now_ms, deadline)

    monkeypatch.setattr(goals, "pause", second)


@pytest.mark.parametrize("status", ["paused", "complete", "blocked"])
def test_a_goal_that_somebody_else_stops_right_before_us_is_theirs(
    one: Scene, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_by_a_person(one, monkeypatch, f"UPDATE thread_goals SET status = '{status}', updated_at_ms = 7")
    states = {each.thread_id: each.state for each in one.pause()}
    assert states == {thread_id(1): PauseState.OVER, thread_id(2): PauseState.PAUSED}
    assert one.pending() == [thread_id(2)]
    row = one.row(1)
    one.put_back()
    assert one.row(1) == row


def test_a_goal_that_a_person_had_paused_before_the_lock_was_ours_is_never_promised(one: Scene) -> None:
    seen = one.observations()
    one.change("UPDATE thread_goals SET status = 'paused', updated_at_ms = 7")
    how = Pausing(
        run_id="r", wait_seconds=0, interrupt=False, target_version=None, deadline=Deadline(9), progress=lambda _: None
    )
    assert [each.thread_id for each in pause_goals(one.home, seen, one.journal, how)] == [thread_id(2)]
    assert one.pending() == [thread_id(2)]


# ---- turns --------------------------------------------------------------------------------------------------

RUNTIME = """
path, lines = sys.argv[1], sys.argv[2:]
with open(path, "ab", buffering=0) as rollout:
    say("ready")
    for line in lines:
        wait()
        rollout.write(line.encode() + b"\\n")
    say("done")
    wait()
"""
STARTED = '{"timestamp":"t","type":"event_msg","payload":{"type":"task_started","turn_id":"u"}}'
WORDS = '{"timestamp":"t","type":"event_msg","payload":{"type":"agent_message","message":"m"}}'
ENDED = '{"timestamp":"t","type":"event_msg","payload":{"type":"task_complete","turn_id":"u"}}'
ABORTED = '{"timestamp":"t","type":"event_msg","payload":{"type":"turn_aborted","turn_id":"u"}}'


def in_a_turn(one: Scene, number: int = 1) -> Path:
    (path,) = one.codex.path.glob(f"sessions/*/*/*/rollout-*-{thread_id(number)}.jsonl")
    with path.open("a") as rollout:
        rollout.write(STARTED + "\n")
    return path


@pytest.mark.parametrize("end", [ENDED, ABORTED])
def test_a_turn_is_waited_for_and_the_goal_is_paused_all_the_while(
    one: Scene, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = in_a_turn(one)
    looks: list[str] = []
    really = pause._look

    with second_process(RUNTIME, path, WORDS, end) as runtime:

        def look(pending: Any, goal: Goal | None, journal: Journal) -> None:
            really(pending, goal, journal)
            if pending.seen.thread.thread_id == thread_id(1):
                looks.append("confirmed" if pending.state else pending.waiting_for)
                if len(looks) <= 2:  # the runtime goes on: some words, then the end of its turn
                    assert runtime.stdin is not None
                    assert one.row(1)["status"] == "paused"
                    runtime.stdin.write("\n")
                    runtime.stdin.flush()
                    if len(looks) == 2:
                        assert runtime.stdout is not None
                        assert runtime.stdout.readline() == "done\n"

        monkeypatch.setattr(pause, "_look", look)
        states = {each.thread_id: each.state for each in one.pause(writer=WriterState.LIVE)}

    assert states == {thread_id(1): PauseState.PAUSED, thread_id(2): PauseState.PAUSED}
    assert looks[:2] == ["its turn to end", "its turn to end"]
    assert looks[-2:] == ["its rollout to stop growing", "confirmed"], "not before it was seen unchanged twice"


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_turn_that_outlasts_the_wait_is_not_confirmed_and_not_cut_off(one: Scene, interrupt: bool) -> None:
    """To interrupt takes an owner with a control socket; there is none."""
    path = in_a_turn(one)
    with second_process(RUNTIME, path, ENDED):
        pauses = {each.thread_id: each for each in one.pause(wait=0.5, writer=WriterState.LIVE, interrupt=interrupt)}
    assert pauses[thread_id(1)].state is PauseState.NOT_CONFIRMED
    assert pauses[thread_id(2)].state is PauseState.PAUSED
    (finding,) = not_confirmed(tuple(pauses.values()))
    assert (finding.finding_id, finding.thread_id) == ("goal-not-paused", thread_id(1))
    assert "its turn to end" in finding.cause
    one.put_back()
    assert {one.row(number)["status"] for number in (1, 2)} == {"active"}


def test_a_turn_in_the_rollout_of_a_dead_runtime_is_over(one: Scene) -> None:
    in_a_turn(one)
    assert {each.state for each in one.pause(wait=0, writer=WriterState.NONE)} == {PauseState.PAUSED}


@pytest.mark.parametrize(
    ("sql", "state", "waiting_for"),
    [
        ("UPDATE thread_goals SET status = 'complete', updated_at_ms = 7", PauseState.OVER, ""),
        ("UPDATE thread_goals SET goal_id = 'another', status = 'active'", PauseState.OVER, ""),
        ("DELETE FROM thread_goals", PauseState.OVER, ""),
        ("UPDATE thread_goals SET updated_at_ms = 7", PauseState.OVER, ""),
        ("UPDATE thread_goals SET status = 'active', updated_at_ms = 7", PauseState.NOT_CONFIRMED, "read paused"),
    ],
    ids=["the turn completed it", "replaced", "cleared", "paused by a person too", "set going by a person"],
)
def test_what_happens_to_the_goal_while_its_turn_is_waited_for(
    one: Scene, sql: str, state: PauseState, waiting_for: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = in_a_turn(one)
    really, looks = pause._look, []

    def look(pending: Any, goal: Goal | None, journal: Journal) -> None:
        really(pending, goal, journal)
        if pending.seen.thread.thread_id == thread_id(1):
            looks.append(pending.waiting_for)
            if len(looks) == 1:
                one.change(sql)

    monkeypatch.setattr(pause, "_look", look)
    with second_process(RUNTIME, path, ENDED):
        pauses = {each.thread_id: each for each in one.pause(wait=1.5, writer=WriterState.LIVE)}
    assert pauses[thread_id(1)].state is state
    assert waiting_for in pauses[thread_id(1)].waiting_for
    rows = [row for name, row in one.rows().items() if name == thread_id(1)]
    assert (thread_id(1) in one.pending()) is (state is PauseState.NOT_CONFIRMED)
    one.put_back()
    assert [row for name, row in one.rows().items() if name == thread_id(1)] == rows, "it is theirs"


# ---- an update that drops the goals -------------------------------------------------------------------------


def update_to_0_134(one: Scene) -> None:
    """What migrations 33 and 34 do: the table goes, nothing is copied, another database has an empty one."""
    one.codex.execute("state_5.sqlite", "DROP TABLE thread_goals")
    newer = CodexHome(one.codex.path.parent / "other", "0.134.0")
    shutil.copy(newer.path / "goals_1.sqlite", one.codex.path / "goals_1.sqlite")
    one.codex.version = "0.134.0"


def test_a_goal_that_the_update_dropped_is_written_anew_with_every_value_and_active(tmp_path: Path) -> None:
    one = scene(tmp_path, "0.128.0")
    before = one.rows()
    one.pause()
    known = {goal.thread_id: goal for goal in goals.read_goals(one.home, Deadline(None)).goals}
    update_to_0_134(one)

    done = one.put_back(known=known)

    assert {each.outcome for each in done.values()} == {Outcome.INSERTED}
    assert one.pending() == []
    assert one.rows().keys() == {thread_id(1), thread_id(2)}, "those of others are not ours to write here"
    for number in (1, 2):
        row, then = one.row(number), before[thread_id(number)]
        assert {k for k in then if row[k] != then[k]} <= {"updated_at_ms"}
        assert row["created_at_ms"] == CREATED_MS


def test_a_dropped_goal_that_nobody_knows_stays_in_the_journal_until_somebody_does(tmp_path: Path) -> None:
    one = scene(tmp_path, "0.128.0")
    one.pause()
    known = {goal.thread_id: goal for goal in goals.read_goals(one.home, Deadline(None)).goals}
    update_to_0_134(one)
    done = one.put_back(known={thread_id(1): known[thread_id(1)]})
    assert (done[thread_id(1)].outcome, done[thread_id(1)].pending) == (Outcome.INSERTED, False)
    assert (done[thread_id(2)].outcome, done[thread_id(2)].pending) == (Outcome.DROPPED, True)
    assert one.pending() == [thread_id(2)]
    assert one.put_back(known=known)[thread_id(2)].outcome is Outcome.INSERTED


def test_before_the_new_version_was_started_there_is_no_place_for_a_dropped_goal(tmp_path: Path) -> None:
    one = scene(tmp_path, "0.128.0")
    one.pause()
    known = {goal.thread_id: goal for goal in goals.read_goals(one.home, Deadline(None)).goals}
    one.codex.execute("state_5.sqlite", "DROP TABLE thread_goals")
    done = one.put_back(known=known)
    assert {(each.outcome, each.pending) for each in done.values()} == {(Outcome.NO_PLACE, True)}
    update_to_0_134_again = CodexHome(tmp_path / "other", "0.134.0")
    shutil.copy(update_to_0_134_again.path / "goals_1.sqlite", one.codex.path / "goals_1.sqlite")
    assert {each.outcome for each in one.put_back(known=known).values()} == {Outcome.INSERTED}


def test_a_goal_that_a_person_set_anew_after_the_update_is_kept(tmp_path: Path) -> None:
    one = scene(tmp_path, "0.128.0")
    one.pause()
    known = {goal.thread_id: goal for goal in goals.read_goals(one.home, Deadline(None)).goals}
    update_to_0_134(one)
    one.codex.goal(1, "paused", goal_id="set by a person")
    row = one.row(1)
    done = one.put_back(known=known)
    assert (done[thread_id(1)].outcome, done[thread_id(1)].pending) == (Outcome.REPLACED, False)
    assert one.row(1) == row


def test_another_goal_of_the_same_thread_in_the_checkpoint_is_not_taken_for_it(tmp_path: Path) -> None:
    one = scene(tmp_path, "0.128.0")
    one.pause()
    (goal,) = [g for g in goals.read_goals(one.home, Deadline(None)).goals if g.thread_id == thread_id(1)]
    older = Goal(**{name: getattr(goal, name) for name in Goal.__slots__} | {"goal_id": "an older one"})
    update_to_0_134(one)
    assert one.put_back(known={thread_id(1): older})[thread_id(1)].outcome is Outcome.DROPPED
    assert one.rows() == {}


# ---- what cannot be put back now ----------------------------------------------------------------------------


def test_the_goal_of_a_harmed_thread_stays_paused_and_in_the_journal(one: Scene) -> None:
    one.pause()
    row = one.row(1)
    done = one.put_back(withheld=frozenset({thread_id(1)}))
    assert done[thread_id(1)].pending
    assert one.row(1) == row
    assert one.row(2)["status"] == "active"
    assert one.pending() == [thread_id(1)]
    assert one.put_back()[thread_id(1)].outcome is Outcome.RESTORED


def test_while_another_process_writes_nothing_changes_and_nothing_is_forgotten(one: Scene) -> None:
    one.pause()
    rows = one.rows()
    with held_by_another_process(one.codex.path / one.database, "BEGIN IMMEDIATE"), pytest.raises(DatabaseBusy):
        one.put_back(deadline=Deadline(0.5))
    assert one.rows() == rows
    assert sorted(one.pending()) == [thread_id(1), thread_id(2)]
    one.put_back()
    assert {one.row(number)["status"] for number in (1, 2)} == {"active"}


def test_one_that_fails_keeps_no_other_from_being_put_back(one: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal is full after the first one: that one is active, and so must the others be."""
    one.pause()
    really = Journal.record_restored

    def full(journal: Journal, intent: PauseIntent, outcome: str) -> None:
        if intent.thread_id == thread_id(1):
            raise NoSpace("the disk or the quota is full", path=journal._path)
        really(journal, intent, outcome)

    with monkeypatch.context() as disk:
        disk.setattr(Journal, "record_restored", full)
        with pytest.raises(NoSpace):
            one.put_back()
    assert {one.row(number)["status"] for number in (1, 2)} == {"active"}
    assert one.pending() == [thread_id(1)]
    assert one.put_back()[thread_id(1)].outcome is Outcome.ALREADY_ACTIVE
    assert one.pending() == []


def test_with_no_room_to_put_a_goal_back_none_is_paused(one: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pause.files, "free_bytes", lambda path: 4096)
    rows = one.rows()
    with pytest.raises(NoSpace):
        one.pause()
    assert one.rows() == rows
    assert one.pending() == []


def test_a_reader_never_sees_a_goal_half_changed(one: Scene) -> None:
    """A runtime looks at the table all the while: every row that it sees is one of those that were written."""
    seen_by_runtime = """
import json, sqlite3
connection = sqlite3.connect(sys.argv[1], timeout=10)
look = lambda: connection.execute("SELECT thread_id, status, objective, tokens_used FROM thread_goals").fetchall()
seen = set(look())
say("ready")
while len(seen) < 7:  # five goals, and two of them paused
    seen.update(look())
say(json.dumps(sorted(seen)))
"""
    with second_process(seen_by_runtime, one.codex.path / one.database) as runtime:
        one.pause()
        one.put_back()
        one.pause()
        assert runtime.stdout is not None
        seen = json.loads(runtime.stdout.readline())
    assert {(objective, tokens) for _, _, objective, tokens in seen} == {(OBJECTIVE, 11_380)}
    assert {status for thread, status, *_ in seen if thread in (thread_id(1), thread_id(2))} == {"active", "paused"}


# ---- through the owner's control socket (FAKE) --------------------------------------------------------------


@pytest.fixture
def owned() -> Iterator[Scene]:
    """Short, because the path of a Unix socket may have no more than 108 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="pp-"))
    one = scene(folder)
    (one.codex.path / "app-server-control").mkdir()
    yield one
    shutil.rmtree(folder)


def owner_of(one: Scene) -> Callable[[Json], list[Json]]:
    """A server that does what it is asked to, as 0.169 does: the row gets its own time."""

    def answer(message: Json) -> list[Json]:
        if message.get("method") != "thread/goal/set":
            return usual(message)
        thread, status = message["params"]["threadId"], message["params"]["status"]
        with closing(sqlite3.connect(one.codex.path / one.database)) as connection, connection:
            connection.execute(
                "UPDATE thread_goals SET status = ?, updated_at_ms = ? WHERE thread_id = ?",
                (status, time.time_ns() // 1_000_000, thread),
            )
        return [{"id": message["id"], "result": {"goal": {"status": status, "objective": OBJECTIVE}}}]

    return answer


def asked_for(received: list[Json]) -> list[tuple[str, str]]:
    return [(m["params"]["threadId"], m["params"]["status"]) for m in received if m["method"] == "thread/goal/set"]


def test_the_owner_is_asked_and_hears_of_it_when_the_goal_goes_on(owned: Scene) -> None:
    with fake_server(owned.home, owner_of(owned)) as received:
        assert {each.state for each in owned.pause()} == {PauseState.PAUSED}
        assert sorted(asked_for(received)) == [(thread_id(1), "paused"), (thread_id(2), "paused")]
        assert {entry.intent.how for entry in owned.journal.pending()} == {PauseMeans.SOCKET}
        done = owned.put_back()
        assert sorted(asked_for(received)[2:]) == [(thread_id(1), "active"), (thread_id(2), "active")]
    assert all(each.outcome is Outcome.RESTORED and each.owner_told for each in done.values())
    assert {owned.row(number)["status"] for number in (1, 2)} == {"active"}


def refuse(message: Json) -> list[Json]:
    if message.get("method") == "thread/goal/set":
        return [{"id": message["id"], "error": {"code": -32600, "message": "goals feature is disabled"}}]
    return usual(message)


def say_that_nothing_has_changed(message: Json) -> list[Json]:
    if message.get("method") == "thread/goal/set":
        return [{"id": message["id"], "result": {"goal": {"status": "active", "objective": OBJECTIVE}}}]
    return usual(message)


@pytest.mark.parametrize("answer", [refuse, say_that_nothing_has_changed])
def test_where_the_owner_does_not_do_it_the_database_serves(owned: Scene, answer: Callable[[Json], list[Json]]) -> None:
    with fake_server(owned.home, answer):
        assert {each.state for each in owned.pause()} == {PauseState.PAUSED}
        assert {owned.row(number)["status"] for number in (1, 2)} == {"paused"}
        done = owned.put_back()
    assert {each.outcome for each in done.values()} == {Outcome.RESTORED}
    assert {owned.row(number)["status"] for number in (1, 2)} == {"active"}


def test_a_pause_that_the_owner_carried_out_and_did_not_answer_is_ours_all_the_same(owned: Scene) -> None:
    really = owner_of(owned)

    def hangs_up(message: Json) -> list[Json]:
        if message.get("method") == "thread/goal/set":
            really(message)
            return [{"id": message["id"], "error": {"code": -32603, "message": "the answer got lost"}}]
        return usual(message)

    with fake_server(owned.home, hangs_up):
        assert {each.state for each in owned.pause()} == {PauseState.PAUSED}
    assert {each.outcome for each in owned.put_back().values()} == {Outcome.RESTORED}


def test_other_tables_of_the_database_are_not_written_to(tmp_path: Path) -> None:
    one = scene(tmp_path)
    one.codex.execute("goals_1.sqlite", "CREATE TABLE diary (word TEXT)", "INSERT INTO diary VALUES ('today')")
    one.pause()
    one.put_back()
    assert one.codex.rows("goals_1.sqlite", "diary") == [{"word": "today"}]
    assert GoalTable.GOALS in {goal.table for goal in goals.read_goals(one.home, Deadline(None)).goals}
