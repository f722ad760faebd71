"""A first archive that does not fit into one night is done in several: each goes on where the one before was ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from preflight.system.deadline import Deadline
from tests.nights import Nights, found, nights_in, outcome


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return nights_in(tmp_path, large_bytes=24_000_000)


def short_night(nights: Nights, monkeypatch: pytest.MonkeyPatch):
    """The time limit comes as soon as anything has been archived."""
    over = False

    def moved(what: str, done: int, _total: int) -> None:
        nonlocal over
        over = over or (what.startswith("archiv") and done > 0)

    with monkeypatch.context() as patched:
        patched.setattr(Deadline, "remaining", lambda _: 0.0 if over else 1e9)
        return nights.night(moved=moved)


def archived_bytes(nights: Nights) -> int:
    (source,) = nights.store.latest().threads[0].sources
    return 0 if source.archive is None else source.archive.raw_length


def test_it_is_finished_over_several_nights(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    for _ in range(50):
        result = short_night(nights, monkeypatch)
        # Whatever could not be archived yet, the thread can be resumed from this night on.
        assert (result.exit_code, outcome(result)) == (0, "made")
        assert result.data["verification"][0]["digests"]["outcome"] == "passed"
        lengths.append(archived_bytes(nights))
        if not found(result, "archive-incomplete"):
            break
    assert len(lengths) > 1
    assert lengths == sorted(set(lengths))
    assert lengths[-1] == nights.sample.large_rollout.stat().st_size
    assert nights.store.latest().threads[0].has_everything
    assert outcome(nights.night()) == "unchanged"
