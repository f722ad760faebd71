"""Which process is which, how much memory it had, and whether it is still the same one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from preflight.model import Answer
from preflight.system import processes
from preflight.system.mounts import filesystem_kind

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@pytest.fixture
def sleeper(tmp_path: Path) -> Path:
    """A real program under a name that nothing else on this machine has."""
    program = tmp_path / "sleeper9-x86"
    shutil.copy2(str(shutil.which("sleep")), program)
    return program


@linux_only
def test_a_program_is_found_by_the_stem_of_its_name(sleeper: Path) -> None:
    with subprocess.Popen([sleeper, "600"], env={"CODEX_HOME": "/x", "TOKEN": "secret"}) as process:
        try:
            found = processes.processes_named("sleeper9")
            assert processes.processes_named("sleeper9-x86") == found
            assert processes.processes_named("SLEEPER9") == found
            assert processes.processes_named("sleep9") == processes.processes_named("leeper9") == []
        finally:
            process.kill()

    (facts,) = found
    assert facts.pid == process.pid
    assert facts.name == "sleeper9-x86"
    assert facts.executable == sleeper
    assert facts.arguments == (str(sleeper), "600")
    assert facts.parent_pid == os.getpid()
    assert facts.environment == {"CODEX_HOME": "/x", "TOKEN": "secret"}
    assert facts.started_at is not None
    assert "secret" not in repr(facts)
    assert "600" not in repr(facts)


@linux_only
def test_a_process_that_has_ended_but_was_not_waited_for_is_not_at_work(sleeper: Path) -> None:
    with subprocess.Popen([sleeper, "0"]) as process:
        token = processes.start_token(process.pid)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

        assert processes.processes_named("sleeper9") == []
        assert processes.is_alive(process.pid, token) is Answer.NO


def test_a_pid_alone_does_not_make_it_the_same_process() -> None:
    token = processes.start_token(os.getpid())

    assert token is not None
    assert processes.is_alive(os.getpid(), token) is Answer.YES
    assert processes.is_alive(os.getpid(), token + "0") is Answer.NO
    assert processes.is_alive(os.getpid(), None) is Answer.UNKNOWN


def test_a_process_that_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()

    assert processes.start_token(process.pid) is None
    assert processes.is_alive(process.pid, "token") is Answer.NO
    assert processes.peak_memory_bytes(process.pid) is None


@linux_only
def test_the_peak_stays_when_the_memory_is_given_back() -> None:
    before = processes.peak_memory_bytes(os.getpid())
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    del block
    after = processes.peak_memory_bytes(os.getpid())

    assert before is not None
    assert after is not None
    assert after >= 64 << 20


def test_the_memory_of_the_machine_is_some() -> None:
    assert processes.machine_memory_bytes() >= 64 << 20


@linux_only
@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "1000", "memory.max": "2000"}, [1000, 2000]),
        ("0::/../other\n", {"memory.max": "3000"}, [3000]),
        ("5:cpu:/x\n4:memory:/c\n", {"memory/c/memory.limit_in_bytes": "4000"}, [4000]),
        ("", {}, []),
    ],
    ids=["nested", "container that sees the host's path", "version 1", "none"],
)
def test_a_limit_of_the_control_group_or_of_one_above_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, limits: dict[str, str], expected: list[int]
) -> None:
    """Folders laid out as the kernel's: a real group needs rights that a test does not have."""
    (tmp_path / "cgroup").write_text(groups)
    for name, text in limits.items():
        path = tmp_path / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    monkeypatch.setattr(processes, "_GROUPS_OF_OURS", tmp_path / "cgroup")
    monkeypatch.setattr(processes, "_GROUP_ROOT", tmp_path / "sys")

    assert sorted(processes._group_limits()) == expected


@linux_only
def test_the_kind_of_file_system_is_that_of_the_nearest_mount() -> None:
    assert filesystem_kind(Path("/proc/self/status")) == "proc"
    assert filesystem_kind(Path("/proc/self/does/not/exist")) == "proc"
    assert filesystem_kind(Path("/sys")) == "sysfs"
