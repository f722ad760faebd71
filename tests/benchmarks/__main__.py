"""The budgets of the design, measured side by side with what else does the work.

    python -m tests.benchmarks [--quick] [--only TOPIC ...] [--folder PLACE]

Prints one Markdown table a topic. Takes about 14 GB of disk below PLACE (else the temporary folder) and gives
them back; fetches Codex from npm once, as the tests do. `--quick` makes everything tiny: the figures then
say nothing, but every row is there and every check is made. Ends with 1 when a check does not hold:
then the programs did not answer the same question. A budget that is missed is only told.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from preflight.system.mounts import filesystem_kind
from tests.benchmarks.archive import archive
from tests.benchmarks.archive_choice import archive_choice
from tests.benchmarks.boundary_search import boundary_search
from tests.benchmarks.check_and_doctor import check_and_doctor
from tests.benchmarks.full_pass import full_pass
from tests.benchmarks.listing import listing
from tests.benchmarks.measuring import Launcher
from tests.benchmarks.open_file import open_file
from tests.benchmarks.peak_memory import peak_memory
from tests.benchmarks.run_and_copy import run_and_copy
from tests.benchmarks.start import start
from tests.benchmarks.tables import Table
from tests.benchmarks.unchanged_home import unchanged_home
from tests.benchmarks.workbench import FULL, QUICK, Scale, Workbench, amount

TOPICS: Mapping[str, Callable[[Workbench], Table]] = {
    "start": start,
    "check": check_and_doctor,
    "listing": listing,
    "boundary": boundary_search,
    "run": run_and_copy,
    "memory": peak_memory,
    "open": open_file,
    "pass": full_pass,
    "unchanged": unchanged_home,
    "choice": archive_choice,
    "archive": archive,
}


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    if sys.platform != "linux":
        sys.stderr.write("the benchmarks measure with Linux's own means (wait4, posix_fadvise, /proc): not here\n")
        return 2
    scale = QUICK if asked.quick else FULL
    if asked.rounds is not None:
        scale = replace(scale, rounds=asked.rounds)
    place = Path(asked.folder or tempfile.gettempdir())
    needed = _needed_bytes(scale)
    if not asked.quick and filesystem_kind(place) in ("tmpfs", "ramfs"):
        sys.stderr.write(f"{place} is in memory, which would be measured instead of a disk: use --folder\n")
        return 2
    if shutil.disk_usage(place).free < 2 * needed:
        sys.stderr.write(f"{place} needs twice {amount(needed)} of free disk; name another place with --folder\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="preflight-benchmarks-", dir=place) as name:
        # In the order of the table: a `run` leaves its home paused, and `check` is measured on an active goal.
        return _measure(Path(name), scale, [topic for topic in TOPICS if topic in (asked.only or TOPICS)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="everything tiny: shows that it works, not how fast")
    parser.add_argument("--only", action="append", choices=TOPICS, help="one topic; repeatable")
    parser.add_argument("--rounds", type=int, help="how often each program runs")
    parser.add_argument("--folder", help="where the large files are made")
    return parser


def _needed_bytes(scale: Scale) -> int:
    """The long rollout, images, the tail of the sparse file, the full pass, crowded homes, a checkpoint, archives."""
    homes = 3 * scale.threads * 35_000
    files = scale.long + sum(scale.image_lines) + scale.sparse_tail + scale.full_pass + homes + 3 * scale.middle
    return files + scale.long // 2 + 8 * scale.archived


def _measure(folder: Path, scale: Scale, topics: Sequence[str]) -> int:
    _print(_machine(), "")
    held = True
    with Launcher(folder) as launcher:
        bench = Workbench(folder, scale, launcher, say=lambda words: _tell(f"... {words}"))
        for topic in topics:
            _tell(f"{topic}:")
            table = TOPICS[topic](bench)
            _print(*table.lines())
            held = held and all(check.holds for check in table.checks)
    return 0 if held else 1


def _machine() -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} CPUs ({_processor()}), {amount(memory)} of memory, {platform.system()} {platform.release()},"
        f" Python {platform.python_version()}; load when it began: {load:.1f}."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _print(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _tell(words: str) -> None:
    sys.stderr.write(words + "\n")


if __name__ == "__main__":
    sys.exit(main())
