"""After an update `finish` tells what is missing, shorter or rewritten; the way back that it names works when typed."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from preflight.codex.sample_rollout import RolloutWriter, rollout_path
from preflight.model import HistoryBase
from tests.codex_oracle import model_view
from tests.fixtures_codex import CodexHome, contents, thread_id
from tests.troubled_home import (
    BYSTANDER,
    OBJECTIVE,
    PATIENT,
    SOUND,
    STORED,
    Answer,
    Goals,
    TroubledHome,
    call,
    call_without_root_powers,
    healthy,
    make_troubled_home,
)

SH = shutil.which("sh")
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="the commands are a POSIX shell's")

Change = Callable[[TroubledHome], object]


@pytest.fixture(autouse=True)
def no_codex(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(user))


@pytest.fixture
def home(tmp_path: Path) -> TroubledHome:
    """A home whose path has a space and a quote in it, after a run that went well: its goals are paused."""
    home = make_troubled_home(tmp_path / "it's here")
    assert home.call("run").code == 0
    assert statuses(home) == {"paused"}
    return home


def statuses(home: TroubledHome) -> set[str]:
    return {row["status"] for row in home.goals().values()}


def active(home: TroubledHome) -> Goals:
    """The goals as they were before the run."""
    return {thread: row | {"status": "active"} for thread, row in home.goals().items()}


def type_in(answer: Answer, finding_id: str, thread: str | None = None) -> str:
    """Types the command that a finding names, as a person would; returns it."""
    (finding,) = [
        one
        for one in answer.envelope["findings"]
        if one["id"] == finding_id and (thread is None or one["thread_id"] == thread)
    ]
    before, _, command = finding["remedy"].partition(", then: ")
    assert before == "close Codex"
    assert SH is not None
    done = subprocess.run(
        [SH, "-c", command], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}, cwd="/", check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), command
    return command


def well(home: TroubledHome, goals: Goals) -> None:
    answer = home.call("finish")
    assert (answer.code, answer.findings()) == (0, {}), answer
    assert home.goals() == goals


# ---- what an update may do ----------------------------------------------------------------------------------


def nothing(home: TroubledHome) -> None:
    """The update was called off, or changed nothing."""


def turns_were_added(home: TroubledHome) -> None:
    for path in home.rollouts.values():
        with path.open("ab") as file:
            file.write(b'{"timestamp":"t","type":"event_msg","payload":{"type":"task_started","turn_id":"n"}}\n')


def archived(home: TroubledHome) -> None:
    path = home.rollouts[PATIENT]
    path.rename(home.path / "archived_sessions" / path.name)
    change(home.state_db, f"UPDATE threads SET archived = 1 WHERE id = '{PATIENT}'")


def unarchived(home: TroubledHome) -> None:
    path = home.rollouts[STORED]
    path.rename(home.rollouts[BYSTANDER].with_name(path.name))


def compressed(home: TroubledHome) -> None:
    """Codex compresses rollouts that have long been idle (0.144 and later); what is in it does not matter here."""
    path = home.rollouts[BYSTANDER]
    path.with_name(path.name + ".zst").write_bytes(b"\x28\xb5\x2f\xfd, and less than before")
    path.unlink()


def new_threads(home: TroubledHome) -> None:
    new = "01a2036d-0000-7000-8000-0000000000ee"
    with RolloutWriter(rollout_path(home.path, new), new) as writer:
        healthy(writer)


def more_tables(home: TroubledHome) -> None:
    change(home.state_db, "ALTER TABLE threads ADD COLUMN mood TEXT", "CREATE TABLE moods (mood TEXT)")
    change(home.goals_db, "CREATE TABLE deferrals (thread_id TEXT)")


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    "update", [nothing, turns_were_added, archived, unarchived, compressed, new_threads, more_tables]
)
def test_what_an_update_may_do_is_no_finding_and_the_goals_go_on(home: TroubledHome, update: Change) -> None:
    goals = active(home)
    update(home)
    rollouts = home.digests()
    answer = home.call("finish")
    assert (answer.code, answer.findings()) == (0, {})
    (finished,) = answer.data["finished"]
    assert {goal["thread_id"]: goal["outcome"] for goal in finished["goals"]} == {
        SOUND: "restored",
        PATIENT: "restored",
    }
    assert home.goals() == goals
    assert home.digests() == rollouts
    again = home.call("finish")
    assert (again.code, again.findings(), again.data["finished"][0]["goals"]) == (0, {}, [])


def test_only_to_look_changes_nothing_and_says_what_would_be_done(home: TroubledHome) -> None:
    rows, stored = home.goal_rows(), contents(home.store)
    answer = home.call("finish", "--dry-run")
    assert answer.code == 0
    told = {goal["thread_id"]: goal["outcome"] for goal in answer.data["finished"][0]["goals"]}
    assert told == dict.fromkeys((SOUND, PATIENT), "would-be-put-back")
    assert home.goal_rows() == rows
    assert contents(home.store) == stored


def test_it_compares_with_the_last_run_and_not_with_an_older_one(home: TroubledHome) -> None:
    goals = active(home)
    home.rollouts[BYSTANDER].unlink()
    change(home.state_db, f"DELETE FROM threads WHERE id = '{BYSTANDER}'")
    assert home.call("run").code == 0, "the person has deleted that thread, and runs anew"
    well(home, goals)


# ---- rollouts that are gone ---------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize("whole_folder", [False, True])
def test_a_missing_rollout_of_a_goal_thread_is_put_back_from_the_checkpoint(
    home: TroubledHome, whole_folder: bool
) -> None:
    goals, original = active(home), home.rollouts[PATIENT].read_bytes()
    if whole_folder:
        shutil.rmtree(home.path / "sessions")
    else:
        home.rollouts[PATIENT].unlink()

    answer = home.call("finish")
    assert answer.code == 10
    assert answer.findings(PATIENT)["rollout-missing"]["expected"] == len(original)
    assert home.goals()[PATIENT]["status"] == "paused", "on nothing it would not go on well"
    assert (home.goals()[SOUND]["status"] == "paused") is whole_folder

    type_in(answer, "rollout-missing", PATIENT)
    if whole_folder:
        type_in(home.call("finish"), "rollout-missing", SOUND)

    restored = home.call("finish")
    assert restored.findings(PATIENT).keys() == {"rollout-restored"}
    assert restored.findings(PATIENT)["rollout-restored"]["severity"] == "warn"
    assert home.goals() == goals
    assert model_view(home.rollouts[PATIENT].read_bytes()) == model_view(original)
    assert home.rollouts[PATIENT].stat().st_mode & 0o077 == 0


@POSIX
def test_a_command_that_comes_too_late_overwrites_nothing(home: TroubledHome) -> None:
    """Between the finding and the typing the person found the whole rollout in the trash."""
    original = home.rollouts[PATIENT].read_bytes()
    home.rollouts[PATIENT].unlink()
    answer = home.call("finish")
    home.rollouts[PATIENT].write_bytes(original)
    remedy = answer.findings(PATIENT)["rollout-missing"]["remedy"]
    assert SH is not None
    subprocess.run(
        [SH, "-c", remedy.partition(": ")[2]], capture_output=True, env={"PATH": "/usr/bin:/bin"}, check=False
    )
    assert home.rollouts[PATIENT].read_bytes() == original
    assert home.call("finish").code == 0


@pytest.mark.parametrize("thread", [BYSTANDER, STORED])
def test_a_missing_rollout_that_has_no_copy_is_told_and_the_other_goals_go_on(home: TroubledHome, thread: str) -> None:
    goals = active(home)
    data = home.rollouts[thread].read_bytes()
    home.rollouts[thread].unlink()
    answer = home.call("finish")
    assert answer.code == 10
    finding = answer.findings(thread)["rollout-missing"]
    assert finding["path"] == str(home.rollouts[thread])
    assert "no copy" in finding["remedy"]
    assert home.goals() == goals
    home.rollouts[thread].write_bytes(data)
    well(home, goals)


# ---- rollouts that are shorter, or others -------------------------------------------------------------------


@POSIX
def test_a_shorter_rollout_is_moved_aside_and_the_copy_takes_its_place(home: TroubledHome) -> None:
    goals, original = active(home), home.rollouts[PATIENT].read_bytes()
    path = home.rollouts[PATIENT]
    for number, length in enumerate((len(original) // 2, 0, 100)):
        os.truncate(path, length)
        left = path.read_bytes()
        answer = home.call("finish")
        assert answer.code == 10
        finding = answer.findings(PATIENT)["rollout-shrank"]
        assert (finding["measured"], finding["expected"]) == (length, len(original))

        type_in(answer, "rollout-shrank", PATIENT)

        aside = path.with_name(f"{path.name}.aside{number or ''}")
        assert aside.read_bytes() == left, "what was there may be all that there is of a newer turn"
        assert model_view(path.read_bytes()) == model_view(original)
    restored = home.call("finish")
    assert restored.findings().keys() == {"rollout-restored"}
    assert home.goals() == goals


def test_a_restored_rollout_that_has_grown_since_is_still_known(home: TroubledHome) -> None:
    path = home.rollouts[PATIENT]
    (copy,) = home.store.rglob(path.name)
    path.write_bytes(copy.read_bytes() + b'{"timestamp":"t","type":"event_msg","payload":{"type":"task_started"}}\n')
    assert home.call("finish").findings(PATIENT).keys() == {"rollout-restored"}
    path.write_bytes(copy.read_bytes()[:-10])
    home.call("run")
    assert "rollout-shrank" in {**home.call("finish").findings(PATIENT), "rollout-shrank": {}}


def test_a_shorter_rollout_without_a_copy_is_told(home: TroubledHome) -> None:
    os.truncate(home.rollouts[BYSTANDER], 50)
    answer = home.call("finish")
    assert answer.code == 10
    assert "no copy" in answer.findings(BYSTANDER)["rollout-shrank"]["remedy"]
    assert statuses(home) == {"active"}


def another_end(data: bytes) -> bytes:
    return data.replace(b"How far are you?", b"What about this?")


def migrated(data: bytes) -> bytes:
    """To the paginated layout: every record gets an ordinal."""
    lines = [json.loads(line) for line in data.splitlines()]
    numbered = [{"timestamp": one["timestamp"], "ordinal": n, **one} for n, one in enumerate(lines)]
    return b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in numbered)


def test_a_migrated_rollout_is_told_with_the_place_of_the_old_one(home: TroubledHome) -> None:
    goals, path = active(home), home.rollouts[PATIENT]
    path.write_bytes(migrated(path.read_bytes()))
    answer = home.call("finish")
    assert (answer.code, answer.findings().keys()) == (3, {"rollout-rewritten"})
    copy = Path(answer.findings(PATIENT)["rollout-rewritten"]["remedy"].partition("the copy is ")[2])
    assert copy.is_file()
    assert home.goals() == goals, "a migration is no harm"


@POSIX
def test_a_rollout_that_holds_something_else_is_moved_aside_and_the_copy_takes_its_place(home: TroubledHome) -> None:
    goals, path = active(home), home.rollouts[PATIENT]
    original = path.read_bytes()
    path.write_bytes(another_end(original))
    answer = home.call("finish")
    assert answer.code == 10
    assert answer.findings(PATIENT)["rollout-rewritten"]["severity"] == "block"
    assert home.goals()[PATIENT]["status"] == "paused"

    type_in(answer, "rollout-rewritten")

    assert path.with_name(path.name + ".aside").read_bytes() == another_end(original)
    assert model_view(path.read_bytes()) == model_view(original)
    assert home.call("finish").findings().keys() == {"rollout-restored"}
    assert home.goals() == goals


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets root give up its powers")
def test_a_rollout_that_cannot_be_read_any_more_is_not_called_rewritten(home: TroubledHome) -> None:
    goals, path = active(home), home.rollouts[PATIENT]
    path.chmod(0)
    answer = call_without_root_powers(home, "finish")
    assert answer.code == 10
    assert answer.findings(PATIENT)["rollout-unreadable"]["severity"] == "block"
    assert "rollout-rewritten" not in answer.findings()
    assert home.goals()[PATIENT]["status"] == "paused"
    path.chmod(0o600)
    well(home, goals)


def test_a_goal_thread_that_codex_has_compressed_is_told_for_nobody_has_compared_it(home: TroubledHome) -> None:
    goals = active(home)
    path = home.rollouts[PATIENT]
    path.with_name(path.name + ".zst").write_bytes(b"\x28\xb5\x2f\xfd, whatever it was")
    path.unlink()
    answer = home.call("finish")
    (finding,) = [one for one in answer.envelope["findings"] if one["id"] == "rollout-compressed"]
    assert (answer.code, finding["severity"], finding["thread_id"]) == (3, "warn", PATIENT)
    assert home.goals() == goals


def test_the_goal_of_a_harmed_thread_stays_paused_through_the_next_run_until_a_person_wants_it(
    home: TroubledHome,
) -> None:
    path = home.rollouts[PATIENT]
    data = path.read_bytes()
    path.write_bytes(data.replace(b"How far are you?", b"What about this?"))
    assert "goal-not-put-back" in home.call("finish").findings(PATIENT)

    assert home.call("run").code == 3  # the archive began anew
    answer = home.call("finish")  # compared with a checkpoint that has the harm in it
    assert answer.findings(PATIENT).keys() == {"goal-not-put-back"}
    assert "resume-goals" in answer.findings(PATIENT)["goal-not-put-back"]["remedy"]
    assert {thread: row["status"] for thread, row in home.goals().items()} == {SOUND: "active", PATIENT: "paused"}

    assert home.call("resume-goals").code == 0
    assert statuses(home) == {"active"}
    assert home.call("finish").code == 0


def test_a_person_who_sets_the_withheld_goal_going_has_decided_it(home: TroubledHome) -> None:
    path = home.rollouts[PATIENT]
    path.write_bytes(path.read_bytes().replace(b"How far are you?", b"What about this?"))
    assert "goal-not-put-back" in home.call("finish").findings(PATIENT)
    home.change_goals("UPDATE thread_goals SET status = 'active', updated_at_ms = updated_at_ms + 1")
    assert "goal-not-put-back" not in home.call("finish").findings(PATIENT)
    assert statuses(home) == {"active"}


def test_a_fork_is_compared_with_every_file_that_it_is_made_of(tmp_path: Path) -> None:
    base_id = "01a2036d-0000-7000-8000-0000000000ba"
    home = make_troubled_home(tmp_path, paginated=True)
    base = rollout_path(home.path, base_id)
    with RolloutWriter(base, base_id, paginated=True) as writer:
        healthy(writer)
    cut = HistoryBase(file_id=base_id, end_ordinal_exclusive=writer.next_ordinal, end_byte_offset=base.stat().st_size)
    home.rollouts[PATIENT].unlink()
    with RolloutWriter(home.rollouts[PATIENT], PATIENT, paginated=True, base=cut) as writer:
        writer.turn("In the fork.", outputs=[300])
    assert home.call("run").code == 0
    data = base.read_bytes()

    base.write_bytes(data.replace(b"How far are you?", b"What about this?"))
    assert home.call("finish").findings(PATIENT).keys() == {"rollout-rewritten", "goal-not-put-back"}

    base.unlink()
    answer = home.call("finish")
    assert answer.findings(base_id).keys() == {"rollout-missing"}
    assert answer.findings(PATIENT).keys() == {"lineage-broken", "goal-not-put-back"}
    assert home.goals()[PATIENT]["status"] == "paused", "a fork is harmed by what its base has lost"

    base.write_bytes(data)
    assert home.call("finish").code == 0
    assert statuses(home) == {"active"}


# ---- databases ----------------------------------------------------------------------------------------------


def taken_away(path: Path) -> None:
    path.unlink()


def taken_away_but_for_its_log(path: Path) -> None:
    """A log without its database would be played back into whatever is put there."""
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("PRAGMA journal_mode = WAL")
        reader.execute("CREATE TABLE IF NOT EXISTS later (x)")
        reader.commit()
        log = path.with_name(path.name + "-wal").read_bytes()
    path.with_name(path.name + "-wal").write_bytes(log)
    path.unlink()


def overwritten(path: Path) -> None:
    path.write_bytes(b"not a database any more " * 1000)


def garbled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(range(256)) * ((len(data) - 4096) // 256)
    path.write_bytes(data)


@POSIX
@pytest.mark.parametrize("harm", [taken_away, taken_away_but_for_its_log, overwritten, garbled])
@pytest.mark.parametrize("name", ["goals_1.sqlite", "state_5.sqlite"])
def test_a_lost_or_damaged_database_is_put_back_from_the_checkpoint(
    home: TroubledHome, name: str, harm: Callable[[Path], None]
) -> None:
    goals, path = active(home), home.path / name
    harm(path)
    left = path.read_bytes() if path.exists() else None

    answer = home.call("finish")
    assert answer.code == 10
    kind = "database-missing" if left is None else "database-damaged"
    assert answer.findings()[kind]["path"] == str(path)
    type_in(answer, kind)

    if left is not None:
        assert path.with_name(name + ".aside").read_bytes() == left
    if harm is taken_away_but_for_its_log:
        assert path.with_name(name + "-wal.aside").exists()
        assert not path.with_name(name + "-wal").exists()
    answer = home.call("finish")
    assert (answer.code, answer.findings()) == (0, {}), answer
    assert home.goals() == goals
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_missing_row_of_a_thread_whose_rollout_is_there_is_a_warning(home: TroubledHome) -> None:
    goals = active(home)
    change(home.state_db, f"DELETE FROM threads WHERE id IN ('{PATIENT}', '{BYSTANDER}')")
    answer = home.call("finish")
    assert answer.code == 3
    missing = {one["thread_id"] for one in answer.envelope["findings"] if one["id"] == "thread-row-missing"}
    assert missing == {PATIENT, BYSTANDER}
    assert home.goals() == goals


def test_a_copy_in_the_checkpoint_that_was_damaged_since_keeps_nothing_else_from_being_compared(
    home: TroubledHome,
) -> None:
    goals = active(home)
    for copy in home.store.rglob("state_5.sqlite"):
        copy.chmod(0o600)
        copy.write_bytes(b"damaged")
    home.rollouts[BYSTANDER].unlink()
    answer = home.call("finish")
    assert answer.findings().keys() == {"rollout-missing"}
    assert home.goals() == goals


# ---- goals --------------------------------------------------------------------------------------------------


def test_a_goal_that_a_person_cleared_stays_cleared_and_its_objective_can_be_looked_up(home: TroubledHome) -> None:
    others = {thread: row for thread, row in active(home).items() if thread != PATIENT}
    change(home.goals_db, f"DELETE FROM thread_goals WHERE thread_id = '{PATIENT}'")
    answer = home.call("finish")
    assert answer.code == 3
    assert {one["severity"] for one in answer.findings(PATIENT).values()} == {"warn"}
    assert home.goals() == others
    shown = home.call("show", "--show-text")
    assert OBJECTIVE in json.dumps(shown.envelope)


def test_a_goal_that_a_person_changed_stays_as_it_is_and_is_told(home: TroubledHome) -> None:
    home.change_goals("UPDATE thread_goals SET status = 'blocked', updated_at_ms = 7 WHERE thread_id = ?", PATIENT)
    rows = home.goal_rows()
    answer = home.call("finish")
    assert (answer.code, answer.findings(PATIENT).keys()) == (3, {"goal-changed"})
    assert home.goal_rows()[PATIENT] == rows[PATIENT]
    assert home.goals()[SOUND]["status"] == "active"


def test_a_thread_that_a_person_deleted_is_told_once_and_nothing_of_it_comes_back(home: TroubledHome) -> None:
    home.rollouts[PATIENT].unlink()
    change(home.state_db, f"DELETE FROM threads WHERE id = '{PATIENT}'")
    change(home.goals_db, f"DELETE FROM thread_goals WHERE thread_id = '{PATIENT}'")
    answer = home.call("finish")
    assert answer.code == 10
    assert "unless you deleted the thread" in answer.findings(PATIENT)["rollout-missing"]["cause"]
    assert home.goals().keys() == {SOUND}
    assert home.goals()[SOUND]["status"] == "active"


# ---- from 0.128 to 0.134 ------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> CodexHome:
    """A home of 0.128: its goals lie in the state database. One is active, one is complete, one paused by a person."""
    codex = CodexHome(tmp_path / "codex home", "0.128.0")
    for number, status in ((1, "active"), (2, "complete"), (3, "paused")):
        path = codex.rollout(number)
        path.unlink()
        with RolloutWriter(path, thread_id(number)) as writer:
            healthy(writer)
        codex.row(number, path)
        codex.goal(number, status)
    return codex


def ask(codex: CodexHome, *words: str) -> Answer:
    return call(*words, "--json", "--home", codex.path, "--store", codex.path.parent / "store")


def goals_of(codex: CodexHome, database: str) -> dict[str, dict[str, object]]:
    rows = codex.rows(database)
    return {str(row["thread_id"]): {k: v for k, v in row.items() if k != "updated_at_ms"} for row in rows}


def take_over_by_0_134(codex: CodexHome) -> None:
    codex.execute("state_5.sqlite", "DROP TABLE thread_goals")
    newer = CodexHome(codex.path.parent / "newer", "0.134.0")
    shutil.copy(newer.path / "goals_1.sqlite", codex.path / "goals_1.sqlite")


def test_goals_that_the_update_drops_are_all_written_anew_as_they_were_before_the_run(old: CodexHome) -> None:
    before = goals_of(old, "state_5.sqlite")
    ran = ask(old, "run", "--target-version", "0.134.0")
    assert ran.code == 3
    assert "target-drops-goals" in ran.findings()

    early = ask(old, "finish")
    assert (early.code, early.findings().keys()) == (3, {"runtime-not-started"})
    assert goals_of(old, "state_5.sqlite")[thread_id(1)]["status"] == "paused", "the new version would drop it active"

    take_over_by_0_134(old)
    answer = ask(old, "finish")
    assert (answer.code, answer.findings()) == (0, {}), answer
    assert goals_of(old, "goals_1.sqlite") == before
    assert ask(old, "finish").data["finished"][0]["goals"] == []


def test_after_a_run_that_said_no_a_dropped_goal_is_active_as_it_was_then(old: CodexHome) -> None:
    before = goals_of(old, "state_5.sqlite")
    (path,) = old.path.glob(f"sessions/*/*/*/*{thread_id(3)}.jsonl")
    away = path.with_suffix(".away")
    path.rename(away)
    assert ask(old, "run", "--target-version", "0.134.0").code == 10
    assert goals_of(old, "state_5.sqlite") == before, "the run has put its pause back"
    away.rename(path)

    take_over_by_0_134(old)  # somebody has installed it all the same
    ask(old, "finish")
    assert goals_of(old, "goals_1.sqlite") == before


def test_a_goal_whose_rollout_went_with_the_update_is_written_when_that_is_back(old: CodexHome) -> None:
    before = goals_of(old, "state_5.sqlite")
    assert ask(old, "run", "--target-version", "0.134.0").code == 3
    take_over_by_0_134(old)
    (path,) = old.path.glob(f"sessions/*/*/*/*{thread_id(1)}.jsonl")
    path.unlink()

    answer = ask(old, "finish")
    assert answer.code == 10
    assert goals_of(old, "goals_1.sqlite").keys() == {thread_id(2), thread_id(3)}
    type_in(answer, "rollout-missing", thread_id(1))

    answer = ask(old, "finish")
    assert answer.findings().keys() == {"rollout-restored"}
    assert goals_of(old, "goals_1.sqlite") == before


# ---- every finding ------------------------------------------------------------------------------------------


def test_every_finding_says_what_to_do_and_none_says_what_the_thread_is_about(home: TroubledHome) -> None:
    home.rollouts[PATIENT].unlink()
    os.truncate(home.rollouts[BYSTANDER], 10)
    home.rollouts[STORED].unlink()
    path = home.rollouts[SOUND]
    path.write_bytes(another_end(path.read_bytes()))
    home.goals_db.unlink()
    change(home.state_db, f"DELETE FROM threads WHERE id = '{SOUND}'")

    answer = home.call("finish")

    assert answer.code == 10
    told = {one["id"] for one in answer.envelope["findings"]}
    assert told >= {
        *("rollout-missing", "rollout-shrank", "rollout-rewritten", "database-missing", "thread-row-missing"),
    }
    assert all(one["remedy"] for one in answer.envelope["findings"])
    assert OBJECTIVE not in json.dumps(answer.envelope)
    assert "Please look around" not in json.dumps(answer.envelope)
