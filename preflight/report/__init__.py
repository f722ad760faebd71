"""The only place that prints: what a verb returned, as text for people or as one JSON object.

    text      plain sentences first, readable without colour at 80 columns
    json      the envelope of the contract
    (here)    what both need: the exit code of a result, a call that failed, writing to a stream

stdout carries the answer and nothing else; progress, questions and errors for people go to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # the values of the stages take longer to import than `--version` to answer
    from preflight.model import Result
    from preflight.report.progress import Progress

__all__ = [
    "EXIT_WORDS",
    "Answer",
    "Failure",
    "Printed",
    "encoded",
    "exit_code_of",
    "printable",
    "tell",
    "wants_colour",
    "watch",
    "write_out",
]

EXIT_WORDS = {
    0: "proceed",
    1: "internal error",
    2: "usage",
    3: "warn",
    10: "block",
    11: "locked",
    12: "unverified",
    13: "unsupported",
    75: "try later",
}

_EXIT_OF_VERDICT = {None: 0, "proceed": 0, "warn": 3, "block": 10}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A call that ended without a result: `code` is the stable word of the error, `message` one sentence.

    `verdict` is `block` where the verb would have given a verdict, or where it could not be told
    which verb was meant: a caller that reads nothing else must not take a failure for a yes.
    """

    command: str | None
    code: str
    message: str
    hint: str | None
    exit_code: int
    verdict: str | None


@dataclass(frozen=True, slots=True)
class Printed:
    """What the command line answers by itself: help, version, completion."""

    command: str | None
    text: str


Answer: TypeAlias = "Result | Failure | Printed"


def exit_code_of(answer: Answer) -> int:
    """The exit code that the verb or the error named, else the one of the verdict (design, section 5.2)."""
    if isinstance(answer, Printed):
        return 0
    if answer.exit_code is not None:
        return answer.exit_code
    return _EXIT_OF_VERDICT[answer.verdict]


def wants_colour(choice: str, env: Mapping[str, str]) -> bool:
    """`always`, `never`, or `auto`: on a terminal that can, unless NO_COLOR is set."""
    if choice != "auto":
        return choice == "always"
    return sys.stdout is not None and sys.stdout.isatty() and not env.get("NO_COLOR") and env.get("TERM") != "dumb"


def encoded(text: str) -> bytes:
    """`text` as stdout wants it; what its encoding does not have is written as an escape."""
    return text.encode(getattr(sys.stdout, "encoding", None) or "utf-8", "backslashreplace")


def printable(text: str) -> str:
    """`text` without anything that moves a cursor, changes a colour or turns the reading direction.

    File names and versions come from other programs; a terminal must not take orders from them.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def write_out(content: bytes) -> None:
    """Writes the whole answer to stdout and flushes it. Raises OSError: an answer that did not arrive is none.

    A caller that gave us no stdout at all wants the exit code only. After an error stdout leads
    nowhere, so that the interpreter does not complain once more at its end.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise


def tell(line: str) -> None:
    """One line on stderr. A stderr that is closed or full is no reason to end the work: the line is lost."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return


def watch() -> Progress:
    """How far a long work is, for a person; see `progress`."""
    from preflight.report.progress import Progress

    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    return Progress(tell, _write_over if on_terminal else None)


def _write_over(line: str) -> None:
    """`line` in place of what stands in the terminal's last line; an empty one leaves it empty."""
    try:
        sys.stderr.write("\r" + line[:79].ljust(79) + ("" if line else "\r"))
        sys.stderr.flush()
    except (OSError, ValueError):
        return
