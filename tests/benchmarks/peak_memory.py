"""Peak memory of `check` and `run`, which must not depend on the size of a thread."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from preflight.codex import boundary
from tests.benchmarks.long_rollouts import LongRollout, write_with_hole
from tests.benchmarks.measuring import paired
from tests.benchmarks.tables import Row, Table, at_most
from tests.benchmarks.workbench import Workbench, amount

__all__ = ["peak_memory"]

_LIMIT_MB = 80
_LONGEST_TEXT_LINE = 4_000_300


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    place: str
    rollout: LongRollout
    distance: int | None
    longest_line: int
    calls: tuple[str, ...] = ("check --json", "run --archive never --json")


def peak_memory(bench: Workbench) -> Table:
    scale = bench.scale
    table = Table(
        "Peak memory",
        [
            "Whole processes (`ru_maxrss`), a home of 3 threads. The sparse file is the beginning of the long one, a",
            f"hole, and its last {amount(scale.sparse_tail)}: a hole reads as NUL bytes, so this is a thread with a",
            "damaged middle. The boundary lies behind the hole, which therefore need not be read; without one `check`",
            "reads through all of it. (`run` would then copy everything.)",
        ],
    )
    bench.long.only(scale.middle)
    sparse = write_with_hole(bench.folder / "sparse.jsonl", bench.long, scale.sparse, scale.sparse_tail)
    longest_image = max(scale.image_lines)
    hole = f"{amount(scale.sparse)}, sparse"
    for case in (
        _Case(amount(scale.long), "small", bench.long, scale.middle, _LONGEST_TEXT_LINE),
        _Case(f"{amount(scale.long)}, no boundary", "small", bench.long, None, _LONGEST_TEXT_LINE, ("check --json",)),
        _Case(hole, "sparse", sparse, scale.middle, _LONGEST_TEXT_LINE),
        _Case(f"{hole}, no boundary", "sparse", sparse, None, _LONGEST_TEXT_LINE, ("check --json",)),
        _Case(f"images, longest line {amount(longest_image)}", "images", bench.images, 1, longest_image),
    ):
        case.rollout.only(case.distance)
        _measure(bench, table, case)
    sparse.only(scale.middle)
    with boundary.opened(sparse.lineage) as files:
        tail = boundary.read_tail(files)
    expected = sparse.compactions[scale.middle].turn_at
    found = tail.boundary is not None and tail.boundary.offset == expected
    table.check("the boundary behind the hole is found", found)
    table.check("and the hole is not read for it", tail.scanned_bytes <= scale.sparse_tail)
    if bench.store.exists():
        shutil.rmtree(bench.store)
    for place in ("sparse", "images"):
        bench.remove_home(place)
    sparse.path.unlink()
    return table


def _measure(bench: Workbench, table: Table, case: _Case) -> None:
    home = bench.home(case.place, lambda: case.rollout, 3)

    def arrange() -> None:
        home.activate_goal()
        if bench.store.exists():
            shutil.rmtree(bench.store)

    verbs = {f"preflight {call}": bench.preflight(*call.split(), home=home) for call in case.calls}
    measured = paired(
        {program: bench.launcher.contender(process, arrange) for program, process in verbs.items()},
        min(3, bench.scale.rounds),
    )
    limit = _LIMIT_MB + case.longest_line / 1e6
    for program in verbs:
        peak = (measured[program].peak_bytes or 0) / 1e6
        table.rows.append(Row(case.name, program, measured[program], at_most(peak, limit, " MB")))
