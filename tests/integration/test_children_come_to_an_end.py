"""Child processes end when we say so, with everything that they started."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from preflight.errors import TimeLimitReached
from preflight.model import Answer
from preflight.system import children, processes
from preflight.system.children import Child, network_free_prefix, run
from tests.needs import cannot_be_had

PYTHON = [sys.executable, "-c"]
ENVIRONMENT = {"PATH": os.defpath}

WITH_A_GRANDCHILD = """
import subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.DEVNULL)
print(grandchild.pid, flush=True)
time.sleep(float(sys.argv[1]))
"""

DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_GRACE_SECONDS", 0.5)


def until_gone(pid: int) -> bool:
    """Whether the process goes away; killed is not yet gone, and the wait is only for the kernel."""
    for _ in range(500):
        if processes.is_alive(pid, processes.start_token(pid)) is Answer.NO:
            return True
        time.sleep(0.01)
    return False


def test_a_child_that_listens_to_the_end_of_its_input(tmp_path: Path) -> None:
    with Child([*PYTHON, "import sys; sys.stdin.read(); sys.exit(7)"], env=ENVIRONMENT, cwd=tmp_path) as child:
        assert child.poll() is None
        assert child.stop() == 7
        assert child.stop() == 7
    assert child.poll() == 7


def test_question_and_answer(tmp_path: Path) -> None:
    script = "import sys\nfor line in sys.stdin: print(line.strip()[::-1], flush=True)"
    with Child([*PYTHON, script], env=ENVIRONMENT, cwd=tmp_path) as child:
        child.stdin.write(b"abc\n")
        assert child.stdout.readline() == b"cba\n"


def test_a_child_that_is_deaf_is_killed(tmp_path: Path, impatient: None) -> None:
    with Child([*PYTHON, DEAF], env=ENVIRONMENT, cwd=tmp_path) as child:
        assert child.stdout.readline() == b"deaf\n"
        assert child.stop() == -signal.SIGKILL


def test_what_a_child_has_started_goes_with_it(tmp_path: Path, impatient: None) -> None:
    with Child([*PYTHON, WITH_A_GRANDCHILD, "600"], env=ENVIRONMENT, cwd=tmp_path) as child:
        grandchild = int(child.stdout.readline())
        assert os.getsid(grandchild) == os.getsid(child.pid) == child.pid != os.getsid(0)
    assert until_gone(grandchild)


def test_a_grandchild_that_outlives_its_parent_goes_too(tmp_path: Path) -> None:
    with Child([*PYTHON, WITH_A_GRANDCHILD, "0"], env=ENVIRONMENT, cwd=tmp_path) as child:
        grandchild = int(child.stdout.readline())
        assert child.wait(30) == 0
    assert until_gone(grandchild)


def test_a_child_that_talks_a_lot_on_standard_error_never_waits_for_us(tmp_path: Path) -> None:
    script = "import sys; sys.stderr.write('x' * 300_000 + 'the end'); sys.stderr.flush(); print('done', flush=True)"
    with Child([*PYTHON, script], env=ENVIRONMENT, cwd=tmp_path) as child:
        assert child.stdout.readline() == b"done\n"
    assert child.errors().endswith("the end")
    assert len(child.errors()) == 64 * 1024


def test_a_child_knows_only_what_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    script = "import os; print(sorted(os.environ)); print(os.getcwd())"
    ended = run([*PYTHON, script], env={"CODEX_HOME": "/x", "LC_ALL": "C.UTF-8"}, cwd=tmp_path, timeout=60)

    assert ended.stdout.decode().splitlines() == ["['CODEX_HOME', 'LC_ALL']", str(tmp_path)]
    assert ended.returncode == 0


def test_status_and_both_outputs_are_told(tmp_path: Path) -> None:
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    ended = run([*PYTHON, script], env=ENVIRONMENT, cwd=tmp_path, timeout=60)

    assert (ended.returncode, ended.stdout, ended.stderr) == (3, b"out\n", b"err\n")


def test_no_input_is_there_to_wait_for(tmp_path: Path) -> None:
    ended = run([*PYTHON, "import sys; print(repr(sys.stdin.read()))"], env=ENVIRONMENT, cwd=tmp_path, timeout=60)

    assert ended.stdout == b"''\n"


def test_a_program_that_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    script = f"open({str(marker)!r}, 'w').write(str(__import__('os').getpid())); __import__('time').sleep(600)"
    with pytest.raises(TimeLimitReached):
        run([*PYTHON, script], env=ENVIRONMENT, cwd=tmp_path, timeout=1.0)

    if marker.exists():  # a very slow machine may not have got that far
        assert until_gone(int(marker.read_text()))


def test_a_program_that_does_not_exist_is_not_started(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Child([str(tmp_path / "codex")], env=ENVIRONMENT, cwd=tmp_path)
    with pytest.raises(FileNotFoundError):
        run([str(tmp_path / "codex")], env=ENVIRONMENT, cwd=tmp_path, timeout=1)


def test_behind_the_prefix_there_is_no_network_not_even_loopback(tmp_path: Path) -> None:
    prefix = network_free_prefix()
    if not prefix:
        cannot_be_had("this machine lets nobody make a network namespace")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        outside = run([*PYTHON, script], env=ENVIRONMENT, cwd=tmp_path, timeout=60)
        inside = run([*prefix, *PYTHON, script], env=ENVIRONMENT, cwd=tmp_path, timeout=60)

    assert outside.returncode == 0
    assert inside.returncode != 0
    assert b"Network is unreachable" in inside.stderr
