"""The checkpoint that a thread is restored from: found by name or as the newest one, also when its home is gone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from preflight.checkpoint.manifest import Manifest, ThreadRecord
from preflight.checkpoint.store import Store
from preflight.checkpoint.verify import Outcome, verify_digest
from preflight.errors import DamagedFile
from preflight.model import Home
from preflight.system import files

__all__ = ["LATEST", "RestoreSource", "every_store", "holding"]

LATEST = "latest"


@dataclass(frozen=True, slots=True)
class RestoreSource:
    """The checkpoint that the thread comes from; `home` is the one that it is of, None when that is not there."""

    home: Home | None
    store: Store
    manifest: Manifest
    thread: ThreadRecord

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


def every_store(root: Path) -> Iterator[Store]:
    """The stores of all homes, those that are gone among them. Raises StoreRefused."""
    if not root.is_dir():
        return
    files.require_private(root)
    for folder in sorted(root.iterdir()):
        if (folder / "checkpoints").is_dir():
            files.require_private(folder)
            yield Store(root, folder.name)


def holding(home: Home | None, store: Store, wanted: str, thread_id: str) -> Iterator[RestoreSource]:
    """The newest checkpoint of this store that holds the thread, or the one that was named if it does."""
    ids = store.checkpoints()
    if wanted != LATEST:
        ids = [wanted] if wanted in ids else []
    for checkpoint_id in reversed(ids):
        try:
            manifest = store.manifest(checkpoint_id)
        except DamagedFile:
            if wanted != LATEST:
                raise
            continue
        thread = manifest.thread(thread_id)
        if thread is not None:
            yield RestoreSource(home, store, manifest, thread)
            return
