"""Who has a rollout open for writing: one question to the kernel against looking through every process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from preflight.model import Answer
from preflight.system import processes
from tests.benchmarks.measuring import Contender, Sample, here, paired
from tests.benchmarks.tables import Budget, Row, Table, at_most
from tests.benchmarks.workbench import Workbench

__all__ = ["open_file"]

_PROBE, _SCAN, _PSUTIL = "open_for_writing", "holders (names the processes)", "psutil open_files of all"
_TOOLS = {"lsof": 'lsof -t -- "$1"', "fuser": 'fuser -s "$1"'}
_WRITER = "import sys; file = open(sys.argv[1], 'ab'); print(flush=True); sys.stdin.read()"


def open_file(bench: Workbench) -> Table:
    path = bench.folder / "open.jsonl"
    path.write_bytes(b"{}\n" * 1000)
    table = Table(
        f"Who has the file open, {len(psutil.pids())} processes",
        [
            "The first three in this process, warm; `lsof` and `fuser` are whole processes. `holders` is asked only",
            "when `open_for_writing` has said yes. `psutil`, `lsof` and `fuser` do not ask what the file is open for.",
        ],
    )
    _measure(bench, table, "nobody has it open", path, taken=False)
    with _writer(path):
        _measure(bench, table, "another process writes to it", path, taken=True)
    return table


@contextmanager
def _writer(path: Path) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield
        finally:
            child.communicate()


def _measure(bench: Workbench, table: Table, case: str, path: Path, *, taken: bool) -> None:
    runs: dict[str, Callable[[], Sample]] = {
        _PROBE: lambda: here(lambda: processes.open_for_writing(path) is Answer.YES),
        _SCAN: lambda: here(lambda: bool(processes.holders(path))),
        _PSUTIL: lambda: here(lambda: _psutil_finds(path)),
    }
    # Both end with 1 when nobody has the file open.
    tools = {
        name: bench.shell(f"exec {script} >/dev/null", path, statuses=frozenset({0 if taken else 1}))
        for name, script in _TOOLS.items()
        if _is_installed(name)
    }
    runs |= {name: (lambda tool=tool: bench.launcher.run(tool)) for name, tool in tools.items()}  # type: ignore[misc]
    measured = paired({name: Contender(run) for name, run in runs.items()}, bench.scale.rounds)
    probe = measured[_PROBE]
    for program in (*runs, *(name for name in _TOOLS if name not in tools)):
        if program not in measured:
            table.rows.append(Row(case, program, skipped="not installed"))
        elif program == _PROBE:
            table.rows.append(Row(case, program, probe, at_most(probe.median * 1000, 1, " ms")))
        else:
            table.rows.append(Row(case, program, measured[program], Budget(f"{measured[program].times(probe):,.0f} x")))
    answers = {answer for program in (_PROBE, _SCAN, _PSUTIL) for answer in measured[program].answers}
    table.check(f"{case}: all programs say so", answers == {taken})


def _psutil_finds(path: Path) -> bool:
    wanted = os.path.realpath(path)
    found = False
    for process in psutil.process_iter():
        try:
            found = any(file.path == wanted for file in process.open_files()) or found
        except psutil.Error:
            continue
    return found


def _is_installed(name: str) -> bool:
    return any(os.access(Path(folder, name), os.X_OK) for folder in os.environ["PATH"].split(os.pathsep))
