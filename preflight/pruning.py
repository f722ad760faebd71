"""Removing checkpoints by policy, and the pins that keep one whatever the policy says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from preflight import policy
from preflight.checkpoint import nights
from preflight.checkpoint.archive import Archive
from preflight.checkpoint.archiving import named_generations
from preflight.checkpoint.coverage import is_verified
from preflight.checkpoint.make import clear_left_behind
from preflight.checkpoint.manifest import Manifest, ThreadRecord
from preflight.checkpoint.nights import Nights
from preflight.checkpoint.restore_record import Restores
from preflight.checkpoint.retention import Candidate, Copied, Copy, Decided, Policy, decide
from preflight.checkpoint.store import Store, store_root, unreadable
from preflight.codex import writers
from preflight.codex.home import find_homes
from preflight.codex.runtime import RuntimeVersion, find_binary, version_in_use
from preflight.config import Settings
from preflight.errors import DamagedFile, PreflightError, Unsupported
from preflight.model import Finding, Home, Result, Severity
from preflight.request import Request
from preflight.stored import find_stored
from preflight.system.deadline import Deadline
from preflight.system.locks import RunLock

#: How long a pin waits for another preflight to be done.
_LOCK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was decided for one home, and done unless it was a dry run.

    `freed_bytes` are those of files that no other checkpoint has under a name of its own.
    """

    decided: Decided
    removed: tuple[str, ...]
    freed_bytes: int
    findings: tuple[Finding, ...]

    def as_json(self, home: Home) -> dict[str, object]:
        return {
            "home": home.path,
            "kept": [
                {"checkpoint_id": one.checkpoint_id, "reasons": [reason.value for reason in one.reasons]}
                for one in self.decided.kept
            ],
            "removed": [
                {
                    "checkpoint_id": one.checkpoint_id,
                    "reason": f"no rule keeps it; the next one that stays: {one.stays}",
                }
                for one in self.decided.removed
                if one.checkpoint_id in self.removed
            ],
            "freed_bytes": self.freed_bytes,
        }


def policy_of(settings: Settings) -> Policy:
    """The policy of [retention], which `config` has made sure keeps something."""
    return Policy(
        keep_last=settings.keep_last,
        keep_daily=settings.keep_daily,
        keep_weekly=settings.keep_weekly,
        keep_within=timedelta(seconds=settings.keep_within_seconds),
    )


def prune(request: Request, rules: Policy) -> Result:
    """Remove the checkpoints that no rule keeps, of every home; with `dry_run` only say which.

    Raises Locked, StoreRefused. What cannot be removed, or not in time, becomes a finding.
    """
    deadline = Deadline(request.timeout)
    homes, not_checked = find_homes(request.homes, request.env, request.user_home)
    told: list[dict[str, object]] = []
    findings: list[Finding] = []
    for home in homes:
        store = Store.existing(store_root(request.store, request.env), home)
        if store is None:
            continue
        runtimes = writers.runtimes_of(home)
        present = version_in_use(runtimes, find_binary(None, request.env, runtimes))
        if request.dry_run:
            pruned = prune_store(store, rules, present, deadline, request.progress, dry_run=True)
        else:
            with RunLock(store.folder).acquire(deadline.sub(_LOCK_SECONDS), {"program": "preflight prune"}):
                clear_left_behind(store)
                pruned = prune_store(store, rules, present, deadline, request.progress, dry_run=False)
        told.append(pruned.as_json(home))
        findings += pruned.findings
    decision = policy.verdict_on(findings)
    return Result(
        command="prune",
        exit_code=decision.exit_code if decision.exit_code in (12, 13) else 0,
        data={"pruned": told, "dry_run": request.dry_run},
        findings=decision.findings,
        not_checked=tuple(not_checked),
    )


def prune_store(
    store: Store,
    rules: Policy,
    present: RuntimeVersion | None,
    deadline: Deadline,
    progress: Callable[[str], None],
    *,
    dry_run: bool,
) -> Pruned:
    """Decide and remove, in one store, whose run lock is held unless it is a dry run.

    A checkpoint whose manifest cannot be read stays, and is a finding: nobody knows what it holds.
    """
    known = _known(store)
    findings = known.findings
    all_are_known = not findings
    decided = decide(known.candidates, rules, present_version=None if present is None else str(present))
    removed: list[str] = []
    gone: Counter[tuple[int, int]] = Counter()
    freed = 0
    for one in decided.removed:
        if deadline.expired:
            findings.append(_unfinished(store))
            break
        own = store.bytes_of_its_own(one.checkpoint_id, gone)
        if not dry_run:
            gone.clear()  # the system will have counted them down itself
            progress(f"removing checkpoint {one.checkpoint_id}")
            try:
                store.remove_checkpoint(one.checkpoint_id)
            except PreflightError as error:
                findings.append(_not_removed(f"checkpoint {one.checkpoint_id}", error))
                continue
        removed.append(one.checkpoint_id)
        freed += own
        del known.named[one.checkpoint_id]
    if all_are_known:  # else there may be names in what cannot be read
        named = set().union(*known.named.values())
        freed += _remove_generations(store, named, findings, dry_run=dry_run)
    return Pruned(decided, tuple(removed), freed, tuple(findings))


@dataclass(frozen=True, slots=True)
class _Known:
    """All checkpoints of a store; `named` are the archive generations that each one names."""

    candidates: list[Candidate]
    named: dict[str, set[tuple[str, int]]]
    findings: list[Finding]


def _known(store: Store) -> _Known:
    """One manifest after the other: of a home with many threads, all of them at once would be too much to hold."""
    pinned = store.pinned()
    remembered = nights.recall(store.nights)
    restoring = _being_restored(store)
    known = _Known([], {}, [])
    for checkpoint_id in store.checkpoints():
        try:
            manifest = store.manifest(checkpoint_id)
            candidate = candidate_of(manifest, remembered, pinned=checkpoint_id in pinned)
            known.candidates.append(replace(candidate, being_restored=_is_needed(restoring, checkpoint_id)))
        except (DamagedFile, Unsupported) as error:
            remedy = "look at it, and remove its folder by hand if nothing in it is of use"
            known.findings.append(unreadable(checkpoint_id, error, remedy=remedy))
        else:
            known.named[checkpoint_id] = named_generations(manifest.threads)
    return known


def _being_restored(store: Store) -> frozenset[str] | None:
    """The checkpoints that interrupted restores will be completed from; None when that cannot be told."""
    try:
        return frozenset(record.checkpoint_id for record in Restores(store.restores).unfinished())
    except (DamagedFile, Unsupported):
        return None


def _is_needed(restoring: frozenset[str] | None, checkpoint_id: str) -> bool:
    return restoring is None or checkpoint_id in restoring


def candidate_of(manifest: Manifest, remembered: Nights, *, pinned: bool) -> Candidate:
    """A checkpoint as retention sees it; what a reading found damaged is no verified copy.

    Raises DamagedFile when its time is none.
    """
    try:
        made_at = datetime.fromisoformat(manifest.created_at).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise DamagedFile(f"the manifest has no time that can be read: {error}") from error
    running = [known for one in manifest.runtimes if (known := RuntimeVersion.parse(one.version)) is not None]
    version = manifest.runtime_version or (str(max(running)) if running else None)
    return Candidate(
        checkpoint_id=manifest.checkpoint_id,
        made_at=made_at,
        made_by=manifest.made_by,
        runtime_version=version,
        pinned=pinned,
        copies=frozenset(copy for thread in manifest.threads for copy in _copies(thread, manifest, remembered)),
    )


def _copies(thread: ThreadRecord, manifest: Manifest, remembered: Nights) -> Iterator[Copy]:
    damaged = manifest.checkpoint_id in remembered.damaged_checkpoints
    if thread.file is not None:
        yield Copy(thread.thread_id, Copied.RESUME, is_verified(thread) and not damaged)
    if thread.sources and all(source.is_archived for source in thread.sources):
        whole = named_generations([thread]).isdisjoint(remembered.damaged_archives)
        yield Copy(thread.thread_id, Copied.ARCHIVE, whole)


def pin(request: Request) -> Result:
    """Keep one checkpoint from being removed by any policy. Raises UsageProblem, Locked, StoreRefused."""
    return _pinned(request, "pin", Store.pin)


def unpin(request: Request) -> Result:
    """Let the policy decide again. Raises what `pin` raises."""
    return _pinned(request, "unpin", Store.unpin)


def _pinned(request: Request, command: str, change: Callable[[Store, str], bool]) -> Result:
    found = find_stored(request)
    checkpoint_id = found.manifest.checkpoint_id
    # Against a prune that runs: it has read the pins already; whoever has the lock goes first.
    lock = RunLock(found.store.folder)
    with lock.acquire(Deadline(_LOCK_SECONDS), {"program": f"preflight {command}"}):
        changed = change(found.store, checkpoint_id)
    return Result(
        command=command,
        data={"checkpoint_id": checkpoint_id, "pinned": command == "pin", "changed": changed},
    )


def _unfinished(store: Store) -> Finding:
    return Finding(
        finding_id="prune-unfinished",
        severity=Severity.WARN,
        cause="the time limit came before every checkpoint that may go was removed",
        remedy="preflight prune",
        path=store.folder,
    )


def _remove_generations(store: Store, named: set[tuple[str, int]], findings: list[Finding], *, dry_run: bool) -> int:
    """Remove the archive generations that no checkpoint names; the bytes that they took.

    The newest one of each rollout stays, named or not: the next checkpoint adds to it. Manifests go first,
    so killed in between nothing that stays has lost what it names, and the next prune goes on here.
    """
    freed = 0
    try:
        folders = sorted(store.archive.iterdir()) if store.archive.is_dir() else []
    except OSError as error:
        findings.append(_not_removed("what no checkpoint names of the archives", error))
        return 0
    for folder in folders:
        archive = Archive(folder)
        try:
            unnamed = [
                (name, generation)
                for name in archive.names()
                for generation in archive.generations(name)[:-1]
                if (name, generation) not in named
            ]
        except PreflightError as error:
            findings.append(_not_removed(f"what no checkpoint names of the archives of thread {folder.name}", error))
            continue
        for name, generation in unnamed:
            try:
                state = archive.state(name, generation)
                if not dry_run:
                    archive.remove_generation(name, generation)
            except PreflightError as error:
                findings.append(_not_removed(f"archive generation {generation} of thread {folder.name}", error))
                continue
            freed += state.stored_bytes if state is not None else 0
    return freed


def _not_removed(what: str, error: PreflightError | OSError) -> Finding:
    why = error.message if isinstance(error, PreflightError) else error.strerror or str(error)
    return Finding(
        finding_id="not-removed",
        severity=Severity.WARN,
        cause=f"{what} could not be removed: {why}",
        remedy=(error.hint if isinstance(error, PreflightError) else None) or "preflight prune",
        path=error.path if isinstance(error, PreflightError) else None,
    )
