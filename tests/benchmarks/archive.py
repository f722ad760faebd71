"""The archive against `restic backup` and `borg create -C zstd,3`, and the table behind frames, level and window.

    python -m tests.benchmarks.archive [--megabytes 1000] [--folder DIR] [--rounds 3] [--only text|image]

On a long thread with repeated compactions and images, and on one without: first archive, the next one
after 20 MB more, reading everything back, restore. Seconds are the medians of interleaved rounds, of
whole processes with the start of Python, flushed to the disk on our side; memory is the largest
process's; bytes are those on the disk. restic encrypts and both peers find duplicates across files,
which an archive of ours does not.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from preflight.checkpoint.archive import Archive, Proof
from preflight.checkpoint.zstd_frames import Shape, pack
from preflight.system import files
from preflight.system.deadline import Deadline
from tests.benchmarks import long_rollouts

_MIB = 1 << 20
_ADDED = 20_000_000
_SHAPES = (
    ("level 1, frames of 16 MiB", Shape(window_log=None, frame_bytes=16 * _MIB, gather_bytes=0, level=1)),
    ("level 3, frames of 16 MiB", Shape(window_log=None, frame_bytes=16 * _MIB, gather_bytes=0)),
    ("level 3, 128 MiB  (plain)", Shape(window_log=None, frame_bytes=128 * _MIB, gather_bytes=0)),
    ("level 9, 128 MiB", Shape(window_log=None, frame_bytes=128 * _MIB, gather_bytes=0, level=9)),
    ("level 3, window 25, 512 MiB", Shape(window_log=25, frame_bytes=512 * _MIB, gather_bytes=0)),
    ("level 3, window 27, 128 MiB", Shape(window_log=27, frame_bytes=128 * _MIB, gather_bytes=0)),
    ("level 3, window 27, 256 MiB", Shape(window_log=27, frame_bytes=256 * _MIB, gather_bytes=0)),
    ("level 1, window 27, 512 MiB", Shape(window_log=27, frame_bytes=512 * _MIB, gather_bytes=0, level=1)),
    ("level 3, window 27, 512 MiB  (long)", Shape(window_log=27, frame_bytes=512 * _MIB, gather_bytes=0)),
    ("level 3, window 27, 1024 MiB", Shape(window_log=27, frame_bytes=1024 * _MIB, gather_bytes=0)),
)


@dataclass(frozen=True)
class Measured:
    seconds: float
    processor: float  # seconds of all cores: what is left to compare by when the machine is not quiet
    megabytes: int  # the largest process
    stored: int = 0


def run(command: Sequence[str | Path], folder: Path, **variables: str) -> Measured:
    """One process and its children, which must succeed."""
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        settings = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), **variables}
        process = subprocess.Popen(
            list(map(str, command)), cwd=folder, env=settings, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            output.seek(0)
            raise SystemExit(f"{command} failed: {output.read().decode(errors='replace')}")
    return Measured(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss // 1024)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Ours:
    def __init__(self, name: str, next_proof: Proof) -> None:
        self.name, self.proof = name, next_proof

    def _call(self, verb: str, store: Path, rollout: Path, **more: object) -> Measured:
        told = json.dumps({"verb": verb, "store": str(store), "rollout": str(rollout), **more})
        return run([sys.executable, "-m", "tests.benchmarks.archive", "--one", told], rollout.parent)

    def prepare(self, store: Path) -> None:
        store.mkdir()

    def first(self, store: Path, rollout: Path) -> Measured:
        return self._call("append", store, rollout, proof="full")

    def next(self, store: Path, rollout: Path) -> Measured:
        return self._call("append", store, rollout, proof=self.proof.value)

    def verify(self, store: Path, rollout: Path) -> Measured:
        return self._call("verify", store, rollout)

    def restore(self, store: Path, rollout: Path, target: Path) -> Measured:
        return self._call("restore", store, rollout, target=str(target / rollout.name))


class Restic:
    name = "restic backup"
    _key: ClassVar = {"RESTIC_PASSWORD": "benchmark"}

    def prepare(self, store: Path) -> None:
        run(["restic", "init", "-r", store], store.parent, **self._key)

    def first(self, store: Path, rollout: Path) -> Measured:
        return run(["restic", "-r", store, "--no-cache", "backup", rollout.name], rollout.parent, **self._key)

    next = first

    def verify(self, store: Path, rollout: Path) -> Measured:
        return run(["restic", "-r", store, "--no-cache", "check", "--read-data"], rollout.parent, **self._key)

    def restore(self, store: Path, rollout: Path, target: Path) -> Measured:
        words = ["restic", "-r", store, "--no-cache", "restore", "latest", "--target", target]
        return run(words, rollout.parent, **self._key)


class Borg:
    name = "borg create -C zstd,3"
    _settings: ClassVar = {
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    }

    def __init__(self) -> None:
        self.archives = 0

    def prepare(self, store: Path) -> None:
        run(["borg", "init", "-e", "none", store], store.parent, **self._settings)

    def first(self, store: Path, rollout: Path) -> Measured:
        self.archives += 1
        words = ["borg", "create", "-C", "zstd,3", f"{store}::{self.archives}", rollout.name]
        return run(words, rollout.parent, **self._settings)

    next = first

    def verify(self, store: Path, rollout: Path) -> Measured:
        return run(["borg", "check", "--verify-data", store], rollout.parent, **self._settings)

    def restore(self, store: Path, rollout: Path, target: Path) -> Measured:
        return run(["borg", "extract", f"{store}::{self.archives}"], target, **self._settings)


Peer = Ours | Restic | Borg


def one(told: dict[str, str]) -> None:
    """The work of one of our processes."""
    rollout, archive = Path(told["rollout"]), Archive(Path(told["store"]))
    if told["verb"] in long_rollouts.KINDS:
        long_rollouts.write(rollout, told["verb"], int(told["size"]) * 1_000_000)
        longer = Path(told["store"])
        shutil.copyfile(rollout, longer)
        long_rollouts.extend(longer, told["verb"], _ADDED)
        return
    length = rollout.stat().st_size
    if told["verb"] == "append":
        done = archive.append(rollout, end=length, prove=Proof(told["proof"]), deadline=Deadline(None))
        if not done.complete:
            raise SystemExit("not everything was archived")
    elif told["verb"] == "verify":
        if archive.verify(rollout.name, 1, deadline=Deadline(None)).damage:
            raise SystemExit("damage")
    elif told["verb"] == "restore":
        with files.publishing(Path(told["target"])) as target:
            archive.read(rollout.name, 1, length, target)
    else:
        shape = dict(_SHAPES)[told["shape"]]
        stored = 0

        def count(data: bytes) -> None:
            nonlocal stored
            stored += len(data)

        with rollout.open("rb", buffering=0) as file:
            position = 0
            while position < length:
                enough = position + shape.frame_bytes
                made = pack(
                    file.fileno(), position, length, shape, count,
                    enough=enough, deadline=Deadline(None), seen=lambda _: None,
                )  # fmt: skip
                position += made.raw_length
        Path(told["store"]).write_text(str(stored))


def choice(rollout: Path, place: Path, rounds: int) -> None:
    """The table behind the choice: each candidate in a process of its own, read, hashed and compressed."""
    say(f"\n{'read, hash, compress':38}{'s':>8}{'cpu s':>8}{'stored MB':>11}{'memory MB':>11}")
    found: dict[str, list[Measured]] = {name: [] for name, _ in _SHAPES}
    for _ in range(rounds):
        for name, results in found.items():
            answer = place / "answer"
            told = json.dumps({"verb": "pack", "rollout": str(rollout), "store": str(answer), "shape": name})
            measured = run([sys.executable, "-m", "tests.benchmarks.archive", "--one", told], place)
            results.append(replace(measured, stored=int(answer.read_text())))
    for name, results in found.items():
        seconds = statistics.median(result.seconds for result in results)
        processor = statistics.median(result.processor for result in results)
        row = f"{seconds:8.2f}{processor:8.2f}{results[0].stored / 1e6:11.1f}"
        say(f"{name:38}{row}{max(result.megabytes for result in results):11}")


def peers(rollout: Path, longer: Path, place: Path, rounds: int) -> None:
    """All peers, each step interleaved."""
    makers = [
        lambda: Ours("preflight, next: tail", Proof.TAIL),
        lambda: Ours("preflight, next: sampled", Proof.SAMPLED),
        lambda: Ours("preflight, next: full", Proof.FULL),
        *([Restic] if shutil.which("restic") else []),
        *([Borg] if shutil.which("borg") else []),
    ]
    found: dict[str, dict[str, list[Measured]]] = {}
    for _ in range(rounds):
        for make in makers:
            peer: Peer = make()
            results = found.setdefault(peer.name, {})
            for step, measured in steps(peer, rollout, longer, place):
                results.setdefault(step, []).append(measured)
    say(f"\n{'s | cpu s | MB stored | MB memory':34}" + "".join(f"{step:>28}" for step in next(iter(found.values()))))
    for name, results in found.items():
        cells = []
        for measured in results.values():
            seconds = statistics.median(each.seconds for each in measured)
            most = max(each.megabytes for each in measured)
            processor = statistics.median(each.processor for each in measured)
            cells.append(f"{seconds:.2f} | {processor:.2f} | {measured[0].stored / 1e6:.1f} | {most}".rjust(28))
        say(f"{name:34}" + "".join(cells))


def steps(peer: Peer, rollout: Path, longer: Path, place: Path) -> list[tuple[str, Measured]]:
    """The first and the next archive, reading back, restoring: of a file that keeps its name and is the same file."""
    work = Path(tempfile.mkdtemp(dir=place))
    store, source, target = work / "store", work / "source" / "rollout.jsonl", work / "target"
    source.parent.mkdir()
    target.mkdir()
    shutil.copyfile(rollout, source)
    peer.prepare(store)
    made: list[tuple[str, Measured]] = []
    try:
        before = size_of(store)
        for step in ("first", "next"):
            measured = getattr(peer, step)(store, source)
            made.append((step, replace(measured, stored=size_of(store) - before)))
            before = size_of(store)
            if step == "first":
                with longer.open("rb") as more, source.open("ab") as file:
                    more.seek(file.tell())
                    shutil.copyfileobj(more, file)
        made.append(("read back", peer.verify(store, source)))
        made.append(("restore", peer.restore(store, source, target)))
        if not filecmp.cmp(next(target.rglob(source.name)), source, shallow=False):
            raise SystemExit(f"{peer.name} did not restore what it was given")
    finally:
        shutil.rmtree(work)
    return made


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=long_rollouts.KINDS)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.one:
        one(settings.one)
        return
    with tempfile.TemporaryDirectory(dir=settings.folder) as name:
        place = Path(name)
        for kind in [settings.only] if settings.only else long_rollouts.KINDS:
            rollout, longer = place / f"{kind}.jsonl", place / f"{kind}-longer.jsonl"
            # In a process of its own: what this one once held would count as memory of each one that it starts.
            told = json.dumps({"verb": kind, "rollout": str(rollout), "store": str(longer), "size": settings.megabytes})
            run([sys.executable, "-m", "tests.benchmarks.archive", "--one", told], place)
            say(f"\n== {kind}: {rollout.stat().st_size / 1e6:.0f} MB, then {longer.stat().st_size / 1e6:.0f} MB")
            choice(rollout, place, settings.rounds)
            peers(rollout, longer, place, settings.rounds)
            rollout.unlink()
            longer.unlink()


if __name__ == "__main__":
    main()
