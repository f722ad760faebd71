"""Installed for real, the schedule writes a checkpoint by itself: a real cron, a real systemd user manager.

Each runs in a corner of its own (tests/private_machine.py) with an interpreter whose path needs every
kind of quoting. launchd and Task Scheduler cannot be had here.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from preflight.codex.sample_home import make_sample_home
from tests.needs import cannot_be_had
from tests.private_machine import Corner, corner, wait_for

UNITS = ".config/systemd/user"
STAMP = ".local/share/systemd/timers/stamp-codex-preflight.timer"
#: A job of somebody else's, which says something every minute.
THEIRS = "# mine\n* * * * * echo theirs says this\n"


def manifests(here: Corner) -> list[Path]:
    return sorted(here.home.glob(".local/state/codex-preflight/*/checkpoints/*/manifest.json"))


def soon() -> str:
    """A minute that has not begun yet, with time enough left to install for it."""
    return time.strftime("%H:%M", time.localtime(time.time() + 75))


def not_soon() -> str:
    return time.strftime("%H:%M", time.localtime(time.time() + 12 * 3600))


def state(here: Corner, name: str) -> str:
    done = here.preflight("hooks", "status", name, "--json")
    return str(json.loads(done.stdout)["data"]["hooks"][0]["state"])


def install(here: Corner, name: str, at: str) -> None:
    done = here.preflight("hooks", "install", name, "--at", at)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def cron(tmp_path: Path) -> Iterator[Corner]:
    with corner(tmp_path, "cron", "crontab") as here:
        make_sample_home(here.home / ".codex", large_bytes=2_000_000)
        here_before = here.home.parent / "theirs"
        here_before.write_text(THEIRS)
        assert here.run("crontab", here_before).returncode == 0
        yield here


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Corner]:
    with corner(tmp_path, "systemctl", "systemd", "dbus-daemon") as here:
        make_sample_home(here.home / ".codex", large_bytes=2_000_000)
        here.start(
            "dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={here.env['DBUS_SESSION_BUS_ADDRESS']}"
        )
        wait_for(lambda: here.run("test", "-S", "/run/user/0/bus").returncode == 0, "the bus is there")
        manager = next(path for path in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd") if Path(path).exists())
        started = here.start(manager, "--user", "--log-target=console")
        wait_for(
            lambda: here.run("systemctl", "--user", "show-environment").returncode == 0 or started.poll() is not None,
            "the user manager answers or gives up",
        )
        if started.poll() is not None:
            cannot_be_had("no user manager of systemd can run here")
        yield here


def begin_cron(here: Corner) -> None:
    here.start("cron", "-f")
    wait_for(lambda: here.run("test", "-e", "/run/crond.reboot").returncode == 0, "cron has started")


@pytest.mark.slow
def test_cron_makes_up_for_a_night_that_was_missed(cron: Corner) -> None:
    """Asked every hour, half an hour beside its time: whatever kept the night from being, it is soon made up."""
    in_a_minute = time.localtime(time.time() + 75)
    begin_cron(cron)
    install(cron, "cron", time.strftime("%H:%M", time.localtime(time.mktime(in_a_minute) - 5.5 * 3600)))
    (note,) = cron.home.glob(".local/state/codex-preflight/*/schedule.json")
    note.write_text(json.dumps({"since": {"cron": "2026-01-01T00:00:00Z"}}))
    assert manifests(cron) == []
    wait_for(lambda: manifests(cron) or "preflight" in cron.mail(), "a checkpoint in the next two minutes")
    assert manifests(cron), cron.mail()


@pytest.mark.slow
def test_cron_writes_a_checkpoint_when_its_time_has_come_and_mails_nothing(cron: Corner) -> None:
    # In the second in which the table before ours was written: the one that cron would not tell from ours.
    assert cron.run("crontab", cron.home.parent / "theirs").returncode == 0
    begin_cron(cron)
    install(cron, "cron", soon())
    assert manifests(cron) == []
    wait_for(lambda: list(cron.home.glob(".local/state/codex-preflight/*/nights.json")), "a night in two minutes")
    assert manifests(cron)
    mails = cron.mail().count("Subject:")
    wait_for(lambda: cron.mail().count("Subject:") > mails, "the next minute's mail for the job that says something")
    assert "theirs says this" in cron.mail()
    assert "preflight" not in cron.mail()


def test_a_real_crontab_keeps_everybody_elses_lines(cron: Corner) -> None:
    assert state(cron, "cron") == "absent"
    install(cron, "cron", "04:05")
    table = cron.run("crontab", "-l").stdout
    assert table.startswith(THEIRS)
    assert "\n5 4 * * * " in table
    again = cron.preflight("hooks", "install", "cron", "--json")
    assert json.loads(again.stdout)["data"]["steps"] == []
    assert state(cron, "cron") == "installed"
    changed = cron.home.parent / "changed"
    changed.write_text(table.replace("5 4 * * *", "6 4 * * *"))
    assert cron.run("crontab", changed).returncode == 0
    assert state(cron, "cron") == "edited"
    assert cron.preflight("hooks", "uninstall", "cron").returncode == 2
    assert cron.preflight("hooks", "uninstall", "cron", "--force").returncode == 0
    assert cron.run("crontab", "-l").stdout == THEIRS
    deep = cron.home.joinpath(*["a folder with a long name" * 8] * 6)
    deep.mkdir(parents=True)
    too_long = cron.preflight("hooks", "install", "cron", "--home", str(deep))
    assert (too_long.returncode, "too long" in too_long.stderr) == (13, True)
    assert cron.run("crontab", "-l").stdout == THEIRS
    cron.run("crontab", "-r")
    install(cron, "cron", "04:05")
    assert cron.preflight("hooks", "uninstall", "cron").returncode == 0
    assert cron.run("crontab", "-l").returncode == 1


def test_systemd_takes_it_shows_it_and_lets_it_go(systemd: Corner) -> None:
    assert state(systemd, "systemd") == "absent"
    install(systemd, "systemd", "04:05")
    assert state(systemd, "systemd") == "installed"
    timers = systemd.run("systemctl", "--user", "list-timers", "--all").stdout
    assert "04:05:00" in timers
    again = systemd.preflight("hooks", "install", "systemd", "--json")
    assert json.loads(again.stdout)["data"]["steps"] == []

    systemd.run("systemctl", "--user", "disable", "codex-preflight.timer")
    assert state(systemd, "systemd") == "broken"
    install(systemd, "systemd", "05:06")
    assert state(systemd, "systemd") == "installed"
    assert "05:06:00" in systemd.run("systemctl", "--user", "list-timers", "--all").stdout

    assert systemd.preflight("hooks", "uninstall", "systemd").returncode == 0
    assert list((systemd.home / UNITS).rglob("codex-preflight*")) == []
    assert not (systemd.home / STAMP).exists()
    left = systemd.run("systemctl", "--user", "list-units", "--all", "codex-preflight*", "--no-legend").stdout
    assert left == ""
    assert systemd.preflight("hooks", "uninstall", "systemd").returncode == 0


def test_systemd_makes_up_for_a_night_that_was_missed(systemd: Corner) -> None:
    install(systemd, "systemd", not_soon())
    assert manifests(systemd) == []
    systemd.run("systemctl", "--user", "stop", "codex-preflight.timer")
    two_days_ago = time.time() - 2 * 86400
    os.utime(systemd.home / STAMP, (two_days_ago, two_days_ago))
    systemd.run("systemctl", "--user", "start", "codex-preflight.timer")
    wait_for(lambda: manifests(systemd), "the missed night is made up")
    wait_for(lambda: service(systemd)["ActiveState"] == "inactive", "the service has ended")
    assert service(systemd)["Result"] == "success"


@pytest.mark.slow
def test_systemd_writes_a_checkpoint_when_its_time_has_come(systemd: Corner) -> None:
    install(systemd, "systemd", soon())
    assert manifests(systemd) == []
    wait_for(lambda: manifests(systemd), "a checkpoint within the minute that systemd allows itself", seconds=240)


def service(here: Corner) -> dict[str, str]:
    told = here.run("systemctl", "--user", "show", "--property=ActiveState,Result", "codex-preflight.service").stdout
    return dict(line.split("=", 1) for line in told.splitlines())
