"""`preflight unpin`: lets the policy decide on a checkpoint again."""

from __future__ import annotations

from dataclasses import replace

import click

from preflight import pruning
from preflight.commands.options import Call, common_options
from preflight.model import Result


@click.command("unpin")
@click.argument("checkpoint", default="latest")
@common_options
@click.pass_obj
def command(call: Call, checkpoint: str) -> Result:
    """Let prune decide on CHECKPOINT (its id, or `latest`) again."""
    return pruning.unpin(replace(call.request(), checkpoint=checkpoint))
