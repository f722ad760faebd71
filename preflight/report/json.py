"""The envelope of ``--json``: one object, schema 1, keys in a fixed order (design, section 5.3).

Keys are added within a schema number, never renamed or removed; `tests/contract/test_json_keys.py`
pins them. Sizes and offsets are bytes, times RFC 3339 in UTC. A path that is not UTF-8 travels as
text with replacement characters plus its bytes in ``path_b64``. No objective is rendered unless
`show_text`.

The standard library's encoder is used on purpose: orjson refuses integers beyond 64 bits and lone
surrogates, both of which occur in Codex's files, and a report that cannot be rendered is no report.
"""

from __future__ import annotations

import json
import os
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path

from preflight import __version__
from preflight.model import CheckpointRef, Finding, Goal, HomeObservation, Observation, Result, Runtime
from preflight.report import Answer, Failure, Printed, exit_code_of

__all__ = ["render"]

SCHEMA = 1
TOOL = "codex-preflight"
_YEAR_10000 = 253_402_300_800


def render(answer: Answer, *, started_at: float, finished_at: float, show_text: bool = False) -> bytes:
    """The envelope of one call and a newline. Times are seconds since the epoch.

    Raises TypeError for a result that holds a value without a rule; nothing else.
    """
    times = {"started_at": _time(started_at), "finished_at": _time(finished_at)}
    match answer:
        case Result():
            return _envelope(
                answer.command,
                answer.verdict,
                exit_code_of(answer),
                times,
                data=_data(answer.data, show_text=show_text),
                findings=[_finding(finding) for finding in answer.findings],
                not_checked=answer.not_checked,
            )
        case Failure():
            error = {"code": answer.code, "message": answer.message, "hint": answer.hint}
            return _envelope(answer.command, answer.verdict, answer.exit_code, times, errors=[error])
        case Printed():
            return _envelope(answer.command, None, exit_code_of(answer), times, data={"text": answer.text})


def _envelope(
    command: str | None,
    verdict: str | None,
    exit_code: int,
    times: Mapping[str, object],
    *,
    data: Mapping[str, object] | None = None,
    findings: Sequence[object] = (),
    not_checked: Sequence[str] = (),
    errors: Sequence[object] = (),
) -> bytes:
    envelope = {
        "schema": SCHEMA,
        "tool": TOOL,
        "version": __version__,
        "command": command,
        "verdict": verdict,
        "exit_code": exit_code,
        **times,
        "data": data if data is not None else {},
        "findings": findings,
        "not_checked": not_checked,
        "errors": errors,
    }
    text = json.dumps(_plain(envelope), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate (a file name's undecodable byte, a cut UTF-16 pair) has no UTF-8: it becomes "?".
    return text.encode("utf-8", "replace") + b"\n"


def _data(data: Mapping[str, object], *, show_text: bool) -> dict[str, object]:
    """`homes` and `checkpoint` in the shape of the contract, everything else as it comes."""
    rendered: dict[str, object] = {}
    for key, value in data.items():
        observed = _observed_homes(value)
        if key == "homes" and observed is not None:
            rendered["homes"] = [_home(home) for home in observed]
            rendered["threads"] = [_thread(thread, show_text=show_text) for home in observed for thread in home.threads]
            rendered["counts"] = _counts(observed)
        elif key == "checkpoint" and (value is None or isinstance(value, tuple | CheckpointRef)):
            references = value if isinstance(value, tuple) else (value,)
            made = [_checkpoint(reference) for reference in references if isinstance(reference, CheckpointRef)]
            rendered["checkpoint"] = made[0] if made else None
            rendered["checkpoints"] = made
        else:
            rendered[key] = value
    return rendered


def _observed_homes(value: object) -> list[HomeObservation] | None:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    homes = [home for home in value if isinstance(home, HomeObservation)]
    return homes if len(homes) == len(value) else None


def _counts(homes: Sequence[HomeObservation]) -> dict[str, int]:
    total: dict[str, int] = {}
    for home in homes:
        for name, count in home.counts.items():
            total[name] = total.get(name, 0) + count
    return total


def _home(observation: HomeObservation) -> dict[str, object]:
    home = observation.home
    modes = {str(_history_mode(thread)) for thread in observation.threads}
    return {
        "path": home.path,
        "sqlite_home": home.sqlite_home,
        "history_modes": sorted(modes),
        "runtimes": [_runtime(runtime) for runtime in observation.runtimes],
        "last_good_night": observation.last_good_night,
    }


def _runtime(runtime: Runtime) -> dict[str, object]:
    return {"pid": runtime.pid, "version": runtime.version, "role": runtime.role}


def _history_mode(observation: Observation) -> str:
    if observation.tail is not None:
        return observation.tail.history_mode
    row = observation.thread.row
    return row.history_mode if row is not None and row.history_mode is not None else "unknown"


def _thread(observation: Observation, *, show_text: bool) -> dict[str, object]:
    thread, tail, state = observation.thread, observation.tail, observation.checkpoint
    boundary = tail.boundary if tail is not None else None
    return {
        "thread_id": thread.thread_id,
        "home": thread.home.path,
        "rollouts": [{"path": part.file.path, "size_bytes": part.file.size_bytes} for part in thread.lineage],
        "size_bytes": thread.size_bytes,
        "size_class": observation.size_class,
        "history_mode": _history_mode(observation),
        "archived": thread.archived,
        "goal": _goal(thread.goal, show_text=show_text) if thread.goal is not None else None,
        "writer": observation.writer,
        "turn": observation.turn,
        "boundary": {"offset": boundary.offset, "kind": boundary.kind} if boundary is not None else None,
        "resume_bytes": observation.resume_bytes,
        "resume_memory_bytes": observation.estimate.bytes if observation.estimate is not None else None,
        "paused_by_us": observation.paused_by_us,
        "checkpoint": {"id": state.checkpoint_id, "fresh": state.fresh, "verified": state.verified} if state else None,
    }


def _goal(goal: Goal, *, show_text: bool) -> dict[str, object]:
    return {
        "goal_id": goal.goal_id,
        "status": goal.status,
        "token_budget": goal.token_budget,
        "tokens_used": goal.tokens_used,
        "updated_at": _time(goal.updated_at_ms / 1000),
        **({"objective": goal.objective} if show_text else {}),
    }


def _checkpoint(reference: CheckpointRef) -> dict[str, object]:
    return {
        "id": reference.checkpoint_id,
        "path": reference.path,
        "manifest_sha256": reference.manifest_sha256,
    }


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "id": finding.finding_id,
        "severity": finding.severity,
        "thread_id": finding.thread_id,
        "cause": finding.cause,
        "measured": finding.measured,
        "expected": finding.expected,
        "remedy": finding.remedy,
        "path": finding.path,
    }


def _time(seconds: float) -> str | None:
    """RFC 3339 in UTC; None for a time outside of its four-digit years: a damaged row must not end the report."""
    if not 0 <= seconds < _YEAR_10000:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _plain(value: object) -> object:
    """`value` with nothing but what JSON knows. Raises TypeError for a value that no rule covers."""
    match value:
        case Enum():
            return _plain(value.value)
        case None | bool() | int() | str():
            return value
        case float():
            return value if abs(value) < float("inf") else None
        case Path():
            return os.fsencode(value).decode("utf-8", "replace")
        case Mapping():
            return _plain_object(value)
        case list() | tuple() | set() | frozenset():
            return [_plain(inner) for inner in value]
    if is_dataclass(value) and not isinstance(value, type):
        # A goal outside of the shapes of the contract: never with its text.
        known = _goal(value, show_text=False) if isinstance(value, Goal) else None
        return _plain(known or {item.name: getattr(value, item.name) for item in fields(value)})
    raise TypeError(f"a report cannot hold a {type(value).__name__}")


def _plain_object(value: Mapping[object, object]) -> dict[str, object]:
    plain: dict[str, object] = {}
    for key, inner in value.items():
        plain[str(key)] = _plain(inner)
        if isinstance(inner, Path) and not _is_utf8(inner):
            plain[f"{key}_b64"] = b64encode(os.fsencode(inner)).decode("ascii")
    return plain


def _is_utf8(path: Path) -> bool:
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
