"""Listing every rollout of a crowded home with its size."""

from __future__ import annotations

import os
from pathlib import Path

from preflight.codex import rollout
from tests.benchmarks.measuring import Contender, here, paired
from tests.benchmarks.tables import Budget, Row, Table, at_most
from tests.benchmarks.workbench import Workbench

__all__ = ["listing"]

_SCAN, _FIND, _WALK = "rollout.scan", "find -printf '%s'", "os.walk and os.stat"


def listing(bench: Workbench) -> Table:
    scale = bench.scale
    home = bench.home("crowded-long", lambda: bench.long, scale.threads)
    case = f"{home.threads:,} rollouts"
    table = Table(
        "Listing rollouts with their sizes",
        [
            "Warm. `scan` and `os.walk` in this process, `find` as a whole process. `scan` also takes each name apart",
            "and keeps which file it is (device, inode, time), for every later question.",
        ],
    )
    find = bench.shell("exec find \"$1\" -name 'rollout-*.jsonl' -printf '%s\\n'", home.path / "sessions")
    measured = paired(
        {
            _SCAN: Contender(lambda: here(lambda: _scanned(home.path))),
            _FIND: bench.launcher.contender(find),
            _WALK: Contender(lambda: here(lambda: _walked(home.path / "sessions"))),
        },
        scale.rounds,
    )
    ours = measured[_SCAN]
    table.rows.append(Row(case, _SCAN, ours, at_most(ours.median * 1000, 40, " ms")))
    for program in (_FIND, _WALK):
        ratio = ours.times(measured[program])
        table.rows.append(Row(case, program, measured[program], Budget(f"scan takes {ratio:.3g} x of it")))
    answers = {answer for program in (_SCAN, _WALK) for answer in measured[program].answers}
    table.check("scan and os.walk find the same number of files and bytes", len(answers) == 1)
    count, _ = _scanned(home.path)
    table.check(f"and these are {home.threads:,} files", count == home.threads)
    return table


def _scanned(home: Path) -> tuple[int, int]:
    found = rollout.scan(home)
    return len(found.files), sum(file.size_bytes for file in found.files)


def _walked(folder: Path) -> tuple[int, int]:
    sizes = [
        os.stat(os.path.join(place, name)).st_size  # noqa: PTH116, PTH118 -- as fast as Python does it without us
        for place, _, names in os.walk(folder)
        for name in names
    ]
    return len(sizes), sum(sizes)
