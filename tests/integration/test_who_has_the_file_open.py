"""Whether anybody may still append to a rollout: real processes, real leases."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from preflight.model import Answer
from preflight.system import processes
from tests.second_process import second_process

APPEND_LIKE_CODEX = """
descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
say("ready")
wait()
"""

READ_ONLY = """
file = open(sys.argv[1], "rb")
say("ready")
wait()
"""

OPEN_AND_CLOSE_ALL_THE_TIME = """
say("ready")
count = 0
end = time.monotonic() + 1.0
while time.monotonic() < end:
    with open(sys.argv[1], "ab") as file:
        file.write(b"line\\n")
    count += 1
say(count)
"""

PROBE_ALL_THE_TIME = """
from pathlib import Path
from preflight.system.processes import open_for_writing
say("ready")
end = time.monotonic() + 1.0
seen = set()
while time.monotonic() < end:
    seen.add(open_for_writing(Path(sys.argv[1])).value)
say(",".join(sorted(seen)))
"""

PROBE_AS_SOMEBODY_ELSE = """
from pathlib import Path
from preflight.system.processes import open_for_writing
os.setgid(65534)
os.setuid(65534)
say("ready")
say(open_for_writing(Path(sys.argv[1])).value)
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="leases and /proc are Linux's")


@pytest.fixture
def rollout(tmp_path: Path) -> Path:
    path = tmp_path / "rollout.jsonl"
    path.write_bytes(b"{}\n")
    return path


@pytest.fixture
def no_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without leases, as 9p and NFS are: the probe says that it cannot tell."""
    monkeypatch.setattr(processes, "_lease_granted", lambda path: None)


def test_nobody(rollout: Path) -> None:
    assert processes.open_for_writing(rollout) is Answer.NO
    assert processes.holders(rollout) == ()


def test_a_reader_is_no_writer(rollout: Path) -> None:
    with second_process(READ_ONLY, rollout):
        assert processes.open_for_writing(rollout) is Answer.NO
        assert processes.holders(rollout) == ()


def test_a_writer_until_it_ends(rollout: Path) -> None:
    with second_process(APPEND_LIKE_CODEX, rollout) as writer:
        assert processes.open_for_writing(rollout) is Answer.YES
        assert processes.holders(rollout) == (writer.pid,)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert processes.open_for_writing(rollout) is Answer.NO


def test_a_writer_by_another_name_of_the_same_file(rollout: Path, tmp_path: Path) -> None:
    (tmp_path / "hard").hardlink_to(rollout)
    (tmp_path / "soft").symlink_to(rollout)
    for name in ("hard", "soft"):
        with second_process(APPEND_LIKE_CODEX, tmp_path / name) as writer:
            assert processes.open_for_writing(rollout) is Answer.YES
            assert processes.holders(rollout) == (writer.pid,)


def test_a_file_that_took_the_place_of_the_one_that_is_written_to(rollout: Path, tmp_path: Path) -> None:
    with second_process(APPEND_LIKE_CODEX, rollout):
        (tmp_path / "new").write_bytes(b"{}\n")
        (tmp_path / "new").replace(rollout)

        assert processes.open_for_writing(rollout) is Answer.NO


def test_several_files_are_looked_for_at_once(rollout: Path, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").touch()
    with (
        second_process(APPEND_LIKE_CODEX, rollout) as one,
        second_process(APPEND_LIKE_CODEX, tmp_path / "other.jsonl") as other,
    ):
        found = processes.holders(rollout, tmp_path / "other.jsonl", tmp_path / "gone.jsonl")

    assert found == tuple(sorted((one.pid, other.pid)))


def test_a_missing_file_has_no_writer(tmp_path: Path) -> None:
    assert processes.open_for_writing(tmp_path / "gone.jsonl") is Answer.NO
    assert processes.holders(tmp_path / "gone.jsonl") == ()


def test_a_database_is_never_asked_about(tmp_path: Path) -> None:
    for name in ("goals_1.sqlite", "goals_1.sqlite-wal"):
        with pytest.raises(ValueError, match="SQLite"):
            processes.open_for_writing(tmp_path / name)


@linux_only
def test_a_writer_that_comes_in_the_middle_of_the_question_harms_nobody_and_is_not_harmed(rollout: Path) -> None:
    """The kernel tells the holder of a lease about a writer by a signal, which would end a process unprepared."""
    with (
        second_process(PROBE_ALL_THE_TIME, rollout) as prober,
        second_process(OPEN_AND_CLOSE_ALL_THE_TIME, rollout) as writer,
    ):
        assert writer.stdout is not None
        assert prober.stdout is not None
        count = int(writer.stdout.readline())
        answers = prober.stdout.readline().strip().split(",")
        assert writer.wait() == 0
        assert prober.wait() == 0

    assert set(answers) <= {"no", "yes"}
    assert rollout.read_bytes() == b"{}\n" + b"line\n" * count


@linux_only
def test_asking_leaves_no_lease_and_no_descriptor(rollout: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        processes.open_for_writing(rollout)

    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert f":{rollout.stat().st_ino} " not in Path("/proc/locks").read_text()


def test_without_leases_the_processes_are_looked_through(rollout: Path, no_leases: None) -> None:
    with second_process(APPEND_LIKE_CODEX, rollout):
        assert processes.open_for_writing(rollout) is Answer.YES
    assert processes.open_for_writing(rollout) is not Answer.YES


@pytest.mark.parametrize(("complete", "answer"), [(True, Answer.NO), (False, Answer.UNKNOWN)])
def test_one_process_that_could_not_be_looked_into_is_enough_not_to_know(
    rollout: Path, no_leases: None, monkeypatch: pytest.MonkeyPatch, complete: bool, answer: Answer
) -> None:
    """Which processes can be looked into depends on the machine: here the scan's answer is given."""
    monkeypatch.setattr(processes, "_writers", lambda paths: ((), complete))

    assert processes.open_for_writing(rollout) is answer


@pytest.mark.parametrize("kind", ["9p", "nfs4", "fuse.sshfs", "cifs", "unknown"])
def test_where_others_can_write_unseen_a_no_is_not_known(
    rollout: Path, no_leases: None, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(processes, "filesystem_kind", lambda path: kind)

    assert processes.open_for_writing(rollout) is Answer.UNKNOWN
    with second_process(APPEND_LIKE_CODEX, rollout):
        assert processes.open_for_writing(rollout) is Answer.YES


@linux_only
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_file_of_somebody_else_is_not_known() -> None:
    """Without the right to a lease on it, and without a look into its owner's processes, nobody can tell."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        rollout = Path(name) / "rollout.jsonl"
        rollout.write_bytes(b"{}\n")
        rollout.chmod(0o644)
        with second_process(PROBE_AS_SOMEBODY_ELSE, rollout) as prober:
            assert prober.stdout is not None
            assert prober.stdout.readline() == "unknown\n"
