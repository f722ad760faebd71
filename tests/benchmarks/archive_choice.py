"""What the archive's level, frame size and window were chosen from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.benchmarks.archive_rollouts import KINDS, write_growing
from tests.benchmarks.measuring import Contender, Sample, paired
from tests.benchmarks.tables import Budget, Row, Table
from tests.benchmarks.workbench import Workbench, amount

__all__ = ["SHAPES", "archive_choice"]

#: Level, window (the level's own, else with long-distance matching), MiB of a frame.
SHAPES: Mapping[str, tuple[int, int | None, int]] = {
    "level 1, frames of 128 MiB": (1, None, 128),
    "level 2, frames of 128 MiB": (2, None, 128),
    "level 3, frames of 16 MiB": (3, None, 16),
    "level 3, frames of 128 MiB (chosen for short lines)": (3, None, 128),
    "level 9, frames of 128 MiB": (9, None, 128),
    "level 3, window of 32 MiB, frames of 512 MiB": (3, 25, 512),
    "level 3, window of 64 MiB, frames of 512 MiB": (3, 26, 512),
    "level 3, window of 128 MiB, frames of 128 MiB": (3, 27, 128),
    "level 1, window of 128 MiB, frames of 512 MiB": (1, 27, 512),
    "level 3, window of 128 MiB, frames of 512 MiB (chosen for long lines)": (3, 27, 512),
}

_PACK = """
import sys
from pathlib import Path
from preflight.checkpoint.zstd_frames import Shape, pack
from preflight.system.deadline import Deadline

level, window, frame = (int(word) for word in sys.argv[2:])
shape = Shape(window_log=window or None, frame_bytes=frame << 20, gather_bytes=0, level=level)
stored = at = 0
with Path(sys.argv[1]).open("rb", buffering=0) as file:
    end = Path(sys.argv[1]).stat().st_size
    while at < end:
        made = pack(file.fileno(), at, end, shape, lambda data: None, enough=at + shape.frame_bytes,
                    deadline=Deadline(None), seen=lambda position: None)
        at += made.raw_length
        stored += made.stored_length
print(stored)
"""


def archive_choice(bench: Workbench) -> Table:
    table = Table(
        "The choice of level, window and frames",
        [
            "Whole processes that read, hash and compress, and write nothing. The archive may not take more bytes than",
            "`borg create -C zstd,3` does, so the level is 3. A window is the memory that unpacking takes, too.",
        ],
    )
    for kind in KINDS:
        folder = bench.folder / "choice"
        folder.mkdir()
        source, longer = folder / f"{kind}.jsonl", folder / "longer.jsonl"
        bench.say(f"writing a rollout of {amount(bench.scale.archived)}: {kind}")
        write_growing(source, longer, kind, bench.scale.archived, bench.scale.added)
        longer.unlink()
        contenders = {name: Contender(partial(_packed, bench, source, *shape)) for name, shape in SHAPES.items()}
        for name, measured in paired(contenders, 1, warm_up=False).items():
            stored = measured.answers[0]
            assert isinstance(stored, int)
            share = stored / source.stat().st_size
            table.rows.append(Row(kind, name, measured, Budget(f"{stored / 1e6:.1f} MB, {share:.1%}")))
        shutil.rmtree(folder)
    return table


def _packed(bench: Workbench, source: Path, level: int, window_log: int | None, frame_mib: int) -> Sample:
    """The answer is how many bytes it became."""
    output = bench.folder / "stored"
    process = bench.python(_PACK, source, str(level), str(window_log or 0), str(frame_mib))
    sample = bench.launcher.run(replace(process, output=output))
    return replace(sample, answer=int(output.read_text()))
