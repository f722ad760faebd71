"""The boundary search in process against reading the same bytes, and against `tac | grep -m1`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from preflight.codex import boundary
from preflight.model import Tail
from tests.benchmarks.long_rollouts import LongRollout
from tests.benchmarks.measuring import Contender, Measured, Sample, forget, here, paired
from tests.benchmarks.tables import Budget, Row, Table, at_least, at_most
from tests.benchmarks.workbench import Workbench, amount

__all__ = ["boundary_search"]

_HEAD = r'^\{"timestamp":"[^"]*",("ordinal":[0-9]+,)?"type":"compacted"'
_OURS, _TAC, _CAT, _LOOP = "read_tail", "tac | grep -m1 -E", "cat, from the boundary on", "read loop, the same bytes"
_MEMORY, _FLOOR = "read_tail, whole process", "the same imports alone"
_BLOCK = 1 << 20

_IMPORTS = "import sys, preflight.codex.boundary as b, preflight.model as m, preflight.system.files as f, pathlib"
_SEARCH = """
path = pathlib.Path(sys.argv[1])
file = m.RolloutFile(place=sys.argv[1], thread_id="", segment_id=None, stamp="", archived=False, compressed=False,
                     identity=f.identity(path))
with b.opened((m.Segment(file=file, end_offset=None),)) as files:
    b.read_tail(files)
"""


@dataclass(frozen=True, slots=True)
class _Case:
    """A rollout with one compaction switched on; `faster` is what the budget asks for, warm and cold."""

    name: str
    rollout: LongRollout
    distance: int | None
    faster_warm: float | None
    faster_cold: float | None
    longest_line: int

    @property
    def start(self) -> int:
        return 0 if self.distance is None else self.rollout.compactions[self.distance].turn_at


def boundary_search(bench: Workbench) -> Table:
    table = Table(
        "The boundary search",
        [
            "`read_tail` is timed in this process; `tac | grep` and `cat` are whole processes, which costs them about",
            "2 ms. `cat` and the loop read only the bytes from the boundary to the end: how fast any search could be.",
            "Cold means out of the system's cache. `read_tail` gives more than `grep`: the whole boundary rule, with",
            "rollbacks and settings, and the state of the newest turn.",
        ],
    )
    for case in _cases(bench):
        case.rollout.only(case.distance)
        for cold in (False, True):
            _compare(bench, table, case, cold=cold)
        _measure_memory(bench, table, case)
        found = _search(case.rollout)
        table.check(f"{case.name}: the boundary is where it was put", _offset(found) == _expected(case))
    _check_torn(bench, table)
    return table


def _cases(bench: Workbench) -> list[_Case]:
    scale, text, images = bench.scale, bench.long, bench.images
    size, line = amount(text.size_bytes), 4_000_300
    cases = [
        _Case(f"{size}, boundary {amount(distance)} from the end", text, distance, faster, cold, line)
        for distance, faster, cold in ((scale.near, None, None), (scale.middle, 3.5, 2.2), (scale.far, 3.5, 2.2))
    ]
    cases.append(_Case(f"{size}, no boundary", text, None, 3.5, 2.2, line))
    longest, count = max(scale.image_lines), len(scale.image_lines)
    size = f"{count} lines of up to {amount(longest)}"
    cases.append(_Case(f"{size}, boundary at the newest", images, 1, None, None, longest))
    cases.append(_Case(f"{size}, boundary at the oldest", images, count, 20, None, longest))
    return cases


def _search(rollout: LongRollout) -> Tail:
    with boundary.opened(rollout.lineage) as files:
        return boundary.read_tail(files)


def _offset(tail: Tail) -> int | None:
    return None if tail.boundary is None else tail.boundary.offset


def _expected(case: _Case) -> int | None:
    return None if case.distance is None else case.start


def _compare(bench: Workbench, table: Table, case: _Case, *, cold: bool) -> None:
    path = case.rollout.path
    # grep ends with 1 when there is nothing to find.
    tac = bench.shell(f"tac \"$1\" | grep -m1 -E '{_HEAD}' >/dev/null", path, statuses=frozenset({0, 1}))
    cat = replace(bench.shell("exec cat"), stdin=path, offset=case.start)
    runs: Mapping[str, Callable[[], Sample]] = {
        _OURS: lambda: here(lambda: _search(case.rollout)),
        _TAC: lambda: bench.launcher.run(tac),
        _CAT: lambda: bench.launcher.run(cat),
        _LOOP: lambda: here(lambda: _read(case)),
    }
    prepare: Callable[[], object] = (lambda: forget(path)) if cold else (lambda: None)
    measured = paired(
        {name: Contender(run, prepare) for name, run in runs.items()}, bench.scale.rounds, warm_up=not cold
    )
    ours = measured[_OURS]
    faster = case.faster_cold if cold else case.faster_warm
    name = f"{case.name}, {'cold' if cold else 'warm'}"
    for program in runs:
        table.rows.append(Row(name, program, measured[program], _against(program, measured[program], ours, faster)))


def _against(program: str, measured: Measured, ours: Measured, faster: float | None) -> Budget:
    ratio = measured.times(ours)
    if program == _OURS:
        return Budget("")
    if program == _TAC and faster is not None:
        return at_least(ratio, faster, " x read_tail")
    return Budget(f"{ratio:.3g} x read_tail")


def _read(case: _Case) -> None:
    buffer = memoryview(bytearray(_BLOCK))
    descriptor = os.open(case.rollout.path, os.O_RDONLY)
    try:
        position = case.start
        while got := os.preadv(descriptor, [buffer], position):
            position += got
    finally:
        os.close(descriptor)


def _measure_memory(bench: Workbench, table: Table, case: _Case) -> None:
    """Of a process that does nothing else, and of one that does not even do that."""
    search = bench.launcher.contender(bench.python(_IMPORTS + _SEARCH, case.rollout.path))
    imports = bench.launcher.contender(bench.python(_IMPORTS))
    measured = paired({_MEMORY: search, _FLOOR: imports}, 1)
    needed = (measured[_MEMORY].peak_bytes or 0) - (measured[_FLOOR].peak_bytes or 0)
    limit = 25 + case.longest_line / 1e6
    table.rows.append(Row(case.name, _MEMORY, measured[_MEMORY], at_most(needed / 1e6, limit, " MB more")))
    table.rows.append(Row(case.name, _FLOOR, measured[_FLOOR]))


def _check_torn(bench: Workbench, table: Table) -> None:
    """Behind the last compaction stands one that a crash has torn: grep takes it, Codex and we do not."""
    rollout = bench.short
    compaction = rollout.only(bench.scale.near)
    assert compaction is not None
    torn = bench.folder / "torn.jsonl"
    with rollout.path.open("rb") as whole:
        data = whole.read()
    end = data.index(b"\n", compaction.line_at)
    torn.write_bytes(data + data[compaction.line_at : end - 20] + b"\n")
    found = _search(replace(rollout, path=torn))
    torn.unlink()
    table.check("a torn compaction is passed over, where grep takes it", _offset(found) == compaction.turn_at)
