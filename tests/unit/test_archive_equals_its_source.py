"""Whatever happens to a rollout, its archive gives back each state that was archived, byte for byte."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preflight.checkpoint.archive import Appended, Archive, Proof
from tests.archives import NAME, append, archive_file, lines, restored, small_frames, unpacked

EVENTS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 9000)),
    st.tuples(st.just("cut"), st.integers(0, 100)),
    st.tuples(st.just("rewrite"), st.integers(1, 12_000)),
    st.tuples(st.just("change a byte"), st.integers(0, 100)),
    st.tuples(st.just("copy"), st.just(0)),
)
NIGHTS = st.lists(st.tuples(EVENTS, st.sampled_from([Proof.FULL, Proof.FULL, Proof.SAMPLED, Proof.TAIL])), max_size=9)


def happen(rollout: Path, event: str, number: int, seed: int) -> None:
    data = rollout.read_bytes()
    if event == "add":
        data += lines(number, seed)
    elif event == "cut":
        data = data[: data.rfind(b"\n", 0, len(data) * number // 100) + 1]
    elif event == "rewrite":
        data = lines(number, seed)
    elif event == "change a byte" and data:
        place = min(len(data) * number // 100, len(data) - 2)
        data = data[:place] + b"#" + data[place + 1 :]
    if event == "copy":
        rollout.unlink()
    rollout.write_bytes(data)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nights=NIGHTS)
def test_whatever_happens(monkeypatch: pytest.MonkeyPatch, nights: list[tuple[tuple[str, int], Proof]]) -> None:
    small_frames(monkeypatch)
    with tempfile.TemporaryDirectory() as place:
        rollout, folder = Path(place) / NAME, Path(place) / "thread"
        rollout.write_bytes(lines(5000, seed=1))
        archive = Archive(folder)
        kept: list[tuple[Appended, bytes]] = []
        for seed, ((event, number), proof) in enumerate(nights):
            happen(rollout, event, number, seed)
            # Only the full proof finds every change in the middle; the others are right where none was made.
            done = append(archive, rollout, Proof.FULL if event == "change a byte" else proof)
            assert done.complete
            assert done.raw_bytes == rollout.stat().st_size
            if not done.raw_bytes:
                continue
            if proof is Proof.FULL or event == "change a byte":
                assert restored(archive, done) == rollout.read_bytes()
            kept.append((done, restored(archive, done)))
            assert unpacked(archive_file(folder, done.generation)) == kept[-1][1]
        for done, data in kept:
            assert restored(archive, done) == data
            archive.require(done.reference)
