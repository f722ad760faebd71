"""Looking, and proving a checkpoint on the real runtime: not a byte of the home changes, and the model is not asked."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.real_codex.app_server import AppServer
from tests.real_codex.codex_release import PINNED
from tests.real_codex.conftest import Codex, Shelf
from tests.real_codex.goal_runs import OBJECTIVE
from tests.real_codex.homes import CodexHome
from tests.real_codex.mock_model import MockModel
from tests.real_codex.preflight_command import Preflight

pytestmark = [pytest.mark.real_codex, pytest.mark.slow]


# What no reader of a database in WAL mode can leave alone: SQLite notes in `-shm`, the index of the log, how far each
# reader has come, and makes it where it is missing. Nothing of the database is in it; SQLite makes it anew from the
# log. The log itself, `-wal`, must stay byte for byte.
INDEX = "*.sqlite-shm"
OF_THE_SERVER = "logs_*"  # a running server writes its own log


@dataclass(frozen=True)
class Entry:
    """Everything of a file that somebody could miss; not when it was last read."""

    mode: int
    inode: int
    modified_ns: int | None
    size: int
    sha256: str | None


def everything_in(folder: Path) -> dict[str, Entry]:
    """By name; of folders not when something was last made in them, since SQLite makes and removes files beside."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        if fnmatch(path.name, INDEX) or fnmatch(path.name, OF_THE_SERVER):
            continue
        status = path.lstat()
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            entry = Entry(status.st_mode, status.st_ino, status.st_mtime_ns, status.st_size, content)
        else:
            entry = Entry(status.st_mode, status.st_ino, None, 0, None)
        found[str(path.relative_to(folder))] = entry
    return found


def changes(before: dict[str, Entry], after: dict[str, Entry]) -> dict[str, tuple[Entry | None, Entry | None]]:
    """By name, each file that was made, removed, or is not what it was: as it was and as it is."""
    names = sorted(before.keys() | after.keys())
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def home_with_a_paused_goal(version: str, shelf: Shelf, home: CodexHome, model: MockModel) -> str:
    kept = shelf.put_back(home, version, "compacted")
    home.point_at(model.url)
    with AppServer(kept.release, home) as server:
        server.resume(kept.thread_id)
        server.set_goal(kept.thread_id, objective=OBJECTIVE, status="paused")
    assert model.requests == []
    return kept.thread_id


@pytest.mark.parametrize("open_in_a_server", [False, True], ids=["nobody-has-it-open", "open-in-a-server"])
@pytest.mark.parametrize("version", PINNED)
def test_check_verify_and_a_run_without_an_active_goal_leave_the_home_as_it_is(
    version: str, open_in_a_server: bool, codex: Codex, shelf: Shelf, home: CodexHome, model: MockModel
) -> None:
    thread, preflight = home_with_a_paused_goal(version, shelf, home, model), Preflight(home)
    with ExitStack() as stack:
        if open_in_a_server:
            stack.enter_context(AppServer(codex(version), home)).list_threads()
        before = everything_in(home.path)

        checked = preflight("check")
        assert checked.code in (0, 3), str(checked)
        assert changes(before, everything_in(home.path)) == {}

        ran = preflight("run", "--runtime", codex(version).binary)
        assert ran.code in (0, 3), str(ran)
        assert ran.thread(thread)["checkpoint"]["verified"]
        # Codex's lock of the thread, which `run` has held meanwhile: empty, free again, and known to be harmless.
        lock = f"thread-writer-locks/{thread}.lock"
        assert changes(before, everything_in(home.path)).keys() <= {lock}
        before = everything_in(home.path)

        for runtime in ("0.169.0", version):
            proved = preflight("verify", "--with-runtime", "--runtime", codex(runtime).binary)
            assert proved.code == 0, str(proved)
            assert changes(before, everything_in(home.path)) == {}
        assert model.requests == []


@pytest.mark.parametrize("version", PINNED)
def test_the_same_after_the_runtime_was_killed(
    version: str, codex: Codex, shelf: Shelf, home: CodexHome, model: MockModel
) -> None:
    """The databases' write-ahead logs are left unfinished, and the last turn has no end."""
    kept = shelf.put_back(home, version, "killed")
    preflight = Preflight(home)
    home.point_at(model.url)
    before = everything_in(home.path)
    assert preflight("check").code in (0, 3)
    assert changes(before, everything_in(home.path)) == {}
    ran = preflight("run", "--runtime", codex(version).binary, "--thread", kept.thread_id)
    assert ran.code in (0, 3), str(ran)
    assert preflight("verify", "--with-runtime", "--runtime", codex(version).binary).code == 0
    assert changes(before, everything_in(home.path)) == {}
    assert model.requests == []
