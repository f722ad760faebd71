"""A home, a checkpoint of its threads, and the calls of `restore` on it: in this process, with nobody to be asked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from preflight import gate, restoring
from preflight.checkpoint.restore_record import Restores
from preflight.checkpoint.store import Store
from preflight.codex.home import find_homes
from preflight.codex.rollout import parse_name
from preflight.config import load_settings
from preflight.model import Home, Result
from preflight.request import Request
from preflight.restoring import Restoring

__all__ = ["Bench", "digest", "visible"]


def nobody_is_asked(_question: str) -> None:
    """As with ``--yes``."""


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def visible(home: Path) -> dict[str, str]:
    """What Codex takes for rollouts below a home: names and digests."""
    return {path.name: digest(path) for path in home.rglob("*") if path.is_file() and parse_name(path.name)}


@dataclass
class Bench:
    """`home` is a Codex home; its store lies beside it unless it is named."""

    home: Path
    store_folder: Path | None = None
    asked: list[str] = field(default_factory=list)

    @property
    def store_root(self) -> Path:
        return self.store_folder or self.home.parent / "store"

    @property
    def found(self) -> Home:
        (home,), _ = find_homes([self.home], {}, self.home.parent)
        return home

    @property
    def store(self) -> Store:
        return Store(self.store_root, self.found.home_id)

    def request(self, **changes: object) -> Request:
        user_home = self.home.parent
        request = Request(
            homes=(self.home,),
            store=self.store_root,
            settings=replace(load_settings(file=None, env={}, user_home=user_home, flags={}), keep_free_bytes=0),
            env={"PATH": ""},
            user_home=user_home,
            progress=lambda _: None,
            wait=1.0,
            timeout=60.0,
        )
        return replace(request, **changes)  # type: ignore[arg-type]

    def checkpoint(self, *threads: str, archive: str = "never") -> str:
        """A checkpoint of these threads, made without touching any goal; its id."""
        gate.run(self.request(threads=threads, pause=False, archive=archive))
        return self.store.checkpoints()[-1]

    def restore(self, thread_id: str, *, full: bool = False, to: Path | None = None, **changes: object) -> Result:
        how = Restoring(thread_id=thread_id, full=full, to=to, agree=self.asked.append)
        return restoring.restore_thread(self.request(**{"checkpoint": "latest", **changes}), how)

    def undo(self, thread_id: str | None = None, **changes: object) -> Result:
        return restoring.undo(self.request(**changes), thread_id, self.asked.append)

    def restores(self) -> Restores:
        return Restores(self.store.restores)

    def left_behind(self) -> list[str]:
        """Files of ours in the home that are neither a rollout's older version nor finished."""
        return [
            str(path)
            for path in self.home.rglob("*")
            if ".restore-" in path.name or path.name.endswith(".preflight-tmp") or path.is_symlink()
        ]
