"""Homes are found where Codex looks for them, each once, with the databases that its runtimes use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem, set_uid

from preflight.codex.home import find_homes, shared_files
from preflight.errors import HomeRefused, UsageProblem
from preflight.model import Answer, Home, Severity


def _only(explicit: list[Path], env: dict[str, str], user: Path) -> Home:
    (home,), _ = find_homes(explicit, env, user)
    return home


def _made(path: Path, *names: str) -> Path:
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_bytes(b"")
    return path


def test_no_home_is_no_error_and_is_said(tmp_path: Path) -> None:
    homes, not_checked = find_homes([], {}, tmp_path)

    assert homes == []
    assert not_checked == [f"there is no Codex home: {tmp_path / '.codex'} does not exist and CODEX_HOME is not set"]


def test_an_empty_home_has_no_databases(tmp_path: Path) -> None:
    _made(tmp_path / ".codex")

    home = _only([], {}, tmp_path)

    assert home.path == home.sqlite_home == tmp_path / ".codex"
    assert (home.state_db, home.goals_db, home.history_db) == (None, None, None)
    assert home.daemon_updater is Answer.NO


def test_codex_home_comes_before_the_usual_place_and_explicit_homes_before_both(tmp_path: Path) -> None:
    usual, named, one, two = (_made(tmp_path / name) for name in (".codex", "named", "one", "two"))
    env = {"CODEX_HOME": str(named)}

    assert _only([], {"CODEX_HOME": ""}, tmp_path).path == usual
    assert _only([], env, tmp_path).path == named
    assert [home.path for home in find_homes([one, two], env, tmp_path)[0]] == [one, two]


def test_a_home_is_found_from_a_relative_path_and_from_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = _made(tmp_path / "here")
    monkeypatch.chdir(tmp_path)

    assert _only([Path("here")], {}, tmp_path).path == place
    assert _only([Path("~/here")], {}, tmp_path).path == place


def test_every_spelling_of_a_home_is_one_home_with_one_id(tmp_path: Path) -> None:
    place = _made(tmp_path / ".codex")
    link = tmp_path / "link"
    link.symlink_to(place)
    spellings = [place, link, tmp_path / "." / "link", Path(f"{place}/../.codex/")]

    homes, _ = find_homes(spellings, {}, tmp_path)

    assert [home.path for home in homes] == [place]
    assert {_only([spelling], {}, tmp_path).home_id for spelling in spellings} == {homes[0].home_id}
    assert homes[0].home_id != _only([_made(tmp_path / "other" / ".codex")], {}, tmp_path).home_id


def test_the_id_can_be_the_name_of_a_folder(tmp_path: Path) -> None:
    for name in ("日本 %", "a" * 200, "..codex", "-"):
        home_id = _only([_made(tmp_path / name)], {}, tmp_path).home_id
        assert home_id.replace("-", "").isalnum()
        assert home_id.isascii()
        assert home_id[0] != "-"
        assert len(home_id) <= 40


def test_an_explicit_home_that_does_not_exist_is_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem) as caught:
        find_homes([tmp_path / "nowhere"], {}, tmp_path)

    assert caught.value.path == tmp_path / "nowhere"


@pytest.mark.parametrize("how", ["explicit", "variable", "usual"])
def test_a_home_that_is_a_file_is_refused(how: str, tmp_path: Path) -> None:
    place = tmp_path / ".codex"
    place.write_text("")
    explicit = [place] if how == "explicit" else []
    env = {"CODEX_HOME": str(place)} if how == "variable" else {}

    with pytest.raises(HomeRefused, match="not a folder"):
        find_homes(explicit, env, tmp_path)


def test_codex_home_that_does_not_exist_is_refused_as_codex_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(HomeRefused):
        find_homes([], {"CODEX_HOME": str(tmp_path / "nowhere")}, tmp_path)


def test_a_link_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".codex").symlink_to(tmp_path / ".codex")

    with pytest.raises(HomeRefused):
        find_homes([], {}, tmp_path)


@pytest.mark.parametrize("what", ["home", "config.toml"])
def test_what_may_not_be_read_is_refused(what: str, fs: FakeFilesystem) -> None:
    fs.create_dir("/home/ada/.codex")
    fs.create_file("/home/ada/.codex/config.toml", contents="model = 'x'")
    fs.chmod("/home/ada/.codex" if what == "home" else "/home/ada/.codex/config.toml", 0o000, force_unix_mode=True)
    set_uid(1000)

    with pytest.raises(HomeRefused, match="cannot be read"):
        find_homes([], {}, Path("/home/ada"))


def test_of_each_database_the_highest_number_counts(tmp_path: Path) -> None:
    names = ["state_5.sqlite", "state_10.sqlite", "goals_1.sqlite", "goals_v2_1.sqlite", "thread_history_1.sqlite"]
    others = ["state_11.sqlite.bak", "state_x.sqlite", "logs_2.sqlite", "goals_2.sqlite-wal"]
    place = _made(tmp_path / ".codex", *names, *others)
    (place / "state_99.sqlite").mkdir()

    home = _only([], {}, tmp_path)

    assert home.state_db == place / "state_10.sqlite"
    assert home.goals_db == place / "goals_v2_1.sqlite"
    assert home.history_db == place / "thread_history_1.sqlite"


# As measured on 0.134.0 and 0.169.0: the setting first, relative to the home; empty is not set.
@pytest.mark.parametrize(
    ("setting", "variable", "expected"),
    [
        ("", "", "home"),
        ("sqlite_home = '{base}/db'", "", "db"),
        ("sqlite_home = '{base}/db'", "{base}/other", "db"),
        ("sqlite_home = 'inside/db'", "", "home/inside/db"),
        ("sqlite_home = '~/db'", "", "db"),
        ("sqlite_home = ''", "", "home"),
        ("sqlite_home = ''", "{base}/other", "other"),
        ("# sqlite_home = '{base}/db'", "{base}/other", "other"),
        ("[profiles.x]\nsqlite_home = '{base}/db'", "", "home"),
        ("\ufeffsqlite_home = '{base}/db'", "", "db"),
        ("", "{base}/other", "other"),
        ("", "~/other", "other"),
        ("", "   ", "home"),
        ("model = [this is not TOML", "{base}/other", "other"),
    ],
)
def test_the_databases_lie_where_codex_puts_them(setting: str, variable: str, expected: str, tmp_path: Path) -> None:
    place = _made(tmp_path / "home")
    for folder in ("db", "other", "home/inside/db"):
        _made(tmp_path / folder, "goals_1.sqlite")
    (place / "config.toml").write_text(setting.format(base=tmp_path) if setting else "model = 'x'", encoding="utf-8")

    home = _only([place], {"CODEX_SQLITE_HOME": variable.format(base=tmp_path)}, tmp_path)

    assert home.sqlite_home == tmp_path / expected
    assert home.goals_db == (None if expected == "home" else tmp_path / expected / "goals_1.sqlite")


@pytest.mark.parametrize("setting", ["sqlite_home = '/nowhere/at/all'", "sqlite_home = [broken"])
def test_databases_that_cannot_be_found_are_no_empty_home(setting: str, tmp_path: Path) -> None:
    place = _made(tmp_path / ".codex")
    (place / "config.toml").write_text(setting)

    with pytest.raises(HomeRefused):
        find_homes([], {}, tmp_path)


@pytest.mark.parametrize("variable", ["relative/folder", "/nowhere/at/all"])
def test_a_variable_that_leads_nowhere_is_refused(variable: str, tmp_path: Path) -> None:
    _made(tmp_path / ".codex")

    with pytest.raises(HomeRefused):
        find_homes([], {"CODEX_SQLITE_HOME": variable}, tmp_path)


def test_databases_that_the_variable_hides_are_named(tmp_path: Path) -> None:
    place = _made(tmp_path / ".codex", "goals_1.sqlite")
    other = _made(tmp_path / "other")

    _, not_checked = find_homes([], {"CODEX_SQLITE_HOME": str(other)}, tmp_path)

    assert not_checked == [f"the databases in {place}: CODEX_SQLITE_HOME names {other}"]


def test_two_homes_with_the_same_rollouts_or_databases_are_a_finding(tmp_path: Path) -> None:
    one = _made(tmp_path / "one", "state_5.sqlite", "goals_1.sqlite")
    two, three = _made(tmp_path / "two"), _made(tmp_path / "three", "state_5.sqlite")
    (one / "sessions").mkdir()
    (two / "sessions").symlink_to(one / "sessions")
    os.link(one / "goals_1.sqlite", two / "goals_1.sqlite")
    homes, _ = find_homes([one, two, three], {}, tmp_path)

    (finding,) = shared_files(homes)

    assert finding.finding_id == "homes-share-files"
    assert finding.severity is Severity.WARN
    assert finding.cause == f"{one} and {two} share goals_1.sqlite, sessions"
    assert shared_files([homes[0], homes[2]]) == ()


@contextmanager
def _codex_running(folder: Path, *arguments: str) -> Iterator[int]:
    """A process whose program is called codex, with these arguments; ends with the test."""
    program = folder / "codex"
    if not program.exists():
        program.symlink_to(Path(sys.executable).resolve())
    wait = "import sys; print('up', flush=True); sys.stdin.read()"
    command = [str(program), "-I", "-c", wait, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        try:
            yield child.pid
        finally:
            child.communicate()


def _updater(home: Path, record: str, name: str = "app-server-updater.pid") -> Answer:
    (home / "app-server-daemon").mkdir(exist_ok=True)
    (home / "app-server-daemon" / name).write_text(record)
    return _only([home], {}, home.parent).daemon_updater


@pytest.mark.skipif(sys.platform == "win32", reason="the daemon of 0.134 and 0.147 exists on Unix only")
def test_the_daemons_updater_is_seen_while_it_runs(tmp_path: Path) -> None:
    home = _made(tmp_path / ".codex")

    with _codex_running(tmp_path, "app-server", "daemon", "pid-update-loop") as pid:
        record = json.dumps({"pid": pid, "processStartTime": "Sun Nov 22 13:25:08 2026"})
        assert _updater(home, record) is Answer.YES
        assert _updater(_made(tmp_path / "second"), record, "daemon-updater.pid") is Answer.YES
    assert _updater(home, record) is Answer.NO


@pytest.mark.skipif(sys.platform == "win32", reason="needs a link as a program")
def test_another_codex_with_the_updaters_old_pid_is_no_updater(tmp_path: Path) -> None:
    home = _made(tmp_path / ".codex")

    with _codex_running(tmp_path, "app-server") as pid:
        assert _updater(home, json.dumps({"pid": pid})) is Answer.NO


def test_a_daemon_without_an_updater_is_none(tmp_path: Path) -> None:
    home = _made(tmp_path / ".codex")

    assert _updater(home, '{"remoteControlEnabled": true}', "settings.json") is Answer.NO


@pytest.mark.parametrize("record", ["", "{", "[]", '{"pid": "many"}', "{}"])
def test_a_record_of_the_updater_that_says_nothing_is_unknown(record: str, tmp_path: Path) -> None:
    assert _updater(_made(tmp_path / ".codex"), record) is Answer.UNKNOWN
