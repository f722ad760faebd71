"""A FAKE of `codex app-server` on stdio, for what a real one does not do on request: hang, die, lie, babble.

What a fake does is written into its program, because a trial gives it no environment to read it from:

    program = make_fake(folder / "codex", dies_on="thread/resume")

Without a behaviour it answers as 0.169.0 does, from the home that it is given. The real releases are
tried in tests/real_codex/.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def make_fake(path: Path, **behaviour: Any) -> Path:
    """A program that behaves as told, see `Behaviour`."""
    here = Path(__file__).parent
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.dont_write_bytecode = True\nsys.path.insert(0, {str(here)!r})\n"
        f"from fake_app_server import Behaviour, serve\nserve(Behaviour(**{behaviour!r}))\n"
    )
    path.chmod(0o755)
    return path


@dataclass
class Behaviour:
    """What is to be different, by method.

    `results`, `errors` and `errors_once` stand in place of the usual answer (a list: one after the
    other); `says` comes before it; `asks` is a question to the client, whose answer goes into the result; `padding`
    adds so many bytes. `silent_on` is never answered, `late_on` only when the next request has come.
    `notes` is a file that gets what the fake was started with, and every message, as JSON lines.
    """

    results: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, Json] = field(default_factory=dict)
    errors_once: dict[str, Json] = field(default_factory=dict)
    says: dict[str, list[Json]] = field(default_factory=dict)
    asks: dict[str, str] = field(default_factory=dict)
    padding: dict[str, int] = field(default_factory=dict)
    silent_on: str = ""
    late_on: str = ""
    dies_on: str = ""
    garbage_on: str = ""
    notes: str = ""
    child_pid_in: str = ""


def serve(behaviour: Behaviour) -> None:
    """Answer until the input ends."""
    home = Path(os.environ["CODEX_HOME"])
    about = {"environment": dict(os.environ), "config": (home / "config.toml").read_text(), "cwd": str(Path.cwd())}
    about["files"] = sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())
    _note(behaviour, about)
    if behaviour.child_pid_in:
        pid = os.spawnl(os.P_NOWAIT, sys.executable, sys.executable, "-c", "import time; time.sleep(600)")
        Path(behaviour.child_pid_in).write_text(str(pid))
    waiting: list[Json] = []
    for line in sys.stdin:
        message = json.loads(line)
        _note(behaviour, message)
        if "id" not in message:
            continue
        _misbehave(behaviour, message["method"])
        waiting.append(_answer(behaviour, message, home))
        if message["method"] != behaviour.late_on:
            while waiting:
                _send(waiting.pop(0))


def _misbehave(behaviour: Behaviour, method: str) -> None:
    if method == behaviour.dies_on:
        os.abort()
    if method == behaviour.garbage_on:
        _write_line("thread 'main' panicked")
    if method == behaviour.silent_on:
        time.sleep(600)
    for said in behaviour.says.get(method, []):
        _send(said)


def _answer(behaviour: Behaviour, message: Json, home: Path) -> Json:
    method = message["method"]
    error = behaviour.errors_once.pop(method, None) or behaviour.errors.get(method)
    if error is not None:
        return {"id": message["id"], "error": error}
    result = behaviour.results.get(method)
    if isinstance(result, list):
        result = result.pop(0)
    if result is None:
        result = _usual(method, message["params"], home)
    if method in behaviour.asks:
        _send({"id": 900, "method": behaviour.asks[method], "params": {}})
        result = {"goal": {"status": "paused", "objective": sys.stdin.readline()}}
    if method in behaviour.padding:
        result["padding"] = "x" * behaviour.padding[method]
    return {"id": message["id"], "result": result}


def _usual(method: str, params: Json, home: Path) -> Json:
    match method:
        case "initialize":
            return {"userAgent": "codex-preflight/0.169.0 (fake)", "codexHome": str(home)}
        case "thread/resume" | "thread/read":
            return {"thread": {"id": params["threadId"], "status": {"type": "idle"}}}
        case "thread/turns/list":
            rollout = next(home.glob(f"sessions/*/*/*/rollout-*{params['threadId']}*.jsonl"))
            turns = rollout.read_text().count('"task_started"')
            return {"data": [{"id": str(n)} for n in range(turns)], "nextCursor": None}
        case "thread/goal/get" if (home / "goals_1.sqlite").exists():
            with closing(sqlite3.connect(home / "goals_1.sqlite")) as database:
                rows = database.execute("SELECT thread_id, status, objective FROM thread_goals").fetchall()
            goals = {thread: {"status": status, "objective": objective} for thread, status, objective in rows}
            return {"goal": goals.get(params["threadId"]) if len(goals) == 1 else {"status": "several"}}
        case _:
            return {}


def _note(behaviour: Behaviour, message: Json) -> None:
    if behaviour.notes:
        with Path(behaviour.notes).open("a") as file:
            file.write(json.dumps(message) + "\n")


def _send(message: Json) -> None:
    _write_line(json.dumps(message))


def _write_line(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
