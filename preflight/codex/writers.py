"""Who may append to a home's rollouts: the Codex processes that work on it, and the one that has a thread open.

A runtime keeps a loaded thread's rollout open for appending (0.128.0 to 0.169.0) and, since 0.147, holds
a lock beside it. The process table is read once a run; for a single thread it is read again only when
somebody has its rollout open.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from preflight.codex.runtime import RuntimeVersion, version_of
from preflight.model import Answer, Home, Role, Runtime, Thread, WriterState
from preflight.system import locks, processes
from preflight.system.processes import ProcessFacts

__all__ = ["loaded_threads", "nobody_writes", "runtimes_of", "writer_lock_path", "writer_of"]

_PROGRAM = "codex"
# Names of the programs in the release archives, as far as a process table shows them.
_PROGRAM_FRONTS = ("codex-x86_64-", "codex-aarch64-", "codex-app-server")
# Verbs that open no thread and end by themselves (`codex --help` of 0.128.0 to 0.169.0).
_NO_THREADS = frozenset(
    {"apply", "completion", "doctor", "features", "help", "login", "logout", "mcp", "plugin", "sandbox", "update"}
)
_NO_TERMINAL = frozenset({"exec-server", "mcp-server", "remote-control"})
_NO_SERVER = frozenset({"generate-json-schema", "generate-ts", "help", "proxy"})

_CLOCK_SECONDS = 2.0  # the start of a process is told in other ticks than the times of files


# ---- of a home ---------------------------------------------------------------------------------------------


def runtimes_of(home: Home) -> tuple[Runtime, ...]:
    """The Codex processes that work on this home, by pid.

    A process whose environment and open files we may not see (another user's) is told with an unknown
    role and no version: it may be of this home or not.
    """
    found = processes.processes_named(_PROGRAM)
    shells = frozenset(facts.pid for facts in found if _is_desktop(facts))

    @cache
    def database_users() -> frozenset[int]:
        paths = (path for path in (home.state_db, home.goals_db) if path is not None)
        return frozenset(processes.holders(*paths))

    def told() -> Iterator[Runtime]:
        for facts in found:
            role = _role(facts, shells)
            if role is None:
                continue
            belongs = _belongs(facts, home, database_users)
            if belongs is Answer.YES:
                yield _runtime(facts, role)
            elif belongs is Answer.UNKNOWN:
                yield Runtime(pid=facts.pid, version=None, role=Role.UNKNOWN, executable=None)

    return tuple(sorted(told(), key=lambda runtime: runtime.pid))


def _belongs(facts: ProcessFacts, home: Home, database_users: Callable[[], frozenset[int]]) -> Answer:
    """By CODEX_HOME where it is set, else by the default place, else by the databases it has open."""
    environment = facts.environment
    if environment is not None:
        named = environment.get("CODEX_HOME")
        if named:
            return _same_folder(Path(named), home.path)
        user = environment.get("HOME") or environment.get("USERPROFILE")
        if user and _same_folder(Path(user, ".codex"), home.path) is Answer.YES:
            return Answer.YES
    if facts.pid in database_users():
        return Answer.YES
    return Answer.UNKNOWN if environment is None else Answer.NO


def _same_folder(one: Path, other: Path) -> Answer:
    if not one.is_absolute():
        return Answer.UNKNOWN  # relative to a folder that the process may have left
    try:
        return Answer.YES if one.samefile(other) else Answer.NO
    except FileNotFoundError:
        return Answer.NO
    except OSError:
        return Answer.UNKNOWN


def _runtime(facts: ProcessFacts, role: Role) -> Runtime:
    version = _running_version(facts)
    return Runtime(
        pid=facts.pid,
        version=None if version is None else str(version),
        role=role,
        executable=facts.executable,
        started_at=facts.started_at,
    )


def _running_version(facts: ProcessFacts) -> RuntimeVersion | None:
    """The version that runs, which is not the one on the disk once an update has put another file in its place."""
    if facts.executable is None or facts.started_at is None:
        return None
    try:
        placed_at = facts.executable.stat().st_ctime
    except OSError:
        return None
    late = placed_at > facts.started_at + _CLOCK_SECONDS
    return None if late else version_of(facts.executable)


# ---- what a process is -------------------------------------------------------------------------------------


def _stem(facts: ProcessFacts) -> str:
    return facts.name[:-4] if facts.name.lower().endswith(".exe") else facts.name


def _is_desktop(facts: ProcessFacts) -> bool:
    """The desktop application's own process: an Electron program named `Codex`, where the runtime is `codex`."""
    return _stem(facts) == "Codex"


def _role(facts: ProcessFacts, shells: frozenset[int]) -> Role | None:
    """What kind of runtime a process is; None when it is none, or one that opens no threads.

    The desktop starts `app-server --analytics-default-enabled` on private pipes, the daemon is
    `app-server --listen unix://` or started by `app-server daemon` (0.128.0 to 0.169.0; issue #25914).
    """
    stem = _stem(facts)
    words = facts.arguments[1:]
    if stem == "codex-app-server":
        words = ("app-server", *words)
    elif stem != _PROGRAM and not stem.startswith(_PROGRAM_FRONTS):
        return None
    if "app-server" not in words:
        # A verb is told by its place: further on the same word may be a prompt, or an option's value.
        verb = words[0] if words else ""
        if verb in _NO_THREADS:
            return None
        return Role.UNKNOWN if verb in _NO_TERMINAL else Role.CLI
    words = words[words.index("app-server") + 1 :]
    if not _NO_SERVER.isdisjoint(words):
        return None
    if "daemon" in words or _listens(words):
        return Role.DAEMON
    if "--analytics-default-enabled" in words or facts.parent_pid in shells:
        return Role.DESKTOP
    return Role.UNKNOWN


def _listens(words: Sequence[str]) -> bool:
    for place, word in enumerate(words):
        option, _, value = word.partition("=")
        if option == "--listen":
            address = value or "".join(words[place + 1 : place + 2])
            return not address.startswith("stdio")
    return False


# ---- of a thread -------------------------------------------------------------------------------------------


def writer_lock_path(home: Home, thread_id: str) -> Path:
    """The lock that a runtime of 0.147 or later holds while it has the thread open."""
    return home.path / "thread-writer-locks" / f"{thread_id}.lock"


def loaded_threads(threads: Iterable[Thread], runtimes: Sequence[Runtime]) -> tuple[frozenset[str], tuple[int, ...]]:
    """The ids of the threads whose newest file a runtime has open, and the runtimes that could not be looked into.

    Costs a look into each runtime, whatever the number of threads; nothing where none runs.
    """
    opened = {runtime.pid: processes.open_files(runtime.pid) for runtime in runtimes}
    files = {file for found in opened.values() if found is not None for file in found}
    loaded = frozenset(
        thread.thread_id
        for thread in (threads if files else ())
        if thread.head is not None and (thread.head.identity.device, thread.head.identity.inode) in files
    )
    return loaded, tuple(pid for pid, found in opened.items() if found is None)


def writer_of(
    thread: Thread, runtimes: Sequence[Runtime], *, lock_is_ours: bool = False
) -> tuple[WriterState, tuple[Runtime, ...]]:
    """Whether somebody can append to the thread now, and who, as far as that can be told.

    LIVE: its lock is held or one of its own files is open for writing (a base that it shares with
    other threads does not count). NONE: neither, for certain. UNKNOWN: anything else, such as a file
    system that another system writes to. `lock_is_ours`: this process holds the writer lock itself, so
    only open files tell. Costs well under a millisecond where nobody does.
    """
    state, taken = _state(thread, lock_is_ours=lock_is_ours)
    return state, tuple(_named(taken, {runtime.pid: runtime for runtime in runtimes})) if taken else ()


def nobody_writes(thread: Thread) -> bool:
    """Whether it is certain that nobody can append to the thread; who could is not asked."""
    return _state(thread, lock_is_ours=False)[0] is WriterState.NONE


def _state(thread: Thread, *, lock_is_ours: bool) -> tuple[WriterState, list[Path]]:
    """The state, and the files that somebody holds."""
    lock = writer_lock_path(thread.home, thread.thread_id)
    files = [segment.file for segment in thread.lineage]
    own = [file for file in (*files, *thread.unlisted) if file.thread_id == thread.thread_id and not file.compressed]
    answers = {} if lock_is_ours else {lock: locks.lock_is_held(lock)}
    answers |= {file.path: processes.open_for_writing(file.path) for file in own}
    taken = [path for path, answer in answers.items() if answer is Answer.YES]
    if taken:
        return WriterState.LIVE, taken
    return WriterState.UNKNOWN if Answer.UNKNOWN in answers.values() else WriterState.NONE, []


def _named(paths: Iterable[Path], known: Mapping[int, Runtime]) -> Iterator[Runtime]:
    for pid in sorted({*processes.holders(*paths)} - {os.getpid()}):
        yield known.get(pid) or Runtime(pid=pid, version=None, role=Role.UNKNOWN, executable=None)
