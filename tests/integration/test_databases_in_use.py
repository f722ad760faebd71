"""Reading, copying and changing databases that a second process has open, as a runtime does."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import stat
from pathlib import Path

import pytest

from preflight.errors import DamagedFile, DatabaseBusy, TimeLimitReached, UnknownSchema, Unsupported, Unverified
from preflight.system import databases
from preflight.system.databases import backup, connect_readonly, quick_check, table_columns, write_once
from preflight.system.deadline import Deadline
from tests.second_process import second_process

SOON = 0.3

MOVE_MONEY_ALL_THE_TIME = """
import sqlite3
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
db.execute("PRAGMA synchronous = OFF")
say("ready")
count = 0
import select
while not select.select([sys.stdin], [], [], 0)[0]:
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE account SET balance = balance - 1 WHERE id = ?", (count % 50,))
    db.execute("UPDATE account SET balance = balance + 1 WHERE id = ?", ((count + 7) % 50,))
    db.execute("COMMIT")
    count += 1
say(count)
"""

HOLD = """
import sqlite3
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    db.execute(statement).fetchall()
say("ready")
wait()
"""


def make(path: Path, *, mode: str = "WAL", rows: int = 50) -> Path:
    with sqlite3.connect(path, isolation_level=None) as db:
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL DEFAULT 0, note TEXT)")
        db.executemany("INSERT INTO account VALUES (?, 100, ?)", [(n, "x" * 2000) for n in range(rows)])
    db.close()
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return make(tmp_path / "home" / "goals_1.sqlite")


def state_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Names, contents and times of a folder of databases that nobody has open in this process."""
    return {
        entry.name: (hashlib.sha256(entry.read_bytes()).hexdigest(), entry.stat().st_mtime_ns)
        for entry in folder.iterdir()
        if not entry.name.endswith("-shm")  # the readers' own marks
    }


def balances(path: Path) -> list[int]:
    with connect_readonly(path, Deadline(5)) as db:
        return [row[0] for row in db.execute("SELECT balance FROM account ORDER BY id")]


# ---- reading -----------------------------------------------------------------------------------------------


def test_what_a_running_process_has_committed_is_read_and_nothing_else(path: Path) -> None:
    update = "UPDATE account SET balance = 7 WHERE id = 1"
    with second_process(HOLD, path, update, "BEGIN IMMEDIATE", "UPDATE account SET balance = 8 WHERE id = 2"):
        assert balances(path)[:3] == [100, 7, 100]


def test_what_a_killed_process_left_is_read_and_left_as_it_is(path: Path) -> None:
    with second_process(HOLD, path, "UPDATE account SET balance = 7 WHERE id = 1") as writer:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    before = state_of(path.parent)
    assert "goals_1.sqlite-wal" in before

    assert balances(path)[1] == 7
    assert quick_check(path) == []

    assert state_of(path.parent) == before


def test_a_link_to_a_database_is_read_as_the_database(path: Path, tmp_path: Path) -> None:
    (tmp_path / "goals_1.sqlite").symlink_to(path)
    with second_process(HOLD, path, "UPDATE account SET balance = 7 WHERE id = 1") as writer:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    before = state_of(path.parent)
    assert "goals_1.sqlite-wal" in before

    assert balances(tmp_path / "goals_1.sqlite")[1] == 7

    assert state_of(path.parent) == before
    assert not (tmp_path / "goals_1.sqlite-wal").exists()


def test_a_database_at_rest_is_read_without_leaving_anything_beside_it(path: Path) -> None:
    before = state_of(path.parent)
    assert list(before) == ["goals_1.sqlite"]

    assert len(balances(path)) == 50
    assert quick_check(path) == []

    assert [entry.name for entry in path.parent.iterdir()] == ["goals_1.sqlite"]
    assert state_of(path.parent) == before


def test_reading_disturbs_nobody_who_has_it_open(path: Path) -> None:
    with second_process(HOLD, path, "UPDATE account SET balance = 7 WHERE id = 1"):
        names = sorted(entry.name for entry in path.parent.iterdir())
        log = (path.parent / "goals_1.sqlite-wal").stat().st_size

        assert balances(path)[1] == 7

        assert sorted(entry.name for entry in path.parent.iterdir()) == names
        assert (path.parent / "goals_1.sqlite-wal").stat().st_size == log


def test_a_runtime_that_starts_while_we_read_keeps_its_log(path: Path) -> None:
    """We opened it at rest and close first: SQLite sees the other one and leaves everything to it."""
    with (
        connect_readonly(path, Deadline(5)) as db,
        second_process(HOLD, path, "UPDATE account SET balance = 7 WHERE id = 1"),
    ):
        db.close()
        assert (path.parent / "goals_1.sqlite-wal").stat().st_size > 0
        assert balances(path)[1] == 7


def test_nothing_can_be_changed_through_a_reading_connection(path: Path) -> None:
    for statement in ("UPDATE account SET balance = 0", "CREATE TABLE t (x)", "PRAGMA user_version = 5"):
        with pytest.raises(Unsupported), connect_readonly(path, Deadline(5)) as db:
            db.execute(statement)
    assert balances(path)[0] == 100


@pytest.mark.parametrize("name", ["a b?c#d%20e&mode=rwc.sqlite", "ünï.sqlite", os.fsdecode(b"\xff\xfe.sqlite")])
def test_every_name_is_only_a_name(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "plain.sqlite").rename(tmp_path / name)

    assert len(balances(path)) == 50
    backup(path, tmp_path / "copy.sqlite", Deadline(30))
    assert write_once(path, [("DELETE FROM account WHERE id < ?", (2,))], Deadline(5)) == [2]
    assert sorted(os.listdir(tmp_path)) == sorted([name, "copy.sqlite"])  # noqa: PTH208


def test_the_connection_is_closed_at_the_end_of_the_block(path: Path) -> None:
    with connect_readonly(path, Deadline(5)) as db:
        pass
    with pytest.raises(sqlite3.ProgrammingError):
        db.execute("SELECT 1")


def test_columns_are_told_by_name(path: Path) -> None:
    with connect_readonly(path, Deadline(5)) as db:
        columns = table_columns(db, "account")
        assert table_columns(db, "nothing'; DROP TABLE account") == {}

    assert list(columns) == ["id", "balance", "note"]
    assert columns["id"].primary_key
    assert columns["balance"].not_null
    assert columns["balance"].default == "0"
    assert columns["note"].type == "TEXT"
    assert not columns["note"].not_null


# ---- files that are not what they should be ----------------------------------------------------------------


def test_what_is_no_database_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "goals_1.sqlite"
    path.write_bytes(b"this is not a database, " * 500)

    with pytest.raises(DamagedFile) as caught:
        connect_readonly(path, Deadline(5))
    assert caught.value.path == path
    assert quick_check(path) != []
    with pytest.raises(DamagedFile):
        backup(path, tmp_path / "copy.sqlite", Deadline(5))
    with pytest.raises(DamagedFile):
        write_once(path, [("DELETE FROM account", ())], Deadline(5))
    assert [entry.name for entry in tmp_path.iterdir()] == ["goals_1.sqlite"]


def test_a_database_with_broken_pages_is_damaged_and_no_copy_of_it_is_kept(path: Path, tmp_path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 5] = os.urandom(4096 * 2)
    path.write_bytes(data)

    assert quick_check(path) != []
    with pytest.raises(DamagedFile):
        backup(path, tmp_path / "copy.sqlite", Deadline(5))
    assert not (tmp_path / "copy.sqlite").exists()


def test_text_that_is_not_utf8_is_damage(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE account SET note = CAST(x'ff' AS TEXT) WHERE id = 3")
    db.close()

    with pytest.raises(DamagedFile), connect_readonly(path, Deadline(5)) as reader:
        reader.execute("SELECT note FROM account").fetchall()


def test_a_table_that_is_not_there_is_an_unknown_schema(path: Path) -> None:
    with pytest.raises(UnknownSchema), connect_readonly(path, Deadline(5)) as db:
        db.execute("SELECT * FROM thread_goals")
    with pytest.raises(UnknownSchema):
        write_once(path, [("UPDATE thread_goals SET status = 'paused'", ())], Deadline(5))


def test_a_mistake_of_ours_is_not_blamed_on_the_file(path: Path) -> None:
    with pytest.raises(sqlite3.ProgrammingError), connect_readonly(path, Deadline(5)) as db:
        db.execute("SELECT ?", ())


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "folder.sqlite").mkdir()
    for name in ("missing.sqlite", "folder.sqlite", "no/such/folder.sqlite"):
        with pytest.raises(Unsupported):
            connect_readonly(tmp_path / name, Deadline(5))
        with pytest.raises(Unsupported):
            write_once(tmp_path / name, [], Deadline(5))
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.sqlite"]


def test_a_change_that_was_cut_off_is_not_undone_by_looking(tmp_path: Path) -> None:
    """Without WAL, as on network drives: what a killed process has half written waits in a journal for the next one."""
    path = make(tmp_path / "goals_1.sqlite", mode="DELETE", rows=2000)
    update = "UPDATE account SET note = hex(randomblob(1000))"
    with second_process(HOLD, path, "PRAGMA cache_size = 5", "BEGIN", update) as writer:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    before = state_of(tmp_path)
    assert "goals_1.sqlite-journal" in before

    with pytest.raises(Unsupported) as caught:
        connect_readonly(path, Deadline(5))

    assert "interrupted" in caught.value.message
    assert state_of(tmp_path) == before


def test_an_empty_file_is_an_empty_database(tmp_path: Path) -> None:
    (tmp_path / "goals_1.sqlite").touch()

    with connect_readonly(tmp_path / "goals_1.sqlite", Deadline(5)) as db:
        assert table_columns(db, "thread_goals") == {}
    assert (tmp_path / "goals_1.sqlite").stat().st_size == 0


# ---- locked ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_database_that_somebody_keeps_locked_is_busy(tmp_path: Path, mode: str) -> None:
    path = make(tmp_path / "goals_1.sqlite", mode=mode)
    with second_process(HOLD, path, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"):
        with pytest.raises(DatabaseBusy) as caught:
            connect_readonly(path, Deadline(SOON))
        assert caught.value.exit_code == 75
        with pytest.raises(DatabaseBusy):
            quick_check(path, Deadline(SOON))
        with pytest.raises((DatabaseBusy, TimeLimitReached)):
            backup(path, tmp_path / "copy.sqlite", Deadline(SOON))
        with pytest.raises(DatabaseBusy):
            write_once(path, [("UPDATE account SET balance = 0", ())], Deadline(SOON))
        assert not (tmp_path / "copy.sqlite").exists()

    assert balances(path)[0] == 100


def test_nobody_waits_longer_than_a_runtime_ever_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "BUSY_SECONDS", SOON)
    with second_process(HOLD, path, "BEGIN IMMEDIATE"), pytest.raises(DatabaseBusy):
        write_once(path, [("UPDATE account SET balance = 0", ())], Deadline(None))


def test_no_database_is_opened_when_the_time_is_over(path: Path) -> None:
    with pytest.raises(TimeLimitReached):
        connect_readonly(path, Deadline(0))


# ---- copying -----------------------------------------------------------------------------------------------


def test_a_copy_made_under_a_constant_writer_is_one_moment_and_holds_nobody_up(tmp_path: Path) -> None:
    path = make(tmp_path / "goals_1.sqlite", rows=20_000)  # 40 MB: many steps
    with second_process(MOVE_MONEY_ALL_THE_TIME, path) as writer:
        for number in range(3):
            backup(path, tmp_path / f"copy-{number}.sqlite", Deadline(60))
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write("enough\n")
        writer.stdin.flush()
        moved = int(writer.stdout.readline())
        assert writer.wait() == 0

    assert moved > 0
    assert sum(balances(path)) == 100 * 20_000
    for number in range(3):
        assert sum(balances(tmp_path / f"copy-{number}.sqlite")) == 100 * 20_000


def test_a_copy_is_one_private_file_that_needs_no_other(path: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with second_process(HOLD, path, "UPDATE account SET balance = 7 WHERE id = 1"):
            backup(path, tmp_path / "copy.sqlite", Deadline(30))
    finally:
        os.umask(before)

    copy = tmp_path / "copy.sqlite"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["copy.sqlite", "home"]
    assert copy.read_bytes()[18:20] == b"\x01\x01"  # the header says: no WAL
    assert quick_check(copy) == []
    assert balances(copy)[1] == 7
    copy.chmod(0o400)
    assert balances(copy)[1] == 7
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["copy.sqlite", "home"]


def test_copying_changes_nothing_of_a_database_at_rest(path: Path, tmp_path: Path) -> None:
    before = state_of(path.parent)

    backup(path, tmp_path / "copy.sqlite", Deadline(30))

    assert state_of(path.parent) == before


def test_a_copy_never_takes_the_place_of_a_file(path: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.sqlite").write_bytes(b"here already")

    with pytest.raises(Unverified):
        backup(path, tmp_path / "copy.sqlite", Deadline(30))

    assert (tmp_path / "copy.sqlite").read_bytes() == b"here already"


def test_a_copy_that_is_not_done_in_time_is_taken_away(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ShortDeadline(Deadline):
        def check(self, step: str) -> None:
            if step == "copying a database":
                raise TimeLimitReached(step)

    monkeypatch.setattr(databases, "_PAGES_A_STEP", 1)
    with pytest.raises(TimeLimitReached):
        backup(path, tmp_path / "copy.sqlite", ShortDeadline(60))

    assert not (tmp_path / "copy.sqlite").exists()


# ---- changing ----------------------------------------------------------------------------------------------


def test_a_change_is_all_or_nothing_and_says_how_many_rows(path: Path) -> None:
    counts = write_once(
        path,
        [
            ("UPDATE account SET balance = ? WHERE id IN (1, 2)", (5,)),
            ("UPDATE account SET balance = 6 WHERE id = 999", ()),
            ("INSERT INTO account (id, balance, note) VALUES (?, ?, ?)", (1000, 1, None)),
        ],
        Deadline(5),
    )
    assert counts == [2, 0, 1]

    with pytest.raises(UnknownSchema):
        write_once(
            path,
            [("UPDATE account SET balance = 0", ()), ("INSERT INTO account (id, balance) VALUES (1, 1)", ())],
            Deadline(5),
        )
    assert balances(path)[:4] == [100, 5, 5, 100]


def test_a_change_beside_a_running_process_is_seen_by_it(path: Path) -> None:
    watcher = HOLD + "say(db.execute('SELECT balance FROM account WHERE id = 1').fetchone()[0])"
    with second_process(watcher, path, "SELECT * FROM account") as runtime:
        assert write_once(path, [("UPDATE account SET balance = 7 WHERE id = 1", ())], Deadline(5)) == [1]
        assert runtime.stdin is not None
        assert runtime.stdout is not None
        runtime.stdin.write("\n")
        runtime.stdin.flush()
        assert runtime.stdout.readline() == "7\n"


def test_changes_get_through_between_those_of_a_constant_writer(path: Path) -> None:
    with second_process(MOVE_MONEY_ALL_THE_TIME, path):
        for _ in range(20):
            assert write_once(path, [("UPDATE account SET note = 'ours' WHERE id = 3", ())], Deadline(10)) == [1]


def test_a_change_to_a_database_at_rest_leaves_one_file(path: Path) -> None:
    write_once(path, [("UPDATE account SET balance = 7 WHERE id = 1", ())], Deadline(5))

    assert [entry.name for entry in path.parent.iterdir()] == ["goals_1.sqlite"]
    assert balances(path)[1] == 7
