"""Which checkpoint a thread has, and whether it still speaks of the file that is there now."""

from __future__ import annotations

import os
from collections.abc import Callable

from preflight.checkpoint.manifest import Manifest, ThreadRecord
from preflight.checkpoint.store import Store
from preflight.checkpoint.verify import Outcome
from preflight.errors import DamagedFile, Unsupported
from preflight.model import CheckpointState, Thread

#: How many checkpoints are looked through, newest first, for threads that the newest one does not hold.
_LOOK_BACK = 8


def checkpoint_lookup(store: Store | None) -> Callable[[Thread], CheckpointState | None]:
    """A function that gives a thread's newest checkpoint; manifests are read once, and only when asked for.

    A manifest that cannot be read is passed over: its threads have no checkpoint, which is the safe answer.
    """
    manifests: list[Manifest] = []
    remaining = list(reversed(store.checkpoints()))[:_LOOK_BACK] if store is not None else []

    def lookup(thread: Thread) -> CheckpointState | None:
        for manifest in manifests:
            record = manifest.thread(thread.thread_id)
            if record is not None:
                return _state(manifest, record, thread)
        while remaining and store is not None:
            try:
                manifest = store.manifest(remaining.pop(0))
            except (DamagedFile, Unsupported):
                continue
            manifests.append(manifest)
            record = manifest.thread(thread.thread_id)
            if record is not None:
                return _state(manifest, record, thread)
        return None

    return lookup


def _state(manifest: Manifest, record: ThreadRecord, thread: Thread) -> CheckpointState:
    return CheckpointState(
        checkpoint_id=manifest.checkpoint_id, fresh=is_fresh(record, thread), verified=is_verified(record)
    )


def is_fresh(record: ThreadRecord, thread: Thread) -> bool:
    """Same files of the same lengths, and the same goal: nothing has been added since."""
    if len(record.sources) != len(thread.lineage):
        return False
    for source, segment in zip(record.sources, thread.lineage, strict=True):
        now = segment.file.identity
        grown = segment.end_offset is None and now.size_bytes != source.identity.size_bytes
        if grown or not now.same_file(source.identity):
            return False
    then = record.goal.goal_id if record.goal is not None else None
    return then == (thread.goal.goal_id if thread.goal is not None else None)


def is_untouched(record: ThreadRecord, thread: Thread) -> bool:
    """Fresh, proved, and every file exactly as it was then, its time of change included."""
    proved = is_verified(record) if record.file is not None else is_read_back(record)
    if not (is_fresh(record, thread) and proved):
        return False
    pairs = zip(record.sources, thread.lineage, strict=True)
    return all(
        os.fspath(source.path) == segment.file.place
        and source.identity == segment.file.identity
        and segment.end_offset in (None, source.used_bytes)
        for source, segment in pairs
    )


def is_verified(record: ThreadRecord) -> bool:
    """Read back with the right digest and line by line, and no level failed.

    A compressed rollout is not: its bytes are those that were copied, and nobody has looked inside. Nor is
    one that was put together from several files, when nobody has compared it with them.
    """
    outcomes = {level: _outcome(value) for level, value in record.verification.items()}
    read = outcomes.get("digests") == outcomes.get("structure") == Outcome.PASSED
    if len(record.sources) > 1 and outcomes.get("history") != Outcome.PASSED:
        return False
    return read and Outcome.FAILED not in outcomes.values()


def is_read_back(record: ThreadRecord) -> bool:
    """Whether what there is of it, its file or its archive, was read back and is what was written."""
    return _outcome(record.verification.get("digests")) == Outcome.PASSED


def _outcome(value: object) -> str | None:
    return str(value.get("outcome")) if isinstance(value, dict) else None
