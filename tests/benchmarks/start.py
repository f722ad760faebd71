"""How long a call takes before it does anything."""

from __future__ import annotations

from tests.benchmarks.measuring import paired
from tests.benchmarks.tables import Row, Table, at_most
from tests.benchmarks.workbench import Workbench

__all__ = ["start"]

_PYTHON, _VERSION, _CHECK = "python -c pass", "preflight --version", "preflight check --json"


def start(bench: Workbench) -> Table:
    home = bench.home("tiny", lambda: bench.short, 3)
    table = Table(
        "Start",
        [
            "Whole processes, warm, of the interpreter that runs the benchmarks. The home has 3 threads, one goal.",
        ],
    )
    measured = paired(
        {
            _PYTHON: bench.launcher.contender(bench.python("pass")),
            _VERSION: bench.launcher.contender(bench.preflight("--version")),
            _CHECK: bench.launcher.contender(bench.preflight("check", "--json", home=home)),
        },
        3 * bench.scale.rounds,
    )
    table.rows.append(Row("no home", _PYTHON, measured[_PYTHON]))
    for case, program, limit in (("no home", _VERSION, 6), ("a small home", _CHECK, 15)):
        ratio = measured[program].times(measured[_PYTHON])
        table.rows.append(Row(case, program, measured[program], at_most(ratio, limit, " x python")))
    table.check("check gives a verdict", set(measured[_CHECK].answers) <= {0, 3, 10})
    return table
