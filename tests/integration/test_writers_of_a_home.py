"""Who can append to a thread, with real processes, real descriptors and real locks; no Codex needed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from preflight.codex.writers import runtimes_of, writer_lock_path, writer_of
from preflight.model import (
    Answer,
    Home,
    Role,
    RolloutFile,
    Runtime,
    Segment,
    Thread,
    WriterState,
)
from preflight.system import files, locks, processes

THREAD = "01a2036d-c442-7320-ada6-1a77b942a3c1"
PARENT = "01a2036d-0000-7320-ada6-1a77b942a3c1"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    path = tmp_path / "codex-home"
    path.mkdir()
    return Home(path=path, sqlite_home=path, home_id="h", state_db=None, goals_db=None, history_db=None)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a real process named `codex`: a shell of that name that runs a script named `app-server`."""
    package = tmp_path / "package"
    program = package / "bin" / "codex"
    program.parent.mkdir(parents=True)
    shutil.copy2(shutil.which("dash") or "/bin/sh", program)
    (package / "codex-package.json").write_text(json.dumps({"version": "0.169.0"}))
    (tmp_path / "app-server").write_text("echo ready; read -r line\n")
    started: list[subprocess.Popen[bytes]] = []

    def run(environment: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [program, "app-server", *arguments],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    yield run
    for process in started:
        process.communicate(b"\n")


@contextmanager
def another_process(code: str, *arguments: object) -> Iterator[int]:
    """A Python that has run `code` and waits; its pid."""
    script = f"import sys\n{code}\nprint('ready', flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    try:
        yield process.pid
    finally:
        process.communicate()


WRITES = "held = open(sys.argv[1], 'ab')"
READS = "held = open(sys.argv[1], 'rb')"
LOCKS = "import fcntl; held = open(sys.argv[1], 'ab'); fcntl.flock(held, fcntl.LOCK_EX)"


def rollout(home: Home, thread_id: str = THREAD, segment: str = "", suffix: str = ".jsonl") -> RolloutFile:
    path = home.path / "sessions" / f"rollout-2026-11-22T13-24-15-{thread_id}{segment}{suffix}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"{}\n")
    return RolloutFile(
        place=str(path),
        thread_id=thread_id,
        segment_id=segment[1:] or None,
        stamp="2026-11-22T13-24-15",
        archived=False,
        compressed=suffix == ".jsonl.zst",
        identity=files.identity(path),
    )


def thread(home: Home, *own: RolloutFile, unlisted: tuple[RolloutFile, ...] = ()) -> Thread:
    lineage = tuple(Segment(file=file, end_offset=None) for file in own)
    return Thread(home=home, thread_id=THREAD, row=None, lineage=lineage, goal=None, archived=False, unlisted=unlisted)


# ---- of a thread -------------------------------------------------------------------------------------------


def test_a_rollout_that_nobody_has_open_has_no_writer(home: Home) -> None:
    assert writer_of(thread(home, rollout(home)), ()) == (WriterState.NONE, ())


def test_who_only_reads_it_is_no_writer(home: Home) -> None:
    file = rollout(home)
    with another_process(READS, file.path):
        assert writer_of(thread(home, file), ())[0] is WriterState.NONE


def test_who_has_it_open_for_appending_is_named(home: Home) -> None:
    file = rollout(home)
    with another_process(WRITES, file.path) as pid:
        known = Runtime(pid=pid, version="0.169.0", role=Role.DESKTOP, executable=None)
        assert writer_of(thread(home, file), (known,)) == (WriterState.LIVE, (known,))
        unknown = Runtime(pid=pid, version=None, role=Role.UNKNOWN, executable=None)
        assert writer_of(thread(home, file), ()) == (WriterState.LIVE, (unknown,))


@pytest.mark.parametrize("which", ["older segment", "duplicate"])
def test_each_file_of_the_thread_counts(home: Home, which: str) -> None:
    newest, other = rollout(home, segment=f"_{PARENT}"), rollout(home)
    threads = {
        "older segment": thread(home, newest, other),
        "duplicate": thread(home, newest, unlisted=(other,)),
    }
    with another_process(WRITES, other.path):
        assert writer_of(threads[which], ())[0] is WriterState.LIVE


def test_the_writer_of_the_thread_it_was_forked_from_is_not_its_own(home: Home) -> None:
    base = rollout(home, PARENT)
    with another_process(WRITES, base.path):
        assert writer_of(thread(home, rollout(home), base), ())[0] is WriterState.NONE


def test_a_writer_lock_that_is_held_means_a_writer_and_names_it(home: Home) -> None:
    lock = writer_lock_path(home, THREAD)
    lock.parent.mkdir()
    lock.touch()
    one = thread(home, rollout(home))
    with another_process(LOCKS, lock) as pid:
        state, holding = writer_of(one, ())
        assert (state, [runtime.pid for runtime in holding]) == (WriterState.LIVE, [pid])
    # Killed, a runtime leaves the file; nobody holds the lock any more.
    assert lock.exists()
    assert writer_of(one, ()) == (WriterState.NONE, ())


def test_looking_makes_no_lock_file(home: Home) -> None:
    writer_of(thread(home, rollout(home)), ())
    assert not writer_lock_path(home, THREAD).parent.exists()


def test_a_thread_without_a_file_has_no_writer(home: Home) -> None:
    assert writer_of(thread(home), ()) == (WriterState.NONE, ())


def test_a_compressed_rollout_is_not_written_to(home: Home) -> None:
    assert writer_of(thread(home, rollout(home, suffix=".jsonl.zst")), ())[0] is WriterState.NONE


@pytest.mark.parametrize("cannot", ["look at the file", "look at the lock"])
def test_what_cannot_be_told_is_unknown(home: Home, monkeypatch: pytest.MonkeyPatch, cannot: str) -> None:
    place, name = {
        "look at the file": (processes, "open_for_writing"),
        "look at the lock": (locks, "lock_is_held"),
    }[cannot]
    monkeypatch.setattr(place, name, lambda _: Answer.UNKNOWN)
    assert writer_of(thread(home, rollout(home)), ()) == (WriterState.UNKNOWN, ())


# ---- of a home ---------------------------------------------------------------------------------------------


def test_a_process_that_names_the_home_belongs_to_it(
    home: Home, tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(home.path)
    here = start({"CODEX_HOME": str(alias)}, "--listen", "unix://")
    start({"CODEX_HOME": str(tmp_path), "HOME": str(home.path)})
    (found,) = runtimes_of(home)
    assert (found.pid, found.role, found.version) == (here.pid, Role.DAEMON, "0.169.0")
    assert found.executable == tmp_path / "package" / "bin" / "codex"
    assert found.started_at is not None
    assert abs(found.started_at - time.time()) < 3600


def test_a_process_that_names_none_belongs_where_its_databases_are(
    home: Home, tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    database = home.path / "state_5.sqlite"
    database.touch()
    with_database = Home(
        path=home.path, sqlite_home=home.path, home_id="h", state_db=database, goals_db=None, history_db=None
    )
    (tmp_path / "app-server").write_text(f"exec 3>>{database}; echo ready; read -r line\n")
    holding = start({"HOME": str(tmp_path)})
    (tmp_path / "app-server").write_text("echo ready; read -r line\n")
    start({"HOME": str(tmp_path)})
    assert [runtime.pid for runtime in runtimes_of(with_database)] == [holding.pid]
