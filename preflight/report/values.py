"""Plain values as text: what a verb without a layout of its own returned.

Shapes: a mapping becomes one ``key  value`` line each, a list of mappings a table, anything else a
list. The last word of a key says what a number is: ``.._bytes`` a size, ``.._seconds`` a duration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path

from preflight.report.lines import Line, Style, columns, human_duration, human_size, line, wrapped

__all__ = ["cell", "described"]


def described(data: Mapping[str, object], *, indent: str = "") -> list[Line]:
    """`data` as lines; every block of more than one line has its title above it and a gap before it."""
    simple = [(_words(key), cell(key, value)) for key, value in data.items() if _is_simple(value)]
    lines = [line(text) for text in columns(simple, indent=indent)]
    for key, value in data.items():
        if not _is_simple(value):
            lines += [line(), line(indent, (_title(key), Style.STRONG)), *_block(key, value, indent + "  ")]
    return lines


def cell(key: str, value: object) -> str:
    """One value in the words of a person; `key` tells the unit of a number."""
    match value:
        case None:
            return "-"
        case True:
            return "yes"
        case False:
            return "no"
        case Enum():
            return str(value.value)
        case int() if key.endswith("bytes"):
            return human_size(value)
        case int() | float() if key.endswith("seconds"):
            return human_duration(round(value, 2))
        case int() | float():
            return f"{value:,}" if isinstance(value, int) else f"{value:,g}"
    return str(value)


def _block(key: str, value: object, indent: str) -> list[Line]:
    if isinstance(value, Mapping):
        return described(value, indent=indent)
    entries: Sequence[object] = value if isinstance(value, list | tuple) else (value,)
    if not entries:
        return [line(indent + "none")]
    rows = [entry for entry in entries if isinstance(entry, Mapping) and all(map(_is_simple, entry.values()))]
    if rows and len(rows) == len(entries):
        return _table(rows, indent)
    lines: list[Line] = []
    for entry in entries:
        if isinstance(entry, Mapping):
            lines += [*described(entry, indent=indent), line()]
        else:
            lines += wrapped(cell(key, entry), indent=indent + "  ", first=indent + "- ")
    return lines


def _table(entries: Sequence[Mapping[str, object]], indent: str) -> list[Line]:
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    numbers = {
        place
        for place, name in enumerate(names)
        if all(isinstance(entry.get(name), int | float) and entry.get(name) is not True for entry in entries)
    }
    head = [_words(name) for name in names]
    rows = [[cell(name, entry.get(name)) for name in names] for entry in entries]
    first, *rest = columns([head, *rows], indent=indent, right=numbers)
    return [line((first, Style.DIM)), *map(line, rest)]


def _is_simple(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | Enum | Path)


def _words(key: str) -> str:
    """``resume_bytes`` -> ``resume``: the unit stands beside the number."""
    return key.removesuffix("_bytes").removesuffix("_seconds").replace("_", " ")


def _title(key: str) -> str:
    words = _words(key)
    return words[:1].upper() + words[1:]
