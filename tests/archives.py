"""Rollouts of a few kilobytes that an archive cuts into many frames, and what `zstd` makes of the result."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from preflight.checkpoint import archive_source, zstd_frames
from preflight.checkpoint.archive import Appended, Archive, Proof
from preflight.checkpoint.generation import Generation
from preflight.checkpoint.zstd_frames import Shape
from preflight.system.deadline import Deadline
from tests.needs import cannot_be_had

__all__ = [
    "NAME",
    "add_lines",
    "append",
    "archive_file",
    "lines",
    "restored",
    "small_frames",
    "unpacked",
    "zstd_program",
]

NAME = "rollout-2026-05-30T09-00-00-0197a000-0000-7000-8000-000000000001.jsonl"


def small_frames(monkeypatch: pytest.MonkeyPatch, frame: int = 3000, gather: int = 2000) -> None:
    """Frames of about so many raw bytes instead of hundreds of megabytes."""
    shape = Shape(window_log=None, frame_bytes=frame, gather_bytes=gather)
    for module in (zstd_frames, archive_source):
        for name in ("PLAIN", "LONG"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, shape)


def lines(size: int, seed: int) -> bytes:
    """Records of 20 to 400 bytes, `size` bytes or one of them more."""
    choice = random.Random(seed)
    made = bytearray()
    while len(made) < size:
        text = "".join(choice.choices("abcdefgh ", k=choice.randint(0, 380)))
        made += b'{"n":%d,"t":"%s"}\n' % (len(made), text.encode())
    return bytes(made)


def add_lines(rollout: Path, size: int, seed: int) -> None:
    with rollout.open("ab") as file:
        file.write(lines(size, seed))


def append(archive: Archive, rollout: Path, prove: Proof = Proof.FULL, **settings: object) -> Appended:
    """Everything that the rollout has, without a limit of time."""
    settings = {"deadline": Deadline(None), "end": rollout.stat().st_size, **settings}
    return archive.append(rollout, prove=prove, **settings)


def restored(archive: Archive, done: Appended, length: int | None = None) -> bytes:
    target = io.BytesIO()
    archive.read(NAME, done.generation, done.raw_bytes if length is None else length, target)
    return target.getvalue()


def archive_file(folder: Path, generation: int = 1) -> Path:
    return Generation(folder, NAME, generation).data


def zstd_program() -> str:
    """The `zstd` of the machine; where the suite must be complete, its absence is a failure."""
    program = shutil.which("zstd")
    if program is None:
        cannot_be_had("there is no zstd program here")
    return program


def unpacked(path: Path) -> bytes:
    return subprocess.run([zstd_program(), "-dc", path], capture_output=True, check=True).stdout
