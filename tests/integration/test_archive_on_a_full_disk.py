"""The store's disk runs full while a rollout is archived: a small one in memory, really full."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.archives import NAME, lines
from tests.small_disk import on_a_small_disk

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mount namespaces are Linux's")

ARCHIVE_IT = """
import io, json, os, sys
from pathlib import Path
from preflight.checkpoint import zstd_frames
from preflight.checkpoint.archive import Archive, Proof
from preflight.checkpoint.zstd_frames import Shape
from preflight.errors import NoSpace
from preflight.system.deadline import Deadline

zstd_frames.PLAIN = zstd_frames.LONG = Shape(window_log=None, frame_bytes=200_000, gather_bytes=100_000)
disk, rollout = Path(sys.argv[1]), Path(sys.argv[2])
archive = Archive(disk / "thread")
whole = rollout.read_bytes()
told = []

def tonight(end, proof):
    end = whole.rfind(b"\\n", 0, end) + 1
    before = archive.state(rollout.name)
    try:
        archive.append(rollout, end=end, prove=proof, deadline=Deadline(None))
        said = "done"
    except NoSpace as error:
        said = "no space" if error.needed_bytes else "no space, and it is not told how much"
    state = archive.state(rollout.name)
    length = state.raw_length if state else 0
    target = io.BytesIO()
    if state:
        archive.read(rollout.name, 1, length, target)
    kept = target.getvalue() == whole[:length] and length >= (before.raw_length if before else 0)
    told.append([said, kept, length == end, archive.generations(rollout.name)])

tonight(300_000, Proof.FULL)
tonight(330_000, Proof.TAIL)
filler = disk / "filler"
def fill(leave):
    with open(filler, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError:
            pass
    os.truncate(filler, max(filler.stat().st_size - leave, 0))
for leave in (0, 4096, 8192, 16384, 32768):
    fill(leave)
    tonight(len(whole), Proof.SAMPLED)
os.unlink(filler)
tonight(500_000, Proof.SAMPLED)
print(json.dumps({"nights": told, "left": sorted(os.listdir(disk / "thread")), "same": rollout.read_bytes() == whole}))
"""


def test_what_was_published_stays_and_with_room_it_goes_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    rollout = tmp_path / NAME
    rollout.write_bytes(lines(2_000_000, seed=1))

    told = json.loads(on_a_small_disk(disk, "300k", ARCHIVE_IT, disk, rollout))

    nights = told["nights"]
    assert isinstance(nights, list)
    assert nights[:2] == [["done", True, True, [1]]] * 2
    assert nights[2:-1] == [["no space", True, False, [1]]] * 5
    assert nights[-1] == ["done", True, True, [1]]
    assert told["left"] == [f"{NAME}.frames.jsonl", f"{NAME}.zst"]
    assert told["same"] is True
