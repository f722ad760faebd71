"""What other processes do with a file, and which processes there are: yes, no, or unknown.

The processes of other users may not be looked into, so a scan says NO only of a file of our own:
others write to it with our permission only, and Codex runs as the user (0.128 to 0.169 let their
user look into them). What another kernel does with a shared folder (a Windows program below
`/mnt/c`, a second machine on a network drive) cannot be seen from here: there a NO becomes UNKNOWN.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from preflight.model import Answer
from preflight.system.mounts import filesystem_kind

if TYPE_CHECKING:
    import psutil

__all__ = [
    "ProcessFacts",
    "holders",
    "is_alive",
    "machine_memory_bytes",
    "open_files",
    "open_for_writing",
    "peak_memory_bytes",
    "processes_named",
    "start_token",
]

# File systems that only the kernel we run on can write to. Any other kind may have writers elsewhere.
_ONE_KERNEL = frozenset(
    {"apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs", "ntfs", "ntfs3", "overlay", "ramfs"}
    | {"refs", "tmpfs", "ufs", "xfs", "zfs"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """One process; None or empty is what we may not see. `started_at` in seconds since the epoch.

    `environment` holds secrets: it is kept out of `repr`, and only single names may be taken from it.
    """

    pid: int
    name: str
    executable: Path | None
    arguments: tuple[str, ...] = field(repr=False)
    parent_pid: int | None
    started_at: float | None
    environment: Mapping[str, str] | None = field(repr=False)


def open_for_writing(path: Path) -> Answer:
    """Tell whether any process has the file open for writing, in well under a millisecond where leases exist.

    Linux: a read lease is granted only when nobody has the file open for writing, whatever name or
    mount it was opened by (fcntl(2), F_SETLEASE). It is given back at once; a writer that opens the
    file within these microseconds waits for them and is not disturbed. Where leases do not exist or
    are refused, the processes of this user are looked through. A missing file has no writer.

    Never for databases: opening and closing one here would drop the locks that SQLite holds on it in
    this process. Raises ValueError for them.
    """
    if ".sqlite" in path.name:
        raise ValueError("a database is opened through SQLite only")
    try:
        leased = _lease_granted(path)
    except FileNotFoundError:
        return Answer.NO
    except OSError:
        leased = None
    if leased is False:
        return Answer.YES
    if leased is None:
        found, complete = _writers((path,))
        if found:
            return Answer.YES
        if not complete:
            return Answer.UNKNOWN
    return Answer.NO if filesystem_kind(path).lower() in _ONE_KERNEL else Answer.UNKNOWN


def holders(*paths: Path) -> tuple[int, ...]:
    """The processes that have any of the files open for writing, as far as this user may look; by inode on Linux.

    One look through all processes, some milliseconds, however many files. Also for databases: none is opened.
    """
    return _writers(paths)[0]


def open_files(pid: int) -> frozenset[tuple[int, int]] | None:
    """The files that a process has open, by device and inode; None when it may not be looked into.

    One that is gone has none.
    """
    if sys.platform == "linux":
        folder = f"/proc/{pid}/fd"
        try:
            paths = [f"{folder}/{name}" for name in os.listdir(folder)]  # noqa: PTH208 -- thousands of entries
        except (FileNotFoundError, ProcessLookupError):
            return frozenset()
        except OSError:
            return None
    else:
        import psutil

        try:
            paths = [file.path for file in psutil.Process(pid).open_files()]
        except psutil.NoSuchProcess:
            return frozenset()
        except (psutil.AccessDenied, OSError):
            return None
    found = set()
    for path in paths:
        with suppress(OSError):  # closed while we looked
            facts = os.stat(path)  # noqa: PTH116
            found.add((facts.st_dev, facts.st_ino))
    return frozenset(found)


if sys.platform == "linux":
    import fcntl
    import signal

    def _lease_granted(path: Path) -> bool | None:
        """True: nobody has it open for writing. False: somebody has. None: no leases here. OSError: cannot be opened.

        The kernel tells the lease's holder about a writer by a signal, SIGIO unless told otherwise,
        which ends a process that does not expect it. SIGURG is ignored by default: asking for that one
        needs no handler, which only the main thread could set.
        """
        # O_NONBLOCK: another process's lease on it would make this open wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            return False if error.errno == errno.EAGAIN else None
        else:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            return True
        finally:
            os.close(descriptor)

    def _writers(paths: Sequence[Path]) -> tuple[tuple[int, ...], bool]:
        """Who has one of the inodes open for writing, and whether all processes of this user could be looked into."""
        own, found, wanted, complete = os.geteuid(), [], set(), True
        for path in paths:
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue
            except OSError:
                complete = False
                continue
            wanted.add((facts.st_dev, facts.st_ino))
            complete = complete and own in {0, facts.st_uid}
        if not wanted:
            return (), complete
        for entry in os.scandir("/proc"):
            if not entry.name.isdecimal():
                continue
            try:
                if _writes(entry.path, wanted):
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
            except OSError:
                complete = complete and not _belongs_to(entry, own)
        return tuple(sorted(found)), complete

    def _writes(process: str, wanted: set[tuple[int, int]]) -> bool:
        for name in os.listdir(f"{process}/fd"):  # noqa: PTH208 -- thousands of entries, names are all we need
            try:
                facts = os.stat(f"{process}/fd/{name}")  # noqa: PTH116
                if (facts.st_dev, facts.st_ino) not in wanted or not stat.S_ISREG(facts.st_mode):
                    continue
                with open(f"{process}/fdinfo/{name}", "rb") as info:  # noqa: PTH123
                    flags = next((line for line in info if line.startswith(b"flags:")), b"flags:\t02")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY:
                return True
        return False

    def _may_be_named(wanted: str) -> list[int]:
        """The processes whose name may begin so, by the 15 bytes that the kernel keeps of it (proc(5), comm).

        On most machines that is none or a few, and psutil, whose import costs more than this, is not needed.
        """
        front = os.fsencode(wanted)[:15]
        found = []
        for entry in os.scandir("/proc"):
            if entry.name.isdecimal():
                with suppress(OSError):  # it ended while we looked, or is hidden from us
                    if Path(entry.path, "comm").read_bytes().lower().startswith(front):
                        found.append(int(entry.name))
        return sorted(found)

    def _belongs_to(entry: os.DirEntry[str], user: int) -> bool:
        """By the real user in `status`: a program that has made itself unreadable hides behind root everywhere else."""
        try:
            status = Path(entry.path, "status").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False
        except OSError:
            return True
        users = next((line.split()[1:] for line in status.splitlines() if line.startswith(b"Uid:")), [])
        return str(user).encode() in users

else:

    def _lease_granted(path: Path) -> bool | None:
        path.stat()
        return None

    def _writers(paths: Sequence[Path]) -> tuple[tuple[int, ...], bool]:
        """As on Linux, but by path, and whoever has it open counts: what for is not told here."""
        import psutil

        wanted, found = {os.path.realpath(path) for path in paths}, []
        own = psutil.Process().username()
        complete = sys.platform == "win32" or all(
            os.geteuid() in {0, path.stat().st_uid} for path in paths if path.exists()
        )
        for process in psutil.process_iter():
            try:
                if any(os.path.realpath(file.path) in wanted for file in process.open_files()):
                    found.append(process.pid)
            except psutil.NoSuchProcess:
                continue
            except (psutil.AccessDenied, OSError):
                complete = complete and not _runs_as(process, own)
        return tuple(sorted(found)), complete

    def _may_be_named(wanted: str) -> list[int]:  # noqa: ARG001
        """Every process: their names are asked for one by one."""
        import psutil

        return psutil.pids()

    def _runs_as(process: psutil.Process, user: str) -> bool:
        import psutil

        try:
            return process.username() == user
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return False  # not even its owner is told: a process of the system


def processes_named(stem: str) -> list[ProcessFacts]:
    """The processes whose program name is `stem` or begins with `stem-`, in any case, with or without `.exe`."""
    wanted = stem.lower()
    pids = _may_be_named(wanted)
    if not pids:
        return []
    import psutil

    found = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            name = process.name()
            short = name.lower().removesuffix(".exe")
            if (short == wanted or short.startswith(f"{wanted}-")) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(_facts(process, name))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended while we looked, or is a process of the system whose name is not told
    return found


def _facts(process: psutil.Process, name: str) -> ProcessFacts:
    import psutil

    facts = process.as_dict(["exe", "cmdline", "ppid", "create_time", "environ"], ad_value=None)
    if not process.is_running():
        raise psutil.NoSuchProcess(process.pid)
    return ProcessFacts(
        pid=process.pid,
        name=name,
        executable=Path(facts["exe"]) if facts["exe"] else None,
        arguments=tuple(facts["cmdline"] or ()),
        parent_pid=facts["ppid"],
        started_at=facts["create_time"],
        environment=facts["environ"],
    )


def peak_memory_bytes(pid: int) -> int | None:
    """The most memory the process has had resident so far; None when it is gone or the system does not tell."""
    if sys.platform == "linux":
        try:
            status = Path(f"/proc/{pid}/status").read_bytes()
        except OSError:
            return None
        kilobytes = next((line.split()[1] for line in status.splitlines() if line.startswith(b"VmHWM:")), None)
        return None if kilobytes is None else int(kilobytes) * 1024
    if sys.platform == "win32":
        import psutil

        try:
            return int(psutil.Process(pid).memory_info().peak_wset)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return None
    return None


def machine_memory_bytes() -> int:
    """Memory that programs here can have: what the machine has, or less where a control group limits us."""
    if sys.platform == "linux":
        installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return min([installed, *_group_limits()])
    import psutil

    return psutil.virtual_memory().total


_GROUPS_OF_OURS = Path("/proc/self/cgroup")
_GROUP_ROOT = Path("/sys/fs/cgroup")


def _group_limits() -> Iterator[int]:
    """The limits of our control group and of those above it, cgroup versions 2 and 1 (cgroups(7))."""
    try:
        groups = _GROUPS_OF_OURS.read_text().splitlines()
    except OSError:
        return
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers == "":
            root, name = _GROUP_ROOT, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = _GROUP_ROOT / "memory", "memory.limit_in_bytes"
        else:
            continue
        # Inside a container the path may be the host's: then only the root is there.
        folder = Path(os.path.normpath("/" + path.lstrip("/"))).relative_to("/")
        for place in (root / folder, *((root / parent) for parent in folder.parents)):
            try:
                limit = (place / name).read_text().strip()
            except OSError:
                continue
            if limit.isdecimal():
                yield int(limit)


def start_token(pid: int) -> str | None:
    """A word that tells this process from a later one with the same pid; None when there is none or it is hidden."""
    if sys.platform == "linux":
        fields = _stat_fields(pid)
        if fields is None:
            return None
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{fields[19]}"
    import psutil

    try:
        return repr(psutil.Process(pid).create_time())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def is_alive(pid: int, token: str | None) -> Answer:
    """Tell whether the process that had this start token still runs; UNKNOWN when it has no token to compare."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return Answer.NO
    except psutil.NoSuchProcess:
        return Answer.NO
    except psutil.AccessDenied:
        return Answer.UNKNOWN
    now = start_token(pid)
    if token is None or now is None:
        return Answer.UNKNOWN
    return Answer.YES if now == token else Answer.NO


def _stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on: the name before them may hold blanks and brackets (proc(5))."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="surrogateescape")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
