"""Reading a whole rollout forwards, every line: structure, turns and history."""

from __future__ import annotations

import json
import os
from pathlib import Path

from preflight.codex import boundary, history
from tests.benchmarks.long_rollouts import LongRollout, write_text
from tests.benchmarks.measuring import Contender, here, paired
from tests.benchmarks.tables import Budget, Row, Table, at_least
from tests.benchmarks.workbench import Workbench, amount

__all__ = ["full_pass"]

_REPLAY, _JSON, _JQ, _CAT = "history.replay", "a loop of json.loads", "jq .type", "cat"


def full_pass(bench: Workbench) -> Table:
    scale = bench.scale
    rollout = write_text(bench.folder / "pass.jsonl", "full pass", scale.full_pass, (scale.near,))
    case = amount(rollout.size_bytes)
    table = Table(
        "A full pass",
        [
            "Warm; `replay` and the loop in this process, `jq` and `cat` as whole processes. The loop builds every",
            "record and looks at its type. `replay` checks the structure of every line, UTF-8, ordinals and turns, and",
            "hashes the records behind the newest compaction.",
        ],
    )
    contenders = {
        _REPLAY: Contender(lambda: here(lambda: _replayed(rollout))),
        _JSON: Contender(lambda: here(lambda: _parsed(rollout.path))),
        _CAT: bench.launcher.contender(bench.shell('exec cat "$1" >/dev/null', rollout.path)),
    }
    has_jq = any(os.access(Path(folder, "jq"), os.X_OK) for folder in os.environ["PATH"].split(os.pathsep))
    if has_jq:
        contenders[_JQ] = bench.launcher.contender(bench.shell('exec jq -r .type "$1" >/dev/null', rollout.path))
    measured = paired(contenders, scale.rounds)
    ours = measured[_REPLAY]
    table.rows.append(Row(case, _REPLAY, ours))
    table.rows.append(Row(case, _JSON, measured[_JSON], at_least(measured[_JSON].times(ours), 4, " x replay")))
    if has_jq:
        table.rows.append(Row(case, _JQ, measured[_JQ], at_least(measured[_JQ].times(ours), 10, " x replay")))
    else:
        table.rows.append(Row(case, _JQ, skipped="not installed"))
    table.rows.append(Row(case, _CAT, measured[_CAT], Budget(f"{measured[_CAT].times(ours):.3g} x replay")))
    answers = {answer for program in (_REPLAY, _JSON) for answer in measured[program].answers}
    table.check("replay and the loop count the same records", len(answers) == 1)
    rollout.path.unlink()
    return table


def _replayed(rollout: LongRollout) -> int:
    with boundary.opened(rollout.lineage) as files:
        found = history.replay(files)
    assert found.history is not None
    return found.records


def _parsed(path: Path) -> int:
    count = 0
    with path.open("rb") as file:
        for line in file:
            count += "type" in json.loads(line)
    return count
