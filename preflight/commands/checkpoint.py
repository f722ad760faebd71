"""`preflight checkpoint`: checkpoints on live files, pausing nothing; what the nightly task calls."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import click

from preflight import nightly
from preflight.commands.options import (
    Call,
    common_options,
    dry_run_option,
    long_timeout_option,
    max_rate_option,
    runtime_option,
    time_given,
    word,
)
from preflight.model import Result

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


def _remember_variables(context: click.Context, option: click.Parameter, value: tuple[str, ...]) -> None:
    call = context.find_object(Call)
    for each in value:
        if not _VARIABLE.fullmatch(each):
            raise click.BadParameter("expected NAME=VALUE.", ctx=context, param=option)
        if call is not None:
            name, _, text = each.partition("=")
            call.env = {**call.env, name: text}


@click.command("checkpoint")
@click.argument("threads", nargs=-1, metavar="[THREAD]...")
@click.option("--all", "all_threads", is_flag=True, help="Every thread, whatever its size.")
@click.option("--if-changed", is_flag=True, help="Write nothing where the newest checkpoint is up to date.")
@click.option("--nightly", "at_night", is_flag=True, help="Afterwards read a part back, prune, and note the night.")
@click.option(
    "--if-missed",
    metavar="HH:MM",
    callback=time_given,
    help="With --nightly: nothing for a home whose night has been since that time of the day.",
)
@click.option(
    "--env",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_remember_variables,
    expose_value=False,
    help="As if the variable were set; for schedulers, which set next to none. Repeatable.",
)
@click.option("--full", is_flag=True, help="Compare all of what is archived with the rollouts, not samples of it.")
@max_rate_option
@long_timeout_option
@runtime_option
@click.option("--reason", metavar="WORD", callback=word, help="Why it was made: kept with the checkpoint.")
@dry_run_option
@common_options
@click.pass_obj
def command(
    call: Call,
    threads: tuple[str, ...],
    all_threads: bool,
    if_changed: bool,
    at_night: bool,
    if_missed: tuple[int, int] | None,
    full: bool,
    max_rate: int | None,
    timeout: str | None,
    runtime: Path | None,
    reason: str | None,
    dry_run: bool,
) -> Result:
    """Write and verify checkpoints on live files; nothing is paused.

    Of every goal thread and of every thread of size class warning or above; of the THREADs alone when
    some are named. Exit codes: 0, 12 something could not be written or read back, 75 the time limit
    came first.
    """
    if threads and all_threads:
        raise click.UsageError("name threads, or say --all.")
    if if_missed is not None and (threads or not at_night):
        raise click.UsageError("--if-missed is for --nightly, and for all threads of it.")
    request = call.request(timeout=timeout)
    request = replace(
        request,
        threads=threads,
        all_threads=all_threads,
        if_changed=if_changed,
        nightly=at_night,
        if_missed=if_missed,
        prove_all=full,
        max_rate=max_rate,
        # The limit of a gate does not apply to a night.
        timeout=request.timeout if timeout is not None else None,
        runtime=runtime,
        reason=reason,
        dry_run=dry_run,
    )
    with call.watched(request) as watched:
        return nightly.checkpoint(watched)
