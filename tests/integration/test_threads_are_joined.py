"""Rows, files and goals are joined by thread id, and what does not fit together is said and never guessed away."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from preflight.codex.threads import ThreadsFound, find_threads, read_rows
from preflight.errors import DatabaseBusy, TimeLimitReached, UnknownSchema
from preflight.model import Answer, Finding, Severity, Thread
from preflight.system.deadline import Deadline
from tests.fixtures_codex import OBJECTIVE, CodexHome, contents, held_by_another_process, thread_id


def _found(codex: CodexHome) -> ThreadsFound:
    return find_threads(codex.found(), Deadline(20))


def _one(codex: CodexHome, number: int = 1) -> Thread:
    return next(thread for thread in _found(codex).threads if thread.thread_id == thread_id(number))


def _kinds(findings: tuple[Finding, ...]) -> list[tuple[str, Severity]]:
    return [(finding.finding_id, finding.severity) for finding in findings]


@pytest.fixture
def codex(tmp_path: Path) -> CodexHome:
    return CodexHome(tmp_path / ".codex")


def test_an_empty_home_has_no_threads(tmp_path: Path) -> None:
    (tmp_path / ".codex").mkdir()
    home = replace(CodexHome(tmp_path / "other").found(), path=tmp_path / ".codex", state_db=None, goals_db=None)

    found = find_threads(home, Deadline(10))

    assert (found.threads, found.goals, found.findings) == ((), (), ())
    assert set(found.counts.values()) == {0}


@pytest.mark.parametrize("version", ["0.128.0", "0.134.0", "0.169.0"])
def test_a_thread_is_its_row_its_file_and_its_goal(version: str, tmp_path: Path) -> None:
    codex = CodexHome(tmp_path / ".codex", version)
    path = codex.thread(1, size=50_000)
    codex.goal(1, "paused")
    codex.thread(2)

    found = _found(codex)

    first, second = found.threads
    assert first.head is not None
    assert (first.thread_id, first.head.path, first.size_bytes) == (thread_id(1), path, path.stat().st_size)
    assert first.row is not None
    assert (first.row.rollout_path, first.row.cli_version) == (str(path), version)
    assert first.row.history_mode == ("legacy" if version == "0.169.0" else None)
    assert first.goal is not None
    assert (first.is_goal_thread, first.goal.objective, first.archived) == (True, OBJECTIVE, False)
    assert (second.goal, second.findings, second.unlisted) == (None, (), ())
    assert found.findings == ()
    assert found.counts == {
        "threads": 2,
        "archived_threads": 0,
        "goals": 1,
        "active_goals": 0,
        "rollouts": 2,
        "rollout_bytes": sum(thread.size_bytes for thread in found.threads),
        "compressed_rollouts": 0,
        "without_file": 0,
        "without_row": 0,
        "with_duplicates": 0,
    }


def test_finding_threads_changes_nothing(codex: CodexHome) -> None:
    codex.thread(1)
    codex.goal(1)
    before = contents(codex.path)

    _found(codex)

    assert contents(codex.path) == before


def test_an_archived_thread_is_archived_where_row_and_folder_say_so(codex: CodexHome) -> None:
    codex.thread(1, archived=True)
    codex.row(2, codex.rollout(2), archived=True)
    codex.row(3, codex.rollout(3, archived=True))
    codex.rollout(4, archived=True)

    assert [thread.archived for thread in _found(codex).threads] == [True, False, False, True]


def test_a_plain_file_wins_over_its_compressed_copy_and_a_row_names_both(codex: CodexHome) -> None:
    plain = codex.thread(1)
    plain.with_name(plain.name + ".zst").write_bytes(b"zstd")
    gone = codex.thread(2)
    compressed = gone.rename(gone.with_name(gone.name + ".zst"))
    codex.goal(2)

    first, second = _found(codex).threads

    assert first.head is not None
    assert (first.head.path, first.unlisted, first.findings) == (plain, (), ())
    assert second.head is not None
    assert (second.head.path, second.head.compressed, second.findings) == (compressed, True, ())


def test_a_goal_thread_whose_file_is_gone_blocks(codex: CodexHome) -> None:
    codex.thread(1).unlink()
    codex.goal(1)

    found = _found(codex)

    (thread,) = found.threads
    assert (thread.head, thread.size_bytes, thread.lineage) == (None, 0, ())
    assert _kinds(thread.findings) == [("rollout-missing", Severity.BLOCK)]
    assert found.findings == ()
    assert (found.counts["without_file"], found.counts["threads"]) == (1, 1)


def test_other_threads_whose_file_is_gone_are_said_once(codex: CodexHome) -> None:
    for number in range(3):
        codex.thread(number).unlink()

    found = _found(codex)

    assert _kinds(found.findings) == [("rollout-missing", Severity.WARN)]
    assert (found.findings[0].measured, found.findings[0].thread_id) == (3, None)
    assert {thread.findings[0].severity for thread in found.threads} == {Severity.WARN}

    codex.execute("state_5.sqlite", f"DELETE FROM threads WHERE id <> '{thread_id(1)}'")
    (finding,) = _found(codex).findings
    assert finding.thread_id == thread_id(1)


def test_a_goal_whose_thread_is_gone_altogether_warns(codex: CodexHome) -> None:
    codex.goal(1)

    assert _kinds(_one(codex).findings) == [("rollout-missing", Severity.WARN)]


def test_files_without_a_row_are_counted_and_said_of_goal_threads_only(codex: CodexHome) -> None:
    codex.thread(0)
    codex.rollout(1)
    codex.rollout(2)
    codex.goal(2, "paused")

    found = _found(codex)

    assert [_kinds(thread.findings) for thread in found.threads] == [[], [], [("row-missing", Severity.WARN)]]
    assert found.counts["without_row"] == 2
    assert found.findings == ()


def test_rollouts_without_any_database_are_said(codex: CodexHome) -> None:
    codex.rollout(1)
    for file in codex.path.glob("*.sqlite*"):
        file.unlink()

    found = _found(codex)

    assert _kinds(found.findings) == [("databases-missing", Severity.WARN)]
    assert [thread.thread_id for thread in found.threads] == [thread_id(1)]


def test_a_file_that_is_not_where_the_row_says_is_found_and_said(codex: CodexHome) -> None:
    path = codex.thread(1)
    elsewhere = codex.path / "sessions" / "2020" / "01" / "01"
    elsewhere.mkdir(parents=True)
    moved = path.rename(elsewhere / path.name)
    codex.goal(1)

    thread = _one(codex)

    assert thread.head is not None
    assert thread.head.path == moved
    assert _kinds(thread.findings) == [("rollout-moved", Severity.WARN)]


def test_a_row_that_leads_out_of_the_home_is_followed_and_said(codex: CodexHome, tmp_path: Path) -> None:
    other = CodexHome(tmp_path / "other")
    outside = other.rollout(1, size=90_000)
    inside = codex.rollout(1)
    codex.row(1, outside)

    thread = _one(codex)

    assert thread.head is not None
    assert (thread.head.path, thread.size_bytes) == (outside, outside.stat().st_size)
    assert [file.path for file in thread.unlisted] == [inside]
    assert _kinds(thread.findings) == [("rollout-elsewhere", Severity.WARN)]


@pytest.mark.parametrize(
    "spell",
    [
        str,
        lambda path: rf"C:\Users\ada\.codex\sessions\2026\11\22\{path.name}",
        lambda path: rf"\\?\C:\Users\ada\.codex\sessions\2026\11\22\{path.name}",
        lambda path: f"/mnt/c/Users/ada/.codex/sessions/2026/11/22/{path.name}",
        lambda path: f"{path}.zst",
    ],
)
def test_a_row_in_any_spelling_names_the_file(spell, codex: CodexHome) -> None:
    path = codex.rollout(1)
    codex.row(1, spell(path))
    codex.rollout(1, stamp="2026-11-23T08-00-00")  # newer, and not named

    thread = _one(codex)

    assert thread.head is not None
    assert thread.head.path == path


def test_a_row_in_the_spelling_of_the_true_path_names_the_file_behind_a_link(codex: CodexHome, tmp_path: Path) -> None:
    codex.thread(1)
    link = tmp_path / "link"
    link.symlink_to(codex.path)

    (thread,) = find_threads(replace(codex.found(), path=link), Deadline(10)).threads

    assert thread.findings == ()


def test_two_files_of_one_thread_are_a_finding_that_says_which_one_counts(codex: CodexHome) -> None:
    older = codex.rollout(1, stamp="2026-11-20T10-00-00")
    newer = codex.rollout(1, stamp="2026-11-22T10-00-00")
    codex.row(1, older)
    codex.goal(1)
    codex.rollout(2)
    codex.rollout(2, archived=True)

    found = _found(codex)

    first, second = found.threads
    assert first.head is not None
    assert (first.head.path, [file.path for file in first.unlisted]) == (older, [newer])
    assert _kinds(first.findings) == [("rollout-duplicate", Severity.WARN)]
    assert first.findings[0].remedy is not None
    assert older.name in first.findings[0].remedy
    assert second.head is not None
    assert second.head.archived is False
    assert _kinds(found.findings) == [("rollout-duplicate", Severity.WARN)]
    assert found.counts["with_duplicates"] == 2


def test_a_reverted_thread_is_the_head_that_the_row_names_and_the_part_of_its_base_that_counts(
    codex: CodexHome,
) -> None:
    base = codex.rollout(1, ordinal=0, size=60_000)
    cut = len(base.read_bytes().splitlines(keepends=True)[0])
    head = codex.rollout(1, segment=2, stamp="2026-11-22T13-26-00", base=(thread_id(1), 1, cut))
    codex.row(1, head, history_mode="paginated")

    thread = _one(codex)

    assert [(segment.file.path, segment.end_offset) for segment in thread.lineage] == [(head, None), (base, cut)]
    assert thread.size_bytes == head.stat().st_size + cut
    assert (thread.findings, thread.unlisted) == ((), ())


def test_the_newest_segment_is_the_head_where_no_row_names_one(codex: CodexHome) -> None:
    base = codex.rollout(1, ordinal=0)
    cut = base.stat().st_size
    dead_end = codex.rollout(1, segment=2, stamp="2026-11-22T13-25-08", base=(thread_id(1), 1, cut))
    head = codex.rollout(1, segment=3, stamp="2026-11-22T13-25-08", base=(thread_id(1), 1, cut))

    thread = _one(codex)

    assert thread.head is not None
    assert thread.head.path == head
    assert [file.path for file in thread.unlisted] == [dead_end]
    assert thread.findings == ()


def test_a_fork_has_the_size_of_what_it_goes_on_from_too(codex: CodexHome) -> None:
    base = codex.thread(1, ordinal=0, size=300_000)
    size = base.stat().st_size
    fork = codex.thread(2, base=(thread_id(1), 1, size))
    of_the_fork = codex.thread(3, base=(thread_id(2), 2, fork.stat().st_size))

    sizes = [thread.size_bytes for thread in _found(codex).threads]

    assert sizes == [size, size + fork.stat().st_size, size + fork.stat().st_size + of_the_fork.stat().st_size]


@pytest.mark.parametrize(("status", "severity"), [("active", Severity.BLOCK), ("complete", Severity.WARN)])
def test_a_fork_whose_base_is_gone_blocks_only_with_a_goal(status: str, severity: Severity, codex: CodexHome) -> None:
    fork = codex.thread(2, base=(thread_id(1), 1, 500))
    codex.goal(2, status)

    thread = _one(codex, 2)

    assert _kinds(thread.findings) == [("lineage-broken", severity)]
    assert thread.size_bytes == fork.stat().st_size


def test_a_rollout_that_says_another_id_blocks_a_goal_thread(codex: CodexHome) -> None:
    codex.thread(1, inner_id=thread_id(9))
    codex.goal(1)

    (finding,) = _one(codex).findings

    assert (finding.finding_id, finding.severity) == ("rollout-of-another-thread", Severity.BLOCK)
    assert (finding.measured, finding.expected) == (thread_id(9), thread_id(1))


@pytest.mark.parametrize(
    "data", [b"", b"\xef\xbb\xbf{}\n", b"not json\n", b'{"type":"event_msg","payload":{}}\n', b"\0" * 500]
)
@pytest.mark.parametrize("with_goal", [True, False])
def test_a_damaged_first_line_blocks_only_with_a_goal(data: bytes, with_goal: bool, codex: CodexHome) -> None:
    codex.row(1, codex.rollout(1), history_mode="paginated")
    codex.rollout(1).write_bytes(data)
    control = codex.thread(2)
    if with_goal:
        codex.goal(1)

    first, second = _found(codex).threads

    assert _kinds(first.findings) == [("rollout-damaged", Severity.BLOCK if with_goal else Severity.WARN)]
    assert second.head is not None
    assert (second.head.path, second.findings) == (control, ())


def test_small_legacy_threads_without_a_goal_are_never_opened(codex: CodexHome) -> None:
    path = codex.thread(1)
    opened = path.stat().st_atime_ns - 10**12
    os.utime(path, ns=(opened, path.stat().st_mtime_ns))
    path.chmod(0o000)

    assert _one(codex).findings == ()
    assert path.stat().st_atime_ns == opened


def test_a_link_that_leads_back_into_sessions_ends(codex: CodexHome) -> None:
    codex.thread(1)
    (codex.path / "sessions" / "again").symlink_to(codex.path / "sessions")

    found = _found(codex)

    assert [thread.thread_id for thread in found.threads] == [thread_id(1)]


def test_a_malformed_state_database_blocks_and_files_and_goals_are_still_seen(codex: CodexHome) -> None:
    path = codex.thread(1)
    codex.goal(1)
    for file in codex.path.glob("state_5.sqlite*"):
        file.write_bytes(b"not a database" * 1000)

    found = _found(codex)

    assert _kinds(found.findings) == [("database-damaged", Severity.BLOCK)]
    (thread,) = found.threads
    assert thread.head is not None
    assert (thread.head.path, thread.is_goal_thread, thread.row) == (path, True, None)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE threads RENAME TO conversations",
        "ALTER TABLE threads RENAME COLUMN rollout_path TO path",
        "ALTER TABLE threads DROP COLUMN archived",
    ],
)
def test_rows_of_an_unknown_layout_are_refused(change: str, codex: CodexHome) -> None:
    codex.thread(1)
    codex.execute("state_5.sqlite", change)
    before = contents(codex.path)

    with pytest.raises(UnknownSchema):
        _found(codex)

    assert contents(codex.path) == before


def test_a_locked_state_database_is_busy_at_the_deadline(codex: CodexHome) -> None:
    codex.thread(1)
    codex.execute("state_5.sqlite", "PRAGMA journal_mode = DELETE")
    home = codex.found()

    with held_by_another_process(codex.path / "state_5.sqlite", "BEGIN EXCLUSIVE"), pytest.raises(DatabaseBusy):
        read_rows(home, Deadline(0.3))


def test_no_time_is_no_answer(codex: CodexHome) -> None:
    codex.thread(1)

    with pytest.raises(TimeLimitReached):
        find_threads(codex.found(), Deadline(0))


def test_no_finding_repeats_what_a_person_wrote(codex: CodexHome) -> None:
    codex.thread(1).unlink()
    codex.goal(1)
    codex.rollout(2)
    codex.rollout(2, archived=True)
    codex.goal(2)

    found = _found(codex)

    said = " ".join(str(finding) for thread in found.threads for finding in thread.findings)
    assert OBJECTIVE not in said
    assert "harbour" not in said
    assert codex.found().daemon_updater is Answer.NO
