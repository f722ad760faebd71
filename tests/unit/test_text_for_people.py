"""The text report: the verdict in the first word, the worst first, commands that can be copied, no objective."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from preflight.model import CheckpointRef, CheckpointState, Finding, Result, Severity, SizeClass, Verdict
from preflight.report import Failure
from preflight.report.lines import bare, paint
from preflight.report.text import Wanted, failure_lines, result_lines
from tests.observations import OBJECTIVE, THREAD, home_observation, observation

COMMAND = 'preflight run --wait "5 min" --thread 0199a213-81c0-7800-8aa1-bbab2a035a53 --home "/home/ada/.codex"'
UNCONFIRMED = Finding(
    finding_id="goal-unconfirmed",
    severity=Severity.BLOCK,
    cause="the goal could not be confirmed as paused within the time that the call was given to wait for it",
    thread_id=THREAD,
    measured="active",
    expected="paused",
    remedy=COMMAND,
)
UPDATER = Finding(finding_id="daemon-updater", severity=Severity.WARN, cause="the daemon updates itself")


def large(number: int) -> str:
    return f"{THREAD[:-2]}{number:02}"


def size_finding(number: int) -> Finding:
    return Finding(
        finding_id="size-warning",
        severity=Severity.WARN,
        cause="the thread is large",
        thread_id=large(number),
        measured=260_000_000 + number,
        expected=250_000_000,
    )


THREADS = (
    observation(checkpoint=CheckpointState(checkpoint_id="c", fresh=True, verified=True)),
    *(
        observation(thread_id=large(number), size_bytes=260_000_000 + number, size_class=SizeClass.WARNING, status=None)
        for number in range(14)
    ),
)
RESULT = Result(
    command="run",
    verdict=Verdict.BLOCK,
    data={
        "homes": (home_observation(*THREADS),),
        "checkpoint": (CheckpointRef(checkpoint_id="20261122T120000Z-0a1b2c", path=Path("/s/c"), manifest_sha256=""),),
    },
    findings=(UPDATER, *(size_finding(number) for number in range(14)), UNCONFIRMED),
    not_checked=("trial resume: no Codex binary was found",),
)


def shown(result: Result = RESULT, **wanted: bool) -> str:
    return bare(result_lines(result, Wanted(**wanted)))


@pytest.mark.parametrize(
    ("command", "verdict", "first_line"),
    [
        ("check", Verdict.PROCEED, "PROCEED: The update can be installed now."),
        ("run", Verdict.WARN, "WARN: The update can be installed; read the findings first."),
        ("run", Verdict.BLOCK, "BLOCK: Do not install the update yet."),
        ("finish", Verdict.PROCEED, "PROCEED: Everything is still there."),
    ],
)
def test_the_first_line_is_the_verdict(command: str, verdict: Verdict, first_line: str) -> None:
    assert shown(Result(command=command, verdict=verdict)) == first_line + "\n"


def test_what_blocks_stands_before_what_warns() -> None:
    text = shown()
    assert text.startswith("BLOCK: Do not install the update yet. Findings: 1 block, 15 warn.\n")
    assert text.index("BLOCK  goal-unconfirmed") < text.index("WARN  daemon-updater") < text.index("WARN  size-warning")


def test_a_finding_names_the_thread_its_size_and_what_to_do() -> None:
    text = shown(quiet=True)
    assert f"thread {THREAD}, 3.06 GB (critical), goal active" in text
    assert "measured active, expected paused" in text
    assert f"  next: {COMMAND}\n" in text


def test_a_command_is_never_broken_and_everything_else_fits_80_columns() -> None:
    for line in shown().splitlines():
        assert len(line) <= 80 or line.strip() == f"next: {COMMAND}"


def test_many_threads_with_the_same_finding_share_its_words() -> None:
    text = shown()
    assert text.count("the thread is large") == 1
    assert "and 4 more; -v shows them all" in text
    assert text.index(large(13)) < text.index(large(12)), "the largest first"
    everything = shown(verbose=True)
    assert "more; -v" not in everything
    assert all(large(number) in everything for number in range(14))


def test_quiet_leaves_the_verdict_and_the_findings() -> None:
    text = shown(quiet=True)
    assert "BLOCK  goal-unconfirmed" in text
    assert "Not checked" not in text
    assert "Checkpoint 2026" not in text


def test_quiet_takes_no_answer_from_a_verb_without_a_verdict() -> None:
    listed = Result(command="list", data={"checkpoints": []})
    assert shown(listed, quiet=True) == shown(listed)


def test_sizes_are_shown_as_sizes_and_counts_as_counts() -> None:
    memory = replace(UNCONFIRMED, measured=15_319_406_990, expected=8_000_000_000)
    lines = replace(UNCONFIRMED, finding_id="damaged-lines", measured=1_234, expected=0)
    text = shown(Result(command="check", verdict=Verdict.BLOCK, findings=(memory, lines)))
    assert "measured 15.3 GB, expected 8.00 GB" in text
    assert "measured 1,234, expected 0" in text


def test_the_same_thread_in_two_homes_is_two_threads() -> None:
    twice = Result(command="check", verdict=Verdict.WARN, data={"homes": (home_observation(THREADS[0]),) * 2})
    assert shown(twice).count(f"{THREAD}  3.06 GB") == 2


def test_figures_stand_behind_the_findings() -> None:
    text = shown()
    assert re.search(rf"{THREAD}  3\.06 GB  critical  active  fresh\n", text)
    assert "Checkpoint 20261122T120000Z-0a1b2c\n  /s/c\n" in text
    assert "120 threads, 3 goals" in text
    assert "running: codex 0.134.0, desktop, pid 4711" in text
    assert text.endswith("Not checked\n  - trial resume: no Codex binary was found\n")


def test_an_objective_appears_only_when_asked_for() -> None:
    assert OBJECTIVE not in shown(verbose=True)
    assert OBJECTIVE in shown(show_text=True)


def test_colour_adds_escape_sequences_and_nothing_else() -> None:
    lines = result_lines(RESULT, Wanted())
    coloured = paint(lines)
    assert "\x1b[1;31mBLOCK" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == bare(lines)
    assert "\x1b" not in bare(lines)


def test_no_name_can_move_the_cursor_or_turn_the_line_round() -> None:
    hostile = replace(UPDATER, cause="x\x1b[2J\r\u202ey", path=Path("/tmp/\udce9"))
    text = shown(Result(command="check", verdict=Verdict.WARN, findings=(hostile,)))
    assert "x\\x1b[2J\\r\\u202ey" in text
    assert "\x1b" not in text
    assert "/tmp/\\udce9" in text


def test_a_failure_says_what_happened_and_what_to_do_instead_of_a_verdict() -> None:
    failure = Failure(
        command="run",
        code="locked",
        message="another preflight (pid 4711) is at work on this home",
        hint="preflight list",
        exit_code=11,
        verdict=Verdict.BLOCK,
    )
    assert bare(failure_lines(failure, Wanted())) == (
        "LOCKED: another preflight (pid 4711) is at work on this home\n"
        "There is no verdict. Do not install the update now.\n"
        "next: preflight list\n"
    )
    assert "verdict" not in bare(failure_lines(replace(failure, command="list", verdict=None), Wanted()))
    assert bare(failure_lines(replace(failure, exit_code=143, verdict=None), Wanted())).startswith("STOPPED: ")


@pytest.mark.parametrize(
    ("step", "shown_as"),
    [
        ("preflight run", "next: preflight run --home '/srv/a b'"),
        ("preflight run --wait 300", "next: preflight run --wait 300 --home '/srv/a b'"),
        ('preflight run --wait "5 min"', "next: preflight run --wait \"5 min\" --home '/srv/a b'"),
        ("preflight check --help", "next: preflight check --help"),
        ("codex app-server daemon stop", "next: codex app-server daemon stop"),
        ("preflight run makes a new one", "next: preflight run makes a new one"),
    ],
)
def test_the_next_command_means_the_same_home(step: str, shown_as: str) -> None:
    result = Result(command="check", verdict=Verdict.WARN, findings=(replace(UPDATER, remedy=step),))
    assert f"  {shown_as}\n" in bare(result_lines(result, Wanted(options="--home '/srv/a b'")))


def test_a_goal_that_we_paused_is_said_before_everything_else() -> None:
    paused = replace(observation(status="paused"), paused_by_us=True)
    text = shown(Result(command="run", verdict=Verdict.PROCEED, data={"homes": (home_observation(paused),)}))
    assert text.startswith(
        "PROCEED: The update can be installed now.\n\n"
        "1 goal is paused by preflight.\n"
        "after the update: preflight finish\n"
        "if there is no update: preflight resume-goals\n"
    )


def test_values_of_other_verbs_become_lines_and_tables() -> None:
    result = Result(
        command="config",
        data={
            "store": Path("/s"),
            "checkpoints": [
                {"id": "b", "threads": 2, "size_bytes": 1_500_000, "verified": True},
                {"id": "a", "threads": 10, "size_bytes": 812, "verified": None},
            ],
            "rules": {"seconds": 90, "words": ["one", "two"]},
            "nothing": [],
        },
    )
    assert shown(result) == (
        "store  /s\n"
        "\n"
        "Checkpoints\n"
        "  id  threads     size  verified\n"
        "  b         2  1.50 MB  yes\n"
        "  a        10    812 B  -\n"
        "\n"
        "Rules\n"
        "  seconds  90 s\n"
        "\n"
        "  Words\n"
        "    - one\n"
        "    - two\n"
        "\n"
        "Nothing\n"
        "  none\n"
    )


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        ({"outcome": "restored"}, "put back"),
        ({"outcome": "changed"}, "changed by somebody since it was paused; left as it is"),
        ({"outcome": "changed", "pending": True}, "stays paused, because its thread was harmed"),
    ],
)
def test_what_became_of_a_goal_is_said_in_words(goal: dict[str, object], words: str) -> None:
    finished = [{"home": Path("/home/u/.codex"), "goals": [{"thread_id": THREAD, **goal}]}]
    text = shown(Result(command="finish", verdict=Verdict.WARN, data={"finished": finished}))
    assert f"goal of thread {THREAD}: {words}" in " ".join(text.split())


@pytest.mark.parametrize(("code", "word"), [(0, "VERIFIED: "), (12, "UNVERIFIED: "), (75, "TRY LATER: ")])
def test_what_was_not_read_to_its_end_is_not_called_verified(code: int, word: str) -> None:
    assert shown(Result(command="verify", exit_code=code, data={"files": []})).startswith(word)
