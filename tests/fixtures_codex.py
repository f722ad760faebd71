"""Codex homes for tests: real folders and real SQLite databases in WAL mode, laid out as Codex lays them out.

The tables are those that Codex 0.128.0, 0.134.0 and 0.169.0 make, column for column, of the databases
that preflight reads. Rollouts are a real first line and filling. All content is invented.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from preflight.codex.home import find_homes
from preflight.model import Home

OBJECTIVE = "move the harbour crane to the north pier"
CREATED_MS = 1_795_353_908_403
UPDATED_MS = 1_795_353_908_761

_STATE = """CREATE TABLE threads (
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
    git_origin_url TEXT
, cli_version TEXT NOT NULL DEFAULT '', first_user_message TEXT NOT NULL DEFAULT '', agent_nickname TEXT,
agent_role TEXT, memory_mode TEXT NOT NULL DEFAULT 'enabled', model TEXT, reasoning_effort TEXT, agent_path TEXT,
created_at_ms INTEGER, updated_at_ms INTEGER"""
_SINCE_0_134 = ", thread_source TEXT, preview TEXT NOT NULL DEFAULT ''"
_SINCE_0_169 = """, recency_at INTEGER NOT NULL DEFAULT 0, recency_at_ms INTEGER NOT NULL DEFAULT 0,
history_mode TEXT NOT NULL DEFAULT 'legacy', name TEXT, is_pinned INTEGER NOT NULL DEFAULT 0, thread_section_id TEXT,
section_position INTEGER, section_entered_at_ms INTEGER, project_id TEXT, originator TEXT, daybreak_enabled BOOLEAN,
creator_user_id TEXT, creator_account_id TEXT, attached_thread_parent_id TEXT"""
_GOALS = """CREATE TABLE thread_goals (
    thread_id TEXT PRIMARY KEY NOT NULL {references},
    goal_id TEXT NOT NULL,
    objective TEXT NOT NULL,
    status TEXT NOT NULL CHECK(status IN ({statuses})),
    token_budget INTEGER,
    tokens_used INTEGER NOT NULL DEFAULT 0,
    time_used_seconds INTEGER NOT NULL DEFAULT 0,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL
)"""
_GOALS_0_128 = _GOALS.format(
    references="REFERENCES threads(id) ON DELETE CASCADE", statuses="'active', 'paused', 'budget_limited', 'complete'"
)
_GOALS_0_134 = _GOALS.format(
    references="",
    statuses="\n'active',\n'paused',\n'blocked',\n'usage_limited',\n'budget_limited',\n'complete'\n",
)
_DEFERRALS = """CREATE TABLE thread_goal_continuation_deferrals (
    thread_id TEXT PRIMARY KEY NOT NULL REFERENCES thread_goals(thread_id) ON DELETE CASCADE
)"""
_PROJECTION = """CREATE TABLE thread_history_projection_state (
    thread_id TEXT PRIMARY KEY,
    next_rollout_byte_offset INTEGER NOT NULL,
    next_rollout_ordinal INTEGER NOT NULL
)"""

_LAYOUTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "0.128.0": {"state_5.sqlite": (_STATE + ")", _GOALS_0_128)},
    "0.134.0": {"state_5.sqlite": (_STATE + _SINCE_0_134 + ")",), "goals_1.sqlite": (_GOALS_0_134,)},
    "0.169.0": {
        "state_5.sqlite": (_STATE + _SINCE_0_134 + _SINCE_0_169 + ")",),
        "goals_1.sqlite": (_GOALS_0_134, _DEFERRALS),
        "thread_history_1.sqlite": (_PROJECTION,),
    },
}


def thread_id(number: int) -> str:
    """An id of Codex's kind, ordered by number as UUIDv7s are by time."""
    return f"01a2036e-{number:04x}-7000-8000-0123456789ab"


@dataclass
class CodexHome:
    """A home on the disk that tests fill with what they need. `version` decides the layout of its databases."""

    path: Path
    version: str = "0.169.0"
    sqlite_home: Path = field(default=Path())

    def __post_init__(self) -> None:
        if self.sqlite_home == Path():
            self.sqlite_home = self.path
        for folder in (self.path / "sessions", self.sqlite_home):
            folder.mkdir(parents=True, exist_ok=True)
        for name, statements in _LAYOUTS[self.version].items():
            self.execute(name, "PRAGMA journal_mode = WAL", *statements)

    def found(self, env: Mapping[str, str] | None = None) -> Home:
        """The home as preflight finds it."""
        (home,), _ = find_homes([self.path], env or {}, self.path.parent)
        return home

    def execute(self, database: str, *statements: str | tuple[str, tuple[object, ...]]) -> None:
        with closing(sqlite3.connect(self.sqlite_home / database)) as connection, connection:
            for statement in statements:
                sql, parameters = (statement, ()) if isinstance(statement, str) else statement
                connection.execute(sql, parameters)

    def rows(self, database: str, table: str = "thread_goals") -> list[dict[str, object]]:
        with closing(sqlite3.connect(self.sqlite_home / database)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]

    def rollout(
        self,
        number: int,
        *,
        size: int = 0,
        stamp: str = "2026-11-22T13-25-08",
        segment: int | None = None,
        base: tuple[str, int, int] | None = None,
        ordinal: int | None = None,
        archived: bool = False,
        suffix: str = ".jsonl",
        folder: str | None = None,
        inner_id: str | None = None,
    ) -> Path:
        """Writes a rollout file; `base` is (file id, first ordinal after the cut, byte offset of the cut)."""
        place = folder or ("archived_sessions" if archived else "sessions/" + stamp[:10].replace("-", "/"))
        tail = "" if segment is None else f"_{thread_id(segment)}"
        path = self.path / place / f"rollout-{stamp}-{thread_id(number)}{tail}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        payload: dict[str, object] = {
            "id": inner_id or thread_id(number),
            "cli_version": self.version,
            "base_instructions": {"text": "be kind " * 2000},
        }
        first = 0 if ordinal is None and base is not None else ordinal
        if base is not None:
            file_id, first, offset = base
            payload["history_base"] = {"thread_id": file_id, "end_ordinal_exclusive": first, "end_byte_offset": offset}
        line = {"timestamp": "2026-11-22T13:25:08.403Z"}
        if first is not None:
            line |= {"ordinal": first}
            payload["history_mode"] = "paginated"
        data = json.dumps(line | {"type": "session_meta", "payload": payload}, separators=(",", ":")).encode() + b"\n"
        if size > len(data):
            following = line if first is None else line | {"ordinal": first + 1}
            record = following | {"type": "event_msg", "payload": {"type": "token_count"}}
            text = json.dumps(record, separators=(",", ":")).encode()
            data += text + b" " * max(0, size - len(data) - len(text) - 1) + b"\n"
        path.write_bytes(data)
        return path

    def row(
        self, number: int, rollout_path: Path | str, *, archived: bool = False, history_mode: str = "legacy"
    ) -> None:
        """A row of `threads`, as Codex writes it for a thread that was used."""
        columns: dict[str, object] = {
            "id": thread_id(number),
            "rollout_path": str(rollout_path),
            "created_at": CREATED_MS // 1000,
            "updated_at": UPDATED_MS // 1000,
            "source": "vscode",
            "model_provider": "openai",
            "cwd": "/projects/harbour",
            "title": OBJECTIVE,
            "sandbox_policy": "{}",
            "approval_mode": "never",
            "archived": int(archived),
            "cli_version": self.version,
            "updated_at_ms": UPDATED_MS,
        }
        if self.version == "0.169.0":
            columns["history_mode"] = history_mode
        self._insert("state_5.sqlite", "threads", columns)

    def thread(self, number: int, **options: object) -> Path:
        """A thread with its rollout and its row; `options` are those of `rollout`."""
        path = self.rollout(number, **options)  # type: ignore[arg-type]
        paginated = options.get("base") is not None or options.get("ordinal") is not None
        self.row(
            number,
            path,
            archived=bool(options.get("archived")),
            history_mode="paginated" if paginated else "legacy",
        )
        return path

    def goal(self, number: int, status: str = "active", *, goal_id: str | None = None, database: str = "") -> str:
        """A goal of the thread in the table that this version uses, or in `database`; returns the goal's id."""
        name = database or ("state_5.sqlite" if self.version == "0.128.0" else "goals_1.sqlite")
        columns: dict[str, object] = {
            "thread_id": thread_id(number),
            "goal_id": goal_id or f"1ab1c464-335e-4803-a292-{number:012x}",
            "objective": OBJECTIVE,
            "status": status,
            "token_budget": 5_000_000,
            "tokens_used": 11_380,
            "time_used_seconds": 7,
            "created_at_ms": CREATED_MS,
            "updated_at_ms": UPDATED_MS,
        }
        self._insert(name, "thread_goals", columns)
        return str(columns["goal_id"])

    def _insert(self, database: str, table: str, columns: Mapping[str, object]) -> None:
        names = ", ".join(columns)
        marks = ", ".join("?" * len(columns))
        self.execute(database, (f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(columns.values())))


_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another_process(database: Path, *statements: str) -> Iterator[None]:
    """Another process has run the statements on the database and stays inside its transaction."""
    command = [sys.executable, "-c", _HOLD, str(database), *statements]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            child.communicate()


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder with its bytes and time of change; SQLite's shared memory is no content."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("-shm")
    }
