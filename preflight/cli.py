"""The command line: lazily loaded verbs, and the one place where an exception becomes an exit code.

A verb's module is imported when that verb runs, so that `--version`, `--help` and a misspelled verb
cost nothing but click. Verbs return a `Result`; `report` prints it. Whatever happens, one of these
leaves here: the exit code of the verdict, the exit code of a `PreflightError`, 2 for a call that
cannot be understood, 128+N for signal N, and 1 with a crash report for what nobody foresaw; never a
traceback. With ``--json`` each of them is one object on stdout.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib import import_module
from io import BytesIO, TextIOWrapper
from types import FrameType

import click

from preflight import __version__, report
from preflight.commands.options import Call, common_options
from preflight.errors import NoSpace, PreflightError, Unverified, UsageProblem

__all__ = ["VERBS", "Stopped", "main"]

#: Title -> verb -> the line that `--help` shows, kept here so that help imports no verb.
VERBS: Mapping[str, Mapping[str, str]] = {
    "Before and after an update": {
        "check": "Verdict without changing anything.",
        "run": "The gate: pause goals, write checkpoints, decide.",
        "finish": "After the update: is everything there? Puts goals back.",
        "resume-goals": "Put back the goals that a run paused.",
    },
    "Checkpoints": {
        "checkpoint": "Write checkpoints on live files; every night, by itself.",
        "list": "List the checkpoints.",
        "show": "Show what one checkpoint holds.",
        "verify": "Read a checkpoint back and prove it.",
        "restore": "Put a thread back, or undo that.",
        "prune": "Remove the checkpoints that no rule keeps.",
        "pin": "Keep a checkpoint, whatever the policy.",
        "unpin": "Let the policy decide on it again.",
    },
    "Other": {
        "hooks": "Schedulers: a checkpoint every night, by itself.",
        "config": "Show the settings and where each came from.",
        "demo": "The whole story on a throw-away home; needs no Codex.",
    },
}
_SUMMARIES = {verb: summary for section in VERBS.values() for verb, summary in section.items()}
_GIVING_VERDICTS = frozenset({"check", "run", "finish"})
_STOPPING_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
# What is left to do when a run did not end by itself; harmless when nothing is left to put back.
_PUT_BACK = "preflight resume-goals"
# Of 10,000 threads nothing is garbage: looking through them again and again took a tenth of a run.
_RARELY = (50_000, 20, 50)
_PRINTED = 0  # what click returns for --help and --version
_COMPLETION = "_PREFLIGHT_COMPLETE"
# What no step could go on without, and no fault of ours: a disk that fails, is full, or may only be read.
_OF_A_DISK = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_BROKEN_PIPE = 128 + 13  # as a process that SIGPIPE ends; Windows has no name for it


class Stopped(BaseException):
    """A signal asked us to stop. Raised wherever the main thread is, so that `with` blocks put things back.

    Not an Exception, as KeyboardInterrupt is not: nothing on the way up may take it for a failure of its own.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class VerbGroup(click.Group):
    """A group whose verbs are modules of `preflight.commands`, each with its click command in `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _SUMMARIES:
            return None
        found = import_module(f"preflight.commands.{cmd_name.replace('-', '_')}").command
        return found if isinstance(found, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        verb = args[0]
        if verb not in _SUMMARIES:
            raise click.UsageError(f"there is no verb {verb!r}.{_nearest_verb(verb)}", ctx=ctx)
        call = ctx.find_object(Call)
        if call is not None:
            call.command = verb
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title, verbs in VERBS.items():
            with formatter.section(title):
                formatter.write_dl(list(verbs.items()))


def _nearest_verb(verb: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(verb, _SUMMARIES, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


@click.group(
    "preflight",
    cls=VerbGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.version_option(__version__, message="preflight %(version)s")
@common_options
@click.pass_context
def group(context: click.Context) -> None:
    """Checkpoints and a verdict before the OpenAI Codex runtime is replaced.

    An updater calls `preflight run` before it installs and `preflight finish` after it. Exit codes:
    0 proceed, 3 warn, 10 block, 11 locked, 12 unverified, 13 unsupported, 75 try later; anything
    but 0 and 3 means: do not install.
    """
    if context.invoked_subcommand is None:
        raise click.UsageError("no verb was given; the verbs are " + ", ".join(_SUMMARIES), ctx=context)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and prints its answer; returns the exit status. Signal handlers are put back afterwards."""
    gc.set_threshold(*_RARELY)
    _open_standard_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    call = Call(env=dict(os.environ), tell=report.tell, watch=report.watch, json=_wants_json(words))
    try:
        with _signals_as_exceptions():
            return _run(call, words)
    except Stopped as stop:  # it came after the verb had ended, while its answer was being printed
        _tell_undelivered(call)
        return 128 + stop.number


def _run(call: Call, words: list[str]) -> int:
    """The boundary: everything below raises, the caller gets a number."""
    started_at = time.time()
    try:
        answer = _answer(call, words)
        content, sentences = _rendered(answer, call, started_at)
        sentences += _kept(answer, started_at)
    except (Exception, KeyboardInterrupt, Stopped, SystemExit) as error:  # noqa: BLE001
        answer = _failure(error, call, words)
        content, sentences = _rendered(answer, call, started_at)
    for sentence in sentences:
        report.tell(sentence)
    try:
        report.write_out(content)
    except BrokenPipeError:  # the reader has seen enough, as in `preflight list | head`
        _tell_undelivered(call)
        return _BROKEN_PIPE
    except OSError as error:
        report.tell(f"the answer could not be written to stdout: {error.strerror or error}")
        _tell_undelivered(call)
        return PreflightError.exit_code
    return report.exit_code_of(answer)


def _tell_undelivered(call: Call) -> None:
    """A run whose verdict did not arrive may have left goals paused for an update that nobody will start."""
    if call.command == "run":
        report.tell(f"Goals that were paused stay paused until: {_PUT_BACK}")


def _answer(call: Call, words: list[str]) -> report.Answer:
    """Runs the verb. What click or a library prints meanwhile is caught: stdout belongs to the report.

    Only a `Result` is an answer to a verb: one that ends in any other way must not pass for exit code 0.
    """
    # With a binary buffer, because click prints the suggestions of a completion as bytes.
    printed = TextIOWrapper(BytesIO(), "utf-8", "backslashreplace", newline="\n")
    with redirect_stdout(printed):
        try:
            answer = group.main(args=words, prog_name="preflight", obj=call, standalone_mode=False)
        except SystemExit:
            if _COMPLETION not in call.env:
                raise
            answer = _PRINTED  # click's shell completion ends so, with its suggestions printed
    printed.seek(0)
    text = printed.read()
    if answer == _PRINTED and (text or _COMPLETION in call.env):
        return report.Printed(call.command, text)

    from preflight.model import Result  # every verb has imported it by now; `--version` need not

    if not isinstance(answer, Result):
        raise TypeError(f"the verb returned {type(answer).__name__}, not a Result")
    return answer


def _rendered(answer: report.Answer, call: Call, started_at: float) -> tuple[bytes, list[str]]:
    """The bytes for stdout and the lines for stderr: a failure speaks there, unless ``--json`` was given."""
    if call.json:
        from preflight.report import json

        times = {"started_at": started_at, "finished_at": time.time()}
        return json.render(answer, **times, show_text=call.show_text), []
    if isinstance(answer, report.Printed):
        return report.encoded(answer.text), []
    if not isinstance(answer, report.Failure) and answer.raw is not None:
        return answer.raw, []

    from preflight.report import lines, text

    wanted = text.Wanted(
        quiet=call.quiet, verbose=call.verbose, show_text=call.show_text, options=call.repeated_options()
    )
    if isinstance(answer, report.Failure):
        return b"", [line.text for line in text.failure_lines(answer, wanted)]
    shown = text.result_lines(answer, wanted)
    return report.encoded(lines.paint(shown) if report.wants_colour(call.color, call.env) else lines.bare(shown)), []


def _kept(answer: report.Answer, started_at: float) -> list[str]:
    """Keep a copy of the report where the result asks for it; a copy that cannot be kept is only told."""
    if isinstance(answer, report.Failure | report.Printed) or not answer.keep_in:
        return []
    from preflight.checkpoint.store import keep_report
    from preflight.report import json

    data = json.render(answer, started_at=started_at, finished_at=time.time(), show_text=False)
    sentences = []
    for folder in answer.keep_in:
        try:
            keep_report(folder, data)
        except (PreflightError, OSError) as error:
            sentences.append(f"the report could not be kept in the store: {error}")
    return sentences


def _failure(error: BaseException, call: Call, words: list[str]) -> report.Failure:
    """What the caller is told of an exception: the code word, one sentence, the next step, the exit code."""
    code, exit_code, message, hint = PreflightError.code, PreflightError.exit_code, str(error), None
    match error:
        case PreflightError():
            code, exit_code, message, hint = error.code, error.exit_code, error.message, error.hint
            if error.path is not None and str(error.path) not in message:
                message += f" ({error.path})"
        case click.ClickException():
            code, exit_code, message = UsageProblem.code, UsageProblem.exit_code, error.format_message()
            context = error.ctx if isinstance(error, click.UsageError) else None
            hint = f"{context.command_path if context is not None else 'preflight'} --help"
        case Stopped() | KeyboardInterrupt() | click.Abort():
            number = error.number if isinstance(error, Stopped) else int(signal.SIGINT)
            code, exit_code = "stopped", 128 + number
            message = f"stopped by {signal.Signals(number).name} before the work was done"
            hint = _PUT_BACK if call.command == "run" else None
        case OSError() if error.errno in _OF_A_DISK:
            kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else Unverified
            code, exit_code, message = kind.code, kind.exit_code, f"a disk failed: {error.strerror}"
            message += f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, str | bytes) else ""
            hint = _PUT_BACK if call.command == "run" else "look at that disk, then try again"
        case _:
            from preflight.crash import keep_crash_report

            kept = keep_crash_report(error, words, call.env)
            message = f"a fault of preflight itself ended the call ({type(error).__name__})"
            message += f"; what happened is written down in {kept}" if kept is not None else ""
            hint = _PUT_BACK if call.command == "run" else None
    verdict = "block" if call.command is None or call.command in _GIVING_VERDICTS else None
    return report.Failure(
        command=call.command, code=code, message=message, hint=hint, exit_code=exit_code, verdict=verdict
    )


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """The first stopping signal raises `Stopped` in the main thread; later ones only get a word of patience.

    A second Ctrl-C in the middle of putting a goal back would leave it paused: the first one has
    already said what the person wants. A signal that the caller ignores (`nohup`) stays ignored.
    """
    stopping = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            raise Stopped(number)
        # Not through sys.stderr: its buffer may be the very thing that this signal interrupted.
        with suppress(OSError):
            os.write(2, b"preflight: already stopping; what was paused is being put back\n")

    before = {}
    for number in filter(None, (getattr(signal, name, None) for name in _STOPPING_SIGNALS)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wants_json(words: Sequence[str]) -> bool:
    """Whether ``--json`` was given, for calls that fail before their options have been read."""
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def _open_standard_streams() -> None:
    """Fills descriptors 0 to 2 where the caller closed them.

    Otherwise the next file to be opened, a database perhaps, would be the one that a library's
    message to "stderr" is written into.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
