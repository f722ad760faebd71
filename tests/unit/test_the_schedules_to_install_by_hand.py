"""The files in hooks/ are whole, usable by hand, and what `preflight hooks print` gives with the default paths."""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from preflight.commands.hooks import _NAMES, NIGHTLY_WORDS
from preflight.integrations.interface import Condition, Nightly, Place, Time
from preflight.integrations.machine import Machine
from preflight.integrations.marks import condition_of
from preflight.integrations.schedules import DEFAULT_TIME, SCHEDULERS
from tests.needs import cannot_be_had

HOOKS = Path(__file__).resolve().parents[2] / "hooks"
BY_HAND = {
    "systemd": ("/usr/bin/python3", ["systemd/codex-preflight.service", "systemd/codex-preflight.timer"]),
    "cron": ("/usr/bin/python3", ["cron/codex-preflight.cron"]),
    "launchd": ("/usr/local/bin/python3", ["launchd/io.github.codex-preflight.nightly.plist"]),
    "taskscheduler": (r"C:\Windows\pyw.exe", ["windows/nightly.task.xml"]),
}
COMMAND = "checkpoint --if-changed --nightly --timeout 900 -q"


def rendered(name: str) -> tuple[Place, ...]:
    machine = Machine(env={}, user_home=Path("/home/somebody"), folder=Path("/home/somebody/.config"))
    nightly = Nightly(command=(BY_HAND[name][0], *NIGHTLY_WORDS), at=DEFAULT_TIME)
    return SCHEDULERS[name](machine).places(nightly)


def test_every_scheduler_has_its_files_and_its_name_on_the_command_line() -> None:
    assert list(BY_HAND) == list(SCHEDULERS) == list(_NAMES)


@pytest.mark.parametrize("name", BY_HAND)
def test_the_files_are_what_is_installed_with_default_paths(name: str) -> None:
    assert [(HOOKS / file).read_bytes() for file in BY_HAND[name][1]] == [place.content for place in rendered(name)]


@pytest.mark.parametrize("file", [file for _, files in BY_HAND.values() for file in files])
def test_each_is_named_in_the_table_and_carries_our_mark(file: str) -> None:
    assert f"| `{file}` |" in (HOOKS / "README.md").read_text(encoding="utf-8")
    content = (HOOKS / file).read_bytes()
    text = content.decode("utf-16" if content.startswith(b"\xff\xfe") else "utf-8")
    assert COMMAND in " ".join(text.replace("<string>", "").replace("</string>", "").split()) or "timer" in file
    if not file.endswith(".xml"):  # there the mark is for the meaning, see taskscheduler.py
        assert condition_of(text) is Condition.OURS


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        cannot_be_had("there is no systemd-analyze here")
    units = [HOOKS / file for file in BY_HAND["systemd"][1]]
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", *units],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    ours = [line for line in done.stderr.splitlines() if "codex-preflight" in line and "/usr/bin/python3" not in line]
    assert ours == []
    if Path("/usr/bin/python3").exists():
        assert done.returncode == 0, done.stderr


def test_the_units_make_up_a_night_end_in_time_and_take_warnings_for_a_success() -> None:
    service, timer = (place.content.decode().splitlines() for place in rendered("systemd"))
    limit = int(NIGHTLY_WORDS[NIGHTLY_WORDS.index("--timeout") + 1])
    assert limit == 900
    # Five minutes for what cannot be cut short; a night that its own limit ended is no failure, the next one goes on.
    assert {"Type=oneshot", f"TimeoutStartSec={limit + 300}", "SuccessExitStatus=3 75", "UMask=0077"} <= set(service)
    assert {"OnCalendar=*-*-* 03:10:00", "Persistent=true", "WantedBy=timers.target"} <= set(timer)


@pytest.mark.parametrize(("at", "asking"), [(Time(3, 10), "40"), (Time(23, 45), "15"), (Time(0, 30), "0")])
def test_the_crontab_asks_every_hour_whether_the_night_was_missed(at: Time, asking: str) -> None:
    machine = Machine(env={}, user_home=Path("/home/somebody"), folder=Path("/home/somebody/.config"))
    (block,) = SCHEDULERS["cron"](machine).places(Nightly(command=("/p", "100%"), at=at))
    _, night, asks, _ = block.content.decode().splitlines()
    assert night == f"{at.minute} {at.hour} * * * /p 100\\%"
    assert asks == f"{asking} * * * * /p 100\\% --if-missed {at}"


def test_the_agent_is_a_property_list_with_a_list_of_words() -> None:
    (place,) = rendered("launchd")
    agent = plistlib.loads(place.content)
    assert agent["ProgramArguments"] == ["/usr/local/bin/python3", *NIGHTLY_WORDS, "--if-missed", "03:10"]
    assert (agent["StartCalendarInterval"], agent["Umask"]) == ({"Hour": 3, "Minute": 10}, 0o077)
    assert agent["Label"] == Path(BY_HAND["launchd"][1][0]).name.removesuffix(".plist")


def test_the_task_is_utf_16_with_its_mark_and_runs_on_battery_too() -> None:
    (place,) = rendered("taskscheduler")
    assert place.content.startswith(b"\xff\xfe<\0?\0")
    task = ET.fromstring(place.content)
    texts = {element.tag.rpartition("}")[2]: element.text for element in task.iter() if not len(element)}
    assert texts["Command"] == r"C:\Windows\pyw.exe"
    assert texts["Arguments"] == f"-P -m preflight {COMMAND}"
    assert (texts["StartWhenAvailable"], texts["DisallowStartIfOnBatteries"]) == ("true", "false")
    assert (texts["RunLevel"], texts["LogonType"], texts["ExecutionTimeLimit"]) == (
        "LeastPrivilege",
        "InteractiveToken",
        "PT20M",
    )
