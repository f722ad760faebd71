"""Whether a home is as it was when its newest checkpoint was made: told from names and identities, nothing is read."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from preflight.checkpoint.coverage import is_untouched
from preflight.checkpoint.database_copies import database_state
from preflight.checkpoint.jsonline import path_of
from preflight.checkpoint.manifest import Manifest
from preflight.codex.home import durable_databases
from preflight.model import FileIdentity, Home, RolloutFile, Thread

__all__ = ["is_unchanged"]


def is_unchanged(manifest: Manifest, home: Home, inventory: Collection[RolloutFile], chosen: Iterable[Thread]) -> bool:
    """True when another checkpoint of `chosen` would hold nothing that this one does not.

    The same rollouts and databases, each the same file of the same length and time of change, and of
    each chosen thread a verified copy and all of it archived. A file that was written to and set back to
    its old length and time is not noticed; Codex does neither. Raises OSError when the databases cannot be
    listed.
    """
    if manifest.home.path != home.path or not _same_rollouts(manifest, inventory):
        return False
    if not _same_databases(manifest, durable_databases(home)):
        return False
    records = {record.thread_id: record for record in manifest.threads}
    return all(
        (record := records.get(thread.thread_id)) is not None and record.has_everything and is_untouched(record, thread)
        for thread in chosen
    )


def _same_rollouts(manifest: Manifest, inventory: Collection[RolloutFile]) -> bool:
    if len(manifest.inventory) != len(inventory):
        return False
    # By text: a home may have many thousands of them. What lies outside of the home has its whole path.
    home = os.fspath(manifest.home.path)
    then = {os.path.join(home, path_of(item.path)): item.identity for item in manifest.inventory}  # noqa: PTH118
    return all(then.get(file.place) == file.identity for file in inventory)


def _same_databases(manifest: Manifest, databases: Sequence[Path]) -> bool:
    then = {record.name: (record.identity, record.log) for record in manifest.databases}
    if then.keys() != {path.name for path in databases}:
        return False
    return all(then[path.name] == _state(path) for path in databases)


def _state(path: Path) -> tuple[FileIdentity, FileIdentity | None] | None:
    try:
        return database_state(path)
    except OSError:
        return None  # moved away just now: a change
