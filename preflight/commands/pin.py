"""`preflight pin`: keeps a checkpoint, whatever the policy says."""

from __future__ import annotations

from dataclasses import replace

import click

from preflight import pruning
from preflight.commands.options import Call, common_options
from preflight.model import Result


@click.command("pin")
@click.argument("checkpoint", default="latest")
@common_options
@click.pass_obj
def command(call: Call, checkpoint: str) -> Result:
    """Keep CHECKPOINT (its id, or `latest`) until it is unpinned: prune never removes it."""
    return pruning.pin(replace(call.request(), checkpoint=checkpoint))
