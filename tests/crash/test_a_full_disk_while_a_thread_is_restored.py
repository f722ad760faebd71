"""The home's own disk, a real small one, runs full at any moment of a restore: the next one puts it right."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

from tests.fixtures_codex import CodexHome, thread_id
from tests.restoring import Bench
from tests.small_disk import on_a_small_disk

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mount namespaces are Linux's")

# The home is copied onto the small disk, of which ever fewer pages are left free; `free_bytes` is not believed.
FILL_IT = """
import json, os, shutil, sys
from pathlib import Path
from preflight.errors import PreflightError
from preflight.system import files
from tests.fixtures_codex import thread_id
from tests.restoring import Bench, visible

place, saved = Path(sys.argv[1]), Path(sys.argv[2])
files.free_bytes = lambda path: 1 << 40
told = []
for left in range(60, -1, -4):
    for entry in place.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    shutil.copytree(saved, place / "home")
    bench = Bench(place / "home", store_folder=Path(sys.argv[3]))
    today = visible(place / "home")
    with open(place / "filler", "wb", buffering=0) as filler:
        filler.write(bytes(max(0, os.statvfs(place).f_bavail - left) * 4096))
    try:
        bench.restore(thread_id(1), full=True)
        outcome = "restored"
    except PreflightError as error:
        outcome = error.code
    (seen,) = visible(place / "home").values()
    (place / "filler").unlink()
    bench.restore(thread_id(1), full=True)
    (after,) = visible(place / "home").values()
    told.append([outcome, seen == next(iter(today.values())), after, bench.left_behind()])
print(json.dumps(told))
"""


def test_at_every_level(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    codex = CodexHome(disk / "home", "0.134.0")
    bench, rollout = Bench(codex.path), codex.thread(1, size=100_000)
    codex.goal(1)
    whole = rollout.read_bytes()
    bench.checkpoint(thread_id(1))
    store = tmp_path / "store"
    (disk / "store").rename(store)
    rollout.write_bytes(whole[:60_000])
    codex.execute("goals_1.sqlite", "DELETE FROM thread_goals")
    saved = tmp_path / "saved"
    codex.path.rename(saved)
    told = json.loads(on_a_small_disk(disk, "2m", FILL_IT, disk, saved, store))
    assert told[0][0] == "restored"
    assert told[-1][:2] == ["no-space", True]
    assert {outcome for outcome, *_ in told} == {"restored", "no-space"}
    for outcome, as_it_was, after, left_behind in told:
        # Some levels are too low for the database alone: then the file has its place, and the next call does the rest.
        assert not (as_it_was and outcome == "restored"), told
        assert after == hashlib.sha256(whole).hexdigest()
        assert left_behind == []
