"""A manifest reads back as it was written, and one that does not fit is said to be damaged."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preflight.checkpoint import manifest
from preflight.errors import DamagedFile, Unsupported, Unverified
from tests.sample_checkpoint import ID, ROLLOUT, THREAD, sample_manifest, write_files


def changed(change: Callable[[Any], None]) -> bytes:
    document = json.loads(manifest.to_json(sample_manifest()))
    change(document)
    return json.dumps(document).encode()


def test_everything_comes_back() -> None:
    assert manifest.from_json(manifest.to_json(sample_manifest())) == sample_manifest()


def test_it_is_one_line_with_the_keys_that_the_design_names() -> None:
    data = manifest.to_json(sample_manifest())
    document = json.loads(data)

    assert data.count(b"\n") == 1
    assert data.endswith(b"\n")
    assert document["schema"] == 1
    assert document["tool"] == "codex-preflight"
    assert document["order"] == "databases-then-rollouts"
    assert document["version"] == "1.2.3"
    assert document["inventory"][0] == {
        "thread_id": THREAD, "path": "sessions/2026/11/22/rollout.jsonl", "size_bytes": 3, "archived": False,
        "identity": {"device": 1, "inode": 2, "size_bytes": 3, "modified_ns": 4},
    }  # fmt: skip
    assert document["databases"][0]["log"] is None
    assert document["runtime_version"] == "0.147.0"
    source = document["threads"][0]["sources"][0]
    assert set(source) == {"path", "file_id", "identity", "used_bytes", "tail_sha256", "archive"}
    assert set(source["archive"]) == {"file", "generation", "raw_length", "frames", "frames_sha256"}
    assert set(source["identity"]) == {"device", "inode", "size_bytes", "modified_ns"}


def test_a_path_is_text_and_one_that_is_not_utf8_is_its_bytes_as_well() -> None:
    document = json.loads(manifest.to_json(sample_manifest()))

    assert document["home"]["path"] == "/home/u/.codex"
    assert document["home"]["sqlite_home"] == {"text": "/srv/d\N{REPLACEMENT CHARACTER}", "b64": "L3Nydi9k/w=="}
    assert document["inventory"][1]["path"]["b64"] == "c2Vzc2lvbnMv/y9yb2xsb3V0Lmpzb25s"


@pytest.mark.parametrize(
    "name", ["säubern", "片付け", "a b", "\n", "\\x", '"', "\x7f", "\u2028", os.fsdecode(b"\x80\xc3")]
)
def test_a_home_of_any_name_comes_back(name: str) -> None:
    home = replace(sample_manifest().home, path=Path("/srv") / name)
    written = replace(sample_manifest(), home=home)

    data = manifest.to_json(written)

    assert manifest.from_json(data) == written
    assert data.count(b"\n") == 1


def test_published_it_can_be_loaded_and_no_longer_changed(tmp_path: Path) -> None:
    folder = write_files(tmp_path)

    ref = manifest.publish(folder, sample_manifest())

    path = folder / "manifest.json"
    assert manifest.load(path) == sample_manifest()
    assert (ref.checkpoint_id, ref.path) == (ID, folder)
    assert ref.manifest_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    with pytest.raises(Unverified):
        manifest.publish(folder, replace(sample_manifest(), target_version="0.170.0"))
    assert manifest.load(path) == sample_manifest()


def test_its_digest_lies_beside_it_as_sha256sum_reads_it(tmp_path: Path) -> None:
    folder = write_files(tmp_path)
    ref = manifest.publish(folder, sample_manifest())
    assert (folder / "manifest.sha256").read_bytes() == f"{ref.manifest_sha256}  manifest.json\n".encode()
    assert stat.S_IMODE((folder / "manifest.sha256").stat().st_mode) == 0o400
    assert manifest.has_digest(folder)


def test_the_digest_is_there_before_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_files(tmp_path)
    names = []
    real = manifest.files.publish
    monkeypatch.setattr(manifest.files, "publish", lambda path, *a, **k: (names.append(path.name), real(path, *a, **k)))
    manifest.publish(folder, sample_manifest())
    assert names == ["manifest.sha256", "manifest.json"]


def test_a_changed_word_in_it_is_noticed(tmp_path: Path) -> None:
    folder = write_files(tmp_path)
    manifest.publish(folder, sample_manifest())
    path = folder / "manifest.json"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"/home/u/.codex", b"/home/v/.codex"))
    with pytest.raises(DamagedFile, match="not what was written"):
        manifest.load(path)


@pytest.mark.parametrize(
    "content", [b"", b"0" * 64, b"0" * 64 + b"  manifest.json\n\n", b"Z" * 64 + b"  manifest.json\n"]
)
def test_a_digest_that_is_none_is_damage_and_none_at_all_is_an_old_checkpoint(tmp_path: Path, content: bytes) -> None:
    folder = write_files(tmp_path)
    manifest.publish(folder, sample_manifest())
    digest = folder / "manifest.sha256"
    digest.chmod(0o600)
    digest.write_bytes(content)
    with pytest.raises(DamagedFile, match="digest"):
        manifest.load(folder / "manifest.json")
    digest.unlink()
    assert manifest.load(folder / "manifest.json") == sample_manifest()
    assert not manifest.has_digest(folder)


def test_it_is_not_published_over_files_that_are_missing_or_of_another_length(tmp_path: Path) -> None:
    folder = write_files(tmp_path)
    rollout = folder / "threads" / THREAD / "rollout.jsonl"

    rollout.write_bytes(ROLLOUT[:-1])
    with pytest.raises(Unverified) as caught:
        manifest.publish(folder, sample_manifest())
    assert caught.value.path == rollout
    rollout.unlink()
    with pytest.raises(Unverified):
        manifest.publish(folder, sample_manifest())

    assert not (folder / "manifest.json").exists()


def test_it_belongs_to_the_folder_that_it_lies_in(tmp_path: Path) -> None:
    folder = write_files(tmp_path)
    manifest.publish(folder, sample_manifest())
    folder.rename(tmp_path / "20261122T120000Z-ffffff")

    with pytest.raises(DamagedFile):
        manifest.load(tmp_path / "20261122T120000Z-ffffff" / "manifest.json")
    with pytest.raises(Unverified):
        manifest.publish(tmp_path / "20261122T120000Z-ffffff", sample_manifest())


@pytest.mark.parametrize("path", ["/etc/passwd", "../other", "a/../../b", "a//b", "./a", "", "a\\..\\b", "a/"])
def test_no_path_leads_out_of_the_checkpoint(path: str) -> None:
    with pytest.raises(DamagedFile):
        manifest.from_json(changed(lambda document: document["files"][0].update(path=path)))


def deeply_nested(depth: int = 100_000) -> object:
    value: object = None
    for _ in range(depth):
        value = [value]
    return value


def test_what_would_not_read_back_is_not_written() -> None:
    one = sample_manifest().files[0]
    thread = sample_manifest().threads[0]
    for wrong in (
        replace(sample_manifest(), files=(*sample_manifest().files, one)),
        replace(sample_manifest(), files=(replace(one, length=-1), sample_manifest().files[1])),
        replace(sample_manifest(), files=(replace(one, length=True), sample_manifest().files[1])),
        replace(sample_manifest(), files=(replace(one, sha256="short"), sample_manifest().files[1])),
        replace(sample_manifest(), files=()),
        replace(sample_manifest(), reason="\udcff"),
        replace(sample_manifest(), schema=2),
    ):
        with pytest.raises(Unverified):
            manifest.to_json(wrong)
    for value in (("a", "tuple"), Path("/x"), math.nan, math.inf, b"bytes", {1: "number"}, object(), deeply_nested()):
        with pytest.raises(Unverified):
            manifest.to_json(replace(sample_manifest(), threads=(replace(thread, verification={"digests": value}),)))


def test_keys_of_a_later_version_are_passed_over() -> None:
    def add(document: Any) -> None:
        document["archive"] = [1]
        document["threads"][0]["later"] = {"deep": True}
        document["inventory"][0]["later"] = [None, "more"]
        document["home"]["sqlite_home"]["later"] = 1

    assert manifest.from_json(changed(add)) == sample_manifest()


def test_a_later_schema_is_not_guessed_at() -> None:
    with pytest.raises(Unsupported):
        manifest.from_json(changed(lambda document: document.update(schema=2)))
    with pytest.raises(Unsupported):
        manifest.from_json(b'{"schema": 2, "files": "in another form"}')


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("files"),
        lambda document: document.update(files={}),
        lambda document: document.pop("schema"),
        lambda document: document.pop("version"),
        lambda document: document.update(schema="1"),
        lambda document: document["files"][0].update(length=True),
        lambda document: document["files"][0].update(length=1.5),
        lambda document: document["files"].pop(0),
        lambda document: document["threads"][0].update(archived=0),
        lambda document: document["threads"][0].update(goal="paused"),
        lambda document: document["threads"][0].update(history_mode="new"),
        lambda document: document["runtimes"][0].update(role=None),
        lambda document: document["inventory"][0].pop("thread_id"),
        lambda document: document["inventory"].insert(0, []),
        lambda document: document["home"].update(path=3),
        lambda document: document["home"].update(path={"text": ""}),
        lambda document: document["home"].update(path={"text": "", "b64": "%%%"}),
        lambda document: document["threads"][0].update(verification=[]),
        lambda document: document["goals"][0].update(objective=["\udcff"]),
        lambda document: document["goals"][0].update(objective="\udcff"),
        lambda document: document["databases"][0].update(path="databases/other.sqlite"),
    ],
)
def test_what_does_not_fit_is_damage(change: Callable[[Any], None]) -> None:
    with pytest.raises(DamagedFile):
        manifest.from_json(changed(change))


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000, b"{}", b'{"schema":1,"x":' + b"[" * 100_000],
)
def test_what_is_no_manifest_is_damage(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(data)

    with pytest.raises(DamagedFile) as caught:
        manifest.load(tmp_path / "manifest.json")
    assert caught.value.path == tmp_path / "manifest.json"


def test_a_letter_that_is_not_utf8_is_damage_wherever_it_stands() -> None:
    data = manifest.to_json(sample_manifest())
    for place in ("säubern", "codex-12", "passed"):
        before, after = data.split(place.encode(), 1)
        with pytest.raises(DamagedFile):
            manifest.from_json(before + b"\xff" + after)


def test_damage_is_told_without_what_stands_there() -> None:
    with pytest.raises(DamagedFile) as caught:
        manifest.from_json(changed(lambda document: document["goals"][0].update(objective=["säubern"])))
    assert "säubern" not in str(caught.value)
    assert "goals[0].objective" in str(caught.value)
