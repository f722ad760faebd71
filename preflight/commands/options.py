"""The options that verbs share, and `Call`: what the options before and behind the verb said together.

Common options may stand on either side of the verb (`preflight --json check`, `preflight check
--json`); of two values the one behind the verb counts, `--home` adds up. Folders and files may begin
with ``~``, because shells do not expand it behind an equals sign.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from preflight.errors import UsageProblem

if TYPE_CHECKING:
    from preflight.config import Part, Settings
    from preflight.model import Result
    from preflight.request import Request

__all__ = [
    "Call",
    "accept_warnings",
    "common_options",
    "dry_run_option",
    "given_path",
    "long_timeout_option",
    "max_rate_option",
    "part_given",
    "runtime_option",
    "size_given",
    "target_version_option",
    "time_given",
    "timeout_option",
    "user_home",
    "warnings_as_ok_option",
    "word",
]


class Watched(Protocol):
    """What `report` shows of a long work."""

    def say(self, line: str) -> None: ...

    def moved(self, what: str, done: int, total: int) -> None: ...

    def end(self) -> None: ...


Command = TypeVar("Command", bound=Callable[..., object])

_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


@dataclass(slots=True, kw_only=True)
class Call:
    """One call of the command line. `tell` puts one line on stderr, `watch` shows how far a long work is.

    `command` is known after dispatch.
    """

    env: Mapping[str, str]
    tell: Callable[[str], None]
    watch: Callable[[], Watched]
    command: str | None = None
    homes: list[Path] = field(default_factory=list)
    store: str | None = None
    config: Path | None = None
    json: bool = False
    color: str = "auto"
    quiet: bool = False
    verbose: bool = False
    show_text: bool = False

    def settings(
        self, *, wait: str | None = None, timeout: str | None = None, retention: Mapping[str, str | None] | None = None
    ) -> Settings:
        """The settings in force for this call; `retention` are flags by their dotted keys. Raises ConfigProblem."""
        from preflight.config import load_settings

        flags = {"store.path": self.store, "wait": wait, "timeout": timeout, **(retention or {})}
        return load_settings(file=self.config_file(), env=self.env, user_home=user_home(), flags=flags)

    def config_file(self) -> Path | None:
        """The file that ``--config`` or PREFLIGHT_CONFIG names; None leaves it to the default one."""
        named = self.env.get("PREFLIGHT_CONFIG")
        return self.config or (Path(named).absolute() if named else None)

    def repeated_options(self) -> str:
        """The options that make another call mean the same home, store and settings, quoted for a shell."""
        import shlex

        named: list[tuple[str, Path | str]] = [("--home", home) for home in self.homes]
        named += [("--store", self.store)] if self.store is not None else []
        named += [("--config", self.config)] if self.config is not None else []
        return shlex.join(str(word) for pair in named for word in pair)

    def request(self, *, wait: str | None = None, timeout: str | None = None) -> Request:
        """What every verb asks of the gate; a verb adds its own fields with `dataclasses.replace`."""
        from preflight.request import Request

        settings = self.settings(wait=wait, timeout=timeout)
        return Request(
            homes=tuple(self.homes),
            store=settings.store_path,
            settings=settings,
            env=self.env,
            user_home=user_home(),
            progress=self.tell if self.verbose or not (self.quiet or self.json) else _say_nothing,
            wait=settings.wait_seconds,
            timeout=settings.timeout_seconds,
            show_text=self.show_text,
        )

    @contextmanager
    def watched(self, request: Request) -> Iterator[Request]:
        """The request of a long work: a person sees how far it is, and a clean line when the block ends."""
        if not self.verbose and (self.quiet or self.json):
            yield request
            return
        shown = self.watch()
        try:
            yield replace(request, progress=shown.say, moved=shown.moved)
        finally:
            shown.end()


def user_home() -> Path:
    """The home folder of whoever calls. Raises UsageProblem when nobody knows it."""
    try:
        return Path.home()
    except RuntimeError as error:
        raise UsageProblem("the system does not say where your home folder is", hint="set HOME") from error


def _say_nothing(line: str) -> None:
    """Progress that nobody asked for."""


def accept_warnings(result: Result) -> Result:
    """The result with exit code 0 where it would have been 3 (``--warnings-as-ok``); the verdict stays `warn`."""
    if result.verdict == "warn" and result.exit_code in (None, 3):
        return replace(result, exit_code=0)
    return result


def _remember(context: click.Context, option: click.Parameter, value: object) -> None:
    """Puts the value of a common option into the call; an option that was not given changes nothing."""
    call = context.find_object(Call)
    if call is None or option.name is None or value in (None, False, ()):
        return
    if option.name == "home":
        call.homes.extend(value if isinstance(value, tuple) else ())
    else:
        setattr(call, option.name, value)


def _remember_path(context: click.Context, option: click.Parameter, value: object) -> None:
    _remember(context, option, given_path(context, option, value))


def given_path(context: click.Context, option: click.Parameter, value: object) -> object:
    """A path, or a tuple of paths, made absolute. An empty one is a variable that was not set, never `.`."""
    if isinstance(value, tuple):
        return tuple(given_path(context, option, each) for each in value)
    if value is None:
        return None
    if not value or "\0" in str(value):
        raise click.BadParameter("the path is empty.", ctx=context, param=option)
    try:
        return Path(str(value)).expanduser().absolute()
    except RuntimeError as error:
        raise click.BadParameter(str(error), ctx=context, param=option) from error


def size_given(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """A size such as ``50 MB`` in bytes, above zero."""
    from preflight.config import size

    if value is None:
        return None
    try:
        found = size(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", ctx=context, param=option) from error
    if not found:
        raise click.BadParameter("expected a size above zero.", ctx=context, param=option)
    return found


def part_given(context: click.Context, option: click.Parameter, value: str | None) -> Part | None:
    """A part of the store such as ``1/7``, ``5%`` or ``500 MB``."""
    from preflight.config import part

    if value is None:
        return None
    try:
        return part(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", ctx=context, param=option) from error


def time_given(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Hour and minute of a time of the day such as ``03:10``."""
    if value is None:
        return None
    found = _TIME.fullmatch(value)
    if found is None:
        raise click.BadParameter("expected a time of the day such as 03:10.", ctx=context, param=option)
    return int(found[1]), int(found[2])


def word(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """One word that is fit for a log and a file name."""
    if value is not None and not _WORD.fullmatch(value):
        raise click.BadParameter(
            "expected one word of letters, digits, '.', '_', '+' and '-', at most 64.", ctx=context, param=option
        )
    return value


def common_options(command: Command) -> Command:
    """The options that every verb knows; their values go into the `Call`, not to the function."""
    for option in reversed(_COMMON):
        command = option(command)
    return command


_COMMON: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--home",
        multiple=True,
        metavar="PATH",
        help="A Codex home; repeatable. Default: CODEX_HOME and ~/.codex.",
        expose_value=False,
        callback=_remember_path,
    ),
    click.option(
        "--store",
        metavar="PATH",
        help="Where checkpoints are kept (PREFLIGHT_STORE).",
        expose_value=False,
        callback=_remember,
    ),
    click.option(
        "--config",
        metavar="FILE",
        help="Instead of preflight.toml in the configuration folder (PREFLIGHT_CONFIG).",
        expose_value=False,
        callback=_remember_path,
    ),
    click.option(
        "--json", is_flag=True, help="One JSON object on stdout, nothing else.", expose_value=False, callback=_remember
    ),
    click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        help="auto: on a terminal, unless NO_COLOR is set.",
        expose_value=False,
        callback=_remember,
    ),
    click.option(
        "-q",
        "--quiet",
        is_flag=True,
        help="The verdict and the findings only; no progress.",
        expose_value=False,
        callback=_remember,
    ),
    click.option(
        "-v",
        "--verbose",
        is_flag=True,
        help="Lists in full; progress also beside --json.",
        expose_value=False,
        callback=_remember,
    ),
    click.option(
        "--show-text",
        is_flag=True,
        help="Show objectives too. Without it: ids, sizes and states.",
        expose_value=False,
        callback=_remember,
    ),
)

max_rate_option = click.option(
    "--max-rate", metavar="SIZE", callback=size_given, help='Read at most so much in a second, such as "50 MB".'
)
long_timeout_option = click.option(
    "--timeout", metavar="TIME", help='The time limit of the whole call, such as "2 h". Default: none.'
)
timeout_option = click.option(
    "--timeout", metavar="TIME", help='The time limit of the whole call, such as 90 or "5 min" (PREFLIGHT_TIMEOUT).'
)
target_version_option = click.option(
    "--target-version", metavar="VERSION", callback=word, help="The runtime to be installed."
)
runtime_option = click.option(
    "--runtime", metavar="PATH", callback=given_path, help="The Codex binary that resumes checkpoints on trial."
)
warnings_as_ok_option = click.option("--warnings-as-ok", is_flag=True, help="Exit 0 where the verdict is warn.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
