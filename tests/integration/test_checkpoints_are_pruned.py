"""`prune`, `pin` and `unpin` on a real store: what goes is gone, what stays reads back."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from preflight import pruning
from preflight.config import EVERYTHING
from preflight.errors import Locked, UsageProblem
from preflight.system.deadline import Deadline
from preflight.system.locks import RunLock
from tests.fixtures_codex import contents
from tests.nights import Nights, found, nights_in


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    nights = nights_in(tmp_path)
    for _ in range(4):
        nights.grow()
        nights.checkpoint()
    return nights


def test_what_no_rule_keeps_is_gone_and_the_rest_reads_back(nights: Nights) -> None:
    before = nights.store.checkpoints()
    result = nights.prune(keep_last=2)
    (told,) = result.data["pruned"]
    assert nights.store.checkpoints() == before[2:]
    assert [one["checkpoint_id"] for one in told["kept"]] == before[2:]
    assert [one["checkpoint_id"] for one in told["removed"]] == before[:2]
    assert all(before[2] in one["reason"] for one in told["removed"])
    assert told["freed_bytes"] > 0
    assert nights.store.unfinished() == []
    assert nights.verify(read_part=EVERYTHING).exit_code == 0


def test_a_dry_run_says_the_same_and_removes_nothing(nights: Nights) -> None:
    for _ in range(2):
        nights.checkpoint()  # nothing has changed: these share their rollout with the one before
    nights.grow()
    nights.checkpoint()
    before = contents(nights.root)
    (would,) = nights.prune(keep_last=1, dry_run=True).data["pruned"]
    assert contents(nights.root) == before
    (did,) = nights.prune(keep_last=1).data["pruned"]
    assert would["removed"] == did["removed"]
    assert would["freed_bytes"] == did["freed_bytes"] > 0


def test_files_that_a_later_checkpoint_shares_stay(nights: Nights) -> None:
    nights.checkpoint()  # nothing has changed: its rollout is the one before it, under a second name
    first, second = nights.store.checkpoints()[-2:]
    nights.prune(keep_last=1)
    assert first not in nights.store.checkpoints()
    assert nights.verify(checkpoint=second).exit_code == 0


def test_a_pinned_checkpoint_stays_until_it_is_unpinned(nights: Nights) -> None:
    oldest = nights.store.checkpoints()[0]
    assert pruning.pin(nights.request(checkpoint=oldest)).data["changed"] is True
    assert pruning.pin(nights.request(checkpoint=oldest)).data["changed"] is False
    nights.prune(keep_last=1)
    assert oldest in nights.store.checkpoints()
    assert pruning.unpin(nights.request(checkpoint=oldest)).data["changed"] is True
    nights.prune(keep_last=1)
    assert oldest not in nights.store.checkpoints()
    with pytest.raises(UsageProblem):
        pruning.pin(nights.request(checkpoint=oldest))


def test_the_only_copy_of_a_thread_stays(nights: Nights) -> None:
    nights.checkpoint(nights.sample.control_thread_id)
    alone = nights.store.checkpoints()[-1]
    nights.checkpoint()
    nights.prune(keep_last=1)
    assert alone in nights.store.checkpoints()
    nights.checkpoint(all_threads=True)
    nights.prune(keep_last=1)
    assert alone not in nights.store.checkpoints()


def test_an_archive_generation_goes_with_the_last_checkpoint_that_names_it(nights: Nights) -> None:
    rollout = nights.sample.large_rollout
    lines = rollout.read_bytes().splitlines(keepends=True)
    rollout.write_bytes(b"".join(lines[:-3]))
    nights.checkpoint()
    folder = nights.store.archive / nights.sample.large_thread_id
    assert len(list(folder.glob("*.zst"))) == 2

    pruning.pin(nights.request(checkpoint=nights.store.checkpoints()[0]))
    nights.prune(keep_last=1)
    assert len(list(folder.glob("*.zst"))) == 2
    pruning.unpin(nights.request(checkpoint=nights.store.checkpoints()[0]))
    nights.prune(keep_last=1)
    assert [path.name for path in folder.glob("*.zst")] == [f"{rollout.name}.g2.zst"]
    assert nights.verify(read_part=EVERYTHING).exit_code == 0


def test_a_checkpoint_that_cannot_be_read_stays_and_so_does_every_archive(nights: Nights) -> None:
    rollout = nights.sample.large_rollout
    rollout.write_bytes(b"".join(rollout.read_bytes().splitlines(keepends=True)[:-3]))
    nights.checkpoint()
    unreadable = nights.store.checkpoints()[0]
    manifest = nights.store.checkpoint_folder(unreadable) / "manifest.json"
    manifest.chmod(0o600)
    manifest.write_bytes(b"{")
    result = nights.prune(keep_last=1)
    assert found(result, "checkpoint-damaged")
    assert nights.store.checkpoints()[0] == unreadable
    assert len(list((nights.store.archive / nights.sample.large_thread_id).glob("*.zst"))) == 2


def test_the_time_limit_ends_it_between_two_checkpoints(nights: Nights) -> None:
    before = nights.store.checkpoints()
    rules = pruning.policy_of(nights.settings)
    rules = type(rules)(keep_last=1)
    store = nights.store
    pruned = pruning.prune_store(store, rules, None, Deadline(0), nights.told.append, dry_run=False)
    assert [finding.finding_id for finding in pruned.findings] == ["prune-unfinished"]
    assert store.checkpoints() == before


def test_nobody_prunes_while_another_preflight_is_at_work(nights: Nights) -> None:
    with (
        RunLock(nights.store.folder).acquire(Deadline(0), {"program": "preflight run"}),
        pytest.raises(Locked),
    ):
        pruning.prune(nights.request(timeout=0.0), type(pruning.policy_of(nights.settings))(keep_last=1))


def test_everything_within_a_time_stays(nights: Nights) -> None:
    nights.prune(keep_within=timedelta(hours=1))
    assert len(nights.store.checkpoints()) == 4


def test_a_store_without_checkpoints_is_no_mistake(tmp_path: Path) -> None:
    assert nights_in(tmp_path / "new").prune(keep_last=1).data["pruned"] == []
