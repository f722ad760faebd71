"""Rollout files are found as Codex finds them, whatever lies beside them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight.codex import lines, rollout
from preflight.codex.sample_rollout import RolloutWriter, rollout_path
from preflight.errors import DamagedFile
from preflight.model import HistoryBase, HistoryMode

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

THREAD = "01a2036d-0000-7000-8000-00000000000a"
SEGMENT = "01a2036d-0000-7000-8000-00000000000b"
STAMP = "2026-11-22T13-23-39"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (f"rollout-{STAMP}-{THREAD}.jsonl", (STAMP, THREAD, None, False)),
        (f"rollout-{STAMP}-{THREAD}.jsonl.zst", (STAMP, THREAD, None, True)),
        (f"rollout-{STAMP}-{THREAD}_{SEGMENT}.jsonl", (STAMP, THREAD, SEGMENT, False)),
        (f"rollout-{STAMP}-{THREAD.upper()}.jsonl", (STAMP, THREAD, None, False)),
    ],
)
def test_names_that_codex_lists(name: str, parts: tuple[object, ...]) -> None:
    found = rollout.parse_name(name)
    assert found is not None
    assert (found.stamp, found.thread_id, found.segment_id, found.compressed) == parts


@pytest.mark.parametrize(
    "name",
    [
        f"rollout-{STAMP}-{THREAD}.jsonl.bak",
        f"rollout-{STAMP}-{THREAD}.jsonl.tmp",
        f"rollout-{STAMP}-{THREAD}.json",
        f"rollout-{STAMP}-{THREAD[:-1]}.jsonl",
        f"rollout-{THREAD}.jsonl",
        f".rollout-{STAMP}-{THREAD}.jsonl",
        "",
    ],
)
def test_names_that_codex_does_not_list(name: str) -> None:
    assert rollout.parse_name(name) is None


def test_active_and_archived_rollouts_are_found_and_nothing_else(tmp_path: Path) -> None:
    active = rollout_path(tmp_path, THREAD)
    archived = rollout_path(tmp_path, SEGMENT, archived=True)
    for path in (active, archived):
        RolloutWriter(path, THREAD).close()
    active.with_suffix(".bak").write_bytes(b"x")
    (tmp_path / "sessions" / "notes.txt").write_text("x")
    found = rollout.scan(tmp_path)
    assert {(f.path, f.archived) for f in found.files} == {(active, False), (archived, True)}
    assert found.findings == ()
    assert all(f.size_bytes == f.path.stat().st_size for f in found.files)


def test_the_plain_file_hides_its_compressed_sibling(tmp_path: Path) -> None:
    plain = rollout_path(tmp_path, THREAD)
    RolloutWriter(plain, THREAD).close()
    plain.with_name(plain.name + ".zst").write_bytes(b"zst")
    alone = rollout_path(tmp_path, SEGMENT)
    alone.with_name(alone.name + ".zst").write_bytes(b"zst")
    assert {f.path.name for f in rollout.scan(tmp_path).files} == {plain.name, alone.name + ".zst"}


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege there")
def test_a_loop_of_symbolic_links_ends(tmp_path: Path) -> None:
    path = rollout_path(tmp_path, THREAD)
    RolloutWriter(path, THREAD).close()
    (path.parent / "again").symlink_to(tmp_path / "sessions", target_is_directory=True)
    (path.parent / "self").symlink_to(path.parent / "self")
    found = rollout.scan(tmp_path)
    assert {f.path.resolve() for f in found.files} == {path.resolve()}


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_becomes_a_finding(tmp_path: Path) -> None:
    path = rollout_path(tmp_path, THREAD)
    RolloutWriter(path, THREAD).close()
    path.parent.chmod(0)
    try:
        found = rollout.scan(tmp_path)
    finally:
        path.parent.chmod(0o700)
    assert found.files == ()
    assert [f.finding_id for f in found.findings] == ["unreadable"]


def test_a_folder_that_the_system_refuses_becomes_a_finding_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rollout_path(tmp_path, THREAD)
    RolloutWriter(path, THREAD).close()
    bad = tmp_path / "sessions" / "2026" / "bad"
    bad.mkdir(parents=True)
    real = os.scandir

    def refusing(folder: str) -> object:
        if folder == os.fspath(bad):
            raise PermissionError(13, "Permission denied", folder)
        return real(folder)

    monkeypatch.setattr(os, "scandir", refusing)  # root, as CI runs, may read everything
    found = rollout.scan(tmp_path)
    assert [f.path for f in found.files] == [path]
    assert [f.path for f in found.findings] == [bad]


def test_the_first_line_tells_layout_and_base(tmp_path: Path) -> None:
    path = rollout_path(tmp_path, THREAD)
    base = HistoryBase(file_id=SEGMENT, end_ordinal_exclusive=63, end_byte_offset=86204)
    RolloutWriter(path, THREAD, paginated=True, base=base).close()
    meta = rollout.read_meta(path)
    assert meta.thread_id == THREAD
    assert meta.history_mode is HistoryMode.PAGINATED
    assert meta.history_base == base
    assert meta.first_ordinal == 63
    assert meta.line_bytes == len(path.read_bytes().splitlines(keepends=True)[0])


BAD_FIRST_LINES = {
    "empty": (b"", "empty"),
    "a byte order mark": (b'\xef\xbb\xbf{"type":"session_meta","payload":{"id":"x"}}\n', "byte order mark"),
    "NULs": (b"\0" * 4096, "session_meta"),
    "another record": (b'{"timestamp":"x","type":"event_msg","payload":{"id":"x"}}\n', "session_meta"),
    "torn": (b'{"timestamp":"x","type":"session_meta","payload":{"id"', "session_meta"),
    "UTF-16": ('{"type":"session_meta"}\n'.encode("utf-16"), "session_meta"),
}


@pytest.mark.parametrize("kind", BAD_FIRST_LINES)
def test_a_first_line_that_codex_refuses_is_refused(tmp_path: Path, kind: str) -> None:
    data, words = BAD_FIRST_LINES[kind]
    path = tmp_path / f"rollout-{STAMP}-{THREAD}.jsonl"
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match=words) as caught:
        rollout.read_meta(path)
    assert caught.value.path == path


LINE = st.sampled_from(
    [
        b'{"timestamp":"t","type":"compacted","payload":{}}',
        b'{"timestamp":"t","type":"event_msg","payload":{"type":"token_count"}}',
        b'{"timestamp":"t","type":"event_msg","payload":{"type":"task_started"}}',
        b'{"timestamp":"t","ordinal":7,"type":"response_item","payload":{"type":"message","id":"m","role":"user"}}',
        b'{"timestamp":"t","type":"response_item","payload":{"type":"message","role":"assistant"}}',
        b'{"timestamp":"t","type":"world_state","payload":' + b" " * 70_000 + b"{}}",
        b'{"timestamp":"t","type":"turn_context","payload":"' + b"x" * 300_000 + b'"}',
        b"",
        b"\r",
        b"not json",
    ]
)


@given(found=st.lists(LINE, max_size=30), torn=st.booleans())
def test_backwards_every_line_that_may_matter_comes_once_whole_and_newest_first(
    tmp_path_factory: pytest.TempPathFactory, found: list[bytes], torn: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "file"
    whole = b"".join(line + b"\n" for line in found)
    path.write_bytes(whole + (b'{"torn' if torn else b""))
    boring = (b'"token_count"', b'"role":"assistant"', b'"world_state"')
    expected = [line + b"\n" for line in found if line.strip() and not any(word in line for word in boring)]
    descriptor = os.open(path, os.O_RDONLY)
    try:
        end = lines.complete_length(descriptor, path.stat().st_size)
        assert end == len(whole)
        spans = list(lines.lines_backwards(descriptor, end, path))
        assert [bytes(lines.read_line(descriptor, span, path)) for span in reversed(spans)] == expected
        forwards = list(lines.lines_forwards(descriptor, 0, path.stat().st_size, path))
    finally:
        os.close(descriptor)
    assert b"".join(bytes(data) for _, data in forwards) == path.read_bytes()
    assert [offset for offset, _ in forwards] == [
        sum(len(data) for _, data in forwards[:n]) for n in range(len(forwards))
    ]


@pytest.mark.parametrize(
    ("line", "record", "damaged"),
    [
        (b'{"type":"x","payload":{}}\n', True, False),
        (b'{"type":"x","payload":{"n":123456789012345678901234567890}}\n', True, False),
        (b"\n", False, False),
        (b"\0\0\0\n", False, True),
        (b'{"type":"x","payload":{"s":"\xff"}}\n', False, True),
        (b'{"type":"x","payload":NaN}\n', False, True),  # `json` reads it, Codex does not
        (b'{"type":"x","payload":"\\ud800"}\n', False, True),
        (b'{"type":"compacted","payload":' + b"[" * 126 + b"]" * 126 + b"}\n", True, False),
        (b'{"type":"compacted","payload":' + b"[" * 127 + b"]" * 127 + b"}\n", False, True),  # one too many for Codex
        (b'{"type":"compacted","payload":' + b"[" * 2000 + b"]" * 2000 + b"}\n", False, True),
        (b'{"type":"compacted","payload":["' + b"[" * 500 + b'\\\\",{"\\"' + b"{" * 500 + b'":[]}]}\n', True, False),
        (b'{"written":"by a version of the future"}\n', False, False),
        (b'{"type":"x","payl\n', False, True),
        (b"[1]\n", False, True),
    ],
)
def test_what_counts_as_a_record_and_what_as_damage(line: bytes, record: bool, damaged: bool) -> None:
    assert (lines.parse(line) is not None) is record
    assert lines.is_damaged(line) is damaged


def test_the_first_line_of_a_compressed_one_is_read(tmp_path: Path) -> None:
    """As a fork that Codex has compressed: whom it goes on from must be known before that file is replaced."""
    line = b'{"timestamp":"2026-11-22T13:25:08.403Z","ordinal":3,"type":"session_meta","payload":{"id":"'
    line += (
        THREAD.encode() + b'","history_base":{"thread_id":"' + SEGMENT.encode() + b'","end_ordinal_exclusive":3}}}\n'
    )
    packed = tmp_path / f"rollout-{STAMP}-{THREAD}.jsonl.zst"
    packed.write_bytes(zstd.compress(line + b"what comes later\n" * 9_000))
    meta = rollout.read_meta(packed)
    assert (meta.thread_id, meta.first_ordinal) == (THREAD, 3)
    assert meta.history_base == HistoryBase(file_id=SEGMENT, end_ordinal_exclusive=3, end_byte_offset=None)


@pytest.mark.parametrize("content", [b"", b"this is no zstd frame", zstd.compress(b"{}" * 90_000)[:-12]])
def test_a_compressed_one_that_cannot_be_unpacked_is_damaged(tmp_path: Path, content: bytes) -> None:
    packed = tmp_path / f"rollout-{STAMP}-{THREAD}.jsonl.zst"
    packed.write_bytes(content)
    with pytest.raises(DamagedFile):
        rollout.read_meta(packed)
