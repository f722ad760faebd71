"""Thirty days of a goal thread and of a fork of it, and the call of the nightly task after each of them.

Days differ in what is done: turns, tools, compactions by hand, one that is taken back, a fork that goes its own way.
Nights differ in who is there: nobody, a server with the thread open, one with the goal at work, one that was killed.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from pathlib import Path

from preflight.checkpoint import manifest as manifests
from tests.real_codex.app_server import AppServer
from tests.real_codex.codex_release import CodexRelease
from tests.real_codex.goal_runs import Prefix, answers_kept
from tests.real_codex.homes import CodexHome
from tests.real_codex.mock_model import COMPACTION_PROMPT, MockModel
from tests.real_codex.next_request import ids_in
from tests.real_codex.preflight_command import Preflight, Report
from tests.real_codex.snapshot import changes, everything_in
from tests.real_codex.threads import REVERTS_SINCE

__all__ = ["NIGHTS", "OBJECTIVE", "Month", "Night", "Scheduled", "live_a_month", "remembered"]

NIGHTS = 30
FIRST = datetime(2026, 9, 7, 3, 10, tzinfo=UTC)  # a Monday: weeks of the calendar begin with nights 1, 8, 15, 22, 29
QUIET_DAY = 14
FORKED_ON = 16
OBJECTIVE = "Keep the shelves in order until somebody says stop"
PROGRAM = Path(__file__).with_name("dated_run.py")


class Evening(Enum):
    """In which state the night finds the home."""

    CLOSED = auto()
    OPEN = auto()
    AT_WORK = auto()
    KILLED = auto()

    @classmethod
    def of(cls, number: int) -> Evening:
        if number == 19:
            return cls.KILLED
        return {0: cls.AT_WORK, 3: cls.OPEN}.get(number % 6, cls.CLOSED)


def _moment(number: int) -> datetime:
    return FIRST + timedelta(days=number - 1)


@dataclass(frozen=True, slots=True)
class Night:
    """A night that made a checkpoint. `sessions` holds every rollout with the bytes that it had then."""

    number: int
    checkpoint_id: str
    threads: tuple[str, ...]
    sessions: Path

    @property
    def at(self) -> datetime:
        return _moment(self.number)

    def bytes_of(self, name: str) -> bytes:
        (path,) = self.sessions.rglob(name)
        return path.read_bytes()


@dataclass(frozen=True, slots=True)
class Scheduled:
    """Preflight as a scheduler calls it on a day of the story."""

    preflight: Preflight

    def on(self, moment: datetime, verb: str, *arguments: str | Path) -> Report:
        told = self.preflight.command(verb, *arguments, "--config", self._config())
        program = [sys.executable, "-W", "error", PROGRAM, moment.isoformat(), *told]
        return self.preflight.end(self.preflight.start(program))

    def night(self, number: int) -> Report:
        return self.on(_moment(number), "checkpoint", "--if-changed", "--nightly")

    def _config(self) -> Path:
        """No night is pruned before the test says so."""
        path = self.preflight.home.place / "preflight.toml"
        path.write_text("[retention]\nkeep_daily = 60\n")
        return path


@dataclass(slots=True)
class Month:
    """What came of it: `read_back` is what each night read of the store, `known` every id in the rollouts.

    `grown` are the nights whose checkpoint has more than there was when it was asked for.
    """

    release: CodexRelease
    home: CodexHome
    main: str = ""
    fork: str = ""
    nights: list[Night] = field(default_factory=list)
    read_back: list[dict[str, int]] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    grown: set[int] = field(default_factory=set)


def live_a_month(release: CodexRelease, home: CodexHome, folder: Path, nights: int = NIGHTS) -> Month:
    """Makes the home and its store, and in `folder` what the home held each night."""
    month = Month(release, home)
    with MockModel(goal_delay=0.05) as model:
        home.make(model.url)
        days = _Days(month, model)
        try:
            for number in range(1, nights + 1):
                days.live(number)
                _sleep(month, days, number, folder)
        finally:
            days.end()
        _require_every_answer(month, model)
    assert month.grown, "the goal was to be at work while a checkpoint was made"
    month.known = ids_in(home.path.rglob("rollout-*.jsonl"))
    return month


def _require_every_answer(month: Month, model: MockModel) -> None:
    """Whatever the model has said to the end stands in a rollout: no night has cost a turn."""
    said = [request for request in model.final_answers() if request.thread_id in (month.main, month.fork)]
    answers = {f"answer {request.number}" for request in said if COMPACTION_PROMPT not in request.prompt}
    kept = [answers_kept(path) for path in month.home.path.rglob("rollout-*.jsonl")]
    assert set() < answers <= set().union(*kept)


@dataclass(slots=True)
class _Days:
    """Who lives in the home; `turns` are those of the main thread that a person asked for."""

    month: Month
    model: MockModel
    server: AppServer | None = None
    turns: list[str] = field(default_factory=list)

    def live(self, number: int) -> None:
        if number == QUIET_DAY:
            return
        server = self._opened()
        if number == 1:
            self._begin(server)
        self._turn(server, ("put it away", "[[run echo one; echo two]]", "[[print 2000]]")[number % 3])
        also: dict[int, Callable[[AppServer], None]] = {
            3: self._compact,
            8: self._compact_and_go_on,
            11: self._take_back_one,
            13: self._compact,
            FORKED_ON: self._fork,
            18: self._compact_and_go_on,
            20: self._fork_goes_on,
            22: self._fork_compacts,
            23: self._compact,
            24: self._take_back_what_was_compacted,
            27: self._fork_takes_back,
            28: self._compact_and_go_on,
        }
        if number in also:
            also[number](server)
        if Evening.of(number) is Evening.CLOSED:
            self.end()
        elif Evening.of(number) is Evening.KILLED:
            self._die(server)
        elif Evening.of(number) is Evening.AT_WORK:
            server.set_goal(self.month.main, status="active")
            self.model.wait_for_goal_turns(1)

    def rest(self) -> None:
        """The goal, if it was at work, does nothing more."""
        if self.server is not None:
            self.server.set_goal(self.month.main, status="paused")
            self.server.wait_until_idle(self.month.main)

    def end(self) -> None:
        if self.server is not None:
            self.server.stop()
            self.server = None

    # ---- what is done on a day ------------------------------------------------------------------------------

    def _opened(self) -> AppServer:
        if self.server is None:
            self.server = AppServer(self.month.release, self.month.home).start()
            for thread in filter(None, (self.month.main, self.month.fork)):
                self.server.resume(thread)
        return self.server

    def _begin(self, server: AppServer) -> None:
        self.month.main = server.start_thread()
        server.turn(self.month.main, "what is on the shelves?")
        server.set_goal(self.month.main, objective=OBJECTIVE, status="paused")

    def _turn(self, server: AppServer, text: str) -> None:
        self.turns.append(server.turn(self.month.main, text))

    def _compact(self, server: AppServer) -> None:
        server.compact(self.month.main)

    def _compact_and_go_on(self, server: AppServer) -> None:
        server.compact(self.month.main)
        self._turn(server, "and now?")

    def _take_back_one(self, server: AppServer) -> None:
        self._take_back(server, self.month.main, self.turns[-1:])
        self._turn(server, "otherwise")

    def _take_back_what_was_compacted(self, server: AppServer) -> None:
        """The turn of today and that of yesterday, behind which the last compaction stands."""
        self._take_back(server, self.month.main, self.turns[-2:])
        self._turn(server, "as if it had not been")

    def _fork(self, server: AppServer) -> None:
        self.month.fork = server.fork(self.month.main)
        server.turn(self.month.fork, "only in the fork")
        server.set_goal(self.month.fork, objective=OBJECTIVE, status="paused")
        self._turn(server, "not in the fork")

    def _fork_goes_on(self, server: AppServer) -> None:
        server.turn(self.month.fork, "[[run echo three]]")

    def _fork_compacts(self, server: AppServer) -> None:
        server.compact(self.month.fork)
        server.turn(self.month.fork, "and here?")

    def _fork_takes_back(self, server: AppServer) -> None:
        self._take_back(server, self.month.fork, [server.turn(self.month.fork, "a wrong word")])
        server.turn(self.month.fork, "a better one")

    def _take_back(self, server: AppServer, thread: str, turns: list[str]) -> None:
        if self.month.release.at_least(REVERTS_SINCE):
            server.revert(thread, turns[0])
        else:
            server.roll_back(thread, len(turns))

    def _die(self, server: AppServer) -> None:
        """In the middle of a turn."""
        asked = len(self.model.requests)
        server.start_turn(self.month.main, "[[sleep 600]]")
        self.model.wait("the turn's request", lambda: len(self.model.requests) > asked)
        server.kill()
        self.server = None


# ---- the night ---------------------------------------------------------------------------------------------------


def _sleep(month: Month, days: _Days, number: int, folder: Path) -> None:
    """The scheduled call. Nothing of the home is touched by it; what it saw of the rollouts is copied aside."""
    preflight, home = Preflight(month.home), month.home
    before = everything_in(home.path)
    rollouts = {path: Prefix.of(path) for path in home.path.rglob("rollout-*.jsonl")}
    done = Scheduled(preflight).night(number)
    assert done.code == 0, str(done)
    assert done.findings.keys() == set(), str(done)
    if days.server is None:
        assert changes(before, everything_in(home.path)) == {}
    else:  # its release was found, and has resumed every copy on trial
        assert {each["trial"]["outcome"] for each in done.json["data"]["verification"]} == {"passed"}, str(done)
    assert all(prefix.is_kept_by(path) for path, prefix in rollouts.items())
    month.read_back += done.json["data"]["read_back"]
    (told,) = done.json["data"]["checkpointed"]
    assert told["outcome"] == ("unchanged" if number == QUIET_DAY else "made"), str(done)
    days.rest()
    if number == QUIET_DAY:
        return
    night = remembered(month, number, told["checkpoint_id"], folder / f"{number:02}")
    assert night.checkpoint_id.startswith(f"{night.at:%Y%m%dT%H}")
    assert set(night.threads) == {month.main, month.fork} - {""}
    for path, then in rollouts.items():
        copied = len(night.bytes_of(path.name))
        assert copied == then.length or (copied > then.length and Evening.of(number) is Evening.AT_WORK)
        month.grown |= {number} if copied > then.length else set()
    month.nights.append(night)


def remembered(month: Month, number: int, checkpoint_id: str, sessions: Path) -> Night:
    """The night, with a copy of the rollouts: they only grow, so what they were is what they begin with."""
    (store,) = [path for path in Preflight(month.home).store.iterdir() if path.is_dir()]
    manifest = manifests.load(store / "checkpoints" / checkpoint_id / "manifest.json")
    shutil.copytree(month.home.path / "sessions", sessions)
    for head in (record.sources[0] for record in manifest.threads):
        path = sessions / head.path.relative_to(month.home.path / "sessions")
        data = path.read_bytes()[: head.used_bytes]
        assert len(data) == head.used_bytes
        assert data.endswith(b"\n")
        path.write_bytes(data)
    return Night(number, checkpoint_id, tuple(record.thread_id for record in manifest.threads), sessions)
