"""`checkpoint --if-changed` on a large home of which nothing has changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.benchmarks.crowded_homes import CrowdedHome
from tests.benchmarks.measuring import paired
from tests.benchmarks.tables import Row, Table, at_most
from tests.benchmarks.workbench import Workbench, amount, read_json

__all__ = ["unchanged_home"]

_NAME = "unchanged"
_LIMIT_SECONDS, _LIMIT_MB = 2, 80


def unchanged_home(bench: Workbench) -> Table:
    scale = bench.scale
    bench.long.only(scale.near)
    home = bench.home(_NAME, lambda: bench.long, scale.threads)
    size = _made_sparse(home, scale.crowded)
    table = Table(
        f"`checkpoint --if-changed`, {scale.threads:,} threads, {amount(size)}",
        [
            "Whole processes, warm. The rollouts are sparse: most of each is a hole in its middle. One has a goal, and",
            "the newest checkpoint holds it; nothing has changed since, so nothing is written.",
        ],
    )
    output = bench.folder / "said.json"
    bench.launcher.run(bench.preflight("checkpoint", "--json", home=home, output=output))
    table.check("the first checkpoint is made", _outcome(output) == "made")
    process = bench.preflight("checkpoint", "--if-changed", "--json", home=home, output=output)
    program = "preflight checkpoint --if-changed --json"
    measured = paired({program: bench.launcher.contender(process)}, scale.rounds)[program]
    case = f"{scale.threads:,} threads"
    table.rows.append(Row(case, program, measured, at_most(measured.median, _LIMIT_SECONDS, " s")))
    peak = (measured.peak_bytes or 0) / 1e6
    table.rows.append(Row(f"{case}: peak memory", program, measured, at_most(peak, _LIMIT_MB, " MB")))
    table.check("and the later ones find nothing changed", _outcome(output) == "unchanged")
    shutil.rmtree(bench.store)
    bench.remove_home(_NAME)
    return table


def _made_sparse(home: CrowdedHome, size: int) -> int:
    """Put a hole into the middle of every small rollout, so that the home has that size; how many bytes it has then."""
    small = [path for path in (home.path / "sessions").rglob("*.jsonl") if path != home.goal_rollout]
    each = (size - home.goal_rollout.stat().st_size) // len(small)
    for path in small:
        last = b"\n" + path.read_bytes().splitlines(keepends=True)[-1]
        os.truncate(path, each - len(last))
        with path.open("ab") as file:
            file.write(last)
    return sum(path.stat().st_size for path in (*small, home.goal_rollout))


def _outcome(output: Path) -> str:
    return str(read_json(output)["data"]["checkpointed"][0]["outcome"])
