"""A frozen value as one line of JSON, and the same value back.

A path is a string when its bytes are UTF-8, else `{"text": <to be read by people>, "b64": <its bytes>}`.
Keys that nobody asks for are passed over: a later version may add some.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from typing import Any, TypeVar

import msgspec

from preflight.errors import DamagedFile, Unverified

__all__ = ["RawPath", "WrittenPath", "decode", "encode", "path_of", "written_path"]

_Kind = TypeVar("_Kind")


class RawPath(msgspec.Struct, frozen=True):
    """A path that is not UTF-8: `text` is for people, `b64` are its bytes."""

    text: str
    b64: bytes


#: A path as it is written. A value that holds thousands of paths keeps them so: msgspec reads these by itself.
WrittenPath = str | RawPath


def encode(value: object, path: Path | None = None) -> bytes:
    """One line, newline included; Unverified when it holds what JSON cannot. `path` is only named in errors."""
    try:
        return msgspec.json.encode(value, enc_hook=_path_out) + b"\n"
    except (TypeError, UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise Unverified(f"this cannot be written as JSON: {error}", path=path) from error


def decode(data: bytes, kind: type[_Kind], path: Path | None = None) -> _Kind:
    """The value of that kind; DamagedFile when the bytes are not one. `path` is only named in errors.

    `kind` is what msgspec knows, a dataclass most likely; of other types in it only paths and `object`.
    """
    try:
        return msgspec.json.decode(data, type=kind, dec_hook=_value_in)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedFile(f"the record is damaged: {error}", path=path) from error


def written_path(path: str | PurePath) -> WrittenPath:
    """A path as it is written."""
    raw = os.fsencode(path)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return RawPath(text=raw.decode(errors="replace"), b64=raw)


def path_of(written: WrittenPath) -> str:
    """The path that was written, as the system's calls take it."""
    return os.fsdecode(written.encode() if isinstance(written, str) else written.b64)


def _path_out(value: object) -> WrittenPath:
    if not isinstance(value, PurePath):
        raise TypeError(f"a {type(value).__name__} has no form")
    return written_path(value)


def _value_in(kind: type[Any], value: Any) -> Any:  # noqa: ANN401  # msgspec's hook: any JSON value in, a `kind` out
    if kind is object:
        return value
    return kind(path_of(msgspec.convert(value, WrittenPath)))
