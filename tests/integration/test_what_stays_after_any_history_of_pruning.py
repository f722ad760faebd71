"""Whatever was written, rewritten, archived and pruned in whatever order: what a kept checkpoint names is there."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preflight import pruning
from preflight.checkpoint.archive import Archive
from preflight.checkpoint.archiving import archive_of, named_generations
from preflight.config import EVERYTHING, Settings
from tests.nights import Nights, found, nights_in

#: Below the length of every rollout: those without a compaction are in the archive alone.
ARCHIVED_ALONE = Settings(keep_free_bytes=0, warning_bytes=1000, keep_last=2, keep_daily=0, keep_weekly=0)
COPIED = Settings(keep_free_bytes=0, keep_last=2, keep_daily=0, keep_weekly=0, keep_within_seconds=0)


@dataclass
class History:
    """A home and its store, and what each checkpoint was made of: SHA-256 by checkpoint, rollout and length."""

    nights: Nights
    expected: dict[tuple[str, str, int], str] = field(default_factory=dict)

    def rollouts(self) -> list[Path]:
        return [self.nights.sample.large_rollout, self.nights.sample.control_rollout]

    def grow(self, which: int, lines: int) -> None:
        self.nights.grow(self.rollouts()[which], by=lines)

    def cut(self, which: int) -> None:
        path = self.rollouts()[which]
        lines = path.read_bytes().splitlines(keepends=True)
        if len(lines) > 10:
            path.write_bytes(b"".join(lines[:-2]))

    def rewrite(self, which: int) -> None:
        """Codex migrates a rollout: the same name, other bytes from the second line on."""
        path = self.rollouts()[which]
        path.write_bytes(path.read_bytes().replace(b'"timestamp":"2026', b'"timestamp":"2027'))

    def checkpoint(self, kind: str) -> None:
        before = set(self.nights.store.checkpoints())
        if kind == "run":
            self.nights.run()
        elif kind == "night":
            self.nights.night(all_threads=True)
        else:
            self.nights.checkpoint(all_threads=kind == "all")
        for checkpoint_id in set(self.nights.store.checkpoints()) - before:
            for record in self.nights.store.manifest(checkpoint_id).threads:
                for source in record.sources:
                    if source.archive is not None:
                        data = source.path.read_bytes()[: source.archive.raw_length]
                        key = (checkpoint_id, source.path.name, source.archive.raw_length)
                        self.expected[key] = hashlib.sha256(data).hexdigest()

    def prune(self, keep: int) -> None:
        self.nights.prune(keep_last=keep)

    def pin(self, which: int) -> None:
        if ids := self.nights.store.checkpoints():
            pruning.pin(self.nights.request(checkpoint=ids[which % len(ids)]))

    def require_what_stays(self) -> None:
        store = self.nights.store
        named: set[tuple[str, int]] = set()
        for checkpoint_id in store.checkpoints():
            manifest = store.manifest(checkpoint_id)
            named |= named_generations(manifest.threads)
            for record in manifest.threads:
                assert record.has_everything
                for source in record.sources:
                    if (reference := source.archive) is None:
                        continue
                    archive = archive_of(store.archive, reference.file)
                    archive.require(reference)
                    out = BytesIO()
                    archive.read(reference.file, reference.generation, reference.raw_length, out)
                    key = (checkpoint_id, source.path.name, reference.raw_length)
                    assert hashlib.sha256(out.getvalue()).hexdigest() == self.expected[key]
            assert self.nights.verify(checkpoint=checkpoint_id).exit_code == 0
        for folder in store.archive.iterdir() if store.archive.is_dir() else ():
            archive = Archive(folder)
            for name in archive.names():
                *older, _ = archive.generations(name)
                assert {(name, generation) for generation in older} <= named, "a generation that nobody names is left"
        if store.checkpoints():
            result = self.nights.verify(read_part=EVERYTHING)
            assert (result.exit_code, found(result, "store-damaged")) == (0, [])


WHICH = st.integers(0, 1)
STEPS = st.one_of(
    st.tuples(st.just("grow"), WHICH, st.sampled_from([1, 30, 400])),
    st.tuples(st.just("cut"), WHICH),
    st.tuples(st.just("rewrite"), WHICH),
    st.tuples(st.just("checkpoint"), st.sampled_from(["goals", "all", "night", "run"])),
    st.tuples(st.just("checkpoint"), st.sampled_from(["goals", "all", "night", "run"])),
    st.tuples(st.just("pin"), st.integers(0, 5)),
    st.tuples(st.just("prune"), st.integers(1, 2)),
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=3, max_size=12), st.sampled_from([ARCHIVED_ALONE, COPIED]))
def test_every_kept_checkpoint_has_what_it_names(
    steps: list[tuple[str, *tuple[object, ...]]], configured: Settings
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = History(nights_in(Path(folder), large_bytes=60_000))
        history.nights.settings = configured
        for deed, *arguments in steps:
            getattr(history, deed)(*arguments)
            if deed == "prune":
                history.require_what_stays()
        history.checkpoint("all")
        history.prune(1)
        history.require_what_stays()
