"""`preflight show`: what one checkpoint holds."""

from __future__ import annotations

from dataclasses import replace

import click

from preflight import stored
from preflight.commands.options import (
    Call,
    common_options,
)
from preflight.model import Result


@click.command("show")
@click.argument("checkpoint", default="latest")
@common_options
@click.pass_obj
def command(call: Call, checkpoint: str) -> Result:
    """Show what CHECKPOINT holds; its id as `preflight list` names it, or `latest`."""
    return stored.show(replace(call.request(), checkpoint=checkpoint))
