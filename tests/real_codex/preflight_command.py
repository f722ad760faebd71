"""Calls the real ``preflight`` as an updater would: another process, its JSON, its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.real_codex.homes import CodexHome

__all__ = ["Preflight", "Report"]

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Report:
    """The exit code and the one JSON object; `words` is what stderr said."""

    code: int
    json: dict[str, Any]
    words: str

    @property
    def findings(self) -> dict[str, dict[str, Any]]:
        return {finding["id"]: finding for finding in self.json["findings"]}

    def thread(self, thread_id: str) -> dict[str, Any]:
        return next(thread for thread in self.json["data"]["threads"] if thread["thread_id"] == thread_id)

    def __str__(self) -> str:
        return f"exit {self.code}\n{json.dumps(self.json, indent=1)}\n{self.words}"


@dataclass(frozen=True, slots=True)
class Preflight:
    """Preflight on one home, with a store beside it; every call ends or is an error after two minutes and a half."""

    home: CodexHome

    @property
    def store(self) -> Path:
        return self.home.place / "store"

    def command(self, verb: str, *arguments: str | Path) -> list[str | Path]:
        """Its arguments behind ``preflight``."""
        return [verb, *arguments, "--json", "--home", self.home.path, "--store", self.store]

    def begin(self, verb: str, *arguments: str | Path) -> subprocess.Popen[str]:
        """Starts it; the caller waits for it with `end`."""
        return self.start([sys.executable, "-W", "error", "-m", "preflight", *self.command(verb, *arguments)])

    def start(self, program: list[str | Path]) -> subprocess.Popen[str]:
        environment = self.home.environment()
        del environment["CODEX_HOME"]  # it is told with --home
        return subprocess.Popen(
            program,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.home.place,
            env={**environment, "PYTHONPATH": str(REPOSITORY)},
        )

    def end(self, process: subprocess.Popen[str]) -> Report:
        with process:
            try:
                said, words = process.communicate(timeout=150)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert said.endswith("}\n"), words
        report = Report(process.returncode, json.loads(said), words)
        assert report.json["exit_code"] == report.code, str(report)
        assert report.code != 1, f"{report}\n{self._crashes()}"
        return report

    def _crashes(self) -> str:
        """What an internal error wrote down."""
        return "\n".join(path.read_text() for path in self.home.user.rglob("crash-*.txt"))

    def __call__(self, verb: str, *arguments: str | Path) -> Report:
        return self.end(self.begin(verb, *arguments))
