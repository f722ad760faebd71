"""A goal that may have been paused is always in the journal, however the run that paused it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from preflight.checkpoint.journal import Journal, PauseIntent, PauseMeans
from preflight.model import Goal, GoalTable
from preflight.system import files
from tests import killing


def intent(number: int) -> PauseIntent:
    goal = Goal(
        thread_id=f"thread-{number}",
        goal_id=f"goal-{number}",
        objective="",
        status="active",
        token_budget=None,
        tokens_used=0,
        time_used_seconds=0,
        created_at_ms=1,
        updated_at_ms=2,
        table=GoalTable.GOALS,
    )
    return PauseIntent.of(
        goal, run_id="run", home=Path("/h"), how=PauseMeans.DATABASE, target_version=None, asked_at_ms=3
    )


def pause_for_real(journal: Path, goal: Path) -> None:
    """What a run does, with a file in the place of the goal's row."""
    promise = intent(1)
    Journal(journal).record_pause(promise)
    goal.write_bytes(b"paused")
    Journal(journal).record_paused(promise, 9)
    goal.write_bytes(b"active")
    Journal(journal).record_restored(promise, "restored")


def test_killed_at_any_line_the_goal_is_active_or_the_journal_knows(tmp_path: Path) -> None:
    journal, goal = tmp_path / "journal.jsonl", tmp_path / "goal"
    kept = []
    for _ in killing.at_every_line(lambda: pause_for_real(journal, goal), inside=[files]):
        pending = Journal(journal).pending()
        if goal.exists() and goal.read_bytes() != b"active":
            assert [entry.intent.goal_id for entry in pending] == ["goal-1"]
        assert Journal(journal).damaged_lines() == 0
        kept.append(len(pending))

        # The next run appends behind whatever is there and loses nothing of it.
        Journal(journal).record_pause(intent(2))
        assert [entry.intent.goal_id for entry in Journal(journal).pending()][len(pending) :] == ["goal-2"]
        journal.unlink()
        goal.unlink(missing_ok=True)
    assert kept[0] == kept[-1] == 0
    assert 1 in kept


WRITER = """
import sys
from pathlib import Path
from preflight.checkpoint.journal import Journal
from tests.crash.test_killed_between_promise_and_pause import intent

journal = Journal(Path(sys.argv[1]))
number = 0
while True:
    journal.record_pause(intent(number))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
    number += 1
"""


@pytest.mark.parametrize("promises", [1, 3, 17])
def test_every_promise_that_was_made_is_there_after_a_sigkill(tmp_path: Path, promises: int) -> None:
    path = tmp_path / "journal.jsonl"
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, cwd=root, env={**os.environ}
    ) as writer:
        assert writer.stdout is not None
        for _ in range(promises):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().splitlines()
    last = int(rest[-1]) if rest else last

    found = [entry.intent.thread_id for entry in Journal(path).pending()]

    assert found[: last + 1] == [f"thread-{number}" for number in range(last + 1)]
    assert len(found) <= last + 2  # one more may be on the disk that was not yet told


@pytest.mark.parametrize("kept_bytes", range(0, 400, 7))
def test_a_line_torn_at_any_byte_by_a_power_cut_loses_only_itself(tmp_path: Path, kept_bytes: int) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).record_pause(intent(1))
    first = path.stat().st_size
    Journal(path).record_pause(intent(2))
    os.truncate(path, min(first + kept_bytes, path.stat().st_size))
    whole = path.read_bytes().endswith(b"\n") and path.stat().st_size > first

    Journal(path).record_pause(intent(3))

    found = [entry.intent.thread_id for entry in Journal(path).pending()]
    assert found == ["thread-1", *(["thread-2"] if whole else []), "thread-3"]
    assert Journal(path).damaged_lines() == 0
