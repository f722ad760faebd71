"""launchd: an agent of the user on macOS.

A night that was slept through is made up after waking; one for which the machine was off, at the
next login (`RunAtLoad`): `--if-missed` ends the command at once when the night has been. The
arguments are a list, so nothing needs quoting. launchd has no time limit of its own: the command's own counts.
Written from Apple's manual pages; not run on a Mac.
"""

from __future__ import annotations

import plistlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from xml.parsers.expat import ExpatError

from preflight.errors import UsageProblem
from preflight.integrations.interface import Condition, Found, Nightly, Place, RunProgram, Scheduler, Step, Time
from preflight.integrations.machine import command_faults, ended_well
from preflight.integrations.marks import UNSIGNED, signed
from preflight.integrations.owned_files import condition_of_file, steps_to_place, steps_to_remove

__all__ = ["Launchd"]

_LABEL = "io.github.codex-preflight.nightly"
_PATH = "/usr/local/bin:/opt/homebrew/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_IF_MISSED = "--if-missed"
_NOT_LOADED = (3, 113)


class Launchd(Scheduler):
    name: ClassVar[str] = "launchd"
    program: ClassVar[str] = "launchctl"

    @property
    def _agent(self) -> Path:
        return self.machine.user_home / "Library" / "LaunchAgents" / f"{_LABEL}.plist"

    def places(self, nightly: Nightly) -> tuple[Place, ...]:
        for word in nightly.command:
            if not word.isprintable():
                raise UsageProblem(f"launchd cannot take the word {word!r}")
        agent = {
            "Label": _LABEL,
            "ProgramArguments": [*nightly.command, _IF_MISSED, str(nightly.at)],
            "StartCalendarInterval": {"Hour": nightly.at.hour, "Minute": nightly.at.minute},
            "RunAtLoad": True,
            "EnvironmentVariables": {"PATH": _PATH},
            "ProcessType": "Background",
            "LowPriorityIO": True,
            "Nice": 10,
            "Umask": 0o077,
        }
        first, _, rest = plistlib.dumps(agent, sort_keys=False).decode().partition("\n")
        text = f"{first}\n<!-- {UNSIGNED} -->\n{rest}".replace("\t", "  ")
        return (Place(where=str(self._agent), content=signed(text).encode()),)

    def look(self) -> Found:
        condition, text = condition_of_file(self._agent)
        if condition in (Condition.NOTHING, Condition.FOREIGN):
            return Found(condition=condition)
        nightly = _read(text)
        faults = command_faults(self.machine, nightly.command) if nightly is not None else ()
        if not self.available:
            faults = (*faults, "there is no launchctl on this machine")
        elif self.machine.run(("launchctl", "print", f"{self._domain()}/{_LABEL}")).returncode != 0:
            faults = (*faults, "launchd has not loaded the agent")
        return Found(condition=condition, nightly=nightly, faults=faults)

    def steps_to_install(self, nightly: Nightly) -> Sequence[Step]:
        domain = self._domain()
        argv = ("launchctl", "print", domain)
        ended_well(self.machine.run(argv), argv)
        (place,) = self.places(nightly)
        return [
            # One that is loaded keeps its old definition.
            RunProgram(("launchctl", "bootout", f"{domain}/{_LABEL}"), tolerated=_NOT_LOADED),
            *steps_to_place(self._agent, place.content),
            # Somebody may have switched it off, which outlives the file.
            RunProgram(("launchctl", "enable", f"{domain}/{_LABEL}")),
            RunProgram(("launchctl", "bootstrap", domain, str(self._agent))),
        ]

    def steps_to_uninstall(self) -> Sequence[Step]:
        files = steps_to_remove(self._agent)
        if not files or not self.available:
            return files
        return [RunProgram(("launchctl", "bootout", f"{self._domain()}/{_LABEL}"), tolerated=_NOT_LOADED), *files]

    def _domain(self) -> str:
        argv = ("id", "-u")
        return f"gui/{ended_well(self.machine.run(argv), argv).stdout.decode().strip()}"


def _read(text: str) -> Nightly | None:
    """What `places` was given, from what it made; None where somebody has changed it too much."""
    try:
        agent = plistlib.loads(text.encode("utf-8", "surrogateescape"))
        time = agent["StartCalendarInterval"]
        *command, asks, _ = map(str, agent["ProgramArguments"])
        found = Nightly(command=tuple(command), at=Time(int(time["Hour"]), int(time["Minute"])))
        return found if asks == _IF_MISSED else None
    except (ExpatError, ValueError, TypeError, LookupError, AttributeError):
        return None
