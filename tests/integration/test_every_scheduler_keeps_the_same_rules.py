"""One suite for all schedulers: installed, again, looked at, edited, foreign, outdated, broken, removed, again.

Behind fakes of the schedulers' programs and on real files; see tests/fake_schedulers.py.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from preflight.errors import PreflightError, SchedulerRefused, Unverified, UsageProblem
from preflight.integrations import marks
from preflight.integrations.interface import Nightly, Scheduler, State, Time
from preflight.integrations.schedules import DEFAULT_TIME, SCHEDULERS, install, nightly_for, uninstall
from tests.fake_schedulers import (
    PROGRAMS,
    SCHEMA,
    FakeCron,
    FakeLaunchd,
    FakeMachine,
    FakeSystemd,
    FakeTaskScheduler,
)

TASK = r"\codex-preflight-nightly"
FOREIGN_TASK = f'<Task xmlns="{SCHEMA[1:-1]}"><Settings><Priority>7</Priority><MultipleInstancesPolicy>Queue'
FOREIGN_TASK += (
    "</MultipleInstancesPolicy></Settings><Actions><Exec><Command>theirs.exe</Command></Exec></Actions></Task>"
)
CRON_LINES = b"MAILTO=me\n# mine\n*/5 * * * * echo 50\\% done\n"


@dataclass(kw_only=True)
class World:
    """A machine with one scheduler, and what a user may do to it behind our back."""

    scheduler: Scheduler
    machine: FakeMachine
    python: Path
    edit: Callable[[], None]
    put_foreign: Callable[[], None]
    foreign: Callable[[], object]
    outdate: Callable[[], None]
    everything: Callable[[], object]
    switch_off: Callable[[], None] | None

    def nightly(self, at: Time = DEFAULT_TIME) -> Nightly:
        return Nightly(command=(str(self.python), "-P", "-m", "preflight", "checkpoint", "--home", "/a b"), at=at)

    def state(self) -> State:
        return self.scheduler.look().state


def aged(text: str) -> str:
    """`text` as an older preflight would have signed it."""
    unsigned = re.sub(r"format 1, sha256 \w+", "format 0, sha256 " + "0" * 16, text)
    return unsigned.replace("sha256 " + "0" * 16, "sha256 " + marks.digest_of(unsigned))


def change(path: Path, how: Callable[[str], str]) -> None:
    path.write_text(how(path.read_text()))


def world_of_files(name: str, machine: FakeMachine, python: Path, files: list[Path], switch_off) -> World:
    edited, other = files[0], files[-1]

    def put_foreign() -> None:
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_text("theirs\n")

    def everything() -> dict[str, str]:
        return {path.name: path.read_text() for path in other.parent.glob("*") if path.is_file()}

    return World(
        scheduler=SCHEDULERS[name](machine),
        machine=machine,
        python=python,
        edit=lambda: change(edited, lambda text: text.replace("--home", "--other", 1)),
        put_foreign=put_foreign,
        foreign=other.read_text,
        outdate=lambda: change(edited, aged),
        everything=everything,
        switch_off=switch_off,
    )


def systemd(machine: FakeSystemd, python: Path) -> World:
    folder = machine.user_home / ".config/systemd/user"
    files = [folder / "codex-preflight.service", folder / "codex-preflight.timer"]
    return world_of_files("systemd", machine, python, files, machine.enabled.clear)


def launchd(machine: FakeLaunchd, python: Path) -> World:
    agent = machine.user_home / "Library/LaunchAgents/io.github.codex-preflight.nightly.plist"
    return world_of_files("launchd", machine, python, [agent], machine.loaded.clear)


def cron(machine: FakeCron, python: Path) -> World:
    def rewrite(how: Callable[[str], str]) -> None:
        machine.tables[:] = [how(machine.tables[0].decode()).encode()]

    def aged_block(table: str) -> str:
        start = table.index("# begin codex-preflight")
        return table[:start] + aged(table[start:])

    machine.tables.append(CRON_LINES)
    return World(
        scheduler=SCHEDULERS["cron"](machine),
        machine=machine,
        python=python,
        edit=lambda: rewrite(lambda table: table.replace("--home", "--other", 1)),
        put_foreign=lambda: None,  # a table has room for everybody
        foreign=lambda: machine.tables[0],
        outdate=lambda: rewrite(aged_block),
        everything=lambda: list(machine.tables),
        switch_off=None,
    )


def taskscheduler(machine: FakeTaskScheduler, python: Path) -> World:
    def leaf(path: str) -> ET.Element:
        found = machine.tasks[TASK].find("/".join(SCHEMA + name for name in path.split("/")))
        assert found is not None
        return found

    def edit() -> None:
        leaf("Triggers/CalendarTrigger/StartBoundary").text = "2026-05-05T22:00:00"

    def outdate() -> None:
        description = leaf("RegistrationInfo/Description")
        description.text = str(description.text).replace("format 1", "format 0")

    def switch_off() -> None:
        ET.SubElement(leaf("Settings"), f"{SCHEMA}Enabled").text = "false"

    return World(
        scheduler=SCHEDULERS["taskscheduler"](machine),
        machine=machine,
        python=python,
        edit=edit,
        put_foreign=lambda: machine.tasks.update({TASK: ET.fromstring(FOREIGN_TASK)}),
        foreign=lambda: leaf("Actions/Exec/Command").text,
        outdate=outdate,
        everything=lambda: (
            {name: ET.tostring(task) for name, task in machine.tasks.items()},
            sorted(path.name for path in machine.folder.glob("*")),
        ),
        switch_off=switch_off,
    )


WORLDS = {
    "systemd": (FakeSystemd, systemd),
    "cron": (FakeCron, cron),
    "launchd": (FakeLaunchd, launchd),
    "taskscheduler": (FakeTaskScheduler, taskscheduler),
}


@pytest.fixture(params=SCHEDULERS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    python = tmp_path / "its own/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    fake, make = WORLDS[request.param]
    machine = fake(
        env={}, user_home=tmp_path / "home", folder=tmp_path / "home/config", programs=set(PROGRAMS[request.param])
    )
    return make(machine, python)


def test_it_is_absent_before_and_installed_after(world: World) -> None:
    assert world.state() is State.ABSENT
    done = install(world.scheduler, world.nightly())
    assert (done.before, done.found.state, bool(done.steps)) == (State.ABSENT, State.INSTALLED, True)
    assert world.scheduler.look().nightly == world.nightly()


def test_installing_again_changes_nothing(world: World) -> None:
    install(world.scheduler, world.nightly())
    before, calls = world.everything(), len(world.machine.calls)
    again = install(world.scheduler, nightly_for(world.scheduler, world.nightly().command, None))
    assert (again.before, again.steps) == (State.INSTALLED, ())
    assert world.everything() == before
    assert len(world.machine.calls) > calls  # it did look


def test_another_time_replaces_the_first_one_and_is_kept_from_then_on(world: World) -> None:
    install(world.scheduler, world.nightly())
    install(world.scheduler, world.nightly(Time(22, 5)))
    assert nightly_for(world.scheduler, world.nightly().command, None) == world.nightly(Time(22, 5))
    assert world.state() is State.INSTALLED


def test_a_dry_run_changes_nothing_and_tells_the_steps(world: World) -> None:
    empty = world.everything()
    plan = install(world.scheduler, world.nightly(), dry_run=True)
    assert plan.steps
    assert (world.everything(), world.state()) == (empty, State.ABSENT)
    done = install(world.scheduler, world.nightly())
    assert [step.told() for step in done.steps] == [step.told() for step in plan.steps]
    full = world.everything()
    assert uninstall(world.scheduler, dry_run=True).steps
    assert (world.everything(), world.state()) == (full, State.INSTALLED)


def test_what_the_user_has_edited_is_refused(world: World) -> None:
    install(world.scheduler, world.nightly())
    world.edit()
    edited = world.everything()
    assert world.state() is State.EDITED
    for refused in (lambda: install(world.scheduler, world.nightly()), lambda: uninstall(world.scheduler)):
        with pytest.raises(UsageProblem, match="edited since") as error:
            refused()
        assert str(error.value.hint).endswith("--force")
    assert world.everything() == edited


def test_what_the_user_has_edited_is_kept_aside_when_forced(world: World) -> None:
    install(world.scheduler, world.nightly())
    world.edit()
    done = install(world.scheduler, world.nightly(), force=True)
    assert (done.before, world.state()) == (State.EDITED, State.INSTALLED)
    (kept,) = world.machine.user_home.rglob("*.orig")
    assert kept.stat().st_size > 0
    uninstall(world.scheduler)
    assert kept.exists()  # it was ours once: not to be put back, and not to be lost either
    assert world.state() is State.ABSENT


def test_a_second_edit_is_not_kept_over_the_first_one(world: World) -> None:
    for _ in range(2):
        install(world.scheduler, world.nightly(), force=True)
        world.edit()
    before = world.everything()
    with pytest.raises(UsageProblem, match="already"):
        install(world.scheduler, world.nightly(), force=True)
    assert world.everything() == before


def test_edited_is_removed_when_forced(world: World) -> None:
    install(world.scheduler, world.nightly())
    world.edit()
    uninstall(world.scheduler, force=True)
    assert world.state() is State.ABSENT


def test_what_is_not_ours_is_never_touched_and_put_back_when_it_had_to_move(world: World) -> None:
    world.put_foreign()
    before, theirs = world.everything(), world.foreign()
    assert world.state() is State.ABSENT
    if world.scheduler.name != "cron":
        with pytest.raises(UsageProblem, match="did not write"):
            install(world.scheduler, world.nightly())
    assert uninstall(world.scheduler).steps == ()
    assert world.everything() == before

    install(world.scheduler, world.nightly(), force=True)
    assert world.state() is State.INSTALLED
    uninstall(world.scheduler)
    assert world.foreign() == theirs
    assert world.state() is State.ABSENT
    assert not list(world.machine.user_home.rglob("*.orig"))


def test_an_older_format_is_outdated_and_simply_replaced(world: World) -> None:
    install(world.scheduler, world.nightly(Time(4, 44)))
    world.outdate()
    assert world.state() is State.OUTDATED
    install(world.scheduler, nightly_for(world.scheduler, world.nightly().command, None))
    assert (world.state(), world.scheduler.look().nightly) == (State.INSTALLED, world.nightly(Time(4, 44)))


def test_it_is_broken_when_the_interpreter_is_gone(world: World) -> None:
    install(world.scheduler, world.nightly())
    world.python.unlink()
    found = world.scheduler.look()
    assert (found.state, found.faults) == (State.BROKEN, (f"its interpreter is gone: {world.python}",))
    with pytest.raises(SchedulerRefused, match="interpreter is gone"):
        install(world.scheduler, world.nightly())
    uninstall(world.scheduler)
    assert world.state() is State.ABSENT


def test_it_is_broken_when_somebody_has_switched_it_off_and_installing_mends_it(world: World) -> None:
    if world.switch_off is None:
        assert world.scheduler.name == "cron"  # it has no switch
        return
    install(world.scheduler, world.nightly())
    world.switch_off()
    assert world.state() is State.BROKEN
    install(world.scheduler, world.nightly())
    assert world.state() is State.INSTALLED


def test_uninstalling_leaves_nothing_and_can_be_repeated(world: World) -> None:
    before = world.everything()
    for _ in range(2):
        install(world.scheduler, world.nightly())
        assert uninstall(world.scheduler).before is State.INSTALLED
        assert (world.everything(), world.state()) == (before, State.ABSENT)
        assert uninstall(world.scheduler).steps == ()


def test_without_the_program_nothing_is_installed_and_everything_can_be_removed(world: World) -> None:
    install(world.scheduler, world.nightly())
    programs = set(world.machine.programs)
    world.machine.programs.clear()
    assert not world.scheduler.available
    with pytest.raises(SchedulerRefused, match="there is no"):
        install(world.scheduler, world.nightly(Time(1, 1)))
    uninstall(world.scheduler)
    assert world.state() is State.ABSENT
    world.machine.programs.update(programs)


def test_stopped_after_any_step_both_ways_go_on_from_there(world: World) -> None:
    """The steps are carried out one by one, and after each of them somebody pulls the plug."""
    steps = install(world.scheduler, world.nightly(), dry_run=True).steps
    for stop in range(len(steps)):
        for way in (install, uninstall):
            for step in steps[: stop + 1]:
                step.perform(world.machine)
            if way is install:
                install(world.scheduler, world.nightly())
                assert world.state() is State.INSTALLED
            uninstall(world.scheduler)
            assert world.state() is State.ABSENT
            steps = install(world.scheduler, world.nightly(), dry_run=True).steps


def test_stopped_while_removing_both_ways_go_on_from_there(world: World) -> None:
    install(world.scheduler, world.nightly())
    for stop in range(len(uninstall(world.scheduler, dry_run=True).steps)):
        for step in uninstall(world.scheduler, dry_run=True).steps[: stop + 1]:
            step.perform(world.machine)
        uninstall(world.scheduler)
        assert world.state() is State.ABSENT
        install(world.scheduler, world.nightly())
        assert world.state() is State.INSTALLED


@pytest.mark.parametrize(
    "word",
    ["a b", "50%", "$HOME", "a'b", "Ünï©ode", "a&b<c>", "a\\b", "a\\ b\\", ";|`id`", "#x", "@COMMAND@", "100%%"],
)
def test_any_path_survives_the_way_there_and_back(world: World, word: str, tmp_path: Path) -> None:
    # systemd starts no program with a quotation mark or a backslash in its path; a word may have them.
    refused = world.scheduler.name == "systemd" and set(word) & set("'\"\\")
    python = tmp_path / ("plain" if refused else word) / "python"
    if refused:
        with pytest.raises(UsageProblem, match="quotation mark"):
            world.scheduler.places(Nightly(command=(f"/{word}/python", "-m"), at=Time(0, 0)))
    python.parent.mkdir(parents=True)
    python.touch()
    nightly = Nightly(command=(str(python), "-m", "preflight", "--home", word, "--store", f"/{word}"), at=Time(0, 0))
    install(world.scheduler, nightly)
    assert world.scheduler.look().nightly == nightly
    uninstall(world.scheduler)
    assert world.state() is State.ABSENT


@pytest.mark.parametrize("word", ["a\nb", "a\x00b", "a\udcffb"])
def test_a_word_that_no_format_can_hold_is_refused_before_anything_is_written(world: World, word: str) -> None:
    before = world.everything()
    with pytest.raises(PreflightError):
        install(world.scheduler, Nightly(command=(str(world.python), "-m", "preflight", word), at=Time(3, 10)))
    assert world.everything() == before


@pytest.mark.parametrize("name", ["systemd", "cron", "launchd"])
def test_nothing_is_written_when_the_scheduler_does_not_answer(name: str, tmp_path: Path) -> None:
    fake, make = WORLDS[name]
    machine = fake(env={}, user_home=tmp_path / "home", folder=tmp_path / "config", programs=set(PROGRAMS[name]))
    (tmp_path / "python").touch()
    world = make(machine, tmp_path / "python")
    machine.silent.append("No medium found")
    with pytest.raises(SchedulerRefused, match="No medium found"):
        install(world.scheduler, world.nightly())
    assert not (tmp_path / "home").exists()


class Forgetful(set[str]):
    def add(self, unit: str) -> None:
        """Says yes and does nothing."""


def test_a_scheduler_that_says_yes_and_does_nothing_is_found_out(tmp_path: Path) -> None:
    machine = FakeSystemd(env={}, user_home=tmp_path, folder=tmp_path, programs={"systemctl"}, enabled=Forgetful())
    (tmp_path / "python").touch()
    world = systemd(machine, tmp_path / "python")
    with pytest.raises(Unverified, match="the timer is not enabled"):
        install(world.scheduler, world.nightly())


def test_a_crontab_without_a_cron_is_told(tmp_path: Path) -> None:
    (tmp_path / "python").touch()
    machine = FakeCron(env={}, user_home=tmp_path, folder=tmp_path, programs={"crontab"})
    world = cron(machine, tmp_path / "python")
    (note,) = install(world.scheduler, world.nightly()).found.notes
    assert note.startswith("no cron was seen at work")
    machine.programs.add("crond")
    assert world.scheduler.look().notes == ()


def test_a_crontab_is_not_written_in_the_second_in_which_it_was_read(tmp_path: Path) -> None:
    """cron itself compares whole seconds, and would never see a table that is as old as the one it has."""
    (tmp_path / "python").touch()
    machine = FakeCron(env={}, user_home=tmp_path, folder=tmp_path, programs={"crontab"})
    world = cron(machine, tmp_path / "python")
    install(world.scheduler, world.nightly())
    written = machine.calls.index(("crontab", "-"))
    assert machine.calls[written - 2 : written] == [("the next second",), ("crontab", "-l")]
