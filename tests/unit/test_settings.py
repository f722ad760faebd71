"""Settings: the nearest place wins, every value remembers where it came from, and no mistake is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from preflight.config import BUILT_IN, KEYS, Settings, duration, load_settings, part, size
from preflight.errors import ConfigProblem


def load(text: str | None = None, *, folder: Path, env: dict[str, str] | None = None, **flags: str | None) -> Settings:
    """Settings from a file of this content, these variables and these flags (`store`, `wait`, `timeout`)."""
    file = None
    if text is not None:
        file = folder / "preflight.toml"
        file.write_text(text, encoding="utf-8")
    names = {"store": "store.path", "wait": "wait", "timeout": "timeout"}
    return load_settings(
        file=file, env=env or {}, user_home=folder, flags={names[flag]: value for flag, value in flags.items()}
    )


EVERY_KEY = """
wait = "90 s"
timeout = "5 min"
[thresholds]
warning = "1 MB"
danger = "1.5 GB"
critical = "2 GiB"
[store]
path = "~/checkpoints"
keep_free = "0 B"
[checkpoint]
max_age = "2 days"
[retention]
keep_last = 1
keep_daily = 2
keep_weekly = 3
keep_within = "4 d"
"""


def test_without_a_file_the_built_in_values_are_those_of_the_design(tmp_path: Path) -> None:
    settings = load(folder=tmp_path)
    assert (settings.warning_bytes, settings.danger_bytes, settings.critical_bytes) == (250 * 10**6, 500 * 10**6, 10**9)
    assert (settings.wait_seconds, settings.timeout_seconds) == (60, 120)
    assert {settings.origin(key.name) for key in KEYS} == {BUILT_IN}


def test_a_file_can_set_every_key(tmp_path: Path) -> None:
    settings = load(EVERY_KEY, folder=tmp_path)
    assert [getattr(settings, key.field) for key in KEYS] == [
        10**6, 1_500_000_000, 2 * 2**30, 90, 300, tmp_path / "checkpoints", 0, 172_800,
        1, 2, 3, 4 * 86_400,
    ]  # fmt: skip
    assert {settings.origin(key.name) for key in KEYS} == {str(tmp_path / "preflight.toml")}


def test_every_key_has_a_variable(tmp_path: Path) -> None:
    values = {"bytes": "600 MB", "seconds": "7", "folder": "/srv/preflight", "checkpoints": "5"}
    settings = load(folder=tmp_path, env={key.variable: values[key.unit] for key in KEYS})
    assert {settings.origin(key.name) for key in KEYS} == {key.variable for key in KEYS}
    assert settings.store_path == Path("/srv/preflight")


def test_flag_beats_variable_beats_file_beats_built_in(tmp_path: Path) -> None:
    file = 'wait = "1 s"\ntimeout = "1 s"\n[store]\nkeep_free = "1 B"\n'
    env = {"PREFLIGHT_WAIT": "2 s", "PREFLIGHT_TIMEOUT": "2 s"}
    settings = load(file, folder=tmp_path, env=env, wait="3 s", timeout=None)
    assert (settings.wait_seconds, settings.origin("wait")) == (3, "--wait")
    assert (settings.timeout_seconds, settings.origin("timeout")) == (2, "PREFLIGHT_TIMEOUT")
    assert (settings.keep_free_bytes, settings.origin("store.keep_free")) == (1, str(tmp_path / "preflight.toml"))
    assert settings.origin("store.path") == BUILT_IN


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    assert load(folder=tmp_path, env={"PREFLIGHT_WAIT": ""}).wait_seconds == 60


def test_the_file_in_the_configuration_folder_is_found(tmp_path: Path, user: Path) -> None:
    folder = user / ".config" / "codex-preflight"
    folder.mkdir(parents=True)
    (folder / "preflight.toml").write_text('wait = "5 s"', encoding="utf-8")
    assert load(folder=tmp_path).wait_seconds == 5


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("[thresholds]\ndangr = '1 GB'", "thresholds.dangr", "did you mean thresholds.danger?"),
        ("danger = '1 GB'", "danger", "did you mean thresholds.danger?"),
        ("[storage]\nkeep_free = '1 GB'", "storage.keep_free", "did you mean store.keep_free?"),
        ("store = '/srv'", "store", "did you mean store.path?"),
        ("xyz = 1", "xyz", "the keys are checkpoint.max_age, "),
    ],
)
def test_an_unknown_key_is_an_error_with_a_suggestion(tmp_path: Path, text: str, key: str, hint: str) -> None:
    with pytest.raises(ConfigProblem) as problem:
        load(text, folder=tmp_path)
    assert problem.value.message.endswith(f"has an unknown key: {key}")
    assert problem.value.path == tmp_path / "preflight.toml"
    assert str(problem.value.hint).startswith(hint)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("wait = '5 parsecs'", "wait in "),
        ("wait = true", "wait in "),
        ("timeout = '0 s'", "timeout in "),
        ("[thresholds]\ndanger = 500", "thresholds.danger in "),
        ("[store]\npath = 'relative/folder'", "store.path in "),
        ("[store]\npath = ''", "store.path in "),
        ("wait = ", "not valid TOML"),
        ("[thresholds]\nwarning = '2 GB'", "must rise from warning to danger to critical"),
    ],
)
def test_a_value_that_cannot_be_used_names_its_place(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigProblem, match=named):
        load(text, folder=tmp_path)


def test_a_flag_or_variable_that_cannot_be_used_is_named_as_the_person_wrote_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigProblem, match=r"^--timeout is 'soon': expected a duration"):
        load(folder=tmp_path, timeout="soon")
    with pytest.raises(ConfigProblem, match=r"^PREFLIGHT_THRESHOLDS_DANGER is '500': expected a size with its unit"):
        load(folder=tmp_path, env={"PREFLIGHT_THRESHOLDS_DANGER": "500"})
    with pytest.raises(ConfigProblem, match=r"^--store is '': expected the path of a folder"):
        load(folder=tmp_path, store="")


def test_a_file_that_was_named_must_be_there_and_readable(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    for file, reason in ((missing, "there is no configuration file"), (tmp_path, "cannot be read")):
        with pytest.raises(ConfigProblem, match=reason):
            load_settings(file=file, env={}, user_home=tmp_path, flags={})
    (tmp_path / "latin.toml").write_bytes(b"wait = '5\xe9 s'")
    with pytest.raises(ConfigProblem, match="not UTF-8"):
        load_settings(file=tmp_path / "latin.toml", env={}, user_home=tmp_path, flags={})


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "notepad.toml").write_bytes(b"\xef\xbb\xbfwait = '5 s'\r\n")
    assert load_settings(file=tmp_path / "notepad.toml", env={}, user_home=tmp_path, flags={}).wait_seconds == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [("250 MB", 250 * 10**6), ("1.5GB", 15 * 10**8), ("1 kb", 1000), ("2 GiB", 2**31), (" 7 B ", 7), ("0 MB", 0)],
)
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("value", ["", "250", "MB", "-1 MB", "1 ZB", "1e9 B", "9" * 400 + " GB", 250, None, "1 MB\0"])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        size(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("90 s", 90), ("90", 90), (90, 90), (1.5, 1.5), ("5 min", 300), ("36 h", 129_600), ("2 days", 172_800), ("0", 0)],
)
def test_durations(value: object, expected: float) -> None:
    assert duration(value) == expected


@pytest.mark.parametrize("value", ["", "s", "-1 s", "5 m", "90 ms", "1 year", "10000 d", float("inf"), True, None])
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        duration(value)


@pytest.mark.parametrize("text", ["-1", "1.5", "many", "100000", ""])
def test_a_number_of_checkpoints_is_a_whole_one(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigProblem, match="whole number"):
        load(f'[retention]\nkeep_last = "{text}"\n', folder=tmp_path)


def test_a_policy_that_keeps_nothing_is_refused(tmp_path: Path) -> None:
    nothing = "[retention]\nkeep_last = 0\nkeep_daily = 0\nkeep_weekly = 0\nkeep_within = 0\n"
    with pytest.raises(ConfigProblem, match="keeps nothing"):
        load(nothing, folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "fraction"),
    [("1/7", (1, 7)), ("5%", (5000, 100_000)), ("2.5 %", (2500, 100_000)), ("500 MB", (500_000_000, 2_000_000_000))],
)
def test_a_part_of_the_store_is_a_fraction_of_what_there_is(text: str, fraction: tuple[int, int]) -> None:
    assert part(text).of(2_000_000_000) == fraction


@pytest.mark.parametrize("text", ["", "0/7", "8/7", "0%", "101%", "0 B", "7", "1/0", "some"])
def test_what_is_no_part_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        part(text)
