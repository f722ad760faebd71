"""`preflight prune`: removes the checkpoints that no rule keeps."""

from __future__ import annotations

from dataclasses import replace

import click

from preflight import pruning
from preflight.commands.options import Call, common_options, dry_run_option, long_timeout_option
from preflight.model import Result


@click.command("prune")
@click.option("--keep-last", metavar="N", help="Keep the newest N.")
@click.option("--keep-daily", metavar="N", help="Keep the newest one of each of the last N days that have one.")
@click.option("--keep-weekly", metavar="N", help="The same by weeks.")
@click.option("--keep-within", metavar="TIME", help='Keep what is at most so much older than the newest: "14 d".')
@long_timeout_option
@dry_run_option
@common_options
@click.pass_obj
def command(
    call: Call,
    keep_last: str | None,
    keep_daily: str | None,
    keep_weekly: str | None,
    keep_within: str | None,
    timeout: str | None,
    dry_run: bool,
) -> Result:
    """Remove the checkpoints that no rule keeps.

    With no rule given, those of [retention] in preflight.toml; rules that are given stand alone. Always
    kept: the newest one, pinned ones, the last one of a run, the only copy of a thread, and the last one
    made under the runtime version before the present one.
    """
    given = {"keep_last": keep_last, "keep_daily": keep_daily, "keep_weekly": keep_weekly, "keep_within": keep_within}
    flags = {f"retention.{name}": text for name, text in given.items()}
    if any(text is not None for text in given.values()):
        flags = {name: text if text is not None else "0" for name, text in flags.items()}
    settings = call.settings(timeout=timeout, retention=flags)
    request = replace(
        call.request(timeout=timeout),
        settings=settings,
        timeout=settings.timeout_seconds if timeout is not None else None,
        dry_run=dry_run,
    )
    with call.watched(request) as watched:
        return pruning.prune(watched, pruning.policy_of(settings))
