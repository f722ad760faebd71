"""The archive against `restic backup` and `borg create`: the first, the next, reading back, restoring."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tests.benchmarks.archive_peers import BORG, BORG_ZSTD, RESTIC, Peer, Words, borg, ours, restic
from tests.benchmarks.archive_rollouts import KINDS, write_growing
from tests.benchmarks.measuring import Contender, Measured, Process, Sample, paired
from tests.benchmarks.tables import Budget, Row, Table, at_most, within
from tests.benchmarks.workbench import Workbench, amount

__all__ = ["archive"]

_OURS = "preflight"
_TAIL, _SAMPLED, _FULL = (f"preflight, {proof} proof" for proof in ("tail", "sampled", "full"))
_PEERS = (RESTIC, BORG, BORG_ZSTD)
_MOST_ROUNDS = 3
_MEMORY_MB, _COMPRESSING_MB = 80, 384

#: Of each peer's time, how much ours may take.
_HALF = {RESTIC: 0.5, BORG_ZSTD: 0.5}
_TENTH = {RESTIC: 0.1, BORG_ZSTD: 0.1}
_PROVED = {RESTIC: 1 / 3, BORG_ZSTD: 0.5}


def archive(bench: Workbench) -> Table:
    table = Table(
        "The archive, restic and borg",
        [
            "Whole processes, the source warm, everything on the disk when they end. `text`: outputs and reasoning,",
            "which do not repeat; `images`: screenshots too, which compactions repeat on lines of 10 to 25 MB. Each",
            "program's next archive begins with what its first one has left. Reading back decompresses everything and",
            "compares digests; ours has the system forget the archive before. restic encrypts, and restic and borg",
            "find what repeats across files too; ours does neither, and `zstd -d` reads it.",
        ],
    )
    for kind in KINDS:
        folder = bench.folder / kind
        folder.mkdir()
        bench.say(f"writing a rollout of {amount(bench.scale.archived)}: {kind}")
        source, longer = folder / "rollout.jsonl", folder / "longer.jsonl"
        write_growing(source, longer, kind, bench.scale.archived, bench.scale.added)
        _Case(bench, table, kind, source, longer).measure()
        shutil.rmtree(folder)
    return table


@dataclass(frozen=True)
class _Case:
    """One kind of rollout; `longer` is what it grows to."""

    bench: Workbench
    table: Table
    kind: str
    source: Path
    longer: Path

    def measure(self) -> None:
        self._first()
        added = self._grow()
        self._next(added)
        self._read_back()
        self._restored()

    def _peers(self, *own: Peer) -> list[Peer]:
        return [
            *own,
            restic(self.source),
            borg(self.source, BORG),
            borg(self.source, BORG_ZSTD, "-C", "zstd,3"),
        ]

    def _first(self) -> None:
        case = f"{self.kind}, first archive of {amount(self.source.stat().st_size)}"
        peers = self._peers(ours(self.source, _OURS))
        measured = self._paired(peers, self._begin, lambda peer: self._created(peer, peer.creates_first))
        self._rows(case, peers, measured, {_OURS: _HALF})
        self._bytes(case, measured, _OURS, BORG_ZSTD, 0.5 if self.kind == "images" else 1)
        self._memory(case, measured, _OURS, _COMPRESSING_MB)
        for peer in peers:
            if peer.is_here:
                peer.folder.rename(peer.after_first)

    def _grow(self) -> int:
        with self.longer.open("rb") as longer, self.source.open("ab") as file:
            before = longer.seek(file.tell())
            shutil.copyfileobj(longer, file)
            return file.tell() - before

    def _next(self, added: int) -> None:
        case = f"{self.kind}, the next after {amount(added)} more"
        proofs = ((_TAIL, "tail"), (_SAMPLED, "sampled"), (_FULL, "full"))
        peers = self._peers(*(ours(self.source, name, proof) for name, proof in proofs))
        measured = self._paired(peers, self._as_after_first, lambda peer: self._created(peer, peer.creates_next))
        self._rows(case, peers, measured, {_TAIL: _TENTH, _FULL: _PROVED})
        self._bytes(case, measured, _FULL, RESTIC, 1)
        self._memory(case, measured, _FULL, _COMPRESSING_MB)

    def _read_back(self) -> None:
        case = f"{self.kind}, read back"
        peers = self._peers(ours(self.source, _OURS))
        measured = self._paired(peers, lambda _: None, lambda peer: self._run(peer.call(peer.verifies)))
        self._rows(case, peers, measured, {_OURS: _HALF})
        self._memory(case, measured, _OURS, _MEMORY_MB)

    def _restored(self) -> None:
        case = f"{self.kind}, restore"
        peers = self._peers(ours(self.source, _OURS))
        measured = self._paired(peers, self._empty_target, lambda peer: self._run(peer.restoring()))
        self._rows(case, peers, measured, {_OURS: _HALF})
        self._memory(case, measured, _OURS, _MEMORY_MB)
        for peer in peers:
            if peer.is_here:
                same = filecmp.cmp(peer.restored, self.source, shallow=False)
                self.table.check(f"{self.kind}: {peer.name} restores what it was given", same)

    # ---- what is measured, and what comes before

    def _paired(
        self, peers: Sequence[Peer], prepare: Callable[[Peer], object], run: Callable[[Peer], Sample]
    ) -> Mapping[str, Measured]:
        contenders = {
            peer.name: Contender(partial(run, peer), partial(prepare, peer)) for peer in peers if peer.is_here
        }
        return paired(contenders, min(_MOST_ROUNDS, self.bench.scale.rounds), warm_up=False)

    def _run(self, process: Process) -> Sample:
        return self.bench.launcher.run(process)

    def _created(self, peer: Peer, words: Words) -> Sample:
        """The answer is by how many bytes the store grew."""
        before = peer.stored_bytes
        return replace(self._run(peer.call(words)), answer=peer.stored_bytes - before)

    def _begin(self, peer: Peer) -> None:
        shutil.rmtree(peer.folder, ignore_errors=True)
        peer.store.mkdir(parents=True)
        if peer.prepares is not None:
            self._run(peer.call(peer.prepares))

    def _as_after_first(self, peer: Peer) -> None:
        shutil.rmtree(peer.folder, ignore_errors=True)
        shutil.copytree(peer.after_first, peer.folder)

    def _empty_target(self, peer: Peer) -> None:
        shutil.rmtree(peer.target, ignore_errors=True)
        peer.target.mkdir()

    # ---- what is told

    def _rows(
        self,
        case: str,
        peers: Sequence[Peer],
        measured: Mapping[str, Measured],
        budgets: Mapping[str, Mapping[str, float]],
    ) -> None:
        for peer in peers:
            if peer.name not in measured:
                self.table.rows.append(Row(case, peer.name, skipped=f"no {peer.program} here"))
                continue
            budget = _faster(measured[peer.name], measured, budgets.get(peer.name, {}))
            self.table.rows.append(Row(case, peer.name, measured[peer.name], budget))

    def _bytes(self, case: str, measured: Mapping[str, Measured], own: str, peer: str, limit: float) -> None:
        stored = _stored(measured[own])
        words = ", ".join(f"{name}: {_stored(one) / 1e6:.1f}" for name, one in measured.items() if name in _PEERS)
        budget = Budget(f"{stored / 1e6:.1f} MB ({words})")
        if peer in measured:
            allowed = limit * _stored(measured[peer])
            budget = within(budget.measured, f"at most {limit:.3g} x {peer}", stored <= allowed)
        self.table.rows.append(Row(f"{case}: bytes stored", own, measured[own], budget))

    def _memory(self, case: str, measured: Mapping[str, Measured], own: str, limit: int) -> None:
        budget = at_most((measured[own].peak_bytes or 0) / 1e6, limit, " MB")
        self.table.rows.append(Row(f"{case}: peak memory", own, measured[own], budget))


def _faster(own: Measured, peers: Mapping[str, Measured], limits: Mapping[str, float]) -> Budget:
    """How much of each peer's time, beside how much it may be."""
    known = {name: own.times(peers[name]) for name in limits if name in peers}
    if not known:
        return Budget("")
    return within(
        ", ".join(f"{ratio:.2f} x {name}" for name, ratio in known.items()),
        ", ".join(f"at most {limits[name]:.2g} x {name}" for name in known),
        all(ratio <= limits[name] for name, ratio in known.items()),
    )


def _stored(measured: Measured) -> int:
    """Bytes; of programs that do not store the same each time, of the first round."""
    answer = measured.answers[0]
    assert isinstance(answer, int)
    return answer
