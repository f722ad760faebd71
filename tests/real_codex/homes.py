"""Throw-away Codex homes: made at one place, kept as a copy, put back at the same place.

Codex's databases hold absolute paths, so a home that is put back anywhere else is another home. A place holds

    codex/   the home          work/   where turns run          user/   `HOME` of every process we start

and nothing that a test starts knows of the user's own home.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

__all__ = ["LOOPBACK", "CodexHome"]

LOOPBACK = "loopback"  # the id of our model provider, and its name unless Codex is to take it for another
UNREACHABLE = "http://127.0.0.1:9/v1"  # the discard port of loopback: nobody listens there


@dataclass(frozen=True, slots=True)
class CodexHome:
    """One place for homes; `path` is the CODEX_HOME."""

    place: Path

    @property
    def path(self) -> Path:
        return self.place / "codex"

    @property
    def work(self) -> Path:
        return self.place / "work"

    @property
    def user(self) -> Path:
        return self.place / "user"

    def environment(self) -> dict[str, str]:
        """All that a process of ours gets to know of the machine."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.user),
            "CODEX_HOME": str(self.path),
            "RUST_LOG": "warn",
        }

    def make(self, model_url: str = UNREACHABLE, provider: str = LOOPBACK) -> None:
        """An empty home, whatever was there before."""
        if self.place.exists():
            shutil.rmtree(self.place)
        for folder in (self.path, self.work, self.user):
            folder.mkdir(parents=True)
        self.point_at(model_url, provider)

    def save_to(self, folder: Path) -> None:
        shutil.copytree(self.path, folder, symlinks=True)

    def put_back(self, folder: Path) -> None:
        """The saved home, as it was; nobody answers for the model until `point_at` says where it is."""
        self.make()
        shutil.rmtree(self.path)
        shutil.copytree(folder, self.path, symlinks=True)
        self.point_at(UNREACHABLE)

    def point_at(self, model_url: str, provider: str = LOOPBACK) -> None:
        """Writes the configuration: one model provider, and nothing that would look for the network."""
        settings = {
            "name": provider,
            "base_url": model_url,
            "wire_api": "responses",
            "requires_openai_auth": False,
            "request_max_retries": 0,
            "stream_max_retries": 0,
            "supports_websockets": False,
        }
        off = ("plugins", "apps", "enable_request_compression", "shell_snapshot")
        config = {
            "model": "gpt-5.4",
            "model_provider": LOOPBACK,
            "approval_policy": "never",
            "sandbox_mode": "danger-full-access",
            "check_for_update_on_startup": False,
            "analytics": {"enabled": False},
            "features": {"goals": True, **dict.fromkeys(off, False)},
            "model_providers": {LOOPBACK: settings},
        }
        (self.path / "config.toml").write_text(tomli_w.dumps(config))

    # ---- what is in it -------------------------------------------------------------------------------------

    def rollouts(self, thread: str) -> list[Path]:
        """The files of a thread, the oldest first."""
        names = f"rollout-*-{thread}*.jsonl"
        return sorted([*self.path.glob(f"sessions/*/*/*/{names}"), *self.path.glob(f"archived_sessions/{names}")])

    def goals(self) -> dict[str, dict[str, Any]]:
        """The goal rows by thread, from wherever this release keeps them."""
        for name in ("goals_1.sqlite", "state_5.sqlite"):
            path = self.path / name
            if not path.exists():
                continue
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
                database.row_factory = sqlite3.Row
                tables = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'thread_goals'").fetchall()
                if tables:
                    return {row["thread_id"]: dict(row) for row in database.execute("SELECT * FROM thread_goals")}
        return {}

    def forget_projection(self) -> None:
        """Removes what 0.169 derived from rollouts that a test has exchanged; it derives it anew on resume."""
        for path in self.path.glob("thread_history_*.sqlite*"):
            path.unlink()
