"""Who makes archives: the calls of each program, on one file, in a folder that the program has for itself."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.measuring import Process
from tests.real_codex.codex_release import REPOSITORY

__all__ = ["BORG", "BORG_ZSTD", "RESTIC", "Peer", "Words", "borg", "ours", "restic"]

RESTIC, BORG, BORG_ZSTD = "restic", "borg", "borg -C zstd,3"

_PROGRAM = Path(__file__).with_name("archive_program.py")
_SYNCED = '"$@" && exec sync -- "$RESTORED"'

Words = Sequence[str | Path]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A program that keeps `source` in a store below `folder`; nothing of it is written elsewhere.

    `after_first` is where a copy of the folder is kept as its first archive has left it.

    `program` must be installed for it to take part. The words of a call may have the places `{store}`, `{source}`,
    `{name}` of the source, and `{restored}`. An archive is restored into the current folder.
    """

    name: str
    program: str
    source: Path
    folder: Path
    after_first: Path
    prepares: Words | None
    creates_first: Words
    creates_next: Words
    verifies: Words
    restores: Words
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_here(self) -> bool:
        return shutil.which(self.program) is not None

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def target(self) -> Path:
        return self.folder / "target"

    @property
    def restored(self) -> Path:
        return self.target / self.source.name

    @property
    def stored_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.store.rglob("*") if path.is_file())

    def call(self, words: Words) -> Process:
        return self._process(words, self.source.parent)

    def restoring(self) -> Process:
        """Restore, and put it on the disk, which our program does by itself."""
        words = self.restores if self.program == sys.executable else ["/bin/sh", "-c", _SYNCED, "sh", *self.restores]
        return self._process(words, self.target)

    def _process(self, words: Words, folder: Path) -> Process:
        places = {"store": self.store, "source": self.source, "name": self.source.name, "restored": self.restored}
        return Process(
            argv=[str(word).format(**places) for word in words],
            environment={
                "PATH": os.environ["PATH"],
                "LC_ALL": "C",
                "PYTHONPATH": str(REPOSITORY),
                "HOME": str(self.folder),
                "RESTORED": str(self.restored),
                **self.settings,
            },
            folder=folder,
        )


def ours(source: Path, name: str, proof: str = "full") -> Peer:
    return Peer(
        name=name,
        program=sys.executable,
        source=source,
        folder=source.parent / f"preflight-{proof}",
        after_first=source.parent / "preflight-first",
        prepares=None,
        creates_first=[sys.executable, _PROGRAM, "append", "{store}", "{source}", "full"],
        creates_next=[sys.executable, _PROGRAM, "append", "{store}", "{source}", proof],
        verifies=[sys.executable, _PROGRAM, "verify", "{store}", "{source}"],
        restores=[sys.executable, _PROGRAM, "restore", "{store}", "{source}", "{restored}"],
    )


def restic(source: Path) -> Peer:
    restic = ["restic", "-r", "{store}", "--no-cache"]
    return Peer(
        name=RESTIC,
        program="restic",
        source=source,
        folder=source.parent / "restic",
        after_first=source.parent / "restic-first",
        prepares=[*restic, "init"],
        creates_first=[*restic, "backup", "{name}"],
        creates_next=[*restic, "backup", "{name}"],
        verifies=[*restic, "check", "--read-data"],
        restores=[*restic, "restore", "latest", "--target", "."],
        settings={"RESTIC_PASSWORD": "benchmark"},
    )


def borg(source: Path, name: str, *options: str) -> Peer:
    folder = "-".join(["borg", *options])
    return Peer(
        name=name,
        program="borg",
        source=source,
        folder=source.parent / folder,
        after_first=source.parent / f"{folder}-first",
        prepares=["borg", "init", "-e", "none", "{store}"],
        creates_first=["borg", "create", *options, "{store}::first", "{name}"],
        creates_next=["borg", "create", *options, "{store}::next", "{name}"],
        verifies=["borg", "check", "--verify-data", "{store}"],
        restores=["borg", "extract", "{store}::next"],
        settings={
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        },
    )
