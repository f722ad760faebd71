"""A thread is restored where homes are odd: links, other disks, compressed files, databases and rollouts elsewhere.

Whatever is odd, no byte of what was there is lost, and what cannot be done is told before a file changes places.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from preflight.codex.rollout import parse_name
from preflight.errors import ThreadInUse, Unsupported, Unverified, UsageProblem
from preflight.system import files
from tests.fixtures_codex import CodexHome, thread_id
from tests.restoring import Bench, digest, visible
from tests.second_process import second_process

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LINE = b'{"timestamp":"2026-11-22T13:25:09.403Z","type":"event_msg","payload":{"type":"x"}}\n'


@pytest.fixture
def codex(tmp_path: Path) -> CodexHome:
    return CodexHome(tmp_path / "home")


@pytest.fixture
def bench(codex: CodexHome) -> Bench:
    return Bench(codex.path)


def compress(path: Path) -> Path:
    """As Codex does it: the time stays, the plain file goes."""
    packed, facts = path.with_name(path.name + ".zst"), path.stat()
    packed.write_bytes(zstd.compress(path.read_bytes()))
    os.utime(packed, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    path.unlink()
    return packed


def row_of(codex: CodexHome, number: int = 1) -> dict[str, object]:
    return next(row for row in codex.rows("state_5.sqlite", "threads") if row["id"] == thread_id(number))


# ---- links and disks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", ["by the link", "by the file system"])
def test_sessions_behind_a_link(bench: Bench, codex: CodexHome, tmp_path: Path, spelled: str) -> None:
    """A row may name the other end of the link: that is the same file, and must not be moved twice."""
    real = tmp_path / "big disk"
    (codex.path / "sessions").rename(real)
    (codex.path / "sessions").symlink_to(real)
    rollout = codex.rollout(1, size=40_000)
    codex.row(1, rollout if spelled == "by the link" else rollout.resolve())
    row, before = row_of(codex), rollout.read_bytes()
    bench.checkpoint(thread_id(1))
    rollout.write_bytes(before[:30_000])

    told = bench.restore(thread_id(1))

    assert rollout.read_bytes() == before
    assert list(visible(real)) == [rollout.name]
    assert (told.data["row"], row_of(codex)) == ("kept", row)
    bench.undo()
    assert rollout.read_bytes() == before[:30_000]
    assert list(visible(real)) == [rollout.name]


def test_a_home_that_is_named_by_a_link_the_one_time_and_by_its_name_the_other(
    bench: Bench, codex: CodexHome, tmp_path: Path
) -> None:
    rollout = codex.thread(1, size=40_000)
    before = rollout.read_bytes()
    bench.checkpoint(thread_id(1))
    rollout.write_bytes(before[:30_000])
    link = tmp_path / "link"
    link.symlink_to(codex.path)
    bench.restore(thread_id(1), homes=(link,))
    assert rollout.read_bytes() == before
    bench.undo()
    assert rollout.read_bytes() == before[:30_000]
    assert list(visible(codex.path)) == [rollout.name]


def test_a_rollout_that_is_a_link_stays_one_and_a_new_home_is_offered(
    bench: Bench, codex: CodexHome, tmp_path: Path
) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    rollout.rename(tmp_path / "elsewhere.jsonl")
    rollout.symlink_to(tmp_path / "elsewhere.jsonl")
    with pytest.raises(Unsupported, match="symbolic link") as told:
        bench.restore(thread_id(1))
    assert "--to" in str(told.value.hint)
    assert rollout.is_symlink()
    bench.restore(thread_id(1), to=tmp_path / "new")


def test_a_disk_without_hard_links(bench: Bench, codex: CodexHome, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = codex.thread(1, size=40_000)
    before = rollout.read_bytes()
    bench.checkpoint(thread_id(1))
    rollout.write_bytes(before[:30_000])

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    bench.restore(thread_id(1))
    assert rollout.read_bytes() == before
    bench.undo()
    assert rollout.read_bytes() == before[:30_000]
    assert bench.left_behind() == []


def test_a_disk_that_nobody_may_write_to_is_left_as_it_is_and_stands_in_nobodys_way(
    bench: Bench, codex: CodexHome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on a read-only mount, where taking away a file that is not there is refused as well."""
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    unlink, make = Path.unlink, os.open

    def is_there(path: object) -> bool:
        return codex.path in Path(os.fspath(path)).parents  # type: ignore[call-overload]

    def no_unlink(path: Path, *, missing_ok: bool = False) -> None:
        if is_there(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        unlink(path, missing_ok=missing_ok)

    def no_new_file(path: object, flags: int, *more: int, **named: int) -> int:
        if flags & os.O_CREAT and is_there(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return make(path, flags, *more, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", no_unlink)
        patched.setattr(os, "open", no_new_file)
        with pytest.raises(Unverified, match="Read-only file system"):
            bench.restore(thread_id(1))
    assert bench.restores().unfinished() == []
    assert list(visible(codex.path)) == [rollout.name]
    bench.restore(thread_id(1))


def test_room_is_wanted_where_the_file_goes(bench: Bench, codex: CodexHome, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    asked: list[Path] = []

    def free(path: Path) -> int:
        asked.append(path)
        return 1 << 40

    monkeypatch.setattr(files, "free_bytes", free)
    bench.restore(thread_id(1))
    assert rollout.parent in asked


# ---- files and databases elsewhere ---------------------------------------------------------------------------


def test_databases_elsewhere(tmp_path: Path) -> None:
    codex = CodexHome(tmp_path / "home", sqlite_home=tmp_path / "databases")
    (codex.path / "config.toml").write_text(f'sqlite_home = "{codex.sqlite_home}"\n')
    bench, rollout = Bench(codex.path), codex.thread(1, size=40_000)
    codex.goal(1)
    row = row_of(codex)
    bench.checkpoint(thread_id(1))
    rollout.unlink()
    codex.execute("state_5.sqlite", "DELETE FROM threads")
    codex.execute("goals_1.sqlite", "DELETE FROM thread_goals")
    told = bench.restore(thread_id(1))
    assert (told.data["row"], told.data["goal"]) == ("inserted", "inserted-paused")
    assert row_of(codex) == row
    assert list(codex.path.glob("*.sqlite")) == []


def test_databases_that_only_an_environment_names_are_not_forgotten(tmp_path: Path) -> None:
    """The scheduler had CODEX_SQLITE_HOME and this shell has not: a second goals database must not appear."""
    codex = CodexHome(tmp_path / "home", sqlite_home=tmp_path / "databases")
    bench, rollout = Bench(codex.path), codex.thread(1, size=40_000)
    codex.goal(1)
    named = {"PATH": "", "CODEX_SQLITE_HOME": str(codex.sqlite_home)}
    from preflight import gate

    gate.run(bench.request(threads=(thread_id(1),), pause=False, archive="never", env=named))
    rollout.unlink()
    with pytest.raises(UsageProblem, match="databases") as told:
        bench.restore(thread_id(1))
    assert str(codex.sqlite_home) in str(told.value.hint)
    assert list(visible(codex.path)) == list(codex.path.glob("*.sqlite")) == []
    assert bench.restore(thread_id(1), env=named).data["goal"] == "exists"


def test_a_rollout_that_lies_outside_of_the_home_is_not_moved(bench: Bench, codex: CodexHome, tmp_path: Path) -> None:
    """A row can name any file (`thread/resume` with a path, up to 0.144). The thread comes back into its home."""
    rollout = codex.thread(1, size=40_000)
    before = rollout.read_bytes()
    bench.checkpoint(thread_id(1))
    outside = tmp_path / "mine" / rollout.name
    outside.parent.mkdir()
    rollout.rename(outside)
    codex.execute("state_5.sqlite", ("UPDATE threads SET rollout_path = ?", (str(outside),)))
    told = bench.restore(thread_id(1))
    assert [path.name for path in outside.parent.iterdir()] == [rollout.name]
    assert (rollout.read_bytes(), row_of(codex)["rollout_path"]) == (before, str(rollout))
    assert told.data["kept"] == []


def test_a_row_that_no_codex_writes_is_told_before_a_file_changes_places(bench: Bench, codex: CodexHome) -> None:
    from preflight.errors import DamagedFile

    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    codex.execute("state_5.sqlite", "UPDATE threads SET rollout_path = x'00ff'")
    before = digest(rollout)
    with pytest.raises(DamagedFile, match="no Codex writes"):
        bench.restore(thread_id(1))
    assert (digest(rollout), bench.restores().all()) == (before, [])


# ---- compressed and moved since ------------------------------------------------------------------------------


@pytest.mark.parametrize("archived", [True, False])
def test_a_file_that_codex_has_compressed_since(bench: Bench, codex: CodexHome, archived: bool) -> None:
    rollout = codex.thread(1, size=40_000, archived=archived)
    before = rollout.read_bytes()
    bench.checkpoint(thread_id(1))
    packed = compress(rollout)
    content = packed.read_bytes()
    told = bench.restore(thread_id(1), full=True)
    assert list(visible(codex.path)) == [rollout.name]
    assert rollout.read_bytes() == before
    (kept,) = told.data["kept"]  # type: ignore[misc]
    assert kept.read_bytes() == content
    assert (told.data["row"], told.findings) == ("kept", ()), "it has nothing newer in it"
    bench.undo()
    assert list(visible(codex.path)) == [packed.name]
    assert packed.read_bytes() == content


def test_a_compressed_one_comes_back_compressed_and_its_row_has_the_plain_name(bench: Bench, codex: CodexHome) -> None:
    """Codex writes the plain name, and looks for the other one by itself (0.144 to 0.169)."""
    plain = codex.thread(1, size=40_000)
    before = plain.read_bytes()
    packed = compress(plain)
    bench.checkpoint(thread_id(1))
    packed.unlink()
    plain.write_bytes(before + LINE)
    told = bench.restore(thread_id(1), full=True)
    assert list(visible(codex.path)) == [packed.name]
    assert zstd.decompress(packed.read_bytes()) == before
    assert (told.data["row"], row_of(codex)["rollout_path"]) == ("kept", str(plain))
    assert [finding.finding_id for finding in told.findings] == ["newer-turns-kept"]
    bench.undo()
    assert plain.read_bytes() == before + LINE


def test_an_older_part_that_is_compressed_by_now_stays_where_it_is(bench: Bench, codex: CodexHome) -> None:
    """A reverted thread: its first file is the base of the second one; what is needed to resume needs neither."""
    base = codex.rollout(1, size=40_000, ordinal=0)
    head = codex.rollout(1, stamp="2026-11-23T09-00-00", segment=9, base=(thread_id(1), 2, 40_000), size=30_000)
    codex.row(1, head, history_mode="paginated")
    bench.checkpoint(thread_id(1))
    packed = compress(base)
    bench.restore(thread_id(1))
    assert set(visible(codex.path)) == {packed.name, head.name}


@pytest.mark.parametrize("now", ["compressed", "compressed and archived"])
def test_another_threads_compressed_file_is_not_hidden_behind_a_part_of_it(
    bench: Bench, codex: CodexHome, tmp_path: Path, now: str
) -> None:
    """A fork's base goes on without it; the part that the fork needs, put beside, would be all that Codex sees."""
    base = codex.thread(1, size=40_000, ordinal=0)
    base.write_bytes(base.read_bytes() + LINE)
    head = codex.thread(2, stamp="2026-11-23T09-00-00", base=(thread_id(1), 2, 40_000), size=30_000)
    bench.checkpoint(thread_id(2), archive="always")
    packed = compress(base)
    if now == "compressed and archived":
        archive = codex.path / "archived_sessions"
        archive.mkdir()
        packed = packed.rename(archive / packed.name)
    before = visible(codex.path)
    with pytest.raises(Unsupported, match="is compressed by now") as told:
        bench.restore(thread_id(2), full=True)
    assert visible(codex.path) == before
    assert "--resume --in-place" in str(told.value.hint)
    bench.restore(thread_id(2))
    assert visible(codex.path)[packed.name] == before[packed.name]
    assert visible(codex.path)[head.name] != before[head.name]
    bench.restore(thread_id(2), full=True, to=tmp_path / "new")


def test_compressed_files_of_others_are_asked_whether_they_go_on_from_it(bench: Bench, codex: CodexHome) -> None:
    rollout = codex.thread(1, size=40_000, ordinal=0)
    before = rollout.read_bytes()
    bench.checkpoint(thread_id(1))
    compress(codex.thread(2, size=40_000, ordinal=0))
    rollout.write_bytes(before[:30_000])
    bench.restore(thread_id(1))
    assert rollout.read_bytes() == before

    fork = codex.thread(3, stamp="2026-11-23T09-00-00", base=(thread_id(1), 2, 40_000), size=30_000)
    compress(fork)
    rollout.write_bytes(before.replace(b"be kind ", b"be bold "))
    with pytest.raises(Unsupported, match="another thread goes on from"):
        bench.restore(thread_id(1))


def test_a_thread_that_was_cut_off_under_its_fork_can_be_put_back(bench: Bench, codex: CodexHome) -> None:
    """The fork cannot be opened as it is: that is a reason for the restore, not against it."""
    rollout = codex.thread(1, size=40_000, ordinal=0)
    before = rollout.read_bytes()
    codex.thread(2, stamp="2026-11-23T09-00-00", base=(thread_id(1), 2, 40_000), size=30_000)
    bench.checkpoint(thread_id(1))
    rollout.write_bytes(before[: before.index(b"\n") + 1])
    bench.restore(thread_id(1), full=True)
    assert rollout.read_bytes() == before


def test_a_second_file_of_the_same_thread_goes_out_of_sight_too(bench: Bench, codex: CodexHome) -> None:
    """A copy in both folders: 0.134 would open the one, 0.169 the other."""
    rollout = codex.thread(1, size=40_000)
    before = rollout.read_bytes()
    bench.checkpoint(thread_id(1))
    copy = codex.path / "archived_sessions" / rollout.name
    copy.parent.mkdir()
    shutil.copy2(rollout, copy)
    rollout.write_bytes(before[:30_000])
    told = bench.restore(thread_id(1))
    assert visible(codex.path) == {rollout.name: digest(rollout)}
    assert rollout.read_bytes() == before
    assert len(told.data["kept"]) == 2  # type: ignore[arg-type]
    assert not copy.exists()


# ---- longer than the checkpoint's ----------------------------------------------------------------------------


def test_newer_turns_are_told_before_and_after(bench: Bench, codex: CodexHome) -> None:
    rollout = codex.thread(1, size=40_000)
    before = rollout.read_bytes()
    bench.checkpoint(thread_id(1))
    rollout.write_bytes(before + LINE * 3)
    (would,) = bench.restore(thread_id(1), dry_run=True).findings
    (told,) = bench.restore(thread_id(1)).findings
    assert (would.finding_id, would.measured) == (told.finding_id, told.measured) == ("newer-turns-kept", 3 * len(LINE))
    assert told.remedy == f"preflight restore --undo {thread_id(1)}"
    assert told.path is not None
    assert told.path.read_bytes() == before + LINE * 3
    assert parse_name(told.path.name) is None
    (question,) = bench.asked
    assert f"{3 * len(LINE):,} bytes" in question


def test_nothing_is_said_of_newer_turns_when_there_are_none(bench: Bench, codex: CodexHome) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    bench.restore(thread_id(1))
    rollout.write_bytes(rollout.read_bytes()[:30_000])
    assert bench.restore(thread_id(1)).findings == ()
    assert not any("bytes" in question for question in bench.asked)


# ---- a runtime that reads --------------------------------------------------------------------------------------


def test_not_while_a_runtime_is_still_reading_the_file(
    bench: Bench, codex: CodexHome, tmp_path: Path, preflight: Callable[..., CompletedProcess[str]]
) -> None:
    """0.134 reads a minute long before it opens the file for its turns: it would go on in the restored one, with the
    history of the other."""
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    before = digest(rollout)
    program = tmp_path / "codex"
    program.symlink_to(Path(shutil.which("tail") or "/usr/bin/tail").resolve())
    import subprocess

    runtime = subprocess.Popen(
        [program, "-f", "-n", "0", rollout],
        env={"CODEX_HOME": str(codex.path)},
        stdout=subprocess.PIPE,
    )
    try:
        _until_open(runtime.pid, rollout)
        with pytest.raises(ThreadInUse, match="has thread"):
            bench.restore(thread_id(1))
    finally:
        runtime.kill()
        runtime.communicate()
    assert (digest(rollout), bench.left_behind()) == (before, [])
    bench.restore(thread_id(1))


def _until_open(pid: int, path: Path) -> None:
    import time

    from preflight.system import processes

    facts = path.stat()
    while (facts.st_dev, facts.st_ino) not in (processes.open_files(pid) or ()):
        time.sleep(0.01)


def test_somebody_else_who_reads_does_no_harm(bench: Bench, codex: CodexHome) -> None:
    """A backup program, say."""
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    with second_process("f = open(sys.argv[1], 'rb'); say('ready'); wait()", rollout):
        bench.restore(thread_id(1))
