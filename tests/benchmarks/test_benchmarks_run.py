"""The benchmarks run: every row is there, and the programs that are compared answer the same question.

Nothing is said of times: everything is tiny, and other tests run beside it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.archive_choice import SHAPES

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="measured with Linux's own means")]

REPOSITORY = Path(__file__).resolve().parents[2]

#: The programs of each table, in their order, and how many cases each of them is measured on.
PROGRAMS = {
    "Start": {"python -c pass": 1, "preflight --version": 1, "preflight check --json": 1},
    "`check` and `codex doctor`": {"preflight check --json": 3, "codex doctor --json": 2},
    "Listing rollouts": {"rollout.scan": 1, "find -printf '%s'": 1, "os.walk and os.stat": 1},
    "The boundary search": {
        "read_tail": 12,
        "tac &#124; grep -m1 -E": 12,
        "cat, from the boundary on": 12,
        "read loop, the same bytes": 12,
        "read_tail, whole process": 6,
        "the same imports alone": 6,
    },
    "`run` on a goal thread": {
        "preflight run --archive never --json": 3,
        "cp and sync": 3,
        "preflight run --json": 1,
        "trial resume, in a run of its own": 1,
    },
    "Peak memory": {"preflight check --json": 5, "preflight run --archive never --json": 3},
    "Who has the file open": {
        "open_for_writing": 2,
        "holders (names the processes)": 2,
        "psutil open_files of all": 2,
        "lsof": 2,
        "fuser": 2,
    },
    "A full pass": {"history.replay": 1, "a loop of json.loads": 1, "jq .type": 1, "cat": 1},
    "`checkpoint --if-changed`": {"preflight checkpoint --if-changed --json": 2},
    "The choice of level, window and frames": dict.fromkeys(SHAPES, 2),
    "The archive, restic and borg": {
        "preflight": 14,
        "preflight, tail proof": 2,
        "preflight, sampled proof": 2,
        "preflight, full proof": 6,
        "restic": 8,
        "borg": 8,
        "borg -C zstd,3": 8,
    },
}


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.benchmarks", "--quick", "--folder", tmp_path_factory.mktemp("b")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_topic_has_its_table_with_every_row(printed: str) -> None:
    tables = dict(table.split("\n", 1) for table in printed.split("### ")[1:])
    found = {}
    for title, table in tables.items():
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
        counts: dict[str, int] = {}
        for row in rows[2:]:
            assert len(row) == len(rows[0])
            program = row[1].partition(" (")[0] if row[1].startswith("cp ") else row[1]
            counts[program] = counts.get(program, 0) + 1
        found[next(known for known in PROGRAMS if title.startswith(known))] = counts
    assert found == PROGRAMS


def test_every_answer_was_compared_and_none_was_wrong(printed: str) -> None:
    assert "DOES NOT HOLD" not in printed
    assert printed.count("\n- holds: ") >= 25


def test_nothing_large_is_left_behind(printed: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert not list(tmp_path_factory.getbasetemp().glob("b*/preflight-benchmarks-*"))
