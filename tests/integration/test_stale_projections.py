"""A projection that has read further than its rollout reaches is found before the app shows old turns for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from preflight.codex.projection import stale_projections
from preflight.codex.threads import find_threads
from preflight.model import Finding, Severity
from preflight.system.deadline import Deadline
from tests.fixtures_codex import CodexHome, contents, held_by_another_process, thread_id


def _projected(codex: CodexHome, file_id: str, offset: int) -> None:
    codex.execute(
        "thread_history_1.sqlite",
        ("INSERT INTO thread_history_projection_state VALUES (?, ?, 10)", (file_id, offset)),
    )


def _stale(codex: CodexHome, seconds: float = 10) -> tuple[Finding, ...]:
    home = codex.found()
    return stale_projections(home, find_threads(home, Deadline(20)).threads, Deadline(seconds))


@pytest.fixture
def codex(tmp_path: Path) -> CodexHome:
    return CodexHome(tmp_path / ".codex")


def test_a_projection_within_its_rollout_is_well(codex: CodexHome) -> None:
    path = codex.thread(1, ordinal=0)
    codex.thread(2, ordinal=0)
    _projected(codex, thread_id(1), path.stat().st_size)

    assert _stale(codex) == ()


def test_a_rollout_that_became_shorter_is_a_finding(codex: CodexHome) -> None:
    size = codex.thread(1, ordinal=0).stat().st_size
    _projected(codex, thread_id(1), size + 1)
    before = contents(codex.path)

    (finding,) = _stale(codex)

    assert (finding.finding_id, finding.severity) == ("projection-stale", Severity.WARN)
    assert (finding.thread_id, finding.measured, finding.expected) == (thread_id(1), size, size + 1)
    assert contents(codex.path) == before


def test_of_a_reverted_thread_the_segments_projection_counts(codex: CodexHome) -> None:
    base = codex.rollout(1, ordinal=0)
    size = base.stat().st_size
    head = codex.rollout(1, segment=2, base=(thread_id(1), 1, size))
    codex.row(1, head, history_mode="paginated")
    _projected(codex, thread_id(1), size + 100)
    assert _stale(codex) == ()

    _projected(codex, thread_id(2), head.stat().st_size + 1)

    assert [finding.path for finding in _stale(codex)] == [head]


def test_a_thread_that_grew_since_it_was_found_is_not_stale(codex: CodexHome) -> None:
    path = codex.thread(1, ordinal=0)
    home = codex.found()
    threads = find_threads(home, Deadline(20)).threads
    with path.open("ab") as file:
        file.write(b"{}\n" * 100)
    _projected(codex, thread_id(1), path.stat().st_size)

    assert stale_projections(home, threads, Deadline(10)) == ()


def test_a_home_without_a_projection_has_nothing_stale(tmp_path: Path) -> None:
    codex = CodexHome(tmp_path / ".codex", "0.134.0")
    codex.thread(1)

    assert _stale(codex) == ()


@pytest.mark.parametrize("how", ["damaged", "unknown", "future"])
def test_a_projection_that_cannot_be_read_is_one_finding(how: str, codex: CodexHome) -> None:
    codex.thread(1, ordinal=0)
    database = codex.path / "thread_history_1.sqlite"
    if how == "damaged":
        database.write_bytes(b"not a database" * 500)
    elif how == "unknown":
        codex.execute(database.name, "DROP TABLE thread_history_projection_state")
    else:
        database.rename(codex.path / "thread_history_2.sqlite")

    (finding,) = _stale(codex)

    assert (finding.finding_id, finding.severity) == ("projection-unreadable", Severity.WARN)


def test_a_locked_projection_is_one_finding(codex: CodexHome) -> None:
    codex.thread(1, ordinal=0)
    codex.execute("thread_history_1.sqlite", "PRAGMA journal_mode = DELETE")

    with held_by_another_process(codex.path / "thread_history_1.sqlite", "BEGIN EXCLUSIVE"):
        (finding,) = _stale(codex, 0.3)

    assert finding.finding_id == "projection-unreadable"
