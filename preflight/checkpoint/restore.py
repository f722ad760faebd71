"""Putting rollouts back: written beside their place, read back, and only then given their name.

Every step up to `swap` can be called off and leaves no trace; from the first file that has its name on,
a restore is completed, by the next call if need be. `RestoreRecord` says at any time which of the two
it is. What a runtime may do meanwhile is the caller's to prevent: nothing here asks who has a thread open.

    staging    beside each place: `<rollout>.restore-<id>`; no Codex lists such a name
    swapping   the file at the place becomes `<rollout>.kept-<id>`, the staged one takes its name
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from preflight.checkpoint.contents import Content
from preflight.checkpoint.restore_record import AsideFile, Phase, PlacedFile, RestoreRecord
from preflight.codex.rollout import parse_name
from preflight.errors import NoSpace, Unsupported, Unverified
from preflight.model import RolloutFile
from preflight.system import files, swapping
from preflight.system.deadline import Deadline

__all__ = [
    "begun",
    "build",
    "call_off",
    "inverse",
    "placed",
    "require_space",
    "set_aside",
    "stage",
    "swap",
    "tail_start",
    "unswap",
]

_COMPRESSED = ".zst"
_TAIL = 64 << 10  # as `checkpoint.capture` takes it


def tail_start(length: int) -> int:
    """Where the last bytes of a rollout of this length begin, of which a manifest has the digest."""
    return max(0, length - _TAIL)


def placed(content: Content, home: Path, current: Sequence[RolloutFile], restore_id: str) -> PlacedFile:
    """Where the file goes: to where the thread's file of this name lies now, else to where it lay.

    Raises Unsupported when something else than a file of this thread is in the way.
    """
    bare = content.name.removesuffix(_COMPRESSED)
    there = next((file.path for file in current if file.path.name.removesuffix(_COMPRESSED) == bare), None)
    place = (there.parent if there is not None else home.joinpath(*content.place.parent.parts)) / content.name
    kept = None
    if os.path.lexists(place):
        if place not in [file.path for file in current] or not stat.S_ISREG(place.lstat().st_mode):
            raise Unsupported(
                "something that is not a file of this thread is where its rollout belongs",
                path=place,
                hint="move it out of the way, then try again",
            )
        kept = _unlisted(place, "kept", restore_id)
    return PlacedFile(
        place=place,
        staged=_unlisted(place, "restore", restore_id),
        kept=kept,
        file_id=content.file_id,
        length=content.length,
    )


def set_aside(file: RolloutFile, restore_id: str) -> AsideFile:
    """A file of the thread that came after the checkpoint: it goes out of Codex's sight."""
    return AsideFile(place=file.path, kept=_unlisted(file.path, "kept", restore_id), file_id=file.file_id)


def _unlisted(place: Path, what: str, restore_id: str) -> Path:
    """A name beside the place that Codex does not take for a rollout (0.128 to 0.169)."""
    path = place.with_name(f"{place.name}.{what}-{restore_id}")
    if parse_name(path.name) is not None or os.path.lexists(path):
        raise Unverified("there is no free name beside the rollout", path=path)
    return path


def require_space(folder: Path, contents: Sequence[Content]) -> None:
    """Raise NoSpace unless everything that is going to be written fits beside what is there now."""
    needed = sum(content.length for content in contents)
    free = files.free_bytes(folder)
    if free < needed:
        raise NoSpace(
            f"the thread needs {needed:,} bytes, but only {free:,} are free",
            path=folder,
            hint="make room there, or restore to another disk with --to",
            needed_bytes=needed,
        )


def stage(
    record: RestoreRecord, contents: Sequence[Content], deadline: Deadline, progress: Callable[[str], None]
) -> RestoreRecord:
    """Write every file beside its place and read it back; the record then has lengths and digests.

    Raises NoSpace, Unverified, DamagedFile, TimeLimitReached; what was written until then is there, and is
    taken away by `call_off`.
    """
    done = []
    for file, content in zip(record.files, contents, strict=True):
        deadline.check("writing the rollout")
        progress(f"writing {content.length:,} bytes of thread {record.thread_id}")
        files.private_folder(file.place.parent)
        done.append(_written(file, file.staged, content))
    return replace(record, files=tuple(done), phase=Phase.SWAPPING)


def build(
    record: RestoreRecord, contents: Sequence[Content], deadline: Deadline, progress: Callable[[str], None]
) -> RestoreRecord:
    """Write every file to its place below `record.building`, a folder that nobody knows yet, and read it back."""
    assert record.building is not None  # noqa: S101
    assert record.new_home is not None  # noqa: S101
    done = []
    for file, content in zip(record.files, contents, strict=True):
        deadline.check("writing the rollout")
        progress(f"writing {content.length:,} bytes of thread {record.thread_id}")
        target = record.building / file.place.relative_to(record.new_home)
        files.private_folder(target.parent)
        done.append(_written(file, target, content))
    return replace(record, files=tuple(done), phase=Phase.SWAPPING)


def _written(file: PlacedFile, target: Path, content: Content) -> PlacedFile:
    digest = hashlib.sha256()
    length = 0

    def sink(block: bytes | bytearray | memoryview) -> None:
        nonlocal length
        digest.update(block)
        length += len(block)

    with files.publishing(target, replace=False, needed_bytes=content.length) as out:
        content.write(out, sink)
    _look_like_the_original(file, target, content)
    found = digest.hexdigest()
    files.forget_cached(target)
    on_disk = files.sha256_of(target)
    if on_disk != found or (content.sha256 is not None and (on_disk, length) != (content.sha256, content.length)):
        raise Unverified("what was written is not what the checkpoint holds", path=target)
    if content.tail_sha256 not in (None, files.sha256_of(target, tail_start(length))):
        raise Unverified("the archive ends in another way than the rollout did", path=target)
    return replace(file, length=length, sha256=found, identity=files.identity(target))


def _look_like_the_original(file: PlacedFile, target: Path, content: Content) -> None:
    """Lists are sorted by the time of a file, and a group may read what it could read before."""
    with files.our_file(target):
        os.utime(target, ns=(content.modified_ns, content.modified_ns))
        if file.kept is not None:
            target.chmod(stat.S_IMODE(file.place.stat().st_mode))
    files.flush(target)


def begun(record: RestoreRecord) -> bool:
    """Whether a file has got its name already: then the restore is to be completed, else it can be called off."""
    if record.phase is not Phase.SWAPPING:
        return False
    return any(_is_ours(file) for file in record.files) or any(os.path.lexists(file.kept) for file in record.aside)


def _is_ours(file: PlacedFile) -> bool:
    """Whether the file at the place is the one that was staged; it may have grown since."""
    try:
        return file.identity is not None and files.identity(file.place).same_file(file.identity)
    except OSError:
        return False


def swap(record: RestoreRecord) -> None:
    """Give every staged file its name and keep the older ones beside them; may be done again after a kill."""
    for file in record.files:
        swapping.put_in_place(file.staged, file.place, file.kept)
    for aside in record.aside:
        swapping.set_aside(aside.place, aside.kept)


def unswap(record: RestoreRecord) -> None:
    """Let every file that was kept have its place again, and remove what was written."""
    for file in record.files:
        if file.kept is not None:
            swapping.swapped_back(file.place, file.kept)
        else:
            files.remove(file.place)
    for aside in record.aside:
        swapping.put_in_place(aside.kept, aside.place, None)


def call_off(record: RestoreRecord) -> None:
    """Leave no trace of a restore that has not given any file its name; may be done again after a kill."""
    if record.building is not None:
        with files.our_file(record.building):
            if record.building.is_dir():
                shutil.rmtree(record.building)
        return
    for file in record.files:
        swapping.called_off(file.staged, file.place, file.kept, remove=record.undoes is None)
        for torn in file.staged.parent.glob(f".{file.staged.name}.*{files.TEMPORARY_SUFFIX}"):
            files.remove(torn)


def inverse(record: RestoreRecord, restore_id: str, at_ms: int) -> RestoreRecord:
    """The restore that undoes this one: what it kept gets its name again, what it wrote is kept in its turn."""
    back = [
        PlacedFile(
            place=file.place,
            staged=file.kept,
            kept=_unlisted(file.place, "kept", restore_id) if os.path.lexists(file.place) else None,
            file_id=file.file_id,
            length=file.kept.stat().st_size,
            identity=files.identity(file.kept),
        )
        for file in record.files
        if file.kept is not None and os.path.lexists(file.kept)
    ]
    back += [
        PlacedFile(
            place=a.place,
            staged=a.kept,
            kept=None,
            file_id=a.file_id,
            length=a.kept.stat().st_size,
            identity=files.identity(a.kept),
        )
        for a in record.aside
        if os.path.lexists(a.kept)
    ]
    away = [
        AsideFile(place=file.place, kept=_unlisted(file.place, "kept", restore_id), file_id=file.file_id)
        for file in record.files
        if file.kept is None and os.path.lexists(file.place)
    ]
    return replace(
        record,
        restore_id=restore_id,
        phase=Phase.SWAPPING,
        what="undo",
        at_ms=at_ms,
        files=tuple(back),
        aside=tuple(away),
        row_before=record.row_after,
        row_after=record.row_before,
        undoes=record.restore_id,
    )
