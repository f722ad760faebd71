"""The pinned releases themselves, and what becomes of these tests where they cannot be had."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.real_codex.codex_release import PINNED
from tests.real_codex.conftest import Codex
from tests.real_codex.homes import CodexHome

pytestmark = [pytest.mark.real_codex, pytest.mark.slow]


@pytest.mark.parametrize("version", PINNED)
def test_each_release_is_what_it_is_called(version: str, codex: Codex, home: CodexHome) -> None:
    told = subprocess.run(
        [codex(version).binary, "--version"], env=home.environment(), capture_output=True, text=True, check=True
    )
    assert told.stdout.split()[-1] == version


@pytest.fixture
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a cache nor npm."""
    monkeypatch.setenv("PREFLIGHT_CODEX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("nothing_here")
def test_without_npm_a_test_is_skipped_and_says_why(codex: Codex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFLIGHT_REQUIRE_CODEX", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"Codex 0\.134\.0 is not in .* npm"):
        codex("0.134.0")


@pytest.mark.usefixtures("nothing_here")
def test_without_npm_a_test_fails_where_codex_is_required(codex: Codex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLIGHT_REQUIRE_CODEX", "1")
    with pytest.raises(pytest.fail.Exception, match="npm"):
        codex("0.134.0")
