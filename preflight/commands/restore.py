"""`preflight restore`: puts a thread back from a checkpoint, or undoes that."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from preflight import restoring
from preflight.checkpoint.restore_source import is_thread_id
from preflight.commands.options import Call, common_options, dry_run_option, given_path
from preflight.errors import UsageProblem
from preflight.model import Result
from preflight.restoring import Restoring


@click.command("restore")
@click.argument("checkpoint", required=False)
@click.argument("thread", required=False)
@click.option("--full", is_flag=True, help="The whole thread, byte for byte.")
@click.option("--resume", is_flag=True, help="What Codex needs to go on with it: opens quickly, shows fewer turns.")
@click.option("--in-place", is_flag=True, help="Into its home; the file that is there is kept beside it.")
@click.option("--to", metavar="DIR", callback=given_path, help="Into a new Codex home; DIR must not exist.")
@click.option("--undo", is_flag=True, help="Put back the file that the last restore replaced.")
@click.option("--yes", is_flag=True, help="Do not ask before a file changes places.")
@click.option("--timeout", metavar="TIME", help="The time limit of the whole call. Default: none.")
@dry_run_option
@common_options
@click.pass_obj
def command(
    call: Call,
    checkpoint: str | None,
    thread: str | None,
    full: bool,
    resume: bool,
    in_place: bool,
    to: Path | None,
    undo: bool,
    yes: bool,
    timeout: str | None,
    dry_run: bool,
) -> Result:
    """Put THREAD back as CHECKPOINT (its id, or `latest`) holds it.

    Say what (--full or --resume) and where (--in-place or --to DIR). Every Codex must have the
    thread closed. Its goal comes back paused. `preflight restore --undo [THREAD]` undoes the last
    restore into a home; `preflight restore` alone completes one that was interrupted.
    """
    request = call.request(timeout=timeout)
    # Writing gigabytes takes as long as it takes: the limit of a gate does not apply here.
    request = replace(request, dry_run=dry_run, timeout=request.timeout if timeout is not None else None)
    agree = _agreed if yes else _asking(call)
    options = full or resume or in_place or to is not None
    if undo:
        if options or thread is not None:
            raise UsageProblem("--undo takes nothing but a thread", hint="preflight restore --help")
        return restoring.undo(request, checkpoint, agree)
    if checkpoint is None and not options:
        done = restoring.complete_interrupted(request)
        if done is not None:
            return done
    if checkpoint is None or thread is None:
        raise UsageProblem(
            "say which checkpoint (or latest) and then which thread; preflight list shows the checkpoints",
            hint=f"preflight restore {_words(checkpoint)} --full --in-place",
        )
    if full is resume:
        raise UsageProblem(
            "say what to restore: --full, the whole thread, or --resume, what Codex needs to go on with it",
            hint="preflight restore --help",
        )
    if in_place is (to is not None):
        raise UsageProblem(
            "say where to: --in-place, into its home, or --to DIR, a new one", hint="preflight restore --help"
        )
    with call.watched(replace(request, checkpoint=checkpoint)) as watched:
        return restoring.restore_thread(watched, Restoring(thread_id=thread, full=full, to=to, agree=agree))


def _words(given: str | None) -> str:
    """What should stand where one word was given, or none: it may be either of the two."""
    if given is None:
        return "latest THREAD"
    return f"latest {given}" if is_thread_id(given) else f"{given} THREAD"


def _agreed(_question: str) -> None:
    """``--yes`` was given."""


def _asking(call: Call) -> Callable[[str], None]:
    def ask(question: str) -> None:
        if call.json or not os.isatty(0):
            raise UsageProblem("nobody is there to be asked, so nothing was changed", hint="say --yes to go on")
        if not click.confirm(question, err=True):
            raise UsageProblem("you said no, so nothing was changed")

    return ask
