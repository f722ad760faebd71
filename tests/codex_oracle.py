"""What Codex makes of a rollout, told in the plainest way, whole file in memory: the oracle of our tests.

Newest to oldest, turn by turn: a rollback skips user turns, the newest surviving compaction with a
replacement history is the base, the newest surviving user turn gives the settings; then everything
behind the base is played forwards.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Seen:
    base: Any = None
    settings: Any = None
    history: list[Any] = field(default_factory=list)


def records_of(data: bytes) -> list[dict[str, Any]]:
    found = []
    for line in data.split(b"\n"):
        try:
            record = json.loads(line, parse_constant=_refuse)
            json.dumps(record, ensure_ascii=False).encode()  # lone surrogates have no UTF-8
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and "type" in record and _depth(record) < 128:
            found.append(record)
    return found


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _depth(value: Any) -> int:
    deepest, left = 0, [(value, 1)]
    while left:
        inner, depth = left.pop()
        if isinstance(inner, dict | list):
            deepest = max(deepest, depth)
            left += [(each, depth + 1) for each in (inner.values() if isinstance(inner, dict) else inner)]
    return deepest


def is_user(record: dict[str, Any]) -> bool:
    payload = record["payload"]
    if record["type"] == "event_msg":
        return payload["type"] == "user_message"
    if record["type"] != "response_item" or payload.get("type") != "message" or payload.get("role") != "user":
        return False
    texts = [part.get("text", "") for part in payload["content"]]
    return not any(text.startswith(("<", "#", "Another language model")) for text in texts)


def model_view(data: bytes) -> Seen:
    """The history and settings that Codex rebuilds from these bytes."""
    records = records_of(data)
    seen, dropped, suffix = Seen(), 0, 0
    turn: dict[str, Any] = {}
    for index in range(len(records) - 1, -1, -1):
        record = records[index]
        kind = record["payload"].get("type") if record["type"] == "event_msg" else record["type"]
        if kind == "thread_rolled_back":
            dropped += record["payload"]["num_turns"]
        turn["user"] = turn.get("user", False) or is_user(record)
        if kind == "compacted" and "base" not in turn and record["payload"].get("replacement_history") is not None:
            turn["base"] = (index, record["payload"]["replacement_history"])
        if kind == "turn_context":
            turn.setdefault("settings", record["payload"])
        if kind == "task_started":
            if dropped:
                dropped -= turn["user"]
            else:
                if seen.base is None and "base" in turn:
                    suffix, seen.base = turn["base"][0] + 1, turn["base"][1]
                if seen.settings is None and turn["user"]:
                    seen.settings = turn.get("settings")
            turn = {}
            if seen.base is not None and seen.settings is not None:
                break
    seen.history = [("base", seen.base)] + [
        (r["type"], r["payload"]) for r in records[suffix:] if r["type"] != "session_meta"
    ]
    return seen
