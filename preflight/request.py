"""What a verb was asked to do: one frozen value, built by `commands`, read by `gate`.

Everything that a run takes from the outside (environment, home folder of the user, settings) is in
it, so that nothing further down looks at `os.environ` or at the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from preflight.config import Part, Settings

__all__ = ["Request"]


def _not_shown(what: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call of one verb; a field that the verb has no option for keeps its default.

    `homes` are the folders named with ``--home`` (none: CODEX_HOME and ~/.codex decide); `store` is
    the folder that holds the stores of all homes (None: the default one); `wait` and `timeout` are
    seconds, and a `timeout` of None means no limit. `threads` are ids named with ``--thread``.
    `checkpoint` is an id or ``latest``. `max_rate` is in bytes for each second. `moved` is told what is
    done (``copied``), how many bytes of it, of how many. `archive` is ``auto``, ``always`` or ``never``;
    `if_missed` is the hour and minute at which the night should have begun;
    `prove_all` compares all of what is archived with the rollouts, and `read_part` is how much of the
    store is read back (None: what the verb reads by itself). `progress` takes one sentence without a line end
    and never raises for its content; it must not be given objectives, titles or project paths.
    """

    homes: tuple[Path, ...]
    store: Path | None
    settings: Settings
    env: Mapping[str, str]
    user_home: Path
    progress: Callable[[str], None]
    wait: float
    timeout: float | None
    target_version: str | None = None
    runtime: Path | None = None
    with_runtime: bool = False
    interrupt: bool = False
    pause: bool = True
    threads: tuple[str, ...] = ()
    dry_run: bool = False
    reason: str | None = None
    checkpoint: str | None = None
    all_threads: bool = False
    if_changed: bool = False
    nightly: bool = False
    if_missed: tuple[int, int] | None = None
    max_rate: int | None = None
    archive: str = "auto"
    prove_all: bool = False
    read_part: Part | None = None
    moved: Callable[[str, int, int], None] = _not_shown
    show_text: bool = False
