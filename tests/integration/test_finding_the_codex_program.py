"""Which Codex is asked: the given one, else the running one, else that on the PATH; npm's script is looked through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from preflight.codex.runtime import codex_binary, find_binary, version_of
from preflight.errors import UsageProblem
from preflight.model import Role, Runtime

TARGET = "x86_64-unknown-linux-musl"


def program(path: Path, text: str = "#!/bin/sh\nexit 1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def as_npm_installs_it(prefix: Path, version: str, folder: str = "bin") -> tuple[Path, Path]:
    """The link on the PATH, and the native program behind it, as `npm install -g` lays them out."""
    scope = prefix / "lib" / "node_modules" / "@openai"
    script = program(scope / "codex" / "bin" / "codex.js", "#!/usr/bin/env node\n")
    (scope / "codex" / "package.json").write_text(json.dumps({"name": "@openai/codex", "version": version}))
    package = scope / "codex-linux-x64"
    native = program(package / "vendor" / TARGET / folder / "codex")
    (package / "package.json").write_text(json.dumps({"name": "@openai/codex", "version": f"{version}-linux-x64"}))
    link = prefix / "bin" / "codex"
    link.parent.mkdir(parents=True)
    link.symlink_to(script)
    return link, native


@pytest.mark.parametrize(("version", "folder"), [("0.128.0", "codex"), ("0.150.0-alpha.8", "bin")])
def test_behind_npms_script_lies_the_native_program_of_its_package(tmp_path: Path, version: str, folder: str) -> None:
    link, native = as_npm_installs_it(tmp_path, version, folder)
    found = find_binary(None, {"PATH": str(link.parent)}, ())
    assert found is not None
    assert (found.path, str(found.version)) == (native, version)


def test_the_platforms_package_may_lie_below_the_main_one(tmp_path: Path) -> None:
    link, native = as_npm_installs_it(tmp_path, "0.169.0")
    scope = tmp_path / "lib" / "node_modules" / "@openai"
    below = scope / "codex" / "node_modules" / "@openai" / "codex-linux-x64"
    below.parent.mkdir(parents=True)
    (scope / "codex-linux-x64").rename(below)
    assert codex_binary(link).path == below / native.relative_to(scope / "codex-linux-x64")


def test_npms_shim_on_windows_lies_beside_its_packages(tmp_path: Path) -> None:
    scope = tmp_path / "node_modules" / "@openai"
    native = program(scope / "codex-win32-x64" / "vendor" / "x86_64-pc-windows-msvc" / "bin" / "codex.exe")
    (scope / "codex").mkdir()
    assert codex_binary(program(tmp_path / "codex.cmd")).path == native


def test_the_packages_own_description_goes_before_npms(tmp_path: Path) -> None:
    native = program(tmp_path / "release" / "bin" / "codex")
    (tmp_path / "release" / "codex-package.json").write_text(json.dumps({"layoutVersion": 1, "version": "0.158.0"}))
    assert str(version_of(native)) == "0.158.0"


def test_a_program_outside_of_any_package_is_asked_and_learns_nothing_of_the_user(tmp_path: Path, user: Path) -> None:
    told = tmp_path / "told"
    lonely = program(tmp_path / "codex", f"#!/bin/sh\nenv > {told}\npwd >> {told}\necho codex-cli 0.151.0-alpha.3\n")
    assert str(version_of(lonely)) == "0.151.0-alpha.3"
    environment = told.read_text()
    assert str(user) not in environment
    home = next(line for line in environment.splitlines() if line.startswith("CODEX_HOME=")).partition("=")[2]
    assert not Path(home).exists()  # an empty folder, gone by now


def test_a_program_that_will_not_tell_has_no_version(tmp_path: Path) -> None:
    assert version_of(program(tmp_path / "codex")) is None
    assert version_of(program(tmp_path / "other" / "codex", "not a program\n")) is None
    assert version_of(tmp_path / "missing") is None


def test_a_program_that_was_exchanged_is_asked_anew(tmp_path: Path) -> None:
    path = program(tmp_path / "codex", "#!/bin/sh\necho codex-cli 0.134.0\n")
    assert str(version_of(path)) == "0.134.0"
    program(tmp_path / "next", "#!/bin/sh\necho codex-cli 0.169.0\n").replace(path)
    assert str(version_of(path)) == "0.169.0"


def test_a_damaged_package_description_is_as_good_as_none(tmp_path: Path) -> None:
    native = program(tmp_path / "bin" / "codex", "#!/bin/sh\necho codex-cli 0.140.0\n")
    (tmp_path / "codex-package.json").write_text("{")
    (tmp_path / "package.json").write_text("[]")
    assert str(version_of(native)) == "0.140.0"


def running(path: Path | None, role: Role, pid: int) -> Runtime:
    return Runtime(pid=pid, version=None, role=role, executable=path)


def test_the_running_one_goes_before_the_path_and_the_desktops_before_the_terminals(tmp_path: Path) -> None:
    link, native = as_npm_installs_it(tmp_path / "npm", "0.169.0")
    cli, desktop = (program(tmp_path / name / "codex") for name in ("cli", "desktop"))
    runtimes = (
        running(cli, Role.CLI, 10),
        running(desktop, Role.DESKTOP, 11),
        running(None, Role.DESKTOP, 12),
        running(tmp_path / "updated-away", Role.DESKTOP, 9),
    )
    env = {"PATH": str(link.parent)}
    chosen = [find_binary(None, env, runtimes), find_binary(None, env, runtimes[:1]), find_binary(None, env, ())]
    assert [found and found.path for found in chosen] == [desktop, cli, native]
    given = find_binary(link, env, runtimes)
    assert given is not None
    assert given.path == native


def test_no_codex_anywhere_is_an_answer(tmp_path: Path) -> None:
    assert find_binary(None, {"PATH": str(tmp_path)}, ()) is None


@pytest.mark.parametrize("kind", ["missing", "folder", "not executable"])
def test_a_given_program_that_cannot_be_started_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "codex"
    if kind == "folder":
        path.mkdir()
    elif kind == "not executable":
        path.write_text("#!/bin/sh\n")
        path.chmod(0o644)
    with pytest.raises(UsageProblem) as refused:
        find_binary(path, {}, ())
    assert refused.value.path == path
