"""Writes a rollout of invented content, turn by turn, in the shapes of the real Codex.

For `preflight demo` and for tests. The same calls give the same bytes on every machine: ids, times
and texts come from counters and digests, never from the clock. Memory does not grow with the file;
half a gigabyte takes about a second.

The order of the records is that of files which Codex 0.134.0 (`paginated=False`) and 0.169.0
(`paginated=True`: ordinals, item ids, `item_completed`, `world_state`, window ids) wrote; both
versions resume what this module writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from preflight.codex import sample_records as records
from preflight.codex.sample_records import CWD, STARTED, Record, sample_uuid
from preflight.model import HistoryBase

End = Literal["complete", "aborted", "open"]

_OUTPUT_MARK: Final = "@@output@@"
_SUMMARY: Final = "A summary of the work so far, as a compaction leaves it: part %d of the sample is done."
_KEPT_USER_MESSAGES: Final = 40  # Codex keeps the newest user messages up to a token limit; this bounds ours
_FIRST_TOKEN_MS: Final = 40
_ITEM_ID_PREFIX: Final = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}


def rollout_path(home: Path, thread_id: str, *, segment_id: str | None = None, archived: bool = False) -> Path:
    """Name the place where Codex keeps the rollout of a thread (or revert segment) begun at `STARTED`."""
    segment = "" if segment_id is None else f"_{segment_id}"
    name = f"rollout-{STARTED:%Y-%m-%dT%H-%M-%S}-{thread_id}{segment}.jsonl"
    return home / "archived_sessions" / name if archived else home / "sessions" / f"{STARTED:%Y/%m/%d}" / name


class RolloutWriter:
    """One new rollout file: `session_meta` is written at once, the rest as it is called for.

    The folder is made when it is missing; a file that exists already is refused (FileExistsError).
    `base` makes it the continuation of another file (a fork or revert segment of 0.169.0), whose
    ordinals it goes on with. An error leaves the records that were written before it.
    """

    def __init__(self, path: Path, thread_id: str, *, paginated: bool = False, base: HistoryBase | None = None) -> None:
        self.path = path
        self.thread_id = thread_id
        self.paginated = paginated
        self.size_bytes = 0
        self.next_ordinal = (base.end_ordinal_exclusive or 0) if base is not None else 0
        self._now = self._turn_began = int(STARTED.timestamp() * 1000)
        self._ids = 0
        self._turn_id = ""
        self._context_due = base is None
        self._kept: list[Record] = []
        self._compactions = 0
        self._window_id = self._new_id()
        self._tokens = 0
        self._fill = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("xb", buffering=1 << 20)
        meta = records.session_meta(thread_id, self._now, paginated=paginated, window_id=self._window_id, base=base)
        self.record("session_meta", meta)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hand everything to the operating system; a second call does nothing."""
        self._file.close()

    # What a thread is made of.

    def turn(
        self,
        text: str = "Please look around.",
        *,
        outputs: Sequence[int] = (),
        answer: str = "Done.",
        compacts: bool = False,
        end: End = "complete",
    ) -> str:
        """Write a turn that a person began; returns its id.

        Each of `outputs` is a command with that many bytes of output, `compacts` puts an automatic
        compaction before the answer, `end="open"` leaves the turn in progress.
        """
        self._begin(trigger=None)
        self._open_context()
        self._kept = [*self._kept, self._item(records.message("user", text))][-_KEPT_USER_MESSAGES:]
        if self.paginated:
            content = [{"type": "text", "text": text, "text_elements": []}]
            self._completed({"type": "UserMessage", "id": self._new_id(), "content": content})
        else:
            self.event("user_message", message=text, images=[], local_images=[], text_elements=[])
        self._work(outputs, compacts=compacts)
        if end == "complete":
            self._answer(answer)
        return self._end(end, answer)

    def goal_turn(
        self,
        objective: str,
        *,
        outputs: Sequence[int] = (),
        answer: str = "Still working on the goal.",
        compacts: bool = False,
        end: End = "complete",
    ) -> str:
        """Write a turn that the goal's own loop began: an injected message in a person's place."""
        self._begin(trigger="goal")
        self._open_context()
        self._item(records.goal_prompt(objective, paginated=self.paginated))
        self._work(outputs, compacts=compacts)
        if end == "complete":
            self._answer(answer)
            if not self.paginated:
                self._goal_accounted(objective)
        return self._end(end, answer)

    def compaction(self) -> str:
        """Write a turn that is nothing but a compaction asked for by hand; returns its id."""
        self._begin(trigger=None)
        self._token_count()
        self._compact(mid_turn=False)
        return self._end("complete", None)

    def rollback(self, turns: int) -> None:
        """Write that the last `turns` user turns were taken back (legacy threads only)."""
        self.event("thread_rolled_back", num_turns=turns)

    def event(self, name: str, **fields: object) -> None:
        """Write one `event_msg`."""
        self.record("event_msg", {"type": name, **fields})

    def record(self, kind: str, payload: Mapping[str, object], **beside: object) -> None:
        """Write one record of any kind; `beside` are keys next to `payload`."""
        self.raw(self._line(kind, payload, beside))

    def raw(self, data: bytes | memoryview) -> None:
        """Write bytes as they are: damage, a torn line, a line ending of another system."""
        self._file.write(data)
        self.size_bytes += len(data)

    # The parts of a turn.

    def _begin(self, *, trigger: str | None) -> None:
        self._now += 20_000
        self._turn_began = self._now
        self._turn_id = self._new_id()
        started = records.task_started(self._turn_id, self._now, trigger=trigger, paginated=self.paginated)
        self.event("task_started", **started)

    def _open_context(self) -> None:
        if self._context_due:
            for message in records.context_messages():
                self._item(message)
            self._world_state()
            self._context_due = False
        self._turn_context()

    def _turn_context(self) -> None:
        self.record("turn_context", records.turn_context(self._turn_id, paginated=self.paginated))

    def _world_state(self) -> None:
        if self.paginated:
            self.record("world_state", records.world_state())

    def _work(self, outputs: Sequence[int], *, compacts: bool) -> None:
        for size in outputs:
            self._command(size)
            self._token_count()
        if compacts:
            self._compact(mid_turn=True)

    def _command(self, size: int) -> None:
        call_id = f"call_{hashlib.sha256(self._new_id().encode()).hexdigest()[:24]}"
        arguments = json.dumps({"cmd": "make check", "max_output_tokens": 200_000})
        self._item({"type": "function_call", "name": "exec_command", "arguments": arguments, "call_id": call_id})
        if self.paginated:
            # 0.169.0 keeps each output twice: for the people who look at the thread, and for the model.
            command: Record = {"type": "CommandExecution", "id": call_id, "command": ["/bin/bash", "-lc", "make check"]}
            command |= {"cwd": f"file://{CWD}", "parsed_cmd": [], "source": "unified_exec_startup"}
            command |= {"status": "completed", "aggregated_output": _OUTPUT_MARK, "exit_code": 0}
            self._completed(command | {"duration": {"secs": 0, "nanos": 30_000_000}}, output=size)
        output = f"Wall time: 0.0300 seconds\nProcess exited with code 0\nOutput:\n{_OUTPUT_MARK}"
        self._item({"type": "function_call_output", "call_id": call_id, "output": output}, output=size)
        self._fill = min(self._fill + size // 4, records.CONTEXT_WINDOW * 9 // 10)

    def _answer(self, text: str) -> None:
        if self.paginated:
            content = [{"type": "Text", "text": text}]
            self._completed({"type": "AgentMessage", "id": self._new_id(), "content": content})
        else:
            self.event("agent_message", message=text, phase=None, memory_citation=None)
        self._item(records.message("assistant", text))
        self._token_count()

    def _compact(self, *, mid_turn: bool) -> None:
        # 0.134.0 puts the context into the replacement history, and a turn context behind it, only when
        # the compaction was automatic; after one by hand the next turn brings them. 0.169.0 always does.
        with_context = mid_turn or self.paginated
        self._compactions += 1
        summary = _SUMMARY % self._compactions
        context = records.context_messages() if with_context else ()
        new = [self._as_stored(message) for message in (*context, records.message("user", summary))]
        compacted: Record = {"message": summary, "replacement_history": [*self._kept, *new]}
        if self.paginated:
            window = {"window_number": self._compactions, "previous_window_id": self._window_id}
            self._window_id = self._new_id()
            compacted |= {**window, "window_id": self._window_id}
        self.record("compacted", compacted)
        self._context_due = not with_context
        if with_context:
            self._world_state()
            self._turn_context()
        self._fill = 4_000
        self._token_count()
        if self.paginated:
            self._completed({"type": "ContextCompaction", "id": self._new_id()})
        else:
            self.event("context_compacted")

    def _token_count(self) -> None:
        self._tokens += self._fill + 20
        self.event("token_count", **records.token_count(self._tokens, self._fill + 20))

    def _goal_accounted(self, objective: str) -> None:
        goal: Record = {"threadId": self.thread_id, "objective": objective, "status": "active"}
        goal |= {"tokensUsed": self._tokens, "timeUsedSeconds": (self._now - self._turn_began) // 1000}
        goal |= {"createdAt": int(STARTED.timestamp()), "updatedAt": self._now // 1000}
        self.event("thread_goal_updated", threadId=self.thread_id, turnId=self._turn_id, goal=goal)

    def _end(self, end: End, last_message: str | None) -> str:
        which: Record = {"root_turn_id": self._turn_id} if self.paginated else {}
        which["turn_id"] = self._turn_id
        times: Record = {"started_at": self._turn_began // 1000} if self.paginated else {}
        times |= {"completed_at": self._now // 1000, "duration_ms": self._now - self._turn_began}
        if end == "complete":
            if last_message is not None:
                times["time_to_first_token_ms"] = _FIRST_TOKEN_MS
            self.event("task_complete", **which, last_agent_message=last_message, **times)
        elif end == "aborted":
            self.event("turn_aborted", **which, reason="interrupted", **times)
        return self._turn_id

    # Records.

    def _new_id(self) -> str:
        self._ids += 1
        return sample_uuid(self._now, f"{self.thread_id}/{self._ids}")

    def _item(self, item: Record, *, output: int | None = None) -> Record:
        """Write a `response_item`; returns it as a replacement history keeps it."""
        stored = self._as_stored(item)
        beside: Record = {"metadata": {"client_authored": False}} if self.paginated else {}
        self._with_output("response_item", stored, beside, output)
        return stored

    def _as_stored(self, item: Record) -> Record:
        if not self.paginated:
            return item
        kind = str(item["type"])
        rest = {key: value for key, value in item.items() if key != "type"}
        origin = {"internal_chat_message_metadata_passthrough": {"turn_id": self._turn_id}}
        return {"type": kind, "id": f"{_ITEM_ID_PREFIX[kind]}_{self._new_id()}", **rest, **origin}

    def _completed(self, item: Record, *, output: int | None = None) -> None:
        payload: Record = {"type": "item_completed", "thread_id": self.thread_id, "turn_id": self._turn_id}
        payload |= {"item": item, "started_at_ms": self._now, "completed_at_ms": self._now}
        self._with_output("event_msg", payload, {}, output)

    def _with_output(self, kind: str, payload: Record, beside: Record, size: int | None) -> None:
        line = self._line(kind, payload, beside)
        if size is None:
            self.raw(line)
            return
        head, tail = line.split(_OUTPUT_MARK.encode())
        self.raw(head)
        for piece in records.output_pieces(size, start=self._ids * 41):
            self.raw(piece)
        self.raw(tail)

    def _line(self, kind: str, payload: Mapping[str, object], beside: Mapping[str, object]) -> bytes:
        self._now += 3
        envelope: Record = {"timestamp": records.stamp(self._now)}
        if self.paginated:
            envelope["ordinal"] = self.next_ordinal
            self.next_ordinal += 1
        envelope |= {"type": kind, "payload": payload, **beside}
        return json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
