"""Threads: the rows of `state_N.sqlite`, the rollout files and the goals, joined by thread id.

A thread's file is the one that its row names; where the row names none that is there, the newest of
its files. A thread has several files when it was reverted (0.158 and later: a new head with a segment
id) or when somebody copied one. What Codex makes of a row whose file is not where it says was tried on
0.134.0, 0.147.0 and 0.169.0: 0.134 finds a file that was moved, 0.147 and 0.169 refuse to open the
thread; when there is no file at all 0.134 deletes the row *and the goal*, the others keep both.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from preflight.codex import goals, lineage, rollout
from preflight.codex.paths import RowPaths, same_file_name
from preflight.codex.schema import require_columns, require_known_number
from preflight.errors import DamagedFile
from preflight.model import Finding, Goal, Home, RolloutFile, Segment, Severity, Thread, ThreadRow
from preflight.system import databases
from preflight.system.deadline import Deadline

__all__ = ["ThreadsFound", "find_threads", "read_rows", "rollout_files"]

_NEEDED = ("id", "rollout_path", "archived")
_OPTIONAL = ("history_mode", "cli_version", "updated_at_ms")  # the first one since 0.144

# What is said once for the whole home when it concerns threads without a goal; `{}` is how many.
_PLURALS = {
    "rollout-missing": "{} threads have a row that names a rollout, and no file",
    "rollout-moved": "{} threads have a row that names another place than where their rollout lies",
    "rollout-elsewhere": "{} threads have their rollout outside of this home",
    "rollout-duplicate": "{} threads have two files of the same name or id",
}


@dataclass(frozen=True, slots=True)
class ThreadsFound:
    """The threads of a home, every goal row, and what is wrong with the home as a whole.

    `counts` has `threads`, `archived_threads`, `rollouts`, `rollout_bytes`, `compressed_rollouts`,
    `goals`, `active_goals`, and of threads `without_file`, `without_row`, `with_duplicates`.
    """

    threads: tuple[Thread, ...]
    goals: tuple[Goal, ...]
    counts: Mapping[str, int]
    findings: tuple[Finding, ...]


def read_rows(home: Home, deadline: Deadline) -> dict[str, ThreadRow]:
    """The rows of `threads` by id; none when there is no state database.

    No titles, messages or folders of projects are read. Raises DamagedFile, DatabaseBusy,
    UnknownSchema, TimeLimitReached.
    """
    if home.state_db is None:
        return {}
    require_known_number(home.state_db)
    with databases.connect_readonly(home.state_db, deadline) as connection:
        there = require_columns(connection, "threads", _NEEDED)
        columns = [*_NEEDED, *(name if name in there else "NULL" for name in _OPTIONAL)]
        rows = connection.execute(f"SELECT {', '.join(columns)} FROM threads WHERE typeof(id) = 'text'")  # noqa: S608
        # SQLite keeps a number or bytes in a column of text: what no Codex writes there says nothing.
        return {
            thread_id: ThreadRow(
                thread_id=thread_id,
                rollout_path=path if isinstance(path, str) else "",
                archived=archived == 1,
                history_mode=mode if isinstance(mode, str) else None,
                cli_version=version if isinstance(version, str) and version else None,
                updated_at_ms=updated_at_ms if isinstance(updated_at_ms, int) else None,
            )
            for thread_id, path, archived, mode, version, updated_at_ms in rows
        }


def find_threads(home: Home, deadline: Deadline, earlier: ThreadsFound | None = None) -> ThreadsFound:
    """Every thread of the home: of each row, each file and each goal, joined by id.

    Files are known by name and size. Opened are only those whose own size may not be the thread's: where
    the row does not say `legacy`, the first 128 bytes, which tell whether the file begins in another one
    (forks and reverts of 0.154 and later); of those that do and of goal threads, the first line. So
    `lineage` and `size_bytes` are right for every thread, at one small read each.

    A thread's findings are of severity block only when it has a goal that is not complete: what Codex
    cannot open today, an update does not make worse. Of threads without such a goal the home's findings
    say how many have each problem. Raises DatabaseBusy, UnknownSchema, TimeLimitReached; a malformed
    database or an unreadable folder becomes a finding. A thread that Codex archives or reverts between
    our reading of the databases and of the folders may look moved; the next run sees it in its place.

    `earlier` is what was found of the same home shortly before. Everything is read again, and a sound thread whose
    row, goal and file are as they were is taken from there: this halves the time.
    """
    goals_read = goals.read_goals(home, deadline)
    findings = list(goals_read.findings)
    rows: dict[str, ThreadRow] = {}
    try:
        rows = read_rows(home, deadline)
    except DamagedFile as error:
        findings.append(_damaged_rows(error))
    scanned = rollout.scan(home.path, rollout_files(earlier) if earlier is not None else ())
    findings.extend(scanned.findings)
    if scanned.files and home.state_db is None and home.goals_db is None:
        findings.append(_no_databases(home))
    before = earlier.threads if earlier is not None else ()
    threads = _Join(home, rows, goals_read.goals, scanned, before, deadline).threads()
    findings.extend(_in_short(threads))
    every_goal = goals_read.goals + goals_read.set_aside
    return ThreadsFound(threads, every_goal, _counts(threads, goals_read.goals, scanned.files), _distinct(findings))


def rollout_files(found: ThreadsFound) -> tuple[RolloutFile, ...]:
    """Every rollout file of the home once: forks share their bases."""
    files = {segment.file.place: segment.file for thread in found.threads for segment in thread.lineage}
    files |= {file.place: file for thread in found.threads for file in thread.unlisted}
    return tuple(files.values())


class _Join:
    """The three lists of one home, by the ids that they are joined by."""

    def __init__(
        self,
        home: Home,
        rows: Mapping[str, ThreadRow],
        goal_rows: Iterable[Goal],
        scanned: rollout.ScanResult,
        before: Iterable[Thread],
        deadline: Deadline,
    ) -> None:
        self._home = home
        self._rows = rows
        self._goals = {goal.thread_id: goal for goal in goal_rows}
        self._files: dict[str, list[RolloutFile]] = {}
        self._files_by_id: dict[str, list[RolloutFile]] = {}
        for file in scanned.files:
            self._files.setdefault(file.thread_id, []).append(file)
            self._files_by_id.setdefault(file.file_id, []).append(file)
        self._seen_everywhere = not scanned.findings
        self._before = {thread.thread_id: thread for thread in before if _is_plain(thread)}
        self._row_paths = RowPaths(home.path)
        self._deadline = deadline

    def threads(self) -> tuple[Thread, ...]:
        ids = self._rows.keys() | self._files.keys() | self._goals.keys()
        return tuple(self._thread(thread_id) for thread_id in sorted(ids))

    def _thread(self, thread_id: str) -> Thread:
        row, goal, files = self._rows.get(thread_id), self._goals.get(thread_id), self._files.get(thread_id, [])
        before = self._before.get(thread_id)
        if (
            before is not None
            and len(files) == 1
            and files[0] is before.head
            and (before.row, before.goal) == (row, goal)
        ):
            return before
        needed = goal is not None and not goal.is_complete
        head, findings = self._head(thread_id, row, files)
        segments: tuple[Segment, ...] = ()
        if head is not None:
            segments, broken = self._lineage(head, row, needed=needed)
            findings.extend(broken)
        if needed and row is None and files and self._rows:
            findings.append(_without_row(thread_id))
        unlisted: tuple[RolloutFile, ...] = ()
        if len(files) > 1 or (files and head is not files[0]):
            findings.extend(_duplicates(head, files))
            used = {segment.file.place for segment in segments}
            unlisted = tuple(file for file in files if file.place not in used)
        if findings and not needed:
            findings = [replace(finding, severity=Severity.WARN) for finding in findings]
        return Thread(
            home=self._home,
            thread_id=thread_id,
            row=row,
            lineage=segments,
            goal=goal,
            archived=_is_archived(row, head),
            findings=tuple(findings),
            unlisted=unlisted,
        )

    def _head(
        self, thread_id: str, row: ThreadRow | None, files: Sequence[RolloutFile]
    ) -> tuple[RolloutFile | None, list[Finding]]:
        """The file that is the thread, and what is wrong with the place that its row names."""
        for file in files:
            if row is not None and file.place == row.rollout_path:
                return file, []
        newest = max(files, key=lambda file: (file.stamp, file.file_id, not file.archived), default=None)
        if row is None:
            return newest, [] if newest is not None else [self._missing(thread_id, row)]
        place = self._row_paths.local_path(row.rollout_path)
        for file in files:
            if place is not None and file.path.parent == place.parent and same_file_name(row.rollout_path, file.path):
                return file, []
        if place is not None and not place.is_relative_to(self._home.path):
            outside = _outside(place, thread_id)
            if outside is not None:
                return outside, [_elsewhere(thread_id, place)]
        return newest, [self._missing(thread_id, row) if newest is None else _moved(thread_id, newest)]

    def _missing(self, thread_id: str, row: ThreadRow | None) -> Finding:
        return _missing(thread_id, row) if self._seen_everywhere else _not_found(thread_id)

    def _lineage(
        self, head: RolloutFile, row: ThreadRow | None, *, needed: bool
    ) -> tuple[tuple[Segment, ...], Sequence[Finding]]:
        if not needed and head.segment_id is None:
            legacy = row is not None and row.history_mode == "legacy"
            if head.compressed or legacy or lineage.begins_itself(head.place):
                return (Segment(file=head, end_offset=None),), ()
        self._deadline.check("reading how rollouts go on from each other")
        segments, findings = lineage.lineage_of(head, self._files_by_id)
        if needed and not findings and not head.compressed:
            findings = _another_id(head)
        return segments, findings


def _is_plain(thread: Thread) -> bool:
    """Whether it is made of its row, perhaps a goal, and one file of its own, and nothing else."""
    return thread.row is not None and len(thread.lineage) == 1 and not thread.unlisted and not thread.findings


def _is_archived(row: ThreadRow | None, head: RolloutFile | None) -> bool:
    """Whether row and file agree on it. Where they do not, Codex opens the thread as one in use (0.134 to 0.169)."""
    if head is None:
        return row is not None and row.archived
    return head.archived and (row is None or row.archived)


def _outside(path: Path, thread_id: str) -> RolloutFile | None:
    """The file at a place that no scan has seen; None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    name = rollout.parse_name(path.name)
    return RolloutFile(
        place=os.fspath(path),
        thread_id=thread_id,
        segment_id=name.segment_id if name is not None else None,
        stamp=name.stamp if name is not None else "",
        archived=path.parent.name == "archived_sessions",
        compressed=path.suffix == ".zst",
        identity=rollout.identity_of(status),
    )


def _another_id(head: RolloutFile) -> tuple[Finding, ...]:
    try:
        found = rollout.read_meta(head.path).thread_id
    except (DamagedFile, OSError):
        return ()  # replaced since its lineage was read: whoever reads its tail says so
    if found == head.thread_id:
        return ()
    return (
        Finding(
            finding_id="rollout-of-another-thread",
            severity=Severity.BLOCK,
            thread_id=head.thread_id,
            cause="the rollout says inside that it belongs to another thread: 0.134 opens that one, 0.169 refuses",
            measured=found,
            expected=head.thread_id,
            remedy="put the thread's own rollout back in its place; keep this file outside of the home",
            path=head.path,
        ),
    )


def _missing(thread_id: str, row: ThreadRow | None) -> Finding:
    return Finding(
        finding_id="rollout-missing",
        # Without a row no runtime can be asked for the thread, and none takes its goal up.
        severity=Severity.WARN if row is None else Severity.BLOCK,
        thread_id=thread_id,
        cause="the thread has no rollout in this home; 0.134 deletes its row and its goal at the next start",
        measured=0,
        expected=1,
        remedy="put the file back where it was, or codex delete the thread (0.147 and later); then run preflight check",
    )


def _not_found(thread_id: str) -> Finding:
    """Never an advice to delete anything: the rollout may well be in the folder that could not be read."""
    return Finding(
        finding_id="rollout-missing",
        severity=Severity.BLOCK,
        thread_id=thread_id,
        cause="no rollout of the thread was found, and not every folder of this home could be read",
        measured=0,
        expected=1,
        remedy="make the folders readable for your user, then run preflight check again",
    )


def _moved(thread_id: str, newest: RolloutFile) -> Finding:
    return Finding(
        finding_id="rollout-moved",
        severity=Severity.WARN,
        thread_id=thread_id,
        cause="the thread's row names another place than where its rollout lies: 0.147 and later refuse to open it",
        remedy="close every Codex and move the file back to the folder of its date (or to archived_sessions)",
        path=newest.path,
    )


def _elsewhere(thread_id: str, place: Path) -> Finding:
    return Finding(
        finding_id="rollout-elsewhere",
        severity=Severity.WARN,
        thread_id=thread_id,
        cause="the thread's row names a rollout outside of this home, where other programs may change it",
        remedy="close every Codex and move the file into sessions/ of this home, keeping its name",
        path=place,
    )


def _without_row(thread_id: str) -> Finding:
    return Finding(
        finding_id="row-missing",
        severity=Severity.WARN,
        thread_id=thread_id,
        cause="the thread has a goal and a rollout but no row in the state database",
        remedy="start Codex once: it makes the row anew from the rollout",
    )


def _duplicates(head: RolloutFile | None, files: Sequence[RolloutFile]) -> Iterator[Finding]:
    """Files of the same id; the segments of a reverted thread have ids of their own."""
    several = [file_id for file_id, count in Counter(file.file_id for file in files).items() if count > 1]
    if several and head is not None:
        yield Finding(
            finding_id="rollout-duplicate",
            severity=Severity.WARN,
            thread_id=head.thread_id,
            cause="several files have the same id: 0.134 opens the one with the oldest name, 0.169 that of the row",
            measured=len(files),
            expected=1 + len({file.file_id for file in files} - set(several)),
            remedy=f"keep {head.path.name}, which we take for the thread, and move the others out of the home",
            path=head.path,
        )


def _damaged_rows(error: DamagedFile) -> Finding:
    return Finding(
        finding_id="database-damaged",
        severity=Severity.BLOCK,
        cause=f"the state database cannot be read, so threads are known by their files alone: {error.message}",
        remedy=error.hint,
        path=error.path,
    )


def _no_databases(home: Home) -> Finding:
    return Finding(
        finding_id="databases-missing",
        severity=Severity.WARN,
        cause="the home has rollouts and no databases, so goals cannot be seen",
        remedy="set CODEX_SQLITE_HOME to where its databases are, or start Codex once",
        path=home.sqlite_home,
    )


def _in_short(threads: Iterable[Thread]) -> Iterator[Finding]:
    found: dict[str, list[Finding]] = {}
    for thread in threads:
        if not thread.is_goal_thread:
            for finding in thread.findings:
                if finding.finding_id in _PLURALS:
                    found.setdefault(finding.finding_id, []).append(finding)
    for kind, findings in found.items():
        first, count = findings[0], len(findings)
        if count == 1:
            yield first
        else:
            yield replace(
                first, thread_id=None, path=None, cause=_PLURALS[kind].format(count), measured=count, expected=0
            )


def _distinct(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each finding once: a damaged state database is met for its goals and for its rows."""
    return tuple({(finding.finding_id, finding.thread_id, finding.path): finding for finding in findings}.values())


def _counts(threads: Sequence[Thread], goal_rows: Sequence[Goal], files: Sequence[RolloutFile]) -> dict[str, int]:
    return {
        "threads": len(threads),
        "archived_threads": sum(thread.archived for thread in threads),
        "goals": len(goal_rows),
        "active_goals": sum(goal.is_active for goal in goal_rows),
        "rollouts": len(files),
        "rollout_bytes": sum(file.size_bytes for file in files),
        "compressed_rollouts": sum(file.compressed for file in files),
        "without_file": sum(not thread.lineage for thread in threads),
        "without_row": sum(thread.row is None for thread in threads),
        "with_duplicates": sum(
            any(finding.finding_id == "rollout-duplicate" for finding in thread.findings) for thread in threads
        ),
    }
