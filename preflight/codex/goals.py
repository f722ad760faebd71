"""Goals: read, paused, put back and written anew in Codex's own tables.

`thread_goals` lies in `goals_1.sqlite` (0.134 and later) or in `state_5.sqlite` (0.128; the update to
0.134 drops that table and copies nothing). Both have the same columns; only the set of statuses
grew. Every change is a compare-and-set, one statement in one short transaction: whoever is second,
Codex, a person or another program, finds a row that is no longer the one it expected.

What a paused row tells, measured on 0.128.0, 0.134.0, 0.147.0 and 0.169.0 with a goal turn running
while it was paused, by SQLite, through the owner and through a second app-server: until it is set
again **nothing changes it**. Neither the end of the turn (with or without tool calls, completed or
interrupted), nor stopping or starting the server, nor `thread/read`, nor `thread/goal/get`, nor user
turns meanwhile; tokens of the rest of the turn are not charged. `thread/resume` leaves it alone too,
except on 0.128, which makes it active. And **every** `thread/goal/set` of a person or client, even one
that sets what is there already, writes a new `updated_at_ms` (0.128 spares only an unchanged
objective, which changes nothing). So the goal id, `paused` and our own `updated_at_ms` together
say exactly: nobody has touched this goal since we paused it.

A server reads the row when a turn ends and when a thread is resumed, and at no other time (same
versions). So a goal that is active again in the table while its thread is loaded and idle goes on with
the next turn there, or when the thread is opened anew; one that is put back before its turn has ended
goes on as if nothing had been. Only `thread/goal/set` through the owner itself starts it at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from preflight.codex.schema import require_columns, require_known_number
from preflight.errors import DamagedFile
from preflight.model import Finding, Goal, GoalStatus, GoalTable, Home, Severity
from preflight.system import databases, files
from preflight.system.databases import ReadOnlyConnection
from preflight.system.deadline import Deadline

__all__ = [
    "GoalsRead",
    "Outcome",
    "insert_goal",
    "make_database",
    "pause",
    "read_goals",
    "restore_status",
    "withdraw",
]

_COLUMNS = (
    "thread_id",
    "goal_id",
    "objective",
    "status",
    "token_budget",
    "tokens_used",
    "time_used_seconds",
    "created_at_ms",
    "updated_at_ms",
)
_TEXTS = frozenset({"thread_id", "goal_id", "objective", "status"})
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM thread_goals"  # noqa: S608 -- names from above
_PAUSE = (
    "UPDATE thread_goals SET status = 'paused', updated_at_ms = ?"
    " WHERE thread_id = ? AND goal_id = ? AND status = 'active'"
)
_RESTORE = (
    "UPDATE thread_goals SET status = 'active', updated_at_ms = ?"
    " WHERE thread_id = ? AND goal_id = ? AND status = 'paused' AND updated_at_ms BETWEEN ? AND ?"
)
# Not OR IGNORE: that would also pass over a rule of the table that the row breaks.
_INSERT = (
    f"INSERT INTO thread_goals ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
    " ON CONFLICT (thread_id) DO NOTHING"
)
_WITHDRAW = "DELETE FROM thread_goals WHERE thread_id = ? AND goal_id = ? AND status = 'paused' AND updated_at_ms = ?"
_KNOWN_STATUSES = frozenset(GoalStatus)
_MIGRATIONS = "_sqlx_migrations"  # what Codex goes by to know a database's layout (0.128 to 0.169)


class Outcome(StrEnum):
    """What became of a goal that was to be active again (`restore_status`) or written anew (`insert_goal`)."""

    RESTORED = "restored"
    ALREADY_ACTIVE = "already-active"  # never paused, or set active by somebody, or by a resume on 0.128
    CHANGED = "changed"  # paused anew, edited, blocked or finished since: it stays as it is
    REPLACED = "replaced"  # the thread has another goal by now
    DROPPED = "dropped"  # the row or the whole table is gone
    INSERTED = "inserted"
    EXISTS = "exists"  # the thread has a goal, this one or another: it stays as it is
    NO_PLACE = "no-place"  # Codex has made no table of goals yet, or (0.128) has no row of the thread


@dataclass(frozen=True, slots=True)
class GoalsRead:
    """The goals of a home, one a thread, and what is wrong with them.

    `set_aside` are rows that lie in the other table for a thread that has one in `goals`.
    """

    goals: tuple[Goal, ...]
    set_aside: tuple[Goal, ...]
    findings: tuple[Finding, ...]


def read_goals(home: Home, deadline: Deadline) -> GoalsRead:
    """Every goal of the home, with its objective; none when there is no table of goals.

    Where both tables hold a goal of one thread, that of `state_N` counts: a runtime that uses the other
    one drops this table when it starts. A row that no Codex writes becomes a finding of severity block,
    and so does a database that is malformed; the others are still read. Raises UnknownSchema,
    DatabaseBusy, TimeLimitReached.
    """
    chosen: dict[str, Goal] = {}
    set_aside: list[Goal] = []
    findings: list[Finding] = []
    for path, table in _places(home):
        try:
            rows, odd = _read(path, table, deadline)
        except DamagedFile as error:
            findings.append(_damaged(path, error))
            continue
        findings.extend(_odd_row(path, thread_id) for thread_id in odd)
        set_aside.extend(goal for goal in rows if chosen.setdefault(goal.thread_id, goal) is not goal)
    findings.extend(_disagreements(chosen, set_aside))
    findings.extend(_unknown_status(goal) for goal in chosen.values() if goal.status not in _KNOWN_STATUSES)
    return GoalsRead(tuple(chosen.values()), tuple(set_aside), tuple(findings))


def pause(home: Home, goal: Goal, now_ms: int, deadline: Deadline) -> bool:
    """Make an active goal paused, as `thread/goal/set` does; False when it is no longer this goal or not active.

    A running turn goes on to its end, no further one starts (0.128 to 0.169); the runtime is not told.
    `now_ms` becomes the row's `updated_at_ms`: with it `restore_status` knows our own work again. Against
    Codex ending the goal at the same moment: whoever writes second finds another status and does
    nothing. Raises DatabaseBusy, UnknownSchema, DamagedFile; then nothing was changed.
    """
    path = home.goals_db if goal.table is GoalTable.GOALS else home.state_db
    if path is None:
        return False
    (changed,) = databases.write_once(path, [(_PAUSE, (now_ms, goal.thread_id, goal.goal_id))], deadline)
    return changed == 1


def restore_status(
    home: Home,
    *,
    thread_id: str,
    goal_id: str,
    paused_at_ms: int,
    now_ms: int,
    deadline: Deadline,
    paused_until_ms: int | None = None,
) -> Outcome:
    """Make a goal active again if it is just as our pause left it, in whichever table it lies by now.

    Its loop goes on by itself unless its thread is loaded and idle: see above.
    `paused_at_ms` is the `updated_at_ms` that the pause wrote. For a pause through a runtime whose answer
    was never seen, only when it was asked for is known: then `paused_until_ms` is when we gave up, and
    any value between the two counts as ours. Against a person who sets the goal at the same moment:
    whoever writes second wins, and a set of theirs before our write is never overwritten.
    Raises DatabaseBusy, UnknownSchema, DamagedFile; then nothing was changed.
    """
    latest = paused_at_ms if paused_until_ms is None else paused_until_ms
    outcome = Outcome.DROPPED
    for path, table in reversed(list(_places(home))):  # a damaged state_N need not keep a goal from coming back
        rows, odd = _read(path, table, deadline, thread_id)
        row = next(iter(rows), None)
        if row is None:
            outcome = Outcome.CHANGED if odd else outcome
            continue
        if row.goal_id != goal_id:
            outcome = Outcome.REPLACED
            continue
        if row.is_active:
            return Outcome.ALREADY_ACTIVE
        (changed,) = databases.write_once(
            path, [(_RESTORE, (now_ms, thread_id, goal_id, paused_at_ms, latest))], deadline
        )
        return Outcome.RESTORED if changed == 1 else Outcome.CHANGED
    return outcome


def insert_goal(home: Home, goal: Goal, deadline: Deadline) -> Outcome:
    """Write a goal that an update has dropped, with all its values, into the table that Codex uses now.

    The caller makes sure that the thread still exists: in `goals_N` nothing else would. A thread that
    has a goal by now keeps it. Raises DatabaseBusy, UnknownSchema (also for a status that this version
    does not know), DamagedFile; then nothing was changed.
    """
    for path, table in _places(home):
        with databases.connect_readonly(path, deadline) as connection:
            if not _has_goals(connection, table):
                continue
            if table is GoalTable.STATE:
                found = connection.execute("SELECT 1 FROM threads WHERE id = ?", (goal.thread_id,)).fetchone()
                if found is None:
                    return Outcome.NO_PLACE
        values = tuple(getattr(goal, name) for name in _COLUMNS)
        (changed,) = databases.write_once(path, [(_INSERT, values)], deadline)
        return Outcome.INSERTED if changed == 1 else Outcome.EXISTS
    return Outcome.NO_PLACE


def withdraw(home: Home, goal: Goal, deadline: Deadline) -> bool:
    """Delete a goal that `insert_goal` wrote paused, if nobody has touched it since; False otherwise."""
    for path, table in _places(home):
        with databases.connect_readonly(path, deadline) as connection:
            if not _has_goals(connection, table):
                continue
        return databases.write_once(
            path, [(_WITHDRAW, (goal.thread_id, goal.goal_id, goal.updated_at_ms))], deadline
        ) == [1]
    return False


def make_database(copy: Path, target: Path, goal: Goal, deadline: Deadline) -> None:
    """Make the new goals database `target`, laid out as `copy` is, with this one goal and nobody else's.

    For a home that has none. Raises UnknownSchema, DamagedFile, DatabaseBusy, Unverified; then `target`
    does not exist. It has no `-wal` beside it and is on the disk when this returns.
    """
    require_known_number(copy)
    with databases.connect_readonly(copy, deadline) as connection:
        require_columns(connection, "thread_goals", _COLUMNS, insertable=True)
        layout = connection.execute(
            "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
            " ORDER BY type <> 'table', rowid"
        ).fetchall()
        columns = ", ".join(databases.table_columns(connection, _MIGRATIONS))
        migrations = connection.execute(f"SELECT {columns} FROM {_MIGRATIONS}").fetchall() if columns else []  # noqa: S608
    statements: list[tuple[str, databases.Parameters]] = [(sql, ()) for (sql,) in layout]
    for row in migrations:
        marks = ", ".join("?" * len(row))
        statements.append((f"INSERT INTO {_MIGRATIONS} ({columns}) VALUES ({marks})", row))  # noqa: S608
    statements.append((_INSERT, tuple(getattr(goal, name) for name in _COLUMNS)))
    databases.create(target, statements)
    files.flush(target)


def _places(home: Home) -> Iterator[tuple[Path, GoalTable]]:
    """The databases that may hold goals, the one whose table is in use first."""
    if home.state_db is not None:
        yield home.state_db, GoalTable.STATE
    if home.goals_db is not None:
        yield home.goals_db, GoalTable.GOALS


def _has_goals(connection: ReadOnlyConnection, table: GoalTable) -> bool:
    """Whether goals lie here at all: in `goals_N` they must, `state_N` has lost its table after 0.128."""
    require_known_number(connection.path)
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'thread_goals'").fetchone()
    if found is None and table is GoalTable.STATE:
        return False
    require_columns(connection, "thread_goals", _COLUMNS, insertable=True)
    return True


def _read(
    path: Path, table: GoalTable, deadline: Deadline, thread_id: str | None = None
) -> tuple[list[Goal], list[str | None]]:
    """The goals of one table, and the thread ids of rows that are none: SQLite keeps a word in a column of numbers."""
    goals: list[Goal] = []
    odd: list[str | None] = []
    with databases.connect_readonly(path, deadline) as connection:
        if not _has_goals(connection, table):
            return goals, odd
        only, parameters = ("", ()) if thread_id is None else (" WHERE thread_id = ?", (thread_id,))
        for row in connection.execute(_SELECT + only, parameters):
            values = dict(zip(_COLUMNS, row, strict=True))
            if all(_is_codexs(name, value) for name, value in values.items()):
                goals.append(Goal(**values, table=table))
            else:
                odd.append(row[0] if isinstance(row[0], str) else None)
    return goals, odd


def _is_codexs(column: str, value: object) -> bool:
    if column in _TEXTS:
        return isinstance(value, str)
    return isinstance(value, int) or (value is None and column == "token_budget")


def _disagreements(chosen: Mapping[str, Goal], set_aside: Iterable[Goal]) -> Iterator[Finding]:
    """Threads with a goal in both tables. No Codex leaves that behind; a copied or restored database can."""
    for other in set_aside:
        goal = chosen[other.thread_id]
        if not other.is_active and (goal.goal_id, goal.status) == (other.goal_id, other.status):
            continue
        yield Finding(
            finding_id="goals-disagree",
            # An active one that nobody sees today is the one that a runtime after the update goes on with.
            severity=Severity.BLOCK if other.is_active else Severity.WARN,
            thread_id=goal.thread_id,
            cause="goals_N.sqlite holds another goal of this thread than state_N.sqlite, which the runtime here uses",
            measured=f"goals: {other.status}",
            expected=f"state: {goal.status}",
            remedy="close every Codex, move goals_1.sqlite out of the home and keep it; then run preflight check",
        )


def _unknown_status(goal: Goal) -> Finding:
    return Finding(
        finding_id="goal-status-unknown",
        severity=Severity.BLOCK,
        thread_id=goal.thread_id,
        cause="the goal has a status that is not known here, so whether it goes on by itself is not known either",
        measured=goal.status,
        expected=", ".join(GoalStatus),
        remedy="pause the goal in Codex, or update codex-preflight; then run preflight check",
    )


def _odd_row(path: Path, thread_id: str | None) -> Finding:
    return Finding(
        finding_id="goal-row-damaged",
        severity=Severity.BLOCK,
        thread_id=thread_id,
        cause=f"a goal in {path.name} has values that no Codex writes: it is not touched, and may go on by itself",
        remedy="set the goal anew in Codex, or clear it there; then run preflight check",
        path=path,
    )


def _damaged(path: Path, error: DamagedFile) -> Finding:
    return Finding(
        finding_id="database-damaged",
        severity=Severity.BLOCK,
        cause=f"{path.name} cannot be read, so goals may be missing here: {error.message}",
        remedy=error.hint,
        path=path,
    )
