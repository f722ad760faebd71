"""Scenes for tests in which a verb is killed, or its disk fails: a home, a store, and what of both must not be lost.

The home has a goal thread with compactions, long enough for several frames, a damaged one and a small one.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from preflight.checkpoint.archive import Archive
from preflight.checkpoint.generation import Generation
from preflight.checkpoint.restore_record import Phase, Restores
from preflight.codex.rollout import parse_name
from preflight.codex.sample_home import SampleHome, make_sample_home
from tests import archives
from tests.system_calls import Call, Decision, Ended, Fails, KillTorn, watched
from tests.troubled_home import Answer, call

__all__ = [
    "CHECKPOINT",
    "PRUNE",
    "Published",
    "Scene",
    "Stays",
    "answer_of",
    "cut_short",
    "digests",
    "first_time",
    "grown",
    "put_back",
    "require_nothing_lost",
    "require_put_right",
    "said",
    "small_scene",
    "to_be_pruned",
    "what_stays",
    "words",
]

CHECKPOINT = ("checkpoint", "--all")
PRUNE = ("prune", "--keep-last", "1")

# Raw bytes of a frame, and of what may become one.
FRAME, GATHER = 100_000, 60_000
LARGE_BYTES = 600_000


@dataclass(frozen=True)
class Published:
    """What may not be lost of a store: files of checkpoints by digest, finished lines of frames, pins."""

    checkpoints: dict[str, str]
    frames: dict[str, bytes]
    pins: frozenset[str]

    def require_in(self, now: Published) -> None:
        for name, digest in self.checkpoints.items():
            assert now.checkpoints.get(name) == digest, f"{name} was published and is lost"
        for name, lines in self.frames.items():
            assert now.frames.get(name, b"").startswith(lines), f"lines of {name} were published and are lost"
        assert self.pins <= now.pins


@dataclass
class Scene:
    """A home, in `place`, and its store, which can be laid out anew as they were saved in `folder`.

    `archived` are the bytes that each generation of an archive was made from, by file name and number.
    """

    folder: Path
    home: Path
    store_root: Path
    sample: SampleHome = field(init=False)
    archived: dict[tuple[str, int], bytes] = field(default_factory=dict)
    _generation: int = 1

    def __post_init__(self) -> None:
        self.sample = make_sample_home(self.home, large_bytes=LARGE_BYTES)
        self.place = self.home.parent
        self._note()

    @property
    def store(self) -> Path:
        (folder,) = self.store_root.iterdir()
        return folder

    @property
    def rollout(self) -> Path:
        return self.sample.large_rollout

    @property
    def thread(self) -> str:
        return self.sample.large_thread_id

    # ---- calls

    def call(self, *words: str | Path) -> Answer:
        """One call in this process, which nothing disturbs."""
        verb, *rest = words
        return call(verb, "--json", "--home", self.home, "--store", self.store_root, *rest)

    def watched_call(self, words: tuple[str | Path, ...], decide: object) -> Ended:
        """The same in a child of which `decide` is asked at every call of the system that meets this scene's files."""

        def decided(one: Call) -> Decision | Fails | KillTorn:
            is_ours = one.is_below(self.place) or one.is_below(self.store_root)
            return decide(one) if is_ours else Decision.PASS  # type: ignore[operator]

        def work() -> bytes:
            answer = self.call(*words)
            return json.dumps([answer.code, answer.envelope]).encode()

        return watched(work, decided)

    # ---- as it was

    def save(self, name: str = "saved") -> None:
        (self.folder / name).mkdir()
        for part in (self.home, self.store_root):
            if part.exists():
                subprocess.run(["cp", "-a", part, self.folder / name / part.name], check=True)

    def lay_out(self, name: str = "saved", *, only_store: bool = False) -> None:
        """Put back what was saved; a home that nothing touches can keep its files: copies of them would be others."""
        parts = [self.store_root] if only_store else [*self.place.iterdir(), self.store_root]
        subprocess.run(["rm", "-rf", *parts], check=True)
        for part in (self.store_root,) if only_store else (self.home, self.store_root):
            if (self.folder / name / part.name).exists():
                subprocess.run(["cp", "-a", self.folder / name / part.name, part], check=True)

    # ---- what lies there

    def grow(self, size: int, seed: int) -> None:
        """Codex goes on with the thread."""
        archives.add_lines(self.rollout, size, seed)
        self._note()

    def rewrite(self) -> None:
        """Codex has cut the thread: its archive begins anew."""
        self.rollout.write_bytes(b"".join(self.rollout.read_bytes().splitlines(keepends=True)[:-3]))
        self._generation += 1
        self._note()

    def _note(self) -> None:
        for path in self.home.rglob("*"):
            if parse_name(path.name) is not None:
                self.archived[path.name, self._generation if path == self.rollout else 1] = path.read_bytes()

    def originals(self) -> dict[str, str]:
        """Rollouts, databases and their logs; whoever reads a database may leave an empty log, which says nothing."""
        found = digests(self.home)
        empty = hashlib.sha256().hexdigest()
        return {
            name: digest
            for name, digest in found.items()
            if not name.endswith("-shm") and not (name.endswith("-wal") and digest == empty)
        }

    def published(self) -> Published:
        """What is published in the store; every frame of it is read back and compared with what it was made from."""
        if not self.store_root.exists() or not any(self.store_root.iterdir()):
            return Published({}, {}, frozenset())
        checkpoints: dict[str, str] = {}
        archives_named: set[tuple[str, int]] = set()
        for manifest in self.store.glob("checkpoints/*/manifest.json"):
            told = json.loads(manifest.read_bytes())
            sources = [source["archive"] for thread in told["threads"] for source in thread["sources"]]
            archives_named.update((one["file"], one["generation"]) for one in sources if one is not None)
            checkpoints[str(manifest.relative_to(self.store))] = hashlib.sha256(manifest.read_bytes()).hexdigest()
            for one in told["files"]:
                path = manifest.parent / one["path"]
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                assert digest == one["sha256"], f"{path} is not what its manifest says"
                checkpoints[str(path.relative_to(self.store))] = digest
        frames = {}
        for log in self.store.glob("archive/*/*.frames.jsonl"):
            data = log.read_bytes()
            frames[str(log.relative_to(self.store))] = data[: data.rfind(b"\n") + 1]
        for folder in self.store.glob("archive/*"):
            archive = Archive(folder)
            for name in archive.names():
                generations = archive.generations(name)
                for generation in generations:
                    # One that no checkpoint names, of which there is a newer one, is on its way out.
                    if generation == generations[-1] or (name, generation) in archives_named:
                        self._require_archived(archive, name, generation)
        return Published(checkpoints, frames, frozenset(path.name for path in self.store.glob("pins/[0-9]*")))

    def _require_archived(self, archive: Archive, name: str, generation: int) -> None:
        state = archive.state(name, generation)
        assert state is not None
        target = io.BytesIO()
        archive.read(name, generation, state.raw_length, target)
        assert target.getvalue() == self.archived[name, generation][: state.raw_length]

    def require_whole_archives(self, *generations: int) -> None:
        """The newest generation of each rollout has all lines, for `zstd -d` alone; `generations` are the thread's."""
        for path in self.home.rglob("*"):
            if parse_name(path.name) is None:
                continue
            numbers = generations if path == self.rollout else (1,)
            (folder,) = (log.parent for log in self.store.glob(f"archive/*/{path.name}.frames.jsonl"))
            assert Archive(folder).generations(path.name) == list(numbers)
            whole = path.read_bytes()
            unpacked = archives.unpacked(Generation(folder, path.name, numbers[-1]).data)
            assert unpacked == whole[: whole.rfind(b"\n") + 1], path.name

    def left_half_way(self) -> list[str]:
        """Files in the place that only a call that has not ended may have, and folders of no checkpoint."""
        begun = [path.parent for path in self.store.glob("checkpoints/*/") if not (path / "manifest.json").exists()]
        named = [
            path
            for path in {*self.place.rglob("*"), *self.store_root.rglob("*")}
            if path.name.endswith((".preflight-tmp", ".tail")) or ".restore-" in path.name or path.name == "run.json"
        ]
        restores = [r for r in Restores(self.store / "restores").all() if r.phase in (Phase.STAGING, Phase.SWAPPING)]
        return sorted(map(str, [*begun, *named, *restores]))

    def rows(self, database: str, table: str) -> list[dict[str, object]]:
        with closing(sqlite3.connect(self.home / database)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]

    def execute(self, database: str, sql: str, *parameters: object) -> None:
        with closing(sqlite3.connect(self.home / database)) as connection, connection:
            connection.execute(sql, parameters)


def small_scene(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, home: Path | None = None, store: Path | None = None
) -> Scene:
    """A scene with frames of a few kilobytes, without a Codex for a trial, and with a store that may fill its disk.

    `home` and `store` may lie on disks of their own.
    """
    programs, place = folder / "bin", folder / "at"
    for made in (programs, place):
        made.mkdir()
    for name, program in (("zstd", archives.zstd_program()), ("cp", shutil.which("cp")), ("rm", shutil.which("rm"))):
        (programs / name).symlink_to(str(program))
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("PREFLIGHT_STORE_KEEP_FREE", "0 B")
    archives.small_frames(monkeypatch, frame=FRAME, gather=GATHER)
    return Scene(folder, home or place / "home", store or place / "store")


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder, by its path in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def answer_of(ended: Ended) -> Answer:
    """What a watched call that came to its end has said."""
    assert ended.status == 0, ended
    code, envelope = json.loads(ended.answer)
    return Answer(code, envelope)


# ---- what a verb meets, and what must be so afterwards ------------------------------------------------------------


def first_time(scene: Scene) -> None:
    """Nothing is in the store."""


def grown(scene: Scene) -> None:
    """A checkpoint was published; what was added since is to be made into one frame with the last one."""
    assert scene.call(*CHECKPOINT).code == 0
    scene.grow(20_000, 1)
    assert scene.call(*CHECKPOINT).code == 0
    scene.grow(20_000, 2)


def to_be_pruned(scene: Scene) -> None:
    """Of three checkpoints one stays; an archive's first generation goes."""
    assert scene.call(*CHECKPOINT).code == 0
    scene.rewrite()
    assert scene.call(*CHECKPOINT).code == 0
    scene.grow(1000, 1)
    assert scene.call(*CHECKPOINT).code == 0


def cut_short(scene: Scene) -> None:
    """The thread has lost its end; the checkpoint has it."""
    assert scene.call(*CHECKPOINT).code == 0
    scene.rollout.write_bytes(scene.rollout.read_bytes()[:-5_000] + b"x\n")


def put_back(scene: Scene) -> None:
    """The thread's whole rollout is in its place again, the shorter one beside it."""
    cut_short(scene)
    assert scene.call("restore", "latest", scene.thread, "--full", "--in-place", "--yes").code == 0


def words(scene: Scene, verb: str) -> tuple[str | Path, ...]:
    whole = ("restore", "latest", scene.thread, "--full", "--yes")
    return {
        "checkpoint": CHECKPOINT,
        "prune": PRUNE,
        "restore": (*whole, "--in-place"),
        "restore --to": (*whole, "--to", scene.place / "new"),
        "undo": ("restore", "--undo", "--yes"),
    }[verb]


Stays = tuple[Published, bytes, dict[str, str]]


def said(answer: Answer) -> set[str]:
    return {*answer.findings(), *(error["code"] for error in answer.envelope["errors"])}


def what_stays(scene: Scene, verb: str) -> Stays:
    """What is published, as far as the verb may not take it away; the rollout; and what the home holds besides."""
    published = scene.published()
    if verb == "prune":
        scene.save("unpruned")
        assert scene.call(*PRUNE).code == 0
        published = scene.published()
        scene.lay_out("unpruned")
    return published, scene.rollout.read_bytes(), others(scene)


def others(scene: Scene) -> dict[str, str]:
    return {
        name: digest
        for name, digest in digests(scene.home).items()
        if name.endswith(".jsonl") and scene.thread not in name
    }


def require_nothing_lost(scene: Scene, verb: str, stays: Stays) -> None:
    published, rollout, rest = stays
    published.require_in(scene.published())
    assert others(scene) == rest
    versions = [one.read_bytes() for one in scene.rollout.parent.iterdir() if not one.name.startswith(".")]
    assert rollout in versions
    if verb not in ("restore", "undo"):
        assert scene.rollout.read_bytes() == rollout


def require_put_right(scene: Scene, verb: str) -> None:
    new = scene.place / "new"
    if verb == "restore --to" and new.exists():  # all of it is there, and only the last flush of its name failed
        verb = "checkpoint"
    again = scene.call(*words(scene, verb))
    assert again.code == 0 or (verb == "undo" and said(again) == {"usage"}), again
    assert scene.left_half_way() == []
    assert scene.call("verify", "--read-data").code == 0
    whole = scene.archived[scene.rollout.name, 1]
    if verb == "restore":
        assert scene.rollout.read_bytes() == whole
    if new.exists():
        assert (new / scene.rollout.relative_to(scene.home)).read_bytes() == whole
