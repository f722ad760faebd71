"""What is remembered from night to night, and since when nights are to be expected.

    nights.json     when the task was at work, where its reading goes on, what it found damaged
    schedule.json   which schedulers were given the task, and since when

Two small files of the store, each replaced as a whole: the task writes the first under the run lock, `hooks` the
second without it, so that it need not wait for a night. So `check` can tell a schedule that has stopped, or never
began, without asking any scheduler.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from preflight.checkpoint import jsonline
from preflight.checkpoint.store import Store
from preflight.errors import DamagedFile
from preflight.system import files

__all__ = ["Nights", "Schedule", "are_made", "expect", "expect_no_more", "is_missed", "load", "now", "recall", "save",
           "schedule_of"]  # fmt: skip

_Kind = TypeVar("_Kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nights:
    """Times are RFC 3339 in UTC. A night was good when everything is in a checkpoint that read back.

    `checkpoint_id` is the one that the last good night made, or found to be up to date. `position` is
    where the next reading begins on the circle of all that there is to read (see `rereading`). What a
    reading found damaged is named until it is gone: checkpoints by id, archives by file and generation.
    """

    last_at: str | None = None
    last_good_at: str | None = None
    checkpoint_id: str | None = None
    position: int = 0
    damaged_checkpoints: tuple[str, ...] = ()
    damaged_archives: tuple[tuple[str, int], ...] = ()

    def seconds_since_good(self) -> float | None:
        """None when no night was ever good."""
        return _seconds_since(self.last_good_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The schedulers that `hooks install` has given this home to, each with the time of that; RFC 3339 in UTC.

    `ended_at` is when the last of them was uninstalled: from what was before, no night is to be expected.
    Somebody who installs the files by hand leaves no trace here.
    """

    since: dict[str, str] = field(default_factory=dict)
    ended_at: str | None = None

    @property
    def began_at(self) -> str | None:
        """When the first scheduler of now was installed; None when `hooks` has installed none."""
        return min(self.since.values(), key=datetime.fromisoformat, default=None)

    def seconds_since_installed(self) -> float | None:
        """None when `hooks` has installed none."""
        return _seconds_since(self.began_at)


def are_made(nights: Nights | None, schedule: Schedule) -> bool:
    """Whether a scheduler has the task now and it has been at work since, whoever installed it."""
    if nights is None or nights.last_at is None:
        return False
    last, begun, ended = nights.last_at, schedule.began_at, schedule.ended_at
    if begun is not None:
        return datetime.fromisoformat(last) >= datetime.fromisoformat(begun)
    return ended is None or datetime.fromisoformat(last) > datetime.fromisoformat(ended)


def is_missed(store: Store | None, hour: int, minute: int) -> bool:
    """Whether the night that should have begun at the last such time of the day has not been.

    A night from before the task was installed is nobody's. What cannot be read counts as missed.
    """
    present = datetime.now(UTC).astimezone()
    due = present.replace(hour=hour, minute=minute, second=0, microsecond=0)
    due = due if due <= present else due - timedelta(days=1)
    if store is None:
        return True
    try:
        begun = schedule_of(store.schedule).began_at
    except DamagedFile:
        begun = None
    known = [datetime.fromisoformat(moment) for moment in (recall(store.nights).last_at, begun) if moment is not None]
    return not any(moment >= due for moment in known)


def load(path: Path) -> Nights | None:
    """What the last night wrote; None when there never was one. DamagedFile when it cannot be read."""
    nights = _load(path, Nights)
    if nights is not None:
        _require_times(path, (nights.last_at, nights.last_good_at))
    return nights


def recall(path: Path) -> Nights:
    """What the last night wrote, as far as it can be read: what is forgotten is found out again."""
    try:
        return load(path) or Nights()
    except DamagedFile:
        return Nights()


def save(path: Path, nights: Nights) -> None:
    """Replace the record. Needs the run lock; raises what `files.publish` raises, and the old one stays."""
    files.publish(path, jsonline.encode(nights, path))


def schedule_of(path: Path) -> Schedule:
    """What `hooks` wrote; an empty one when it wrote nothing. DamagedFile when it cannot be read."""
    schedule = _load(path, Schedule) or Schedule()
    _require_times(path, (*schedule.since.values(), schedule.ended_at))
    return schedule


def expect(store: Store, scheduler: str, *, anew: bool) -> None:
    """Note that this scheduler has the task; with `anew` since now, whatever was noted before.

    Raises what `files.publish` raises, and the old note stays: also when a run that begins at this very moment
    sweeps our unfinished file away, which the next call makes good.
    """
    schedule = _recall_schedule(store)
    if anew or scheduler not in schedule.since:
        schedule = Schedule(since={**schedule.since, scheduler: now()})
        files.publish(store.schedule, jsonline.encode(schedule, store.schedule))


def expect_no_more(store: Store, scheduler: str) -> None:
    """Note that this scheduler has the task no more. Raises as `expect`.

    Where there never was a night nothing is left to be told, and the note goes altogether.
    """
    schedule = _recall_schedule(store)
    if scheduler not in schedule.since:
        return
    left = {name: since for name, since in schedule.since.items() if name != scheduler}
    if not left and recall(store.nights).last_at is None:
        files.remove(store.schedule)
        return
    schedule = replace(schedule, since=left, ended_at=None if left else now())
    files.publish(store.schedule, jsonline.encode(schedule, store.schedule))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _recall_schedule(store: Store) -> Schedule:
    try:
        return schedule_of(store.schedule)
    except DamagedFile:
        return Schedule()  # it is about to be written anew


def _load(path: Path, kind: type[_Kind]) -> _Kind | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedFile(f"the record of the nights cannot be read: {error.strerror}", path=path) from error
    return jsonline.decode(data, kind, path)


def _require_times(path: Path, moments: Iterable[str | None]) -> None:
    for moment in moments:
        try:
            aware = moment is None or datetime.fromisoformat(moment).tzinfo is not None
        except ValueError:
            aware = False
        if not aware:
            raise DamagedFile("the record of the nights holds a time that is none", path=path)


def _seconds_since(moment: str | None) -> float | None:
    return None if moment is None else (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
