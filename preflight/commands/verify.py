"""`preflight verify`: reads a checkpoint back and proves that it can be resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from preflight import stored
from preflight.commands.options import (
    Call,
    common_options,
    runtime_option,
)
from preflight.model import Result


@click.command("verify")
@click.argument("checkpoint", default="latest")
@click.option("--with-runtime", is_flag=True, help="Also resume it on trial with the Codex binary found here.")
@runtime_option
@click.option("--timeout", metavar="TIME", help="The time limit of the whole call. Default: none.")
@common_options
@click.pass_obj
def command(call: Call, checkpoint: str, with_runtime: bool, runtime: Path | None, timeout: str | None) -> Result:
    """Read CHECKPOINT back (its id, or `latest`): digests, structure, model-visible history.

    With a runtime, each of its threads is also resumed on trial in a scratch home, without network
    and without a model. Exit code 12: what was read back is not what was written.
    """
    request = call.request(timeout=timeout)
    return stored.verify(
        replace(
            request,
            checkpoint=checkpoint,
            with_runtime=with_runtime or runtime is not None,
            runtime=runtime,
            # Reading gigabytes back takes as long as it takes: the limit of a gate does not apply here.
            timeout=request.timeout if timeout is not None else None,
        )
    )
