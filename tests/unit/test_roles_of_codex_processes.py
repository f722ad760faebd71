"""What a Codex process is, by its name, its arguments and its parent.

The process table is a FAKE: a desktop application, a Windows machine and other users' processes are not
to be had here. Real processes are looked at in tests/integration/test_writers_of_a_home.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from preflight.codex import writers
from preflight.codex.writers import runtimes_of
from preflight.model import Home, Role, Runtime
from preflight.system import processes
from preflight.system.processes import ProcessFacts

SHELL = 900


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(path=tmp_path, sqlite_home=tmp_path, home_id="h", state_db=None, goals_db=None, history_db=None)


def process(
    pid: int, *arguments: str, name: str = "codex", parent: int = 1, environment: Mapping[str, str] | None = None
):
    return ProcessFacts(
        pid=pid,
        name=name,
        executable=None,
        arguments=arguments,
        parent_pid=parent,
        started_at=1.0,
        environment=environment,
    )


def seen(home: Home, monkeypatch: pytest.MonkeyPatch, *table: ProcessFacts) -> tuple[Runtime, ...]:
    monkeypatch.setattr(processes, "processes_named", lambda _: list(table))
    return runtimes_of(home)


@pytest.mark.parametrize(
    ("arguments", "role"),
    [
        (["codex"], Role.CLI),
        (["codex", "update the readme"], Role.CLI),
        (["codex", "-m", "gpt-5.4", "exec", "do it"], Role.CLI),
        (["codex", "resume", "--last"], Role.CLI),
        (["codex", "exec", "login page"], Role.CLI),
        (["codex", "migrate-rollouts", "--apply"], Role.CLI),
        (["codex", "a verb of the future"], Role.CLI),
        (["codex", "mcp-server"], Role.UNKNOWN),
        (["codex", "app-server"], Role.UNKNOWN),
        (["codex", "-c", "a=b", "app-server", "--analytics-default-enabled"], Role.DESKTOP),
        (["codex", "app-server", "--listen", "stdio://"], Role.UNKNOWN),
        (["codex", "app-server", "--listen", "unix://"], Role.DAEMON),
        (["codex", "app-server", "--listen=ws://127.0.0.1:1"], Role.DAEMON),
        (["codex", "app-server", "daemon", "start"], Role.DAEMON),
        (["codex", "login"], None),
        (["codex", "doctor", "--json"], None),
        (["codex", "update"], None),
        (["codex", "app-server", "proxy"], None),
        (["codex", "app-server", "generate-ts"], None),
    ],
)
def test_the_arguments_tell_the_role(
    home: Home, monkeypatch: pytest.MonkeyPatch, arguments: list[str], role: Role | None
) -> None:
    told = seen(home, monkeypatch, process(7, *arguments, environment={"CODEX_HOME": str(home.path)}))
    assert [runtime.role for runtime in told] == ([] if role is None else [role])


def test_the_child_of_the_desktop_application_is_its_app_server(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"CODEX_HOME": str(home.path)}
    told = seen(
        home,
        monkeypatch,
        process(SHELL, "C:\\Codex\\Codex.exe", name="Codex.exe", environment=here),
        process(12, "codex.exe", "app-server", name="codex.exe", parent=SHELL, environment=here),
        process(11, "codex.exe", "app-server", name="codex.exe", parent=5, environment=here),
        process(10, "codex.exe", name="codex.exe", parent=SHELL, environment=here),
    )
    assert [(runtime.pid, runtime.role) for runtime in told] == [
        (10, Role.CLI),
        (11, Role.UNKNOWN),
        (12, Role.DESKTOP),
    ]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("codex-x86_64-unknown-linux-musl", Role.CLI),
        ("codex-aarch64-apple-darwin", Role.CLI),
        ("codex-app-server", Role.UNKNOWN),
        ("codex-linux-sandbox", None),
        ("codex-code-mode-host", None),
        ("codex-preflight", None),
    ],
)
def test_the_name_tells_whether_it_is_a_runtime(
    home: Home, monkeypatch: pytest.MonkeyPatch, name: str, role: Role | None
) -> None:
    told = seen(home, monkeypatch, process(7, name, name=name, environment={"CODEX_HOME": str(home.path)}))
    assert [runtime.role for runtime in told] == ([] if role is None else [role])


def test_a_process_that_may_not_be_looked_into_is_unknown(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    told = seen(home, monkeypatch, process(7, "codex", "app-server", "--analytics-default-enabled"))
    assert told == (Runtime(pid=7, version=None, role=Role.UNKNOWN, executable=None),)


def test_the_default_home_is_known_by_the_users_folder(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    default = home.path / ".codex"
    default.mkdir()
    of_default = Home(path=default, sqlite_home=default, home_id="d", state_db=None, goals_db=None, history_db=None)
    table = (
        process(7, "codex", environment={"HOME": str(home.path)}),
        process(8, "codex", environment={"USERPROFILE": str(home.path)}),
        process(9, "codex", environment={"HOME": str(home.path), "CODEX_HOME": str(home.path)}),
        process(10, "codex", environment={"HOME": "/nowhere"}),
    )
    assert [runtime.pid for runtime in seen(of_default, monkeypatch, *table)] == [7, 8]
    assert [runtime.pid for runtime in seen(home, monkeypatch, *table)] == [9]


def test_a_home_named_from_a_folder_that_we_do_not_know_may_be_ours(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = seen(home, monkeypatch, process(7, "codex", environment={"CODEX_HOME": "./relative"}))
    assert [runtime.role for runtime in told] == [Role.UNKNOWN]


def test_a_runtime_whose_file_an_update_has_exchanged_has_no_known_version(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = home.path / "bin" / "codex"
    program.parent.mkdir()
    program.touch()
    (home.path / "codex-package.json").write_text('{"version": "0.169.0"}')
    placed_at = program.stat().st_ctime
    here = process(7, "codex", environment={"CODEX_HOME": str(home.path)})

    def version(executable: Path, started_at: float) -> str | None:
        (told,) = seen(home, monkeypatch, replace(here, executable=executable, started_at=started_at))
        return told.version

    assert version(program, placed_at + 60) == "0.169.0"
    assert version(program, placed_at - 60) is None
    assert version(program.with_name("removed"), placed_at + 60) is None


def test_the_process_table_is_read_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    readings: list[str] = []

    def table(stem: str) -> list[ProcessFacts]:
        readings.append(stem)
        return [process(pid, "codex", environment={"HOME": "/nowhere"}) for pid in range(2, 9)]

    monkeypatch.setattr(processes, "processes_named", table)
    assert runtimes_of(home) == ()
    assert readings == ["codex"]
    assert writers.writer_lock_path(home, "t").parent.name == "thread-writer-locks"
