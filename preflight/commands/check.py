"""`preflight check`: the verdict without changing anything; the store is read, never written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from preflight import gate
from preflight.commands.options import (
    Call,
    accept_warnings,
    common_options,
    runtime_option,
    target_version_option,
    timeout_option,
    warnings_as_ok_option,
)
from preflight.model import Result


@click.command("check")
@target_version_option
@runtime_option
@warnings_as_ok_option
@timeout_option
@common_options
@click.pass_obj
def command(
    call: Call, target_version: str | None, runtime: Path | None, warnings_as_ok: bool, timeout: str | None
) -> Result:
    """Say whether the runtime can be replaced now, and change nothing.

    Exit codes: 0 proceed, 3 warn, 10 block; anything else means: do not install.
    """
    request = replace(call.request(timeout=timeout), target_version=target_version, runtime=runtime)
    result = gate.check(request)
    return accept_warnings(result) if warnings_as_ok else result
