"""A Codex home for one trial: one rollout, perhaps one paused goal, and no way to reach a model or anybody's data.

What each switch keeps away was seen with strace on 0.128.0, 0.134.0, 0.147.0 and 0.169.0. `openai_base_url`
matters most: with OpenAI's own provider 0.134 and later connect to it during `thread/resume`, before any turn.
The provider cannot be exchanged instead: 0.169 refuses a thread whose own provider is not configured, and one
whose provider the request would change.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from preflight.codex.rollout import parse_name
from preflight.codex.runtime import windows_needs
from preflight.errors import DamagedFile
from preflight.model import GoalStatus
from preflight.system import databases, files
from preflight.system.deadline import Deadline

__all__ = ["ScratchHome", "define_provider", "make_scratch_home", "put_goal", "system_configuration"]

_OWN_PROVIDER = "preflight"
# Codex refuses to have these defined anew (0.128.0 to 0.169.0); their addresses have switches of their own.
_BUILT_IN_PROVIDERS = frozenset({"openai", "ollama", "lmstudio", "amazon-bedrock"})
_META_LIMIT = 64 << 20

# Read by every Codex of the machine whatever its home is; each can start programs (0.128.0 to 0.169.0).
_SYSTEM_FILES = ("config.toml", "managed_config.toml", "hooks.json")


@dataclass(frozen=True, slots=True)
class ScratchHome:
    """`path` is its CODEX_HOME, `work` an empty folder to be in, `environment` all that the runtime is given."""

    path: Path
    work: Path
    environment: Mapping[str, str]


class _Payload(msgspec.Struct):
    model_provider: str | None = None


class _Meta(msgspec.Struct):
    payload: _Payload


def make_scratch_home(
    folder: Path, rollout: Path, *, dead_port: int, goals: bool, deadline: Deadline | None = None
) -> ScratchHome:
    """Build the home inside an empty private folder; `dead_port` is a loopback port where nobody answers.

    The rollout is copied, never linked: the runtime may append to it. It needs no state database,
    because a runtime finds a thread by its file's name (0.128.0 to 0.169.0). NoSpace when the copy
    does not fit; DamagedFile when the rollout has no usable name or first line; TimeLimitReached. What was
    made until then is the caller's to remove.
    """
    home, work, empty, temporary = (folder / name for name in ("home", "work", "no-programs", "tmp"))
    for place in (home, work, empty, temporary):
        files.private_folder(place)
    target = home / _place_of(rollout)
    files.private_folder(target.parent)
    _copy(rollout, target, deadline or Deadline(None))
    _write(home / "config.toml", _config(_provider_of(rollout), dead_port, goals=goals))
    return ScratchHome(home, work, _environment(home, empty, temporary, dead_port))


def define_provider(home: ScratchHome, name: str) -> None:
    """Let one more provider lead nowhere; the runtime reads its configuration anew for each `thread/resume`.

    0.169 goes by the newest settings in a rollout, so the first line does not name all that it may want.
    """
    path = home.path / "config.toml"
    config = tomllib.loads(path.read_text(encoding="utf-8"))
    providers = config["model_providers"]
    providers[name] = providers[_OWN_PROVIDER]
    _write(path, config)


def put_goal(home: ScratchHome, goals_database: Path, thread_id: str, deadline: Deadline) -> None:
    """Give the home a copy of the goals database with this thread's goal alone, paused.

    A goal that is paused is not gone on with on resume by 0.134 and later. Errors are those of
    `databases.backup`; UnknownSchema for a table that is not the one of 0.134.0 to 0.169.0.
    """
    target = home.path / goals_database.name
    databases.backup(goals_database, target, deadline)
    databases.write_once(
        target,
        [
            ("DELETE FROM thread_goals WHERE thread_id <> ?", (thread_id,)),
            ("UPDATE thread_goals SET status = ?", (GoalStatus.PAUSED,)),
        ],
        deadline,
    )


def system_configuration() -> tuple[Path, ...]:
    """The machine-wide configuration that a scratch home cannot switch off; usually there is none."""
    folder = Path("/etc/codex")
    return tuple(folder / name for name in _SYSTEM_FILES if os.path.lexists(folder / name))


def _place_of(rollout: Path) -> Path:
    name = parse_name(rollout.name)
    if name is None or name.compressed:
        raise DamagedFile("Codex does not list a file of this name", path=rollout)
    year, month, day = name.stamp[:10].split("-")
    return Path("sessions", year, month, day, rollout.name)


def _provider_of(rollout: Path) -> str | None:
    """The provider that the thread was made with, all that 0.128 to 0.147 want to be defined."""
    with rollout.open("rb") as file:
        line = file.readline(_META_LIMIT)
    try:
        return msgspec.json.decode(line, type=_Meta).payload.model_provider
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise DamagedFile("the first line of the rollout is not a session_meta record", path=rollout) from None


def _copy(rollout: Path, target: Path, deadline: Deadline) -> None:
    def in_time(_: memoryview) -> None:
        deadline.check("copying a rollout for its trial")

    files.create(target)
    with rollout.open("rb", buffering=0) as source, target.open("r+b", buffering=0) as copy:
        files.copy_range(source.fileno(), copy.fileno(), 0, os.fstat(source.fileno()).st_size, in_time)


def _write(path: Path, config: Mapping[str, object]) -> None:
    import tomli_w

    path.write_text(tomli_w.dumps(config), encoding="utf-8")


def _config(provider: str | None, dead_port: int, *, goals: bool) -> dict[str, object]:
    nowhere = f"http://127.0.0.1:{dead_port}"
    dead_provider = {
        "name": _OWN_PROVIDER,
        "base_url": f"{nowhere}/v1",
        "wire_api": "responses",
        "requires_openai_auth": False,
        "request_max_retries": 0,
        "stream_max_retries": 0,
        "supports_websockets": False,
    }
    providers = {_OWN_PROVIDER, provider or _OWN_PROVIDER} - _BUILT_IN_PROVIDERS
    off = ("apps", "codex_hooks", "enable_request_compression", "hooks", "plugins", "shell_snapshot")
    return {
        "model_provider": _OWN_PROVIDER,
        "openai_base_url": f"{nowhere}/v1",
        "chatgpt_base_url": nowhere,
        "approval_policy": "never",
        "sandbox_mode": "read-only",
        "check_for_update_on_startup": False,
        "cli_auth_credentials_store": "file",  # not the key ring of the user's session
        "project_root_markers": [],  # no project above the scratch folder is looked for
        "analytics": {"enabled": False},
        "features": {"goals": goals, **dict.fromkeys(off, False)},
        "model_providers": dict.fromkeys(sorted(providers), dead_provider),
    }


def _environment(home: Path, empty: Path, temporary: Path, dead_port: int) -> dict[str, str]:
    """Built from nothing: no token, no address, no program that could be found by name."""
    nowhere = f"http://127.0.0.1:{dead_port}"
    folders = dict.fromkeys(("CODEX_HOME", "CODEX_SQLITE_HOME", "HOME", "USERPROFILE"), str(home))
    data = dict.fromkeys(("APPDATA", "LOCALAPPDATA", "TMPDIR", "SQLITE_TMPDIR", "TEMP", "TMP"), str(temporary))
    proxies = dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), nowhere
    )
    return {
        **folders,
        **data,
        **proxies,
        "CODEX_OSS_BASE_URL": f"{nowhere}/v1",
        "PATH": str(empty),
        "RUST_LOG": "off",
        **windows_needs(os.environ),
    }
