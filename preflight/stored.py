"""The checkpoints in the store: listed, shown, and read back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from preflight import policy
from preflight.checkpoint.make import trial_gaps, trial_level
from preflight.checkpoint.manifest import FileRecord, Manifest, ThreadRecord, has_digest
from preflight.checkpoint.restore_record import interrupted
from preflight.checkpoint.store import Store, every_store, no_such_checkpoint, store_root, unreadable
from preflight.checkpoint.verify import Level, LevelResult, Outcome, remarks, verify_database, verify_thread
from preflight.codex.history import Seen
from preflight.codex.home import find_homes
from preflight.codex.runtime import CodexBinary, find_binary
from preflight.config import Part
from preflight.errors import DamagedFile, TimeLimitReached, Unsupported, Unverified, UsageProblem
from preflight.model import Finding, Home, Result, Severity
from preflight.request import Request
from preflight.system.deadline import Deadline
from preflight.system.pace import Pace

if TYPE_CHECKING:  # what reads archives is imported when it is asked for
    from preflight.checkpoint.rereading import Reread

LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Stored:
    """One checkpoint of one home."""

    home: Home
    store: Store
    manifest: Manifest

    @property
    def folder(self) -> Path:
        return self.store.checkpoint_folder(self.manifest.checkpoint_id)


def list_checkpoints(request: Request) -> Result:
    """Every checkpoint of the homes, newest first; one whose manifest cannot be read becomes a finding.

    Where there is no home at all, those of the homes that there once were: somebody has lost theirs.
    """
    rows: list[dict[str, object]] = []
    findings: list[Finding] = []
    homes, not_checked = find_homes(request.homes, request.env, request.user_home)
    root = store_root(request.store, request.env)
    stores = [Store.existing(root, home) for home in homes] if homes else list(every_store(root))
    for store in stores:
        if store is None:
            continue
        pinned = store.pinned()
        findings += interrupted(store.restores)
        for checkpoint_id in reversed(store.checkpoints()):
            try:
                manifest = store.manifest(checkpoint_id)
            except (DamagedFile, Unsupported) as error:
                findings.append(unreadable(checkpoint_id, error, remedy="preflight run makes a new one"))
                continue
            rows.append({**_row(manifest), "pinned": checkpoint_id in pinned})
    return _result("list", {"checkpoints": rows}, findings, not_checked)


def show(request: Request) -> Result:
    """What one checkpoint holds. Raises UsageProblem when there is none of that name, DamagedFile."""
    found = find_stored(request)
    manifest = found.manifest
    data = {
        **_row(manifest),
        "path": found.folder,
        "target_version": manifest.target_version,
        "reason": manifest.reason,
        "databases": [record.path for record in manifest.databases],
        "goals": [
            {"thread_id": goal.thread_id, "goal_id": goal.goal_id, "status": goal.status}
            | ({"objective": goal.objective} if request.show_text else {})
            for goal in manifest.goals
        ],
        "threads_held": [_thread(found, record) for record in manifest.threads],
    }
    return _result("show", data, [], [])


def verify(request: Request) -> Result:
    """Read one checkpoint back: digests, structure, history, and with a runtime the trial resume.

    With `read_part` that part of everything in the home's store is read back as well, frames of archives
    too, and where the next part begins is remembered; no other preflight has to wait meanwhile. Exit code 12
    when what was read back is not what was written, 75 when there was no time for all of that part. Raises
    UsageProblem, Unverified (the manifest itself), StoreRefused, TimeLimitReached.
    """
    try:
        found = find_stored(request)
    except DamagedFile as error:
        raise Unverified(error.message, path=error.path, hint="preflight list shows the other checkpoints") from error
    deadline = Deadline(request.timeout)
    binary = find_binary(request.runtime, request.env, ()) if request.with_runtime else None
    files = {record.path: record for record in found.manifest.files}
    findings: list[Finding] = []
    not_checked: list[str] = []
    if request.with_runtime and binary is None:
        not_checked.append("trial resume: no Codex binary was found; name one with --runtime")
    if not has_digest(found.folder):
        not_checked.append("the manifest itself: it was written without a digest, by the first version of preflight")
    seen = Pace(request.max_rate, deadline).during("verifying the checkpoint")
    told: list[dict[str, object]] = []
    for record in found.manifest.databases:
        result = verify_database(found.folder, files[record.path], seen)
        told.append({"file": record.path, result.level.value: result.as_json()})
        if result.outcome is Outcome.FAILED:
            findings.append(_database_failed(result, found.folder / record.path))
    for thread in found.manifest.threads:
        seen(0)
        request.progress(f"reading back thread {thread.thread_id}")
        results = _levels(found, thread, files, seen)
        if binary is not None and all(result.outcome is not Outcome.FAILED for result in results):
            trial = _trial(binary, found, thread, results, request, deadline)
            not_checked += trial_gaps(thread.thread_id, trial)
            results = (*results, trial)
        findings += remarks(thread, results)
        told.append(
            {"thread_id": thread.thread_id, "file": thread.file} | {r.level.value: r.as_json() for r in results}
        )
    data: dict[str, object] = {"checkpoint_id": found.manifest.checkpoint_id, "path": found.folder, "files": told}
    if request.read_part is None:
        return _result("verify", data, findings, not_checked)
    read = _read_back(found, request, request.read_part, deadline)
    data["read_back"] = [read.as_json(found.home.path)]
    whole = _result("verify", data, [*findings, *read.findings], [*not_checked, *read.not_checked()])
    return whole if read.complete or whole.exit_code else replace(whole, exit_code=TimeLimitReached.exit_code)


def _levels(
    found: Stored, thread: ThreadRecord, files: Mapping[str, FileRecord], seen: Seen
) -> tuple[LevelResult, ...]:
    if thread.file is None:
        return (_verify_archived(found, thread, seen),)
    return verify_thread(found.folder, thread, files[thread.file], seen)


def _verify_archived(found: Stored, thread: ThreadRecord, seen: Seen) -> LevelResult:
    from preflight.checkpoint.archiving import read_archived

    return read_archived(found.store.archive, thread, None, seen)


def _read_back(found: Stored, request: Request, how_much: Part, deadline: Deadline) -> Reread:
    from preflight.checkpoint.rereading import Reading, read_back

    how = Reading(
        how_much=how_much,
        deadline=deadline,
        moved=request.moved,
        program="preflight verify",
        max_rate=request.max_rate,
    )
    return read_back(found.store, how)


def _trial(
    binary: CodexBinary,
    found: Stored,
    thread: ThreadRecord,
    results: tuple[LevelResult, ...],
    request: Request,
    deadline: Deadline,
) -> LevelResult:
    reserve = request.settings.keep_free_bytes
    try:
        return trial_level(binary, found.store.folder, found.folder, thread, results, deadline, keep_free_bytes=reserve)
    except OSError as error:
        return LevelResult(Level.TRIAL, Outcome.NOT_CHECKED, f"the trial could not be made: {error.strerror}")


def find_stored(request: Request) -> Stored:
    """The checkpoint that was named; `latest` is the newest one of all homes."""
    wanted = request.checkpoint or LATEST
    candidates = list(_stored(request, wanted))
    if not candidates and wanted != LATEST:
        raise no_such_checkpoint(wanted, _ids(request))
    if not candidates:
        raise UsageProblem("there is no checkpoint", hint="preflight run makes one")
    return max(candidates, key=lambda one: one.manifest.checkpoint_id)


def _ids(request: Request) -> list[str]:
    homes, _ = find_homes(request.homes, request.env, request.user_home)
    stores = [Store.existing(store_root(request.store, request.env), home) for home in homes]
    return [checkpoint_id for store in stores if store is not None for checkpoint_id in store.checkpoints()]


def _stored(request: Request, wanted: str) -> Iterator[Stored]:
    homes, _ = find_homes(request.homes, request.env, request.user_home)
    for home in homes:
        store = Store.existing(store_root(request.store, request.env), home)
        if store is None:
            continue
        ids = store.checkpoints()
        if wanted == LATEST and ids:
            yield Stored(home, store, store.manifest(ids[-1]))
        elif wanted in ids:
            yield Stored(home, store, store.manifest(wanted))


def _row(manifest: Manifest) -> dict[str, object]:
    return {
        "checkpoint_id": manifest.checkpoint_id,
        "created_at": manifest.created_at,
        "home": manifest.home.path,
        "made_by": manifest.made_by,
        "threads": len(manifest.threads),
        "goals_kept": len(manifest.goals),
        "size_bytes": sum(record.length for record in manifest.files),
    }


def _thread(found: Stored, record: ThreadRecord) -> dict[str, object]:
    lengths = {file.path: file.length for file in found.manifest.files}
    levels = {level: value.get("outcome") for level, value in record.verification.items() if isinstance(value, dict)}
    return {
        "thread_id": record.thread_id,
        "file": record.file,
        "whole": record.whole,
        "thread_bytes": record.size_bytes,
        "resume_bytes": None if record.file is None else lengths[record.file],
        "archived_bytes": sum(one.archive.raw_length for one in record.sources if one.archive is not None),
        **levels,
    }


def _result(command: str, data: dict[str, object], findings: list[Finding], not_checked: list[str]) -> Result:
    decision = policy.verdict_on(findings)
    code = decision.exit_code if decision.exit_code in (12, 13) else 0
    return Result(
        command=command, exit_code=code, data=data, findings=decision.findings, not_checked=tuple(not_checked)
    )


def _database_failed(result: LevelResult, path: Path) -> Finding:
    return Finding(
        finding_id="checkpoint-unverified",
        severity=Severity.BLOCK,
        cause=f"the copy of a database did not verify: {result.detail}",
        remedy="preflight run makes a new checkpoint",
        path=path,
    )
