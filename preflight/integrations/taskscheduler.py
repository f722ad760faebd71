r"""Task Scheduler of Windows: the task `\codex-preflight-nightly`, registered from an XML file in UTF-16.

It runs with the user's own rights while the user is logged in, on battery too; a missed night is
made up. The scheduler gives the XML back in words of its own (order, defaults, added elements), so
the mark, which stands in the description, has the digest of what the elements mean.
Written from the documentation of the schema, version 1.2; not run on Windows.
"""

from __future__ import annotations

import codecs
import json
import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from preflight.errors import SchedulerRefused, UsageProblem
from preflight.integrations.interface import Condition, Found, Nightly, Place, RunProgram, Scheduler, Step, Time
from preflight.integrations.machine import command_faults
from preflight.integrations.marks import condition_of, digest_of, mark
from preflight.integrations.owned_files import RemoveFile, WriteFile

__all__ = ["TaskScheduler"]

_TASK = r"\codex-preflight-nightly"
_SCHEMA = "http://schemas.microsoft.com/windows/2004/02/mit/task"
_DESCRIPTION = "Nightly checkpoint of Codex threads."
_SETTINGS: Mapping[str, str] = {
    "MultipleInstancesPolicy": "IgnoreNew",
    "DisallowStartIfOnBatteries": "false",
    "StopIfGoingOnBatteries": "false",
    "StartWhenAvailable": "true",
    "ExecutionTimeLimit": "PT20M",
    "Priority": "7",
}
# What an element that is not there means, by the schema.
_DEFAULTS: Mapping[str, str] = {
    "MultipleInstancesPolicy": "IgnoreNew",
    "DisallowStartIfOnBatteries": "true",
    "StopIfGoingOnBatteries": "true",
    "StartWhenAvailable": "false",
    "ExecutionTimeLimit": "PT72H",
    "Priority": "7",
}
# No word of ours has a quotation mark in it: no path of Windows can.
_ARGUMENT = re.compile(r'"([^"]*)"|(\S+)')
_START = re.compile(r"\d{4}-\d\d-\d\dT(\d\d):(\d\d):00")


class TaskScheduler(Scheduler):
    name: ClassVar[str] = "taskscheduler"
    program: ClassVar[str] = "schtasks"

    @property
    def _file(self) -> Path:
        """What the task is registered from. It decides nothing afterwards: the task itself does."""
        return self.machine.folder / "nightly.task.xml"

    @property
    def _kept(self) -> Path:
        return self.machine.folder / "nightly.task.xml.orig"

    def places(self, nightly: Nightly) -> tuple[Place, ...]:
        return (Place(where=str(self._file), content=_encoded(_task(nightly))),)

    def look(self) -> Found:
        task = self._registered()
        if task is None:
            return Found(condition=Condition.NOTHING)
        condition = _condition(task)
        nightly = _read(task)
        faults = command_faults(self.machine, nightly.command) if nightly is not None else ()
        if _leaf(task, "Settings/Enabled") == "false":
            faults = (*faults, "the task is switched off")
        return Found(condition=condition, nightly=nightly, faults=faults)

    def steps_to_install(self, nightly: Nightly) -> Sequence[Step]:
        (place,) = self.places(nightly)
        return [
            *self._keep_aside(),
            WriteFile(self._file, place.content),
            RunProgram((self.program, "/create", "/tn", _TASK, "/xml", str(self._file), "/f")),
        ]

    def steps_to_uninstall(self) -> Sequence[Step]:
        task = self._registered()
        if task is None or _condition(task) is Condition.FOREIGN:
            return []
        if self._kept.exists() and _condition(_parsed(self._kept.read_bytes())) is Condition.FOREIGN:
            back = RunProgram((self.program, "/create", "/tn", _TASK, "/xml", str(self._kept), "/f"))
            return [back, RemoveFile(self._kept), RemoveFile(self._file)]
        return [RunProgram((self.program, "/delete", "/tn", _TASK, "/f")), RemoveFile(self._file)]

    def _keep_aside(self) -> list[Step]:
        task = self._registered()
        if task is None or _condition(task) not in (Condition.FOREIGN, Condition.EDITED):
            return []
        if self._kept.exists():
            raise UsageProblem(f"there is a file {self._kept} already", path=self._kept, hint="move it away")
        task.set("xmlns", _SCHEMA)
        return [WriteFile(self._kept, _encoded(task))]

    def _registered(self) -> ET.Element | None:
        """The task as the scheduler gives it; None where there is none, or none that we may see.

        Its exit status is 1 for both, and its words are in the language of the machine.
        """
        if not self.available:
            return None
        ended = self.machine.run((self.program, "/query", "/tn", _TASK, "/xml"))
        return _parsed(ended.stdout) if ended.returncode == 0 else None


def _condition(task: ET.Element) -> Condition:
    return condition_of(_leaf(task, "RegistrationInfo/Description"), _digest(task))


def _task(nightly: Nightly) -> ET.Element:
    for word in nightly.command:
        if not word.isprintable() or '"' in word:
            raise UsageProblem(f"Task Scheduler cannot take the word {word!r}")
    task = ET.Element("Task", {"version": "1.2", "xmlns": _SCHEMA})
    description = _add(task, "RegistrationInfo/Description")
    _add(task, "Triggers/CalendarTrigger/StartBoundary", f"2026-01-01T{nightly.at}:00")
    _add(task, "Triggers/CalendarTrigger/ScheduleByDay/DaysInterval", "1")
    _add(task, "Principals/Principal").set("id", "Author")
    _add(task, "Principals/Principal/LogonType", "InteractiveToken")
    _add(task, "Principals/Principal/RunLevel", "LeastPrivilege")
    for name, value in _SETTINGS.items():
        _add(task, f"Settings/{name}", value)
    program, *words = nightly.command
    _add(task, "Actions").set("Context", "Author")
    _add(task, "Actions/Exec/Command", program)
    _add(task, "Actions/Exec/Arguments", subprocess.list2cmdline(words))
    description.text = f"{_DESCRIPTION} {mark(_digest(task))}"
    return task


def _add(task: ET.Element, path: str, text: str | None = None) -> ET.Element:
    """The element at `path`, made where it is not there yet."""
    place = task
    for name in path.split("/"):
        below = place.find(name)
        place = below if below is not None else ET.SubElement(place, name)
    place.text = text
    return place


def _digest(task: ET.Element) -> str:
    """Of when and what it runs, and of each setting that we make, whether it is there or left out as the default.

    Not of `Enabled`: a task that somebody has switched off is still as we wrote it.
    """
    meaning = [
        (element.tag, (element.text or "").strip())
        for part in ("Triggers", "Actions")
        for element in task.iterfind(f"{part}//*")
        if not len(element) and element.tag != "Enabled"
    ]
    meaning += [(name, _leaf(task, f"Settings/{name}") or _DEFAULTS[name]) for name in _SETTINGS]
    meaning.append(("RunLevel", _leaf(task, "Principals/Principal/RunLevel") or "LeastPrivilege"))
    return digest_of(json.dumps(meaning))


def _leaf(task: ET.Element, path: str) -> str:
    return (task.findtext(path) or "").strip()


def _encoded(task: ET.Element) -> bytes:
    """UTF-16 with its byte order mark: `schtasks` takes nothing else."""
    ET.indent(task)
    text = '<?xml version="1.0" encoding="UTF-16"?>\n' + ET.tostring(task, encoding="unicode") + "\n"
    return codecs.BOM_UTF16_LE + text.replace("\n", "\r\n").encode("utf-16-le")


def _parsed(content: bytes) -> ET.Element:
    """The task without the namespace in its tags. Raises SchedulerRefused for what is not XML.

    The declaration says UTF-16 whatever encoding the console has put the text into, so it is not read.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16", "replace")
    else:
        text = content.decode("utf-8-sig", "replace")
    try:
        # What Task Scheduler of the same user hands out, after it has checked it itself.
        task = ET.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))  # noqa: S314
    except ET.ParseError as error:
        raise SchedulerRefused(f"Task Scheduler gives a task that cannot be read: {error}") from error
    for element in task.iter():
        element.tag = element.tag.rpartition("}")[2]
    return task


def _read(task: ET.Element) -> Nightly | None:
    """What `places` was given, from what it made; None where somebody has changed it too much."""
    start = _START.match(_leaf(task, "Triggers/CalendarTrigger/StartBoundary"))
    program = _leaf(task, "Actions/Exec/Command")
    if start is None or not program:
        return None
    words = _ARGUMENT.findall(_leaf(task, "Actions/Exec/Arguments"))
    command = [program, *(plain or _unquoted(quoted) for quoted, plain in words)]
    return Nightly(command=tuple(command), at=Time(int(start[1]), int(start[2])))


def _unquoted(word: str) -> str:
    """A word that stood between quotation marks: backslashes right before the closing one are doubled there."""
    bare = word.rstrip("\\")
    return bare + "\\" * ((len(word) - len(bare)) // 2)
