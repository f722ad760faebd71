"""`preflight resume-goals`: puts back the goals that a run paused, without waiting for an update."""

from __future__ import annotations

from dataclasses import replace

import click

from preflight import aftermath
from preflight.commands.options import (
    Call,
    common_options,
    dry_run_option,
    timeout_option,
)
from preflight.model import Result


@click.command("resume-goals")
@dry_run_option
@timeout_option
@common_options
@click.pass_obj
def command(call: Call, dry_run: bool, timeout: str | None) -> Result:
    """Put back the goals that a run paused; for an update that was called off or a run that was killed.

    Only goals of the journal that nobody has touched since: what a person changed stays as it is.
    """
    return aftermath.resume_goals(replace(call.request(timeout=timeout), dry_run=dry_run))
