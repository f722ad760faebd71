"""`check` misses the nights that were promised: `hooks install` notes since when, and nobody asks the scheduler."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from preflight.checkpoint import nights as record
from preflight.checkpoint.nights import Schedule
from preflight.codex.sample_home import make_sample_home
from preflight.errors import DamagedFile
from tests.fake_schedulers import Called, installed_beside_cron
from tests.nights import Nights, found, nights_in


@pytest.fixture
def call(user: Path, tmp_path: Path) -> Called:
    make_sample_home(user / ".codex", large_bytes=400_000)
    return installed_beside_cron(tmp_path, user)


def stale(call: Called) -> list[dict]:
    findings = json.loads(call("check", "--json").stdout)["findings"]
    return [finding for finding in findings if finding["id"] == "schedule-stale"]


def three_days_pass(path: Path) -> None:
    """Every time in a record of the store is as much earlier."""
    earlier = (datetime.now(UTC) - timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    path.write_text(re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", earlier, path.read_text()))


def the_file(user: Path, name: str) -> Path:
    (path,) = (user / ".local/state/codex-preflight").glob(f"*/{name}")
    return path


def as_cron_runs_it(user: Path, line: int) -> subprocess.CompletedProcess[str]:
    command = (user / "the-table").read_text().splitlines()[line].split(" ", 5)[5].replace("\\%", "%")
    env = {"HOME": str(user), "LOGNAME": "somebody", "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    return subprocess.run(["/bin/sh", "-c", command], env=env, capture_output=True, text=True, cwd=user)


NIGHT, ASKS = 1, 2


def test_a_schedule_that_was_installed_and_never_began(call: Called, user: Path) -> None:
    assert call("hooks", "install", "cron", "--dry-run").returncode == 0
    assert not (user / ".local/state").exists()
    assert call("hooks", "install", "cron").returncode == 0
    assert stale(call) == []

    three_days_pass(the_file(user, "schedule.json"))
    assert "nothing was changed" in call("hooks", "install", "cron").stdout  # nor does it count anew
    (finding,) = stale(call)
    assert finding["cause"] == "the nightly task is installed, but has not been at work on this home since"
    assert 3 * 86400 <= finding["measured"] < 3 * 86400 + 3600
    assert (finding["expected"], finding["severity"]) == (48 * 3600, "warn")

    assert call("hooks", "install", "cron", "--at", "04:00").returncode == 0
    assert stale(call) == []  # now there is something new to wait for
    three_days_pass(the_file(user, "schedule.json"))
    assert as_cron_runs_it(user, NIGHT).returncode == 0
    assert stale(call) == []


def test_uninstalled_nothing_is_missed_any_more(call: Called, user: Path) -> None:
    call("hooks", "install", "cron")
    three_days_pass(the_file(user, "schedule.json"))
    assert call("hooks", "uninstall", "cron", "--dry-run").returncode == 0
    assert len(stale(call)) == 1
    assert call("hooks", "uninstall", "cron").returncode == 0
    assert stale(call) == []
    assert not list((user / ".local/state/codex-preflight").glob("*/schedule.json"))


def test_nights_from_before_the_uninstalling_are_no_promise(call: Called, user: Path) -> None:
    call("hooks", "install", "cron")
    as_cron_runs_it(user, NIGHT)
    three_days_pass(the_file(user, "nights.json"))
    three_days_pass(the_file(user, "schedule.json"))
    (finding,) = stale(call)
    assert finding["cause"].endswith("its last good night is too long ago")
    call("hooks", "uninstall", "cron")
    assert stale(call) == []
    # Somebody goes on by another way, and stops.
    assert call("checkpoint", "--nightly").returncode == 0
    three_days_pass(the_file(user, "schedule.json"))
    nights = the_file(user, "nights.json")
    nights.write_text(re.sub(r"T\d\d:\d\d:\d\dZ", "T00:00:00Z", nights.read_text()))
    long_ago = (datetime.now(UTC) - timedelta(days=2.5)).strftime("%Y-%m-%d")
    nights.write_text(re.sub(r"\d{4}-\d\d-\d\d", long_ago, nights.read_text()))
    assert len(stale(call)) == 1


def test_the_store_that_was_named_for_the_night_is_the_one_that_is_tidied(call: Called, user: Path) -> None:
    store = user / "a store"
    assert call("hooks", "install", "cron", "--store", str(store)).returncode == 0
    assert list(store.glob("*/schedule.json"))
    assert call("hooks", "uninstall", "cron").returncode == 0
    assert not list(store.glob("*/schedule.json"))


def test_a_home_that_the_night_leaves_out_from_now_on_waits_for_none(call: Called, user: Path) -> None:
    call("hooks", "install", "cron")
    make_sample_home(user / "other", large_bytes=400_000)
    assert call("hooks", "install", "cron", "--home", str(user / "other")).returncode == 0
    (note,) = (user / ".local/state/codex-preflight").glob("*/schedule.json")
    three_days_pass(note)
    assert stale(call) == []
    findings = json.loads(call("check", "--home", str(user / "other"), "--json").stdout)["findings"]
    assert "schedule-stale" in {finding["id"] for finding in findings}


def test_a_good_night_says_nothing_and_a_bad_one_speaks_up(call: Called, user: Path) -> None:
    """What cron would send a mail for."""
    call("hooks", "install", "cron")
    night = as_cron_runs_it(user, NIGHT)
    assert (night.returncode, night.stdout, night.stderr) == (0, "", "")
    checkpoints = list(the_file(user, "checkpoints").iterdir())
    assert len(checkpoints) == 1
    again = as_cron_runs_it(user, NIGHT)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")

    (user / ".codex/goals_1.sqlite").write_bytes(b"no database at all, and longer than a header of one" * 100)
    night = as_cron_runs_it(user, NIGHT)
    assert night.returncode in (12, 13)
    assert night.stdout + night.stderr


def test_the_line_that_asks_every_hour_makes_up_for_a_missed_night_once(call: Called, user: Path) -> None:
    at = (datetime.now().astimezone() - timedelta(hours=1)).strftime("%H:%M")
    call("hooks", "install", "cron", "--at", at)
    checkpoints = the_file(user, "checkpoints")
    asked = as_cron_runs_it(user, ASKS)
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, "", "")
    assert list(checkpoints.iterdir()) == []  # installed since then: that night was nobody's

    three_days_pass(the_file(user, "schedule.json"))
    assert as_cron_runs_it(user, ASKS).returncode == 0
    made = the_file(user, "nights.json").read_text()
    assert len(list(checkpoints.iterdir())) == 1
    assert as_cron_runs_it(user, ASKS).returncode == 0
    assert the_file(user, "nights.json").read_text() == made

    three_days_pass(the_file(user, "nights.json"))
    assert as_cron_runs_it(user, ASKS).returncode == 0
    assert the_file(user, "nights.json").read_text() != made


def test_a_person_who_asks_is_told_that_there_was_nothing_to_do(call: Called, user: Path) -> None:
    call("hooks", "install", "cron")
    at = (datetime.now().astimezone() - timedelta(hours=1)).strftime("%H:%M")
    done = call("checkpoint", "--nightly", "--if-missed", at)
    assert (done.returncode, done.stdout) == (0, "Nothing was to be done.\n")


@pytest.mark.parametrize("words", [["--if-missed", "03:10"], ["--nightly", "--if-missed", "25:00"], ["--env", "=x"]])
def test_a_night_that_cannot_be_understood(call: Called, words: list[str]) -> None:
    assert call("checkpoint", *words).returncode == 2


def test_the_variables_of_the_installing_are_those_of_the_night(call: Called, user: Path) -> None:
    databases = user / "databases"
    databases.mkdir()
    for path in (user / ".codex").glob("*.sqlite*"):
        path.rename(databases / path.name)
    assert call("hooks", "install", "cron", CODEX_SQLITE_HOME=str(databases)).returncode == 0
    assert as_cron_runs_it(user, NIGHT).returncode == 0
    copies = the_file(user, "checkpoints").rglob("databases/*.sqlite")
    assert {path.name for path in copies} == {path.name for path in databases.glob("*.sqlite")}


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return nights_in(tmp_path)


def test_of_two_schedulers_one_is_enough_and_the_last_one_ends_it(nights: Nights) -> None:
    nights.night()
    store = nights.store
    for name in ("systemd", "cron"):
        record.expect(store, name, anew=True)
    record.expect_no_more(store, "systemd")
    record.expect_no_more(store, "launchd")
    schedule = record.schedule_of(store.schedule)
    assert list(schedule.since) == ["cron"]
    assert schedule.seconds_since_installed() is not None
    record.expect_no_more(store, "cron")
    assert record.schedule_of(store.schedule).since == {}
    assert record.schedule_of(store.schedule).ended_at is not None


@pytest.mark.parametrize("text", [b"", b"{", b'{"since":{"cron":"yesterday"}}', b'{"since":{"cron":"2026-11-22"}}'])
def test_a_note_that_cannot_be_read_is_told_and_written_anew(nights: Nights, text: bytes) -> None:
    nights.night()
    nights.store.schedule.write_bytes(text)
    with pytest.raises(DamagedFile):
        record.schedule_of(nights.store.schedule)
    result = nights.check()
    assert not found(result, "schedule-stale")
    assert any(gap.startswith("when the last good night was") for gap in result.not_checked)
    assert nights.night(if_missed=(3, 10)).exit_code == 0
    record.expect(nights.store, "cron", anew=False)
    assert list(record.schedule_of(nights.store.schedule).since) == ["cron"]


def test_a_night_that_has_been_is_not_missed_whatever_the_time_zone(nights: Nights) -> None:
    def at(hours: float) -> tuple[int, int]:
        moment = datetime.now().astimezone() + timedelta(hours=hours)
        return moment.hour, moment.minute

    assert record.is_missed(None, 3, 10)
    nights.night()
    assert not record.is_missed(nights.store, *at(-1))
    assert not record.is_missed(nights.store, *at(+1))  # that is yesterday's
    three_days_pass(nights.store.nights)
    assert record.is_missed(nights.store, *at(-1))
    assert record.is_missed(nights.store, *at(+1))
    assert Schedule().began_at is None
