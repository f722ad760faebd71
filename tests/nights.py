"""Nights for tests: a home with real rollouts, a store, and the calls that the nightly task makes, in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from preflight import gate, nightly, pruning, stored
from preflight.checkpoint.retention import Policy
from preflight.checkpoint.store import Store
from preflight.codex.home import find_homes
from preflight.codex.sample_home import SampleHome, make_sample_home
from preflight.config import Settings
from preflight.model import Finding, Home, Result
from preflight.request import Request


@dataclass
class Nights:
    """A sample home and its store. `told` are the sentences of the last call, `moved` how far the bytes were."""

    folder: Path
    sample: SampleHome
    settings: Settings = field(default_factory=lambda: Settings(keep_free_bytes=0))
    told: list[str] = field(default_factory=list)
    moved: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "store"

    @property
    def home(self) -> Home:
        (home,), _ = find_homes([self.sample.path], {}, self.folder)
        return home

    @property
    def store(self) -> Store:
        return Store(self.root, self.home.home_id)

    def request(self, **fields: object) -> Request:
        self.told.clear()
        self.moved.clear()
        request = Request(
            homes=(self.sample.path,),
            store=self.root,
            settings=self.settings,
            env={},
            user_home=self.folder,
            progress=self.told.append,
            moved=lambda *far: self.moved.append(far),
            wait=0.0,
            timeout=None,
        )
        return replace(request, **fields)

    def checkpoint(self, *threads: str, **fields: object) -> Result:
        return nightly.checkpoint(self.request(threads=threads, **fields))

    def night(self, **fields: object) -> Result:
        """What a scheduler calls."""
        return self.checkpoint(if_changed=True, nightly=True, **fields)

    def run(self, **fields: object) -> Result:
        return gate.run(self.request(**{"timeout": 60.0, **fields}))

    def check(self) -> Result:
        return gate.check(self.request(timeout=60.0))

    def verify(self, **fields: object) -> Result:
        return stored.verify(self.request(**fields))

    def prune(self, *, dry_run: bool = False, **rules: object) -> Result:
        return pruning.prune(self.request(dry_run=dry_run), Policy(**rules))

    def grow(self, rollout: Path | None = None, *, by: int = 1) -> None:
        """Codex adds some lines to a rollout, by default to that of the goal thread."""
        line = {"timestamp": "2026-11-22T13:25:08.403Z", "type": "event_msg", "payload": {"type": "token_count"}}
        with (rollout or self.sample.large_rollout).open("ab") as file:
            file.write((json.dumps(line, separators=(",", ":")).encode() + b"\n") * by)


def nights_in(folder: Path, *, large_bytes: int = 400_000) -> Nights:
    return Nights(folder, make_sample_home(folder / "home", large_bytes=large_bytes))


def outcome(result: Result) -> str:
    """What became of the one home: `made`, `unchanged` or `failed`."""
    (home,) = result.data["checkpointed"]
    return home["outcome"]


def found(result: Result, finding_id: str) -> list[Finding]:
    return [finding for finding in result.findings if finding.finding_id == finding_id]
