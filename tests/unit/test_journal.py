"""What was paused and is to be put back, whatever happened to the run that paused it."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preflight.checkpoint.journal import Journal, PauseEntry, PauseIntent, PauseMeans
from preflight.errors import DamagedFile, Unverified
from preflight.model import Goal, GoalTable


def intent(number: int = 1, run_id: str = "run-1", home: Path = Path("/home/u/.codex")) -> PauseIntent:
    goal = Goal(
        thread_id=f"thread-{number}",
        goal_id=f"goal-{number}",
        objective="nobody's business",
        status="active",
        token_budget=None if number % 2 else 5000,
        tokens_used=17,
        time_used_seconds=3,
        created_at_ms=1_795_000_000_000,
        updated_at_ms=1_795_000_000_001,
        table=GoalTable.GOALS,
    )
    return PauseIntent.of(
        goal,
        run_id=run_id,
        home=home,
        how=PauseMeans.DATABASE,
        target_version="0.169.0",
        asked_at_ms=1_795_000_000_500,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_a_journal_that_was_never_written_has_nothing_to_put_back(path: Path) -> None:
    assert Journal(path).pending() == []
    assert Journal(path).damaged_lines() == 0
    assert not path.exists()


def test_a_goal_that_is_withheld_stays_so_until_it_is_put_back_or_paused_anew(path: Path) -> None:
    journal, one = Journal(path), intent()
    journal.record_pause(one)
    journal.record_paused(one, 1_795_000_000_900)
    journal.record_withheld(one, "20261122T120000Z-0a1b2c")
    (entry,) = Journal(path).pending()
    assert (entry.withheld_by, entry.paused_updated_at_ms) == ("20261122T120000Z-0a1b2c", 1_795_000_000_900)
    again = intent(run_id="run-2")
    journal.record_pause(again)
    assert [entry.withheld_by for entry in Journal(path).pending()] == [None]
    journal.record_withheld(again, "20261122T130000Z-0a1b2c")
    journal.record_restored(again, "restored")
    assert Journal(path).pending() == []


def test_which_pauses_were_undone_can_be_told_from_those_that_ended_otherwise(path: Path) -> None:
    journal = Journal(path)
    for number, outcome in ((1, "restored"), (2, "changed"), (3, "over")):
        journal.record_pause(intent(number))
        journal.record_paused(intent(number), 1_795_000_000_900 + number)
        journal.record_restored(intent(number), outcome)
    (undone,) = Journal(path).put_back()
    assert (undone.intent.thread_id, undone.paused_updated_at_ms) == ("thread-1", 1_795_000_000_901)


def test_a_promise_a_deed_and_an_end(path: Path) -> None:
    journal, one = Journal(path), intent()

    journal.record_pause(one)
    assert Journal(path).pending() == [PauseEntry(intent=one, paused_updated_at_ms=None)]
    journal.record_paused(one, 1_795_000_000_900)
    assert Journal(path).pending() == [PauseEntry(intent=one, paused_updated_at_ms=1_795_000_000_900)]
    journal.record_restored(one, "restored")
    assert Journal(path).pending() == []


def test_codex_may_touch_the_row_again_after_the_pause_and_the_last_word_counts(path: Path) -> None:
    journal, one = Journal(path), intent()
    journal.record_pause(one)
    journal.record_paused(one, 5)
    journal.record_paused(one, 9)

    assert [entry.paused_updated_at_ms for entry in journal.pending()] == [9]


def test_every_goal_is_kept_apart_and_the_oldest_comes_first(path: Path) -> None:
    journal = Journal(path)
    for number in (1, 2, 3):
        journal.record_pause(intent(number))
    journal.record_restored(intent(2), "restored")

    assert [entry.intent.thread_id for entry in journal.pending()] == ["thread-1", "thread-3"]


def test_a_goal_that_was_paused_again_is_pending_once_as_the_later_run_saw_it(path: Path) -> None:
    journal = Journal(path)
    journal.record_pause(intent(run_id="run-1"))
    journal.record_paused(intent(run_id="run-1"), 5)
    journal.record_pause(intent(run_id="run-2"))
    journal.record_paused(intent(run_id="run-1"), 6)
    journal.record_restored(intent(run_id="run-1"), "restored")

    assert [(entry.intent.run_id, entry.paused_updated_at_ms) for entry in journal.pending()] == [("run-2", None)]


def test_it_is_private_and_holds_no_objective(path: Path) -> None:
    Journal(path).record_pause(intent())

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"business" not in path.read_bytes()


def test_a_home_whose_name_is_not_utf8_comes_back(path: Path) -> None:
    home = Path(os.fsdecode(b"/srv/\xff\xfe"))
    Journal(path).record_pause(intent(home=home))

    assert Journal(path).pending()[0].intent.home == home
    assert json.loads(path.read_bytes())["home"]["b64"] == "L3Nydi///g=="


@pytest.mark.parametrize("tail", [b'{"event":"pau', b"\0\0\0", b'{"complete":"but for its newline"}'])
def test_a_torn_last_line_is_passed_over_and_cut_off_by_the_next_one(path: Path, tail: bytes) -> None:
    Journal(path).record_pause(intent(1))
    whole = path.read_bytes()
    path.write_bytes(whole + tail)

    assert len(Journal(path).pending()) == 1
    assert Journal(path).damaged_lines() == 0
    assert path.read_bytes() == whole + tail  # reading changes nothing
    Journal(path).record_pause(intent(2))

    assert len(Journal(path).pending()) == 2
    assert path.read_bytes().startswith(whole + b"{")


def test_a_file_that_is_one_torn_line_starts_anew(path: Path) -> None:
    path.write_bytes(b'{"event":')

    Journal(path).record_pause(intent())

    assert len(Journal(path).pending()) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"\0\0\0\0\n",
        b"not json\n",
        b"\n",
        b"[]\n",
        b'{"event":"pause"}\n',
        b'{"event":"paused","run_id":"r","thread_id":"t","goal_id":"g","paused_updated_at_ms":"5"}\n',
        b"[" * 50_000 + b"\n",
        b"\xff\xfe\n",
        b'{"event":"restored","run_id":"r","thread_id":"\xff","goal_id":"g"}\n',
        b'{"event":["pause"]}\n',
    ],
)
def test_a_damaged_line_in_the_middle_is_counted_and_the_others_stay_true(path: Path, line: bytes) -> None:
    Journal(path).record_pause(intent(1))
    with path.open("ab") as file:
        file.write(line)
    Journal(path).record_pause(intent(2))

    assert [entry.intent.thread_id for entry in Journal(path).pending()] == ["thread-1", "thread-2"]
    assert Journal(path).damaged_lines() == 1


def test_an_event_of_a_later_version_is_no_damage(path: Path) -> None:
    path.write_bytes(json.dumps({"schema": 1, "event": "archived", "anything": []}).encode() + b"\n")

    assert Journal(path).pending() == []
    assert Journal(path).damaged_lines() == 0


def test_the_line_is_on_the_disk_when_the_promise_is_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bytes] = []
    flush = os.fsync

    def recording(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            flushed.append(path.read_bytes())
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    Journal(path).record_pause(intent())

    assert flushed == [path.read_bytes()]


def test_a_promise_that_cannot_be_written_is_an_error(path: Path) -> None:
    path.mkdir()

    with pytest.raises(Unverified):
        Journal(path).record_pause(intent())
    with pytest.raises(DamagedFile):
        Journal(path).pending()


@pytest.mark.parametrize("wrong", [{"tokens_used": 1.5}, {"status_before": "\udcff"}, {"token_budget": object()}])
def test_a_promise_that_nobody_could_read_is_not_made(path: Path, wrong: dict[str, Any]) -> None:
    Journal(path).record_pause(intent(1))
    before = path.read_bytes()

    with pytest.raises(Unverified) as caught:
        Journal(path).record_pause(replace(intent(2), **wrong))

    assert caught.value.path == path
    assert path.read_bytes() == before


def test_an_intent_is_what_the_goal_was() -> None:
    one = intent(2)

    assert (one.status_before, one.token_budget, one.tokens_used, one.table) == ("active", 5000, 17, GoalTable.GOALS)
    assert one.at.endswith("Z")
