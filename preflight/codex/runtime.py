"""Codex releases: how they are numbered, what each of them does with a home, and where a program of one is.

Every capability names the releases it was seen with; between the last release that lacks a thing and
the first that has it the answer is the unsafe one. An alpha comes before its release and may already do
what the release does, so it counts as "not yet known".
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from preflight.errors import TimeLimitReached, UsageProblem
from preflight.model import Answer, HistoryMode, Role, Runtime
from preflight.system import children

__all__ = [
    "CodexBinary",
    "ResumeCost",
    "RuntimeVersion",
    "codex_binary",
    "drops_goals",
    "find_binary",
    "has_writer_lock",
    "reads_paginated",
    "resume_cost",
    "resume_reactivates_paused",
    "version_in_use",
    "version_of",
    "windows_needs",
]

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:-((?!(?:linux|darwin|win32)\b)[0-9A-Za-z.]+))?")
_ASK_SECONDS = 5.0
_MB = 10**6
_PACKAGE_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True, order=True)
class RuntimeVersion:
    """`0.169.0` or `0.150.0-alpha.8`, in the order of semantic versions: an alpha is older than its release."""

    numbers: tuple[int, int, int]
    is_release: bool = True
    suffix: tuple[tuple[int, str], ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> RuntimeVersion | None:
        """The first version in a text such as `codex-cli 0.128.0` or `codex/0.169.0 (Linux)`; None without one.

        npm's platform packages are `0.169.0-linux-x64`; that is no pre-release.
        """
        found = _VERSION.search(text or "")
        if found is None:
            return None
        major, minor, patch, suffix = found.groups()
        parts = re.split(r"\.", suffix.strip(".")) if suffix else []
        return cls(
            numbers=(int(major), int(minor), int(patch)),
            is_release=not parts,
            suffix=tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts),
        )

    def __str__(self) -> str:
        numbers = ".".join(map(str, self.numbers))
        return numbers if self.is_release else f"{numbers}-{'.'.join(word or str(n) for n, word in self.suffix)}"


def version_in_use(runtimes: Iterable[Runtime], binary: CodexBinary | None) -> RuntimeVersion | None:
    """The version of the newest runtime that runs, else that of `binary`, which would be started; None without both."""
    running = [version for runtime in runtimes if (version := RuntimeVersion.parse(runtime.version)) is not None]
    if running:
        return max(running)
    return binary.version if binary is not None else None


def _at_least(version: RuntimeVersion | None, major: int, minor: int) -> bool:
    return version is not None and version >= RuntimeVersion((major, minor, 0))


# ---- what a release does -----------------------------------------------------------------------------------


def has_writer_lock(version: RuntimeVersion | None) -> bool:
    """Whether it locks `thread-writer-locks/<id>.lock` of a loaded thread: seen with 0.147.0, not with 0.144.6."""
    return _at_least(version, 0, 147)


def reads_paginated(version: RuntimeVersion | None) -> bool:
    """Whether it resumes a paginated rollout without reading all of it: seen with 0.154.0, not with 0.150.1."""
    return _at_least(version, 0, 154)


def resume_reactivates_paused(version: RuntimeVersion | None) -> bool:
    """Whether `thread/resume` makes a paused goal active and starts its loop: seen with 0.128.0, not with 0.134.0."""
    return not _at_least(version, 0, 134)


def drops_goals(source: RuntimeVersion | None, target: RuntimeVersion | None) -> Answer:
    """Whether the target, opening a home of the source, deletes its goals.

    0.128.0 keeps them in the state database; 0.134.0 and later drop that table and copy nothing (state
    migrations 33 and 34, seen with 0.134.0, 0.147.0 and 0.169.0). From 0.134.0 on they stay.
    """
    if _at_least(source, 0, 134):
        return Answer.NO
    if source is None or target is None:
        return Answer.UNKNOWN
    old = RuntimeVersion((0, 129, 0))
    if source < old:
        if target < old:
            return Answer.NO
        return Answer.YES if _at_least(target, 0, 134) else Answer.UNKNOWN
    return Answer.UNKNOWN


@dataclass(frozen=True, slots=True)
class ResumeCost:
    """What `thread/resume` needs at its peak: `base_bytes` plus `factor` times the thread's bytes."""

    factor: float
    base_bytes: int

    def of(self, size_bytes: int) -> int:
        """The estimate for a thread of this size, in bytes."""
        return self.base_bytes + round(self.factor * size_bytes)


_BASE_BYTES = 150 * _MB  # 0.169.0 with a small thread; 0.134.0 stays below 70 MB
_WHOLE_IN_MEMORY = ResumeCost(5.7, _BASE_BYTES)  # 0.134.0: 5,459 MiB for 1,000 MB, 2,755 MiB for 500 MB
_ALL_ITEMS = ResumeCost(5.2, _BASE_BYTES)  # 0.144.6 with many small lines; 1.0 with few large ones
_REVERSE_SCAN = ResumeCost(0.1, _BASE_BYTES)  # 0.169.0: 150 MiB at 10 MB and at 3,000 MB once it is projected


def resume_cost(version: RuntimeVersion | None, mode: HistoryMode) -> ResumeCost:
    """The upper end of what was measured (0.128.0 to 0.169.0); of a version that is not known, the worst."""
    if not _at_least(version, 0, 144):
        return _WHOLE_IN_MEMORY
    if mode is HistoryMode.PAGINATED and reads_paginated(version):
        return _REVERSE_SCAN
    return _ALL_ITEMS


# ---- where a program is ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CodexBinary:
    """A Codex program that can be started as it is; `version` is None when neither its package nor it would tell."""

    path: Path
    version: RuntimeVersion | None


_ROLES = (Role.DESKTOP, Role.DAEMON, Role.CLI, Role.UNKNOWN)


def find_binary(explicit: Path | None, env: Mapping[str, str], runtimes: Sequence[Runtime]) -> CodexBinary | None:
    """The Codex to ask: the given one, else the one that is running on this home, else `codex` on the PATH.

    None when there is none. UsageProblem when the given one cannot be started. Of several running ones
    the desktop's counts before the daemon's and the terminal's.
    """
    if explicit is not None:
        if not _is_program(explicit):
            raise UsageProblem(
                "there is no program at this place", path=explicit, hint="give the path of a codex: --runtime PATH"
            )
        return codex_binary(explicit)
    for runtime in sorted(runtimes, key=lambda r: _ROLES.index(r.role)):
        if runtime.executable is not None and _is_program(runtime.executable):
            return codex_binary(runtime.executable)
    found = shutil.which("codex", path=env.get("PATH", ""))
    return codex_binary(Path(found)) if found else None


def codex_binary(path: Path) -> CodexBinary:
    """The program behind this path, and its version: from the package around it, else by asking it.

    npm puts a script on the PATH that starts the native program of a second package; we want that
    one, because it needs no Node and is the process that can be measured and ended.
    """
    program = _behind_npm(path) or path
    return CodexBinary(program, version_of(program))


def version_of(program: Path) -> RuntimeVersion | None:
    """The version of a native program: of the package around it, else of itself, which is asked once."""
    try:
        facts = program.stat()
    except OSError:
        return None
    return _version_of(program, facts.st_ino, facts.st_ctime_ns)


@functools.cache
def _version_of(program: Path, _inode: int, _placed_ns: int) -> RuntimeVersion | None:
    # An update puts another file in its place while we run (`preflight guard`): that one is asked anew.
    return _version_beside(program) or _asked(program)


def _version_beside(program: Path) -> RuntimeVersion | None:
    """What the package around a program says, without starting it; None when it lies in no Codex package.

    `codex-package.json` since 0.134; npm's `package.json` in all releases (seen with 0.128.0 to 0.169.0).
    """
    try:
        folders = program.resolve(strict=True).parents[:5]
    except (OSError, RuntimeError):
        return None
    for folder in folders:
        layout = _read_json(folder / "codex-package.json")
        if "version" in layout:
            return RuntimeVersion.parse(str(layout["version"]))
        package = _read_json(folder / "package.json")
        if str(package.get("name", "")).startswith("@openai/codex"):
            return RuntimeVersion.parse(str(package.get("version")))
    return None


def _asked(program: Path) -> RuntimeVersion | None:
    """Its answer to `--version`, in an empty folder as its home, so that it cannot find anybody's."""
    with tempfile.TemporaryDirectory(prefix="codex-preflight-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        env = {"CODEX_HOME": name, "HOME": name, "USERPROFILE": name, "PATH": os.defpath, **windows_needs(os.environ)}
        try:
            said = children.run([str(program), "--version"], env=env, cwd=folder, timeout=_ASK_SECONDS)
        except (OSError, TimeLimitReached):
            return None
    return RuntimeVersion.parse(said.stdout.decode(errors="replace")) if said.returncode == 0 else None


def windows_needs(env: Mapping[str, str]) -> dict[str, str]:
    """The variables without which no program starts there; none of them exists elsewhere."""
    return {name: env[name] for name in ("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC") if name in env}


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _behind_npm(path: Path) -> Path | None:
    """The native program that npm's `codex` starts, or None when the path is not npm's.

    npm links to `@openai/codex/bin/codex.js`; its Windows shim lies beside `node_modules`. The program
    lies in the platform's package, `vendor/<target>/bin/codex` (0.134 and later) or
    `vendor/<target>/codex/codex` (0.128), beside or below the main package, or in it (older ones).
    """
    for package in _npm_packages(path):
        for vendor in _vendor_folders(package):
            for place in ("*/bin/codex", "*/codex/codex", "*/bin/codex.exe", "*/codex/codex.exe"):
                for program in sorted(vendor.glob(place)):
                    if _is_program(program):
                        return program
    return None


def _npm_packages(path: Path) -> Iterator[Path]:
    try:
        script = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return
    if script.name == "codex.js" and script.parent.name == "bin":
        yield script.parents[1]
    shim = path.parent / "node_modules" / "@openai" / "codex"
    if path.suffix.lower() in {".cmd", ".ps1"} and shim.is_dir():
        yield shim


def _vendor_folders(package: Path) -> Iterable[Path]:
    beside = package.parent.glob("codex-*/vendor")
    below = package.glob("node_modules/@openai/codex-*/vendor")
    return [*sorted(below), *sorted(beside), package / "vendor"]


def _read_json(path: Path) -> Mapping[str, object]:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_PACKAGE_LIMIT))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
