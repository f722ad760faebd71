"""What we paused and put back, one line each, on the disk before the deed.

`journal.jsonl` only grows. The line `pause` of a goal is flushed before the goal is touched, so a run
that is killed in between leaves a promise that may not have been carried out, never a deed without a
line. `paused` confirms it, `withheld` says that the thread is harmed and its goal is to stay paused, `restored`
ends it. Appending needs the run lock, reading does not.

A last line without its newline was never finished, so nobody acted on it: readers pass it over and
the next append cuts it off. A line in the middle that cannot be read is counted and not believed.
Errors: NoSpace and Unverified when a line could not be put on the disk (nothing may be paused then),
DamagedFile when the journal cannot be read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Self

import msgspec

from preflight.checkpoint import jsonline
from preflight.errors import DamagedFile, Unverified
from preflight.model import Goal, GoalTable
from preflight.system import files

__all__ = ["Journal", "PauseEntry", "PauseIntent", "PauseMeans"]

_SCHEMA = 1


class PauseMeans(StrEnum):
    """How a goal is paused: through the owner's control socket, or in the database."""

    SOCKET = "socket"
    DATABASE = "database"


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseIntent:
    """The goal as it was just before it was to be paused; `at` is RFC 3339 UTC. No objective: it is private.

    `asked_at_ms` is the earliest `updated_at_ms` that a row paused by us can have, and the very one
    where we write it ourselves: by it a goal is known again whose pause was never confirmed.
    """

    run_id: str
    home: Path
    thread_id: str
    goal_id: str
    status_before: str
    token_budget: int | None
    tokens_used: int
    time_used_seconds: int
    created_at_ms: int
    updated_at_ms: int
    table: GoalTable
    how: PauseMeans
    target_version: str | None
    asked_at_ms: int
    at: str

    @classmethod
    def of(
        cls, goal: Goal, *, run_id: str, home: Path, how: PauseMeans, target_version: str | None, asked_at_ms: int
    ) -> Self:
        """Return the intent to pause `goal` now."""
        return cls(
            run_id=run_id,
            home=home,
            thread_id=goal.thread_id,
            goal_id=goal.goal_id,
            status_before=goal.status,
            token_budget=goal.token_budget,
            tokens_used=goal.tokens_used,
            time_used_seconds=goal.time_used_seconds,
            created_at_ms=goal.created_at_ms,
            updated_at_ms=goal.updated_at_ms,
            table=goal.table,
            how=how,
            target_version=target_version,
            asked_at_ms=asked_at_ms,
            at=_now(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseEntry:
    """A pause that has not been ended; `paused_updated_at_ms` is the row's `updated_at_ms` that our pause left.

    None: the run ended between the promise and its confirmation, and the goal may be paused or not.
    `withheld_by` is the checkpoint by which `finish` has found the thread harmed.
    """

    intent: PauseIntent
    paused_updated_at_ms: int | None
    withheld_by: str | None = None


class _Paused(msgspec.Struct):
    run_id: str
    thread_id: str
    goal_id: str
    paused_updated_at_ms: int


class _Withheld(msgspec.Struct):
    run_id: str
    thread_id: str
    goal_id: str
    checkpoint_id: str


class _Restored(msgspec.Struct):
    run_id: str
    thread_id: str
    goal_id: str
    outcome: str | None = None


class _Event(msgspec.Struct):
    """What every line has, and all that is asked of one whose event is a later version's."""

    event: str


_Line = PauseIntent | _Paused | _Withheld | _Restored | _Event
_KINDS: Mapping[str, type[_Line]] = {
    "pause": PauseIntent,
    "paused": _Paused,
    "withheld": _Withheld,
    "restored": _Restored,
}


class Journal:
    """The journal of one home; the file is made with the first line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def record_pause(self, intent: PauseIntent) -> None:
        """Promise to pause this goal; when this returns the line is on the disk and the goal may be touched."""
        self._append("pause", asdict(intent))

    def record_paused(self, intent: PauseIntent, paused_updated_at_ms: int) -> None:
        """Say that the goal is paused by us, with the `updated_at_ms` that its row has since."""
        self._append("paused", {**_names(intent), "paused_updated_at_ms": paused_updated_at_ms, "at": _now()})

    def record_withheld(self, intent: PauseIntent, checkpoint_id: str) -> None:
        """Say that the goal stays paused, because its thread has lost something that the checkpoint has."""
        self._append("withheld", {**_names(intent), "checkpoint_id": checkpoint_id, "at": _now()})

    def record_restored(self, intent: PauseIntent, outcome: str) -> None:
        """End a pause: put back, or left as it is for the reason `outcome`, one word."""
        self._append("restored", {**_names(intent), "outcome": outcome, "at": _now()})

    def pending(self) -> list[PauseEntry]:
        """The pauses that have not been ended, oldest first; one for each goal, the latest.

        A goal that was paused twice was active in between, so the earlier pause had been undone by somebody.
        """
        return self._told()[0]

    def put_back(self) -> list[PauseEntry]:
        """The pauses that were undone by making the goal active again, oldest first."""
        return self._told()[1]

    def _told(self) -> tuple[list[PauseEntry], list[PauseEntry]]:
        open_entries: dict[tuple[str, str], PauseEntry] = {}
        undone: list[PauseEntry] = []
        for line in self._lines():
            if line is None or isinstance(line, _Event):
                continue
            goal = (line.thread_id, line.goal_id)
            if isinstance(line, PauseIntent):
                open_entries.pop(goal, None)
                open_entries[goal] = PauseEntry(intent=line, paused_updated_at_ms=None)
                continue
            entry = open_entries.get(goal)
            if entry is None or entry.intent.run_id != line.run_id:
                continue
            if isinstance(line, _Paused):
                open_entries[goal] = replace(entry, paused_updated_at_ms=line.paused_updated_at_ms)
            elif isinstance(line, _Withheld):
                open_entries[goal] = replace(entry, withheld_by=line.checkpoint_id)
            else:
                del open_entries[goal]
                if line.outcome == "restored":
                    undone.append(entry)
        return list(open_entries.values()), undone

    def damaged_lines(self) -> int:
        """How many finished lines cannot be read; a goal among them stays as it is until somebody looks."""
        return sum(line is None for line in self._lines())

    def _lines(self) -> Iterator[_Line | None]:
        """Each finished line, None for one that cannot be read."""
        try:
            lines = self._path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return
        except OSError as error:
            raise DamagedFile(f"the journal cannot be read: {error.strerror}", path=self._path) from error
        for line in lines:
            yield _read(line)

    def _append(self, event: str, fields: Mapping[str, object]) -> None:
        line = jsonline.encode({"schema": _SCHEMA, "event": event, **fields}, self._path)
        if _read(line) is None:
            raise Unverified("the line would not read back", path=self._path)
        self._cut_unfinished_line()
        files.append_line(self._path, line)

    def _cut_unfinished_line(self) -> None:
        """Take off what a killed run left behind the last newline, or our line would be glued to it and lost."""
        try:
            with self._path.open("r+b") as file:
                data = file.read()
                finished = data.rfind(b"\n") + 1
                if finished != len(data):
                    file.truncate(finished)
                    file.flush()
                    os.fsync(file.fileno())
        except FileNotFoundError:
            return
        except OSError as error:
            raise Unverified(f"the journal cannot be written: {error.strerror}", path=self._path) from error


def _names(intent: PauseIntent) -> dict[str, object]:
    return {"run_id": intent.run_id, "thread_id": intent.thread_id, "goal_id": intent.goal_id}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _read(line: bytes) -> _Line | None:
    try:
        return jsonline.decode(line, _KINDS.get(jsonline.decode(line, _Event).event, _Event))
    except DamagedFile:
        return None
