"""Makes a throw-away Codex home for `preflight demo` and for tests: invented content, real formats.

Three threads: a large one with an active goal and many compactions, one with damage of the kinds
people have met, and a small healthy one. The databases are those of Codex 0.134.0 (`goals_1.sqlite`,
`state_5.sqlite`), reduced to the tables that hold threads and goals, column for column as that
version makes them, in WAL mode. The real Codex takes `goals_1.sqlite` as it is; it refuses the
reduced `state_5.sqlite`, and finds the threads by their file names when that is taken away
(0.134.0, 0.169.0). Nothing here ever opens a home that it has not made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from preflight.codex.sample_records import CWD, LEGACY_VERSION, MODEL, PAGINATED_VERSION, STARTED, sample_uuid
from preflight.codex.sample_rollout import RolloutWriter, rollout_path
from preflight.model import Goal, GoalStatus, GoalTable, HistoryMode, ThreadRow
from preflight.system import databases

LARGE_BYTES: Final = 520_000_000
TAIL_BYTES: Final = 2_000_000

_STARTED_MS: Final = int(STARTED.timestamp() * 1000)
_FIRST_WORDS: Final = "Please look around."
_OBJECTIVE: Final = "Make every test of the sample pass."
# One goal turn of the large thread: many small outputs, some long ones, as measured on reported threads.
_TURN_OUTPUTS: Final = (2_000, 12_000, 45_000, 2_000, 200_000, 12_000, 700_000)
_TAIL_OUTPUTS: Final = (2_000, 12_000, 45_000)
_TURNS_BETWEEN_COMPACTIONS: Final = 20
_TURNS_BETWEEN_USER_MESSAGES: Final = 7

# The tables of Codex 0.134.0 as `.schema` prints them after its migrations.
_THREADS_TABLE: Final = """CREATE TABLE threads (
    id TEXT PRIMARY KEY,
    rollout_path TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    source TEXT NOT NULL,
    model_provider TEXT NOT NULL,
    cwd TEXT NOT NULL,
    title TEXT NOT NULL,
    sandbox_policy TEXT NOT NULL,
    approval_mode TEXT NOT NULL,
    tokens_used INTEGER NOT NULL DEFAULT 0,
    has_user_event INTEGER NOT NULL DEFAULT 0,
    archived INTEGER NOT NULL DEFAULT 0,
    archived_at INTEGER,
    git_sha TEXT,
    git_branch TEXT,
    git_origin_url TEXT,
    cli_version TEXT NOT NULL DEFAULT '',
    first_user_message TEXT NOT NULL DEFAULT '',
    agent_nickname TEXT,
    agent_role TEXT,
    memory_mode TEXT NOT NULL DEFAULT 'enabled',
    model TEXT,
    reasoning_effort TEXT,
    agent_path TEXT,
    created_at_ms INTEGER,
    updated_at_ms INTEGER,
    thread_source TEXT,
    preview TEXT NOT NULL DEFAULT ''
)"""
_ADD_HISTORY_MODE: Final = "ALTER TABLE threads ADD COLUMN history_mode TEXT NOT NULL DEFAULT 'legacy'"
_SET_HISTORY_MODE: Final = "UPDATE threads SET history_mode = coalesce(:history_mode, 'legacy') WHERE id = :id"
_INSERT_THREAD: Final = """INSERT INTO threads (
    id, rollout_path, created_at, updated_at, source, model_provider, cwd, title, sandbox_policy, approval_mode,
    archived, cli_version, first_user_message, model, created_at_ms, updated_at_ms, preview
) VALUES (
    :id, :rollout_path, :created_at, :updated_at, 'vscode', 'openai', :cwd, :words, '{"type":"danger-full-access"}',
    'never', :archived, :cli_version, :words, :model, :created_at_ms, :updated_at_ms, :words
)"""
_SPAWN_EDGES_TABLE: Final = """CREATE TABLE thread_spawn_edges (
    parent_thread_id TEXT NOT NULL,
    child_thread_id TEXT NOT NULL PRIMARY KEY,
    status TEXT NOT NULL
)"""
_GOALS_TABLE: Final = """CREATE TABLE thread_goals (
    thread_id TEXT PRIMARY KEY NOT NULL,
    goal_id TEXT NOT NULL,
    objective TEXT NOT NULL,
    status TEXT NOT NULL CHECK(status IN (
        'active',
        'paused',
        'blocked',
        'usage_limited',
        'budget_limited',
        'complete'
    )),
    token_budget INTEGER,
    tokens_used INTEGER NOT NULL DEFAULT 0,
    time_used_seconds INTEGER NOT NULL DEFAULT 0,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL
)"""
# Codex refuses a database whose migrations are not recorded with the digest that it computed itself.
_MIGRATIONS_TABLE: Final = """CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
)"""
_GOALS_MIGRATION: Final = """INSERT INTO _sqlx_migrations VALUES (
    1, 'thread goals', '2026-05-30 09:00:00', 1,
    x'8CE6280244A0B4B39C7C37C7F67AFF1670EC963D2401CDF2ABCFEA9904102DB6CD99B7BEDF366267791A45EB12F17713', 1
)"""
_INSERT_GOAL: Final = """INSERT INTO thread_goals VALUES (
    :thread_id, :goal_id, :objective, :status, :token_budget, :tokens_used, :time_used_seconds, :created_at_ms,
    :updated_at_ms
)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleHome:
    """What was made: the home, its databases, and the id and file of each thread."""

    path: Path
    state_db: Path
    goals_db: Path
    goal: Goal
    damaged_goal: Goal | None
    large_thread_id: str
    large_rollout: Path
    damaged_thread_id: str
    damaged_rollout: Path
    control_thread_id: str
    control_rollout: Path


def make_sample_home(
    folder: Path,
    *,
    large_bytes: int = LARGE_BYTES,
    paginated: bool = False,
    goal_status: str = GoalStatus.ACTIVE,
    damaged_goal_status: str | None = None,
) -> SampleHome:
    """Make a Codex home in `folder`, which must be empty or missing; the same arguments give the same rollouts.

    The large rollout is `large_bytes` long or at most a short turn longer; its last compaction, and with
    it the boundary, is about `TAIL_BYTES` (a quarter of a small file) before its end. The large thread
    has a goal, the damaged one when a status is given. Errors are OSError and those of
    `databases.create`; what was written until then stays in `folder`.
    """
    ids = {kind: sample_uuid(_STARTED_MS, kind) for kind in ("large", "damaged", "control")}
    rollouts = {kind: rollout_path(folder, thread_id) for kind, thread_id in ids.items()}
    with RolloutWriter(rollouts["large"], ids["large"], paginated=paginated) as writer:
        _write_large(writer, large_bytes)
    with RolloutWriter(rollouts["damaged"], ids["damaged"], paginated=paginated) as writer:
        _write_damaged(writer)
    with RolloutWriter(rollouts["control"], ids["control"], paginated=paginated) as writer:
        writer.turn(_FIRST_WORDS, outputs=(2_000,))
        writer.turn("Thank you.")
    goal = _goal(ids["large"], goal_status)
    damaged_goal = None if damaged_goal_status is None else _goal(ids["damaged"], damaged_goal_status)
    rows = [
        ThreadRow(
            thread_id=ids[kind],
            rollout_path=str(rollouts[kind]),
            archived=False,
            history_mode=HistoryMode.PAGINATED if paginated else None,
            cli_version=PAGINATED_VERSION if paginated else LEGACY_VERSION,
            updated_at_ms=_STARTED_MS + 36_000_000,
        )
        for kind in ids
    ]
    create_state_database(folder / "state_5.sqlite", rows)
    create_goals_database(folder / "goals_1.sqlite", [goal] if damaged_goal is None else [goal, damaged_goal])
    return SampleHome(
        path=folder,
        state_db=folder / "state_5.sqlite",
        goals_db=folder / "goals_1.sqlite",
        goal=goal,
        damaged_goal=damaged_goal,
        large_thread_id=ids["large"],
        large_rollout=rollouts["large"],
        damaged_thread_id=ids["damaged"],
        damaged_rollout=rollouts["damaged"],
        control_thread_id=ids["control"],
        control_rollout=rollouts["control"],
    )


def _goal(thread_id: str, status: str) -> Goal:
    return Goal(
        thread_id=thread_id,
        goal_id=f"4d3c2b1a-0000-4000-8000-{thread_id[-12:]}",
        objective=_OBJECTIVE,
        status=status,
        token_budget=None,
        tokens_used=1_250_000,
        time_used_seconds=36_000,
        created_at_ms=_STARTED_MS,
        updated_at_ms=_STARTED_MS + 36_000_000,
        table=GoalTable.GOALS,
    )


def create_state_database(path: Path, rows: Iterable[ThreadRow]) -> None:
    """Make a `state_5.sqlite` with these threads; 0.144's column is added when a row has a history mode."""
    threads: list[dict[str, str | int | None]] = [
        {
            "id": row.thread_id,
            "rollout_path": row.rollout_path,
            "created_at": _STARTED_MS // 1000,
            "updated_at": (row.updated_at_ms or _STARTED_MS) // 1000,
            "archived": int(row.archived),
            "cli_version": row.cli_version or "",
            "created_at_ms": _STARTED_MS,
            "updated_at_ms": row.updated_at_ms or _STARTED_MS,
            "history_mode": row.history_mode,
            "cwd": CWD,
            "model": MODEL,
            "words": _FIRST_WORDS,
        }
        for row in rows
    ]
    with_modes = any(thread["history_mode"] for thread in threads)
    databases.create(
        path,
        [
            (_THREADS_TABLE, ()),
            (_SPAWN_EDGES_TABLE, ()),
            *([(_ADD_HISTORY_MODE, ())] if with_modes else []),
            *((_INSERT_THREAD, thread) for thread in threads),
            *((_SET_HISTORY_MODE, thread) for thread in threads if with_modes),
        ],
    )


def create_goals_database(path: Path, goals: Iterable[Goal]) -> None:
    """Make a `goals_1.sqlite` with these goals; the real Codex opens it."""
    rows = [(_INSERT_GOAL, asdict(goal)) for goal in goals]
    databases.create(path, [(_MIGRATIONS_TABLE, ()), (_GOALS_MIGRATION, ()), (_GOALS_TABLE, ()), *rows])


def _write_large(writer: RolloutWriter, large_bytes: int) -> None:
    tail = min(TAIL_BYTES, large_bytes // 4)
    writer.turn(_FIRST_WORDS)
    writer.compaction()
    turns = 0
    while (room := large_bytes - tail - writer.size_bytes) > 0:
        turns += 1
        outputs = _fitting(writer, _TURN_OUTPUTS, room)
        if turns % _TURNS_BETWEEN_USER_MESSAGES == 0:
            writer.turn(f"Part {turns} looks right.", outputs=outputs)
        else:
            writer.goal_turn(_OBJECTIVE, outputs=outputs, compacts=turns % _TURNS_BETWEEN_COMPACTIONS == 0)
    writer.compaction()
    writer.turn("How far are you?")
    while (room := large_bytes - writer.size_bytes) > 0:
        writer.goal_turn(_OBJECTIVE, outputs=_fitting(writer, _TAIL_OUTPUTS, room))


def _fitting(writer: RolloutWriter, outputs: Iterable[int], room: int) -> list[int]:
    """Choose the outputs that `room` has a place for; a paginated rollout holds each of them twice."""
    copies = 2 if writer.paginated else 1
    chosen = []
    for size in outputs:
        if size * copies <= room:
            chosen.append(size)
            room -= size * copies
    return chosen


def _write_damaged(writer: RolloutWriter) -> None:
    """A byte that is not UTF-8, a block of NULs as a crash leaves it, and a last line that was cut off."""
    writer.turn(_FIRST_WORDS)
    writer.raw(
        b'{"timestamp":"2026-05-30T09:01:00.000Z","type":"event_msg","payload":{"type":"note","text":"\xff\xfe"}}\n'
    )
    writer.raw(bytes(4096) + b"\n")
    writer.turn("And now?")
    writer.raw(b'{"timestamp":"2026-05-30T09:02:00.000Z","type":"response_item","payload":{"type":"mess')
