"""The tree of errors that a user can meet: a code word, an exit code and a next step.

    PreflightError                1  internal-error
      UsageProblem                2  usage
        ConfigProblem             2  config
      Locked                     11  locked            another preflight is at work
      Unverified                 12  unverified        a checkpoint could not be written or read back
        NoSpace                  12  no-space
      Unsupported                13  unsupported       unknown layout, schema or file system
        UnknownSchema            13  unknown-schema
        StoreRefused             13  store-refused
        HomeRefused              13  home-refused
      SchedulerRefused         13  scheduler-refused
      TryLater                   75  try-later         nothing was left changed
        DatabaseBusy             75  database-busy
        TimeLimitReached         75  time-limit
        ThreadInUse              75  thread-in-use   a runtime has the thread open, or may have
      DamagedFile                 1  damaged-file      becomes a finding of one thread, never the end of a run
      AppServerError              1  app-server        a running Codex refused a request, or is gone
      GoalsStayPaused             1  goals-stay-paused a run failed, and then its goals could not be put back

The design's section 5.2 fixes the exit codes. `cli` is the only reader of `exit_code`; reports are
built from the attributes, never from the text of a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

__all__ = [
    "AppServerError",
    "ConfigProblem",
    "DamagedFile",
    "DatabaseBusy",
    "GoalsStayPaused",
    "HomeRefused",
    "Locked",
    "NoSpace",
    "PreflightError",
    "SchedulerRefused",
    "StoreRefused",
    "ThreadInUse",
    "TimeLimitReached",
    "TryLater",
    "UnknownSchema",
    "Unsupported",
    "Unverified",
    "UsageProblem",
]


class PreflightError(Exception):
    """An error with a sentence for people and data for programs.

    `message` is one sentence without a final full stop being required; `hint` says what to do next,
    as a command where there is one; `path` is the file or folder it is about.
    """

    code: ClassVar[str] = "internal-error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, path: Path | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.path, self.hint), self.__dict__)


def _rebuild(kind: type[PreflightError], message: str, path: Path | None, hint: str | None) -> PreflightError:
    return kind(message, path=path, hint=hint)


class UsageProblem(PreflightError):
    """The call itself cannot be carried out: wrong option, unknown thread, folder that does not exist."""

    code = "usage"
    exit_code = 2


class ConfigProblem(UsageProblem):
    """preflight.toml or a PREFLIGHT_ variable holds something that cannot be used."""

    code = "config"


class Locked(PreflightError):
    """Another preflight holds the run lock of this home."""

    code = "locked"
    exit_code = 11


class Unverified(PreflightError):
    """A checkpoint could not be written, or what was read back is not what was written."""

    code = "unverified"
    exit_code = 12


class NoSpace(Unverified):
    """The store's file system has less room than the checkpoint and the reserve need.

    `needed_bytes` is what the failed step still had to write, as far as that was known.
    """

    code = "no-space"

    def __init__(
        self, message: str, *, path: Path | None = None, hint: str | None = None, needed_bytes: int | None = None
    ) -> None:
        super().__init__(message, path=path, hint=hint)
        self.needed_bytes = needed_bytes


class Unsupported(PreflightError):
    """A layout, schema or file system that this version does not know."""

    code = "unsupported"
    exit_code = 13


class UnknownSchema(Unsupported):
    """A Codex database whose tables are not the ones we know how to read or change."""

    code = "unknown-schema"


class StoreRefused(Unsupported):
    """The store is owned by, or can be written to by, somebody else, or cannot be used at all."""

    code = "store-refused"


class HomeRefused(Unsupported):
    """The Codex home is not a folder, or cannot be read."""

    code = "home-refused"


class SchedulerRefused(Unsupported):
    """A scheduler that is not on this machine, does not answer, or did not do what it was asked for."""

    code = "scheduler-refused"


class TryLater(PreflightError):
    """Temporary: nothing was left changed, the same call may succeed later."""

    code = "try-later"
    exit_code = 75


class DatabaseBusy(TryLater):
    """Another process kept a database locked for as long as we were willing to wait."""

    code = "database-busy"


class TimeLimitReached(TryLater):
    """The one deadline of the run came before the work was done."""

    code = "time-limit"


class ThreadInUse(TryLater):
    """A runtime can append to the thread's rollout, or it cannot be told that none can."""

    code = "thread-in-use"


class DamagedFile(PreflightError):
    """One rollout or database cannot be read as what it claims to be."""

    code = "damaged-file"


class GoalsStayPaused(PreflightError):
    """A run failed half-way, and the goals that it had paused could not be put back; the journal has them.

    Never the error that the run failed with: "try later, nothing was left changed" would not be true.
    """

    code = "goals-stay-paused"


class AppServerError(PreflightError):
    """A Codex app-server refused a request, did not answer it in time, or ended.

    `rpc_code` and `rpc_data` are the `code` and `data` of its answer; None and empty when there was
    no answer. Its own words are in `rpc_message` only: they may hold paths, so they are not part of
    the message. `usable` says that the next request makes sense.
    """

    code = "app-server"

    def __init__(
        self,
        message: str,
        *,
        path: Path | None = None,
        hint: str | None = None,
        rpc_code: int | None = None,
        rpc_data: Mapping[str, object] | None = None,
        rpc_message: str | None = None,
        usable: bool = False,
    ) -> None:
        super().__init__(message, path=path, hint=hint)
        self.rpc_code = rpc_code
        self.rpc_data = rpc_data or {}
        self.rpc_message = rpc_message
        self.usable = usable
