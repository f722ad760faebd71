"""`preflight verify`: reads a checkpoint back and proves that it can be resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from preflight import stored
from preflight.commands.options import (
    Call,
    common_options,
    long_timeout_option,
    max_rate_option,
    part_given,
    runtime_option,
)
from preflight.config import EVERYTHING, Part
from preflight.model import Result


@click.command("verify")
@click.argument("checkpoint", default="latest")
@click.option("--with-runtime", is_flag=True, help="Also resume it on trial with the Codex binary found here.")
@runtime_option
@click.option("--read-data", is_flag=True, help="Also read back everything in the store, every frame of the archives.")
@click.option(
    "--read-data-subset",
    metavar="PART",
    callback=part_given,
    help='Read back a part of it, another one each time: 1/7, 5% or "500 MB".',
)
@max_rate_option
@long_timeout_option
@common_options
@click.pass_obj
def command(
    call: Call,
    checkpoint: str,
    with_runtime: bool,
    runtime: Path | None,
    read_data: bool,
    read_data_subset: Part | None,
    max_rate: int | None,
    timeout: str | None,
) -> Result:
    """Read CHECKPOINT back (its id, or `latest`): digests, structure, model-visible history.

    With a runtime, each of its threads is also resumed on trial in a scratch home, without network
    and without a model. Exit codes: 0, 12 what was read back is not what was written, 75 the time limit came first.
    """
    if read_data and read_data_subset is not None:
        raise click.UsageError("--read-data reads everything; leave --read-data-subset away.")
    request = call.request(timeout=timeout)
    request = replace(
        request,
        checkpoint=checkpoint,
        with_runtime=with_runtime or runtime is not None,
        runtime=runtime,
        read_part=EVERYTHING if read_data else read_data_subset,
        max_rate=max_rate,
        # Reading gigabytes back takes as long as it takes: the limit of a gate does not apply here.
        timeout=request.timeout if timeout is not None else None,
    )
    with call.watched(request) as watched:
        return stored.verify(watched)
