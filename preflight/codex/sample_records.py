"""Payloads of invented rollout records, key for key as the real Codex writes them.

`paginated=False` follows 0.134.0, `paginated=True` follows 0.169.0 without the bookkeeping that
resuming does not need. Seen in files that those versions wrote. Everything here is pure: the same
arguments give the same value on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Final

from preflight.model import HistoryBase

Record = dict[str, object]

STARTED: Final = datetime(2026, 5, 30, 9, 0, tzinfo=UTC)
LEGACY_VERSION: Final = "0.134.0"
PAGINATED_VERSION: Final = "0.169.0"
CWD: Final = "/home/sample/project"
MODEL: Final = "gpt-5.4"
CONTEXT_WINDOW: Final = 258_400

_LINE_BYTES: Final = 64
_BLOCK_LINES: Final = 16_384
_INSTRUCTIONS: Final = "This is a sample thread: no person and no model said anything in it. " * 200
_PERMISSIONS: Final = "<permissions instructions>\nEverything is permitted in a sample.\n</permissions instructions>"
_ENVIRONMENT: Final = f"<environment_context>\n  <cwd>{CWD}</cwd>\n  <shell>bash</shell>\n</environment_context>"


def sample_uuid(milliseconds: int, name: str) -> str:
    """Give the UUIDv7 of that instant (Codex's thread and turn ids), the same for the same name."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    head = f"{milliseconds:012x}"
    variant = "89ab"[int(digest[3], 16) & 3]
    return f"{head[:8]}-{head[8:]}-7{digest[:3]}-{variant}{digest[4:7]}-{digest[7:19]}"


def stamp(milliseconds: int) -> str:
    """Write a time as the rollout does: UTC with milliseconds."""
    return f"{datetime.fromtimestamp(milliseconds // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def session_meta(
    thread_id: str, milliseconds: int, *, paginated: bool, window_id: str, base: HistoryBase | None
) -> Record:
    """Line 0; `base` names the file that a paginated one continues."""
    meta: Record = {"session_id": thread_id} if paginated else {}
    meta |= {
        "id": thread_id,
        "timestamp": stamp(milliseconds),
        "cwd": CWD,
        "originator": "codex_sample",
        "cli_version": PAGINATED_VERSION if paginated else LEGACY_VERSION,
        "source": "vscode",
        "model_provider": "openai",
        "base_instructions": {"text": _INSTRUCTIONS},
    }
    if paginated:
        meta["history_mode"] = "paginated"
        if base is not None:
            meta["history_base"] = {
                "thread_id": base.file_id,
                "end_ordinal_exclusive": base.end_ordinal_exclusive,
                "end_byte_offset": base.end_byte_offset,
            }
        meta["context_window"] = {"window_id": window_id}
    return meta


def task_started(turn_id: str, milliseconds: int, *, trigger: str | None, paginated: bool) -> Record:
    """A turn begins; `trigger` is None for a person's turn, `goal` for one of the goal's loop."""
    started: Record = {}
    if paginated:
        started["turn_attribution"] = {"turn_id": turn_id, "turn_trigger": trigger, "root_turn_id": turn_id}
    started["turn_id"] = turn_id
    if paginated:
        started["root_turn_id"] = turn_id
    return started | {
        "started_at": milliseconds // 1000,
        "model_context_window": CONTEXT_WINDOW,
        "collaboration_mode_kind": "default",
    }


def turn_context(turn_id: str, *, paginated: bool) -> Record:
    mode = {"mode": "default", "settings": {"model": MODEL, "reasoning_effort": None, "developer_instructions": None}}
    sandbox = {"type": "danger-full-access"}
    if paginated:
        return {
            "turn_id": turn_id,
            "root_turn_id": turn_id,
            "disabled_plugin_ids": [],
            "cwd": CWD,
            "approval_policy": "never",
            "approvals_reviewer": "user",
            "permission_profile": {"type": "disabled"},
            "model": MODEL,
            "collaboration_mode": mode,
            "multi_agent_version": "v1",
            "realtime_active": False,
            "summary": "none",
            "sandbox_policy": sandbox,
        }
    return {
        "turn_id": turn_id,
        "cwd": CWD,
        "current_date": f"{STARTED:%Y-%m-%d}",
        "timezone": "Etc/UTC",
        "approval_policy": "never",
        "sandbox_policy": sandbox,
        "permission_profile": {"type": "disabled"},
        "model": MODEL,
        "personality": "pragmatic",
        "collaboration_mode": mode,
        "realtime_active": False,
        "summary": "auto",
    }


def world_state() -> Record:
    """The baseline of later context differences (paginated threads)."""
    environments = {"environments": {"local": {"cwd": CWD, "status": "available", "shell": "bash"}}}
    return {"full": True, "state": {"environments": environments, "model": MODEL}}


def token_count(total: int, last: int) -> Record:
    """The usage so far and that of the last request, in tokens."""
    info = {
        "total_token_usage": _usage(total),
        "last_token_usage": _usage(last),
        "model_context_window": CONTEXT_WINDOW,
    }
    limits = {"limit_id": "codex", "limit_name": None, "primary": None, "secondary": None, "credits": None}
    return {"info": info, "rate_limits": limits | {"plan_type": None, "rate_limit_reached_type": None}}


def _usage(tokens: int) -> Record:
    return {
        "input_tokens": max(tokens - 20, 0),
        "cached_input_tokens": 0,
        "output_tokens": 20,
        "reasoning_output_tokens": 0,
        "total_tokens": tokens,
    }


def message(role: str, text: str) -> Record:
    """A Responses API message; role `assistant`, `user` or `developer`."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def context_messages() -> tuple[Record, Record]:
    """The developer's and the environment's message with which Codex opens a context window."""
    return message("developer", _PERMISSIONS), message("user", _ENVIRONMENT)


def goal_prompt(objective: str, *, paginated: bool) -> Record:
    """The message that Codex injects to go on with a goal; 0.169.0 no longer repeats the objective in it."""
    if paginated:
        return message("user", '<codex_internal_context source="goal">\nGo on.\n</codex_internal_context>')
    return message("user", f"<goal_context>\nGo on.\n\n<objective>\n{objective}\n</objective>\n</goal_context>")


def output_pieces(size: int, *, start: int) -> Iterator[memoryview]:
    """Give `size` bytes, rounded up to whole lines, of command output that is already escaped for JSON.

    Cut from one block of a megabyte from line `start` on, so that no memory grows with the size.
    """
    block = memoryview(_output_block())
    left = -(-size // _LINE_BYTES)
    line = start % _BLOCK_LINES
    while left:
        count = min(left, _BLOCK_LINES - line)
        yield block[line * _LINE_BYTES : (line + count) * _LINE_BYTES]
        left -= count
        line = 0


@cache
def _output_block() -> bytes:
    """Lines as of a test runner, each 64 bytes with its escapes; some characters take two bytes."""
    lines = []
    for number in range(_BLOCK_LINES):
        digest = number * 2_654_435_761 % 2**32
        text = f'src/part_{number % 97:02d}.rs:{number * 37 % 9000}: caf\u00e9 \\"{digest:08x}\\" ok '
        lines.append(text.encode().ljust(_LINE_BYTES - 2, b".") + b"\\n")
    return b"".join(lines)
