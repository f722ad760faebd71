"""A checkpoint that a newer preflight wrote is told, left alone, and keeps no verb from its work."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from preflight import stored
from preflight.config import EVERYTHING
from preflight.errors import Unsupported
from tests.nights import Nights, found, nights_in, outcome


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    """Two checkpoints; the newest one is of a schema that this version does not know."""
    nights = nights_in(tmp_path)
    nights.checkpoint()
    nights.grow()
    nights.checkpoint()
    folder = nights.store.checkpoint_folder(nights.store.checkpoints()[-1])
    document = json.loads((folder / "manifest.json").read_bytes()) | {"schema": 99, "threads": "of another kind"}
    data = json.dumps(document).encode()
    digest = f"{hashlib.sha256(data).hexdigest()}  manifest.json\n".encode()
    for name, content in (("manifest.json", data), ("manifest.sha256", digest)):
        (folder / name).chmod(0o600)
        (folder / name).write_bytes(content)
    return nights


def test_check_and_list_say_so_and_go_on(nights: Nights) -> None:
    newer, older = reversed(nights.store.checkpoints())
    checked = nights.check()
    (finding,) = found(checked, "checkpoint-newer")
    assert (finding.severity, newer in finding.cause) == ("warn", True)
    assert checked.exit_code == 3

    listed = stored.list_checkpoints(nights.request())
    assert [row["checkpoint_id"] for row in listed.data["checkpoints"]] == [older]
    assert (listed.exit_code, len(found(listed, "checkpoint-newer"))) == (0, 1)


def test_the_night_makes_its_own_and_removes_nothing_of_the_newer_one(nights: Nights) -> None:
    newer = nights.store.checkpoints()[-1]
    before = {path: path.read_bytes() for path in nights.store.checkpoint_folder(newer).rglob("*") if path.is_file()}
    result = nights.night()
    assert (result.exit_code, outcome(result)) == (0, "made")
    assert found(result, "checkpoint-newer")
    assert {path: path.read_bytes() for path in before} == before
    nights.prune(keep_last=1)
    assert newer in nights.store.checkpoints()


def test_what_can_be_read_back_is_and_the_other_is_named(nights: Nights) -> None:
    older = nights.store.checkpoints()[0]
    result = nights.verify(checkpoint=older, read_part=EVERYTHING)
    assert result.exit_code == 0
    assert found(result, "checkpoint-newer")
    with pytest.raises(Unsupported):
        nights.verify()  # the newest one itself
