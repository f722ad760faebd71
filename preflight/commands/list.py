"""`preflight list`: the checkpoints in the store."""

from __future__ import annotations

import click

from preflight import stored
from preflight.commands.options import (
    Call,
    common_options,
)
from preflight.model import Result


@click.command("list")
@common_options
@click.pass_obj
def command(call: Call) -> Result:
    """List the checkpoints, the newest first."""
    return stored.list_checkpoints(call.request())
