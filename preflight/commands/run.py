"""`preflight run`: the gate; what an updater calls before it installs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from preflight import gate
from preflight.commands.options import (
    Call,
    accept_warnings,
    common_options,
    dry_run_option,
    runtime_option,
    target_version_option,
    timeout_option,
    warnings_as_ok_option,
    word,
)
from preflight.model import Result


@click.command("run")
@click.option("--wait", metavar="TIME", help="How long to wait for a turn in progress. Default: 60 s (PREFLIGHT_WAIT).")
@timeout_option
@click.option("--interrupt", is_flag=True, help="Interrupt a turn that outlasts the wait, through its owner's socket.")
@click.option("--no-pause", is_flag=True, help="Leave goals as they are; an active one is a warning.")
@click.option("--thread", "threads", multiple=True, metavar="ID", help="One more thread to checkpoint; repeatable.")
@click.option(
    "--archive",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="The whole threads too. auto: as far as there is time, and the verdict does not depend on it.",
)
@runtime_option
@target_version_option
@warnings_as_ok_option
@click.option("--reason", metavar="WORD", callback=word, help="Why the run was made: kept with the checkpoint.")
@dry_run_option
@common_options
@click.pass_obj
def command(
    call: Call,
    wait: str | None,
    timeout: str | None,
    interrupt: bool,
    no_pause: bool,
    threads: tuple[str, ...],
    archive: str,
    runtime: Path | None,
    target_version: str | None,
    warnings_as_ok: bool,
    reason: str | None,
    dry_run: bool,
) -> Result:
    """Pause goals, write and verify checkpoints, and say whether the runtime can be replaced.

    On `proceed` and `warn` the goals stay paused until `preflight finish`; on everything else they
    are put back as they were. Exit codes: 0 proceed, 3 warn, 10 block; anything else means: do not
    install.
    """
    request = replace(
        call.request(wait=wait, timeout=timeout),
        interrupt=interrupt,
        pause=not no_pause,
        threads=threads,
        archive=archive,
        runtime=runtime,
        target_version=target_version,
        reason=reason,
        dry_run=dry_run,
    )
    result = gate.run(request)
    return accept_warnings(result) if warnings_as_ok else result
