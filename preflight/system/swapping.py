"""A file takes the place of another one, which is kept beside it under another name: never is neither of them there.

The older file gets its second name by a hard link before the newer one is renamed over the first, so
that no reader ever finds the place empty. Where the file system has no hard links it is renamed away
instead, and for one moment the place is empty; whoever is killed in it finds both files beside the place.
Every step may be done again after a kill. All names lie in one folder, so every rename is atomic.

Errors: Unverified when a name is taken by a file that is none of ours, or when the system refuses.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from preflight.errors import Unverified
from preflight.system import files

__all__ = ["called_off", "put_in_place", "set_aside"]

_NO_LINKS = frozenset({errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def put_in_place(staged: Path, place: Path, kept: Path | None) -> None:
    """Give the finished file `staged` the name `place`; what was there is `kept` afterwards.

    Nothing happens when `staged` is gone: an earlier call did it. With `kept` None nothing may be there:
    a file that somebody else has put there meanwhile stays, and is an error.
    """
    with files.our_file(place):
        if not os.path.lexists(staged):
            return
        if kept is None:
            _name_if_free(staged, place)
        else:
            if os.path.lexists(place):
                _second_name(place, kept)
            staged.replace(place)
    files.sync_folder(place.parent)


def set_aside(place: Path, kept: Path) -> None:
    """Give the file at `place` the name `kept` instead; nothing happens when nothing is there any more."""
    with files.our_file(place):
        if not os.path.lexists(place):
            return
        if os.path.lexists(kept):
            raise Unverified("the name to keep it under is taken", path=kept)
        place.rename(kept)
    files.sync_folder(place.parent)


def called_off(staged: Path, place: Path, kept: Path | None, *, remove: bool) -> None:
    """Undo what `put_in_place` had done before `staged` lost its name; with `remove`, take `staged` away too."""
    with files.our_file(place):
        if kept is not None and os.path.lexists(kept):
            if not os.path.lexists(place):
                kept.rename(place)
            elif _same(place, kept):
                kept.unlink()
        if kept is None and os.path.lexists(staged) and os.path.lexists(place) and _same(staged, place):
            place.unlink()
        if remove and os.path.lexists(staged):  # on a read-only disk even removing nothing is refused
            staged.unlink()
    if place.parent.is_dir():
        files.sync_folder(place.parent)


def _name_if_free(staged: Path, place: Path) -> None:
    if os.path.lexists(place):
        if not _same(staged, place):  # the same: killed between its second name and the end of its first
            raise Unverified("somebody else has put a file there meanwhile", path=place)
    else:
        try:
            os.link(staged, place)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Somebody may make the file between our look and this; without hard links no call refuses a taken name.
            staged.rename(place)
            return
    staged.unlink()


def _second_name(place: Path, kept: Path) -> None:
    if os.path.lexists(kept):
        if not _same(place, kept):
            raise Unverified("somebody else has put a file there meanwhile", path=place)
        return
    try:
        os.link(place, kept)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        place.rename(kept)
    files.sync_folder(place.parent)  # both names are on the disk before one of them gets other bytes


def _same(one: Path, other: Path) -> bool:
    return os.path.samestat(one.lstat(), other.lstat())
