"""Settings: flags > PREFLIGHT_ variables > preflight.toml > built-in values; where each came from is kept.

    wait = "60 s"                       PREFLIGHT_WAIT                  --wait
    timeout = "120 s"                   PREFLIGHT_TIMEOUT               --timeout
    [thresholds]
    warning = "250 MB"                  PREFLIGHT_THRESHOLDS_WARNING
    danger = "500 MB"                   PREFLIGHT_THRESHOLDS_DANGER
    critical = "1 GB"                   PREFLIGHT_THRESHOLDS_CRITICAL
    [store]
    path = "/srv/preflight"             PREFLIGHT_STORE                 --store
    keep_free = "500 MB"                PREFLIGHT_STORE_KEEP_FREE
    [checkpoint]
    max_age = "48 h"                    PREFLIGHT_CHECKPOINT_MAX_AGE
    [retention]
    keep_last = 3                       PREFLIGHT_RETENTION_KEEP_LAST      --keep-last
    keep_daily = 7                      PREFLIGHT_RETENTION_KEEP_DAILY     --keep-daily
    keep_weekly = 5                     PREFLIGHT_RETENTION_KEEP_WEEKLY    --keep-weekly
    keep_within = "48 h"                PREFLIGHT_RETENTION_KEEP_WITHIN    --keep-within

Sizes need a unit (1 MB is 10^6 bytes, 1 MiB is 2^20); a duration without one is in seconds. A key
that nobody knows, a value that cannot be read and a file that was named but is not there are all
`ConfigProblem`: a threshold that silently does not apply is worse than a run that does not start.
Nothing here writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from preflight.errors import ConfigProblem

__all__ = [
    "BUILT_IN",
    "EVERYTHING",
    "KEYS",
    "Key",
    "Part",
    "Settings",
    "count",
    "default_file",
    "duration",
    "load_settings",
    "part",
    "size",
]

BUILT_IN = "built-in"

_MB = 1_000_000
# At most 15 digits: more is a slip of the finger, and floats stop counting single bytes there.
_NUMBER = r"(\d{1,15}(?:\.\d{1,9})?)"
_SIZE = re.compile(_NUMBER + r"\s*([a-z]+)", re.IGNORECASE)
_SIZE_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_DURATION = re.compile(_NUMBER + r"\s*([a-z]*)", re.IGNORECASE)
# No "m": one reader takes it for minutes, the next for months.
_DURATION_UNITS = {
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86400),
}
_LONGEST_SECONDS = 366 * 86400
_COUNT = re.compile(r"[0-9]{1,5}")
_FRACTION = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?) ?%")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The values in force. `origins` tells for each dotted key where its value came from.

    A rollout of `warning_bytes` or more is `warning`, and so on; `keep_free_bytes` is what a checkpoint
    must leave free on the store's file system; a checkpoint older than `checkpoint_max_age_seconds`
    is reported as stale. `store_path` None means the folder that the store chooses by itself. The
    four `keep_*` are the policy of `prune`, which `checkpoint --nightly` follows too.
    """

    warning_bytes: int = 250 * _MB
    danger_bytes: int = 500 * _MB
    critical_bytes: int = 1000 * _MB
    wait_seconds: float = 60.0
    timeout_seconds: float = 120.0
    store_path: Path | None = None
    keep_free_bytes: int = 500 * _MB
    checkpoint_max_age_seconds: float = 48 * 3600.0
    keep_last: int = 3
    keep_daily: int = 7
    keep_weekly: int = 5
    keep_within_seconds: float = 48 * 3600.0
    origins: Mapping[str, str] = field(default_factory=dict)

    def origin(self, key: str) -> str:
        return self.origins.get(key, BUILT_IN)


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: its name in preflight.toml, its variable, its field, how its text is read, the unit of its value."""

    name: str
    variable: str
    field: str
    read: Callable[[object], object]
    unit: str
    flag: str | None = None


def size(value: object) -> int:
    """Bytes of a size such as ``"250 MB"``. Raises ValueError with a sentence that says what is expected."""
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    factor = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError('expected a size with its unit, such as "250 MB" or "1.5 GB"')
    return int(float(match[1]) * factor)


def duration(value: object) -> float:
    """Seconds of a duration such as ``"90 s"``, ``"5 min"``, ``"36 h"`` or ``90``.

    Raises ValueError with a sentence that says what is expected. No infinity and nothing above a
    year: operating system calls that wait refuse those.
    """
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    match = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    factor = _DURATION_UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None or float(match[1]) * factor > _LONGEST_SECONDS:
        raise ValueError('expected a duration such as "90 s", "5 min" or "36 h"')
    return float(match[1]) * factor


def count(value: object) -> int:
    """A number of checkpoints such as ``7``. Raises ValueError with a sentence that says what is expected."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _COUNT.fullmatch(text.strip()):
        raise ValueError("expected a whole number from 0 to 99999")
    return int(text)


@dataclass(frozen=True, slots=True)
class Part:
    """How much of a store to read back: `numerator` of `denominator`, or about `size_bytes` when that is not None."""

    numerator: int = 1
    denominator: int = 1
    size_bytes: int | None = None

    def of(self, total_bytes: int) -> tuple[int, int]:
        """The part of so many bytes as a fraction."""
        return (self.numerator, self.denominator) if self.size_bytes is None else (self.size_bytes, total_bytes)


EVERYTHING = Part()


def part(value: object) -> Part:
    """``"1/7"``, ``"5%"`` or ``"500 MB"``. Raises ValueError with a sentence that says what is expected."""
    text = value.strip() if isinstance(value, str) else ""
    if match := _FRACTION.fullmatch(text):
        found = Part(int(match[1]), int(match[2]))
    elif match := _PERCENT.fullmatch(text):
        found = Part(round(float(match[1]) * 1000), 100_000)
    elif _SIZE.fullmatch(text):
        found = Part(size_bytes=size(text))
    else:
        raise ValueError('expected a part such as 1/7, 5% or "500 MB"')
    if found.size_bytes == 0 or not 0 < found.numerator <= found.denominator:
        raise ValueError("expected more than nothing and no more than the whole, such as 1/7")
    return found


def _limit(value: object) -> float:
    seconds = duration(value)
    if seconds == 0:
        raise ValueError('expected a duration above zero, such as "120 s"')
    return seconds


def _folder(value: object) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("expected the path of a folder")
    return Path(value)


KEYS: tuple[Key, ...] = (
    Key("thresholds.warning", "PREFLIGHT_THRESHOLDS_WARNING", "warning_bytes", size, "bytes"),
    Key("thresholds.danger", "PREFLIGHT_THRESHOLDS_DANGER", "danger_bytes", size, "bytes"),
    Key("thresholds.critical", "PREFLIGHT_THRESHOLDS_CRITICAL", "critical_bytes", size, "bytes"),
    Key("wait", "PREFLIGHT_WAIT", "wait_seconds", duration, "seconds", "--wait"),
    Key("timeout", "PREFLIGHT_TIMEOUT", "timeout_seconds", _limit, "seconds", "--timeout"),
    Key("store.path", "PREFLIGHT_STORE", "store_path", _folder, "folder", "--store"),
    Key("store.keep_free", "PREFLIGHT_STORE_KEEP_FREE", "keep_free_bytes", size, "bytes"),
    Key("checkpoint.max_age", "PREFLIGHT_CHECKPOINT_MAX_AGE", "checkpoint_max_age_seconds", _limit, "seconds"),
    Key("retention.keep_last", "PREFLIGHT_RETENTION_KEEP_LAST", "keep_last", count, "checkpoints", "--keep-last"),
    Key("retention.keep_daily", "PREFLIGHT_RETENTION_KEEP_DAILY", "keep_daily", count, "checkpoints", "--keep-daily"),
    Key(
        "retention.keep_weekly", "PREFLIGHT_RETENTION_KEEP_WEEKLY", "keep_weekly", count, "checkpoints", "--keep-weekly"
    ),
    Key(
        "retention.keep_within",
        "PREFLIGHT_RETENTION_KEEP_WITHIN",
        "keep_within_seconds",
        duration,
        "seconds",
        "--keep-within",
    ),
)


def default_file() -> Path:
    """`preflight.toml` in the user's configuration folder; it need not exist."""
    from platformdirs import user_config_path

    return user_config_path("codex-preflight", appauthor=False) / "preflight.toml"


def load_settings(
    *, file: Path | None, env: Mapping[str, str], user_home: Path, flags: Mapping[str, str | None]
) -> Settings:
    """The settings in force for one call. Raises ConfigProblem that names the place of the fault.

    `file` None means the default one, which may be missing; a file that was named must exist. `flags`
    maps a dotted key to the text given on the command line, None when it was not given. An empty
    variable counts as not set.
    """
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    path = file if file is not None else default_file()
    table = _read_file(path, must_exist=file is not None)
    for key in KEYS:
        places = (
            (key.flag or "", flags.get(key.name), False),
            (key.variable, env.get(key.variable) or None, False),
            (str(path), table.get(key.name), True),
        )
        for place, given, from_file in places:
            if given is not None:
                values[key.field] = _read_value(key, given, place, user_home, from_file=from_file)
                origins[key.name] = place
                break
    # Every value above was read by the reader of its own field, which mypy cannot follow through a mapping.
    settings = Settings(**values, origins=origins)  # type: ignore[arg-type]
    _require_order(settings)
    _require_a_rule(settings)
    return settings


def _read_value(key: Key, given: object, place: str, user_home: Path, *, from_file: bool) -> object:
    name = f"{key.name} in {place}" if from_file else place
    try:
        value = key.read(given)
    except ValueError as error:
        raise ConfigProblem(f"{name} is {given!r}: {error}") from error
    if not isinstance(value, Path):
        return value
    if value.parts and value.parts[0] == "~":
        value = user_home.joinpath(*value.parts[1:])
    if from_file and not value.is_absolute():
        # Relative to what would be a guess: the updater's working folder is not the user's.
        raise ConfigProblem(f"{name} is {given!r}: expected an absolute path, or one that begins with ~/")
    return value.absolute()


def _read_file(path: Path, *, must_exist: bool) -> dict[str, object]:
    """The file's values by dotted key; a missing default file has none."""
    try:
        # Notepad writes a byte order mark, which TOML does not allow.
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        if must_exist:
            raise ConfigProblem(f"there is no configuration file {path}", path=path) from error
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ConfigProblem(f"the configuration file {path} cannot be read: {reason}", path=path) from error

    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigProblem(f"{path} is not valid TOML: {error}", path=path) from error
    found = dict(_dotted(document))
    known = {key.name for key in KEYS}
    for name in found:
        if name not in known:
            raise ConfigProblem(f"{path} has an unknown key: {name}", path=path, hint=_suggestion(name, known))
    return found


def _dotted(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _suggestion(name: str, known: set[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, sorted(known), n=1)
    if not near:  # `danger` outside of its table is nearer to thresholds.danger than difflib sees
        near = [key for key in sorted(known) if key.rpartition(".")[2] == name.rpartition(".")[2]][:1]
    if near:
        return f"did you mean {near[0]}?"
    return "the keys are " + ", ".join(sorted(known))


def _require_order(settings: Settings) -> None:
    if settings.warning_bytes <= settings.danger_bytes <= settings.critical_bytes:
        return
    where = ", ".join(f"{key.name} from {settings.origin(key.name)}" for key in KEYS[:3])
    raise ConfigProblem(
        "the thresholds must rise from warning to danger to critical, but they are "
        f"{settings.warning_bytes}, {settings.danger_bytes} and {settings.critical_bytes} bytes",
        hint=f"compare where they come from: {where}",
    )


def _require_a_rule(settings: Settings) -> None:
    if settings.keep_last or settings.keep_daily or settings.keep_weekly or settings.keep_within_seconds:
        return
    raise ConfigProblem("retention keeps nothing: every rule of it is 0", hint="set retention.keep_last to 1 or more")
