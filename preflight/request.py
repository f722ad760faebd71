"""What a verb was asked to do: one frozen value, built by `commands`, read by `gate`.

Everything that a run takes from the outside (environment, home folder of the user, settings) is in
it, so that nothing further down looks at `os.environ` or at the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from preflight.config import Settings

__all__ = ["Request"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call of one verb; a field that the verb has no option for keeps its default.

    `homes` are the folders named with ``--home`` (none: CODEX_HOME and ~/.codex decide); `store` is
    the folder that holds the stores of all homes (None: the default one); `wait` and `timeout` are
    seconds, and a `timeout` of None means no limit. `threads` are ids named with ``--thread``.
    `checkpoint` is an id or ``latest``. `progress` takes one sentence without a line end and never
    raises for its content; it must not be given objectives, titles or project paths.
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
    show_text: bool = False
