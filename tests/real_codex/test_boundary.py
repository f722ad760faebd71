"""From a resume rollout the real Codex asks the model exactly what it asks from the whole thread.

Each thread is made by the release itself, grown to megabytes in front of its last compaction where it is one file,
and then resumed twice: as it is, and from nothing but its resume rollout in an otherwise empty home.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from preflight.codex.boundary import GAP_LIMIT
from tests.real_codex.codex_release import PINNED, CodexRelease
from tests.real_codex.conftest import Codex, KeptThread, Shelf
from tests.real_codex.homes import CodexHome
from tests.real_codex.inflate import inflate
from tests.real_codex.next_request import ids_in, next_input
from tests.real_codex.resume_cut import Cut, cut, stand_alone
from tests.real_codex.threads import KINDS

pytestmark = [pytest.mark.real_codex, pytest.mark.slow]

GROWN = 3_000_000
MADE = [
    (version, kind.name)
    for version in PINNED
    for kind in KINDS.values()
    if kind.can_be_made_by(CodexRelease(version, Path()))
]


def grow(home: CodexHome, kept: KeptThread) -> None:
    """Megabytes in front of the last compaction, where that is in the thread's only file."""
    (*_, head) = rollouts = home.rollouts(kept.thread_id)
    alone = len(rollouts) == 1 and b'"history_base"' not in head.read_bytes()
    if alone and kept.kind.boundary:
        inflate(head, GROWN)
        home.forget_projection()


def both_inputs(
    runtime: CodexRelease, home: CodexHome, kept: KeptThread, gap_limit: int = GAP_LIMIT
) -> tuple[list[object], list[object], Cut]:
    """What the model is asked after a resume of the whole thread, and of its resume rollout."""
    known = ids_in(home.path.glob("sessions/*/*/*/*.jsonl"))
    grow(home, kept)
    made = cut(home, kept.thread_id, gap_limit)
    whole = next_input(runtime, home, kept.thread_id, known, kept.kind.provider)
    stand_alone(home, made)
    return whole, next_input(runtime, home, kept.thread_id, known, kept.kind.provider), made


def check_size(kept: KeptThread, made: Cut) -> None:
    """No boundary only where we say so; then nothing is left out. With one, most of a grown file is."""
    assert made.whole is not kept.kind.boundary
    if made.whole and made.files == 1:
        assert len(made.data) == made.lineage_bytes
    elif made.lineage_bytes > GROWN:
        assert len(made.data) < made.lineage_bytes / 2


@pytest.mark.parametrize(("version", "kind"), MADE)
def test_the_next_request_is_the_same(version: str, kind: str, shelf: Shelf, home: CodexHome) -> None:
    kept = shelf.put_back(home, version, kind)
    whole, resumed, made = both_inputs(kept.release, home, kept)
    check_size(kept, made)
    assert resumed == whole


@pytest.mark.parametrize("runtime", ["0.169.0"])
@pytest.mark.parametrize(("version", "kind"), [made for made in MADE if made[0] in ("0.134.0", "0.147.0")])
def test_the_next_request_is_the_same_after_an_update(
    version: str, kind: str, runtime: str, codex: Codex, shelf: Shelf, home: CodexHome
) -> None:
    kept = shelf.put_back(home, version, kind)
    whole, resumed, made = both_inputs(codex(runtime), home, kept)
    check_size(kept, made)
    assert resumed == whole


@pytest.mark.parametrize("kind", ["compacted-at-the-end", "goal-loop"])
@pytest.mark.parametrize("version", PINNED)
def test_the_settings_of_a_far_older_turn_come_along_alone(
    version: str, kind: str, shelf: Shelf, home: CodexHome
) -> None:
    """As if megabytes lay between that turn and the compaction: only its own lines are kept of what is older."""
    kept = shelf.put_back(home, version, kind)
    whole, resumed, made = both_inputs(kept.release, home, kept, gap_limit=0)
    check_size(kept, made)
    assert made.settings_apart
    assert resumed == whole


def test_the_comparison_sees_a_cut_at_the_wrong_line(shelf: Shelf, home: CodexHome) -> None:
    """From the `compacted` line itself 0.134 repeats its context: the control of all of the above."""
    kept = shelf.put_back(home, "0.134.0", "compacted-automatically")
    made = cut(home, kept.thread_id)
    lines = made.path.read_bytes().splitlines(keepends=True)
    at = max(number for number, line in enumerate(lines) if b'"type":"compacted"' in line)
    known = ids_in([made.path])
    whole = next_input(kept.release, home, kept.thread_id, known)
    stand_alone(home, replace(made, data=b"".join([lines[0], *lines[at:]])))
    assert next_input(kept.release, home, kept.thread_id, known) != whole
