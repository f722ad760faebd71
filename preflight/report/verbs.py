"""How the verbs behind the gate look in text: checkpoints listed, shown and verified, goals put back.

Each layout turns the data of its verb into blocks of lines; `values` renders what has no layout.
The data is what the verb gave to ``--json`` as well, so a key that is missing shows as ``-``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from preflight.report.lines import Line, Style, columns, line, wrapped
from preflight.report.values import cell, described

__all__ = ["LAYOUTS", "proven"]

Data = Mapping[str, object]
Blocks = list[list[Line]]

#: What became of a goal, in the words of a person; a word that is not here is shown as it is.
_OUTCOMES: Final = {
    "restored": "put back",
    "already-active": "was active already",
    "changed": "changed by somebody since it was paused; left as it is",
    "replaced": "replaced by another goal since it was paused; left as it is",
    "dropped": "gone",
    "inserted": "written anew",
    "exists": "there again already; left as it is",
    "no-place": "gone, and there is no place to write it anew yet",
    "would-be-put-back": "paused by us; would be put back",
}


def proven(entry: Data) -> str:
    """``digests passed, trial not checked``: every level of verification that the entry holds."""
    levels = [(level, told.get("outcome")) for level, told in entry.items() if isinstance(told, Mapping)]
    return ", ".join(f"{level} {str(outcome).replace('-', ' ')}" for level, outcome in levels)


def _list(data: Data) -> Blocks:
    by_home: dict[str, list[Data]] = {}
    for checkpoint in _rows(data, "checkpoints"):
        by_home.setdefault(_cell(checkpoint, "home"), []).append(checkpoint)
    if not by_home:
        return [[line("There is no checkpoint yet."), line("next: ", ("preflight run", Style.COMMAND))]]
    keys = ("checkpoint_id", "made_by", "threads", "goals_kept", "size_bytes")
    blocks = []
    for home, checkpoints in by_home.items():
        rows = [["checkpoint", "made by", "threads", "goals", "size"]]
        rows += [[_cell(checkpoint, key) for key in keys] for checkpoint in checkpoints]
        head, *body = columns(rows, indent="  ", right={2, 3, 4})
        blocks.append([line(f"Home {home}"), line((head, Style.DIM)), *map(line, body)])
    return blocks


def _show(data: Data) -> Blocks:
    facts = [
        ["home", _cell(data, "home")],
        ["made", f"{_cell(data, 'created_at')} by {_cell(data, 'made_by')}"],
        ["reason", _cell(data, "reason")],
        ["for version", _cell(data, "target_version")],
        ["size", _cell(data, "size_bytes")],
    ]
    about = [
        line((f"Checkpoint {_cell(data, 'checkpoint_id')}", Style.STRONG)),
        line(f"  {_cell(data, 'path')}"),
        *map(line, columns(facts, indent="  ")),
    ]
    held = [_held_thread(thread) for thread in _rows(data, "threads_held")]
    goals = [
        line(f"Goal of thread {_cell(goal, 'thread_id')}: {_cell(goal, 'status')}") for goal in _rows(data, "goals")
    ]
    texts = [
        wrapped(f"objective: {goal['objective']}", indent="  ") for goal in _rows(data, "goals") if "objective" in goal
    ]
    databases = data.get("databases")
    names = [str(name) for name in databases] if isinstance(databases, list | tuple) else []
    return [about, *held, goals, *texts, [line("Databases"), *(line(f"  {name}") for name in names)]]


def _held_thread(thread: Data) -> list[Line]:
    kept = "the whole thread" if thread.get("whole") else f"{_cell(thread, 'resume_bytes')} to resume from"
    levels = [name for name in ("digests", "structure", "history", "trial") if name in thread]
    verified = ", ".join(f"{name} {_cell(thread, name).replace('-', ' ')}" for name in levels)
    return [
        line(f"Thread {_cell(thread, 'thread_id')}"),
        *wrapped(f"{_cell(thread, 'thread_bytes')}, of which this checkpoint holds {kept}", indent="  "),
        *wrapped(f"verified: {verified}", indent="  "),
        line(f"  {_cell(thread, 'file')}"),
    ]


def _verify(data: Data) -> Blocks:
    lines = [line(f"Checkpoint {_cell(data, 'checkpoint_id')}"), line(f"  {_cell(data, 'path')}")]
    for entry in _rows(data, "files"):
        what = f"thread {entry['thread_id']}" if "thread_id" in entry else _cell(entry, "file")
        lines += wrapped(f"{what}: {proven(entry)}", indent="    ", first="  ")
    return [lines]


def _finish(data: Data) -> Blocks:
    blocks = []
    for home in _rows(data, "finished"):
        checkpoint = home.get("checkpoint")
        lines = [line(f"Home {_cell(home, 'home')}")]
        lines += [line(f"  compared with checkpoint {checkpoint}")] if checkpoint is not None else []
        lines += [each for goal in _rows(home, "goals") for each in _goal(goal)]
        anew = home.get("goals_written_anew")
        for thread_id in anew if isinstance(anew, list | tuple) else ():
            lines += _goal({"thread_id": thread_id, "outcome": "inserted"})
        blocks.append(lines)
    return blocks


def _resume_goals(data: Data) -> Blocks:
    lines = [each for goal in _rows(data, "goals") for each in _goal(goal)]
    return [lines or [line("No goal is paused by preflight.")]]


def _config(data: Data) -> Blocks:
    settings = _rows(data, "settings")
    if not settings:
        return [described(data)]
    rows = [["setting", "from", "value"]]
    for setting in settings:
        unit = f" {setting['unit']}" if setting.get("unit") in {"bytes", "seconds"} else ""
        rows.append([_cell(setting, "key"), _cell(setting, "origin"), _cell(setting, "value") + unit])
    head, *body = columns(rows)
    return [[line((head, Style.DIM)), *map(line, body)]]


def _goal(goal: Data) -> list[Line]:
    outcome = str(goal.get("outcome"))
    return wrapped(
        f"goal of thread {_cell(goal, 'thread_id')}: {_OUTCOMES.get(outcome, outcome)}", indent="    ", first="  "
    )


def _rows(data: Data, key: str) -> list[Data]:
    value = data.get(key)
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list | tuple) else []


def _cell(data: Data, key: str) -> str:
    return cell(key, data.get(key))


LAYOUTS: Final[Mapping[str, Callable[[Data], Blocks]]] = {
    "config": _config,
    "finish": _finish,
    "list": _list,
    "resume-goals": _resume_goals,
    "show": _show,
    "verify": _verify,
}
