"""A corner of this machine in which real schedulers may run: mounts and processes of its own.

Inside, root's home folder is the one that the test names, cron's tables are empty, and `/run` is new;
what the real user has scheduled is neither seen nor touched. When the corner is left, everything
that runs in it has ended. Needs Linux and root; a test that cannot have it says why (tests/needs.py).
"""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.needs import cannot_be_had

ROOT = Path(__file__).resolve().parents[1]
# Where systemd keeps its groups of processes, in the three ways in which a machine may be set up.
_CGROUPS = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup/systemd")]

_SET_UP = """
set -e
home=$1 state=$2
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/user/0
chmod 700 /run/user/0
sed "s,^root:\\(.*\\):[^:]*:\\([^:]*\\)$,root:\\1:$home:\\2," /etc/passwd >"$state/passwd"
mount --bind "$state/passwd" /etc/passwd
mkdir "$state/sbin"
mount --bind /usr/sbin "$state/sbin"
mount -t tmpfs tmpfs /usr/sbin
ln -s "$state"/sbin/* /usr/sbin/
rm -f /usr/sbin/sendmail # what cron calls when a job has printed something
printf '#!/bin/sh\nexec cat >>"%s/mail"\n' "$state" >/usr/sbin/sendmail
chmod 755 /usr/sbin/sendmail
if [ -d /var/spool/cron ]; then
    mkdir -p "$state/cron/crontabs" "$state/empty"
    chmod 1730 "$state/cron/crontabs"
    mount --bind "$state/cron" /var/spool/cron
    mount --bind "$state/empty" /etc/cron.d
    mount --bind /dev/null /etc/crontab
fi
for tree in /sys/fs/cgroup/*/cgroup.procs; do # what we have no group of our own in stays as it is
    case $tree in */unified/* | */systemd/*) ;; *) mount -o remount,bind,ro "${tree%/*}" 2>/dev/null || true ;; esac
done
echo ready
exec sleep infinity
"""


@dataclass(frozen=True, kw_only=True)
class Corner:
    home: Path
    python: Path
    init: int
    cgroups: list[Path]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, *argv: str | Path) -> list[str]:
        return ["nsenter", "--target", str(self.init), "--mount", "--pid", "--", *map(str, argv)]

    @property
    def env(self) -> dict[str, str]:
        runtime = "/run/user/0"
        return {
            "HOME": str(self.home),
            "PATH": os.defpath + ":/usr/sbin:/sbin",
            "USER": "root",
            "XDG_RUNTIME_DIR": runtime,
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
        }

    def run(self, *argv: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*argv), env=self.env, capture_output=True, text=True, cwd=self.home)

    def start(self, *argv: str | Path) -> subprocess.Popen[bytes]:
        """A program that goes on until the corner is left, in groups of processes that go with it."""
        joins = [f"echo $$ >{group}/cgroup.procs" for group in self.cgroups]
        words = ["sh", "-c", " && ".join([*joins, 'exec "$@"']), "sh", *argv]
        with (self.home.parent / "started.log").open("ab") as log:
            self.started.append(
                subprocess.Popen(self.command(*words), env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )
        return self.started[-1]

    def mail(self) -> str:
        """Everything that was mailed to anybody in here."""
        box = self.home.parent / "state/mail"
        return box.read_text() if box.exists() else ""

    def preflight(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(self.python, "-P", "-m", "preflight", *words)


def own_python(folder: Path) -> Path:
    """An environment of its own with this preflight in it, as an installation has one."""
    packages = folder / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    packages.mkdir(parents=True)
    places = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
    (packages / "preflight-test.pth").write_text("\n".join(places) + "\n")
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
    python = folder / "bin/python"
    python.parent.mkdir()
    python.symlink_to(base)
    return python


@contextmanager
def corner(folder: Path, *programs: str) -> Iterator[Corner]:
    """Lends the corner to a test that needs these programs."""
    path = os.defpath + ":/usr/sbin:/sbin:/lib/systemd:/usr/lib/systemd"
    missing = [name for name in ("unshare", "nsenter", *programs) if shutil.which(name, path=path) is None]
    if missing or sys.platform != "linux" or os.geteuid() != 0:
        cannot_be_had(f"needs root on Linux and {', '.join(missing) or 'namespaces'}")
    home, state = folder / "user", folder / "state"
    home.mkdir()
    state.mkdir()
    python = own_python(home / "its own, 100% $HOME & more")
    own = f"preflight-test-{secrets.token_hex(4)}"
    cgroups = [path / own for path in _CGROUPS if (path / "cgroup.procs").exists()]
    words = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    process = subprocess.Popen(
        ["unshare", *words, "sh", "-c", _SET_UP, "sh", str(home), str(state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started: list[subprocess.Popen[bytes]] = []
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() != "ready\n":
            cannot_be_had(f"no namespaces here: {process.stderr.read().strip()}")
        init = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
        try:
            for group in cgroups:
                group.mkdir()
        except OSError as error:
            cannot_be_had(f"no group of processes can be made here: {error}")
        yield Corner(home=home, python=python, init=int(init), cgroups=cgroups, started=started)
    finally:
        process.kill()
        process.communicate()
        for child in started:
            child.wait()
        for group in cgroups:
            wait_for(functools.partial(_removed, group), "the group of processes is empty")


def _removed(group: Path) -> bool:
    try:
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()
    except OSError:  # somebody in it has not quite ended
        return False
    return True


def wait_for(what: Callable[[], object], promise: str, seconds: float = 150) -> None:
    """Waits until `what()` is true; the limit only keeps a broken promise from waiting for ever."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"not within {seconds} s: {promise}"
        time.sleep(0.1)
