"""What the topics share: how large everything is, where it lies, and how each program is called."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.benchmarks.crowded_homes import CrowdedHome, make_crowded_home
from tests.benchmarks.long_rollouts import LongRollout, write_images, write_text
from tests.benchmarks.measuring import Launcher, Process
from tests.real_codex.codex_release import REPOSITORY, CodexRelease, FetchError, NpmMissingError, fetch

__all__ = ["FULL", "QUICK", "VERSION", "Scale", "Workbench", "amount"]

VERSION = "0.169.0"

_PREFLIGHT = "import sys; from preflight.cli import main; sys.exit(main())"  # as the installed script does
_DEAD_PROXY = "http://127.0.0.1:9"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large everything is, in bytes; `near`, `middle` and `far` are distances of a boundary from the end.

    `archived` is the size of what is archived, `added` what comes to it; `crowded` that of a whole home, sparse.
    """

    threads: int
    long: int
    short: int
    near: int
    middle: int
    far: int
    image_lines: tuple[int, ...]
    sparse: int
    sparse_tail: int
    full_pass: int
    archived: int
    added: int
    crowded: int
    rounds: int


FULL = Scale(
    threads=10_000,
    long=3_000_000_000,
    short=3_000_000,
    near=2_000_000,
    middle=100_000_000,
    far=1_000_000_000,
    image_lines=(20_000_000, 30_000_000, 40_000_000, 25_000_000, 35_000_000, 40_000_000, 30_000_000, 40_000_000),
    sparse=20_000_000_000,
    sparse_tail=150_000_000,
    full_pass=500_000_000,
    archived=1_000_000_000,
    added=20_000_000,
    crowded=40_000_000_000,
    rounds=5,
)
QUICK = Scale(
    threads=40,
    long=12_000_000,
    short=3_000_000,
    near=1_000_000,
    middle=2_000_000,
    far=4_000_000,
    image_lines=(300_000, 600_000, 400_000),
    sparse=100_000_000,
    sparse_tail=3_000_000,
    full_pass=8_000_000,
    archived=12_000_000,
    added=300_000,
    crowded=160_000_000,
    rounds=1,
)


def amount(size: int) -> str:
    """A size for people, by powers of ten."""
    for power, unit in ((9, "GB"), (6, "MB"), (3, "KB")):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {unit}"
    return f"{size} bytes"


class Workbench:
    """The folder, the scale, and what is made in it when it is first asked for."""

    def __init__(self, folder: Path, scale: Scale, launcher: Launcher, say: Callable[[str], None]) -> None:
        self.folder, self.scale, self.launcher, self.say = folder, scale, launcher, say
        self._homes: dict[str, CrowdedHome] = {}
        self.user = folder / "user"
        self._no_programs = folder / "no-programs"
        for place in (self.user, self._no_programs):
            place.mkdir()

    # ---- what is worked on ---------------------------------------------------------------------------------

    @cached_property
    def long(self) -> LongRollout:
        """The long rollout of text, with three compactions to choose from."""
        scale = self.scale
        self.say(f"writing a rollout of {amount(scale.long)}")
        return write_text(self.folder / "long.jsonl", "long", scale.long, (scale.near, scale.middle, scale.far))

    @cached_property
    def short(self) -> LongRollout:
        """The short one that takes its place; its compaction is as far from its end as the nearest of the long one."""
        return write_text(self.folder / "short.jsonl", "short", self.scale.short, (self.scale.near,))

    @cached_property
    def images(self) -> LongRollout:
        self.say("writing a rollout of images")
        return write_images(self.folder / "images.jsonl", "images", self.scale.image_lines)

    def home(self, name: str, goal_rollout: Callable[[], LongRollout], threads: int) -> CrowdedHome:
        """A home of that many threads, made once for each name."""
        if name not in self._homes:
            rollout = goal_rollout()
            self.say(f"making a home of {threads:,} threads")
            self._homes[name] = make_crowded_home(self.folder / name, rollout, threads, self.codex)
        return self._homes[name]

    def remove_home(self, name: str) -> None:
        home = self._homes.pop(name, None)
        if home is not None:
            shutil.rmtree(home.home.place)

    @cached_property
    def store(self) -> Path:
        return self.folder / "store"

    # ---- who takes part ------------------------------------------------------------------------------------

    @cached_property
    def codex(self) -> CodexRelease | None:
        try:
            return fetch(VERSION)
        except (NpmMissingError, FetchError) as error:
            self.say(f"Codex {VERSION} cannot be had, and what needs it is skipped: {error}")
            return None

    def environment(self) -> dict[str, str]:
        """Nothing of the caller's but the interpreter: no Codex on the PATH, an empty folder as HOME."""
        return {"PATH": str(self._no_programs), "HOME": str(self.user), "PYTHONPATH": str(REPOSITORY)}

    def preflight(self, *words: str | Path, home: CrowdedHome | None = None, output: Path | None = None) -> Process:
        """The command line, as a process of its own, with the verdicts that a large thread gets."""
        where: list[str | Path] = ["--home", home.path, "--store", self.store] if home is not None else []
        return Process(
            argv=[sys.executable, "-c", _PREFLIGHT, *words, *where],
            environment=self.environment(),
            folder=self.folder,
            statuses=frozenset({0, 3, 10}),
            output=output,
        )

    def python(self, program: str, *words: str | Path) -> Process:
        """This interpreter with a program of one line."""
        return Process(argv=[sys.executable, "-c", program, *words], environment=self.environment(), folder=self.folder)

    def shell(self, script: str, *words: str | Path, statuses: frozenset[int] = frozenset({0})) -> Process:
        """A line of shell with the machine's own programs, in the locale in which they are fastest."""
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        return Process(
            argv=["/bin/sh", "-c", script, "sh", *words],
            environment=environment,
            folder=self.folder,
            statuses=statuses,
        )

    def doctor(self, home: CrowdedHome, output: Path) -> Process | None:
        """`codex doctor --json` on the home; every address that it asks is a port of loopback where nobody listens."""
        if self.codex is None:
            return None
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
        return Process(
            argv=[self.codex.binary, "doctor", "--json"],
            environment={**home.home.environment(), **dict.fromkeys(names, _DEAD_PROXY)},
            folder=home.home.work,
            statuses=frozenset({0, 1}),
            output=output,
        )


def read_json(path: Path) -> dict[str, Any]:
    """The object that a program has printed."""
    found = json.loads(path.read_bytes())
    assert isinstance(found, dict)
    return found
