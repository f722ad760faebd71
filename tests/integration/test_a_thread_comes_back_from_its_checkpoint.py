"""A thread comes back as the checkpoint has it: its file, its row, its goal; and what was there is kept."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from preflight.checkpoint.restore_record import Phase
from preflight.codex.rollout import parse_name
from preflight.codex.sample_home import make_sample_home
from preflight.errors import DamagedFile, NoSpace, ThreadInUse, Unsupported, Unverified, UsageProblem
from preflight.system import files
from tests.fixtures_codex import UPDATED_MS, CodexHome, held_by_another_process, thread_id
from tests.restoring import Bench, digest, visible
from tests.second_process import second_process

VERSIONS = ["0.128.0", "0.134.0", "0.169.0"]


def add_projection(home: CodexHome, *ids: str) -> None:
    for one in ids:
        values = (one, 10_000_000, 99)
        home.execute(
            "thread_history_1.sqlite", ("INSERT INTO thread_history_projection_state VALUES (?, ?, ?)", values)
        )


def projected(home: CodexHome) -> set[object]:
    return {row["thread_id"] for row in home.rows("thread_history_1.sqlite", "thread_history_projection_state")}


@pytest.fixture
def codex(tmp_path: Path) -> CodexHome:
    return CodexHome(tmp_path / "home")


@pytest.fixture
def bench(codex: CodexHome) -> Bench:
    return Bench(codex.path)


# ---- into its own home ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_file_is_as_it_was_and_the_newer_one_is_kept(tmp_path: Path, version: str, full: bool) -> None:
    codex = CodexHome(tmp_path / "home", version)
    bench, rollout = Bench(codex.path), codex.thread(1, size=70_000)
    rollout.chmod(0o640)
    before, modified = rollout.read_bytes(), rollout.stat().st_mtime_ns
    bench.checkpoint(thread_id(1))
    rollout.write_bytes(before[:30_000])

    told = bench.restore(thread_id(1), full=full)

    assert rollout.read_bytes() == before
    assert (rollout.stat().st_mode & 0o777, rollout.stat().st_mtime_ns) == (0o640, modified)
    (kept,) = told.data["kept"]  # type: ignore[misc]
    assert kept.read_bytes() == before[:30_000]
    assert (kept.parent, parse_name(kept.name)) == (rollout.parent, None)
    assert visible(codex.path) == {rollout.name: digest(rollout)}
    assert (told.exit_code, told.data["row"], told.data["goal"]) == (0, "kept", None)
    assert len(bench.asked) == 1
    assert bench.left_behind() == []


@pytest.mark.parametrize("paginated", [True, False])
def test_the_reduced_one_is_what_the_checkpoint_has_and_its_ordinals_have_no_gaps(
    tmp_path: Path, paginated: bool
) -> None:
    import json

    sample = make_sample_home(tmp_path / "home", large_bytes=3_000_000, paginated=paginated)
    bench = Bench(sample.path)
    bench.checkpoint(sample.large_thread_id)
    (held,) = bench.store.folder.glob(f"checkpoints/*/threads/{sample.large_thread_id}/*.jsonl")

    bench.restore(sample.large_thread_id)

    lines = [json.loads(line) for line in sample.large_rollout.read_bytes().splitlines()]
    if paginated:
        assert [line["ordinal"] for line in lines] == list(range(len(lines)))
        assert [line["payload"] for line in lines] == [
            json.loads(line)["payload"] for line in held.read_bytes().splitlines()
        ]
    else:
        assert sample.large_rollout.read_bytes() == held.read_bytes()
    assert sample.large_rollout.stat().st_size < 1_500_000


@pytest.mark.parametrize("in_place", [True, False])
def test_the_whole_of_a_thread_comes_from_the_archive(tmp_path: Path, in_place: bool) -> None:
    sample = make_sample_home(tmp_path / "home", large_bytes=3_000_000)
    bench, before = Bench(sample.path), digest(sample.large_rollout)
    bench.checkpoint(sample.large_thread_id, archive="always")
    with sample.large_rollout.open("ab") as runtime:
        runtime.write(b'{"timestamp":"2026-11-22T13:25:09.403Z","type":"event_msg","payload":{"type":"x"}}\n')
    new = None if in_place else tmp_path / "new"
    bench.restore(sample.large_thread_id, full=True, to=new)
    place = sample.large_rollout if new is None else new / sample.large_rollout.relative_to(sample.path)
    assert digest(place) == before


def test_a_damaged_archive_puts_nothing_in_place_and_names_the_frame(tmp_path: Path) -> None:
    sample = make_sample_home(tmp_path / "home", large_bytes=3_000_000)
    bench = Bench(sample.path)
    bench.checkpoint(sample.large_thread_id, archive="always")
    (archive,) = bench.store.folder.glob(f"archive/{sample.large_thread_id}/*.zst")
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 0xFF
    archive.chmod(0o600)
    archive.write_bytes(data)
    before = visible(sample.path)
    with pytest.raises(Unverified, match=r"frame 0 of the archive, bytes 0 to .* is damaged: .*; none of .* is whole"):
        bench.restore(sample.large_thread_id, full=True)
    assert (visible(sample.path), bench.left_behind()) == (before, [])


def lineage_of_two(codex: CodexHome) -> tuple[Path, Path]:
    """A thread that goes on from the first lines of another one's file."""
    base = codex.thread(1, size=40_000, ordinal=0)
    with base.open("ab") as more:
        line = b'{"timestamp":"2026-11-22T13:25:09.403Z","ordinal":2,"type":"event_msg","payload":{"type":"x"}}\n'
        more.write(line)
    return base, fork(codex, base, 40_000)


@pytest.mark.parametrize("where", ["in place", "base gone", "new home"])
def test_a_fork_comes_back_with_what_it_goes_on_from(
    bench: Bench, codex: CodexHome, tmp_path: Path, where: str
) -> None:
    base, head = lineage_of_two(codex)
    needed, whole, before = base.read_bytes()[:40_000], base.read_bytes(), head.read_bytes()
    bench.checkpoint(thread_id(2), archive="always")
    head.write_bytes(before[:25_000] + b"\n")
    if where == "base gone":
        base.unlink()
    new = tmp_path / "new" if where == "new home" else None
    told = bench.restore(thread_id(2), full=True, to=new)
    root = codex.path if new is None else new
    assert root.joinpath(head.relative_to(codex.path)).read_bytes() == before
    restored = root.joinpath(base.relative_to(codex.path)).read_bytes()
    assert restored == (whole if where == "in place" else needed)
    assert len(told.data["files"]) == (1 if where == "in place" else 2)  # type: ignore[arg-type]


def test_a_base_that_is_another_one_by_now_is_not_replaced(bench: Bench, codex: CodexHome) -> None:
    base, _ = lineage_of_two(codex)
    bench.checkpoint(thread_id(2), archive="always")
    base.write_bytes(base.read_bytes()[:30_000] + b"\n")
    before = visible(codex.path)
    with pytest.raises(Unsupported, match="which is not what it was any more") as told:
        bench.restore(thread_id(2), full=True)
    assert visible(codex.path) == before
    assert told.value.hint is not None
    assert "--resume --in-place" in told.value.hint


def test_a_checkpoint_without_the_whole_thread_does_not_pretend_to_have_it(tmp_path: Path) -> None:
    sample = make_sample_home(tmp_path / "home", large_bytes=3_000_000)
    bench = Bench(sample.path)
    bench.checkpoint(sample.large_thread_id, archive="never")
    with pytest.raises(UsageProblem, match="only what is needed"):
        bench.restore(sample.large_thread_id, full=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_thread_that_is_gone_altogether_has_its_row_and_its_goal_again(tmp_path: Path, version: str) -> None:
    codex = CodexHome(tmp_path / "home", version)
    bench, rollout, goal_id = Bench(codex.path), codex.thread(1, size=40_000), ""
    goal_id = codex.goal(1)
    (row,) = codex.rows("state_5.sqlite", "threads")
    before = rollout.read_bytes()
    bench.checkpoint(thread_id(1))
    shutil.rmtree(codex.path / "sessions")
    goals = "state_5.sqlite" if version == "0.128.0" else "goals_1.sqlite"
    codex.execute(goals, "DELETE FROM thread_goals")
    codex.execute("state_5.sqlite", "DELETE FROM threads")

    told = bench.restore(thread_id(1), full=True)

    assert rollout.read_bytes() == before
    assert (told.data["row"], told.data["goal"], told.data["kept"]) == ("inserted", "inserted-paused", [])
    assert codex.rows("state_5.sqlite", "threads") == [row]
    (goal,) = codex.rows(goals)
    assert (goal["goal_id"], goal["status"], goal["token_budget"]) == (goal_id, "paused", 5_000_000)
    assert goal["updated_at_ms"] != UPDATED_MS

    told = bench.undo()
    assert visible(codex.path) == {}
    assert (codex.rows("state_5.sqlite", "threads"), codex.rows(goals)) == ([], [])
    assert told.data["goal"] == "withdrawn"


def test_a_row_of_an_older_codex_fits_into_the_table_of_a_newer_one(tmp_path: Path) -> None:
    old = CodexHome(tmp_path / "home", "0.134.0")
    bench, rollout = Bench(old.path), old.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    for path in old.path.glob("*.sqlite*"):
        path.unlink()
    shutil.rmtree(old.path / "sessions")
    new = CodexHome(tmp_path / "home", "0.169.0")

    bench.restore(thread_id(1))

    (row,) = new.rows("state_5.sqlite", "threads")
    assert (row["rollout_path"], row["history_mode"], row["cli_version"]) == (str(rollout), "legacy", "0.134.0")


def test_a_table_with_an_unknown_column_that_needs_a_value_is_left_alone(bench: Bench, codex: CodexHome) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    codex.execute("state_5.sqlite", "DROP TABLE threads")
    codex.execute(
        "state_5.sqlite",
        "CREATE TABLE threads (id TEXT PRIMARY KEY, rollout_path TEXT, archived INTEGER, archived_at INTEGER,"
        " updated_at INTEGER, cli_version TEXT, updated_at_ms INTEGER, new_column TEXT NOT NULL)",
    )
    rollout.unlink()
    with pytest.raises(Unsupported, match="new_column"):
        bench.restore(thread_id(1))
    assert codex.rows("state_5.sqlite", "threads") == []
    assert visible(codex.path) == {}, "nothing is put in place that cannot be completed"


@pytest.mark.parametrize("name", ["goals_1.sqlite", "state_5.sqlite", "thread_history_1.sqlite"])
def test_a_damaged_database_is_told_before_a_file_changes_places(bench: Bench, codex: CodexHome, name: str) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    rollout.write_bytes(rollout.read_bytes()[:30_000])
    before = visible(codex.path)
    sound = (codex.path / name).read_bytes()
    (codex.path / name).write_bytes(b"this is no database, it only has its name" * 200)
    with pytest.raises(DamagedFile):
        bench.restore(thread_id(1))
    assert (visible(codex.path), bench.left_behind()) == (before, [])
    (codex.path / name).write_bytes(sound)
    bench.restore(thread_id(1))
    assert visible(codex.path) != before


def test_a_thread_that_was_archived_since_stays_so(bench: Bench, codex: CodexHome) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    archived = codex.path / "archived_sessions" / rollout.name
    archived.parent.mkdir()
    rollout.rename(archived)
    codex.execute("state_5.sqlite", ("UPDATE threads SET archived = 1, rollout_path = ?", (str(archived),)))
    bench.restore(thread_id(1))
    assert list(visible(codex.path)) == [archived.name]
    assert archived.exists()
    assert codex.rows("state_5.sqlite", "threads")[0]["archived"] == 1


def test_a_row_that_names_another_place_is_told_where_the_file_lies(bench: Bench, codex: CodexHome) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    codex.execute(
        "state_5.sqlite", "UPDATE threads SET rollout_path = '/elsewhere/x.jsonl', history_mode = 'paginated'"
    )
    rollout.unlink()
    told = bench.restore(thread_id(1))
    (row,) = codex.rows("state_5.sqlite", "threads")
    assert (told.data["row"], row["rollout_path"], row["history_mode"]) == ("changed", str(rollout), "legacy")
    bench.undo()
    (row,) = codex.rows("state_5.sqlite", "threads")
    assert (row["rollout_path"], row["history_mode"]) == ("/elsewhere/x.jsonl", "paginated")


def test_an_existing_goal_stays_and_an_active_one_is_told(bench: Bench, codex: CodexHome) -> None:
    codex.thread(1, size=40_000)
    codex.goal(1)
    bench.checkpoint(thread_id(1))
    before = codex.rows("goals_1.sqlite")
    told = bench.restore(thread_id(1))
    assert codex.rows("goals_1.sqlite") == before
    assert told.data["goal"] == "exists"
    assert [finding.finding_id for finding in told.findings] == ["goal-active"]


def test_the_projection_of_this_thread_goes_and_that_of_others_stays(bench: Bench, codex: CodexHome) -> None:
    codex.thread(1, size=40_000, ordinal=0)
    codex.thread(2, size=40_000, ordinal=0)
    bench.checkpoint(thread_id(1))
    add_projection(codex, thread_id(1), thread_id(2))
    told = bench.restore(thread_id(1))
    assert projected(codex) == {thread_id(2)}
    assert told.data["projection_rows"] == 1


def test_a_head_that_came_after_the_checkpoint_goes_out_of_sight(bench: Bench, codex: CodexHome) -> None:
    """A revert since: the thread goes on in a new file, with the old one as its base."""
    rollout = codex.thread(1, size=40_000, ordinal=0)
    bench.checkpoint(thread_id(1))
    newer = codex.rollout(1, stamp="2026-11-23T09-00-00", segment=9, base=(thread_id(1), 1, 100), size=40_000)
    codex.execute("state_5.sqlite", ("UPDATE threads SET rollout_path = ?", (str(newer),)))
    add_projection(codex, thread_id(1), thread_id(9))

    bench.restore(thread_id(1), full=True)
    assert list(visible(codex.path)) == [rollout.name]
    assert codex.rows("state_5.sqlite", "threads")[0]["rollout_path"] == str(rollout)
    assert projected(codex) == set()

    bench.undo()
    assert set(visible(codex.path)) == {rollout.name, newer.name}
    assert codex.rows("state_5.sqlite", "threads")[0]["rollout_path"] == str(newer)


# ---- what is refused -----------------------------------------------------------------------------------------


def test_not_while_a_process_has_the_file_open(bench: Bench, codex: CodexHome) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    before = visible(codex.path)
    with (
        second_process("f = open(sys.argv[1], 'ab'); say('ready'); wait()", rollout),
        pytest.raises(ThreadInUse, match="has thread"),
    ):
        bench.restore(thread_id(1))
    assert visible(codex.path) == before
    assert bench.left_behind() == []
    bench.restore(thread_id(1))


def test_not_while_a_runtime_holds_its_lock(bench: Bench, codex: CodexHome) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    rollout.unlink()
    lock = codex.path / "thread-writer-locks" / f"{thread_id(1)}.lock"
    lock.parent.mkdir()
    take = "import fcntl; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); say('ready'); wait()"
    with second_process(take, lock), pytest.raises(ThreadInUse):
        bench.restore(thread_id(1))
    assert visible(codex.path) == {}


def test_the_lock_is_held_while_files_change_places(
    bench: Bench, codex: CodexHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    from preflight.checkpoint import restore
    from preflight.model import Answer
    from preflight.system import locks

    codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    lock = codex.path / "thread-writer-locks" / f"{thread_id(1)}.lock"
    lock.parent.mkdir()
    swap, seen = restore.swap, []

    def watched(record: object) -> None:
        seen.append(locks.lock_is_held(lock))
        swap(record)  # type: ignore[arg-type]

    monkeypatch.setattr(restore, "swap", watched)
    bench.restore(thread_id(1))
    assert seen == [Answer.YES]
    assert locks.lock_is_held(lock) is Answer.NO


def test_a_runtime_that_opened_the_old_file_in_the_last_moment_keeps_it(
    bench: Bench, codex: CodexHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.134 has no lock: it may open the thread between our look and the renaming."""
    from preflight.checkpoint import restore

    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    rollout.write_bytes(rollout.read_bytes() + b'{"timestamp":"2026-11-22T13:25:09.403Z","type":"x","payload":{}}\n')
    before, swap = rollout.read_bytes(), restore.swap
    with rollout.open("ab") as runtime:
        monkeypatch.setattr("preflight.codex.writers.processes.open_for_writing", lambda _: _no())

        def opened_meanwhile(record: object) -> None:
            monkeypatch.undo()
            swap(record)  # type: ignore[arg-type]

        monkeypatch.setattr(restore, "swap", opened_meanwhile)
        with pytest.raises(ThreadInUse):
            bench.restore(thread_id(1))
        runtime.write(b"{}\n")
    assert rollout.read_bytes() == before + b"{}\n"
    assert list(visible(codex.path)) == [rollout.name]
    assert bench.restores().all()[-1].phase is Phase.CANCELLED


def _no() -> object:
    from preflight.model import Answer

    return Answer.NO


def fork(codex: CodexHome, base: Path, cut: int) -> Path:
    ordinal = base.read_bytes()[:cut].count(b"\n")
    return codex.thread(2, stamp="2026-11-23T09-00-00", base=(thread_id(1), ordinal, cut), size=30_000)


def test_a_thread_that_others_go_on_from_is_not_reduced_in_place(tmp_path: Path) -> None:
    sample = make_sample_home(tmp_path / "home", large_bytes=3_000_000, paginated=True)
    bench = Bench(sample.path)
    bench.checkpoint(sample.large_thread_id)
    first = sample.large_rollout.read_bytes().split(b"\n", 1)[0]
    name = sample.large_rollout.name.replace(sample.large_thread_id, thread_id(2))
    base = f'"history_base":{{"thread_id":"{sample.large_thread_id}","end_ordinal_exclusive":1}},"id":"{thread_id(2)}"'
    child = first.replace(b'"ordinal":0', b'"ordinal":1').replace(
        f'"id":"{sample.large_thread_id}"'.encode(), base.encode(), 1
    )
    sample.large_rollout.with_name(name).write_bytes(child + b"\n")
    before = visible(sample.path)
    with pytest.raises(Unsupported, match="goes on from this one"):
        bench.restore(sample.large_thread_id)
    assert visible(sample.path) == before
    bench.restore(sample.large_thread_id, to=tmp_path / "new")


def test_a_base_comes_back_whole_when_what_others_go_on_from_is_the_same(bench: Bench, codex: CodexHome) -> None:
    rollout = codex.thread(1, size=40_000, ordinal=0)
    cut = rollout.read_bytes().index(b"\n") + 1
    before = rollout.read_bytes()
    bench.checkpoint(thread_id(1))
    fork(codex, rollout, cut)
    rollout.write_bytes(before[:cut])
    bench.restore(thread_id(1), full=True)
    assert rollout.read_bytes() == before


def test_a_base_that_has_changed_under_its_fork_is_not_replaced(bench: Bench, codex: CodexHome) -> None:
    rollout = codex.thread(1, size=40_000, ordinal=0)
    cut = rollout.read_bytes().index(b"\n") + 1
    bench.checkpoint(thread_id(1))
    fork(codex, rollout, cut)
    rollout.write_bytes(rollout.read_bytes().replace(b"be kind ", b"be bold "))
    before = visible(codex.path)
    with pytest.raises(Unsupported, match="another thread goes on from"):
        bench.restore(thread_id(1), full=True)
    assert visible(codex.path) == before
    assert bench.left_behind() == []


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_something_foreign_in_the_way_is_not_touched(bench: Bench, codex: CodexHome, kind: str) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    rollout.unlink()
    if kind == "folder":
        rollout.mkdir()
    else:
        other = codex.path / "kept.txt"
        other.write_text("mine")
        rollout.symlink_to(other)
    words = {"folder": "something that is not a file of this thread", "link": "a symbolic link"}
    with pytest.raises(Unsupported, match=words[kind]):
        bench.restore(thread_id(1))
    assert rollout.is_dir() or rollout.read_text() == "mine"


def test_a_damaged_checkpoint_puts_nothing_in_place(bench: Bench, codex: CodexHome) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    (held,) = bench.store.folder.glob("checkpoints/*/threads/*/*.jsonl")
    held.write_bytes(held.read_bytes().replace(b"be kind", b"be mean", 1))
    before = digest(rollout)
    with pytest.raises(Unverified, match="damaged"):
        bench.restore(thread_id(1))
    assert (digest(rollout), bench.left_behind()) == (before, [])


def test_a_full_disk_is_known_before_the_first_byte(
    bench: Bench, codex: CodexHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    before = visible(codex.path)
    monkeypatch.setattr(files, "free_bytes", lambda _: 39_999)
    for to in (None, codex.path.parent / "new"):
        with pytest.raises(NoSpace) as told:
            bench.restore(thread_id(1), to=to)
        assert told.value.needed_bytes == rollout.stat().st_size
    assert visible(codex.path) == before
    assert bench.restores().all() == []


def test_a_disk_that_runs_full_on_the_way_leaves_no_trace(
    bench: Bench, codex: CodexHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    before = visible(codex.path)

    def full(*_: object) -> None:
        raise NoSpace("the disk or the quota is full")

    monkeypatch.setattr(files, "copy_range", full)
    for to in (None, codex.path.parent / "new"):
        with pytest.raises(NoSpace):
            bench.restore(thread_id(1), to=to)
    assert (visible(codex.path), bench.left_behind()) == (before, [])
    assert sorted(path.name for path in codex.path.parent.iterdir()) == ["home", "store"]
    assert [record.phase for record in bench.restores().all()] == [Phase.CANCELLED] * 2


def test_a_busy_database_stops_it_before_a_file_has_its_name(
    bench: Bench, codex: CodexHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    from preflight.errors import DatabaseBusy
    from preflight.system import databases

    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    rollout.write_bytes(rollout.read_bytes()[:30_000])
    add_projection(codex, thread_id(1))
    before = digest(rollout)
    monkeypatch.setattr(databases, "BUSY_SECONDS", 0.1)
    with (
        held_by_another_process(codex.path / "thread_history_1.sqlite", "BEGIN IMMEDIATE"),
        pytest.raises(DatabaseBusy),
    ):
        bench.restore(thread_id(1))
    assert digest(rollout) == before
    bench.restore(thread_id(1))
    assert digest(rollout) != before
    assert bench.left_behind() == []


# ---- into a new home -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.134.0", "0.169.0"])
def test_a_new_home_holds_the_thread_and_its_goal_alone(tmp_path: Path, version: str) -> None:
    codex = CodexHome(tmp_path / "home", version)
    bench, rollout = Bench(codex.path), codex.thread(1, size=40_000)
    goal_id = codex.goal(1)
    codex.thread(2)
    codex.goal(2)
    bench.checkpoint(thread_id(1))
    new = tmp_path / "new"

    told = bench.restore(thread_id(1), full=True, to=new)

    assert new.joinpath(rollout.relative_to(codex.path)).read_bytes() == rollout.read_bytes()
    assert sorted(path.name for path in new.rglob("*") if path.is_file()) == ["goals_1.sqlite", rollout.name]
    assert new.stat().st_mode & 0o777 == 0o700
    (goal,) = CodexHomeRows(new).goals()
    assert (goal["goal_id"], goal["status"]) == (goal_id, "paused")
    assert (told.data["row"], told.data["goal"], told.data["kept"]) == ("left-to-codex", "inserted-paused", [])
    assert bench.asked == [], "nothing changes places"


class CodexHomeRows:
    """The goals of a home that was not laid out by the test."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def goals(self) -> list[dict[str, object]]:
        with closing(sqlite3.connect(self._path / "goals_1.sqlite")) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM thread_goals")]


def test_a_thread_comes_back_when_its_home_is_gone(bench: Bench, codex: CodexHome, tmp_path: Path) -> None:
    rollout = codex.thread(1, size=40_000)
    before = rollout.read_bytes()
    bench.checkpoint(thread_id(1))
    shutil.rmtree(codex.path)
    bench.restore(thread_id(1), to=tmp_path / "new", homes=())
    assert (tmp_path / "new").joinpath(rollout.relative_to(codex.path)).read_bytes() == before


def test_an_emptied_home_has_the_thread_and_a_table_for_its_goal_again(bench: Bench, codex: CodexHome) -> None:
    rollout = codex.thread(1, size=40_000)
    codex.goal(1)
    before = rollout.read_bytes()
    bench.checkpoint(thread_id(1))
    shutil.rmtree(codex.path)
    codex.path.mkdir()
    told = bench.restore(thread_id(1))
    assert rollout.read_bytes() == before
    assert (told.data["row"], told.data["goal"]) == ("left-to-codex", "inserted-paused")
    assert [goal["status"] for goal in CodexHomeRows(codex.path).goals()] == ["paused"]
    assert bench.left_behind() == []


def test_a_path_that_exists_or_lies_in_the_home_or_the_store_is_refused(
    bench: Bench, codex: CodexHome, tmp_path: Path
) -> None:
    codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    places = ["there", "link", "no/such/folder", "home/sessions/new", "home/new", "store/new"]
    for place in places:
        with pytest.raises(UsageProblem):
            bench.restore(thread_id(1), to=tmp_path / place)
    assert list((tmp_path / "there").iterdir()) == []


# ---- asked and looked at -------------------------------------------------------------------------------------


def test_a_dry_run_changes_nothing_and_names_the_files(bench: Bench, codex: CodexHome, tmp_path: Path) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    store = sorted(map(str, bench.store.folder.rglob("*")))
    before = visible(codex.path)
    told = bench.restore(thread_id(1), dry_run=True)
    assert [file["path"] for file in told.data["files"]] == [rollout]  # type: ignore[attr-defined]
    bench.restore(thread_id(1), to=tmp_path / "new", dry_run=True)
    assert (visible(codex.path), bench.asked, (tmp_path / "new").exists()) == (before, [], False)
    assert sorted(map(str, bench.store.folder.rglob("*"))) == store


def test_who_says_no_is_asked_before_anything_is_done(bench: Bench, codex: CodexHome) -> None:
    from preflight import restoring
    from preflight.restoring import Restoring

    class No(Exception): ...

    def no(_: str) -> None:
        raise No

    codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    before = visible(codex.path)
    with pytest.raises(No):
        restoring.restore_thread(
            bench.request(checkpoint="latest"), Restoring(thread_id=thread_id(1), full=True, to=None, agree=no)
        )
    assert visible(codex.path) == before


def test_undo_keeps_what_was_gone_on_with(bench: Bench, codex: CodexHome) -> None:
    rollout = codex.thread(1, size=40_000)
    bench.checkpoint(thread_id(1))
    replaced = rollout.read_bytes()[:30_000]
    rollout.write_bytes(replaced)
    bench.restore(thread_id(1))
    with rollout.open("ab") as runtime:
        runtime.write(b"a new turn\n")
    gone_on_with = rollout.read_bytes()
    told = bench.undo(thread_id(1))
    assert rollout.read_bytes() == replaced
    (kept,) = told.data["kept"]  # type: ignore[misc]
    assert kept.read_bytes() == gone_on_with
    with pytest.raises(UsageProblem, match=r"no restore of thread .* to undo"):
        bench.undo(thread_id(1))


def test_an_unknown_thread_or_checkpoint_is_a_usage_error(bench: Bench, codex: CodexHome) -> None:
    codex.thread(1)
    bench.checkpoint(thread_id(1))
    with pytest.raises(UsageProblem, match="no checkpoint holds thread"):
        bench.restore(thread_id(7))
    with pytest.raises(UsageProblem, match="no restore to undo"):
        bench.undo()


def test_latest_is_the_newest_one_that_holds_the_thread(bench: Bench, codex: CodexHome) -> None:
    codex.thread(1, size=40_000)
    codex.thread(2, size=40_000)
    first = bench.checkpoint(thread_id(1))
    bench.checkpoint(thread_id(2))
    assert bench.restore(thread_id(1)).data["checkpoint_id"] == first
