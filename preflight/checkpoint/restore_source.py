"""The checkpoint that a thread is restored from: found by name or as the newest one, also when its home is gone."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from preflight.checkpoint.manifest import Manifest, ThreadRecord
from preflight.checkpoint.store import Store, every_store, no_such_checkpoint, unreadable
from preflight.checkpoint.verify import Outcome, verify_digest
from preflight.errors import DamagedFile, Unsupported, UsageProblem
from preflight.model import Finding, Home

__all__ = ["LATEST", "RestoreSource", "find_source", "is_thread_id", "with_everything"]

LATEST = "latest"

_THREAD = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RestoreSource:
    """The checkpoint that the thread comes from; `home` is the one that it is of, None when that need not be there.

    `passed_over` are findings: newer checkpoints that cannot be read, so that nobody knows whether they hold it.
    """

    home: Home | None
    store: Store
    manifest: Manifest
    thread: ThreadRecord
    passed_over: tuple[Finding, ...] = ()

    @property
    def folder(self) -> Path:
        return self.store.checkpoint_folder(self.manifest.checkpoint_id)

    def database(self, kind: str) -> Path | None:
        """The checkpoint's copy of a database, if it is there and as it was written."""
        name = next((one.path for one in self.manifest.databases if one.name.startswith(f"{kind}_")), None)
        record = next((one for one in self.manifest.files if one.path == name), None)
        if record is None or verify_digest(self.folder, record).outcome is not Outcome.PASSED:
            return None
        return self.folder / record.path


def is_thread_id(word: str) -> bool:
    """Whether a word is the id of a thread, and no checkpoint's."""
    return _THREAD.fullmatch(word) is not None


def find_source(
    homes: Sequence[Home], root: Path, wanted: str, thread_id: str, *, homes_may_be_gone: bool
) -> RestoreSource:
    """The checkpoint that was named, or with `latest` the newest one of these homes that holds the thread.

    `homes_may_be_gone`: all stores are searched, also those of homes that nobody named. A checkpoint that
    cannot be read is passed over when the newest one is wanted. Raises UsageProblem, which says what was
    looked for where and what there is instead; DamagedFile when the named one cannot be read.
    """
    if homes_may_be_gone:
        places: list[tuple[Home | None, Store]] = [(None, store) for store in every_store(root)]
    else:
        places = [(home, store) for home in homes if (store := Store.existing(root, home)) is not None]
    found = [source for home, store in places for source in _holding(home, store, wanted, thread_id)]
    if not found:
        raise _not_found(root, [store for _, store in places], wanted, thread_id)
    return max(found, key=lambda one: one.manifest.checkpoint_id)


def with_everything(source: RestoreSource) -> str | None:
    """The newest checkpoint of the same home that has the whole thread; None when none has."""
    for checkpoint_id in reversed(source.store.checkpoints()):
        with suppress(DamagedFile, Unsupported):
            thread = source.store.manifest(checkpoint_id).thread(source.thread.thread_id)
            if thread is not None and thread.has_everything:
                return checkpoint_id
    return None


def _holding(home: Home | None, store: Store, wanted: str, thread_id: str) -> Iterator[RestoreSource]:
    ids = store.checkpoints()
    if wanted != LATEST:
        ids = [wanted] if wanted in ids else []
    passed_over: list[Finding] = []
    for checkpoint_id in reversed(ids):
        try:
            thread = (manifest := store.manifest(checkpoint_id)).thread(thread_id)
        except (DamagedFile, Unsupported) as error:
            if wanted != LATEST:
                raise
            passed_over.append(unreadable(checkpoint_id, error, remedy=f"preflight verify {checkpoint_id}"))
            continue
        if thread is not None:
            yield RestoreSource(home, store, manifest, thread, tuple(passed_over))
            return


def _not_found(root: Path, stores: Sequence[Store], wanted: str, thread_id: str) -> UsageProblem:
    """Who is in a hurry has most likely left a word out, cut an id short, or looks from another home."""
    if is_thread_id(wanted):
        return UsageProblem(
            "the checkpoint comes first, then the thread", hint=f"preflight restore latest {wanted} --full --in-place"
        )
    ids = [checkpoint_id for store in stores for checkpoint_id in store.checkpoints()]
    if wanted != LATEST and wanted not in ids:
        return no_such_checkpoint(wanted, ids)
    for store in every_store(root):
        for source in _holding(None, store, LATEST, thread_id):
            return _elsewhere(source, wanted, thread_id, known=store.home_id in {one.home_id for one in stores})
    begin_so = sorted(_threads_beginning(stores, thread_id))
    if begin_so:
        return UsageProblem(
            f"no checkpoint holds a thread {thread_id}", hint=f"give the id in full: {' or '.join(begin_so)}"
        )
    return UsageProblem(
        f"no checkpoint holds thread {thread_id}", hint="preflight show latest names the threads that one holds"
    )


def _elsewhere(source: RestoreSource, wanted: str, thread_id: str, *, known: bool) -> UsageProblem:
    """The thread is in another checkpoint than the named one, or in one of another home."""
    checkpoint_id, home = source.manifest.checkpoint_id, source.manifest.home.path
    if known:
        return UsageProblem(
            f"checkpoint {wanted} does not hold thread {thread_id}; the newest one that does is {checkpoint_id}",
            hint="name that one, or say latest",
        )
    return UsageProblem(
        f"no checkpoint of the homes that were looked at holds thread {thread_id}, but one of {home} does",
        path=home,
        hint=f"name that home: --home {shlex.quote(str(home))}"
        if home.is_dir()
        else "that home is gone: make an empty folder in its place, or restore to a new one with --to",
    )


def _threads_beginning(stores: Sequence[Store], front: str) -> set[str]:
    found: set[str] = set()
    for store in stores if front else ():
        for checkpoint_id in store.checkpoints():
            with suppress(DamagedFile, Unsupported):
                threads = store.manifest(checkpoint_id).threads
                found |= {one.thread_id for one in threads if one.thread_id.startswith(front)}
    return found
