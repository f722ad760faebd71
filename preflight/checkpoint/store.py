"""The folder of one home in the store: what lies where, which checkpoints there are, and who may touch it.

    <root>/<home id>/  README  run.lock  run.json  journal.jsonl  checkpoints/<id>/manifest.{json,sha256}
                       archive/<thread id>/  pins/<id>  nights.json  schedule.json  restores/<id>.json
                       reports/

Private: folders 0700, files 0600; a store that somebody else owns or can write to is refused. A
checkpoint's folder without a manifest is one that was never finished: it is not listed. Ids sort by
time: `<UTC stamp>-<6 hex>`.
"""

from __future__ import annotations

import re
import secrets
import shutil
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from preflight.checkpoint import manifest
from preflight.checkpoint.manifest import Manifest
from preflight.errors import ConfigProblem, DamagedFile, StoreRefused, Unsupported, UsageProblem
from preflight.model import Finding, Home, Severity
from preflight.system import files

__all__ = ["Store", "default_root", "every_store", "keep_report", "no_such_checkpoint", "store_root", "unreadable"]

_ID = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{6}")
_STAMP = "%Y%m%dT%H%M%SZ"
_REPORTS = 100

_README = b"""\
This folder belongs to codex-preflight. It holds checkpoints of the threads of one Codex home, made
before the Codex runtime was replaced. It is safe to read; nothing here is needed by Codex itself.

  checkpoints/<UTC time>-<number>/
      manifest.json                  lists every file with its length and SHA-256; without it the folder is
                                     an unfinished checkpoint and of no use
      manifest.sha256                its own SHA-256: `sha256sum -c manifest.sha256` in this folder
      threads/<thread id>/*.jsonl    resume rollouts: what Codex needs to go on with the thread
      databases/*.sqlite             copies of Codex's databases
  archive/<thread id>/
      *.jsonl.zst                    whole rollouts; `zstd -d` gives back the rollout as it was
      *.frames.jsonl                 which part of the rollout lies where in it, with digests
  journal.jsonl                      goals that were paused and put back
  pins/                              one empty file for each checkpoint that is never to be removed
  nights.json                        when the nightly task was last at work, and what it reads back next
  schedule.json                      which schedulers have the nightly task, and since when
  restores/                          which files were put back, and where the replaced ones are kept
  reports/                           what was reported, and when
  run.lock, run.json                 the lock, and who holds it

To take a thread out by hand: close Codex, keep the rollout that is there under another name that does
not begin with "rollout-", then copy the resume rollout to its place:

  cp checkpoints/<time>-<number>/threads/<thread id>/rollout-*.jsonl  <Codex home>/sessions/<year>/<month>/<day>/

The year, month and day are in the file's name. A file whose name ends in .zst is unpacked with `zstd -d`.
"""


def default_root(env: Mapping[str, str]) -> Path:
    """Where the store is unless told otherwise: `PREFLIGHT_STORE`, else the user's state folder."""
    if named := env.get("PREFLIGHT_STORE"):
        try:
            return Path(named).expanduser().absolute()
        except RuntimeError as error:
            raise ConfigProblem(f"PREFLIGHT_STORE cannot be used: {error}", hint="name a folder in full") from error
    from platformdirs import user_state_path

    return user_state_path("codex-preflight", appauthor=False)


def store_root(named: Path | None, env: Mapping[str, str]) -> Path:
    """The folder of all homes' stores: the one that was named, else the default one."""
    return named if named is not None else default_root(env)


def keep_report(folder: Path, data: bytes) -> None:
    """Keep a report as `<stamp>.json`, and of all reports there the newest 100.

    Raises what `files.publish` raises; then there is no such report.
    """
    stamp = datetime.now(UTC).strftime(_STAMP)
    files.publish(folder / f"{stamp}-{secrets.token_hex(3)}.json", data)
    for old in sorted(folder.glob("*.json"))[:-_REPORTS]:
        with suppress(OSError):
            old.unlink()


def unreadable(checkpoint_id: str, error: DamagedFile | Unsupported, *, remedy: str) -> Finding:
    """The finding for a checkpoint that `Store.manifest` could not read: damaged, or of a newer preflight."""
    if isinstance(error, Unsupported):
        return Finding(
            finding_id="checkpoint-newer",
            severity=Severity.WARN,
            cause=f"checkpoint {checkpoint_id} was written by a newer preflight; what is in it is not known here",
            remedy=error.hint,
            path=error.path,
        )
    return Finding(
        finding_id="checkpoint-damaged",
        severity=Severity.WARN,
        cause=f"checkpoint {checkpoint_id} cannot be read: {error.message}",
        remedy=remedy,
        path=error.path,
    )


def every_store(root: Path) -> Iterator[Store]:
    """The stores of all homes, those that are gone among them. Raises StoreRefused."""
    if not root.is_dir():
        return
    files.require_private(root)
    for folder in sorted(root.iterdir()):
        if (folder / "checkpoints").is_dir():
            files.require_private(folder)
            yield Store(root, folder.name)


def no_such_checkpoint(wanted: str, there: Iterable[str]) -> UsageProblem:
    """The error for a checkpoint that was named and is not there: half an id is never taken for a whole one."""
    begin_so = [one for one in sorted(there) if wanted and one.startswith(wanted)]
    if begin_so:
        return UsageProblem(f"there is no checkpoint {wanted}", hint=f"give the id in full: {' or '.join(begin_so)}")
    return UsageProblem(
        f"there is no checkpoint {wanted}", hint="preflight list shows those there are; preflight run makes one"
    )


class Store:
    """One home's part of the store. Building the value touches nothing; `open` and `existing` are the ways in."""

    def __init__(self, root: Path, home_id: str) -> None:
        self.root = root
        self.home_id = home_id
        self.folder = root / home_id
        self.lock = self.folder / "run.lock"
        self.journal = self.folder / "journal.jsonl"
        self.reports = self.folder / "reports"
        self.nights = self.folder / "nights.json"
        self.schedule = self.folder / "schedule.json"
        self.archive = self.folder / "archive"
        self.restores = self.folder / "restores"
        self._checkpoints = self.folder / "checkpoints"
        self._pins = self.folder / "pins"

    @classmethod
    def open(cls, root: Path, home: Home) -> Store:
        """Make what is missing and return the store; StoreRefused when it is not ours alone, Unverified when it
        cannot be made.
        """
        store = cls(root, home.home_id)
        for folder in (root, store.folder, store._checkpoints, store.reports):
            files.private_folder(folder)
            files.require_private(folder)
        readme = store.folder / "README"
        if not readme.exists() or readme.read_bytes() != _README:
            files.publish(readme, _README)
        return store

    @classmethod
    def existing(cls, root: Path, home: Home) -> Store | None:
        """Return the store for reading, None when this home has none; makes nothing, refuses like `open`."""
        store = cls(root, home.home_id)
        try:
            folders = [folder for folder in (root, store.folder, store._checkpoints) if folder.exists()]
        except OSError as error:
            raise StoreRefused(f"the store cannot be looked at: {error.strerror}", path=root) from error
        for folder in folders:
            files.require_private(folder)
        return store if store.folder in folders else None

    def checkpoints(self) -> list[str]:
        """The ids of the finished checkpoints, oldest first."""
        return [name for name in self._folders() if (self._checkpoints / name / manifest.MANIFEST_NAME).exists()]

    def unfinished(self) -> list[Path]:
        """The folders of checkpoints that a killed run left without a manifest."""
        folders = [self._checkpoints / name for name in self._folders()]
        return [folder for folder in folders if not (folder / manifest.MANIFEST_NAME).exists()]

    def remove_unfinished(self) -> None:
        """Remove those folders, and every file of the store that had not yet got its name.

        Only under the run lock: then nobody is at work on any of it. What cannot be removed stays: it
        takes room and does no other harm.
        """
        for folder in self.unfinished():
            shutil.rmtree(folder, ignore_errors=True)
        self.remove_unnamed()

    def remove_unnamed(self) -> None:
        """Remove the files that a killed run has not given their name, under the run lock; as `remove_unfinished`."""
        checkpoints = (self._checkpoints / name for name in self._folders())
        for place in (self.folder, self.reports, self.restores, self._pins, *checkpoints):
            with suppress(OSError):
                for file in place.glob(f".*{files.TEMPORARY_SUFFIX}"):
                    with suppress(OSError):
                        file.unlink()

    def checkpoint_folder(self, checkpoint_id: str) -> Path:
        """The folder of a checkpoint; UsageProblem when that is not an id. It need not exist."""
        if not _ID.fullmatch(checkpoint_id):
            raise UsageProblem(f"not a checkpoint's id: {checkpoint_id}", hint="preflight list")
        return self._checkpoints / checkpoint_id

    def manifest(self, checkpoint_id: str) -> Manifest:
        """A checkpoint's manifest; UsageProblem when there is no such checkpoint, DamagedFile when it is broken or
        is not what was written, Unsupported when a newer preflight wrote it.
        """
        path = self.checkpoint_folder(checkpoint_id) / manifest.MANIFEST_NAME
        if not path.exists():
            raise UsageProblem(f"there is no checkpoint {checkpoint_id}", path=path.parent, hint="preflight list")
        return manifest.load(path)

    def latest(self) -> Manifest | None:
        """The newest checkpoint's manifest; None when there is no checkpoint, else what `manifest` raises."""
        ids = self.checkpoints()
        return self.manifest(ids[-1]) if ids else None

    def pinned(self) -> frozenset[str]:
        """The ids with a pin, whether or not there is such a checkpoint."""
        try:
            return frozenset(entry.name for entry in self._pins.iterdir() if _ID.fullmatch(entry.name))
        except FileNotFoundError:
            return frozenset()
        except OSError as error:
            # Not to know the pins must not look like having none.
            raise StoreRefused(f"the pins cannot be read: {error.strerror}", path=self._pins) from error

    def pin(self, checkpoint_id: str) -> bool:
        """Keep a checkpoint from being removed; False when it was pinned already. Needs the run lock."""
        self._require(checkpoint_id)
        if checkpoint_id in self.pinned():
            return False
        files.private_folder(self._pins)
        files.publish(self._pins / checkpoint_id, b"")
        return True

    def unpin(self, checkpoint_id: str) -> bool:
        """Take the pin away; False when there was none. Needs the run lock."""
        self._require(checkpoint_id)
        if checkpoint_id not in self.pinned():
            return False
        files.remove(self._pins / checkpoint_id)
        return True

    def bytes_of_its_own(self, checkpoint_id: str, gone: Counter[tuple[int, int]]) -> int:
        """What the checkpoint's files take that have no second name in another checkpoint.

        `gone` counts, by device and inode, the names that are to be taken away before; this checkpoint's are added.
        """
        own = 0
        with suppress(OSError):  # somebody else's tidying up, or a bad disk; a size is no reason to stop
            for path in self.checkpoint_folder(checkpoint_id).rglob("*"):
                facts = path.lstat()
                if stat.S_ISREG(facts.st_mode):
                    gone[facts.st_dev, facts.st_ino] += 1
                    own += facts.st_size if facts.st_nlink == gone[facts.st_dev, facts.st_ino] else 0
        return own

    def remove_checkpoint(self, checkpoint_id: str) -> None:
        """Remove a checkpoint. Needs the run lock, under which nobody begins to restore from it.

        The manifest loses its name first, and that is on the disk before the first file goes: killed at
        any point, the checkpoint is whole, or it is one that `remove_unfinished` sweeps away. Unverified
        when a file cannot be removed; what is left of it is swept by the next run.
        """
        folder = self.checkpoint_folder(checkpoint_id)
        path = folder / manifest.MANIFEST_NAME
        with files.our_file(path):
            path.rename(path.with_name(f".{path.name}.removed{files.TEMPORARY_SUFFIX}"))
        files.sync_folder(folder)
        with files.our_file(folder):
            shutil.rmtree(folder)

    def last_run(self) -> Manifest | None:
        """The manifest of the newest checkpoint that a `run` made: what `finish` compares with; None without one."""
        for checkpoint_id in reversed(self.checkpoints()):
            found = self.manifest(checkpoint_id)
            if found.made_by == "run":
                return found
        return None

    def _require(self, checkpoint_id: str) -> None:
        if not (self.checkpoint_folder(checkpoint_id) / manifest.MANIFEST_NAME).exists():
            raise UsageProblem(f"there is no checkpoint {checkpoint_id}", hint="preflight list")

    def new_checkpoint_folder(self) -> tuple[str, Path]:
        """Make the empty folder of a new checkpoint, which sorts behind all others; needs the run lock.

        The stamp is now, or one second after the newest one's: two in one second, or a clock that was
        set back, must not hide the newer one.
        """
        moment = datetime.now(UTC)
        if names := self._folders():
            newest = datetime.strptime(names[-1].partition("-")[0], _STAMP).replace(tzinfo=UTC)
            moment = max(moment, newest + timedelta(seconds=1))
        checkpoint_id = f"{moment.strftime(_STAMP)}-{secrets.token_hex(3)}"
        folder = self._checkpoints / checkpoint_id
        files.private_folder(folder)
        return checkpoint_id, folder

    def _folders(self) -> list[str]:
        try:
            return sorted(entry.name for entry in self._checkpoints.iterdir() if _ID.fullmatch(entry.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreRefused(f"the store cannot be read: {error.strerror}", path=self._checkpoints) from error
