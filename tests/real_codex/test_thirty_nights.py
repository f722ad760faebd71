"""Thirty nights of a growing goal thread and its fork: every one that is kept comes back, on the real Codex.

Comes back: into its own home and into a new one, byte for byte, listed, its goal paused, and the next request that the
model gets has the input of that night. Before anything is pruned, and after most of it is.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, redirect_stdout
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from preflight.cli import main
from tests.real_codex.app_server import AppServer
from tests.real_codex.conftest import Codex
from tests.real_codex.homes import CodexHome
from tests.real_codex.next_request import next_inputs
from tests.real_codex.preflight_command import Preflight, Report
from tests.real_codex.snapshot import changes, everything_in
from tests.real_codex.thirty_nights import NIGHTS, OBJECTIVE, Month, Night, Scheduled, live_a_month, remembered
from tests.real_codex.threads import PAGINATED_SINCE

pytestmark = [pytest.mark.real_codex, pytest.mark.slow]

VERSIONS = ["0.134.0", "0.147.0", "0.169.0"]


class Months:
    """A month of each release, made when it is first asked for."""

    def __init__(self, folder: Path, codex: Codex) -> None:
        self._folder, self._codex = folder, codex
        self._made: dict[str, Month] = {}
        self._expected: dict[tuple[str, int, Path], dict[str, list[Any]]] = {}

    def put_back(self, home: CodexHome, version: str) -> Month:
        """The month, its home and store standing as the last night left them."""
        kept = self._folder / version
        if version not in self._made:
            shutil.rmtree(kept, ignore_errors=True)  # of a month that came to a bad end
            self._made[version] = live_a_month(self._codex(version), home, kept / "nights")
            home.save_to(kept / "home")
            shutil.copytree(Preflight(home).store, kept / "store")
        home.put_back(kept / "home")
        shutil.copytree(kept / "store", Preflight(home).store)
        return self._made[version]

    def expected(self, month: Month, night: Night, place: CodexHome) -> dict[str, list[Any]]:
        """What the model is asked next from all rollouts of that night, whole and alone, in a home at this place."""
        key = (month.release.version, night.number, place.path)
        if key not in self._expected:
            aside = place.place / "aside"
            if place.path.exists():
                place.path.rename(aside)
            place.path.mkdir(parents=True)
            shutil.copytree(night.sessions, place.path / "sessions")
            self._expected[key] = next_inputs(month.release, place, night.threads, month.known)
            shutil.rmtree(place.path)
            if aside.exists():
                aside.rename(place.path)
        return self._expected[key]


@pytest.fixture(scope="session")
def months(_place: Path, codex: Codex) -> Months:
    return Months(_place / "months", codex)


@pytest.fixture
def elsewhere(home: CodexHome) -> Iterator[CodexHome]:
    """A place beside the home's, with no home in it yet."""
    other = CodexHome(home.place.with_name("other"))
    for folder in (other.work, other.user):
        folder.mkdir(parents=True)
    yield other
    shutil.rmtree(other.place)


# ---- what "comes back" means -------------------------------------------------------------------------------------


def called(home: CodexHome, verb: str, *arguments: str | Path) -> Report:
    """The command line in this process: what starting Python a few hundred times would add is time alone."""
    with redirect_stdout(TextIOWrapper(BytesIO(), "utf-8")) as printed:
        code = main([str(word) for word in Preflight(home).command(verb, *arguments)])
    return Report(code, json.loads(printed.buffer.getvalue()), "")


def restore(home: CodexHome, night: Night, thread: str, *arguments: str | Path) -> Report:
    done = called(home, "restore", night.checkpoint_id, thread, *arguments)
    assert done.code == 0, f"night {night.number}\n{done}"
    return done


def require_bytes_of(night: Night, done: Report) -> None:
    """The newest file is all that it was that night; of its bases there is what is gone on from."""
    head, *bases = (Path(file["path"]) for file in done.json["data"]["files"])
    assert head.read_bytes() == night.bytes_of(head.name)
    assert all(night.bytes_of(base.name).startswith(base.read_bytes()) for base in bases)


def require_back(months: Months, month: Month, night: Night, place: CodexHome, threads: Sequence[str]) -> None:
    """Listed, its goal paused, nothing asked before we do, then the input of that night; and the row says where."""
    expected = months.expected(month, night, place)

    def look(server: AppServer, thread: str) -> None:
        assert thread in [listed["id"] for listed in server.list_threads()]
        goal = server.goal(thread)
        assert goal is not None
        assert (goal["objective"], goal["status"]) == (OBJECTIVE, "paused")
        assert server.is_idle(thread)

    heads = {thread: place.rollouts(thread)[-1] for thread in threads}
    asked = next_inputs(month.release, place, threads, month.known, look=look)
    for thread in threads:
        assert asked[thread] == expected[thread], f"thread {thread} of night {night.number}"
        assert row_of(place, thread) == (str(heads[thread]), 0), f"night {night.number}"


def row_of(place: CodexHome, thread: str) -> tuple[str, int]:
    with closing(sqlite3.connect(place.path / "state_5.sqlite")) as database:
        (row,) = database.execute("SELECT rollout_path, archived FROM threads WHERE id = ?", (thread,)).fetchall()
        return row


def back_in_a_new_home(months: Months, month: Month, night: Night, thread: str, what: str, new: CodexHome) -> None:
    done = restore(month.home, night, thread, what, "--to", new.path)
    if what == "--full":
        require_bytes_of(night, done)
    require_back(months, month, night, new, [thread])
    shutil.rmtree(new.path)


def back_in_its_own_home(months: Months, month: Month, night: Night) -> None:
    """The thread, and its fork where that night had one."""
    threads = sorted(night.threads, key=lambda thread: thread != month.main)  # a fork is nothing without its base
    for thread in threads:
        require_bytes_of(night, restore(month.home, night, thread, "--full", "--in-place", "--yes"))
    require_back(months, month, night, month.home, threads)


def reduced_in_its_own_home(months: Months, month: Month, night: Night) -> None:
    restore(month.home, night, month.main, "--resume", "--in-place", "--yes")
    require_back(months, month, night, month.home, [month.main])


def remove_what_goes_on_from_it(month: Month) -> None:
    """From 0.154 on a fork goes on from the thread's own file, which must stay as long as there is the fork."""
    if month.release.at_least(PAGINATED_SINCE):
        with AppServer(month.release, month.home) as server:
            server.call("thread/delete", {"threadId": month.fork})
        assert month.home.rollouts(month.fork) == []


# ---- before anything is pruned -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_night_comes_back_in_a_new_home(
    version: str, months: Months, home: CodexHome, elsewhere: CodexHome
) -> None:
    month = months.put_back(home, version)
    inputs = [months.expected(month, night, elsewhere)[month.main] for night in month.nights]
    assert len({json.dumps(asked) for asked in inputs}) == NIGHTS - 1, "no night can pass for another"
    before = everything_in(home.path)
    for night in month.nights:
        for thread in night.threads:
            back_in_a_new_home(months, month, night, thread, "--full", elsewhere)
            if night.number % 3 == 0:
                back_in_a_new_home(months, month, night, thread, "--resume", elsewhere)
    assert changes(before, everything_in(home.path)) == {}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_night_comes_back_in_its_own_home(version: str, months: Months, home: CodexHome) -> None:
    """The newest first, each in the place of the one after it."""
    month = months.put_back(home, version)
    forked = [night for night in month.nights if month.fork in night.threads]
    alone = [night for night in month.nights if month.fork not in night.threads]
    for night in reversed(forked):
        back_in_its_own_home(months, month, night)
    if month.release.at_least(PAGINATED_SINCE):
        refused_while_there_is_a_fork(month, alone[-1])
    remove_what_goes_on_from_it(month)
    for night in reversed(alone):
        back_in_its_own_home(months, month, night)


def refused_while_there_is_a_fork(month: Month, night: Night) -> None:
    before = everything_in(month.home.path)
    refused = called(month.home, "restore", night.checkpoint_id, month.main, "--full", "--in-place", "--yes")
    assert (refused.code, refused.json["errors"][0]["code"]) == (13, "unsupported"), str(refused)
    # Codex's lock of the thread, which was held meanwhile: empty, free again, and known to be harmless.
    lock = f"thread-writer-locks/{month.main}.lock"
    assert changes(before, everything_in(month.home.path)).keys() <= {lock}


# ---- afterwards --------------------------------------------------------------------------------------------------

PINNED = 5
# Of the last four days, and of the last four weeks that have a night; the week before night 15 ends with a quiet day.
STAYING = [PINNED, 13, 21, 28, 29, 30, 31]


@pytest.mark.parametrize("version", VERSIONS)
def test_after_a_prune_every_night_that_stayed_comes_back(
    version: str, months: Months, home: CodexHome, elsewhere: CodexHome
) -> None:
    """Before it an older night takes the place of the newest and goes on: its archive is begun anew, and both stay."""
    month = months.put_back(home, version)
    preflight, scheduled = Preflight(home), Scheduled(Preflight(home))
    by_number = {night.number: night for night in month.nights}
    back_in_its_own_home(months, month, by_number[25])
    by_number[31] = one_more_night(month)

    assert preflight("pin", by_number[PINNED].checkpoint_id).code == 0
    rules = ("--keep-last", "2", "--keep-daily", "4", "--keep-weekly", "4")
    pruned = scheduled.on(by_number[31].at, "prune", *rules)
    assert pruned.code == 0, str(pruned)
    (told,) = pruned.json["data"]["pruned"]
    staying = [by_number[number] for number in STAYING]
    assert [kept["checkpoint_id"] for kept in told["kept"]] == [night.checkpoint_id for night in staying]
    assert len(told["removed"]) == NIGHTS - len(STAYING)
    assert preflight("verify", "--read-data").code == 0

    remove_what_goes_on_from_it(month)
    for night in staying:
        back_in_its_own_home(months, month, night)
        for thread in night.threads:
            for what in ("--full", "--resume"):
                back_in_a_new_home(months, month, night, thread, what, elsewhere)
    remove_what_goes_on_from_it(month)
    for night in staying:
        reduced_in_its_own_home(months, month, night)


def one_more_night(month: Month) -> Night:
    done = Scheduled(Preflight(month.home)).night(NIGHTS + 1)
    assert done.code == 0, str(done)
    assert done.findings.keys() == {"archive-began-anew"}, str(done)
    (told,) = done.json["data"]["checkpointed"]
    return remembered(month, NIGHTS + 1, told["checkpoint_id"], month.home.place / "one-more")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_week_of_nights_has_read_everything_back(version: str, months: Months, home: CodexHome) -> None:
    month, preflight = months.put_back(home, version), Preflight(home)
    assert len(month.read_back) == NIGHTS
    for first in range(NIGHTS - 6):
        week = month.read_back[first : first + 7]
        assert sum(night["read_bytes"] for night in week) >= week[0]["stored_bytes"]
    whole = preflight("verify", "--read-data")
    assert (whole.code, whole.json["findings"]) == (0, [])

    damaged = damage_a_frame_a_rollout_and_a_database(preflight.store, month)
    found: set[str] = set()
    for _ in range(7):
        found |= found_damaged(preflight("verify", "--read-data-subset", "1/7"))
    assert found == damaged
    assert found_damaged(preflight("verify", "--read-data")) == damaged


def damage_a_frame_a_rollout_and_a_database(store: Path, month: Month) -> set[str]:
    (archive,) = store.glob(f"*/archive/{month.main}/rollout-*-{month.main}.jsonl.zst")
    (rollout,) = store.glob(f"*/checkpoints/{month.nights[3].checkpoint_id}/threads/{month.main}/*")
    (database,) = store.glob(f"*/checkpoints/{month.nights[8].checkpoint_id}/databases/state_5.sqlite")
    for path in (archive, rollout, database):
        path.chmod(0o600)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    return {str(rollout), str(database), str(archive)}


def found_damaged(report: Report) -> set[str]:
    found = [finding for finding in report.json["findings"] if finding["id"] == "store-damaged"]
    assert report.code == (12 if found else 0), str(report)
    return {finding["path"] for finding in found}
