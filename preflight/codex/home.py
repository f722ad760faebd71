"""Codex homes: which there are, where their databases lie, and the name that the store gives them.

`CODEX_HOME`, else `~/.codex`. The databases lie in `sqlite_home` of config.toml (relative to the
home, `~` allowed), else in `CODEX_SQLITE_HOME`, else in the home; an empty value counts as unset
(seen on 0.134 and 0.169). Of each database the one with the highest number counts. Nothing here
writes, and no database is opened.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from preflight.codex.paths import is_same, local_folder
from preflight.errors import HomeRefused, UsageProblem
from preflight.model import Answer, Finding, Home, Severity
from preflight.system import processes

__all__ = ["durable_databases", "find_homes", "shared_files"]

# `memories_v2_1.sqlite` (0.169) shows that a second layout may get a `v2` in its name.
_DATABASE = re.compile(r"(state|goals|thread_history)_(?:v(\d+)_)?(\d+)\.sqlite")
# A projection is rebuilt from rollouts, logs are nobody's work: neither is worth a copy of a gigabyte.
_REBUILT = ("thread_history_", "logs_")
_ANY_DATABASE = re.compile(r"[a-z_]+(?:_v\d+)?_\d+\.sqlite")
_ROLLOUT_FOLDERS = ("sessions", "archived_sessions")


def find_homes(explicit: Sequence[Path], env: Mapping[str, str], user_home: Path) -> tuple[list[Home], list[str]]:
    """The homes to look at, each once whatever its spellings, and sentences on what could not be looked at.

    Those of `explicit` if there are any, else `CODEX_HOME`, else `~/.codex` of `user_home`. Only the
    last may be missing: then there is no home, and a sentence that says so. Raises UsageProblem for an
    explicit home that does not exist, HomeRefused for one that is no folder or cannot be read, or whose
    databases lie where we cannot find them: without them no goal can be seen.
    """
    if explicit:
        folders = [_absolute(path, user_home) for path in explicit]
        for folder in folders:
            if not os.path.lexists(folder):
                raise UsageProblem(f"there is no Codex home {folder}", path=folder, hint="give an existing folder")
    elif env.get("CODEX_HOME"):
        folders = [_absolute(Path(env["CODEX_HOME"]), user_home)]
    else:
        folders = [user_home / ".codex"]
        if not os.path.lexists(folders[0]):
            return [], [f"there is no Codex home: {folders[0]} does not exist and CODEX_HOME is not set"]
    homes: dict[str, Home] = {}
    not_checked: list[str] = []
    for folder in folders:
        home = _read_home(folder, env, user_home, not_checked)
        homes.setdefault(home.home_id, home)
    return list(homes.values()), not_checked


def durable_databases(home: Home) -> tuple[Path, ...]:
    """Every Codex database whose content cannot be rebuilt, by name: state, goals, memories, queue and what comes.

    Left out are projections of rollouts and logs (0.128 to 0.169). Raises OSError.
    """
    names = sorted(entry.name for entry in os.scandir(home.sqlite_home) if entry.is_file())
    return tuple(
        home.sqlite_home / name
        for name in names
        if _ANY_DATABASE.fullmatch(name) is not None and not name.startswith(_REBUILT)
    )


def shared_files(homes: Sequence[Home]) -> tuple[Finding, ...]:
    """A finding for each pair of homes that keep threads or databases in the same folder.

    Two runtimes on such homes see each other's threads, and what is done to one home is done to both.
    """
    findings = []
    places = [(home, _places(home)) for home in homes]
    for (one, one_places), (other, other_places) in combinations(places, 2):
        shared = sorted(one_places[key] for key in one_places.keys() & other_places.keys())
        if shared:
            findings.append(
                Finding(
                    finding_id="homes-share-files",
                    severity=Severity.WARN,
                    cause=f"{one.path} and {other.path} share {', '.join(shared)}",
                    measured=len(shared),
                    expected=0,
                    remedy="close every Codex of both homes before an update, and look at both after it",
                    path=other.path,
                )
            )
    return tuple(findings)


def _places(home: Home) -> dict[tuple[int, int], str]:
    found = {}
    folders = [home.path / name for name in _ROLLOUT_FOLDERS]
    for path in (*folders, *filter(None, (home.state_db, home.goals_db))):
        try:
            status = path.stat()
        except OSError:
            continue  # not there, or not to be seen: the scan of that home says so
        found[status.st_dev, status.st_ino] = path.name
    return found


def _absolute(path: Path, user_home: Path) -> Path:
    return Path(os.path.abspath(_with_home(os.fspath(path), user_home)))  # noqa: PTH100 -- links stay as they are spelled


def _with_home(text: str, user_home: Path) -> str:
    return str(user_home / text[2:]) if text == "~" or text.startswith(("~/", "~\\")) else text


def _read_home(folder: Path, env: Mapping[str, str], user_home: Path, not_checked: list[str]) -> Home:
    databases = _databases(folder, "the Codex home")
    configured = _configured(folder)
    sqlite_home = _sqlite_home(folder, configured, env, user_home)
    if not is_same(sqlite_home, folder):
        if databases and configured is None:
            # A runtime that was started without the variable, a desktop say, goes on using these.
            not_checked.append(f"the databases in {folder}: CODEX_SQLITE_HOME names {sqlite_home}")
        databases = _databases(sqlite_home, "the folder of the databases")
    return Home(
        path=folder,
        sqlite_home=sqlite_home,
        home_id=_home_id(folder),
        state_db=databases.get("state"),
        goals_db=databases.get("goals"),
        history_db=databases.get("thread_history"),
        daemon_updater=_daemon_updater(folder / "app-server-daemon"),
    )


def _databases(folder: Path, what: str) -> dict[str, Path]:
    """The newest database of each kind in a folder; HomeRefused when it cannot be listed."""
    newest: dict[str, tuple[tuple[int, int], Path]] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found = _DATABASE.fullmatch(entry.name)
                if found is None or not entry.is_file():
                    continue
                number = (int(found[2] or 1), int(found[3]))
                if found[1] not in newest or number > newest[found[1]][0]:
                    newest[found[1]] = (number, folder / entry.name)
    except NotADirectoryError:
        raise HomeRefused(f"{what} {folder} is not a folder", path=folder, hint="give the folder, not a file") from None
    except OSError as error:
        raise HomeRefused(
            f"{what} {folder} cannot be read: {error.strerror or error}",
            path=folder,
            hint="look at the path and its owner",
        ) from None
    return {kind: path for kind, (_, path) in newest.items()}


def _sqlite_home(home: Path, configured: str | None, env: Mapping[str, str], user_home: Path) -> Path:
    named = env.get("CODEX_SQLITE_HOME", "").strip()
    if configured is None and not named:
        return home
    text = _with_home(configured or named, user_home)
    if configured is None and local_folder(text) is None and not Path(text).is_absolute():
        # Codex takes it from the folder that each runtime is started in (0.134, 0.169), which we cannot know.
        raise HomeRefused(
            f"CODEX_SQLITE_HOME is not an absolute path: {named}", path=Path(named), hint="give it as an absolute path"
        )
    literal = _absolute(home / text, user_home)
    return literal if literal.is_dir() else local_folder(text) or literal


def _configured(home: Path) -> str | None:
    """`sqlite_home` of config.toml, None when it is not set; the file is parsed only when it has the word in it."""
    path = home / "config.toml"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HomeRefused(f"{path} cannot be read: {error.strerror}", path=path, hint="look at its owner") from None
    if b"sqlite_home" not in data:
        return None
    import tomllib

    try:
        value = tomllib.loads(data.decode("utf-8-sig")).get("sqlite_home")
    except ValueError:
        raise HomeRefused(
            f"{path} is not valid TOML, so where the databases are is not known", path=path, hint="correct it"
        ) from None
    return value if isinstance(value, str) and value else None


def _home_id(folder: Path) -> str:
    """The store's name for a home: readable words and a hash of the folder's one true path.

    By path and not by inode: a home that was restored from a backup keeps its checkpoints.
    """
    true_path = os.path.normcase(os.path.realpath(folder))
    if _ignores_case(folder):
        true_path = true_path.casefold()
    words = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(Path(true_path).parts[-2:])).strip("-").lower()[-24:].lstrip("-")
    digest = hashlib.sha256(os.fsencode(true_path)).hexdigest()[:10]
    return f"{words}-{digest}" if words else digest


def _ignores_case(folder: Path) -> bool:
    """Whether another case of its name finds the same folder, as on most macOS disks, where realpath keeps the case."""
    other = folder.with_name(folder.name.swapcase())
    return other.name != folder.name and is_same(folder, other)


def _daemon_updater(state: Path) -> Answer:
    """Whether the app-server daemon's update loop is at work (`codex app-server daemon bootstrap`).

    It runs as `codex app-server daemon pid-update-loop` and writes its pid to `app-server-updater.pid`
    (0.134, 0.147) or `daemon-updater.pid` (0.169); settings.json does not tell. It does not survive a
    restart of the machine, so the process is looked for, not the file alone.
    """
    records = _updater_records(state)
    if not records:
        return Answer.NO if records is not None else Answer.UNKNOWN
    import json

    try:
        pids = {int(json.loads(record.read_bytes())["pid"]) for record in records}
    except (OSError, ValueError, KeyError, TypeError):
        return Answer.UNKNOWN
    answer = Answer.NO
    for process in processes.processes_named("codex"):
        if process.pid in pids:
            if "pid-update-loop" in process.arguments:
                return Answer.YES
            if not process.arguments:
                answer = Answer.UNKNOWN
    return answer


def _updater_records(state: Path) -> list[Path] | None:
    try:
        return [entry for entry in state.iterdir() if entry.name.endswith("-updater.pid")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        return None
