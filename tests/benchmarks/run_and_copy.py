"""`preflight run` against `cp` of what it keeps; the trial resume by itself."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.crowded_homes import CrowdedHome
from tests.benchmarks.measuring import Contender, Sample, paired
from tests.benchmarks.tables import Row, Table, at_most, within
from tests.benchmarks.workbench import VERSION, Workbench, amount, read_json

__all__ = ["run_and_copy"]

_RUN, _COPY, _TRIAL = "preflight run --archive never --json", "cp and sync", "trial resume, in a run of its own"
_WITH_ARCHIVE = "preflight run --json"


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    home: CrowdedHome
    distance: int


def run_and_copy(bench: Workbench) -> Table:
    scale = bench.scale
    table = Table(
        f"`run` on a goal thread of {amount(bench.long.size_bytes)}",
        [
            "Whole processes, warm. `run` finds the goal active, pauses it, writes a checkpoint, reads it back, proves",
            "that it gives the same history as the whole thread, and puts it on the disk; no Codex is on its PATH.",
            "`cp` copies the same resume rollout and the same databases and `sync` puts them on the disk: no search,",
            "no proof. The archive of the whole thread comes in addition, when time allows: it has a row of its own.",
            "The trial is timed by the run, from the start of Codex to its answer to `thread/resume`.",
        ],
    )
    small = bench.home("small", lambda: bench.long, 3)
    crowded = bench.home("crowded-long", lambda: bench.long, scale.threads)
    for name, home, distance in (
        ("3 threads", small, scale.near),
        ("3 threads", small, scale.middle),
        (f"{scale.threads:,} threads", crowded, scale.near),
    ):
        _compare(bench, table, _Case(f"{name}, boundary {amount(distance)} from the end", home, distance))
    bench.long.only(scale.near)
    _with_archive(bench, table, small)
    _trial(bench, table, small)
    _put_away(bench)
    return table


def _compare(bench: Workbench, table: Table, case: _Case) -> None:
    bench.long.only(case.distance)
    output, kept, copies = (bench.folder / name for name in ("said.json", "kept", "copies"))
    _arrange(bench, case.home)
    bench.launcher.run(bench.preflight("run", "--archive", "never", "--json", home=case.home, output=output))
    said = read_json(output)
    _check_answer(table, case, said)
    checkpoint = Path(said["data"]["checkpoint"]["path"]).parent
    names = _keep(checkpoint, kept)

    run = bench.preflight("run", "--archive", "never", "--json", home=case.home)
    copy = bench.shell('cp -- "$@" copies/ && sync copies/*', *names)
    measured = paired(
        {
            _RUN: bench.launcher.contender(run, lambda: _arrange(bench, case.home)),
            _COPY: bench.launcher.contender(copy, lambda: _empty(copies)),
        },
        bench.scale.rounds,
    )
    ours, theirs = measured[_RUN], measured[_COPY]
    limit = 2 * theirs.median + 0.3
    budget = within(
        f"{ours.median * 1000:.0f} ms, {ours.times(theirs):.3g} x cp",
        f"at most 2 x cp + 300 ms = {limit * 1000:.0f} ms",
        ours.median <= limit,
    )
    table.rows.append(Row(case.name, _RUN, ours, budget))
    copied = sum(name.stat().st_size for name in names)
    table.rows.append(Row(case.name, f"{_COPY} ({amount(copied)})", theirs))
    for folder in (kept, copies):
        shutil.rmtree(folder)


def _keep(checkpoint: Path, kept: Path) -> list[Path]:
    """Copies of what the checkpoint holds, for `cp` to copy; the manifest is ours alone."""
    kept.mkdir()
    found = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return [Path(shutil.copy(path, kept)) for path in found]


def _check_answer(table: Table, case: _Case, said: dict[str, Any]) -> None:
    levels = said["data"]["verification"][0]
    outcomes = [levels[level]["outcome"] for level in ("digests", "structure", "history", "trial")]
    right = said["exit_code"] in (0, 3) and outcomes == ["passed", "passed", "passed", "not-checked"]
    table.check(f"{case.name}: run lets the update go on, and its checkpoint verified on three levels", right)


def _arrange(bench: Workbench, home: CrowdedHome) -> None:
    """As before the first run: the goal active, no store."""
    home.activate_goal()
    _put_away(bench)


def _put_away(bench: Workbench) -> None:
    if bench.store.exists():
        shutil.rmtree(bench.store)


def _empty(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()


def _with_archive(bench: Workbench, table: Table, home: CrowdedHome) -> None:
    case = f"3 threads, boundary {amount(bench.scale.near)} from the end"
    run = bench.launcher.contender(bench.preflight("run", "--json", home=home), lambda: _arrange(bench, home))
    measured = paired({_WITH_ARCHIVE: run}, min(3, bench.scale.rounds), warm_up=False)[_WITH_ARCHIVE]
    table.rows.append(Row(case, _WITH_ARCHIVE, measured, at_most((measured.peak_bytes or 0) / 1e6, 384, " MB")))
    archives = [path for path in bench.store.rglob("*.jsonl.zst") if path.stat().st_size]
    table.check("and the thread is in the archive", len(archives) == 1)


def _trial(bench: Workbench, table: Table, home: CrowdedHome) -> None:
    case = f"resume rollout of {amount(bench.scale.near)}, Codex {VERSION}"
    if bench.codex is None:
        table.rows.append(Row(case, _TRIAL, skipped=f"no Codex {VERSION}"))
        return
    output = bench.folder / "said.json"
    run = bench.preflight(
        "run", "--archive", "never", "--json", "--runtime", bench.codex.binary, home=home, output=output
    )

    def trial() -> Sample:
        bench.launcher.run(run)
        level = read_json(output)["data"]["verification"][0]["trial"]
        return Sample(level["seconds"], level["peak_memory_bytes"], level["outcome"])

    measured = paired({_TRIAL: Contender(trial, lambda: _arrange(bench, home))}, bench.scale.rounds)[_TRIAL]
    table.rows.append(Row(case, _TRIAL, measured, at_most(measured.median, 1, " s")))
    table.check("every trial resume passed", set(measured.answers) == {"passed"})
