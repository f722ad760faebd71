"""Files of a scheduler that carry our mark: looked at, placed, and removed without losing anybody else's.

What is in the place and not as we wrote it is kept beside it as ``NAME.orig``. A symbolic link is
never ours, wherever it leads: replacing it would cut somebody's arrangement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from preflight.errors import SchedulerRefused, UsageProblem
from preflight.integrations.interface import Condition, Step
from preflight.integrations.machine import Machine
from preflight.integrations.marks import condition_of
from preflight.system import files

__all__ = [
    "MoveFile",
    "RemoveFile",
    "WriteFile",
    "condition_of_file",
    "kept_aside",
    "steps_to_place",
    "steps_to_remove",
]


@dataclass(frozen=True, slots=True)
class WriteFile:
    path: Path
    content: bytes

    def perform(self, machine: Machine) -> None:  # noqa: ARG002
        """Whole or not at all, 0600. Raises NoSpace and Unverified."""
        files.private_folder(self.path.parent)
        files.publish(self.path, self.content)

    def told(self) -> Mapping[str, object]:
        return {"do": "write", "path": self.path}


@dataclass(frozen=True, slots=True)
class MoveFile:
    """With `replace` what is at `to` is ours, and goes in the same instant."""

    path: Path
    to: Path
    replace: bool = False

    def perform(self, machine: Machine) -> None:  # noqa: ARG002
        if not self.replace and _is_there(self.to):
            raise UsageProblem(f"there is a file {self.to} already", path=self.to, hint="move it away and try again")
        try:
            self.path.replace(self.to)
        except OSError as error:
            raise SchedulerRefused(f"could not be moved: {error.strerror}", path=self.path) from error

    def told(self) -> Mapping[str, object]:
        return {"do": "move", "path": self.path, "to": self.to}


@dataclass(frozen=True, slots=True)
class RemoveFile:
    path: Path

    def perform(self, machine: Machine) -> None:  # noqa: ARG002
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise SchedulerRefused(f"could not be removed: {error.strerror}", path=self.path) from error

    def told(self) -> Mapping[str, object]:
        return {"do": "remove", "path": self.path}


def condition_of_file(path: Path) -> tuple[Condition, str]:
    """Whose the file is, and its text; empty where there is none. Raises SchedulerRefused: it cannot be read."""
    if path.is_symlink():
        return Condition.FOREIGN, ""
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return Condition.NOTHING, ""
    except OSError as error:
        raise SchedulerRefused(f"cannot be read: {error.strerror}", path=path) from error
    return condition_of(text), text


def kept_aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.orig")


def steps_to_place(path: Path, content: bytes) -> list[Step]:
    """Nothing when the file is there as it should be."""
    condition, text = condition_of_file(path)
    if condition is Condition.OURS and text.encode("utf-8", "surrogateescape") == content:
        return []
    steps: list[Step] = []
    if condition in (Condition.EDITED, Condition.FOREIGN):
        if _is_there(kept_aside(path)):
            raise UsageProblem(
                f"there is a file {kept_aside(path)} already", path=kept_aside(path), hint="move it away and try again"
            )
        steps.append(MoveFile(path, kept_aside(path)))
    return [*steps, WriteFile(path, content)]


def steps_to_remove(path: Path) -> list[Step]:
    """Takes away what carries our mark. Somebody else's file that had to make room for it is put back."""
    condition, _ = condition_of_file(path)
    if condition in (Condition.NOTHING, Condition.FOREIGN):
        return []
    kept = kept_aside(path)
    if condition_of_file(kept)[0] is Condition.FOREIGN:
        return [MoveFile(kept, path, replace=True)]
    return [RemoveFile(path)]


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()
