"""The pinned Codex releases: fetched from npm once, then found in a cache.

A release is installed into a folder of its own, which gets its name when it is complete. Two test runs at once
wait for each other on a lock and fetch a release once; a run that is killed leaves nothing that looks finished,
and the next one removes what it left.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

__all__ = ["PINNED", "CodexRelease", "FetchError", "NpmMissingError", "cache_folder", "fetch"]

REPOSITORY = Path(__file__).resolve().parents[2]

# 0.128 keeps goals in the state database, 0.134 needs five times a rollout's size in memory, 0.147 has the writer
# lock, 0.169 paginates rollouts and forks by reference.
PINNED = ("0.128.0", "0.134.0", "0.147.0", "0.169.0")


class NpmMissingError(Exception):
    """There is no npm here, so a release that is not in the cache cannot be had."""


class FetchError(Exception):
    """npm is here, and did not deliver."""


@dataclass(frozen=True, slots=True)
class CodexRelease:
    """One installed release; `binary` is the native program, not npm's JavaScript around it."""

    version: str
    binary: Path

    def at_least(self, version: str) -> bool:
        return _numbers(self.version) >= _numbers(version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def cache_folder() -> Path:
    """`PREFLIGHT_CODEX_CACHE`, else a folder in the checkout that git ignores."""
    chosen = os.environ.get("PREFLIGHT_CODEX_CACHE")
    return Path(chosen).resolve() if chosen else REPOSITORY / ".cache" / "codex"


def fetch(version: str) -> CodexRelease:
    """The release, from the cache or from npm; raises NpmMissingError or FetchError."""
    cache = cache_folder()
    home = cache / f"codex-{version}"
    if not home.is_dir():
        npm = shutil.which("npm")
        if npm is None:
            raise NpmMissingError(
                f"Codex {version} is not in {cache} and npm, which would fetch it, is not on the PATH"
            )
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"codex-{version}.lock"):
            if not home.is_dir():  # else another run was faster, and we had only to wait for it
                _install(npm, version, home)
    return CodexRelease(version, _native_binary(home))


def _install(npm: str, version: str, home: Path) -> None:
    for left_behind in home.parent.glob(f"codex-{version}.part-*"):
        shutil.rmtree(left_behind)  # we hold the lock: whoever made it is dead
    part = Path(tempfile.mkdtemp(prefix=f"codex-{version}.part-", dir=home.parent))
    try:
        with tempfile.TemporaryDirectory(prefix="npm-", dir=part) as npm_cache:  # the user's own cache stays as it is
            quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts", "--loglevel=error"]
            done = subprocess.run(
                [npm, "install", "--prefix", str(part), "--cache", npm_cache, *quiet, f"@openai/codex@{version}"],
                cwd=part,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=900,
            )
        if done.returncode != 0:
            raise FetchError(f"npm install of Codex {version} ended with {done.returncode}: {done.stderr[-2000:]}")
        _native_binary(part)
        part.rename(home)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _native_binary(home: Path) -> Path:
    name = "codex.exe" if sys.platform == "win32" else "codex"
    found = sorted(home.glob(f"node_modules/@openai/codex-*/vendor/*/*/{name}"))
    if len(found) != 1:
        raise FetchError(f"{home} holds {len(found)} native Codex programs, not one; remove it to fetch it again")
    return found[0]
