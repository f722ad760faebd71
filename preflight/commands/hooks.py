"""`preflight hooks`: what makes the nightly checkpoint run by itself, shown, installed and removed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import click

from preflight.checkpoint import nights
from preflight.checkpoint.store import Store, every_store, store_root
from preflight.codex.home import find_homes
from preflight.commands.options import Call, common_options, dry_run_option, time_given, user_home
from preflight.config import KEYS, default_file
from preflight.model import Finding, Result, Severity

if TYPE_CHECKING:
    from preflight.integrations.interface import Found, Scheduler, Time
    from preflight.integrations.schedules import Outcome

#: What runs every night. `-P`: a file of the user's that is called like a module of ours is not imported.
NIGHTLY_WORDS = ("-P", "-m", "preflight", "checkpoint", "--if-changed", "--nightly", "--timeout", "900", "-q")

_NAMES = ("systemd", "cron", "launchd", "taskscheduler")
#: What a home or a setting may depend on, and no option says: given to the night as it is when it is installed.
_VARIABLES = ("CODEX_SQLITE_HOME", *(key.variable for key in KEYS if key.name != "store.path"))

#: The PATH that every scheduler gives, also the poorest.
_SHORT_PATH = "/usr/bin:/bin"


def _time(context: click.Context, option: click.Parameter, value: str | None) -> Time | None:
    from preflight.integrations.interface import Time

    given = time_given(context, option, value)
    return None if given is None else Time(*given)


_name = click.argument("name", type=click.Choice(_NAMES))
_at = click.option("--at", metavar="HH:MM", callback=_time, help="When, by the machine's own clock. Default: 03:10.")
_force = click.option("--force", is_flag=True, help="Also what was edited since, or is not ours; it is kept aside.")
_changes_nothing = click.option("--dry-run", is_flag=True, expose_value=False, help="This changes nothing anyway.")


@click.group("hooks", no_args_is_help=False)
@common_options
def command() -> None:
    """Run the nightly checkpoint by itself: install, look at and remove it.

    NAME is systemd, cron, launchd or taskscheduler; one of them is enough. Everything is the user's
    own: nothing here needs, or asks for, more rights.
    """


@command.command("list")
@_changes_nothing
@common_options
@click.pass_obj
def list_(call: Call) -> Result:
    """List the schedulers, whether they are here, and what they have of ours."""
    return Result(command="hooks", data={"hooks": [_facts(each, _look(each)) for each in _schedulers(call)]})


@command.command("print")
@_name
@_at
@_changes_nothing
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
    root = store_root(call.settings().store_path, call.env)
    homes, _ = find_homes(_homes(call), call.env, user_home())
    done = schedules.install(scheduler, nightly, force=force, dry_run=dry_run)
    if not dry_run:
        covered = [Store.open(root, home) for home in homes]
        _expect_no_more(call, name, done, but={store.folder for store in covered})
        for store in covered:
            nights.expect(store, name, anew=bool(done.steps))
    return _outcome(scheduler, done, "install", at=str(nightly.at))


@command.command("status")
@click.argument("name", type=click.Choice(_NAMES), required=False)
@_changes_nothing
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
    done = schedules.uninstall(scheduler, force=force, dry_run=dry_run)
    if not dry_run:
        _expect_no_more(call, name, done)
    return _outcome(scheduler, done, "uninstall")


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

    env = call.env
    words = [word for home in _homes(call) for word in ("--home", str(home))]
    if call.store or env.get("PREFLIGHT_STORE") or env.get("XDG_STATE_HOME"):
        named_store = Path(call.store).expanduser().absolute() if call.store else None
        words += ["--store", str(store_root(named_store, env))]
    if (file := call.config_file()) is not None or (env.get("XDG_CONFIG_HOME") and default_file().is_file()):
        words += ["--config", str(file or default_file())]
    variables = {name: value for name in _VARIABLES if (value := env.get(name))} | _place_of_codex(call)
    words += [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    return (nightly_python(sys.executable), *NIGHTLY_WORDS, *words)


def _homes(call: Call) -> list[Path]:
    """The homes of the night where they are not the default: as named, else CODEX_HOME and the default beside it."""
    homes = list(call.homes)
    if not homes and (named := call.env.get("CODEX_HOME")):
        homes = [Path(named).absolute(), *(home for home in (user_home() / ".codex",) if home.is_dir())]
    return list(dict.fromkeys(homes))


def _place_of_codex(call: Call) -> dict[str, str]:
    """The PATH that has the Codex of now, where a scheduler's short one has not: trials need it, and its version."""
    codex = shutil.which("codex", path=call.env.get("PATH", ""))
    if codex is None or shutil.which("codex", path=_SHORT_PATH) is not None:
        return {}
    return {"PATH": str(Path(codex).absolute().parent)}


def _expect_no_more(call: Call, name: str, done: Outcome, *, but: Collection[Path] = ()) -> None:
    """Tidy up what an earlier install has noted for this scheduler, in the store of this call and in its own."""
    words = done.earlier.command if done.earlier is not None else ()
    roots = {Path(value) for word, value in pairwise(words) if word == "--store"}
    for root in roots | {store_root(call.settings().store_path, call.env)}:
        for store in every_store(root):
            if store.folder not in but:
                nights.expect_no_more(store, name)


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
