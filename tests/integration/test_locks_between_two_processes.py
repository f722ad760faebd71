"""Kernel locks, each held by a real second process."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from preflight.errors import Locked, Unsupported
from preflight.model import Answer
from preflight.system.deadline import Deadline
from preflight.system.files import private_folder
from preflight.system.locks import RunLock, held, lock_is_held
from tests.second_process import second_process

HOLD_THE_RUN_LOCK = """
from pathlib import Path
from preflight.system.deadline import Deadline
from preflight.system.locks import RunLock
with RunLock(Path(sys.argv[1])).acquire(Deadline(5), {"program": "preflight run", "run_id": "r1"}):
    say("ready")
    wait()
say("released")
"""

HOLD_LIKE_CODEX = """
import fcntl
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
fcntl.flock(descriptor, fcntl.LOCK_EX)
say("ready")
wait()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    private_folder(tmp_path / "store" / "home")
    return tmp_path / "store" / "home"


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def test_the_second_run_is_told_who_is_at_work(folder: Path) -> None:
    with second_process(HOLD_THE_RUN_LOCK, folder) as first:
        with pytest.raises(Locked) as caught:
            RunLock(folder).acquire(Deadline(0), {"program": "preflight run"})

        assert caught.value.exit_code == 11
        assert str(first.pid) in caught.value.message
        assert "preflight run" in caught.value.message
        assert caught.value.hint
        record = json.loads((folder / "run.json").read_bytes())
        assert record["pid"] == first.pid
        assert record["since"].endswith("Z")
        assert record["run_id"] == "r1"
        assert stat.S_IMODE((folder / "run.json").stat().st_mode) == 0o600
        assert stat.S_IMODE((folder / "run.lock").stat().st_mode) == 0o600


def test_the_second_run_gets_its_turn_when_the_first_is_done_in_time(folder: Path) -> None:
    with second_process(HOLD_THE_RUN_LOCK, folder) as first:
        assert first.stdin is not None
        first.stdin.close()
        with RunLock(folder).acquire(Deadline(30), {"program": "preflight finish"}):
            assert json.loads((folder / "run.json").read_bytes())["program"] == "preflight finish"

    assert not (folder / "run.json").exists()


def test_a_killed_run_leaves_a_record_and_no_lock(folder: Path) -> None:
    with second_process(HOLD_THE_RUN_LOCK, folder) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert json.loads((folder / "run.json").read_bytes())["pid"] == first.pid

    with RunLock(folder).acquire(Deadline(0), {"program": "preflight run"}):
        assert json.loads((folder / "run.json").read_bytes())["pid"] == os.getpid()


@pytest.mark.parametrize("record", [None, b"", b"{", b"[]", b"\xff"])
def test_it_is_no_less_locked_when_the_record_cannot_be_read(folder: Path, record: bytes | None) -> None:
    with second_process(HOLD_THE_RUN_LOCK, folder):
        (folder / "run.json").unlink()
        if record is not None:
            (folder / "run.json").write_bytes(record)

        with pytest.raises(Locked):
            RunLock(folder).acquire(Deadline(0), {})


def test_a_lock_that_is_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"somebody's file")
    (folder / "run.lock").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(Unsupported):
        RunLock(folder).acquire(Deadline(0), {})

    assert (tmp_path / "elsewhere").read_bytes() == b"somebody's file"


def test_releasing_twice_or_without_having_it_is_harmless(folder: Path) -> None:
    lock = RunLock(folder)
    lock.release()
    lock.acquire(Deadline(0), {})
    lock.release()
    lock.release()
    lock.acquire(Deadline(0), {})
    lock.release()


def test_a_runtime_that_has_the_thread_open_is_seen_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "thread.lock"
    with second_process(HOLD_LIKE_CODEX, path) as runtime:
        assert lock_is_held(path) is Answer.YES
        assert lock_is_held(path) is Answer.YES
        let_go(runtime)
        assert lock_is_held(path) is Answer.NO


def test_a_stale_lock_file_of_a_killed_runtime_is_free(tmp_path: Path) -> None:
    path = tmp_path / "thread.lock"
    with second_process(HOLD_LIKE_CODEX, path) as runtime:
        runtime.send_signal(signal.SIGKILL)
        runtime.wait()

    assert path.exists()
    assert lock_is_held(path) is Answer.NO


def test_asking_makes_no_file_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    assert lock_is_held(tmp_path / "missing.lock") is Answer.NO
    assert not (tmp_path / "missing.lock").exists()
    assert lock_is_held(tmp_path / "link") is Answer.UNKNOWN


def test_two_that_ask_at_once_do_not_take_each_other_for_a_runtime(tmp_path: Path) -> None:
    path = tmp_path / "thread.lock"
    path.touch()
    asking = os.open(path, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH | fcntl.LOCK_NB)  # where the other one stands in the middle of its question
    try:
        assert lock_is_held(path) is Answer.NO
    finally:
        os.close(asking)


def test_while_we_hold_a_threads_lock_no_runtime_can(tmp_path: Path) -> None:
    path = tmp_path / "thread-writer-locks" / "thread.lock"
    with held(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        descriptor = os.open(path, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
        assert lock_is_held(path) is Answer.YES

    assert lock_is_held(path) is Answer.NO


def test_a_threads_lock_that_a_runtime_has_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "thread.lock"
    with second_process(HOLD_LIKE_CODEX, path), pytest.raises(Locked) as caught, held(path):
        raise AssertionError("two have the lock")

    assert caught.value.path == path


def test_the_lock_is_given_back_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "thread.lock"
    with pytest.raises(RuntimeError), held(path):
        raise RuntimeError("in the block")

    assert lock_is_held(path) is Answer.NO
