"""systemd: a service and a timer of the user's own manager.

The timer makes up a missed night (`Persistent`). A service of type oneshot has no time limit of its
own, so it gets one above that of the command. The units are not fenced in: what hides the home or
`/proc` would hide Codex. Lingering is reported and never switched on: it is the user's decision.
Tried with systemd 252.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from preflight.errors import SchedulerRefused, UsageProblem
from preflight.integrations.interface import Condition, Found, Nightly, Place, RunProgram, Scheduler, Step, Time
from preflight.integrations.machine import command_faults, ended_well
from preflight.integrations.marks import UNSIGNED, signed
from preflight.integrations.owned_files import RemoveFile, condition_of_file, steps_to_place, steps_to_remove

__all__ = ["Systemd"]

_SERVICE = f"""\
# {UNSIGNED}
[Unit]
Description=Nightly checkpoint of Codex threads

[Service]
Type=oneshot
ExecStart=@COMMAND@
TimeoutStartSec=1200
SuccessExitStatus=3 75
UMask=0077
Nice=10
IOSchedulingClass=idle
NoNewPrivileges=yes
SyslogIdentifier=codex-preflight
"""
_TIMER = f"""\
# {UNSIGNED}
[Unit]
Description=Nightly checkpoint of Codex threads

[Timer]
OnCalendar=*-*-* @TIME@:00
Persistent=true

[Install]
WantedBy=timers.target
"""
_NAME = "codex-preflight"
_PLAIN_WORD = re.compile(r"[\w/.:=+,@-]+", re.ASCII)
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')


class Systemd(Scheduler):
    name: ClassVar[str] = "systemd"
    program: ClassVar[str] = "systemctl"

    @property
    def _service(self) -> Path:
        return self._folder / f"{_NAME}.service"

    @property
    def _timer(self) -> Path:
        return self._folder / f"{_NAME}.timer"

    @property
    def _folder(self) -> Path:
        named = self.machine.env.get("XDG_CONFIG_HOME")
        return (Path(named) if named else self.machine.user_home / ".config") / "systemd" / "user"

    def places(self, nightly: Nightly) -> tuple[Place, ...]:
        service = _SERVICE.replace("@COMMAND@", _command_line(nightly.command))
        timer = _TIMER.replace("@TIME@", str(nightly.at))
        return (
            Place(where=str(self._service), content=signed(service).encode()),
            Place(where=str(self._timer), content=signed(timer).encode()),
        )

    def look(self) -> Found:
        service, service_text = condition_of_file(self._service)
        timer, timer_text = condition_of_file(self._timer)
        condition = max(service, timer)
        if condition in (Condition.NOTHING, Condition.FOREIGN):
            return Found(condition=condition)
        missing = [
            path.name for path, its in ((self._service, service), (self._timer, timer)) if its is Condition.NOTHING
        ]
        if missing:
            return Found(condition=condition, faults=(f"there is no {missing[0]}",))
        nightly = _read(service_text, timer_text)
        faults, notes = self._faults_and_notes()
        if nightly is not None:
            faults = (*command_faults(self.machine, nightly.command), *faults)
        return Found(condition=condition, nightly=nightly, faults=faults, notes=notes)

    def steps_to_install(self, nightly: Nightly) -> Sequence[Step]:
        # Asked first: without an answer nothing could be switched on, and nothing shall be written.
        argv = self._systemctl("show-environment")
        ended_well(self.machine.run(argv), argv)
        service, timer = self.places(nightly)
        return [
            *steps_to_place(self._service, service.content),
            *steps_to_place(self._timer, timer.content),
            RunProgram(self._systemctl("daemon-reload")),
            RunProgram(self._systemctl("enable", self._timer.name)),
            # A timer that is running keeps its old time through `start`.
            RunProgram(self._systemctl("restart", self._timer.name)),
        ]

    def steps_to_uninstall(self) -> Sequence[Step]:
        timer, service = steps_to_remove(self._timer), steps_to_remove(self._service)
        if not timer and not service:
            return []
        if not self._answers():
            return [RemoveFile(self._folder / "timers.target.wants" / self._timer.name), *timer, *service]
        off = [
            RunProgram(self._systemctl("disable", "--now", self._timer.name)),
            # Otherwise the next install would believe that the nights in between were missed. Status 1 is that of
            # systemd before 243, which has no such verb.
            RunProgram(self._systemctl("clean", "--what=state", self._timer.name), tolerated=(1,)),
        ]
        return [*(off if timer else ()), *timer, *service, RunProgram(self._systemctl("daemon-reload"))]

    def _systemctl(self, *words: str) -> tuple[str, ...]:
        return (self.program, "--user", *words)

    def _answers(self) -> bool:
        return self.available and self.machine.run(self._systemctl("show-environment")).returncode == 0

    def _faults_and_notes(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What systemd itself says of the units: why they would not run, and what else is worth knowing."""
        if not self.available:
            return ("there is no systemctl on this machine",), ()
        try:
            timer = self._properties(self._timer.name, "LoadState", "UnitFileState", "ActiveState", "FragmentPath")
            service = self._properties(self._service.name, "Result", "ExecMainStatus")
        except SchedulerRefused as error:
            return (f"systemd does not answer: {error.message}",), ()
        faults = []
        if timer.get("LoadState") != "loaded":
            faults.append(f"systemd has not loaded the timer: {timer.get('LoadState')}")
        elif Path(timer.get("FragmentPath", "")).resolve() != self._timer.resolve():
            faults.append(f"systemd has loaded another timer: {timer.get('FragmentPath')}")
        elif timer.get("UnitFileState") != "enabled":
            faults.append(f"the timer is not enabled: {timer.get('UnitFileState')}")
        elif timer.get("ActiveState") != "active":
            faults.append(f"the timer is not running: {timer.get('ActiveState')}")
        notes = self._lingering()
        if service.get("Result") != "success":
            notes += (f"the last run ended with {service.get('Result')}, status {service.get('ExecMainStatus')}",)
        return tuple(faults), notes

    def _properties(self, unit: str, *names: str) -> dict[str, str]:
        argv = self._systemctl("show", f"--property={','.join(names)}", unit)
        lines = ended_well(self.machine.run(argv), argv).stdout.decode("utf-8", "surrogateescape").splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    def _lingering(self) -> tuple[str, ...]:
        if self.machine.find("loginctl") is None:
            return ()
        user = self.machine.env.get("USER") or self.machine.env.get("LOGNAME") or ""
        asked = self.machine.run(("loginctl", "show-user", user, "--property=Linger", "--value"))
        if asked.stdout.strip() == b"yes":
            return ()
        word = "is off" if asked.stdout.strip() == b"no" else "may be off (logind does not answer)"
        sentence = (
            f"lingering {word}: it runs only while you are logged in, and makes a missed night up at the next login"
        )
        return (f"{sentence} (loginctl enable-linger changes that)",)


def _command_line(command: Sequence[str]) -> str:
    """Words for `ExecStart`. In the first one, the program, systemd replaces `%`, leaves `$` and refuses quotes."""
    program, *words = command
    if any(mark in program for mark in "\"'\\"):
        raise UsageProblem(f"systemd starts no program with a quotation mark or backslash in its path: {program}")
    return " ".join([_quoted(program), *(_quoted(word.replace("$", "$$")) for word in words)])


def _quoted(word: str) -> str:
    if not word.isprintable():
        raise UsageProblem(f"systemd cannot take the word {word!r}")
    word = word.replace("%", "%%")
    if _PLAIN_WORD.fullmatch(word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _read(service: str, timer: str) -> Nightly | None:
    """What `places` was given, from what it made; None where somebody has changed it too much."""
    command = re.search(r"^ExecStart=(.+)$", service, re.MULTILINE)
    time = re.search(r"^OnCalendar=\*-\*-\* (\d\d):(\d\d):00$", timer, re.MULTILINE)
    if command is None or time is None:
        return None
    program, *words = (
        re.sub(r"\\(.)", r"\1", quoted) if quoted else plain for quoted, plain in _WORD.findall(command[1])
    )
    return Nightly(
        command=tuple(word.replace("%%", "%") for word in (program, *(word.replace("$$", "$") for word in words))),
        at=Time(int(time[1]), int(time[2])),
    )
