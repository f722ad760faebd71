"""`preflight hooks`: what makes the nightly checkpoint run by itself, shown, installed and removed."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from preflight.checkpoint.store import store_root
from preflight.commands.options import Call, common_options, dry_run_option, user_home
from preflight.config import default_file
from preflight.model import Finding, Result, Severity

if TYPE_CHECKING:
    from preflight.integrations.interface import Found, Scheduler, Time
    from preflight.integrations.schedules import Outcome

#: What runs every night. `-P`: a file of the user's that is called like a module of ours is not imported.
NIGHTLY_WORDS = ("-P", "-m", "preflight", "checkpoint", "--if-changed", "--nightly", "--timeout", "900", "-q")

_NAMES = ("systemd", "cron", "launchd", "taskscheduler")
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


def _time(context: click.Context, option: click.Parameter, value: str | None) -> Time | None:
    from preflight.integrations.interface import Time

    if value is None:
        return None
    found = _TIME.fullmatch(value)
    if found is None:
        raise click.BadParameter("expected a time of the day such as 03:10.", ctx=context, param=option)
    return Time(int(found[1]), int(found[2]))


_name = click.argument("name", type=click.Choice(_NAMES))
_at = click.option("--at", metavar="HH:MM", callback=_time, help="When, by the machine's own clock. Default: 03:10.")
_force = click.option("--force", is_flag=True, help="Also what was edited since, or is not ours; it is kept aside.")


@click.group("hooks", no_args_is_help=False)
@common_options
def command() -> None:
    """Run the nightly checkpoint by itself: install, look at and remove it.

    NAME is systemd, cron, launchd or taskscheduler; one of them is enough. Everything is the user's
    own: nothing here needs, or asks for, more rights.
    """


@command.command("list")
@common_options
@click.pass_obj
def list_(call: Call) -> Result:
    """List the schedulers, whether they are here, and what they have of ours."""
    return Result(command="hooks", data={"hooks": [_facts(each, _look(each)) for each in _schedulers(call)]})


@command.command("print")
@_name
@_at
@common_options
@click.pass_obj
def print_(call: Call, name: str, at: Time | None) -> Result:
    """Print what would be installed for NAME, to install it by hand."""
    from preflight.integrations.interface import Nightly
    from preflight.integrations.schedules import DEFAULT_TIME

    places = _scheduler(call, name).places(Nightly(command=_command(call), at=at or DEFAULT_TIME))
    if len(places) == 1:
        raw = places[0].content
    else:
        raw = b"\n".join(f"# {place.where}\n".encode() + place.content for place in places)
    shown = [
        {"where": place.where, "text": place.content.decode("utf-16" if place.content[:1] == b"\xff" else "utf-8")}
        for place in places
    ]
    return Result(command="hooks", data={"name": name, "files": shown}, raw=raw)


@command.command("install")
@_name
@_at
@_force
@dry_run_option
@common_options
@click.pass_obj
def install(call: Call, name: str, at: Time | None, force: bool, dry_run: bool) -> Result:
    """Let NAME run the checkpoint every night. Doing it twice is doing it once.

    The homes, the store and the settings of this call are those of the nightly one. What lies in
    the place and was not written by preflight, or was edited since, is an error without --force.
    """
    from preflight.integrations import schedules

    scheduler = _scheduler(call, name)
    nightly = schedules.nightly_for(scheduler, _command(call), at)
    done = schedules.install(scheduler, nightly, force=force, dry_run=dry_run)
    return _outcome(scheduler, done, "install", at=str(nightly.at))


@command.command("status")
@click.argument("name", type=click.Choice(_NAMES), required=False)
@common_options
@click.pass_obj
def status(call: Call, name: str | None) -> Result:
    """Show what NAME, or every scheduler, has of ours, and whether it would run.

    absent, installed, outdated (an older format of ours), edited (by somebody since), or broken (it
    would not run: the interpreter is gone, the trigger is off).
    """
    looked = [(each, _look(each)) for each in _schedulers(call) if name in (None, each.name)]
    return Result(
        command="hooks",
        data={"hooks": [_facts(each, found) | {"details": _details(found)} for each, found in looked]},
        findings=tuple(finding for each, found in looked for finding in _findings(each, found)),
    )


@command.command("uninstall")
@_name
@_force
@dry_run_option
@common_options
@click.pass_obj
def uninstall(call: Call, name: str, force: bool, dry_run: bool) -> Result:
    """Take away what was installed for NAME. Checkpoints stay."""
    from preflight.integrations import schedules

    scheduler = _scheduler(call, name)
    return _outcome(scheduler, schedules.uninstall(scheduler, force=force, dry_run=dry_run), "uninstall")


def _schedulers(call: Call) -> list[Scheduler]:
    from preflight.integrations.machine import Machine
    from preflight.integrations.schedules import SCHEDULERS

    machine = Machine(env=call.env, user_home=user_home(), folder=default_file().parent)
    return [scheduler(machine) for scheduler in SCHEDULERS.values()]


def _scheduler(call: Call, name: str) -> Scheduler:
    return next(each for each in _schedulers(call) if each.name == name)


def _command(call: Call) -> tuple[str, ...]:
    """The nightly command, with the homes, the store and the settings that this call means.

    A scheduler starts it with next to no variables: what they say here is written out.
    """
    from preflight.integrations.machine import nightly_python

    homes, env = list(call.homes), call.env
    if not homes and (named := env.get("CODEX_HOME")):
        homes = [Path(named).absolute(), *(home for home in (user_home() / ".codex",) if home.is_dir())]
    words = [word for home in dict.fromkeys(homes) for word in ("--home", str(home))]
    if call.store or env.get("PREFLIGHT_STORE") or env.get("XDG_STATE_HOME"):
        named_store = Path(call.store).expanduser().absolute() if call.store else None
        words += ["--store", str(store_root(named_store, env))]
    if (file := call.config_file()) is not None or (env.get("XDG_CONFIG_HOME") and default_file().is_file()):
        words += ["--config", str(file or default_file())]
    return (nightly_python(sys.executable), *NIGHTLY_WORDS, *words)


def _look(scheduler: Scheduler) -> Found:
    """What the scheduler has. One that cannot be asked counts as broken: it may have ours, and nobody knows."""
    from preflight.errors import SchedulerRefused
    from preflight.integrations.interface import Condition, Found

    try:
        return scheduler.look()
    except SchedulerRefused as error:
        return Found(condition=Condition.OURS, faults=(f"it cannot be told what it has: {error.message}",))


def _facts(scheduler: Scheduler, found: Found) -> dict[str, object]:
    nightly = found.nightly
    return {
        "name": scheduler.name,
        "available": scheduler.available,
        "state": found.state.value,
        "at": str(nightly.at) if nightly is not None else None,
        "interpreter": Path(nightly.command[0]) if nightly is not None else None,
    }


def _details(found: Found) -> list[str]:
    from preflight.integrations.interface import Condition

    foreign = ["something that preflight did not write is in its place"] if found.condition is Condition.FOREIGN else []
    return [*foreign, *found.faults, *found.notes]


def _findings(scheduler: Scheduler, found: Found) -> list[Finding]:
    """One for each state that wants something done: a schedule that does not run is found out too late otherwise."""
    from preflight.integrations.interface import State

    if found.state in (State.ABSENT, State.INSTALLED):
        return []
    causes = {
        State.OUTDATED: "the nightly task was installed by an older preflight",
        State.EDITED: "the nightly task was edited since it was installed",
        State.BROKEN: "the nightly task would not run",
    }
    cause = f"{scheduler.name}: {causes[found.state]}" + (f": {'; '.join(found.faults)}" if found.faults else "")
    forced = " --force" if found.state is State.EDITED else ""
    remedy = f"preflight hooks install {scheduler.name}{forced}"
    return [Finding(finding_id=f"hook-{found.state.value}", severity=Severity.WARN, cause=cause, remedy=remedy)]


def _outcome(scheduler: Scheduler, done: Outcome, verb: str, *, at: str | None = None) -> Result:
    data = {
        "name": scheduler.name,
        "did": verb,
        "dry_run": done.dry_run,
        "before": done.before.value,
        "state": done.found.state.value,
        "at": at,
        "steps": [dict(step.told()) for step in done.steps],
        "details": _details(done.found),
    }
    return Result(command="hooks", data=data)
