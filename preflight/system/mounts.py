"""Which kind of file system a path lies on: some are written to by machines that we cannot see."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["filesystem_kind"]


def filesystem_kind(path: Path) -> str:
    """The kind as the system calls it (`ext4`, `9p`, `nfs4`, `apfs`, `NTFS`); `unknown` where it is not told.

    The path need not exist; symbolic links are followed.
    """
    place = os.path.realpath(path)
    best, kind = "", "unknown"
    for mount_point, name in _mounts():
        # Of two file systems on one mount point the later one is in sight.
        if len(mount_point) >= len(best) and _is_below(place, mount_point):
            best, kind = mount_point, name
    return kind


def _mounts() -> Iterator[tuple[str, str]]:
    if sys.platform == "linux":
        # proc(5), mountinfo: the fifth field is the mount point, the kind follows a lone hyphen. Blanks are in octal.
        try:
            lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
        except OSError:
            return
        for line in lines:
            front, _, back = line.partition(b" - ")
            point = front.split(b" ")[4].decode("unicode_escape").encode("latin-1")
            yield os.fsdecode(point), os.fsdecode(back.split(b" ")[0])
        return
    import psutil

    for partition in psutil.disk_partitions(all=True):
        yield partition.mountpoint, partition.fstype


def _is_below(place: str, mount_point: str) -> bool:
    return place == mount_point or place.startswith(mount_point.rstrip(os.sep) + os.sep)
