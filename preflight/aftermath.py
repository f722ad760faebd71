"""After the update: prove that everything is there, write dropped goals anew, put paused goals back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from preflight import policy
from preflight.checkpoint.journal import Journal, PauseEntry
from preflight.checkpoint.manifest import Manifest
from preflight.checkpoint.store import Store, store_root
from preflight.codex import goals as codex_goals
from preflight.codex.goals import Outcome
from preflight.codex.home import find_homes
from preflight.codex.runtime import RuntimeVersion, drops_goals
from preflight.codex.threads import ThreadsFound, find_threads, rollout_files
from preflight.comparison import compare, dropped_goals, goal_gone, lost_with_their_table
from preflight.errors import DamagedFile, PreflightError, Unsupported
from preflight.model import Answer, Finding, Goal, GoalTable, Home, Result, Severity
from preflight.pause import PutBack, PuttingBack, put_back
from preflight.request import Request
from preflight.system.deadline import Deadline
from preflight.system.locks import RunLock


@dataclass(frozen=True, slots=True)
class _Finished:
    """What `finish` did for one home."""

    home: Home
    store: Store | None
    checkpoint_id: str | None
    put_back: tuple[PutBack, ...]
    written_anew: tuple[str, ...]
    findings: tuple[Finding, ...]
    would_put_back: tuple[PauseEntry, ...] = ()

    def as_json(self) -> dict[str, object]:
        return {
            "home": self.home.path,
            "checkpoint": self.checkpoint_id,
            "goals": [*(_as_json(one) for one in self.put_back), *(_would(entry) for entry in self.would_put_back)],
            "goals_written_anew": list(self.written_anew),
        }


def finish(request: Request) -> Result:
    """Compare each home with the checkpoint of its last run, and put its goals back.

    A goal that the update dropped is written anew, with the status it had before we paused it; what
    a person changed meanwhile stays as it is. With `dry_run` nothing is changed, and the goals that
    would be touched are listed. Raises Locked, StoreRefused, UnknownSchema, DatabaseBusy,
    TimeLimitReached: the first error, after every home has had its turn; goals that were put back by
    then are recorded.
    """
    deadline = Deadline(request.timeout)
    homes, not_checked = find_homes(request.homes, request.env, request.user_home)
    finished: list[_Finished] = []
    _each(homes, lambda home: finished.append(_finish(home, request, deadline)))
    decision = policy.verdict_on([finding for one in finished for finding in one.findings])
    return Result(
        command="finish",
        verdict=decision.verdict,
        exit_code=decision.exit_code,
        data={"finished": [one.as_json() for one in finished], "dry_run": request.dry_run},
        findings=decision.findings,
        not_checked=tuple(not_checked),
        keep_in=() if request.dry_run else tuple(one.store.reports for one in finished if one.store is not None),
    )


def resume_goals(request: Request) -> Result:
    """Put back the goals that a run paused, for an update that was called off or a run that was killed.

    Raises what `finish` raises.
    """
    deadline = Deadline(request.timeout)
    homes, not_checked = find_homes(request.homes, request.env, request.user_home)
    told: list[dict[str, object]] = []
    findings: list[Finding] = []

    def resume(home: Home) -> None:
        store = Store.existing(store_root(request.store, request.env), home)
        if store is None:
            return
        with ExitStack() as stack:
            journal = _locked_journal(store, request, deadline, stack, "resume-goals")
            if request.dry_run:
                told.extend(_would(entry) for entry in journal.pending())
                return
            manifest, _ = _last_run(store)
            lost = lost_with_their_table(home, manifest) if manifest is not None else ()
            known = {goal.thread_id: goal for goal in lost}
            done = put_back(home, journal, PuttingBack(deadline=deadline, known=known, release=True))
            told.extend(_as_json(one) for one in done)
            findings.extend((*_not_put_back(done), *_journal_damaged(journal, store)))

    _each(homes, resume)
    decision = policy.verdict_on(findings)
    return Result(
        command="resume-goals",
        exit_code=0 if decision.exit_code in (0, 3) else 1,
        data={"goals": told, "dry_run": request.dry_run},
        findings=decision.findings,
        not_checked=tuple(not_checked),
    )


def _each(homes: Sequence[Home], deed: Callable[[Home], None]) -> None:
    """Do it for every home, and raise the first error at the end: one home must not keep another's goals paused."""
    errors: list[PreflightError] = []
    for home in homes:
        try:
            deed(home)
        except PreflightError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _finish(home: Home, request: Request, deadline: Deadline) -> _Finished:
    store = Store.existing(store_root(request.store, request.env), home)
    if store is None:
        return _Finished(home, None, None, (), (), (_no_run(home),))
    with ExitStack() as stack:
        journal = _locked_journal(store, request, deadline, stack, "finish")
        manifest, unknown = _last_run(store)
        damaged = _journal_damaged(journal, store)
        would = tuple(journal.pending()) if request.dry_run else ()
        if manifest is None:
            # A run was killed before its first checkpoint: it may have paused goals all the same.
            done = () if request.dry_run else put_back(home, journal, PuttingBack(deadline=deadline))
            findings = [*(unknown or (_no_run(home),)), *_not_put_back(done), *damaged]
            return _Finished(home, store, None, done, (), tuple(findings), would)
        found = find_threads(home, deadline)
        request.progress("comparing the home with the checkpoint")
        folder = store.checkpoint_folder(manifest.checkpoint_id)
        # Comparing comes first: of two findings on one file, it names the copy that can be put back.
        findings = [*damaged, *compare(home, found, rollout_files(found), manifest, folder, deadline)]
        findings += (finding for finding in found.findings if finding.severity is Severity.BLOCK)
        findings += _of_goal_threads(found, findings)
        if _about_to_drop(home, manifest, found.goals):
            return _Finished(home, store, manifest.checkpoint_id, (), (), (*findings, _not_started(home)))
        restored: tuple[PutBack, ...] = ()
        written: tuple[str, ...] = ()
        if not request.dry_run:
            request.progress("putting the goals back")
            try:
                how = _how(home, manifest, findings, deadline)
                restored = put_back(home, journal, how)
                findings += _not_put_back(restored)
                written = _write_dropped(home, manifest, found, journal, how)
            except DamagedFile as error:
                findings.append(_database_in_the_way(error))
        told = {one.thread_id for one in restored}
        gone = dropped_goals(codex_goals.read_goals(home, deadline).goals, manifest)
        findings += [goal_gone(goal, manifest) for goal in gone if goal.thread_id not in told]
    return _Finished(home, store, manifest.checkpoint_id, restored, written, tuple(findings), would)


def _of_goal_threads(found: ThreadsFound, told: Sequence[Finding]) -> list[Finding]:
    """What else keeps a thread with a goal from being opened: a fork is harmed by what its base has lost."""
    named = {(finding.finding_id, finding.thread_id) for finding in told}
    return [
        finding
        for thread in found.threads
        for finding in thread.findings
        if finding.severity is Severity.BLOCK and (finding.finding_id, finding.thread_id) not in named
    ]


def _database_in_the_way(error: DamagedFile) -> Finding:
    return Finding(
        finding_id="goal-not-put-back",
        severity=Severity.BLOCK,
        cause=f"goals that we paused stay paused, because their database cannot be read: {error.message}",
        remedy="put the database right, then: preflight finish",
        path=error.path,
    )


def _how(home: Home, manifest: Manifest, findings: Sequence[Finding], deadline: Deadline) -> PuttingBack:
    """Goals of threads that lost something stay paused: they would go on by themselves on what is left."""
    known = {goal.thread_id: goal for goal in lost_with_their_table(home, manifest)}
    harmed = {f.thread_id for f in findings if f.severity is Severity.BLOCK and f.thread_id is not None}
    return PuttingBack(deadline=deadline, known=known, withheld=frozenset(harmed), compared_with=manifest.checkpoint_id)


def _write_dropped(
    home: Home, manifest: Manifest, found: ThreadsFound, journal: Journal, how: PuttingBack
) -> tuple[str, ...]:
    """The goals that went with their table, as they were in the checkpoint: the update to 0.134 drops them all.

    One that the run had paused when its row was copied, and put back when it ended, was active when the update
    dropped it, and is so again; not that of a thread which was harmed. A single goal that is gone from a table
    that is still there was cleared by somebody, and stays so. A thread without a rollout gets no goal: it is
    written when the rollout is back, by the next `finish`.
    """
    there = {thread.thread_id for thread in found.threads if thread.lineage}
    undone = {(e.intent.goal_id, e.paused_updated_at_ms): e.intent.status_before for e in journal.put_back()}
    written = []
    for goal in lost_with_their_table(home, manifest):
        status = undone.get((goal.goal_id, goal.updated_at_ms), goal.status)
        if goal.thread_id in how.withheld:
            status = goal.status
        was = replace(goal, status=status)
        if goal.thread_id in there and codex_goals.insert_goal(home, was, how.deadline) is Outcome.INSERTED:
            written.append(goal.thread_id)
    return tuple(written)


def _about_to_drop(home: Home, manifest: Manifest, goals: Sequence[Goal]) -> bool:
    """Whether the new version has not been started yet and may drop the goals of this home when it is.

    Also when the run was not told which version that is: what is put back too early goes with its table.
    """
    if home.goals_db is not None or not any(goal.table is GoalTable.STATE for goal in goals):
        return False
    target = RuntimeVersion.parse(manifest.target_version)
    versions = [RuntimeVersion.parse(record.version) for record in manifest.runtimes]
    known = [version for version in versions if version is not None]
    return drops_goals(max(known, default=RuntimeVersion((0, 128, 0))), target) is not Answer.NO


def _last_run(store: Store) -> tuple[Manifest | None, tuple[Finding, ...]]:
    """The manifest of the last run, or why it cannot be read: that must not keep a goal from being put back."""
    try:
        return store.last_run(), ()
    except (DamagedFile, Unsupported) as error:
        return None, (
            Finding(
                finding_id="checkpoint-damaged",
                severity=Severity.BLOCK,
                cause=f"the checkpoint of the last run cannot be read, so there is nothing to compare with: {error}",
                remedy="look for your threads in Codex; preflight list shows the other checkpoints",
                path=error.path,
            ),
        )


def _journal_damaged(journal: Journal, store: Store) -> list[Finding]:
    lines = journal.damaged_lines()
    if not lines:
        return []
    return [
        Finding(
            finding_id="journal-damaged",
            severity=Severity.WARN,
            cause="lines of the journal cannot be read: a goal that they name stays paused",
            measured=lines,
            expected=0,
            remedy="look at the paused goals in Codex, then move the journal out of the store",
            path=store.journal,
        )
    ]


def _locked_journal(store: Store, request: Request, deadline: Deadline, stack: ExitStack, command: str) -> Journal:
    if not request.dry_run:
        lock = RunLock(store.folder)
        stack.enter_context(lock.acquire(deadline.sub(10), {"program": f"preflight {command}"}))
    return Journal(store.journal)


def _not_started(home: Home) -> Finding:
    return Finding(
        finding_id="runtime-not-started",
        severity=Severity.WARN,
        cause="the new version has not opened this home yet, and may delete the goals when it does",
        remedy="start the new version of Codex once, then: preflight finish (no update: preflight resume-goals)",
        path=home.path,
    )


def _no_run(home: Home) -> Finding:
    return Finding(
        finding_id="no-run",
        severity=Severity.WARN,
        cause="there is no checkpoint of this home to compare with",
        remedy="before the next update: preflight run",
        path=home.path,
    )


def _not_put_back(done: Sequence[PutBack]) -> list[Finding]:
    """Findings on goals that did not come back: lost ones, and those that somebody else has changed."""
    findings = []
    for one in done:
        if one.pending:
            withheld = one.outcome is Outcome.CHANGED
            findings.append(
                Finding(
                    finding_id="goal-not-put-back",
                    severity=Severity.BLOCK,
                    thread_id=one.thread_id,
                    cause="the goal stays paused: an update has harmed its thread, and it would go on with what is left"
                    if withheld
                    else "the goal that we paused is gone, and there is no place or no copy to write it anew from",
                    measured=one.outcome.value,
                    expected=Outcome.RESTORED.value,
                    remedy="make the thread whole, then: preflight finish (to have the goal go on as it is: "
                    "preflight resume-goals)"
                    if withheld
                    else "start Codex once, then run: preflight finish",
                )
            )
        elif one.outcome in (Outcome.CHANGED, Outcome.REPLACED, Outcome.EXISTS, Outcome.DROPPED):
            findings.append(
                Finding(
                    finding_id="goal-changed",
                    severity=Severity.WARN,
                    thread_id=one.thread_id,
                    cause="the goal was cleared since we paused it, and stays so"
                    if one.outcome is Outcome.DROPPED
                    else "the goal was changed since we paused it, and stays as it is",
                    measured=one.outcome.value,
                    expected=Outcome.RESTORED.value,
                    remedy="look at the goal in Codex, and resume it there if you want it to go on",
                )
            )
    return findings


def _as_json(one: PutBack) -> dict[str, object]:
    return {
        "thread_id": one.thread_id,
        "goal_id": one.goal_id,
        "outcome": one.outcome.value,
        "pending": one.pending,
        "goes_on": _goes_on(one),
    }


def _goes_on(one: PutBack) -> str | None:
    if one.outcome not in (Outcome.RESTORED, Outcome.INSERTED):
        return None
    return "now" if one.owner_told else "when its thread is opened, or its running turn ends"


def _would(entry: PauseEntry) -> dict[str, object]:
    return {
        "thread_id": entry.intent.thread_id,
        "goal_id": entry.intent.goal_id,
        "outcome": "would-be-put-back",
        "pending": True,
    }
