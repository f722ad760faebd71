"""Making a checkpoint: capture, verify on every level, publish the manifest last."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from preflight import __version__
from preflight.checkpoint import jsonline
from preflight.checkpoint import manifest as manifests
from preflight.checkpoint.capture import Capture, Earlier, capture, not_in_time
from preflight.checkpoint.manifest import FileRecord, HomeRecord, InventoryItem, Manifest, RuntimeRecord, ThreadRecord
from preflight.checkpoint.store import Store
from preflight.checkpoint.trial import Trial, TrialOutcome, remove_left_behind, trial_resume
from preflight.checkpoint.verify import Level, LevelResult, Outcome, remarks, verify_database, verify_thread
from preflight.codex.history import Seen
from preflight.codex.home import durable_databases
from preflight.codex.runtime import CodexBinary
from preflight.errors import NoSpace, PreflightError, TimeLimitReached
from preflight.model import CheckpointRef, Finding, Goal, Home, RolloutFile, Runtime, Severity, Tail, Thread
from preflight.system import files
from preflight.system.deadline import Deadline
from preflight.system.pace import Pace

if TYPE_CHECKING:  # it takes 40 ms to import what it needs
    from preflight.checkpoint.archiving import Archiving

#: A trial is not begun with less time than this left: it would be cut off and prove nothing.
_TRIAL_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What goes into a checkpoint, and how it is made; `binary` None means that no trial is possible.

    `runtime_version` is the version in use. Of threads that are untouched since the `earlier` checkpoint
    its resume rollouts are taken over. `moved` is told how many bytes of how many are copied. A trial is
    made of every thread, or of those in `on_trial`. `archiving` None leaves the archive alone.
    With `in_parts` a checkpoint of the threads for which there was time is better than none: half of the
    time is for copying, so that what was copied is also proved. `max_rate` is how many bytes are read in a
    second at the most, while copying and while reading back. A thread of which nothing can be left out is
    left to the archive if it has `whole_below` bytes or more; then `archiving` must be there. `tails` are what
    an earlier look has read of the threads' ends.
    """

    home: Home
    threads: Sequence[Thread]
    goals: Sequence[Goal]
    inventory: Collection[RolloutFile]
    runtimes: Sequence[Runtime]
    binary: CodexBinary | None
    made_by: str
    reason: str | None
    target_version: str | None
    keep_free_bytes: int
    deadline: Deadline
    progress: Callable[[str], None]
    runtime_version: str | None = None
    moved: Callable[[int, int], None] | None = None
    earlier: Earlier | None = None
    on_trial: Collection[str] | None = None
    archiving: Archiving | None = None
    in_parts: bool = False
    max_rate: int | None = None
    whole_below: int | None = None
    tails: Mapping[str, Tail] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Made:
    """A published checkpoint, what was found on the way, and what every level said of every thread."""

    reference: CheckpointRef
    findings: tuple[Finding, ...]
    not_checked: tuple[str, ...]
    verification: tuple[dict[str, object], ...]


def make_checkpoint(store: Store, how: Making) -> Made:
    """Write, verify and publish one checkpoint; needs the run lock of the store.

    Threads that cannot be copied or do not verify become findings, the others are in the checkpoint.
    Raises NoSpace, DatabaseBusy, DamagedFile (a database), TimeLimitReached; then there is no
    checkpoint, and the folder that was begun is removed by the next run.
    """
    checkpoint_id, folder = store.new_checkpoint_folder()
    how.progress(f"writing checkpoint {checkpoint_id}")
    captured = capture(
        how.home,
        how.threads,
        folder,
        database_files=durable_databases(how.home),
        keep_free_bytes=how.keep_free_bytes,
        deadline=how.deadline,
        progress=how.progress,
        moved=how.moved,
        earlier=how.earlier,
        in_parts=how.in_parts,
        tails=how.tails,
        max_rate=how.max_rate,
        whole_below=how.whole_below,
    )
    findings = list(captured.failures)
    seen = Pace(how.max_rate, how.deadline).during("verifying the checkpoint")
    findings += _databases(folder, captured, seen)
    not_checked: list[str] = []
    if how.binary is None and captured.threads:
        not_checked.append("trial resume: no Codex binary was found; name one with --runtime")
    records = []
    late: set[str] = set()
    for thread in captured.threads:
        if thread.file is None or thread.path is None:
            records.append(thread.record)
            continue
        try:
            seen(0)
            results = _verify(thread.record, thread.file, folder, store, how, seen, not_checked)
        except TimeLimitReached:
            if not how.in_parts:
                raise
            # A copy that nobody has read back is none: it goes, and the next checkpoint makes it anew.
            findings.append(not_in_time(thread.record.thread_id, thread.record.size_bytes))
            files.remove(thread.path)
            late.add(thread.file.path)
            continue
        findings += remarks(thread.record, results)
        records.append(replace(thread.record, verification={r.level.value: r.as_json() for r in results}))
    if how.archiving is not None:
        from preflight.checkpoint.archiving import archive_threads

        archived = archive_threads(records, how.archiving)
        records = list(archived.records)
        findings += archived.findings
        not_checked += archived.not_done
        records = _read_archived(records, how, how.archiving.folder, seen, findings)
    manifest = Manifest(
        checkpoint_id=checkpoint_id,
        created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        home=HomeRecord(path=how.home.path, sqlite_home=how.home.sqlite_home, home_id=how.home.home_id),
        target_version=how.target_version,
        runtimes=tuple(RuntimeRecord(pid=r.pid, version=r.version, role=r.role) for r in how.runtimes),
        files=tuple(file for file in captured.files if file.path not in late),
        databases=captured.databases,
        threads=tuple(records),
        goals=tuple(how.goals),
        inventory=_inventory(how.inventory, how.home.path),
        version=__version__,
        made_by=how.made_by,
        reason=how.reason,
        runtime_version=how.runtime_version,
    )
    reference = manifests.publish(folder, manifest)
    return Made(
        reference,
        tuple(findings),
        tuple(not_checked),
        tuple({"thread_id": r.thread_id, "file": r.file, **r.verification} for r in records),
    )


def _databases(folder: Path, captured: Capture, seen: Seen) -> list[Finding]:
    return [
        Finding(
            finding_id="checkpoint-unverified",
            severity=Severity.BLOCK,
            cause=f"the copy of a database did not verify: {result.detail}",
            remedy="preflight run",
            path=folder / record.path,
        )
        for record in captured.files
        if record.role == "database" and (result := verify_database(folder, record, seen)).outcome is Outcome.FAILED
    ]


def _read_archived(
    records: Sequence[ThreadRecord], how: Making, archives: Path, seen: Seen, findings: list[Finding]
) -> list[ThreadRecord]:
    """Prove the threads that are in the archive alone; one of which nothing could be archived is in no checkpoint."""
    from preflight.checkpoint.archiving import read_archived

    proved = []
    for record in records:
        if record.file is not None:
            proved.append(record)
        elif any(source.archive is not None for source in record.sources):
            before = how.earlier.manifest.thread(record.thread_id) if how.earlier is not None else None
            how.progress(f"reading back the archive of thread {record.thread_id}")
            try:
                result = read_archived(archives, record, before, seen)
            except TimeLimitReached:
                result = LevelResult(Level.DIGESTS, Outcome.NOT_CHECKED, "the time limit came before it was read back")
            findings += remarks(record, (result,))
            proved.append(replace(record, verification={result.level.value: result.as_json()}))
    return proved


def _verify(
    record: ThreadRecord, file: FileRecord, folder: Path, store: Store, how: Making, seen: Seen, not_checked: list[str]
) -> tuple[LevelResult, ...]:
    how.progress(f"verifying thread {record.thread_id}")
    results = verify_thread(folder, record, file, seen)
    if any(result.outcome is Outcome.FAILED for result in results):
        trial = LevelResult(Level.TRIAL, Outcome.NOT_CHECKED, "an earlier level failed")
    elif how.binary is None:
        trial = LevelResult(Level.TRIAL, Outcome.NOT_CHECKED, "no Codex binary was found")
    elif how.on_trial is not None and record.thread_id not in how.on_trial:
        trial = LevelResult(Level.TRIAL, Outcome.NOT_CHECKED, "the thread is small and has no goal")
    else:
        trial = trial_level(
            how.binary, store.folder, folder, record, results, how.deadline, keep_free_bytes=how.keep_free_bytes
        )
        not_checked += trial_gaps(record.thread_id, trial)
    return (*results, trial)


def trial_gaps(thread_id: str, trial: LevelResult) -> list[str]:
    """Sentences for the report on what the trial of a thread could not show."""
    gaps = [f"thread {thread_id}: {gap}" for gap in _strings((trial.facts or {}).get("not_checked"))]
    if trial.outcome is Outcome.NOT_CHECKED:
        gaps.append(f"trial resume of thread {thread_id}: {trial.detail}")
    return gaps


def _strings(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, (list, tuple)) else []


def trial_level(
    binary: CodexBinary,
    scratch: Path,
    folder: Path,
    record: ThreadRecord,
    results: Sequence[LevelResult],
    deadline: Deadline,
    *,
    keep_free_bytes: int,
) -> LevelResult:
    """The fourth level: the Codex binary itself resumes a copy of the resume rollout in a scratch home."""
    if record.file is None:
        return LevelResult(Level.TRIAL, Outcome.NOT_CHECKED, "the thread is in the archive alone")
    if record.file.endswith(".zst"):
        return LevelResult(Level.TRIAL, Outcome.NOT_CHECKED, "the rollout is compressed")
    if deadline.remaining() < _TRIAL_SECONDS:
        return LevelResult(Level.TRIAL, Outcome.NOT_CHECKED, "there was no time left for it")
    if files.free_bytes(scratch) < (folder / record.file).stat().st_size + keep_free_bytes:
        return LevelResult(Level.TRIAL, Outcome.NOT_CHECKED, "there was no room left for it")
    structure = next((r.facts for r in results if r.level is Level.STRUCTURE and r.facts), {}) or {}
    turns = structure.get("turns_shown")
    goal = record.goal
    database = next(iter(sorted((folder / "databases").glob("goals_*.sqlite"))), None)
    trial = trial_resume(
        binary,
        folder / record.file,
        record.thread_id,
        scratch=scratch,
        deadline=deadline,
        goal=goal,
        goals_database=database if goal is not None else None,
        expected_turns=turns if isinstance(turns, int) else None,
    )
    return LevelResult(Level.TRIAL, _OUTCOMES[trial.outcome], trial.reason or "", _facts(trial))


_OUTCOMES = {
    TrialOutcome.PASSED: Outcome.PASSED,
    TrialOutcome.FAILED: Outcome.FAILED,
    TrialOutcome.NOT_POSSIBLE: Outcome.NOT_CHECKED,
}


def _facts(trial: Trial) -> dict[str, object]:
    return {
        "runtime_version": trial.runtime_version,
        "isolated": trial.isolated,
        "turns": trial.turns,
        "goal_status": trial.goal_status,
        "objective_matches": trial.objective_matches,
        "seconds": trial.seconds,
        "peak_memory_bytes": trial.peak_memory_bytes,
        "not_checked": list(trial.not_checked),
    }


def _inventory(rollouts: Collection[RolloutFile], home: Path) -> tuple[InventoryItem, ...]:
    """By text: a home may have many thousands of them. A file outside of the home keeps its whole path."""
    beginning = os.path.join(home, "")  # noqa: PTH118
    return tuple(
        InventoryItem(
            thread_id=file.thread_id,
            path=jsonline.written_path(file.place.removeprefix(beginning).replace(os.sep, "/")),
            size_bytes=file.size_bytes,
            archived=file.archived,
            identity=file.identity,
        )
        for file in rollouts
    )


def not_written(home: Home, error: PreflightError | OSError) -> Finding:
    """The finding for a home of which no checkpoint could be written."""
    what = error.message if isinstance(error, PreflightError) else error.strerror or str(error)
    return Finding(
        finding_id="no-space" if isinstance(error, NoSpace) else "checkpoint-failed",
        severity=Severity.BLOCK,
        cause=f"no checkpoint could be written: {what}",
        remedy=(error.hint if isinstance(error, PreflightError) else None) or "preflight run",
        path=(error.path if isinstance(error, PreflightError) else None) or home.path,
    )


def clear_left_behind(store: Store) -> None:
    """Remove what a killed run left: begun checkpoints, scratch homes. Only under the run lock."""
    store.remove_unfinished()
    remove_left_behind(store.folder)
