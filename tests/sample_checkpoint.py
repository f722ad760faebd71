"""A checkpoint small enough to read: its manifest, and the two files that it names."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from preflight.checkpoint.jsonline import written_path
from preflight.checkpoint.manifest import (
    DatabaseRecord,
    FileRecord,
    HomeRecord,
    InventoryItem,
    Manifest,
    RuntimeRecord,
    SourceRecord,
    ThreadRecord,
)
from preflight.model import (
    ArchiveReference,
    Boundary,
    FileIdentity,
    Goal,
    GoalTable,
    History,
    HistoryMode,
    Piece,
    Role,
    ThreadRow,
)

ID = "20261122T120000Z-0a1b2c"
ROLLOUT = b'{"type":"session_meta"}\n'
DATABASE = b"SQLite format 3\0"
THREAD = "019a0000-0000-7000-8000-000000000001"
GOAL = Goal(
    thread_id=THREAD,
    goal_id="7f2c",
    objective="säubern — 片付け \N{WASTEBASKET}",
    status="paused",
    token_budget=None,
    tokens_used=2**40,
    time_used_seconds=7,
    created_at_ms=1,
    updated_at_ms=2,
    table=GoalTable.GOALS,
)


def sample_manifest() -> Manifest:
    """With paths that are not UTF-8, numbers beyond 32 and 64 bits, and everything optional once there and once not."""
    rollout = f"threads/{THREAD}/rollout.jsonl"
    return Manifest(
        checkpoint_id=ID,
        created_at="2026-11-22T12:00:00Z",
        home=HomeRecord(path=Path("/home/u/.codex"), sqlite_home=Path(os.fsdecode(b"/srv/d\xff")), home_id="codex-12"),
        target_version="0.169.0",
        runtimes=(RuntimeRecord(pid=12, version=None, role=Role.DESKTOP),),
        files=(
            FileRecord(
                path="databases/goals_1.sqlite",
                length=len(DATABASE),
                sha256=hashlib.sha256(DATABASE).hexdigest(),
                role="database",
            ),
            FileRecord(
                path=rollout, length=len(ROLLOUT), sha256=hashlib.sha256(ROLLOUT).hexdigest(), role="resume-rollout"
            ),
        ),
        databases=(
            DatabaseRecord(name="goals_1.sqlite", path="databases/goals_1.sqlite", source=Path("/srv/goals_1.sqlite")),
        ),
        threads=(
            ThreadRecord(
                thread_id=THREAD,
                file=rollout,
                whole=False,
                boundary=Boundary(
                    segment=0,
                    offset=2**33,
                    base_segment=1,
                    base_offset=5,
                    base_sha256="ab",
                    settings_sha256="cd",
                    settings=(Piece(segment=1, start=3, end=9),),
                ),
                sources=(
                    SourceRecord(
                        path=Path(os.fsdecode(b"/home/u/\xfe/rollout.jsonl")),
                        file_id=THREAD,
                        identity=FileIdentity(device=1, inode=2**100, size_bytes=3, modified_ns=2**62),
                        used_bytes=3,
                        tail_sha256="00",
                        archive=ArchiveReference(
                            file="rollout.jsonl", generation=2, raw_length=2**33, frames=7, frames_sha256="aa"
                        ),
                    ),
                ),
                size_bytes=3_063_881_398,
                history_mode=HistoryMode.PAGINATED,
                cli_version="0.154.0",
                archived=False,
                goal=GOAL,
                row=ThreadRow(
                    thread_id=THREAD,
                    rollout_path=r"\\?\C:\rollout.jsonl",
                    archived=False,
                    history_mode=None,
                    cli_version=None,
                    updated_at_ms=None,
                ),
                history=History("ab", "cd", 12, "ef"),
                verification={"digests": {"outcome": "passed"}, "trial": None},
            ),
        ),
        goals=(GOAL,),
        inventory=(
            InventoryItem(
                thread_id=THREAD,
                path="sessions/2026/11/22/rollout.jsonl",
                size_bytes=3,
                archived=False,
                identity=FileIdentity(device=1, inode=2, size_bytes=3, modified_ns=4),
            ),
            InventoryItem(
                thread_id="x",
                path=written_path(os.fsdecode(b"sessions/\xff/rollout.jsonl")),
                size_bytes=0,
                archived=True,
            ),
        ),
        version="1.2.3",
        runtime_version="0.147.0",
    )


def write_files(folder: Path) -> Path:
    """Lays out the files of the sample below `folder` / its id, without the manifest."""
    place = folder / ID
    (place / "databases").mkdir(parents=True)
    (place / "threads" / THREAD).mkdir(parents=True)
    (place / "databases" / "goals_1.sqlite").write_bytes(DATABASE)
    (place / "threads" / THREAD / "rollout.jsonl").write_bytes(ROLLOUT)
    return place
