"""`preflight finish`: after the update, proves that everything is still there and puts paused goals back."""

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


@click.command("finish")
@dry_run_option
@timeout_option
@common_options
@click.pass_obj
def command(call: Call, dry_run: bool, timeout: str | None) -> Result:
    """After the update: is everything still there? Puts the paused goals back.

    Compares threads, goals, databases and rollout lengths with the checkpoint of the last run. A goal
    that the update has dropped is written anew; what a person changed meanwhile stays as it is.
    """
    return aftermath.finish(replace(call.request(timeout=timeout), dry_run=dry_run))
