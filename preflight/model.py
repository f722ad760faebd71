"""Frozen values that the stages pass on: discover, inspect, pause, checkpoint, verify, decide, report.

Sizes are bytes, offsets are byte offsets from the start of a file, times are seconds (float) for
durations and milliseconds since the epoch where Codex keeps them so. A question about somebody
else's process or file has three answers; unknown counts as unsafe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from pathlib import Path


class Answer(Enum):
    """Yes, no or unknown: never a bool for a fact about another process."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"

    def __bool__(self) -> bool:
        raise TypeError("compare an Answer by name: it has three values")


class Severity(StrEnum):
    WARN = "warn"
    BLOCK = "block"


class Verdict(StrEnum):
    PROCEED = "proceed"
    WARN = "warn"
    BLOCK = "block"


class SizeClass(StrEnum):
    OK = "ok"
    WARNING = "warning"
    DANGER = "danger"
    CRITICAL = "critical"


class HistoryMode(StrEnum):
    """How a rollout is laid out: `legacy` (no ordinals) or `paginated` (ordinals, 0.154 and later)."""

    LEGACY = "legacy"
    PAGINATED = "paginated"
    UNKNOWN = "unknown"


class WriterState(StrEnum):
    LIVE = "live"
    NONE = "none"
    UNKNOWN = "unknown"


class TurnState(StrEnum):
    IN_PROGRESS = "in-progress"
    IDLE = "idle"
    UNKNOWN = "unknown"


class Role(StrEnum):
    """What a runtime process is: the desktop's app-server, a terminal, the daemon."""

    DESKTOP = "desktop"
    CLI = "cli"
    DAEMON = "daemon"
    UNKNOWN = "unknown"


class GoalStatus(StrEnum):
    """`thread_goals.status` as the databases spell it (0.128 to 0.169)."""

    ACTIVE = "active"
    PAUSED = "paused"
    BLOCKED = "blocked"
    USAGE_LIMITED = "usage_limited"
    BUDGET_LIMITED = "budget_limited"
    COMPLETE = "complete"


class GoalTable(StrEnum):
    """Which database holds the goal: `goals_N.sqlite` (0.134 and later) or `state_N.sqlite` (0.128)."""

    GOALS = "goals"
    STATE = "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing a person should know, and what to do about it.

    `finding_id` is a stable word such as ``goal-active``; `cause` one sentence; `measured` and
    `expected` the two values that were compared; `remedy` a command where there is one.
    """

    finding_id: str
    severity: Severity
    cause: str
    thread_id: str | None = None
    measured: str | int | None = None
    expected: str | int | None = None
    remedy: str | None = None
    path: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """A Codex home and its databases; a database that does not exist is None.

    `home_id` names the home's folder in the store and never changes for the same folder.
    """

    path: Path
    sqlite_home: Path
    home_id: str
    state_db: Path | None
    goals_db: Path | None
    history_db: Path | None
    daemon_updater: Answer = Answer.NO


@dataclass(frozen=True, slots=True, kw_only=True)
class FileIdentity:
    """Which file it was and how long: equal identities mean the same file that has not grown."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int

    def same_file(self, other: FileIdentity) -> bool:
        return (self.device, self.inode) == (other.device, other.inode)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFile:
    """One recognised rollout file: `rollout-STAMP-THREAD[_SEGMENT].jsonl[.zst]`.

    `place` is its path as text: a home has many thousands of files, and making a `Path` takes ten times as long.
    """

    place: str
    thread_id: str
    segment_id: str | None
    stamp: str
    archived: bool
    compressed: bool
    identity: FileIdentity

    @property
    def path(self) -> Path:
        return Path(self.place)

    @property
    def size_bytes(self) -> int:
        return self.identity.size_bytes

    @property
    def file_id(self) -> str:
        """The id by which another file's `history_base` names this one (0.169: the segment's, if it has one)."""
        return self.segment_id or self.thread_id


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryBase:
    """`session_meta.payload.history_base`: this file goes on where another one stops (0.154 and later)."""

    file_id: str
    end_ordinal_exclusive: int | None
    end_byte_offset: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One file of a thread's lineage, of which the first `end_offset` bytes count (None: all)."""

    file: RolloutFile
    end_offset: int | None
    history_base: HistoryBase | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadRow:
    """A row of `threads` in `state_N.sqlite`; `rollout_path` as it is written there."""

    thread_id: str
    rollout_path: str
    archived: bool
    history_mode: str | None
    cli_version: str | None
    updated_at_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A row of `thread_goals`. `status` stays text: a status we do not know must survive."""

    thread_id: str
    goal_id: str
    objective: str
    status: str
    token_budget: int | None
    tokens_used: int
    time_used_seconds: int
    created_at_ms: int
    updated_at_ms: int
    table: GoalTable

    @property
    def is_complete(self) -> bool:
        return self.status == GoalStatus.COMPLETE

    @property
    def is_active(self) -> bool:
        return self.status == GoalStatus.ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """A thread as found: its row, its files, its goal. Nothing of a rollout has been read yet
    but the first line of files that need it.

    `lineage` goes from the newest file to the oldest base; `size_bytes` is the sum along it.
    `findings` are the problems met while joining rows and files.
    """

    home: Home
    thread_id: str
    row: ThreadRow | None
    lineage: tuple[Segment, ...]
    goal: Goal | None
    archived: bool
    findings: tuple[Finding, ...] = ()
    unlisted: tuple[RolloutFile, ...] = ()

    @property
    def head(self) -> RolloutFile | None:
        return self.lineage[0].file if self.lineage else None

    @property
    def size_bytes(self) -> int:
        return sum(s.file.size_bytes if s.end_offset is None else s.end_offset for s in self.lineage)

    @property
    def is_goal_thread(self) -> bool:
        return self.goal is not None and not self.goal.is_complete


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A running Codex process; `version` is None when it could not be told."""

    pid: int
    version: str | None
    role: Role
    executable: Path | None
    started_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Whole lines of one file of a lineage: bytes `start` to `end` (behind a newline)."""

    segment: int
    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """The line from which Codex can rebuild the whole model-visible history (design, section 6).

    `segment` counts along the lineage, 0 is the newest file; `offset` is where the `task_started` of
    the turn with the base compaction begins in that file, and everything from there on is needed.
    `base_segment`/`base_offset` are the place of the `compacted` line. `settings` are the lines of
    an older user turn that is needed as well; empty when that turn is not older. The digests are
    of the two payloads that the walk chose: the base's and the newest `turn_context` of that turn.
    """

    segment: int
    offset: int
    base_segment: int
    base_offset: int
    base_sha256: str
    settings_sha256: str
    settings: tuple[Piece, ...] = ()
    kind: str = "compaction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """What reading a rollout backwards told.

    `complete_bytes` is the length of the newest file up to its last newline; bytes behind it are a
    torn line. `turn` comes from the newest lifecycle event. `damaged_lines` counts lines met on the
    way that Codex cannot read; `scanned_bytes` is how far back the reading went, over all files.
    """

    identity: FileIdentity
    complete_bytes: int
    turn: TurnState
    turn_id: str | None
    boundary: Boundary | None
    history_mode: HistoryMode
    damaged_lines: int
    scanned_bytes: int


@dataclass(frozen=True, slots=True)
class History:
    """A model-visible history as digests: the base, the settings, and all records behind the base.

    Both empty: there is no base, and the records are all that the thread has.
    """

    base_sha256: str
    settings_sha256: str
    records: int
    records_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What `thread/resume` of the whole thread would need, by version, layout and size."""

    bytes: int
    factor: float
    runtime_version: str | None
    history_mode: HistoryMode


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointState:
    """The newest checkpoint of a thread, as the report shows it."""

    checkpoint_id: str
    fresh: bool
    verified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything `decide` needs to know of one thread."""

    thread: Thread
    size_class: SizeClass
    tail: Tail | None
    writer: WriterState
    writers: tuple[Runtime, ...] = ()
    resume_bytes: int | None = None
    estimate: Estimate | None = None
    checkpoint: CheckpointState | None = None
    paused_by_us: bool = False
    findings: tuple[Finding, ...] = ()

    @property
    def turn(self) -> TurnState:
        return self.tail.turn if self.tail is not None else TurnState.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeObservation:
    """A home as inspected: the threads that matter one by one, the rest as counts.

    `last_good_night` is RFC 3339 in UTC; None when the nightly task has not been good once.
    """

    home: Home
    runtimes: tuple[Runtime, ...]
    threads: tuple[Observation, ...]
    counts: Mapping[str, int]
    findings: tuple[Finding, ...] = ()
    not_checked: tuple[str, ...] = ()
    last_good_night: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRef:
    checkpoint_id: str
    path: Path
    manifest_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveReference:
    """What a manifest keeps: the first `raw_length` bytes of a rollout, and the archive as it was then.

    `frames` lines of the frames file were published, `frames_sha256` is the digest of their bytes.
    """

    file: str
    generation: int
    raw_length: int
    frames: int
    frames_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a verb hands to the report: data only, printed nowhere else.

    `data` holds JSON values, `pathlib.Path`, and the frozen values of this module;
    `exit_code` None lets the verdict decide (0, 3 or 10). `keep_in` are folders of stores in which a
    copy of the report is kept. `raw` is the content of a file that the verb was asked to print: without
    ``--json`` stdout gets these bytes and nothing else.
    """

    command: str
    verdict: Verdict | None = None
    exit_code: int | None = None
    data: Mapping[str, object] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    not_checked: tuple[str, ...] = ()
    keep_in: tuple[Path, ...] = ()
    raw: bytes | None = None
