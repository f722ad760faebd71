"""`preflight check --json` against `codex doctor --json` on the same crowded home."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.crowded_homes import CrowdedHome
from tests.benchmarks.long_rollouts import LongRollout
from tests.benchmarks.measuring import Contender, Measured, paired
from tests.benchmarks.tables import Budget, Row, Table, within
from tests.benchmarks.workbench import VERSION, Workbench, amount, read_json

__all__ = ["check_and_doctor"]

_CHECK, _DOCTOR = "preflight check --json", "codex doctor --json"


@dataclass(frozen=True, slots=True)
class _Case:
    """A home whose goal thread has its boundary this far from its end."""

    home: CrowdedHome
    rollout: LongRollout
    distance: int

    @property
    def name(self) -> str:
        return f"goal thread of {amount(self.rollout.size_bytes)}, boundary {amount(self.distance)} from its end"

    def arrange(self) -> None:
        self.rollout.only(self.distance)


def check_and_doctor(bench: Workbench) -> Table:
    scale = bench.scale
    short_home = bench.home("crowded-short", lambda: bench.short, scale.threads)
    long_home = bench.home("crowded-long", lambda: bench.long, scale.threads)
    short = _Case(short_home, bench.short, scale.near)
    long = _Case(long_home, bench.long, scale.near)
    far = _Case(long_home, bench.long, scale.middle)
    table = Table(
        f"`check` and `codex doctor`, a home of {scale.threads:,} threads",
        [
            f"Whole processes, warm, Codex {VERSION}. Half of the threads are legacy, half paginated. `doctor` looks",
            "at the same files and rows, and at its installation, the terminal and the network besides; its network",
            "probes go to a port of loopback that refuses at once.",
        ],
    )
    output = bench.folder / "said.json"
    contenders: dict[str, Contender] = {}
    for case in (short, long, far):
        check = bench.preflight("check", "--json", home=case.home)
        contenders[_CHECK + case.name] = bench.launcher.contender(check, case.arrange)
    for case in (short, long):
        doctor = bench.doctor(case.home, output)
        if doctor is not None:
            contenders[_DOCTOR + case.name] = bench.launcher.contender(doctor, case.arrange)
    measured = paired(contenders, scale.rounds)

    for case in (short, long, far):
        check_measured = measured[_CHECK + case.name]
        table.rows.append(Row(case.name, _CHECK, check_measured, _as_short(case, short, long, measured)))
        if case is far:
            continue
        if _DOCTOR + case.name not in measured:
            table.rows.append(Row(case.name, _DOCTOR, skipped=f"no Codex {VERSION}"))
            continue
        doctor_measured = measured[_DOCTOR + case.name]
        ratio = check_measured.times(doctor_measured)
        budget = within(f"check takes {ratio:.3g} x of it", "at most 1 x", ratio <= 1)
        table.rows.append(Row(case.name, _DOCTOR, doctor_measured, budget))

    for case in (short, long, far):
        _look_at_check(bench, table, case, output)
    _look_at_doctor(bench, table, long, output)
    return table


def _as_short(case: _Case, short: _Case, long: _Case, measured: Mapping[str, Measured]) -> Budget:
    """What the long thread costs beside the short one; only where the boundary is as near it must cost the same."""
    if case is short:
        return Budget("")
    ratio = measured[_CHECK + case.name].times(measured[_CHECK + short.name])
    told = f"{ratio:.3g} x {amount(short.rollout.size_bytes)}"
    return within(told, "at most 1.1 x", ratio <= 1.1) if case is long else Budget(told)


def _look_at_check(bench: Workbench, table: Table, case: _Case, output: Path) -> None:
    case.arrange()
    bench.launcher.run(bench.preflight("check", "--json", home=case.home, output=output))
    data = read_json(output)["data"]
    goal_thread = next(thread for thread in data["threads"] if thread["thread_id"] == case.home.goal_thread_id)
    right = goal_thread["boundary"]["offset"] == case.rollout.compactions[case.distance].turn_at
    table.check(f"check finds the boundary of the {case.name}", right and goal_thread["goal"]["status"] == "active")
    table.check(f"check counts {case.home.threads:,} threads", data["counts"]["threads"] == case.home.threads)


def _look_at_doctor(bench: Workbench, table: Table, case: _Case, output: Path) -> None:
    doctor = bench.doctor(case.home, output)
    if doctor is None:
        return
    bench.launcher.run(doctor)
    checks = read_json(output)["checks"]
    parity = checks["state.rollout_db_parity"]
    found = (parity["details"]["rollout DB active files"], parity["details"]["rollout DB active rows"])
    table.check(f"doctor counts {case.home.threads:,} files and rows", set(found) == {str(case.home.threads)})
    probes = {name: one["durationMs"] for name, one in checks.items() if name.startswith(("network.", "updates."))}
    told = ", ".join(f"{name} {milliseconds} ms" for name, milliseconds in probes.items())
    table.notes.append(f"What `doctor` says these took, at the same time as its other checks: {told}.")
