"""Install, uninstall and look at a schedule: the rules that are the same for every scheduler.

* What somebody has changed, or put in our place, is not touched unless forced; then it is kept.
* Doing it twice is doing it once.
* The plan is made first and carried out after that; a dry run is the same plan, not carried out.
* Afterwards the scheduler is asked again: what it says is the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from preflight.errors import SchedulerRefused, Unverified, UsageProblem
from preflight.integrations.cron import Cron
from preflight.integrations.interface import Condition, Found, Nightly, Scheduler, State, Step, Time
from preflight.integrations.launchd import Launchd
from preflight.integrations.machine import command_faults
from preflight.integrations.systemd import Systemd
from preflight.integrations.taskscheduler import TaskScheduler

__all__ = ["DEFAULT_TIME", "SCHEDULERS", "Outcome", "install", "nightly_for", "uninstall"]

#: In the order in which they are offered.
SCHEDULERS: dict[str, type[Scheduler]] = {each.name: each for each in (Systemd, Cron, Launchd, TaskScheduler)}

DEFAULT_TIME = Time(3, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was done, or would be (`dry_run`), and what is there now; `earlier` is what ran every night before."""

    before: State
    earlier: Nightly | None
    found: Found
    steps: tuple[Step, ...]
    dry_run: bool


def nightly_for(scheduler: Scheduler, command: Sequence[str], at: Time | None) -> Nightly:
    """The command at the time that was asked for, else at the one that is installed, else at 03:10."""
    if at is None:
        found = scheduler.look()
        ours = found.condition in (Condition.OURS, Condition.OUTDATED)
        at = found.nightly.at if ours and found.nightly is not None else DEFAULT_TIME
    return Nightly(command=tuple(command), at=at)


def install(scheduler: Scheduler, nightly: Nightly, *, force: bool = False, dry_run: bool = False) -> Outcome:
    """Make the scheduler run `nightly`; nothing is done when it does already.

    Raises SchedulerRefused (nothing is written yet when the scheduler does not answer at all),
    UsageProblem for something in the place that is not as we wrote it, Unverified when the scheduler
    says something else afterwards. Stopped half-way, installing and uninstalling both go on from there.
    """
    if not scheduler.available:
        raise SchedulerRefused(f"there is no {scheduler.program} on this machine", hint="preflight hooks list")
    found = scheduler.look()
    if not force:
        _refuse_what_is_not_as_we_wrote_it(scheduler, found, "install")
    if found.state is State.INSTALLED and found.nightly == nightly:
        return Outcome(before=found.state, earlier=found.nightly, found=found, steps=(), dry_run=dry_run)
    for fault in command_faults(scheduler.machine, nightly.command):
        raise SchedulerRefused(
            fault.replace("its interpreter", "this interpreter", 1),
            hint="install preflight into an environment of its own, and call it from there",
        )
    steps = tuple(scheduler.steps_to_install(nightly))
    if dry_run:
        return Outcome(before=found.state, earlier=found.nightly, found=found, steps=steps, dry_run=True)
    after = _carried_out(scheduler, steps)
    if after.state is not State.INSTALLED or after.nightly != nightly:
        said = "; ".join(after.faults) or f"it is {after.state.value}"
        raise Unverified(f"{scheduler.name} does not have what was installed: {said}", hint=_status(scheduler))
    return Outcome(before=found.state, earlier=found.nightly, found=after, steps=steps, dry_run=False)


def uninstall(scheduler: Scheduler, *, force: bool = False, dry_run: bool = False) -> Outcome:
    """Take away exactly what is ours; nothing is done when there is nothing.

    Raises as `install`. Works without the scheduler's program: then only files are removed.
    """
    found = scheduler.look()
    if not force:
        _refuse_what_is_not_as_we_wrote_it(scheduler, found, "uninstall")
    steps = tuple(scheduler.steps_to_uninstall())
    if dry_run or not steps:
        return Outcome(before=found.state, earlier=found.nightly, found=found, steps=steps, dry_run=dry_run)
    after = _carried_out(scheduler, steps)
    if after.state is not State.ABSENT:
        raise Unverified(f"{scheduler.name} still has it: it is {after.state.value}", hint=_status(scheduler))
    return Outcome(before=found.state, earlier=found.nightly, found=after, steps=steps, dry_run=False)


def _carried_out(scheduler: Scheduler, steps: Sequence[Step]) -> Found:
    for step in steps:
        step.perform(scheduler.machine)
    return scheduler.look()


def _refuse_what_is_not_as_we_wrote_it(scheduler: Scheduler, found: Found, verb: str) -> None:
    if found.condition is Condition.EDITED:
        raise UsageProblem(
            f"what preflight wrote for {scheduler.name} was edited since",
            hint=f"preflight hooks {verb} {scheduler.name} --force",
        )
    if found.condition is Condition.FOREIGN and verb == "install":
        raise UsageProblem(
            f"something that preflight did not write is in the place where it would write for {scheduler.name}",
            hint=f"preflight hooks install {scheduler.name} --force keeps it aside",
        )


def _status(scheduler: Scheduler) -> str:
    return f"preflight hooks status {scheduler.name}"
