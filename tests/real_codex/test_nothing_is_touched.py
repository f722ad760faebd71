"""Looking, and proving a checkpoint on the real runtime: not a byte of the home changes, and the model is not asked."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.real_codex.app_server import AppServer
from tests.real_codex.codex_release import PINNED
from tests.real_codex.conftest import Codex, Shelf
from tests.real_codex.goal_runs import OBJECTIVE
from tests.real_codex.homes import CodexHome
from tests.real_codex.mock_model import MockModel
from tests.real_codex.preflight_command import Preflight
from tests.real_codex.snapshot import changes, everything_in

pytestmark = [pytest.mark.real_codex, pytest.mark.slow]


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
