"""What is remembered from night to night: when the task was at work, where its reading goes on, what it found damaged.

One small file of the store, replaced as a whole. Whether nights are made at all is known from it alone:
without a last night there is no schedule that could be stale.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from preflight.checkpoint import jsonline
from preflight.errors import DamagedFile
from preflight.system import files

__all__ = ["Nights", "load", "now", "recall", "save"]


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
        if self.last_good_at is None:
            return None
        return (datetime.now(UTC) - datetime.fromisoformat(self.last_good_at)).total_seconds()


def load(path: Path) -> Nights | None:
    """What the last night wrote; None when there never was one. DamagedFile when it cannot be read."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedFile(f"the record of the nights cannot be read: {error.strerror}", path=path) from error
    nights = jsonline.decode(data, Nights, path)
    for moment in (nights.last_at, nights.last_good_at):
        try:
            aware = moment is None or datetime.fromisoformat(moment).tzinfo is not None
        except ValueError:
            aware = False
        if not aware:
            raise DamagedFile("the record of the nights holds a time that is none", path=path)
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


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
