"""Retention: restic's words keep what they say, and nothing that may be needed goes, whatever they say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight.checkpoint.retention import Candidate, Copied, Copy, Decided, Policy, Reason, decide

FIRST = datetime(2026, 11, 1, 3, 10, tzinfo=UTC)
A, B = Copy("a", Copied.RESUME), Copy("b", Copied.RESUME)


def made(day: float, *copies: Copy, by: str = "checkpoint", version: str | None = None, pinned: bool = False):
    moment = FIRST + timedelta(days=day)
    return Candidate(
        checkpoint_id=f"{moment:%Y%m%dT%H%M%SZ}-0a1b2c",
        made_at=moment,
        made_by=by,
        runtime_version=version,
        pinned=pinned,
        copies=frozenset(copies),
    )


def days(decided: Decided) -> list[int]:
    """The days, from 0 on, of what stays."""
    moments = [datetime.strptime(one.checkpoint_id[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC) for one in decided.kept]
    return [(moment - FIRST).days for moment in moments]


def reasons(decided: Decided, day: int) -> set[Reason]:
    return {reason for one, at in zip(decided.kept, days(decided), strict=True) if at == day for reason in one.reasons}


NIGHTS = [made(day, A) for day in range(40)]


def test_the_newest_ones() -> None:
    assert days(decide(NIGHTS, Policy(keep_last=3))) == [37, 38, 39]


def test_the_newest_one_of_each_day_that_has_one() -> None:
    twice_a_day = [made(day / 2, A) for day in range(20)]
    assert days(decide(twice_a_day, Policy(keep_daily=3))) == [7, 8, 9]
    assert len(decide(twice_a_day, Policy(keep_daily=3)).kept) == 3
    with_gaps = [made(0, A), made(5, A), made(20, A)]
    assert days(decide(with_gaps, Policy(keep_daily=2))) == [5, 20]


def test_the_newest_one_of_each_week() -> None:
    # 1 November 2026 is a Sunday: days 0, 7, 14 ... end a week.
    assert days(decide(NIGHTS, Policy(keep_weekly=3))) == [28, 35, 39]


def test_what_is_not_much_older_than_the_newest_one() -> None:
    assert days(decide(NIGHTS, Policy(keep_within=timedelta(days=4)))) == [35, 36, 37, 38, 39]


def test_one_rule_is_enough_to_stay_and_each_is_told() -> None:
    decided = decide(NIGHTS, Policy(keep_last=1, keep_daily=2, keep_weekly=2))
    assert days(decided) == [35, 38, 39]
    assert reasons(decided, 39) == {Reason.LAST, Reason.DAILY, Reason.WEEKLY, Reason.NEWEST}
    assert reasons(decided, 35) == {Reason.WEEKLY}


def test_what_goes_names_the_next_one_that_stays() -> None:
    decided = decide([made(0, A), made(1, A, pinned=True), made(2, A), made(3, A)], Policy(keep_last=1))
    assert [(one.checkpoint_id[:8], one.stays[:8]) for one in decided.removed] == [
        ("20261101", "20261102"),
        ("20261103", "20261104"),
    ]


def test_a_pin_and_the_last_run_stay() -> None:
    decided = decide(
        [made(0, A, pinned=True), made(1, A, by="run"), made(2, A, by="run"), *NIGHTS[3:]], Policy(keep_last=1)
    )
    assert days(decided) == [0, 2, 39]
    assert reasons(decided, 0) == {Reason.PINNED}
    assert reasons(decided, 2) == {Reason.LAST_RUN}


def test_the_only_copy_of_a_thread_stays_and_the_newest_of_them_is_enough() -> None:
    decided = decide([made(0, A, B), made(1, A, B), made(2, A), made(3, A)], Policy(keep_last=1))
    assert days(decided) == [1, 3]
    assert reasons(decided, 1) == {Reason.ONLY_COPY}


def test_an_archive_is_another_copy_than_a_resume_rollout() -> None:
    archived = Copy("a", Copied.ARCHIVE)
    assert days(decide([made(0, A, archived), made(1, A), made(2, A)], Policy(keep_last=1))) == [0, 2]
    assert days(decide([made(0, A, archived), made(1, A), made(2, A, archived)], Policy(keep_last=1))) == [2]


def test_a_copy_that_did_not_read_back_does_not_count_before_one_that_did() -> None:
    damaged = Copy("a", Copied.RESUME, verified=False)
    assert days(decide([made(0, A), made(1, damaged), made(2, damaged)], Policy(keep_last=1))) == [0, 2]
    assert days(decide([made(0, damaged), made(1, damaged), made(2, B)], Policy(keep_last=1))) == [1, 2]


def test_the_last_one_under_the_runtime_version_before_stays() -> None:
    history = [
        *(made(day, A, version="0.134.0") for day in range(3)),
        *(made(day, A, version="0.147.0") for day in range(3, 6)),
        *(made(day, A, version="0.169.0") for day in range(6, 9)),
    ]
    assert days(decide(history, Policy(keep_last=1))) == [5, 8]
    assert reasons(decide(history, Policy(keep_last=1)), 5) == {Reason.VERSION_BEFORE}
    # Just updated: nothing has been made under the present version yet.
    assert days(decide(history, Policy(keep_last=1), present_version="0.170.0")) == [8]
    assert Reason.VERSION_BEFORE in reasons(decide(history, Policy(keep_last=1), present_version="0.170.0"), 8)
    # Nobody could tell the version at night.
    unknown = [*history[:6], *(made(day, A) for day in range(6, 9))]
    assert days(decide(unknown, Policy(keep_last=1), present_version="0.169.0")) == [5, 8]


def test_of_the_version_before_each_thread_has_its_last_copy() -> None:
    history = [made(0, A, B, version="1"), made(1, A, version="1"), made(2, A, B, version="2")]
    assert days(decide(history, Policy(keep_last=1))) == [0, 1, 2]


def test_a_policy_that_keeps_nothing_is_none() -> None:
    with pytest.raises(ValueError, match="keeps nothing"):
        Policy()
    with pytest.raises(ValueError, match="below zero"):
        Policy(keep_last=-1)
    assert decide([], Policy(keep_last=1)) == Decided((), ())


COPIES = st.builds(Copy, st.sampled_from("abcd"), st.sampled_from(Copied), st.booleans())
HISTORIES = st.lists(
    st.tuples(
        st.integers(0, 90 * 24),
        st.sampled_from(["run", "checkpoint"]),
        st.sampled_from([None, "0.134.0", "0.147.0"]),
        st.booleans(),
        st.frozensets(COPIES, max_size=4),
    ),
    max_size=25,
    unique_by=lambda one: one[0],
).map(
    lambda many: [
        made(hour / 24, *copies, by=by, version=version, pinned=pin) for hour, by, version, pin, copies in many
    ]
)
POLICIES = st.builds(
    Policy,
    keep_last=st.integers(1, 3),
    keep_daily=st.integers(0, 3),
    keep_weekly=st.integers(0, 3),
    keep_within=st.integers(0, 72).map(lambda hours: timedelta(hours=hours)),
)


def kept_of(history: list[Candidate], decided: Decided) -> list[Candidate]:
    ids = {one.checkpoint_id for one in decided.kept}
    return [one for one in history if one.checkpoint_id in ids]


@given(HISTORIES, POLICIES)
def test_every_checkpoint_is_decided_once_and_what_stays_has_a_reason(history: list[Candidate], policy: Policy) -> None:
    decided = decide(history, policy)
    told = [one.checkpoint_id for one in decided.kept] + [one.checkpoint_id for one in decided.removed]
    assert sorted(told) == sorted(one.checkpoint_id for one in history)
    assert all(one.reasons for one in decided.kept)


@given(HISTORIES, POLICIES)
def test_no_thread_loses_its_last_copy(history: list[Candidate], policy: Policy) -> None:
    stays = kept_of(history, decide(history, policy))
    for verified in ([True], [True, False]):
        everything = {(c.thread_id, c.kind) for one in history for c in one.copies if c.verified in verified}
        held = {(c.thread_id, c.kind) for one in stays for c in one.copies if c.verified in verified}
        assert held == everything


@given(HISTORIES, POLICIES)
def test_pins_the_newest_one_and_the_last_run_stay(history: list[Candidate], policy: Policy) -> None:
    stays = kept_of(history, decide(history, policy))
    newest = sorted(history, key=lambda one: one.checkpoint_id)
    assert [one for one in history if one.pinned and one not in stays] == []
    assert newest[-1:] == [one for one in newest[-1:] if one in stays]
    runs = [one for one in newest if one.made_by == "run"][-1:]
    assert [one for one in runs if one not in stays] == []


@given(HISTORIES, POLICIES)
def test_deciding_again_removes_nothing_more(history: list[Candidate], policy: Policy) -> None:
    stays = kept_of(history, decide(history, policy, present_version="0.147.0"))
    assert decide(stays, policy, present_version="0.147.0").removed == ()


@given(HISTORIES, st.randoms(), POLICIES)
def test_the_order_in_which_they_come_does_not_matter(history: list[Candidate], random: object, policy: Policy) -> None:
    shuffled = list(history)
    random.shuffle(shuffled)
    assert decide(shuffled, policy) == decide(history, policy)
