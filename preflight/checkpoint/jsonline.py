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

__all__ = ["decode", "encode"]

_Kind = TypeVar("_Kind")


class _RawPath(msgspec.Struct):
    text: str
    b64: bytes


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


def _path_out(value: object) -> str | _RawPath:
    if not isinstance(value, PurePath):
        raise TypeError(f"a {type(value).__name__} has no form")
    raw = os.fsencode(value)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return _RawPath(text=raw.decode(errors="replace"), b64=raw)


def _value_in(kind: type[Any], value: Any) -> Any:  # noqa: ANN401  # msgspec's hook: any JSON value in, a `kind` out
    if kind is object:
        return value
    found = msgspec.convert(value, str | _RawPath)
    return kind(os.fsdecode(found.encode() if isinstance(found, str) else found.b64))
