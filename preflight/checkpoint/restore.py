"""Putting rollouts back: written beside their place, read back, and only then given their name.

Every step up to `swap` can be called off and leaves no trace; from the first file that has its name on,
a restore is completed, by the next call if need be. `RestoreRecord` says at any time which of the two
it is. What a runtime may do meanwhile is the caller's to prevent: nothing here asks who has a thread open.

    staging      beside each place: `<rollout>.restore-<id>`; no Codex lists such a name
    swapping     the file at the place becomes `<rollout>.kept-<id>`, the staged one takes its name
    giving back  the same the other way round

Of the user's own files none is ever removed here: they only change names, and a file under a name of its own
is what an undo moves as well.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from preflight.checkpoint.contents import Content
from preflight.checkpoint.restore_record import AsideFile, Phase, PlacedFile, RestoreRecord
from preflight.codex.rollout import parse_name
from preflight.errors import NoSpace, Unsupported, Unverified
from preflight.model import RolloutFile
from preflight.system import files, swapping

__all__ = [
    "Watch",
    "bare_name",
    "begun",
    "build",
    "call_off",
    "give_back",
    "kept_name",
    "placed",
    "require_space",
    "set_aside",
    "stage",
    "swap",
    "tail_start",
]

#: Told how many bytes of how many are written; raises to end the work.
Watch = Callable[[int, int], None]

_TAIL = 64 << 10  # as `checkpoint.capture` takes it


def tail_start(length: int) -> int:
    """Where the last bytes of a rollout of this length begin, of which a manifest has the digest."""
    return max(0, length - _TAIL)


def bare_name(name: str) -> str:
    """The name of a rollout whether or not Codex has compressed it meanwhile (0.144 and later)."""
    return name.removesuffix(".zst")


def placed(content: Content, home: Path, current: Sequence[RolloutFile], restore_id: str) -> PlacedFile:
    """Where the file goes: to where the thread's file of this name lies now, else to where it lay.

    Raises Unsupported when something else than a file of this thread is in the way.
    """
    bare = bare_name(content.name)
    there = next((file.path for file in current if bare_name(file.path.name) == bare), None)
    place = (there.parent if there is not None else home.joinpath(*content.place.parent.parts)) / content.name
    return PlacedFile(
        place=place,
        staged=_unlisted(place, "restore", restore_id),
        kept=kept_name(place, current, restore_id),
        file_id=content.file_id,
        length=content.length,
    )


def kept_name(place: Path, current: Sequence[RolloutFile], restore_id: str) -> Path | None:
    """The name under which the file at the place is going to be kept; None when nothing is there.

    Raises Unsupported when something else than a file of this thread is in the way.
    """
    if not os.path.lexists(place):
        return None
    kind = place.lstat().st_mode
    if stat.S_ISLNK(kind):
        raise Unsupported(
            "where the rollout belongs is a symbolic link, which would have to be replaced",
            path=place,
            hint="put the file itself there in its place, or restore to a new folder with --to",
        )
    if not stat.S_ISREG(kind) or os.path.realpath(place) not in [os.path.realpath(file.path) for file in current]:
        raise Unsupported(
            "something that is not a file of this thread is where its rollout belongs",
            path=place,
            hint="move it out of the way, or restore to a new folder with --to",
        )
    return _unlisted(place, "kept", restore_id)


def set_aside(file: RolloutFile, restore_id: str) -> AsideFile:
    """A file of the thread that is none of what is put back: it goes out of Codex's sight."""
    return AsideFile(place=file.path, kept=_unlisted(file.path, "kept", restore_id), file_id=file.file_id)


def _unlisted(place: Path, what: str, restore_id: str) -> Path:
    """A name beside the place that Codex does not take for a rollout (0.128 to 0.169)."""
    path = place.with_name(f"{place.name}.{what}-{restore_id}")
    if parse_name(path.name) is not None or os.path.lexists(path):
        raise Unverified("there is no free name beside the rollout", path=path)
    return path


def require_space(folders: Iterable[Path], contents: Sequence[Content]) -> None:
    """Raise NoSpace unless everything that is going to be written fits beside what is there now.

    The folders may lie on several disks, behind links: then each of them must have room for all of it.
    """
    needed = sum(content.length for content in contents)
    for folder in dict.fromkeys(folders):
        free = files.free_bytes(folder)
        if free < needed:
            raise NoSpace(
                f"the thread needs {needed:,} bytes, but only {free:,} are free",
                path=folder,
                hint="make room there, or restore to another disk with --to",
                needed_bytes=needed,
            )


def stage(record: RestoreRecord, contents: Sequence[Content], watch: Watch) -> RestoreRecord:
    """Write every file beside its place and read it back; the record then has lengths and digests.

    Raises NoSpace, Unverified, DamagedFile, and what `watch` raises; what was written until then is there,
    and is taken away by `call_off`.
    """
    return _all_written(record, contents, watch, lambda file: file.staged)


def build(record: RestoreRecord, contents: Sequence[Content], watch: Watch) -> RestoreRecord:
    """Write every file to its place below `record.building`, a folder that nobody knows yet, and read it back."""
    building, new_home = record.building, record.new_home
    assert building is not None  # noqa: S101
    assert new_home is not None  # noqa: S101
    return _all_written(record, contents, watch, lambda file: building / file.place.relative_to(new_home))


def _all_written(
    record: RestoreRecord, contents: Sequence[Content], watch: Watch, target_of: Callable[[PlacedFile], Path]
) -> RestoreRecord:
    total, done = sum(content.length for content in contents), 0
    written = []
    for file, content in zip(record.files, contents, strict=True):

        def seen(length: int, before: int = done) -> None:
            watch(before + length, total)

        target = target_of(file)
        files.private_folder(target.parent)
        written.append(_written(file, target, content, seen))
        done += content.length
    return replace(record, files=tuple(written), phase=Phase.SWAPPING)


def _written(file: PlacedFile, target: Path, content: Content, seen: Callable[[int], None]) -> PlacedFile:
    digest = hashlib.sha256()
    length = 0
    seen(0)

    def sink(block: bytes | bytearray | memoryview) -> None:
        nonlocal length
        digest.update(block)
        length += len(block)
        seen(length)

    # Nobody else has the name, so nothing is replaced; to ask for that would need hard links.
    with files.publishing(target, needed_bytes=content.length) as out:
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
    """Whether the file at the place is the one that was staged; it may have grown since.

    By its number alone: that of the disk may be another one after a power cut (LVM, btrfs, network drives).
    """
    try:
        return file.identity is not None and files.identity(file.place).inode == file.identity.inode
    except OSError:
        return False


def swap(record: RestoreRecord) -> None:
    """Give every staged file its name and keep the older ones beside them; may be done again after a kill."""
    for file in record.files:
        swapping.put_in_place(file.staged, file.place, file.kept)
    for aside in record.aside:
        swapping.set_aside(aside.place, aside.kept)


def give_back(record: RestoreRecord) -> None:
    """Undo `swap`: every file has the name again that it had before; may be done again after a kill."""
    for aside in record.aside:
        swapping.put_in_place(aside.kept, aside.place, None)
    for file in record.files:
        if file.kept is not None:
            swapping.put_in_place(file.kept, file.place, file.staged)
        elif not os.path.lexists(file.staged):
            swapping.set_aside(file.place, file.staged)


def call_off(record: RestoreRecord) -> None:
    """Leave no trace of a restore that has not given any file its name; may be done again after a kill.

    What an undo was going to put back is not ours to remove: it has its name as before.
    """
    if record.building is not None:
        with files.our_file(record.building):
            if record.building.is_dir():
                shutil.rmtree(record.building)
        return
    for file in record.files:
        swapping.called_off(file.staged, file.place, file.kept, remove=record.undoes is None)
        for torn in file.staged.parent.glob(f".{file.staged.name}.*{files.TEMPORARY_SUFFIX}"):
            files.remove(torn)
