"""`checkpoint`: checkpoints on live files, pausing nothing; with `nightly` also what keeps the store in order.

    discover -> is anything new? -> checkpoint, verify -> prune -> note the night -> read a part of the store back

An append-only file has a consistent prefix at every complete line, so nobody has to stop for it. The run lock is
held while the store is changed, not while it is read back: that may take hours, and a `run` must not be refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from preflight import policy
from preflight.checkpoint import nights
from preflight.checkpoint.archiving import Archiving, Proof, named_generations
from preflight.checkpoint.capture import Earlier
from preflight.checkpoint.make import Made, Making, clear_left_behind, make_checkpoint, not_written
from preflight.checkpoint.manifest import Manifest
from preflight.checkpoint.nights import Nights
from preflight.checkpoint.rereading import Reading, Reread, read_back
from preflight.checkpoint.store import Store, store_root, unreadable
from preflight.checkpoint.unchanged import is_unchanged
from preflight.codex import writers
from preflight.codex.home import find_homes
from preflight.codex.runtime import RuntimeVersion, find_binary, version_in_use
from preflight.codex.threads import ThreadsFound, find_threads, rollout_files
from preflight.config import Part
from preflight.errors import DamagedFile, Locked, PreflightError, TryLater, Unsupported, UsageProblem
from preflight.model import Finding, Home, Result, Severity, SizeClass, Thread
from preflight.policy import size_class
from preflight.pruning import Pruned, policy_of, prune_store
from preflight.request import Request
from preflight.system.deadline import Deadline
from preflight.system.locks import RunLock

#: Exit codes of a call that gives no verdict and has not done all that it should.
_FAILED = (12, 13, 75)

#: A week of nights reads everything.
_EACH_NIGHT = Part(1, 7)
_FEW = 20

#: Named to whoever finds the lock taken.
_PROGRAM = "preflight checkpoint"

#: How long the night waits for another preflight to be done.
_LOCK_SECONDS = 10.0


@dataclass(slots=True)
class _HomeNight:
    """One home on its way through the night; each step adds what it found."""

    home: Home
    request: Request
    deadline: Deadline
    found: ThreadsFound
    chosen: tuple[Thread, ...] = ()
    earlier: Manifest | None = None
    unchanged: bool = False
    made: Made | None = None
    version: RuntimeVersion | None = None
    pruned: Pruned | None = None
    before: Nights | None = None
    read: Reread | None = None
    kept_in: Path | None = None
    findings: list[Finding] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether everything that was chosen is in a checkpoint that read back, and nothing else failed."""
        return policy.verdict_on(self.findings).exit_code not in _FAILED

    def look(self, store: Store | None) -> None:
        """Choose the threads, and compare with the newest checkpoint; nothing is changed."""
        wanted = [thread for thread in self.found.threads if self._is_wanted(thread)]
        # Of a thread whose rollout is gone there is nothing to copy: its finding is told, and no night fails for it,
        # unless somebody has named it.
        chosen = [thread for thread in wanted if thread.lineage or self.request.threads]
        # Goal threads first, and short ones before long ones, for the case that there is no time for all of them.
        self.chosen = tuple(sorted(chosen, key=lambda thread: (not thread.is_goal_thread, thread.size_bytes)))
        if not self.found.threads and self.home.state_db is None and self.home.goals_db is None:
            self.findings.append(policy.empty_home(self.home))
        self.findings += self.found.findings
        self.findings += [finding for thread in wanted for finding in thread.findings]
        try:
            self.earlier = store.latest() if store is not None else None
        except (DamagedFile, Unsupported) as error:
            newest = store.checkpoints()[-1] if store is not None else ""
            self.findings.append(unreadable(newest, error, remedy="preflight verify"))
        if self.request.if_changed and self.earlier is not None:
            known = nights.recall(store.nights) if store is not None else Nights()
            self.unchanged = (
                self.earlier.checkpoint_id not in known.damaged_checkpoints
                and named_generations(self.earlier.threads).isdisjoint(known.damaged_archives)
                and is_unchanged(self.earlier, self.home, rollout_files(self.found), self.chosen)
            )

    def _is_wanted(self, thread: Thread) -> bool:
        request = self.request
        if request.threads:
            return thread.thread_id in {one.lower() for one in request.threads}
        if thread.is_goal_thread:
            return True
        if request.all_threads:
            return bool(thread.lineage)  # how many have none is among the findings of the home
        return size_class(thread.size_bytes, request.settings) is not SizeClass.OK

    def work(self, store: Store) -> None:
        """Everything that changes the store, whose run lock is held."""
        clear_left_behind(store)
        runtimes = writers.runtimes_of(self.home)
        binary = find_binary(self.request.runtime, self.request.env, runtimes)
        self.version = version_in_use(runtimes, binary if self.request.runtime is None else None)
        if not self.unchanged:
            how = Making(
                home=self.home,
                threads=self.chosen,
                goals=self.found.goals,
                inventory=rollout_files(self.found),
                runtimes=runtimes,
                binary=binary,
                made_by="checkpoint",
                reason=self.request.reason,
                target_version=None,
                keep_free_bytes=self.request.settings.keep_free_bytes,
                deadline=self.deadline,
                progress=self._progress,
                runtime_version=None if self.version is None else str(self.version),
                moved=lambda done, total: self.request.moved("copied", done, total),
                earlier=None
                if self.earlier is None
                else Earlier(self.earlier, store.checkpoint_folder(self.earlier.checkpoint_id)),
                on_trial=frozenset(thread.thread_id for thread in self.chosen if self._is_large_or_has_goal(thread)),
                archiving=self._archiving(store),
                in_parts=True,
                max_rate=self.request.max_rate,
                whole_below=self.request.settings.warning_bytes,
            )
            self._make(store, how)
        if self.request.nightly:
            self._prune_and_note(store)

    def _archiving(self, store: Store) -> Archiving:
        request = self.request
        return Archiving(
            folder=store.archive,
            prove=Proof.FULL if request.prove_all else Proof.SAMPLED,
            failed=Severity.BLOCK,
            unfinished=Severity.WARN,
            keep_free_bytes=request.settings.keep_free_bytes,
            deadline=self.deadline,
            max_rate=request.max_rate,
            damaged=frozenset(nights.recall(store.nights).damaged_archives),
            progress=self._progress,
            moved=request.moved,
        )

    def _progress(self, line: str) -> None:
        """A sentence for each thread while there are few of them; how far the bytes are is told by itself."""
        if len(self.chosen) <= _FEW:
            self.request.progress(line)

    def _make(self, store: Store, how: Making) -> None:
        try:
            self.made = make_checkpoint(store, how)
        except TryLater:
            raise
        except (PreflightError, OSError) as error:
            self.findings.append(not_written(self.home, error))
            return
        self.findings += self.made.findings
        self.not_checked += self.made.not_checked

    def _is_large_or_has_goal(self, thread: Thread) -> bool:
        large = size_class(thread.size_bytes, self.request.settings) is not SizeClass.OK
        return thread.is_goal_thread or large or bool(self.request.threads)

    def _prune_and_note(self, store: Store) -> None:
        """What could not be written may be needed: then nothing is removed. The night counts from here on."""
        if self.good:
            progress, rules = self.request.progress, policy_of(self.request.settings)
            self.pruned = prune_store(store, rules, self.version, self.deadline, progress, dry_run=False)
            self.findings += self.pruned.findings
        self.before = nights.recall(store.nights)
        after = replace(self.before, last_at=nights.now())
        if self.good:
            after = replace(after, last_good_at=after.last_at, checkpoint_id=self.checkpoint_id)
        nights.save(store.nights, after)

    def read_back(self, store: Store) -> None:
        """Read a part of the store back, with the run lock free; damage takes back that the night was good."""
        how = Reading(
            how_much=self.request.read_part or _EACH_NIGHT,
            deadline=self.deadline,
            moved=self.request.moved,
            program=_PROGRAM,
            max_rate=self.request.max_rate,
        )
        self.read = read_back(store, how)
        self.findings += self.read.findings
        self.not_checked += self.read.not_checked()
        if not self.good and self.before is not None:
            was = self.before
            # Against a run that has the lock just now: the exit code of this night tells the damage all the same.
            with suppress(Locked), RunLock(store.folder).acquire(Deadline(_LOCK_SECONDS), {"program": _PROGRAM}):
                now = nights.recall(store.nights)
                after = replace(now, last_good_at=was.last_good_at, checkpoint_id=was.checkpoint_id)
                nights.save(store.nights, after)

    @property
    def checkpoint_id(self) -> str | None:
        """The checkpoint that holds the home as it is: the new one, or the one that is still up to date."""
        if self.made is not None:
            return self.made.reference.checkpoint_id
        return self.earlier.checkpoint_id if self.unchanged and self.earlier is not None else None

    def as_json(self) -> dict[str, object]:
        outcome = "unchanged" if self.unchanged else "made" if self.made is not None else "failed"
        threads = self.chosen
        if self.made is not None:
            held = {entry["thread_id"] for entry in self.made.verification}
            threads = tuple(thread for thread in self.chosen if thread.thread_id in held)
        return {
            "home": self.home.path,
            "outcome": outcome,
            "checkpoint_id": self.checkpoint_id,
            "threads": len(threads),
            "thread_bytes": sum(thread.size_bytes for thread in threads),
        }


def checkpoint(request: Request) -> Result:
    """Make a checkpoint of each home, on live files; what cannot be copied becomes a finding.

    With `if_changed` nothing at all is written for a home that is as its newest checkpoint has it. With
    `nightly` a part of the store is read back afterwards, checkpoints are pruned by policy, and the
    night is remembered; a night that was not good removes nothing. With `if_missed` a home whose night has
    been is left out. Raises HomeRefused, UnknownSchema, DatabaseBusy, TimeLimitReached, UsageProblem,
    Locked, StoreRefused: the first error, after every home has had its turn.
    """
    deadline = Deadline(request.timeout)
    homes, not_checked = find_homes(request.homes, request.env, request.user_home)
    if not homes:
        return _result((), not_checked, [policy.no_home()])
    if (at := request.if_missed) is not None:
        root = store_root(request.store, request.env)
        homes = [home for home in homes if nights.is_missed(Store.existing(root, home), *at)]
    work = [_HomeNight(home, request, deadline, find_threads(home, deadline)) for home in homes]
    _require_known(request, work)
    for one in work:
        one.look(Store.existing(store_root(request.store, request.env), one.home))
    if request.dry_run:
        return _dry_run(work, not_checked)
    errors: list[PreflightError] = []
    for one in work:
        if one.unchanged and not request.nightly:
            continue
        try:
            _spend(one)
        except PreflightError as error:
            errors.append(error)  # one home must not keep the others from their night
    if errors:
        raise errors[0]
    return _result(work, not_checked)


def _spend(one: _HomeNight) -> None:
    request = one.request
    store = Store.open(store_root(request.store, request.env), one.home)
    owner = {"program": _PROGRAM, "reason": request.reason}
    with RunLock(store.folder).acquire(one.deadline.sub(_LOCK_SECONDS), owner):
        one.work(store)
    if request.nightly:
        one.read_back(store)
    one.kept_in = store.reports


def _result(work: Sequence[_HomeNight], not_checked: Sequence[str], findings: Sequence[Finding] = ()) -> Result:
    decision = policy.verdict_on([*findings, *(finding for one in work for finding in one.findings)])
    made = [one.made for one in work if one.made is not None]
    return Result(
        command="checkpoint",
        exit_code=decision.exit_code if decision.exit_code in _FAILED else 0,
        data={
            "checkpointed": [one.as_json() for one in work],
            "checkpoint": tuple(one.reference for one in made),
            "verification": [level for one in made for level in one.verification],
            "pruned": [one.pruned.as_json(one.home) for one in work if one.pruned is not None],
            "read_back": [one.read.as_json(one.home.path) for one in work if one.read is not None],
        },
        findings=decision.findings,
        not_checked=(*not_checked, *(gap for one in work for gap in one.not_checked)),
        keep_in=tuple(one.kept_in for one in work if one.kept_in is not None),
    )


def _dry_run(work: Sequence[_HomeNight], not_checked: Sequence[str]) -> Result:
    result = _result(work, not_checked)
    would = [thread.thread_id for one in work if not one.unchanged for thread in one.chosen]
    return replace(result, data={"would_checkpoint": would})


def _require_known(request: Request, work: Sequence[_HomeNight]) -> None:
    known = {thread.thread_id for one in work for thread in one.found.threads}
    for thread_id in request.threads:
        if thread_id.lower() not in known:
            raise UsageProblem(f"there is no thread {thread_id}", hint="preflight check --json lists the threads")
