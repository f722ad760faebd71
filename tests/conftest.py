"""Fixtures of every test: a user of its own for each, and the guard around the real one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import guard

guard.watch()

_REAL_NPMRC = Path.home() / ".npmrc"
# How the suite itself is run; the product reads neither.
_OF_THE_SUITE = {"PREFLIGHT_CODEX_CACHE", "PREFLIGHT_REQUIRE_CODEX"}
_FOLDERS = {
    "HOME": "",
    "USERPROFILE": "",
    "APPDATA": "AppData/Roaming",
    "LOCALAPPDATA": "AppData/Local",
    "XDG_CACHE_HOME": ".cache",
    "XDG_CONFIG_HOME": ".config",
    "XDG_DATA_HOME": ".local/share",
    "XDG_STATE_HOME": ".local/state",
}
_REMOVED = {"CODEX_HOME", "CODEX_SQLITE_HOME", "XDG_RUNTIME_DIR", "NO_COLOR", "FORCE_COLOR", "COLUMNS"}


def _become(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the environment that of a person who has never used Codex, whose folder is `user`."""
    for name in list(os.environ):
        if name in _REMOVED or (name.startswith("PREFLIGHT_") and name not in _OF_THE_SUITE):
            monkeypatch.delenv(name)
    for name, inside in _FOLDERS.items():
        monkeypatch.setenv(name, str(user / inside))
    if _REAL_NPMRC.exists() and "NPM_CONFIG_USERCONFIG" not in os.environ:
        monkeypatch.setenv("NPM_CONFIG_USERCONFIG", str(_REAL_NPMRC))  # how npm reaches its registry here


@pytest.fixture(scope="session", autouse=True)
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user that fixtures of a wider scope than one test run as."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        user = tmp_path_factory.mktemp("nobody")
        _become(user, monkeypatch)
        yield user


@pytest.fixture(autouse=True)
def user(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of this test's own user; `~/.codex` and the store's default folder lie in it."""
    folder = tmp_path_factory.mktemp("user")
    _become(folder, monkeypatch)
    return folder


@pytest.fixture
def preflight(user: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line as a process of its own, which can only see this test's user."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))

    def run(*arguments: str | Path, **settings: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "preflight", *map(str, arguments)]
        return subprocess.run(command, **{"capture_output": True, "text": True, "cwd": user, **settings})

    return run
