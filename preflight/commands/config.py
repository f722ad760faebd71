"""`preflight config`: the settings in force, where each came from, and where the file would be."""

from __future__ import annotations

from dataclasses import replace

import click

from preflight.checkpoint.store import store_root
from preflight.commands.options import Call, common_options
from preflight.config import KEYS, default_file
from preflight.model import Result


@click.group("config", no_args_is_help=False)
@common_options
def command() -> None:
    """Show the settings and where each came from."""


@command.command("show")
@common_options
@click.pass_obj
def show(call: Call) -> Result:
    """Show every setting with its value and where that came from."""
    settings = call.settings()
    # The one setting whose built-in value is found out rather than written down.
    in_force = replace(settings, store_path=store_root(settings.store_path, call.env))
    shown = [
        {"key": key.name, "value": getattr(in_force, key.field), "unit": key.unit, "origin": settings.origin(key.name)}
        for key in KEYS
    ]
    return Result(command="config", data={"settings": shown})


@command.command("path")
@common_options
@click.pass_obj
def path(call: Call) -> Result:
    """Show where the configuration file is looked for."""
    file = call.config_file() or default_file()
    return Result(command="config", data={"path": file, "exists": file.is_file()})
