"""Lines of text with the meaning of their parts, and two ways to put them on a screen.

A line is a sequence of (text, style) parts; a style names a meaning (`block`, `warn`, `dim` ...), not
a colour. Without colour the parts are joined; with colour rich paints the same characters, so that
both ways differ in nothing but escape sequences. Only `paint` imports rich.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from preflight.report import printable

__all__ = ["Line", "Style", "bare", "columns", "human_duration", "human_size", "line", "paint", "wrapped"]

WIDTH = 80


class Style(StrEnum):
    PLAIN = ""
    PROCEED = "bold green"
    WARN = "bold yellow"
    BLOCK = "bold red"
    STRONG = "bold"
    DIM = "dim"
    COMMAND = "cyan"


@dataclass(frozen=True, slots=True)
class Line:
    parts: tuple[tuple[str, Style], ...] = ()

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.parts).rstrip()


def line(*parts: str | tuple[str, Style]) -> Line:
    """A line of parts; a bare string is a part without a style. Control characters are made visible."""
    pairs = [(part, Style.PLAIN) if isinstance(part, str) else part for part in parts]
    return Line(tuple((printable(text), style) for text, style in pairs))


def wrapped(text: str, *, indent: str = "", first: str | None = None, style: Style = Style.PLAIN) -> list[Line]:
    """`text` in lines of at most 80 columns; words and paths are never broken, so that they can be copied."""
    broken = textwrap.wrap(
        printable(text),
        width=WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line((part, style)) for part in broken]


def columns(rows: Sequence[Sequence[str]], *, indent: str = "", right: Iterable[int] = ()) -> list[str]:
    """Rows as aligned columns, two spaces apart; the columns named in `right` are flushed right."""
    flushed = set(right)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        (
            indent
            + "  ".join(
                cell.rjust(width) if place in flushed else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        ).rstrip()
        for row in rows
    ]


def human_size(size: int) -> str:
    """``3.06 GB``: three digits and a decimal unit, as the size classes count."""
    if size < 1000:
        return f"{size} B"
    amount = float(size)
    for unit in ("kB", "MB", "GB", "TB"):
        amount /= 1000
        if amount < 999.5 or unit == "TB":
            break
    digits = 0 if amount >= 99.95 else 1 if amount >= 9.995 else 2
    return f"{amount:.{digits}f} {unit}"


def human_duration(seconds: float) -> str:
    """``90 s``, ``5 min``, ``48 h``: in the largest unit that leaves no rest, as preflight.toml reads it."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"


def bare(lines: Iterable[Line]) -> str:
    return "".join(each.text + "\n" for each in lines)


def paint(lines: Iterable[Line]) -> str:
    """The same characters with escape sequences for a terminal."""
    import io

    from rich.console import Console
    from rich.text import Text

    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=True, color_system="standard", highlight=False, soft_wrap=True)
    for each in lines:
        console.print(Text.assemble(*each.parts), soft_wrap=True)
    return buffer.getvalue()
