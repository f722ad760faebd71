"""Whoever made the checkpoint and whatever was pruned around it: what it holds of a thread comes back, in every way."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from preflight import nightly
from preflight.codex import boundary
from preflight.codex.history import history_of_original, of_all_records
from preflight.codex.home import find_homes
from preflight.codex.threads import find_threads
from preflight.errors import Unverified, UsageProblem
from preflight.model import History
from preflight.system.deadline import Deadline
from tests.fixtures_codex import CodexHome, thread_id
from tests.nights import Nights, nights_in
from tests.restoring import Bench, digest, visible


def model_history(home: Path, thread: str) -> History:
    """What the model would be shown of the thread, by digests."""
    (found,), _ = find_homes([home], {}, home.parent)
    (one,) = [each for each in find_threads(found, Deadline(None)).threads if each.thread_id == thread]
    with boundary.opened(one.lineage) as opened:
        return history_of_original(opened, boundary.read_tail(opened)) or of_all_records(opened)


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return nights_in(tmp_path)


def test_every_night_that_is_kept_comes_back_whole_and_to_be_resumed(nights: Nights, tmp_path: Path) -> None:
    """Nights of a growing thread that was rewritten once, so that the archive has two generations of it."""
    rollout, thread = nights.sample.large_rollout, nights.sample.large_thread_id
    place = rollout.relative_to(nights.sample.path)
    then: dict[str, tuple[str, History]] = {}
    for night in range(7):
        if night == 4:
            rollout.write_bytes(rollout.read_bytes().replace(b"Please look around.", b"Please look at it .", 1))
        nights.grow(by=50)
        nights.checkpoint()
        then[nights.store.checkpoints()[-1]] = (digest(rollout), model_history(nights.sample.path, thread))
    nights.prune(keep_last=2)
    kept = [one for one in nights.store.checkpoints() if one in then]
    assert 1 < len(kept) < len(then)
    bench = Bench(nights.sample.path, nights.root)
    for checkpoint_id in kept:
        whole, history = then[checkpoint_id]
        for full in (True, False):
            new = tmp_path / f"{checkpoint_id}-{full}"
            bench.restore(thread, full=full, to=new, checkpoint=checkpoint_id)
            bench.restore(thread, full=full, checkpoint=checkpoint_id)
            for home in (new, nights.sample.path):
                assert model_history(home, thread) == history
                if full:
                    assert digest(home / place) == whole
    gone = next(one for one in then if one not in kept)
    with pytest.raises(UsageProblem, match="there is no checkpoint"):
        bench.restore(thread, checkpoint=gone)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("where", ["in place", "new home"])
@pytest.mark.parametrize("made_by", ["run", "checkpoint"])
@pytest.mark.parametrize("kind", ["plain", "fork", "revert"])
def test_made_by_the_gate_or_by_a_night_alone_or_a_whole_lineage(
    tmp_path: Path, kind: str, made_by: str, where: str, full: bool
) -> None:
    codex = CodexHome(tmp_path / "home")
    bench, wanted = Bench(codex.path), thread_id(2) if kind == "fork" else thread_id(1)
    base = codex.thread(1, size=40_000, ordinal=0)
    head = base
    if kind == "fork":
        head = codex.thread(2, stamp="2026-11-23T09-00-00", base=(thread_id(1), 2, 40_000), size=30_000)
    elif kind == "revert":
        head = codex.rollout(1, stamp="2026-11-23T09-00-00", segment=9, base=(thread_id(1), 2, 40_000), size=30_000)
        codex.execute("state_5.sqlite", ("UPDATE threads SET rollout_path = ?", (str(head),)))
    before = visible(codex.path)
    if made_by == "run":
        bench.checkpoint(wanted, archive="always")
    else:
        nightly.checkpoint(bench.request(threads=(wanted,)))
    history = model_history(codex.path, wanted)
    new = tmp_path / "new" if where == "new home" else None
    if new is None:
        head.write_bytes(head.read_bytes()[:25_000] + b"\n")
    else:
        shutil.rmtree(codex.path)

    bench.restore(wanted, full=full, to=new, homes=() if new is not None else (codex.path,))

    home = new or codex.path
    assert model_history(home, wanted) == history
    if full:
        assert {name: before[name] for name in visible(home)} == visible(home)
        assert head.name in visible(home)


def damaged_archive(nights: Nights, *, frames: int) -> tuple[str, str]:
    """An archive of so many frames, of which the second one is damaged; the newest checkpoint, and its thread."""
    from preflight.checkpoint.archive import Archive

    rollout, thread = nights.sample.large_rollout, nights.sample.large_thread_id
    for _ in range(frames):
        nights.checkpoint()
        nights.grow(by=20_000)
    nights.checkpoint()
    folder = nights.store.archive / thread
    state = Archive(folder).state(rollout.name)
    assert state is not None
    assert len(state.frames) > 1
    frame = state.frames[-1]
    path = folder / f"{rollout.name}.zst"
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(frame.stored_offset + frame.stored_length // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 0xFF]))
    return nights.store.checkpoints()[-1], thread


def test_damage_says_which_thread_and_bytes_and_what_is_whole_and_the_way_round_it_works(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    from preflight.checkpoint import zstd_frames

    monkeypatch.setattr(zstd_frames, "PLAIN", replace(zstd_frames.PLAIN, gather_bytes=0))
    checkpoint_id, thread = damaged_archive(nights, frames=1)
    bench, before = Bench(nights.sample.path, nights.root), visible(nights.sample.path)
    with pytest.raises(Unverified) as told:
        bench.restore(thread, full=True)
    message = told.value.message
    assert thread in message
    assert "is damaged" in message
    assert "; whole are bytes 0 to " in message
    assert told.value.hint == f"preflight restore {checkpoint_id} {thread} --resume --in-place"
    assert visible(nights.sample.path) == before
    bench.restore(thread, checkpoint=checkpoint_id)


def test_a_checkpoint_without_all_of_the_thread_names_one_that_has_it(nights: Nights) -> None:
    thread = nights.sample.large_thread_id
    nights.checkpoint()
    (whole,) = nights.store.checkpoints()
    nights.grow()
    nights.run(archive="never", pause=False)
    bench = Bench(nights.sample.path, nights.root)
    with pytest.raises(UsageProblem, match=f"all of it is in {whole}") as told:
        bench.restore(thread, full=True)
    assert told.value.hint == f"preflight restore {whole} {thread} --full --in-place"


def test_a_newer_checkpoint_that_cannot_be_read_is_told_when_latest_passes_over_it(nights: Nights) -> None:
    thread = nights.sample.large_thread_id
    for _ in range(2):
        nights.checkpoint()
        nights.grow()
    older, newest = nights.store.checkpoints()
    manifest = nights.store.checkpoint_folder(newest) / "manifest.json"
    manifest.chmod(0o600)
    manifest.write_bytes(manifest.read_bytes()[:500])
    told = Bench(nights.sample.path, nights.root).restore(thread, dry_run=True)
    assert told.data["checkpoint_id"] == older
    assert [finding.finding_id for finding in told.findings][:1] == ["checkpoint-damaged"]
    assert newest in told.findings[0].cause


@pytest.mark.parametrize("full", [True, False])
def test_a_thread_that_is_in_the_archive_alone(tmp_path: Path, full: bool) -> None:
    """A large one without a compaction: all of it is what Codex needs to go on with it."""
    codex = CodexHome(tmp_path / "home")
    bench, rollout = Bench(codex.path), codex.thread(1, size=40_000)
    before = rollout.read_bytes()
    settings = replace(bench.request().settings, warning_bytes=20_000)
    nightly.checkpoint(bench.request(settings=settings, threads=(thread_id(1),)))
    manifest = bench.store.latest()
    assert manifest is not None
    assert manifest.threads[0].file is None
    rollout.write_bytes(before[:30_000])
    for new in (None, tmp_path / "new"):
        told = bench.restore(thread_id(1), full=full, to=new)
        (file,) = told.data["files"]  # type: ignore[misc]
        assert Path(file["path"]).read_bytes() == before
    (archive,) = bench.store.folder.glob("archive/*/*.zst")
    archive.chmod(0o600)
    archive.write_bytes(archive.read_bytes()[:-20])
    with pytest.raises(Unverified, match="; none of the 40,000 bytes is whole") as damaged:
        bench.restore(thread_id(1), full=full)
    assert damaged.value.hint == "preflight list"
    assert rollout.read_bytes() == before
