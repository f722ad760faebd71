"""What every scheduler answers: what it would write, what it has now, and the steps from one to the other.

A scheduler knows its own format and its own programs. The rules that hold for all of them (what is
refused, what is repeated, what is read back) are in `schedules`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import ClassVar, Protocol

from preflight.integrations.machine import Machine, ended_well

__all__ = ["Condition", "Found", "Nightly", "Place", "RunProgram", "Scheduler", "State", "Step", "Time"]


@dataclass(frozen=True, slots=True)
class Time:
    """A time of the day on the machine's own clock; `str` gives ``03:10``."""

    hour: int
    minute: int

    def __str__(self) -> str:
        return f"{self.hour:02}:{self.minute:02}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nightly:
    """What runs every night: a program with its words, never a shell's line, and when."""

    command: tuple[str, ...]
    at: Time


class State(StrEnum):
    """`outdated`: ours, in an older format. `broken`: ours as we wrote it, and yet it would not run."""

    ABSENT = "absent"
    INSTALLED = "installed"
    OUTDATED = "outdated"
    EDITED = "edited"
    BROKEN = "broken"


class Condition(IntEnum):
    """Whose the thing in our place is. Of several files the highest one counts."""

    NOTHING = 0
    OURS = 1
    OUTDATED = 2
    FOREIGN = 3
    EDITED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What lies in the scheduler now.

    `nightly` is None where it cannot be read. `faults` are sentences that say why it would not run
    although it is ours; `notes` are worth knowing and no fault.
    """

    condition: Condition
    nightly: Nightly | None = None
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        match self.condition:
            case Condition.NOTHING | Condition.FOREIGN:
                return State.ABSENT
            case Condition.EDITED:
                return State.EDITED
            case Condition.OUTDATED:
                return State.OUTDATED
        return State.BROKEN if self.faults else State.INSTALLED


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One file that `print` shows: where it belongs, in words for a person, and its bytes."""

    where: str
    content: bytes


class Step(Protocol):
    """One change of the machine. `told` is what ``--dry-run`` and ``--json`` say of it."""

    def perform(self, machine: Machine) -> None: ...

    def told(self) -> Mapping[str, object]: ...


@dataclass(frozen=True, slots=True)
class RunProgram:
    """A command of the scheduler. `tolerated` are exit statuses that mean: it was so already."""

    argv: tuple[str, ...]
    tolerated: tuple[int, ...] = ()

    def perform(self, machine: Machine) -> None:
        """Raises SchedulerRefused when it ends in any other way."""
        ended_well(machine.run(self.argv), self.argv, self.tolerated)

    def told(self) -> Mapping[str, object]:
        return {"do": "run", "argv": list(self.argv)}


class Scheduler(ABC):
    """One scheduler of a machine. Looking and planning change nothing."""

    name: ClassVar[str]
    #: The program without which there is no such scheduler here.
    program: ClassVar[str]

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    @property
    def available(self) -> bool:
        return self.machine.find(self.program) is not None

    @abstractmethod
    def places(self, nightly: Nightly) -> tuple[Place, ...]:
        """What would be written, whole. Raises UsageProblem for words that the format cannot hold."""

    @abstractmethod
    def look(self) -> Found:
        """What is there now. Raises SchedulerRefused when that cannot be told."""

    @abstractmethod
    def steps_to_install(self, nightly: Nightly) -> Sequence[Step]:
        """Content first, the trigger last: who is stopped in between leaves something that does nothing.

        What is in the place and not ours is kept beside it. Raises SchedulerRefused, before anything is
        written, when the scheduler does not answer, and UsageProblem when there is no name left to
        keep it under.
        """

    @abstractmethod
    def steps_to_uninstall(self) -> Sequence[Step]:
        """The trigger first, the content last; what was kept beside it goes back to its place.

        Where the scheduler's program is missing, the steps are those that need none.
        """
