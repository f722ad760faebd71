"""A checkpoint exists when its manifest does: the list of its files, published last and never changed.

Its own digest stands in `manifest.sha256` beside it, for `sha256sum -c`, and is compared whenever the manifest
is read; checkpoints of the first version have none.

Written strictly: what would not read back as the same value is not written. Read leniently: unknown
keys are passed over; what must be there and is not makes a DamagedFile, a newer schema Unsupported.
Paths inside the checkpoint are relative, with `/`, and cannot lead out of it. The JSON has the shape
of the values below, field by field; `jsonline` says how a path is written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import msgspec

from preflight.checkpoint import jsonline
from preflight.errors import DamagedFile, PreflightError, Unsupported, Unverified
from preflight.model import (
    ArchiveReference,
    Boundary,
    CheckpointRef,
    FileIdentity,
    Goal,
    History,
    HistoryMode,
    Role,
    ThreadRow,
)
from preflight.system import files

__all__ = [
    "DIGEST_NAME",
    "MANIFEST_NAME",
    "DatabaseRecord",
    "FileRecord",
    "HomeRecord",
    "InventoryItem",
    "Manifest",
    "RuntimeRecord",
    "SourceRecord",
    "ThreadRecord",
    "from_json",
    "has_digest",
    "load",
    "publish",
    "to_json",
]

MANIFEST_NAME = "manifest.json"
DIGEST_NAME = "manifest.sha256"

_SCHEMA = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST_LINE = re.compile(rb"([0-9a-f]{64})  " + re.escape(MANIFEST_NAME.encode()) + rb"\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file of the checkpoint; `role` is `database` or `resume-rollout`."""

    path: str
    length: int
    sha256: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseRecord:
    """A database copy: its name in the home, its file in the checkpoint, the file that it is a copy of.

    `identity` and `log` are the database and its write-ahead log as they were just before the copy;
    None where there was no log, or an empty one, and in manifests that do not say.
    """

    name: str
    path: str
    source: Path
    identity: FileIdentity | None = None
    log: FileIdentity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeRecord:
    path: Path
    sqlite_home: Path
    home_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeRecord:
    """A runtime that ran when the checkpoint was made."""

    pid: int
    version: str | None
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecord:
    """A rollout of the thread's lineage as it was: its first `used_bytes` count.

    `tail_sha256` is the digest of the last 64 KiB before that point (of all, if there are fewer).
    `archive` is what the archive has of those bytes, from the first one on: of fewer when the time
    limit came first, None when nothing was archived.
    """

    path: Path
    file_id: str
    identity: FileIdentity
    used_bytes: int
    tail_sha256: str
    archive: ArchiveReference | None = None

    @property
    def is_archived(self) -> bool:
        """Whether the archive has every byte that was used."""
        return self.archive is not None and self.archive.raw_length == self.used_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadRecord:
    """A thread in the checkpoint; `file` is its resume rollout, `whole` says that nothing was left out of it.

    `file` is None of a thread that is in the archive alone: one without a compaction, of which a resume
    rollout would be all of it, another time each night.
    `history` is the original's, by digests; None when there was no boundary to reckon it from.
    `verification` holds JSON values by level: `digests`, `structure`, `history`, `trial`.
    """

    thread_id: str
    file: str | None
    whole: bool
    boundary: Boundary | None
    sources: tuple[SourceRecord, ...]
    size_bytes: int
    history_mode: HistoryMode
    cli_version: str | None
    archived: bool
    goal: Goal | None
    row: ThreadRow | None
    history: History | None = None
    verification: Mapping[str, object] = field(default_factory=dict)

    @property
    def has_everything(self) -> bool:
        """Whether no byte of the thread is missing: its resume rollout is the whole file, or all is archived."""
        alone = self.whole and len(self.sources) == 1
        return alone or all(source.is_archived for source in self.sources)


class InventoryItem(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout that the home had, copied or not; `path` is relative to the home, with `/`.

    Of these there are thousands, and making a dataclass takes eight times as long.
    `identity` tells whether it is still that file and has not changed; None in manifests that do not say.
    """

    thread_id: str
    path: jsonline.WrittenPath
    size_bytes: int
    archived: bool
    identity: FileIdentity | None = None

    @property
    def place(self) -> PurePosixPath:
        return PurePosixPath(jsonline.path_of(self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything a checkpoint says of itself; `created_at` is RFC 3339 UTC, `goals` are all goal rows of the home.

    `version` is that of the preflight that wrote it, `runtime_version` that of the runtime in use then.
    """

    checkpoint_id: str
    created_at: str
    home: HomeRecord
    target_version: str | None
    runtimes: tuple[RuntimeRecord, ...]
    files: tuple[FileRecord, ...]
    databases: tuple[DatabaseRecord, ...]
    threads: tuple[ThreadRecord, ...]
    goals: tuple[Goal, ...]
    inventory: tuple[InventoryItem, ...]
    version: str
    made_by: str = "run"
    reason: str | None = None
    runtime_version: str | None = None
    order: str = "databases-then-rollouts"
    tool: str = "codex-preflight"
    schema: int = _SCHEMA

    def thread(self, thread_id: str) -> ThreadRecord | None:
        return next((thread for thread in self.threads if thread.thread_id == thread_id), None)


class _Header(msgspec.Struct):
    """All that is asked of a manifest before it is known that its schema is ours."""

    schema: int


def publish(folder: Path, manifest: Manifest) -> CheckpointRef:
    """Make `folder` a checkpoint: after this, and not before, `Store.checkpoints` lists it.

    Unverified, and no manifest, when a file that it names is missing or of another length, or when
    the manifest would not read back as it is.
    """
    if manifest.checkpoint_id != folder.name:
        raise Unverified("the manifest is of another checkpoint", path=folder)
    for record in manifest.files:
        file = folder / record.path
        try:
            found = files.identity(file).size_bytes
        except OSError as error:
            raise Unverified(f"a file of the checkpoint is missing: {error.strerror}", path=file) from error
        if found != record.length:
            raise Unverified(f"{record.length} bytes were written, the file has {found}", path=file)
    data = to_json(manifest)
    sha256 = hashlib.sha256(data).hexdigest()
    # The manifest comes last: a digest without one belongs to a checkpoint that was never finished.
    for name, content in ((DIGEST_NAME, f"{sha256}  {MANIFEST_NAME}\n".encode()), (MANIFEST_NAME, data)):
        files.publish(folder / name, content, replace=False)
        files.drop_write_permission(folder / name)
    files.sync_folder(folder.parent)
    return CheckpointRef(checkpoint_id=manifest.checkpoint_id, path=folder, manifest_sha256=sha256)


def has_digest(folder: Path) -> bool:
    """Whether a change of the manifest would be noticed; not so in checkpoints of the first version."""
    return (folder / DIGEST_NAME).exists()


def load(path: Path) -> Manifest:
    """Read a manifest file; DamagedFile when it cannot be read, is not what was written, or belongs elsewhere."""
    try:
        data = path.read_bytes()
        told = _told_digest(path.with_name(DIGEST_NAME))
    except OSError as error:
        raise DamagedFile(f"the manifest cannot be read: {error.strerror}", path=path) from error
    if told is not None and told != hashlib.sha256(data).hexdigest():
        raise DamagedFile("the manifest is not what was written", path=path)
    manifest = from_json(data, path)
    if manifest.checkpoint_id != path.parent.name:
        raise DamagedFile("the manifest is of another checkpoint", path=path)
    return manifest


def _told_digest(path: Path) -> str | None:
    try:
        line = path.read_bytes()
    except FileNotFoundError:
        return None
    match = _DIGEST_LINE.fullmatch(line)
    if match is None:
        raise DamagedFile("the digest of the manifest is not what was written", path=path)
    return match[1].decode()


def to_json(manifest: Manifest) -> bytes:
    """One line of JSON; Unverified when it would not read back as the same manifest."""
    data = jsonline.encode(manifest)
    try:
        same = from_json(data) == manifest
    except PreflightError as error:
        raise Unverified(f"the manifest would not read back: {error}") from error
    if not same:
        raise Unverified("the manifest would not read back as it is")
    return data


def from_json(data: bytes, path: Path | None = None) -> Manifest:
    """Read a manifest from its bytes; `path` is only named in errors."""
    if jsonline.decode(data, _Header, path).schema > _SCHEMA:
        raise Unsupported("the checkpoint was written by a newer preflight", path=path, hint="upgrade codex-preflight")
    manifest = jsonline.decode(data, Manifest, path)
    try:
        _require_consistent(manifest)
    except ValueError as error:
        raise DamagedFile(f"the manifest is damaged: {error}", path=path) from error
    return manifest


def _require_consistent(manifest: Manifest) -> None:
    """The files are named once, inside the checkpoint, and everything that is referred to is among them."""
    named: set[str] = set()
    for record in manifest.files:
        path = PurePosixPath(record.path)
        if (
            path.is_absolute()
            or ".." in path.parts
            or "\\" in record.path
            or record.path != str(path)
            or not path.parts
        ):
            raise ValueError(f"a path leads out of the checkpoint: {record.path}")
        if record.path in named:
            raise ValueError(f"a file is named twice: {record.path}")
        if record.length < 0 or not _SHA256.fullmatch(record.sha256):
            raise ValueError(f"length or digest of {record.path}")
        named.add(record.path)
    referred = [thread.file for thread in manifest.threads if thread.file is not None]
    referred += [one.path for one in manifest.databases]
    for name in referred:
        if name not in named:
            raise ValueError(f"a file is not listed: {name}")
