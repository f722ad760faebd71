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
import sys
from pathlib import Path
from preflight.checkpoint import archive_source, zstd_frames
from preflight.checkpoint.archive import Archive, Proof
from preflight.system.deadline import Deadline

zstd_frames.PLAIN = zstd_frames.Shape(window_log=None, frame_bytes=100 << 20, gather_bytes=0)
zstd_frames.LONG = archive_source.LONG = zstd_frames.Shape(window_log=27, frame_bytes=100 << 20, gather_bytes=0)
rollout = Path(sys.argv[1])
Archive(Path(sys.argv[2])).append(rollout, end=rollout.stat().st_size, prove=Proof.FULL, deadline=Deadline(None))
"""
VERIFY_IT = """
import sys
from pathlib import Path
from preflight.checkpoint.archive import Archive
from preflight.system.deadline import Deadline

assert not Archive(Path(sys.argv[2])).verify(Path(sys.argv[1]).name, 1, deadline=Deadline(None)).damage
"""
RESTORE_IT = """
import sys
from pathlib import Path
from preflight.checkpoint.archive import Archive

rollout = Path(sys.argv[1])
with rollout.with_name("restored").open("xb") as target:
    Archive(Path(sys.argv[2])).read(rollout.name, 1, rollout.stat().st_size, target)
"""
TELL_MEMORY = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


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
@pytest.mark.parametrize(("size", "window_kib"), [(25 * MB, 128 << 10), (40_000, 128 << 10), (0, 0)])
def test_memory_stays_below_its_limit(tmp_path: Path, size: int, window_kib: int) -> None:
    """Of several frames with a large window, too, one is unpacked at a time: there is memory for one window."""
    path = tmp_path / NAME
    if size:
        compactions(path, 400 * MB // (size + 100_000), size)
    else:
        path.write_bytes(lines(4 * MB, seed=1) * 100)
    memory = [peak_kib(program, path, tmp_path / "thread") for program in (ARCHIVE_IT, VERIFY_IT, RESTORE_IT)]
    assert memory[0] < 384_000
    assert max(memory[1:]) < 80_000 + window_kib
    state = Archive(tmp_path / "thread").state(NAME)
    assert state is not None
    assert len(state.frames) > 2


def peak_kib(program: str, rollout: Path, folder: Path) -> int:
    command = ["sh", "-c", '"$@"', "sh", sys.executable, "-c", program + TELL_MEMORY, rollout, folder]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    return int(done.stdout)
