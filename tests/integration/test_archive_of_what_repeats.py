"""What repeats tens of megabytes away is stored once, in bounded memory, and `zstd -d` reads it all the same."""

from __future__ import annotations

import base64
import random
import subprocess
import sys
from pathlib import Path

import pytest

from preflight.checkpoint.archive import Archive, Proof
from preflight.checkpoint.zstd_frames import LONG, PLAIN, shape_of
from tests.archives import NAME, append, archive_file, lines, unpacked

MB = 1_000_000

ARCHIVE_IT = """
import resource, sys
from pathlib import Path
from preflight.checkpoint.archive import Archive, Proof
from preflight.system.deadline import Deadline

rollout = Path(sys.argv[1])
Archive(Path(sys.argv[2])).append(rollout, end=rollout.stat().st_size, prove=Proof.FULL, deadline=Deadline(None))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def picture(size: int, seed: int) -> bytes:
    return base64.b64encode(random.Random(seed).randbytes(size * 3 // 4))


def compactions(path: Path, count: int, size: int) -> None:
    """The same picture and something new on each line."""
    kept = picture(size, seed=0)
    with path.open("ab") as file:
        for number in range(count):
            file.write(b'{"type":"compacted","payload":["' + kept + b'","' + picture(100_000, number + 1) + b'"]}\n')


def test_long_lines_are_told_from_short_ones(tmp_path: Path) -> None:
    path = tmp_path / NAME
    compactions(path, 4, 3 * MB)
    text = path.with_name("text")
    text.write_bytes(lines(5 * MB, seed=1))
    empty = path.with_name("empty")
    empty.write_bytes(b"{}\n")
    for rollout, shape in ((path, LONG), (text, PLAIN), (empty, PLAIN)):
        with rollout.open("rb") as file:
            assert shape_of(file.fileno(), 0, rollout.stat().st_size) is shape


def test_a_picture_is_stored_once_and_each_night_adds_what_is_new(tmp_path: Path) -> None:
    path, folder = tmp_path / NAME, tmp_path / "thread"
    compactions(path, 3, 20 * MB)
    done = append(Archive(folder), path)
    assert done.stored_bytes < 20 * MB * 0.8
    compactions(path, 1, 20 * MB)
    done = append(Archive(folder), path, Proof.SAMPLED)
    assert done.new_raw_bytes > 20 * MB
    assert done.new_stored_bytes < 1 * MB
    assert unpacked(archive_file(folder)) == path.read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
@pytest.mark.parametrize("size", [25 * MB, 40_000])
def test_memory_stays_below_its_limit(tmp_path: Path, size: int) -> None:
    path = tmp_path / NAME
    compactions(path, 400 * MB // (size + 100_000), size)
    command = ["sh", "-c", '"$@"', "sh", sys.executable, "-c", ARCHIVE_IT, path, tmp_path / "thread"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 384_000
