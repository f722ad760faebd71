"""A row names its rollout in the spelling of whichever build wrote it; all of them lead to the same file."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem, OSType

from preflight.codex.paths import RowPaths, local_folder, same_file_name

_NAME = "rollout-2026-11-22T13-25-08-01a2036e-0001-7000-8000-0123456789ab.jsonl"
_INSIDE = f"sessions/2026/11/22/{_NAME}"


@pytest.fixture
def linux(fs: FakeFilesystem) -> FakeFilesystem:
    fs.os = OSType.LINUX
    return fs


@pytest.fixture
def windows(fs: FakeFilesystem) -> FakeFilesystem:
    fs.os = OSType.WINDOWS
    return fs


_SPELLINGS = [
    f"/mnt/c/Users/ada/.codex/{_INSIDE}",
    rf"C:\Users\ada\.codex\sessions\2026\11\22\{_NAME}",
    rf"\\?\C:\Users\ada\.codex\sessions\2026\11\22\{_NAME}",
    rf"c:/Users/ada/.codex\sessions/2026\11/22/{_NAME}",
    rf"C:\mnt\c\Users\ada\.codex\sessions\2026\11\22\{_NAME}",  # a join of two spellings that exists nowhere
    rf"\\?\UNC\server\share\.codex\sessions\2026\11\22\{_NAME}",
    rf"D:\backup\.codex\Sessions\2026\11\22\{_NAME}",
]


@pytest.mark.parametrize("text", _SPELLINGS)
def test_a_home_below_mnt_c_is_found_from_linux(text: str, linux: FakeFilesystem) -> None:
    linux.create_dir("/mnt/c/Users/ada/.codex")
    home = Path("/mnt/c/Users/ada/.codex")

    place = RowPaths(home).local_path(text)

    assert place == home / _INSIDE


@pytest.mark.parametrize("text", _SPELLINGS)
def test_the_same_home_is_found_from_windows(text: str, windows: FakeFilesystem) -> None:
    windows.create_dir("C:\\Users\\ada\\.codex")
    home = Path("C:\\Users\\ada\\.codex")

    place = RowPaths(home).local_path(text)

    assert place == home / _INSIDE


def test_a_wsl_share_is_the_root_of_linux(linux: FakeFilesystem) -> None:
    linux.create_dir("/home/ada/.codex")

    for share in (r"\\wsl$\Ubuntu", r"\\wsl.localhost\Ubuntu", r"\\?\UNC\wsl.localhost\Ubuntu"):
        assert local_folder(rf"{share}\home\ada\.codex") == Path("/home/ada/.codex")


def test_a_link_to_the_home_is_the_home(tmp_path: Path) -> None:
    home = tmp_path / "codex"
    home.mkdir()
    link = tmp_path / "link"
    link.symlink_to(home)

    assert RowPaths(link).local_path(str(home / _INSIDE)) == link / _INSIDE


def test_a_row_that_names_another_existing_home_leads_there(tmp_path: Path) -> None:
    home, other = tmp_path / "codex", tmp_path / "other"
    home.mkdir()
    other.mkdir()

    assert RowPaths(home).local_path(str(other / _INSIDE)) == other / _INSIDE


def test_a_home_that_was_moved_keeps_its_threads(tmp_path: Path) -> None:
    home = tmp_path / "new-place"
    home.mkdir()

    assert RowPaths(home).local_path(f"/old/place/.codex/{_INSIDE}") == home / _INSIDE
    assert RowPaths(home).local_path(_INSIDE) == home / _INSIDE


def test_a_folder_of_a_project_called_sessions_is_not_taken_for_that_of_the_home(tmp_path: Path) -> None:
    home = tmp_path / "sessions" / "codex"
    home.mkdir(parents=True)

    assert RowPaths(home).local_path(str(home / _INSIDE)) == home / _INSIDE


def test_a_path_outside_of_sessions_is_taken_as_it_is(tmp_path: Path) -> None:
    rows = RowPaths(tmp_path)

    assert rows.local_path("/rescue/thread.jsonl") == Path("/rescue/thread.jsonl")
    assert rows.local_path("thread.jsonl") is None


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (f"/a/{_NAME}", True),
        (rf"C:\a\{_NAME.upper()}", True),
        (f"/a/{_NAME}.zst", True),
        (f"/a/{_NAME}.bak", False),
        ("", False),
    ],
)
def test_names_are_compared_without_case_and_compression(text: str, same: bool) -> None:
    assert same_file_name(text, Path("/home") / _NAME) is same
    assert same_file_name(text, Path("/home") / f"{_NAME}.zst") is same
