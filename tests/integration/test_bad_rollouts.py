"""One rollout of a home is damaged or strange: it becomes a finding, the other threads do not notice.

What Codex makes of each kind is in the comments where it matters; seen with 0.128.0 to 0.169.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from preflight.codex.sample_rollout import RolloutWriter
from tests.codex_oracle import model_view
from tests.troubled_home import OBJECTIVE, PATIENT, SOUND, Answer, TroubledHome, healthy_bytes, make_troubled_home

NOW = b'{"timestamp":"2026-05-30T09:05:00.000Z","type":'
DEEP = b"[" * 2000 + b"]" * 2000
BIG = b"9" * 60

Spoil = Callable[[bytes], bytes]


def first_line_with(field: bytes) -> Spoil:
    return lambda good: good.replace(b'"cwd"', field + b',"cwd"', 1)


def with_line(line: bytes) -> Spoil:
    return lambda good: good + NOW + line + b"\n"


def glued(good: bytes) -> bytes:
    """NULs as a crash leaves them, and the next record behind them in the same line."""
    return good + bytes(4096) + good.split(b"\n")[-2] + b"\n"


#: Codex opens none of these: "is empty", "does not start with session metadata".
REFUSED: Mapping[str, Spoil] = {
    "empty": lambda good: b"",
    "one blank line": lambda good: b"\n",
    "no session_meta": lambda good: good.split(b"\n", 1)[1],
    "a byte order mark": lambda good: b"\xef\xbb\xbf" + good,
    "UTF-16": lambda good: good.decode().encode("utf-16"),
    "nothing but NULs": lambda good: bytes(8192),
    "NULs in front": lambda good: bytes(4096) + good,
    "a first line that is torn": lambda good: good[:100],
    "a first line that is a list": lambda good: b"[]\n" + good.split(b"\n", 1)[1],
    "a first line nested 2,000 deep": first_line_with(b'"deep":' + DEEP),
    "a lone surrogate in the first line": first_line_with(b'"text":"\\ud800"'),
}

#: Codex skips these lines, or (not UTF-8, legacy threads) refuses the thread.
DAMAGED: Mapping[str, Spoil] = {
    "a block of NULs": lambda good: good + bytes(4096) + b"\n",
    "NULs that swallow a record": glued,
    "half a record": with_line(b'"response_item","payload":{"type":"mess'),
    "no JSON at all": lambda good: good + b"Segmentation fault (core dumped)\n",
    "bytes that are not UTF-8": with_line(b'"event_msg","payload":{"type":"note","text":"\xff\xfe"}}'),
    "a user's message that is not UTF-8": with_line(
        b'"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"\xff"}]}}'
    ),
    "a lone surrogate": with_line(
        b'"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"\\ud800"}]}}'
    ),
    "a compaction with a lone surrogate": with_line(
        b'"compacted","payload":{"message":"m","replacement_history":["\\udfff"]}}'
    ),
    "a compaction nested 2,000 deep": with_line(
        b'"compacted","payload":{"message":"m","replacement_history":' + DEEP + b"}}"
    ),
    "a compaction nested one deeper than Codex reads": with_line(
        b'"compacted","payload":{"message":"m","replacement_history":' + b"[" * 126 + b"]" * 126 + b"}}"
    ),
    "a number that is none": with_line(b'"turn_context","payload":{"n":NaN}}'),
}

#: Codex glues its next record to it (up to 0.144), or loses only what is torn.
TORN: Mapping[str, Spoil] = {
    "half of the last record": lambda good: good[:-30],
    "the first bytes of a record": lambda good: good + NOW[:20],
    "the last newline is missing": lambda good: good[:-1],
    "NULs at the end": lambda good: good + bytes(4096),
}

#: Codex reads all of these as if nothing were wrong.
ACCEPTED: Mapping[str, Spoil] = {
    "CRLF": lambda good: good.replace(b"\n", b"\r\n"),
    "blank lines": lambda good: good.replace(b"\n", b"\n\n\r\n"),
    "an unknown record type": with_line(b'"a_record_of_the_future","payload":{"n":1}}'),
    "an unknown event": with_line(b'"event_msg","payload":{"type":"an_event_of_the_future"}}'),
    "integers beyond 64 bits": with_line(b'"event_msg","payload":{"type":"token_count","n":' + BIG + b"}}"),
    "integers beyond 64 bits in the first line": first_line_with(b'"n":-' + BIG),
    "a pair of surrogates": with_line(b'"event_msg","payload":{"type":"agent_message","message":"\\ud83d\\ude00"}}'),
    "an event nested 2,000 deep": with_line(b'"event_msg","payload":{"type":"note","x":' + DEEP + b"}}"),
    "nothing but the first line": lambda good: good.split(b"\n", 1)[0] + b"\n",
}


@pytest.fixture
def no_codex(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No trial resume: what a Codex says of such rollouts is the part of tests/real_codex."""
    monkeypatch.setenv("PATH", str(user))


pytestmark = pytest.mark.usefixtures("no_codex")


def spoiled(folder: Path, spoil: Spoil, goal: str | None) -> TroubledHome:
    return make_troubled_home(folder, spoil(healthy_bytes(folder)), goal=goal)


def ran(home: TroubledHome, *words: str) -> Answer:
    """A run, after which nothing has happened to any rollout, and the sound thread has its checkpoint."""
    before = home.digests()
    answer = home.call("run", *words)
    assert home.digests() == before
    home.checkpoint_of(SOUND, answer)
    assert answer.findings(SOUND) == {}
    return answer


def finished(home: TroubledHome, goals: dict[str, dict[str, object]]) -> None:
    """The update comes and goes: `finish` has nothing to say, and every goal is as it was before the run."""
    before = home.digests()
    answer = home.call("finish")
    assert (answer.code, answer.findings()) == (0, {})
    assert home.goals() == goals
    assert home.digests() == before


# ---- what Codex cannot open either -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REFUSED)
def test_a_goal_thread_that_codex_cannot_open_blocks_and_nothing_stays_paused(tmp_path: Path, kind: str) -> None:
    home = spoiled(tmp_path, REFUSED[kind], "active")
    goals = home.goals()

    looked = home.call("check")
    assert looked.code == 10
    assert looked.findings(PATIENT)["rollout-damaged"]["severity"] == "block"
    assert looked.findings(PATIENT)["rollout-damaged"]["path"] == str(home.rollouts[PATIENT])

    answer = ran(home)
    assert (answer.code, answer.verdict) == (12, "block")
    assert answer.findings().keys() == {"rollout-damaged", "checkpoint-failed"}
    assert all(finding["thread_id"] == PATIENT and finding["remedy"] for finding in answer.envelope["findings"])
    assert home.goals() == goals


@pytest.mark.parametrize("kind", REFUSED)
def test_a_thread_without_a_goal_that_codex_cannot_open_keeps_nobody_from_updating(tmp_path: Path, kind: str) -> None:
    """What Codex cannot open today, an update does not make worse: only asked for by name is it a matter."""
    home = spoiled(tmp_path, REFUSED[kind], None)
    goals = home.goals()
    looked = home.call("check")
    assert (looked.code, looked.findings(PATIENT)) == (3, {})

    answer = ran(home)
    assert (answer.code, answer.findings()) == (0, {})
    finished(home, goals)

    answer = ran(home, "--thread", PATIENT)
    assert answer.code == 12
    told = answer.findings(PATIENT)
    assert (told["rollout-damaged"]["severity"], told["checkpoint-failed"]["severity"]) == ("warn", "block")
    assert home.goals() == goals


@pytest.mark.parametrize("kind", ["empty", "nothing but NULs"])
def test_a_large_thread_that_codex_cannot_open_is_told_of_without_being_asked_for(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFLIGHT_THRESHOLDS_WARNING", "0 B")
    home = spoiled(tmp_path, REFUSED[kind], None)
    looked = home.call("check")
    assert looked.code == 3
    assert looked.findings(PATIENT)["rollout-damaged"]["severity"] == "warn"


# ---- another thread's ---------------------------------------------------------------------------------------


def of_another_thread(good: bytes) -> bytes:
    return good.replace(PATIENT.encode(), PATIENT[:-2].encode() + b"ff", 1)


def test_a_goal_threads_rollout_with_another_id_in_it_blocks(tmp_path: Path) -> None:
    home = spoiled(tmp_path, of_another_thread, "active")
    goals = home.goals()
    assert home.call("check").findings(PATIENT)["rollout-of-another-thread"]["severity"] == "block"
    answer = ran(home)
    assert answer.code == 12
    assert answer.findings().keys() == {"rollout-of-another-thread", "checkpoint-unverified"}
    assert answer.findings()["rollout-of-another-thread"]["expected"] == PATIENT
    assert home.goals() == goals


def test_another_id_in_the_rollout_of_a_thread_without_a_goal_is_met_when_its_checkpoint_is_read_back(
    tmp_path: Path,
) -> None:
    home = spoiled(tmp_path, of_another_thread, None)
    assert ran(home).code == 0
    answer = ran(home, "--thread", PATIENT)
    assert answer.code == 12
    assert answer.findings().keys() == {"checkpoint-unverified"}


# ---- what Codex skips ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("goal", ["active", None])
@pytest.mark.parametrize("kind", DAMAGED)
def test_lines_that_codex_skips_are_counted_and_copied_as_they_are(tmp_path: Path, kind: str, goal: str | None) -> None:
    home = spoiled(tmp_path, DAMAGED[kind], goal)
    goals = home.goals()
    answer = ran(home, *(() if goal else ("--thread", PATIENT)))
    assert (answer.code, answer.findings().keys()) == (3, {"damaged-lines"})
    (finding,) = answer.envelope["findings"]
    assert (finding["thread_id"], finding["measured"], finding["expected"]) == (PATIENT, 1, 0)
    assert all(row["status"] == "paused" for row in home.goals().values())

    original = home.rollouts[PATIENT].read_bytes()
    copy = home.checkpoint_of(PATIENT, answer).read_bytes()
    assert model_view(copy) == model_view(original)
    assert original.endswith(copy[-400:])
    finished(home, goals)


@pytest.mark.parametrize("kind", DAMAGED)
def test_check_tells_of_damage_where_it_would_choose_the_history(tmp_path: Path, kind: str) -> None:
    looked = spoiled(tmp_path, DAMAGED[kind], "paused").call("check")
    assert looked.code == 3
    if kind == "bytes that are not UTF-8":
        assert looked.findings(PATIENT) == {}  # in an event of no interest, which is not read
    else:
        assert looked.findings(PATIENT).keys() == {"damaged-lines"}


def test_damage_before_the_boundary_costs_nothing_and_is_not_in_the_checkpoint(tmp_path: Path) -> None:
    home = spoiled(tmp_path, lambda good: good.replace(b"\n", b"\n" + bytes(300) + b"\n", 1), "active")
    answer = ran(home)
    assert (answer.code, answer.findings()) == (0, {})
    copy = home.checkpoint_of(PATIENT, answer).read_bytes()
    assert b"\0" not in copy
    assert model_view(copy) == model_view(home.rollouts[PATIENT].read_bytes())


@pytest.mark.parametrize(
    "base",
    [
        b'{"message":"m","replacement_history":["\\ud800"]}',
        b'{"message":"m","replacement_history":[' + b"[" * 500 + b"]" * 500 + b"]}",
        b'{"message":"m","replacement_history":[' + DEEP + b"]}",
        b'{"message":"m","replacement_history":["\xff"]}',
        b'{"message":"m","replacement_history":[NaN]}',
    ],
    ids=["a lone surrogate", "500 deep", "2,000 deep", "not UTF-8", "not a number"],
)
def test_a_compaction_that_codex_cannot_read_is_not_where_the_history_begins(tmp_path: Path, base: bytes) -> None:
    """A resume rollout that began there would have lost everything since the compaction before it."""

    def patient(writer: RolloutWriter) -> None:
        writer.turn("What was said before the compaction that cannot be read.", outputs=[300])
        writer.turn("This is its turn.", outputs=[300], end="open")
        writer.raw(NOW + b'"compacted","payload":' + base + b"}\n")
        writer.event("task_complete", turn_id=None)
        for _ in range(3):
            writer.turn("And on.", outputs=[300])

    home = make_troubled_home(tmp_path, patient)
    answer = ran(home)
    assert (answer.code, answer.findings().keys()) == (3, {"damaged-lines"})
    copy = home.checkpoint_of(PATIENT, answer).read_bytes()
    assert b"What was said before" in copy
    assert model_view(copy) == model_view(home.rollouts[PATIENT].read_bytes())


# ---- what is torn --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("goal", ["active", "paused", None])
@pytest.mark.parametrize("kind", TORN)
def test_a_torn_last_line_is_told_and_left_out_of_the_checkpoint(tmp_path: Path, kind: str, goal: str | None) -> None:
    home = spoiled(tmp_path, TORN[kind], goal)
    goals = home.goals()
    data = home.rollouts[PATIENT].read_bytes()
    whole = data[: data.rindex(b"\n") + 1]
    if goal:
        assert "torn-last-line" in home.call("check").findings(PATIENT)
    answer = ran(home, *(() if goal else ("--thread", PATIENT)))
    assert (answer.code, answer.findings().keys()) == (3, {"torn-last-line"})
    assert answer.findings()["torn-last-line"]["measured"] == len(data) - len(whole)

    copy = home.checkpoint_of(PATIENT, answer).read_bytes()
    assert model_view(copy) == model_view(whole)
    assert whole.endswith(copy[-400:])
    finished(home, goals)


# ---- what only looks strange --------------------------------------------------------------------------------


@pytest.mark.parametrize("goal", ["active", None])
@pytest.mark.parametrize("kind", ACCEPTED)
def test_what_codex_accepts_is_no_finding_and_is_copied_byte_for_byte(
    tmp_path: Path, kind: str, goal: str | None
) -> None:
    home = spoiled(tmp_path, ACCEPTED[kind], goal)
    goals = home.goals()
    answer = ran(home, *(() if goal else ("--thread", PATIENT)))
    told = answer.findings()
    if kind == "an event nested 2,000 deep":
        # Codex skips it. Whether we notice depends on the interpreter's own limit, and changes nothing.
        assert told.keys() <= {"damaged-lines"}
    else:
        assert (answer.code, told) == (0, {})
    original = home.rollouts[PATIENT].read_bytes()
    copy = home.checkpoint_of(PATIENT, answer).read_bytes()
    assert model_view(copy) == model_view(original)
    assert original.endswith(copy[-400:])
    finished(home, goals)


# ---- several at once ----------------------------------------------------------------------------------------


def test_an_objective_never_leaves_through_a_report_of_damage(tmp_path: Path) -> None:
    for number, spoil in enumerate((*REFUSED.values(), of_another_thread, *DAMAGED.values(), *TORN.values())):
        home = spoiled(tmp_path / str(number), spoil, "active")
        answer = home.call("run")
        assert OBJECTIVE not in str(answer.envelope)
        assert "Please look around" not in str(answer.envelope)


def test_a_paginated_rollout_is_no_different(tmp_path: Path) -> None:
    for number, (spoil, code) in enumerate(
        [
            (REFUSED["a byte order mark"], 12),
            (REFUSED["empty"], 12),
            (DAMAGED["a block of NULs"], 3),
            (TORN["half of the last record"], 3),
            (ACCEPTED["CRLF"], 0),
        ]
    ):
        folder = tmp_path / str(number)
        home = make_troubled_home(folder, spoil(healthy_bytes(folder, paginated=True)), paginated=True)
        goals = home.goals()
        answer = ran(home)
        assert answer.code == code
        assert (home.goals() == goals) is (code == 12)
