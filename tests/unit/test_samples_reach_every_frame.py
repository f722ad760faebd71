"""A byte that was changed anywhere in what is archived is found by seven sampled proofs, whatever else happens."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preflight.checkpoint.archive import Archive, BeganAnew, Proof
from tests.archives import NAME, add_lines, append, lines, small_frames

#: What a night adds, up to ten frames of it, and how it proves what was there.
NIGHT = st.tuples(st.integers(0, 30_000), st.sampled_from([Proof.SAMPLED, Proof.SAMPLED, Proof.TAIL, Proof.FULL]))
TURNS = 7


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(NIGHT, max_size=10), added=st.lists(NIGHT, min_size=1, max_size=6), place=st.floats(0, 0.999))
def test_within_seven(
    monkeypatch: pytest.MonkeyPatch, before: list[tuple[int, Proof]], added: list[tuple[int, Proof]], place: float
) -> None:
    small_frames(monkeypatch)
    with tempfile.TemporaryDirectory() as folder:
        rollout, archive = Path(folder) / NAME, Archive(Path(folder) / "thread")
        rollout.write_bytes(lines(25_000, seed=0))
        for seed, (size, proof) in enumerate(before):
            append(archive, rollout, proof)
            add_lines(rollout, size, seed)
        done = append(archive, rollout, Proof.TAIL)
        assert not done.rewritten
        change_a_byte(rollout, int(place * (done.raw_bytes - 1)))
        sampled = 0
        for seed in range(100):
            size, proof = added[seed % len(added)]
            proof = Proof.SAMPLED if seed % 3 == 0 else proof
            add_lines(rollout, max(size, 1), seed)
            done = append(archive, rollout, proof)
            sampled += proof is Proof.SAMPLED
            if done.rewritten or sampled == TURNS:
                break
        assert done.began_anew is BeganAnew.REWRITTEN


def test_a_night_adds_as_many_frames_as_there_are_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns are not counted by frames: seven new ones each night would read the same seventh again and again."""
    small_frames(monkeypatch, gather=0)
    rollout, archive = tmp_path / NAME, Archive(tmp_path / "thread")
    rollout.write_bytes(lines(25_000, seed=0))
    done = append(archive, rollout)
    change_a_byte(rollout, 4_000)
    for night in range(TURNS):
        while not done.rewritten and done.frames % TURNS != 3:
            add_lines(rollout, 100, seed=night)
            done = append(archive, rollout, Proof.TAIL)
        add_lines(rollout, 100, seed=night)
        done = append(archive, rollout, Proof.SAMPLED)
        if done.rewritten:
            break
    assert done.began_anew is BeganAnew.REWRITTEN


def change_a_byte(rollout: Path, place: int) -> None:
    with rollout.open("r+b") as file:
        file.seek(place)
        was = file.read(1)
        file.seek(place)
        file.write(b"#" if was != b"#" else b"+")
