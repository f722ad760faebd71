"""The verbs and options that scripts rely on: compared for equality, so that a change is a decision."""

from __future__ import annotations

from collections.abc import Callable
from subprocess import CompletedProcess

import click
import pytest

from preflight import cli

EVERY_VERB = {
    "--home", "--store", "--config", "--json", "--color", "--quiet", "--verbose", "--show-text", "--help",
}  # fmt: skip
OPTIONS = {
    "check": {"--target-version", "--runtime", "--warnings-as-ok", "--timeout"},
    "run": {
        "--wait", "--timeout", "--interrupt", "--no-pause", "--thread", "--archive", "--runtime", "--target-version",
        "--warnings-as-ok", "--reason", "--dry-run",
    },
    "finish": {"--timeout", "--dry-run"},
    "resume-goals": {"--timeout", "--dry-run"},
    "checkpoint": {
        "--all", "--if-changed", "--nightly", "--if-missed", "--env", "--full", "--max-rate", "--timeout", "--runtime",
        "--reason", "--dry-run",
    },
    "prune": {"--keep-last", "--keep-daily", "--keep-weekly", "--keep-within", "--timeout", "--dry-run"},
    "pin": set(),
    "unpin": set(),
    "list": set(),
    "show": set(),
    "verify": {"--with-runtime", "--runtime", "--read-data", "--read-data-subset", "--max-rate", "--timeout"},
    "restore": {"--full", "--resume", "--in-place", "--to", "--undo", "--yes", "--timeout", "--dry-run"},
    "hooks list": {"--dry-run"},
    "hooks print": {"--at", "--dry-run"},
    "hooks install": {"--at", "--force", "--dry-run"},
    "hooks status": {"--dry-run"},
    "hooks uninstall": {"--force", "--dry-run"},
    "config show": set(),
    "config path": set(),
}  # fmt: skip
VERBS = {
    "Before and after an update": ["check", "run", "finish", "resume-goals"],
    "Checkpoints": ["checkpoint", "list", "show", "verify", "restore", "prune", "pin", "unpin"],
    "Other": ["hooks", "config", "demo"],
}


def found(call: str) -> click.Command:
    """The click command of a verb, or of a verb and its second word."""
    command: click.Command = cli.group
    for word in call.split():
        assert isinstance(command, click.Group)
        below = command.get_command(click.Context(command), word)
        assert below is not None, f"there is no {call}"
        command = below
    return command


def options_of(command: click.Command) -> set[str]:
    return {
        max(option.opts, key=len) for option in command.get_params(click.Context(command)) if option.opts[0][0] == "-"
    }


def test_the_verbs_and_their_order() -> None:
    assert {title: list(verbs) for title, verbs in cli.VERBS.items()} == VERBS


@pytest.mark.parametrize("call", OPTIONS)
def test_the_options_of_a_verb(call: str) -> None:
    assert options_of(found(call)) == EVERY_VERB | OPTIONS[call]


def test_common_options_stand_before_the_verb_too() -> None:
    assert options_of(cli.group) == EVERY_VERB | {"--version"}


def test_demo_knows_at_least_the_common_options_that_make_sense_without_a_home() -> None:
    assert options_of(found("demo")) >= {"--json", "--color", "--quiet", "--verbose", "--help"}


@pytest.mark.parametrize("verb", [verb for section in cli.VERBS.values() for verb in section])
def test_every_verb_explains_itself_on_a_screen_of_80_columns(
    preflight: Callable[..., CompletedProcess[str]], verb: str
) -> None:
    done = preflight(verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: preflight {verb} ")
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("call", OPTIONS)
def test_every_option_has_a_sentence(call: str) -> None:
    for option in found(call).params:
        if isinstance(option, click.Option):
            assert str(option.help).endswith("."), option.name
