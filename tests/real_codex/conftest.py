"""What the tests on the real Codex share: the pinned releases, one place for homes, threads made once a session."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.needs import cannot_be_had
from tests.real_codex.app_server import AppServer
from tests.real_codex.codex_release import CodexRelease, NpmMissingError, fetch
from tests.real_codex.homes import CodexHome
from tests.real_codex.mock_model import MockModel
from tests.real_codex.threads import KINDS, Kind

Codex = Callable[[str], CodexRelease]


@pytest.fixture(scope="session")
def codex() -> Codex:
    """A pinned release by its version; skips when it cannot be had, or fails when it must be."""

    def release(version: str) -> CodexRelease:
        try:
            return fetch(version)
        except NpmMissingError as missing:
            cannot_be_had(str(missing))

    return release


@pytest.fixture(scope="session")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Short, because a control socket lies in it; emptied at the end, because rollouts are large."""
    folder = tmp_path_factory.mktemp("cx")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def home(_place: Path) -> Iterator[CodexHome]:
    """The one place where homes stand, empty before and after each test."""
    home = CodexHome(_place / "at")
    home.make()
    yield home
    shutil.rmtree(home.place)


@pytest.fixture
def model() -> Iterator[MockModel]:
    with MockModel() as model:
        yield model


@dataclass(frozen=True, slots=True)
class KeptThread:
    """A thread, and the home that it was made in, saved."""

    release: CodexRelease
    kind: Kind
    thread_id: str
    saved: Path


class Shelf:
    """Threads of every release and kind, made when they are first asked for."""

    def __init__(self, folder: Path, codex: Codex) -> None:
        self._folder, self._codex = folder, codex
        self._kept: dict[tuple[str, str], KeptThread] = {}

    def put_back(self, home: CodexHome, version: str, kind: str) -> KeptThread:
        """The thread, its home standing in `home` as it was left."""
        if (version, kind) not in self._kept:
            self._kept[version, kind] = self._make(home, self._codex(version), KINDS[kind])
        kept = self._kept[version, kind]
        home.put_back(kept.saved)
        return kept

    def _make(self, home: CodexHome, release: CodexRelease, kind: Kind) -> KeptThread:
        with MockModel() as model:
            home.make(model.url, kind.provider)
            with AppServer(release, home) as server:
                thread_id = kind.make(server, model)
        saved = self._folder / release.version / kind.name
        home.save_to(saved)
        return KeptThread(release, kind, thread_id, saved)


@pytest.fixture(scope="session")
def shelf(_place: Path, codex: Codex) -> Shelf:
    return Shelf(_place / "saved", codex)
