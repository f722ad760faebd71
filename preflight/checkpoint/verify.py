"""Proving that a checkpoint is what it should be: digests, structure, history; `trial` is the fourth level.

Every level reads what lies on the disk, not what is still in memory, and says one of three things:
passed, failed, not checked. A level that could not be run is never counted as passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from preflight.checkpoint.manifest import FileRecord, ThreadRecord
from preflight.codex import boundary, history, rollout
from preflight.codex.history import Seen
from preflight.errors import DamagedFile, PreflightError
from preflight.model import Finding, RolloutFile, Segment, Severity
from preflight.system import databases, files
from preflight.system.digests import BesideSha256


class Level(StrEnum):
    DIGESTS = "digests"
    STRUCTURE = "structure"
    HISTORY = "history"
    TRIAL = "trial"


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_CHECKED = "not-checked"


@dataclass(frozen=True, slots=True)
class LevelResult:
    """What one level said of one thread; `detail` is a sentence, `facts` go into the report."""

    level: Level
    outcome: Outcome
    detail: str = ""
    facts: Mapping[str, object] | None = None

    def as_json(self) -> dict[str, object]:
        return {"outcome": self.outcome.value, "detail": self.detail, **(self.facts or {})}


def verify_database(folder: Path, record: FileRecord, seen: Seen | None = None) -> LevelResult:
    """Read a database copy back, and let SQLite look at every page of it; `seen` as in `verify_digest`."""
    digest = verify_digest(folder, record, seen)
    if digest.outcome is not Outcome.PASSED:
        return digest
    try:
        problems = databases.quick_check(folder / record.path)
    except PreflightError as error:
        problems = [error.message]
    if problems:
        return LevelResult(Level.STRUCTURE, Outcome.FAILED, f"quick_check of {record.path}: {problems[0]}")
    return LevelResult(Level.STRUCTURE, Outcome.PASSED)


def verify_digest(folder: Path, record: FileRecord, seen: Seen | None = None) -> LevelResult:
    """Compare length and SHA-256 of a file of the checkpoint, read back from the disk, with its record.

    `seen` is told how many bytes have been read; what it raises ends the reading, and is passed on.
    """
    path = folder / record.path
    try:
        files.forget_cached(path)
        length = path.stat().st_size
        if length != record.length:
            return _another_length(record, length)
        if files.sha256_of(path, seen=seen) != record.sha256:
            return _other_bytes(record)
    except OSError as error:
        return _unreadable(record, error)
    return LevelResult(Level.DIGESTS, Outcome.PASSED)


def _another_length(record: FileRecord, length: int) -> LevelResult:
    detail = f"{record.path} has {length:,} bytes instead of {record.length:,}"
    return LevelResult(Level.DIGESTS, Outcome.FAILED, detail)


def _other_bytes(record: FileRecord) -> LevelResult:
    return LevelResult(Level.DIGESTS, Outcome.FAILED, f"{record.path} is not what was written")


def _unreadable(record: FileRecord, error: OSError) -> LevelResult:
    return LevelResult(Level.DIGESTS, Outcome.FAILED, f"{record.path} cannot be read: {error.strerror}")


def verify_thread(
    folder: Path, record: ThreadRecord, file: FileRecord, seen: Seen | None = None
) -> tuple[LevelResult, ...]:
    """Digests, structure and history of one resume rollout; later levels need the earlier ones.

    `seen` as in `verify_digest`: what was not read to its end has neither passed nor failed.
    """
    if file.path.endswith(".zst"):
        digest = verify_digest(folder, file, seen)
        if digest.outcome is not Outcome.PASSED:
            return (digest, _skipped(Level.STRUCTURE), _skipped(Level.HISTORY))
        why = "the rollout is compressed; it was copied whole as it is"
        return (digest, _unchecked(Level.STRUCTURE, why), _unchecked(Level.HISTORY, why))
    digest, replayed = _read_back(folder, record, file, seen)
    if digest.outcome is not Outcome.PASSED or replayed is None:
        return (digest, _skipped(Level.STRUCTURE), _skipped(Level.HISTORY))
    return (digest, _structure(record, replayed), _history(record, replayed))


def _read_back(
    folder: Path, record: ThreadRecord, file: FileRecord, seen: Seen | None
) -> tuple[LevelResult, history.Replay | None]:
    """The digest of a resume rollout and what its lines say, of the same bytes: it is read from the disk once."""
    path = folder / file.path
    try:
        files.forget_cached(path)
        with boundary.opened((Segment(file=_as_rollout(path), end_offset=None),)) as opened, BesideSha256() as digest:
            length = opened.identities[0].size_bytes
            if length != file.length:
                return _another_length(file, length), None
            replayed = history.replay(opened, seen, digest.update)
            if digest.hexdigest() != file.sha256:
                return _other_bytes(file), None
            if record.history is not None and not record.history.base_sha256:
                replayed = replace(replayed, history=history.of_all_records(opened, seen))
    except DamagedFile as error:
        return LevelResult(Level.DIGESTS, Outcome.FAILED, error.message), None
    except OSError as error:
        return _unreadable(file, error), None
    return LevelResult(Level.DIGESTS, Outcome.PASSED), replayed


def _structure(record: ThreadRecord, replayed: history.Replay) -> LevelResult:
    facts = {
        "records": replayed.records,
        "turns_shown": replayed.turns_shown,
        "damaged_lines": replayed.damaged,
        "lines_not_utf8": replayed.not_utf8,
        "ordinals_rise": replayed.ordinals_rise,
    }
    wrong = ""
    if replayed.thread_id != record.thread_id:
        wrong = f"the first line is of thread {replayed.thread_id}"
    elif not replayed.complete:
        wrong = "the last line has no newline"
    elif not replayed.ordinals_rise and len(record.sources) > 1:
        wrong = "the ordinals do not rise"
    if wrong:
        return LevelResult(Level.STRUCTURE, Outcome.FAILED, wrong, facts)
    return LevelResult(Level.STRUCTURE, Outcome.PASSED, "", facts)


def _history(record: ThreadRecord, replayed: history.Replay) -> LevelResult:
    if record.history is None:
        if record.whole and len(record.sources) == 1:
            return LevelResult(Level.HISTORY, Outcome.PASSED, "the whole rollout was copied, byte for byte")
        return _unchecked(Level.HISTORY, "the original was not read for it when this checkpoint was made")
    if replayed.history is None:
        return LevelResult(Level.HISTORY, Outcome.FAILED, "the resume rollout has no base compaction of its own")
    if replayed.history != record.history:
        return LevelResult(Level.HISTORY, Outcome.FAILED, "the resume rollout gives the model another history")
    return LevelResult(Level.HISTORY, Outcome.PASSED)


def remarks(record: ThreadRecord, results: tuple[LevelResult, ...]) -> list[Finding]:
    """Findings that verification makes: failures block, damage that was copied faithfully warns."""
    found = [
        Finding(
            finding_id="trial-resume-failed" if result.level is Level.TRIAL else "checkpoint-unverified",
            severity=Severity.BLOCK,
            thread_id=record.thread_id,
            cause=f"the checkpoint of this thread did not verify ({result.level.value}): {result.detail}",
            remedy="preflight run",
        )
        for result in results
        if result.outcome is Outcome.FAILED
    ]
    facts = next((r.facts for r in results if r.level is Level.STRUCTURE and r.facts), {})
    damaged = facts.get("damaged_lines", 0) if facts else 0
    if damaged:
        found.append(
            Finding(
                finding_id="damaged-lines",
                severity=Severity.WARN,
                thread_id=record.thread_id,
                cause="lines of this thread are damaged; they were copied as they are, and Codex skips them, "
                "or refuses the thread where they are not UTF-8",
                measured=int(str(damaged)),
                expected=0,
                remedy=f"preflight show latest, and keep the checkpoint of thread {record.thread_id}",
            )
        )
    if facts and facts.get("ordinals_rise") is False:
        found.append(
            Finding(
                finding_id="ordinals-out-of-order",
                severity=Severity.WARN,
                thread_id=record.thread_id,
                cause="the ordinals of this thread's lines do not rise; they were copied as they are, and the app "
                "may show its turns in another order",
                remedy=f"preflight show latest, and keep the checkpoint of thread {record.thread_id}",
            )
        )
    return found


def _as_rollout(path: Path) -> RolloutFile:
    name = rollout.parse_name(path.name)
    if name is None:
        raise DamagedFile("the checkpoint holds a file that is no rollout", path=path)
    return RolloutFile(
        place=str(path),
        thread_id=name.thread_id,
        segment_id=name.segment_id,
        stamp=name.stamp,
        archived=False,
        compressed=name.compressed,
        identity=files.identity(path),
    )


def _skipped(level: Level) -> LevelResult:
    return _unchecked(level, "an earlier level failed")


def _unchecked(level: Level, why: str) -> LevelResult:
    return LevelResult(level, Outcome.NOT_CHECKED, why)
