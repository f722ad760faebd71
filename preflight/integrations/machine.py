"""The machine that a scheduler works with: its programs, its variables, its folders.

Programs get a list of words, never a shell, and `LC_ALL=C`: some of their answers can be told apart
by their English only.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from preflight.errors import SchedulerRefused, TimeLimitReached
from preflight.system import children, processes
from preflight.system.children import Completed

__all__ = ["Machine", "command_faults", "ended_well", "nightly_python"]

_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """`folder` is our own folder for what has no other place: settings, files that were moved aside."""

    env: Mapping[str, str]
    user_home: Path
    folder: Path

    def find(self, program: str) -> str | None:
        """The program's path, or None where it is not on this machine."""
        return shutil.which(program, path=self.env.get("PATH"))

    def run(self, argv: Sequence[str], *, stdin: bytes | None = None) -> Completed:
        """Run a program to its end. Raises SchedulerRefused when it cannot be started or does not end."""
        # Variables that steer Python will not be there at night, so what is tried out goes without them.
        env = {name: value for name, value in self.env.items() if not name.startswith("PYTHON")} | {"LC_ALL": "C"}
        try:
            return children.run(argv, env=env, cwd=Path(self.user_home.anchor), timeout=_SECONDS, stdin=stdin)
        except (OSError, TimeLimitReached) as error:
            raise SchedulerRefused(f"{Path(argv[0]).name} could not be run: {error}") from error

    def is_running(self, program: str) -> bool:
        """Whether we see a process of that name; some systems do not show us those of others."""
        return bool(processes.processes_named(program))

    def wait_for_next_second(self) -> None:
        """Let the second end that we are in, by the clock that files are dated with."""
        time.sleep(1.02 - time.time() % 1)  # that clock runs a few milliseconds behind


def ended_well(ended: Completed, argv: Sequence[str], tolerated: Sequence[int] = ()) -> Completed:
    """`ended` itself. Raises SchedulerRefused for any other status than 0 and the tolerated ones."""
    if ended.returncode in (0, *tolerated):
        return ended
    said = ended.stderr.decode(errors="backslashreplace").strip() or "it did not say why"
    raise SchedulerRefused(f"{' '.join(argv)} ended with status {ended.returncode}: {said.splitlines()[0]}")


def nightly_python(executable: str) -> str:
    """The interpreter for a program that nobody watches: on Windows the one that opens no window, if it is there."""
    python = Path(executable)
    windowless = python.with_name(python.name.lower().replace("python", "pythonw", 1))
    return str(windowless) if python.suffix.lower() == ".exe" and windowless.is_file() else str(python)


def command_faults(machine: Machine, command: Sequence[str]) -> tuple[str, ...]:
    """Why the nightly command could not start: its interpreter is gone, or preflight is gone from it."""
    python = command[0]
    if not Path(python).exists():
        return (f"its interpreter is gone: {python}",)
    ended = machine.run([python, "-P", "-m", "preflight", "--version"])
    if ended.returncode == 0:
        return ()
    return (f"its interpreter cannot start preflight: {python}",)
