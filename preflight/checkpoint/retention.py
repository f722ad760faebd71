"""Which checkpoints stay and which may go: a pure function of what there is and what was asked for.

The words are restic's: `keep_last` the newest ones; `keep_daily` and `keep_weekly` the newest one of
each of that many days and ISO weeks (UTC) that have one; `keep_within` everything that is at most so
much older than the newest one. A checkpoint stays when any of them says so. Whatever they say, these stay:

    the newest one, those with a pin, and the newest one that a `run` made (`finish` compares with it)
    those that an interrupted restore is completed from
    the last one made under the runtime version before the present one, and there each thread's last copy
    each thread's newest copy, of its resume rollout and of its archive, when no other one that stays has it

A verified copy counts before one that is not. Nothing here reads a file or a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

__all__ = ["Candidate", "Copied", "Copy", "Decided", "Kept", "Policy", "Reason", "Removed", "decide"]


class Reason(StrEnum):
    """Why a checkpoint stays; as it stands in the report."""

    NEWEST = "the newest one"
    PINNED = "pinned"
    RESTORING = "a restore from it was interrupted, or may have been"
    LAST_RUN = "the last one that a run made"
    LAST = "keep-last"
    DAILY = "keep-daily"
    WEEKLY = "keep-weekly"
    WITHIN = "keep-within"
    VERSION_BEFORE = "the last one of the runtime version before the present one"
    ONLY_COPY = "the only copy of a thread"


class Copied(StrEnum):
    """What a checkpoint has of a thread: a resume rollout in its own folder, or a part of the archive by name."""

    RESUME = "resume"
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True)
class Copy:
    """One thing that a checkpoint has of one thread; `verified` says that it was read back and was right."""

    thread_id: str
    kind: Copied
    verified: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A checkpoint as retention sees it; `made_at` is aware and in UTC, ids sort by time.

    `runtime_version` is the version in use when it was made; None when nobody could tell.
    """

    checkpoint_id: str
    made_at: datetime
    made_by: str = "checkpoint"
    runtime_version: str | None = None
    pinned: bool = False
    being_restored: bool = False
    copies: frozenset[Copy] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How many to keep by each rule; 0 means that the rule keeps none. At least one of them keeps something."""

    keep_last: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_within: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        numbers = (self.keep_last, self.keep_daily, self.keep_weekly)
        if min(numbers) < 0 or self.keep_within < timedelta(0):
            raise ValueError("a number of checkpoints to keep is below zero")
        if not any(numbers) and not self.keep_within:
            raise ValueError("this policy keeps nothing")


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint that stays, and every reason for it."""

    checkpoint_id: str
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Removed:
    """A checkpoint that may go: no rule keeps it. `stays` is the next newer one, which does."""

    checkpoint_id: str
    stays: str


@dataclass(frozen=True, slots=True)
class Decided:
    """What stays and what may go, oldest first; together they are all candidates, each once."""

    kept: tuple[Kept, ...]
    removed: tuple[Removed, ...]


def decide(candidates: Iterable[Candidate], policy: Policy, *, present_version: str | None = None) -> Decided:
    """Say of every candidate whether it stays.

    `present_version` is the runtime version in use now; None takes that of the newest candidate that
    knows one. Candidates may come in any order; their ids must differ.
    """
    newest_first = sorted(candidates, key=lambda one: one.checkpoint_id, reverse=True)
    reasons: dict[str, list[Reason]] = {one.checkpoint_id: [] for one in newest_first}
    if len(reasons) != len(newest_first):
        raise ValueError("a checkpoint is named twice")
    for found, reason in (*_by_rule(newest_first, policy), *_protected(newest_first, present_version)):
        reasons[found.checkpoint_id].append(reason)
    kept = [one for one in newest_first if reasons[one.checkpoint_id]]
    for found in _only_copies(newest_first, kept):
        reasons[found.checkpoint_id].append(Reason.ONLY_COPY)
    stay: list[Kept] = []
    go: list[Removed] = []
    for checkpoint_id in sorted(reasons, reverse=True):  # the newest one always stays
        if why := reasons[checkpoint_id]:
            stay.append(Kept(checkpoint_id, tuple(dict.fromkeys(why))))
        else:
            go.append(Removed(checkpoint_id, stay[-1].checkpoint_id))
    return Decided(kept=tuple(reversed(stay)), removed=tuple(reversed(go)))


def _by_rule(newest_first: Sequence[Candidate], policy: Policy) -> Iterable[tuple[Candidate, Reason]]:
    for one in newest_first[: policy.keep_last]:
        yield one, Reason.LAST
    for one in _newest_of_each(newest_first, lambda c: c.made_at.date(), policy.keep_daily):
        yield one, Reason.DAILY
    for one in _newest_of_each(newest_first, lambda c: c.made_at.isocalendar()[:2], policy.keep_weekly):
        yield one, Reason.WEEKLY
    if newest_first and policy.keep_within:
        oldest = newest_first[0].made_at - policy.keep_within
        for one in newest_first:
            if one.made_at >= oldest:
                yield one, Reason.WITHIN


def _newest_of_each(
    newest_first: Sequence[Candidate], period: Callable[[Candidate], object], count: int
) -> Iterable[Candidate]:
    newest: dict[object, Candidate] = {}
    for one in newest_first:
        newest.setdefault(period(one), one)
    return list(newest.values())[:count]


def _protected(newest_first: Sequence[Candidate], present: str | None) -> Iterable[tuple[Candidate, Reason]]:
    if newest_first:
        yield newest_first[0], Reason.NEWEST
    for one in newest_first:
        if one.pinned:
            yield one, Reason.PINNED
        if one.being_restored:
            yield one, Reason.RESTORING
    for one in [one for one in newest_first if one.made_by == "run"][:1]:
        yield one, Reason.LAST_RUN
    for one in _of_version_before(newest_first, present):
        yield one, Reason.VERSION_BEFORE


def _of_version_before(newest_first: Sequence[Candidate], present: str | None) -> Iterable[Candidate]:
    """The last checkpoint of the version that was in use before, and the last ones that hold its other threads.

    One that was made of a single thread must not be all that is left of that version.
    """
    versions = [one.runtime_version for one in newest_first if one.runtime_version is not None]
    now = present or next(iter(versions), None)
    before = next((version for version in versions if version != now), None)
    if before is None:
        return []
    made_under = [one for one in newest_first if one.runtime_version == before]
    return [made_under[0], *_only_copies(made_under, made_under[:1])]


def _only_copies(newest_first: Sequence[Candidate], kept: Iterable[Candidate]) -> list[Candidate]:
    """The newest holders of what none of `kept` holds; of a thread with a verified copy, the newest verified one."""
    safe: set[tuple[str, Copied]] = set()
    held: set[tuple[str, Copied]] = set()

    def take(one: Candidate) -> None:
        held.update((copy.thread_id, copy.kind) for copy in one.copies)
        safe.update((copy.thread_id, copy.kind) for copy in one.copies if copy.verified)

    for one in kept:
        take(one)
    needed: dict[str, Candidate] = {}
    for one in newest_first:
        if any(copy.verified and (copy.thread_id, copy.kind) not in safe for copy in one.copies):
            needed[one.checkpoint_id] = one
            take(one)
    for one in newest_first:
        if any((copy.thread_id, copy.kind) not in held for copy in one.copies):
            needed[one.checkpoint_id] = one
            take(one)
    return list(needed.values())
