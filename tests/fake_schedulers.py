"""Fakes of the schedulers' programs: they keep in memory what the real ones keep, and record each call.

Real ones, where a system has them, are in tests/integration/test_a_night_comes_by_itself.py. The fake
of Task Scheduler gives a task back as Windows does: other order, defaults left out, elements added.
"""

from __future__ import annotations

import plistlib
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from preflight.integrations.machine import Machine
from preflight.system.children import Completed
from tests.private_machine import own_python

PROGRAMS = {
    "systemd": {"systemctl", "loginctl"},
    "cron": {"crontab", "cron"},
    "launchd": {"launchctl"},
    "taskscheduler": {"schtasks"},
}


def ended(status: int = 0, out: bytes = b"", err: str = "") -> Completed:
    return Completed(returncode=status, stdout=out, stderr=err.encode())


@dataclass(frozen=True, kw_only=True)
class FakeMachine(Machine):
    """A machine with the programs of one scheduler; `calls` is what was run, without the interpreter."""

    programs: set[str]
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def find(self, program: str) -> str | None:
        return f"/fake/{program}" if program in self.programs else None

    def run(self, argv: Sequence[str], *, stdin: bytes | None = None) -> Completed:
        if argv[1:] == ["-P", "-m", "preflight", "--version"]:
            return ended()
        assert argv[0] in {*self.programs, "id"}, f"{argv[0]} is not on this machine"
        self.calls.append(tuple(argv))
        return self.answer(*argv, stdin=stdin)

    def is_running(self, program: str) -> bool:
        return program in self.programs

    def wait_for_next_second(self) -> None:
        self.calls.append(("the next second",))

    def answer(self, program: str, *words: str, stdin: bytes | None) -> Completed:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class FakeSystemd(FakeMachine):
    loaded: dict[str, Path] = field(default_factory=dict)
    enabled: set[str] = field(default_factory=set)
    active: set[str] = field(default_factory=set)
    silent: list[str] = field(default_factory=list)

    def answer(self, program: str, *words: str, stdin: bytes | None) -> Completed:
        if program == "loginctl":
            return ended(out=b"yes\n")
        if self.silent:
            return ended(1, err=self.silent[0])
        match words[1:]:
            case ["show-environment"]:
                return ended()
            case ["daemon-reload"]:
                folder = self.user_home / ".config/systemd/user"
                self.loaded.clear()
                self.loaded.update({path.name: path for path in folder.glob("codex-preflight.*")})
            case ["enable", unit] if unit in self.loaded:
                self.enabled.add(unit)
            case ["restart", unit] if unit in self.loaded:
                self.active.add(unit)
            case ["disable", "--now", unit]:
                self.enabled.discard(unit)
                self.active.discard(unit)
            case ["clean", "--what=state", unit] if unit not in self.active:
                pass
            case ["show", _, unit]:
                there = unit in self.loaded
                told = {
                    "LoadState": "loaded" if there else "not-found",
                    "FragmentPath": str(self.loaded.get(unit, "")),
                    "UnitFileState": "enabled" if unit in self.enabled else "disabled",
                    "ActiveState": "active" if unit in self.active else "inactive",
                    "Result": "success",
                }
                return ended(out="".join(f"{name}={value}\n" for name, value in told.items()).encode())
            case _:
                return ended(1, err=f"systemctl: {words}")
        return ended()


@dataclass(frozen=True, kw_only=True)
class FakeCron(FakeMachine):
    """`tables` holds at most one table."""

    tables: list[bytes] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)

    def answer(self, program: str, *words: str, stdin: bytes | None) -> Completed:
        if self.silent:
            return ended(1, err=self.silent[0])
        match words:
            case ["-l"]:
                return ended(out=self.tables[0]) if self.tables else ended(1, err="no crontab for somebody")
            case ["-"]:
                assert stdin is not None
                self.tables[:] = [stdin]
            case ["-r"]:
                self.tables.clear()
        return ended()


@dataclass(frozen=True, kw_only=True)
class FakeLaunchd(FakeMachine):
    loaded: dict[str, dict] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)

    def answer(self, program: str, *words: str, stdin: bytes | None) -> Completed:
        if program == "id":
            return ended(out=b"501\n")
        if self.silent:
            return ended(1, err=self.silent[0])
        match words:
            case ["print", "gui/501"]:
                return ended()
            case ["print", target]:
                return ended(0 if target in self.loaded else 113)
            case ["bootout", target]:
                return ended() if self.loaded.pop(target, None) else ended(3, err="No such process")
            case ["bootstrap", "gui/501", path]:
                agent = plistlib.loads(Path(path).read_bytes())
                if f"gui/501/{agent['Label']}" in self.loaded:
                    return ended(37, err="Operation already in progress")
                self.loaded[f"gui/501/{agent['Label']}"] = agent
        return ended()


SCHEMA = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"


@dataclass(frozen=True, kw_only=True)
class FakeTaskScheduler(FakeMachine):
    tasks: dict[str, ET.Element] = field(default_factory=dict)

    def answer(self, program: str, *words: str, stdin: bytes | None) -> Completed:
        match words:
            case ["/query", "/tn", name, "/xml"]:
                return ended(out=self.exported(name)) if name in self.tasks else ended(1, err="FEHLER: nicht gefunden")
            case ["/create", "/tn", name, "/xml", path, "/f"]:
                content = Path(path).read_bytes()
                if not content.startswith(b"\xff\xfe"):
                    return ended(1, err="ERROR: The task XML is malformed.")
                self.tasks[name] = ET.fromstring(content.decode("utf-16").split("?>", 1)[1])
            case ["/delete", "/tn", name, "/f"]:
                del self.tasks[name]
        return ended()

    def exported(self, name: str) -> bytes:
        task = ET.fromstring(ET.tostring(self.tasks[name]))
        task[:] = sorted(task, key=lambda part: part.tag)
        for part in task.iter(f"{SCHEMA}RegistrationInfo"):
            ET.SubElement(part, f"{SCHEMA}URI").text = name
        for part in task.iter(f"{SCHEMA}Principal"):
            ET.SubElement(part, f"{SCHEMA}UserId").text = "S-1-5-21-1-2-3-1001"
        for part in task.iter(f"{SCHEMA}Settings"):
            defaults = {f"{SCHEMA}Priority": "7", f"{SCHEMA}MultipleInstancesPolicy": "IgnoreNew"}
            part[:] = [each for each in part if each.text != defaults.get(each.tag)]
            ET.SubElement(part, f"{SCHEMA}UseUnifiedSchedulingEngine").text = "true"
        text = '<?xml version="1.0" encoding="UTF-16"?>\n' + ET.tostring(task, encoding="unicode")
        return text.replace("\n", "\r\n").encode()


#: Stands for the real program of cron: one table in one file.
_CRONTAB = """#!/bin/sh
table="$HOME/the-table"
case $1 in
-l) [ -e "$table" ] || { echo "no crontab for somebody" >&2; exit 1; }; cat "$table" ;;
-r) rm "$table" ;;
-) cat >"$table" ;;
esac
"""

Called = Callable[..., "subprocess.CompletedProcess[str]"]


def installed_beside_cron(folder: Path, user: Path) -> Called:
    """The command line of a preflight that is installed on a machine with cron and nothing else; `user` calls it."""
    python = own_python(folder / "installed")
    programs = folder / "programs"
    programs.mkdir()
    (programs / "crontab").write_text(_CRONTAB)
    (programs / "crontab").chmod(0o755)
    for name in ("sh", "cat", "rm"):
        (programs / name).symlink_to(f"/bin/{name}")

    def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-P", "-m", "preflight", *words],
            env={"HOME": str(user), "PATH": str(programs), **env},
            capture_output=True,
            text=True,
            cwd=user,
        )

    return run
