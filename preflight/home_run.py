"""One home on its way through the gate: looked at, paused, checkpointed, looked at again, put back.

The gate calls these stages in their order; what each found stays here for the next one and the verdict.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from preflight import policy
from preflight.checkpoint import nights
from preflight.checkpoint.coverage import checkpoint_lookup
from preflight.checkpoint.journal import Journal
from preflight.checkpoint.nights import Nights, Schedule
from preflight.checkpoint.restore_record import interrupted
from preflight.checkpoint.store import Store, unreadable
from preflight.codex import writers
from preflight.codex.goals import read_goals
from preflight.codex.runtime import CodexBinary, RuntimeVersion, drops_goals, find_binary, version_in_use
from preflight.codex.threads import ThreadsFound, find_threads, rollout_files
from preflight.errors import DamagedFile, Locked, PreflightError, TryLater, Unsupported
from preflight.inspection import Inspecting, inspect
from preflight.model import (
    Answer,
    Finding,
    GoalTable,
    Home,
    HomeObservation,
    Runtime,
    Severity,
    WriterState,
)
from preflight.request import Request
from preflight.system.deadline import Deadline
from preflight.system.locks import held
from preflight.system.processes import machine_memory_bytes

if TYPE_CHECKING:
    from preflight.checkpoint.archiving import Archiving
    from preflight.checkpoint.make import Made

# What only `run` needs (sockets, trials, locks) is imported where it is used: `check` has a budget for its start.

#: Left of a run's time when archiving ends, to publish the checkpoint and decide.
_AFTER_ARCHIVING_SECONDS = 10.0

#: Time of its own for putting goals back: the deadline may be over when it is needed most.
_PUT_BACK_SECONDS = 15.0


@dataclass(slots=True)
class HomeRun:
    """One home on its way through the gate; each stage adds what it found."""

    home: Home
    request: Request
    deadline: Deadline
    run_id: str
    store: Store | None = None
    found: ThreadsFound | None = None
    nights: Nights | None = None
    schedule: Schedule = field(default_factory=Schedule)
    runtimes: tuple[Runtime, ...] = ()
    binary: CodexBinary | None = None
    seen: HomeObservation | None = None
    made: Made | None = None
    findings: list[Finding] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    fenced: set[str] = field(default_factory=set)
    pausing: bool = False

    # ---- discover and inspect

    def look(self) -> None:
        """Read the home anew; nothing is changed."""
        request = self.request
        self.runtimes = writers.runtimes_of(self.home)
        self.binary = find_binary(request.runtime, request.env, self.runtimes)
        self.found = find_threads(self.home, self.deadline, self.found)
        how = Inspecting(
            settings=request.settings,
            wanted=frozenset(thread_id.lower() for thread_id in request.threads),
            fenced=self.fenced,
            version=self.target or self.current,
            checkpoint_of=checkpoint_lookup(self.store),
            deadline=self.deadline,
            before={seen.thread.thread_id: seen for seen in self.seen.threads} if self.seen is not None else {},
        )
        seen = inspect(self.home, self.found, self.runtimes, how)
        self._remember()
        if self.store is not None:
            seen = replace(seen, findings=(*seen.findings, *interrupted(self.store.restores)))
        if self.nights is not None:
            seen = replace(seen, last_good_night=self.nights.last_good_at)
        self.seen = self._with_ours(seen)

    def _remember(self) -> None:
        """What the store says of the nights and of their schedule."""
        if self.store is None:
            return
        try:
            self.schedule = nights.schedule_of(self.store.schedule)
            self.nights = nights.load(self.store.nights)
        except DamagedFile as error:
            gap = f"when the last good night was: {error.message}"
            if gap not in self.not_checked:
                self.not_checked.append(gap)

    @property
    def current(self) -> RuntimeVersion | None:
        """The version in use: that of the newest running runtime, else of the program that would be started."""
        return version_in_use(self.runtimes, self.binary if self.request.runtime is None else None)

    @property
    def target(self) -> RuntimeVersion | None:
        """The version that will open the threads: as told, else that of the program named for the trial."""
        told = RuntimeVersion.parse(self.request.target_version)
        if told is None and self.request.runtime is not None and self.binary is not None:
            return self.binary.version
        return told

    def circumstances(self, *, checkpointing: bool) -> policy.Circumstances:
        goals = self.found.goals if self.found is not None else ()
        in_state = any(goal.table is GoalTable.STATE for goal in goals)
        age, newest_unreadable = (None, None) if checkpointing else _age(self.store)
        return policy.Circumstances(
            checkpointing=checkpointing,
            pausing=self.pausing,
            machine_memory_bytes=machine_memory_bytes(),
            target_version=None if self.target is None else str(self.target),
            current_version=None if self.current is None else str(self.current),
            drops_goals=drops_goals(self.current, self.target) if in_state else Answer.NO,
            checkpoint_age_seconds=age,
            nights_are_made=nights.are_made(self.nights, self.schedule),
            scheduled_seconds=self.schedule.seconds_since_installed(),
            night_age_seconds=self.nights.seconds_since_good() if self.nights is not None else None,
            newest_unreadable=newest_unreadable,
        )

    # ---- pause

    @property
    def journal(self) -> Journal:
        assert self.store is not None  # noqa: S101  # only verbs that opened the store pause or put back
        return Journal(self.store.journal)

    def pause(self, fences: ExitStack) -> bool:
        """Pause every active goal, and wait for its turn and for those of others; True when there was anything to do.

        What could not be confirmed in time becomes a finding.
        """
        from preflight.pause import Pausing, not_confirmed, pause_goals, wait_for_turns

        assert self.seen is not None  # noqa: S101
        self._fence(fences)
        how = Pausing(
            run_id=self.run_id,
            wait_seconds=self.request.wait,
            interrupt=self.request.interrupt,
            target_version=self.request.target_version,
            deadline=self.deadline,
            progress=self.request.progress,
        )
        self.pausing = True
        until = self.deadline.sub(self.request.wait)
        pauses = pause_goals(self.home, self.seen.threads, self.journal, how)
        self.findings += not_confirmed(pauses)
        return wait_for_turns(self.seen.threads, until, self.request.progress) or bool(pauses)

    def _fence(self, fences: ExitStack) -> None:
        """Hold Codex's writer lock of goal threads that nobody has open, so that nobody opens them meanwhile.

        Against a runtime that opens the thread at the same moment: whoever is first has the lock; the
        runtime refuses the thread until we are done, or we leave it alone and wait for its turns.
        Releases before 0.147 know no such lock; then there is no folder and nothing to hold.
        """
        assert self.seen is not None  # noqa: S101
        for seen in self.seen.threads:
            lock = writers.writer_lock_path(self.home, seen.thread.thread_id)
            if seen.thread.is_goal_thread and seen.writer is WriterState.NONE and lock.parent.is_dir():
                try:
                    fences.enter_context(held(lock))
                except Locked:
                    continue
                self.fenced.add(seen.thread.thread_id)

    # ---- checkpoint and verify

    def checkpoint(self) -> None:
        """Write and prove a checkpoint of every thread that needs one; failures become findings.

        Also when a goal could not be confirmed paused: the other threads need theirs no less, and the
        lines of a turn in progress that are there are whole.
        """
        from preflight.checkpoint.make import Making, make_checkpoint, not_written

        assert self.seen is not None  # noqa: S101
        assert self.store is not None  # noqa: S101
        assert self.found is not None  # noqa: S101
        request = self.request
        wanted = {thread_id.lower() for thread_id in request.threads}
        chosen = [s.thread for s in self.seen.threads if policy.needs_checkpoint(s) or s.thread.thread_id in wanted]
        how = Making(
            home=self.home,
            threads=chosen,
            goals=self.found.goals,
            inventory=rollout_files(self.found),
            runtimes=self.runtimes,
            binary=self.binary,
            made_by="run",
            reason=request.reason,
            target_version=request.target_version,
            keep_free_bytes=request.settings.keep_free_bytes,
            deadline=self.deadline,
            progress=request.progress,
            runtime_version=None if self.current is None else str(self.current),
            archiving=self._archiving(self.store),
            tails={s.thread.thread_id: s.tail for s in self.seen.threads if s.tail is not None},
        )
        try:
            self.made = make_checkpoint(self.store, how)
        except TryLater as error:
            if not self.findings:
                raise
            self.not_checked.append(f"no checkpoint was made: {error.message}")  # the verdict is block already
            return
        except (PreflightError, OSError) as error:
            self.findings.append(not_written(self.home, error))
            return
        finally:
            if self.made is None:
                # What was begun is of no use and may be what fills the disk; the next run removes what cannot be now.
                with suppress(OSError):
                    self.clear_left_behind()
        self.findings += self.made.findings
        self.not_checked += self.made.not_checked

    def _archiving(self, store: Store) -> Archiving | None:
        """What comes after the proof, in the time that is left; only `always` lets the verdict depend on it."""
        request, always = self.request, self.request.archive == "always"
        if request.archive == "never":
            return None
        from preflight.checkpoint.archiving import Archiving, Proof

        return Archiving(
            folder=store.archive,
            prove=Proof.TAIL,
            failed=Severity.BLOCK if always else Severity.WARN,
            unfinished=Severity.BLOCK if always else None,
            keep_free_bytes=request.settings.keep_free_bytes,
            deadline=self.deadline.sub(max(self.deadline.remaining() - _AFTER_ARCHIVING_SECONDS, 0)),
            max_rate=None,
            damaged=frozenset(nights.recall(store.nights).damaged_archives),
            progress=request.progress,
            moved=request.moved,
        )

    def conclude(self) -> None:
        """Look once more: the verdict is on the home as it is now, not as it was before gigabytes were copied.

        Against a person who goes on meanwhile with a goal or begins a turn: what they did before this look
        blocks; what they do after it is theirs and the updater's, as after any verdict.
        """
        self.look()
        assert self.seen is not None  # noqa: S101
        self.seen = replace(self.seen, findings=(*self.seen.findings, *self.findings))

    def _with_ours(self, seen: HomeObservation) -> HomeObservation:
        if self.store is None:
            return seen
        ours = {entry.intent.thread_id for entry in self.journal.pending()}
        return replace(seen, threads=tuple(replace(t, paused_by_us=t.thread.thread_id in ours) for t in seen.threads))

    # ---- put back

    def put_back(self) -> None:
        """Undo every pause of the journal; used when the update must not go on."""
        from preflight.pause import PuttingBack, put_back

        if self.pausing and self.store is not None:
            deadline = Deadline(_PUT_BACK_SECONDS)
            put_back(self.home, self.journal, PuttingBack(deadline=deadline))
            self._see_goals_again(deadline)

    def _see_goals_again(self, deadline: Deadline) -> None:
        """The report must not call a goal paused that is active again; unread, they are told as they were."""
        if self.seen is None:
            return
        with suppress(PreflightError):
            now = {goal.thread_id: goal for goal in read_goals(self.home, deadline).goals}
            threads = tuple(
                replace(each, thread=replace(each.thread, goal=now.get(each.thread.thread_id)))
                for each in self.seen.threads
            )
            self.seen = self._with_ours(replace(self.seen, threads=threads))

    def clear_left_behind(self) -> None:
        """Remove what a killed run left: begun checkpoints, scratch homes. Only under the run lock."""
        from preflight.checkpoint.make import clear_left_behind

        assert self.store is not None  # noqa: S101
        clear_left_behind(self.store)


def _age(store: Store | None) -> tuple[float | None, Finding | None]:
    """How many seconds ago the newest checkpoint was made; a finding when it cannot be read."""
    ids = store.checkpoints() if store is not None else []
    if store is None or not ids:
        return None, None
    try:
        made = datetime.fromisoformat(store.manifest(ids[-1]).created_at).astimezone(UTC)
    except (DamagedFile, Unsupported) as error:
        return None, unreadable(ids[-1], error, remedy="preflight run makes a new one")
    except ValueError:
        return None, None
    return (datetime.now(UTC) - made).total_seconds(), None
