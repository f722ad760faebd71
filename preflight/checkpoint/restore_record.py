"""What a restore is going to do, and how far it has come: on the disk before it is done.

One file a restore, `restores/<id>.json`, published anew with each phase. Whoever finds one that is
neither done nor cancelled knows every file that it may have touched. No objective and no text of a
thread is in it. Writing needs the run lock.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from preflight.checkpoint import jsonline
from preflight.errors import DamagedFile, Unsupported
from preflight.model import FileIdentity, Finding, Severity, ThreadRow
from preflight.system import files

__all__ = ["AsideFile", "Phase", "PlacedFile", "RestoreRecord", "Restores", "interrupted"]

_SCHEMA = 1
_STAMP = "%Y%m%dT%H%M%SZ"
_FILE = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}\.json")
_LOST = "look beside the rollouts for files named .kept- and .restore-, then move the record out of the store"


class Phase(StrEnum):
    """How far a restore has come.

    `staging`: nothing of Codex's has been touched. `swapping`: every new file lies whole beside its place.
    `giving-back`: a runtime had opened an older file in the last moment, and every file gets its place again.
    """

    STAGING = "staging"
    SWAPPING = "swapping"
    GIVING_BACK = "giving-back"
    DONE = "done"
    UNDONE = "undone"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedFile:
    """A file that gets the name `place`; until then it is `staged`, and what was at `place` is `kept` afterwards.

    `kept` None: nothing was there. `sha256` None: not written yet, or (undone) never read. `identity` is that
    of the staged file: by it the file at the place is known to be ours.
    """

    place: Path
    staged: Path
    kept: Path | None
    file_id: str
    length: int
    sha256: str | None = None
    identity: FileIdentity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AsideFile:
    """A file of the thread that goes out of Codex's sight, and nothing comes in its place."""

    place: Path
    kept: Path
    file_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRecord:
    """One restore. `what` is `full`, `resume` or `undo`; `undoes` the id of the restore that is undone.

    `new_home` is the folder of a restore to a new place, `building` its name until it is complete.
    `row_before` and `row_after` are the thread's row without its texts. `at_ms` is the time that a goal
    written by this restore has, or by the one that is undone: by it that goal is known again. `stayed` are the
    names, without `.zst`, of the files that the thread had besides and that were left alone.
    """

    restore_id: str
    phase: Phase
    what: str
    home: Path
    checkpoint_id: str
    thread_id: str
    at_ms: int
    files: tuple[PlacedFile, ...]
    aside: tuple[AsideFile, ...] = ()
    stayed: tuple[str, ...] = ()
    archived: bool = False
    history_mode: str | None = None
    row_before: ThreadRow | None = None
    row_after: ThreadRow | None = None
    goal_id: str | None = None
    new_home: Path | None = None
    building: Path | None = None
    undoes: str | None = None
    schema: int = _SCHEMA

    @property
    def head(self) -> PlacedFile | None:
        return self.files[0] if self.files else None

    @property
    def moving(self) -> tuple[PlacedFile | AsideFile, ...]:
        """Every file that changes its name, the newest first."""
        return (*self.files, *self.aside)

    @property
    def kept(self) -> tuple[Path, ...]:
        """Where the older files are kept, the newest first."""
        return tuple(file.kept for file in self.moving if file.kept is not None)

    @property
    def file_ids(self) -> tuple[str, ...]:
        """The ids under which Codex may remember something of the files that change."""
        return tuple(dict.fromkeys([self.thread_id, *(file.file_id for file in self.moving)]))


def interrupted(folder: Path) -> tuple[Finding, ...]:
    """A finding when a restore of the home that these records are of has not come to its end, or may not have."""
    try:
        unfinished = Restores(folder).unfinished()
    except (DamagedFile, Unsupported) as error:
        return (_finding(f"whether a restore was interrupted cannot be told: {error.message}", error.path, error.hint),)
    return tuple(
        replace(
            _finding("a restore of this thread was interrupted", folder, "preflight restore"), thread_id=one.thread_id
        )
        for one in unfinished
    )


def _finding(cause: str, path: Path | None, remedy: str | None) -> Finding:
    return Finding(finding_id="restore-interrupted", severity=Severity.WARN, cause=cause, path=path, remedy=remedy)


class Restores:
    """The records of one home's restores; the folder is made with the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new_id(self) -> str:
        """An id that sorts behind all others, also when the clock was set back."""
        moment = datetime.now(UTC)
        if names := self._names():
            newest = datetime.strptime(names[-1].partition("-")[0], _STAMP).replace(tzinfo=UTC)
            moment = max(moment, newest + timedelta(seconds=1))
        return f"{moment.strftime(_STAMP)}-{secrets.token_hex(3)}"

    def save(self, record: RestoreRecord) -> RestoreRecord:
        """Put the record on the disk in place of its earlier phase; Unverified or NoSpace when that fails."""
        files.private_folder(self._folder)
        files.publish(self._folder / f"{record.restore_id}.json", jsonline.encode(record))
        return record

    def all(self) -> list[RestoreRecord]:
        """Every restore, oldest first. Raises DamagedFile, Unsupported: what such a record did cannot be told."""
        return [self.read(name) for name in self._names()]

    def unfinished(self) -> list[RestoreRecord]:
        """The restores that a kill has ended between two phases."""
        begun = (Phase.STAGING, Phase.SWAPPING, Phase.GIVING_BACK)
        return [record for record in self.all() if record.phase in begun]

    def _names(self) -> list[str]:
        try:
            return sorted(path.stem for path in self._folder.iterdir() if _FILE.fullmatch(path.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DamagedFile(f"the restores cannot be read: {error.strerror}", path=self._folder) from error

    def read(self, restore_id: str) -> RestoreRecord:
        """One restore as it is by now. Raises what `all` raises."""
        path = self._folder / f"{restore_id}.json"
        try:
            record = jsonline.decode(path.read_bytes(), RestoreRecord, path)
        except OSError as error:
            raise DamagedFile(f"the record of a restore cannot be read: {error.strerror}", path=path) from error
        except DamagedFile as error:
            raise DamagedFile("the record of a restore is damaged", path=path, hint=_LOST) from error
        if record.schema > _SCHEMA:
            raise Unsupported("a newer preflight was restoring here", path=path, hint="upgrade codex-preflight")
        return record
