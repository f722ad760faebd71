"""Proof by the program itself: a real Codex resumes the resume rollout, in a scratch home, and says what it sees.

The trial cannot start a model turn: the goal is paused, or left out where a resume would make it active; the
provider is a loopback port that we keep bound and do not listen on; proxies point there too; the environment
is built from nothing; where the system allows it there is no network at all. It does not know of the real home:
the rollout and the goal's row are copies. Each of these alone is enough.

Turns: the server shows one for each `task_started` (and one for each `user_message` event outside of a turn),
less those that `thread_rolled_back` takes off the end. The same number came from 0.128.0, 0.134.0, 0.147.0
and 0.169.0 for legacy and paginated rollouts, whole and reduced (176 rollouts, each on all four); the one
exception is 0.147.0, which shows nothing of a paginated rollout whose ordinals have gaps.
"""

from __future__ import annotations

import hashlib
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from preflight.codex.app_server import AppServer, RemoteGoal, RemoteThread
from preflight.codex.rollout import SessionMeta, read_meta
from preflight.codex.runtime import CodexBinary, RuntimeVersion, reads_paginated, resume_cost, resume_reactivates_paused
from preflight.codex.scratch_home import (
    ScratchHome,
    define_provider,
    make_scratch_home,
    put_goal,
    system_configuration,
)
from preflight.errors import AppServerError, DamagedFile, NoSpace, Unsupported, Unverified
from preflight.model import Answer, Goal, GoalStatus, GoalTable, HistoryMode
from preflight.system import children, locks, processes
from preflight.system.deadline import Deadline

__all__ = ["Trial", "TrialOutcome", "remove_left_behind", "trial_resume"]

_PREFIX = "trial-"
_LOCK = "at-work.lock"
_RESUME_SECONDS = 120.0
_WATCH_SECONDS = 0.25  # an active goal's turn starts 20 ms after the answer to thread/resume (0.134.0 to 0.169.0)

Result = TypeVar("Result")


class TrialOutcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_POSSIBLE = "not-possible"  # says nothing about the checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of it. `seconds` is from the start of the process to the answer of `thread/resume`.

    `isolated`: it had no network at all. `goal_status` and `objective_matches` are None when the goal
    was not asked for; `not_checked` says why. `runtime_words` are Codex's own and may hold paths.
    """

    outcome: TrialOutcome
    reason: str | None = None
    runtime_version: str | None = None
    isolated: bool = False
    turns: int | None = None
    goal_status: str | None = None
    objective_matches: bool | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    not_checked: tuple[str, ...] = ()
    runtime_words: str | None = field(default=None, repr=False)


class _EndedError(Exception):
    """The trial is over, and this is why."""

    def __init__(self, outcome: TrialOutcome, reason: str, words: str | None = None) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason
        self.words = words


def trial_resume(
    binary: CodexBinary,
    rollout: Path,
    thread_id: str,
    *,
    scratch: Path,
    deadline: Deadline,
    goal: Goal | None = None,
    goals_database: Path | None = None,
    expected_turns: int | None = None,
) -> Trial:
    """Resume `rollout` with `binary` in a new home below `scratch`, which must be private and need not be empty.

    `goals_database` is the checkpoint's copy, in which `goal` is; both None: no goal is asked for.
    Takes about half a second and the rollout's size on the disk. The child and everything it started
    are gone when this returns, and so is its home. TimeLimitReached when the deadline comes first.
    """
    prefix = children.network_free_prefix()
    seen = _Seen(isolated=bool(prefix), runtime_version=_text(binary.version))
    try:
        size, meta = _readable(rollout)
        _require_possible(binary, size, meta, isolated=seen.isolated)
        asked_goal = _goal_to_ask_for(binary, goal, goals_database, seen)
        with _scratch_folder(scratch, seen) as folder, _dead_port() as port:
            home = _home(folder, rollout, port, deadline, goals=asked_goal is not None)
            if asked_goal is not None and goals_database is not None:
                put_goal(home, goals_database, thread_id, deadline)
            _run(_Question(binary, prefix, home, thread_id, meta, asked_goal, expected_turns), seen, deadline)
    except _EndedError as end:
        return seen.trial(end.outcome, end.reason, end.words)
    except DamagedFile as error:
        return seen.trial(TrialOutcome.FAILED, error.message)
    except (NoSpace, Unsupported, Unverified) as error:
        return seen.trial(TrialOutcome.NOT_POSSIBLE, error.message)
    return seen.trial(TrialOutcome.PASSED)


def remove_left_behind(scratch: Path) -> int:
    """Remove the scratch homes of trials that were killed; how many. Those of trials that go on stay.

    What cannot be removed stays too: it takes room and does no other harm.
    """
    removed = 0
    with suppress(OSError):
        for path in scratch.glob(f"{_PREFIX}*"):
            if path.is_dir() and locks.lock_is_held(path / _LOCK) is Answer.NO:
                with suppress(OSError):
                    _remove(path)
                    removed += 1
    return removed


def _remove(folder: Path) -> None:
    # Two may do it at once: the trial itself at its end, and a run that clears away what killed ones left.
    # Whoever comes second finds nothing.
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


@dataclass(frozen=True, slots=True)
class _Question:
    binary: CodexBinary
    prefix: list[str]
    home: ScratchHome
    thread_id: str
    meta: SessionMeta
    goal: Goal | None
    expected_turns: int | None


@dataclass(slots=True)
class _Seen:
    """What has been seen as far as the trial has come."""

    isolated: bool
    runtime_version: str | None
    turns: int | None = None
    goal: RemoteGoal | None = None
    objective_matches: bool | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    not_checked: list[str] = field(default_factory=list)

    def trial(self, outcome: TrialOutcome, reason: str | None = None, words: str | None = None) -> Trial:
        return Trial(
            outcome=outcome,
            reason=reason,
            runtime_version=self.runtime_version,
            isolated=self.isolated,
            turns=self.turns,
            goal_status=None if self.goal is None else self.goal.status,
            objective_matches=self.objective_matches,
            seconds=self.seconds,
            peak_memory_bytes=self.peak_memory_bytes,
            not_checked=tuple(self.not_checked),
            runtime_words=words,
        )


def _text(version: RuntimeVersion | None) -> str | None:
    return None if version is None else str(version)


def _failed(reason: str, words: str | None = None) -> _EndedError:
    return _EndedError(TrialOutcome.FAILED, reason, words)


def _not_possible(reason: str, words: str | None = None) -> _EndedError:
    return _EndedError(TrialOutcome.NOT_POSSIBLE, reason, words)


# ---- before ------------------------------------------------------------------------------------------------


def _readable(rollout: Path) -> tuple[int, SessionMeta]:
    try:
        return rollout.stat().st_size, read_meta(rollout)
    except OSError as error:
        raise _failed(f"the resume rollout cannot be read: {error.strerror}") from None


def _require_possible(binary: CodexBinary, size: int, meta: SessionMeta, *, isolated: bool) -> None:
    if not isolated and system_configuration():
        raise _not_possible("the machine-wide configuration of Codex could start programs that reach the network")
    needed = resume_cost(binary.version, meta.history_mode).of(size)
    if needed > processes.machine_memory_bytes() // 2:
        raise _not_possible(f"resuming it may need {needed} bytes of memory, more than half of what there is")


def _home(folder: Path, rollout: Path, port: int, deadline: Deadline, *, goals: bool) -> ScratchHome:
    try:
        return make_scratch_home(folder, rollout, dead_port=port, goals=goals, deadline=deadline)
    except OSError as error:
        raise _not_possible(f"the scratch home could not be made: {error.strerror}") from None


def _goal_to_ask_for(binary: CodexBinary, goal: Goal | None, goals_database: Path | None, seen: _Seen) -> Goal | None:
    if goal is None:
        return None
    if resume_reactivates_paused(binary.version):
        seen.not_checked.append(
            "the goal: this Codex makes a paused goal active when it resumes a thread, so it was left out"
        )
    elif goal.table is GoalTable.STATE:
        seen.not_checked.append("the goal: it is kept as 0.128 does, and this Codex drops such goals")
    elif goals_database is None:
        seen.not_checked.append("the goal: there is no copy of its database")
    else:
        return goal
    return None


@contextmanager
def _scratch_folder(parent: Path, seen: _Seen) -> Iterator[Path]:
    try:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError as error:
        raise _not_possible(f"the scratch home could not be made: {error.strerror}") from None
    try:
        # The lock tells `remove_left_behind` that we are at work. Between these two lines it may take the folder
        # away; the trial then ends as one that was not possible.
        with locks.held(folder / _LOCK):
            yield folder
    finally:
        try:
            _remove(folder)
        except OSError:
            seen.not_checked.append(f"that nothing of the trial is left: {folder} could not be removed")


@contextmanager
def _dead_port() -> Iterator[int]:
    """A port of ours on which nobody can listen while we hold it: who connects is refused at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


# ---- meanwhile ---------------------------------------------------------------------------------------------


def _run(question: _Question, seen: _Seen, deadline: Deadline) -> None:
    deadline.check("trial resume")
    home = question.home
    begun = time.monotonic()
    argv = [*question.prefix, str(question.binary.path), "app-server"]
    try:
        child = children.Child(argv, env=home.environment, cwd=home.work)
    except OSError as error:
        raise _not_possible(f"Codex could not be started: {error.strerror}") from None
    with child:
        try:
            with _answering(child, deadline) as server:
                try:
                    _ask(question, server, seen, deadline, begun)
                finally:
                    # Before we hang up: a child that has ended takes the figure with it.
                    seen.peak_memory_bytes = processes.peak_memory_bytes(child.pid)
        except AppServerError as error:
            # Waiting only for a child that hung up: one that refused or was too slow is still there.
            status = child.wait(0.0 if error.usable else 0.5)
            died = f" and ended with status {status}" if status is not None else ""
            raise _failed(f"{error.message}{died}", error.rpc_message) from None


def _answering(child: children.Child, deadline: Deadline) -> AppServer:
    try:
        return AppServer.on_pipes(child.stdin, child.stdout, deadline)
    except AppServerError as error:
        raise _not_possible("Codex did not start as an app-server", error.rpc_message) from None


def _ask(question: _Question, server: AppServer, seen: _Seen, deadline: Deadline, begun: float) -> None:
    _require_scratch(question, server, seen)
    resumed = _resumed(question, server, deadline)
    seen.seconds = round(time.monotonic() - begun, 3)
    if resumed.thread_id != question.thread_id:
        raise _failed("Codex opened another thread than it was asked for")
    _compare_turns(question, server, seen, deadline)
    _compare_goal(question, server, seen, deadline)
    server.listen(deadline.at_most(_WATCH_SECONDS))
    now = server.thread_read(question.thread_id, deadline)
    if now.thread_id != question.thread_id:
        raise _failed("Codex reads another thread than it was asked for")
    if now.status == "active" or any(note.method == "turn/started" for note in server.notifications):
        raise _failed("a turn started by itself")


def _require_scratch(question: _Question, server: AppServer, seen: _Seen) -> None:
    """Nothing has been resumed yet: a server that is not what it should be is left alone."""
    version = server.info.version or question.binary.version
    seen.runtime_version = _text(version)
    place = server.info.codex_home
    if place is not None and place.resolve() != question.home.path.resolve():
        raise _not_possible("Codex works on another home than the one it was given")
    if question.goal is not None and resume_reactivates_paused(version):
        raise _not_possible(f"the program says that it is {version}, which would make the goal active")


def _resumed(question: _Question, server: AppServer, deadline: Deadline) -> RemoteThread:
    defined: set[str] = set()
    while True:
        try:
            return server.thread_resume(question.thread_id, question.home.work, deadline, seconds=_RESUME_SECONDS)
        except AppServerError as error:
            if not _is_about_our_configuration(error):
                raise
            provider = error.rpc_data.get("modelProvider")
            if not isinstance(provider, str) or provider in defined:
                raise _not_possible("Codex refused the scratch home's configuration", error.rpc_message) from None
        defined.add(provider)
        define_provider(question.home, provider)


def _is_about_our_configuration(error: AppServerError) -> bool:
    """Such an error says nothing about the rollout: by its type since 0.169, by its words before."""
    by_type = error.rpc_data.get("type") == "modelProviderNotConfigured"
    return by_type or (error.rpc_message or "").startswith("failed to load configuration")


def _compare_turns(question: _Question, server: AppServer, seen: _Seen, deadline: Deadline) -> None:
    turns = _told(lambda: server.turn_count(question.thread_id, deadline, seconds=_RESUME_SECONDS))
    seen.turns = turns
    expected = question.expected_turns
    if turns is None or expected is None:
        seen.not_checked.append("the number of turns")
        return
    version = server.info.version or question.binary.version
    if turns == 0 and question.meta.history_mode is HistoryMode.PAGINATED and not reads_paginated(version):
        # 0.147.0 resumes it with the right input, and shows nothing of it where its ordinals have gaps.
        seen.not_checked.append("the number of turns: this Codex does not show those of a paginated thread")
        return
    if turns != expected:
        raise _failed(f"Codex shows {turns} turns, the resume rollout has {expected}")


def _compare_goal(question: _Question, server: AppServer, seen: _Seen, deadline: Deadline) -> None:
    goal = question.goal
    if goal is None:
        return
    try:
        found = server.goal_get(question.thread_id, deadline)
    except AppServerError as error:
        if not error.usable:
            raise
        seen.not_checked.append("the goal: this Codex does not tell it")
        return
    if found is None:
        raise _failed("Codex does not see the goal")
    seen.goal, seen.objective_matches = found, _same_objective(found, goal)
    if found.status != GoalStatus.PAUSED:
        raise _failed("Codex does not see the goal as paused")
    if not seen.objective_matches:
        raise _failed("Codex sees another objective than the checkpoint holds")


def _told(question: Callable[[], Result]) -> Result | None:
    """The answer, or None when the server refuses the question or its answer is too large; it is still there."""
    try:
        return question()
    except AppServerError as error:
        if not error.usable:
            raise
        return None


def _same_objective(found: RemoteGoal, goal: Goal) -> bool:
    """By digest: an objective is never kept in what goes into a report."""
    return hashlib.sha256(found.objective.encode()).digest() == hashlib.sha256(goal.objective.encode()).digest()
