"""Codex's releases have an order, and each does with a home what was seen of it; the unknown one does the worst."""

from __future__ import annotations

import random

import pytest

from preflight.codex.runtime import (
    RuntimeVersion,
    drops_goals,
    has_writer_lock,
    reads_paginated,
    resume_cost,
    resume_reactivates_paused,
)
from preflight.model import Answer, HistoryMode

IN_ORDER = (
    "0.128.0",
    "0.133.0-alpha.1",
    "0.134.0",
    "0.147.0",
    "0.150.0-alpha.8",
    "0.150.0-alpha.10",
    "0.150.0",
    "0.150.1",
    "0.154.0-alpha.6",
    "0.154.0-alpha.6.2",
    "0.154.0-beta.1",
    "0.154.0",
    "0.169.0",
    "1.0.0",
)


def version(text: str) -> RuntimeVersion:
    parsed = RuntimeVersion.parse(text)
    assert parsed is not None
    return parsed


def test_an_alpha_is_older_than_its_release_and_numbers_count_as_numbers() -> None:
    shuffled = random.Random(1).sample(IN_ORDER, len(IN_ORDER))
    assert [str(v) for v in sorted(map(version, shuffled))] == list(IN_ORDER)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("codex-cli 0.128.0\n", "0.128.0"),
        ("codex_vscode/0.169.0 (Debian 12.0.0; x86_64) xterm", "0.169.0"),
        ("0.169.0-linux-x64", "0.169.0"),
        ("0.150.0-alpha.8-darwin-arm64", "0.150.0-alpha.8"),
        ("v0.150.0-alpha.8", "0.150.0-alpha.8"),
    ],
)
def test_a_version_is_found_where_codex_writes_it(text: str, expected: str) -> None:
    assert str(version(text)) == expected


@pytest.mark.parametrize("text", [None, "", "codex", "0.128", "unknown"])
def test_a_text_without_a_version_has_none(text: str | None) -> None:
    assert RuntimeVersion.parse(text) is None


def test_capabilities_begin_with_the_first_release_that_was_seen_to_have_them() -> None:
    assert [has_writer_lock(version(v)) for v in ("0.144.6", "0.147.0-alpha.1", "0.147.0")] == [False, False, True]
    assert [reads_paginated(version(v)) for v in ("0.150.1", "0.154.0")] == [False, True]
    assert [resume_reactivates_paused(version(v)) for v in ("0.128.0", "0.133.0", "0.134.0")] == [True, True, False]


def test_an_unknown_version_can_nothing_and_is_dangerous() -> None:
    assert not has_writer_lock(None)
    assert not reads_paginated(None)
    assert resume_reactivates_paused(None)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("0.128.0", "0.134.0", Answer.YES),
        ("0.128.0", "0.169.0", Answer.YES),
        ("0.128.0", "0.128.1", Answer.NO),
        ("0.134.0", "0.169.0", Answer.NO),
        ("0.169.0", None, Answer.NO),
        ("0.128.0", "0.133.0-alpha.1", Answer.UNKNOWN),  # between the two that were tried
        ("0.133.0-alpha.1", "0.169.0", Answer.UNKNOWN),
        ("0.128.0", None, Answer.UNKNOWN),
        (None, "0.169.0", Answer.UNKNOWN),
    ],
)
def test_goals_are_dropped_by_the_update_that_moves_them(
    source: str | None, target: str | None, expected: Answer
) -> None:
    assert drops_goals(RuntimeVersion.parse(source), RuntimeVersion.parse(target)) is expected


def test_the_estimate_covers_what_was_measured() -> None:
    """Peak memory of `thread/resume` in MiB, from the reference: 0.134.0, 0.144.6, 0.169.0."""
    mb, mib = 10**6, 2**20
    for size, peak in ((10, 121), (100, 604), (500, 2755), (1000, 5461)):
        assert resume_cost(version("0.134.0"), HistoryMode.LEGACY).of(size * mb) >= peak * mib
    for size, peak in ((100, 254), (1000, 1728), (3000, 5015)):
        assert resume_cost(version("0.144.6"), HistoryMode.LEGACY).of(size * mb) >= peak * mib
    for size, peak in ((10, 129), (1000, 151), (3000, 151)):
        assert resume_cost(version("0.169.0"), HistoryMode.PAGINATED).of(size * mb) >= peak * mib


def test_what_is_not_known_is_estimated_at_its_worst() -> None:
    size = 10**9
    worst = resume_cost(version("0.134.0"), HistoryMode.LEGACY).of(size)
    for mode in HistoryMode:
        assert resume_cost(None, mode).of(size) == worst
    legacy = resume_cost(version("0.169.0"), HistoryMode.LEGACY)
    assert resume_cost(version("0.169.0"), HistoryMode.UNKNOWN) == legacy
    assert resume_cost(version("0.150.1"), HistoryMode.PAGINATED) == legacy  # it reads the whole file
