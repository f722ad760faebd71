"""`preflight demo`: the whole story on a throw-away home, through the functions that the other verbs call.

Nothing of the user's is looked at: no Codex home, no store, no Codex program, no environment. All of
it happens in one new private folder, which is removed at the end, also when the demo is interrupted;
`--keep` leaves it. Each step is told on stderr as it happens; the result holds the steps and what
was found true afterwards.
"""

from __future__ import annotations

import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import click

from preflight.commands.options import Call, common_options
from preflight.errors import NoSpace, UsageProblem
from preflight.model import Finding, GoalStatus, HomeObservation, Result, Severity, Verdict
from preflight.request import Request

_DEFAULT_BYTES: Final = 520_000_000
_SMALLEST_BYTES: Final = 5_000_000
#: What is kept free besides: the store, the small threads, and room for whoever else writes there.
_RESERVE_BYTES: Final = 100_000_000
_KEEP_FREE_BYTES: Final = 50_000_000
_TIMEOUT_SECONDS: Final = 60.0
_EXIT_NOT_HELD: Final = 1


def _size(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    from preflight.config import size

    if value is None:
        return None
    try:
        wanted = size(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", ctx=context, param=option) from error
    if wanted < _SMALLEST_BYTES:
        raise click.BadParameter("the smallest demo is 5 MB.", ctx=context, param=option)
    return wanted


@click.command("demo")
@click.option(
    "--size", "size", metavar="SIZE", callback=_size, help='The large thread. Default: "520 MB", less if short.'
)
@click.option("--keep", is_flag=True, help="Leave the folder of the demo where it is.")
@common_options
@click.pass_obj
def command(call: Call, size: int | None, keep: bool) -> Result:
    """Show check, run and finish on a throw-away home; needs no Codex.

    The home holds a large thread with an active goal, a damaged thread whose goal is paused, and a
    healthy one. Exit code 0 when afterwards every goal and every byte is as it was and the
    checkpoint could be read back.
    """
    if call.homes or call.store is not None:
        raise UsageProblem("the demo makes a home and a store of its own: --home and --store have no place in it")
    request = call.request()
    with _folder(keep=keep) as folder:
        large_bytes = _fitting(size, folder)
        return _Demo(folder, _within(folder, large_bytes, request), large_bytes, kept=keep).play()


@contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    """A new folder that only we can read, removed at the end, however that comes, unless it is to be kept."""
    if keep:
        yield Path(tempfile.mkdtemp(prefix="preflight-demo-"))
    else:
        with tempfile.TemporaryDirectory(prefix="preflight-demo-") as folder:
            yield Path(folder)


def _fitting(wanted: int | None, folder: Path) -> int:
    """The size of the large thread: as wanted, else the default or what there is room for. Raises NoSpace."""
    from preflight.system.files import free_bytes

    room = free_bytes(folder) - _RESERVE_BYTES
    if wanted is None:
        wanted = max(min(_DEFAULT_BYTES, room), _SMALLEST_BYTES)
    if wanted > room:
        raise NoSpace(
            f"the demo needs {_mb(wanted + _RESERVE_BYTES)} for a while, and there are {_mb(room + _RESERVE_BYTES)}",
            path=folder.parent,
            hint="make room, or set TMPDIR to a folder on another disk",
            needed_bytes=wanted + _RESERVE_BYTES,
        )
    return wanted


def _within(folder: Path, large_bytes: int, request: Request) -> Request:
    """The request of every step: built-in settings, nothing from outside of the demo's folder."""
    from preflight.config import Settings

    settings = Settings(keep_free_bytes=_KEEP_FREE_BYTES)
    if large_bytes < settings.danger_bytes:
        # A smaller thread tells the same story when the thresholds shrink with it.
        danger = large_bytes * 9 // 10
        settings = replace(settings, warning_bytes=danger // 2, danger_bytes=danger, critical_bytes=danger * 2)
    return replace(
        request,
        homes=(folder / "codex-home",),
        store=folder / "store",
        settings=settings,
        env={"PATH": ""},  # an empty PATH finds no Codex; without one the process's own would be asked
        user_home=folder,
        wait=settings.wait_seconds,
        timeout=_TIMEOUT_SECONDS,
        reason="demo",
        checkpoint="latest",
    )


@dataclass(slots=True)
class _Demo:
    """The steps of the story, one after the other."""

    folder: Path
    request: Request
    large_bytes: int
    kept: bool
    steps: list[dict[str, object]] = field(default_factory=list)

    def play(self) -> Result:
        from preflight import aftermath, gate, stored
        from preflight.codex.sample_home import make_sample_home

        self._tell("1. A throw-away Codex home is made.")
        home = make_sample_home(
            self.folder / "codex-home", large_bytes=self.large_bytes, damaged_goal_status=GoalStatus.PAUSED
        )
        self._tell(f"{home.path}", indent=3)
        self._tell(
            f"A thread of {_mb(self.large_bytes)} whose goal is active, a damaged thread whose goal a person has"
            " paused, and a small healthy one.",
            indent=3,
        )
        goals_before, rollouts_before = self._goals(), _digests(home.path)

        self._step("2. preflight check: what would an update meet? Nothing is changed.", gate.check)
        ran = self._step("3. preflight run: what an updater calls before it installs.", gate.run)
        self._tell_what_is_needed(ran)
        self._tell("Here the updater would install the new runtime. The demo installs nothing.", indent=3)
        self._step("4. preflight finish: what an updater calls afterwards.", aftermath.finish)
        read_back = self._step("5. preflight verify: is the checkpoint really there?", stored.verify)

        self._tell("6. Is everything as it was?")
        afterwards = {
            "update_was_allowed": ran.verdict in (Verdict.PROCEED, Verdict.WARN),
            "goals_as_before": self._goals() == goals_before,
            "rollouts_as_before": _digests(home.path) == rollouts_before,
            "checkpoint_reads_back": read_back.exit_code in (None, 0),
        }
        as_before = all(afterwards.values())
        if as_before:
            self._tell(
                "Yes: the goal is active again, the one that a person had paused is still paused, and every byte"
                " of every rollout is the same (SHA-256).",
                indent=3,
            )
        else:
            self._tell("No: the findings say what is not.", indent=3)
        if self.kept:
            self._tell(f"Left for a look: preflight check --home {home.path} --store {self.request.store}")
        return Result(
            command="demo",
            exit_code=0 if as_before else _EXIT_NOT_HELD,
            data={
                "large_rollout_bytes": home.large_rollout.stat().st_size,
                "folder": self.folder if self.kept else None,
                "steps": self.steps,
                "afterwards": afterwards,
            },
            findings=tuple(_not_held(name) for name, true in afterwards.items() if not true),
            not_checked=ran.not_checked,
        )

    def _step(self, title: str, verb: Callable[[Request], Result]) -> Result:
        self._tell(title)
        began = time.monotonic()
        result = verb(replace(self.request, progress=lambda line: self._tell(line, indent=3)))
        seconds = time.monotonic() - began
        for finding in result.findings:
            self._tell(f"{finding.severity.value}: {finding.cause}", indent=3)
        answer = result.verdict.value if result.verdict is not None else "done"
        self._tell(f"-> {answer.upper()} after {seconds:.1f} s", indent=3)
        self.steps.append(
            {
                "step": result.command,
                "answer": answer,
                "findings": len(result.findings),
                "elapsed_seconds": round(seconds, 3),
            }
        )
        return result

    def _tell_what_is_needed(self, ran: Result) -> None:
        homes = ran.data.get("homes")
        for home in homes if isinstance(homes, tuple) else ():
            for seen in home.threads if isinstance(home, HomeObservation) else ():
                if seen.resume_bytes is not None and seen.paused_by_us:
                    self._tell(
                        f"The goal is paused. {_mb(seen.resume_bytes)} of {_mb(seen.thread.size_bytes)} are all that"
                        " a runtime needs to go on with the thread; a verified copy of them is in the store.",
                        indent=3,
                    )

    def _goals(self) -> Mapping[str, str]:
        """The status of each goal as the database has it now."""
        from preflight.codex.goals import read_goals
        from preflight.codex.home import find_homes
        from preflight.system.deadline import Deadline

        (home,), _ = find_homes(self.request.homes, self.request.env, self.request.user_home)
        return {goal.thread_id: goal.status for goal in read_goals(home, Deadline(_TIMEOUT_SECONDS)).goals}

    def _tell(self, text: str, *, indent: int = 0) -> None:
        margin = " " * indent
        for line in textwrap.wrap(
            text,
            width=80,
            initial_indent=margin,
            subsequent_indent=margin + "  ",
            break_long_words=False,
            break_on_hyphens=False,
        ):
            self.request.progress(line)


def _digests(home: Path) -> Mapping[str, str]:
    from preflight.system.files import sha256_of

    return {path.name: sha256_of(path) for path in sorted(home.rglob("*.jsonl"))}


def _not_held(name: str) -> Finding:
    return Finding(
        finding_id="demo-failed",
        severity=Severity.BLOCK,
        cause=f"after the demo this did not hold: {name.replace('_', ' ')}",
        remedy="preflight demo --keep",
    )


def _mb(size: int) -> str:
    return f"{size / 1_000_000:,.{0 if size >= 10_000_000 else 1}f} MB"
