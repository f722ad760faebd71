"""What a benchmark has to say: rows of measurements with their budgets, and checks that the answers were right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.benchmarks.measuring import Measured

__all__ = ["Budget", "Check", "Row", "Table", "at_least", "at_most", "within"]

_HEADINGS = ("case", "program", "median", "min to max", "n", "peak memory", "measured", "budget", "")


@dataclass(frozen=True, slots=True)
class Budget:
    """What was measured beside what the design allows; `limit` None: there is no budget for it."""

    measured: str
    limit: str | None = None
    met: bool = True

    @property
    def verdict(self) -> str:
        if self.limit is None:
            return ""
        return "ok" if self.met else "MISSED"


def at_most(value: float, limit: float, unit: str) -> Budget:
    """A figure that may not be larger than `limit`; `unit` is what follows the number, such as ` ms`."""
    return Budget(f"{value:.3g}{unit}", f"at most {limit:.3g}{unit}", value <= limit)


def at_least(value: float, limit: float, unit: str) -> Budget:
    return Budget(f"{value:.3g}{unit}", f"at least {limit:.3g}{unit}", value >= limit)


def within(measured: str, limit: str, met: bool) -> Budget:
    """A budget that takes more than one number to tell."""
    return Budget(measured, limit, met)


@dataclass(frozen=True, slots=True)
class Row:
    """One program on one case. `skipped` says why there are no figures."""

    case: str
    program: str
    measured: Measured | None = None
    budget: Budget = field(default_factory=lambda: Budget(""))
    skipped: str | None = None

    def cells(self) -> tuple[str, ...]:
        if self.measured is None:
            return (self.case, self.program, "-", "-", "0", "-", f"skipped: {self.skipped}", "", "")
        seconds = self.measured.seconds
        return (
            self.case,
            self.program,
            _milliseconds(self.measured.median),
            f"{_milliseconds(min(seconds))} to {_milliseconds(max(seconds))}",
            str(len(seconds)),
            "" if self.measured.peak_bytes is None else f"{self.measured.peak_bytes / 1e6:.0f} MB",
            self.budget.measured,
            self.budget.limit or "",
            self.budget.verdict,
        )


@dataclass(frozen=True, slots=True)
class Check:
    """A claim about what the programs answered, without which their times would say nothing."""

    claim: str
    holds: bool


@dataclass(slots=True)
class Table:
    """One topic: what was compared and how, the rows, the checks."""

    title: str
    notes: list[str]
    rows: list[Row] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    def check(self, claim: str, holds: bool) -> None:
        self.checks.append(Check(claim, holds))

    def lines(self) -> Iterator[str]:
        """The table as Markdown."""
        yield f"### {self.title}"
        yield ""
        yield from self.notes
        yield ""
        yield f"| {' | '.join(_HEADINGS)} |"
        yield f"|{'---|' * len(_HEADINGS)}"
        for row in self.rows:
            yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row.cells())} |"
        yield ""
        for check in self.checks:
            yield f"- {'holds' if check.holds else 'DOES NOT HOLD'}: {check.claim}"
        yield ""


def _milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"
