"""How the verbs behind the gate look in text: checkpoints listed, shown and verified, goals put back.

Each layout turns the data of its verb into blocks of lines; `values` renders what has no layout.
The data is what the verb gave to ``--json`` as well, so a key that is missing shows as ``-``.
"""

from __future__ import annotations

import shlex
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
    "withheld": "stays paused, because its thread was harmed",
    "replaced": "replaced by another goal since it was paused; left as it is",
    "dropped": "gone",
    "inserted": "written anew",
    "exists": "there again already; left as it is",
    "no-place": "gone, and there is no place to write it anew yet",
    "would-be-put-back": "paused by us; would be put back",
}

#: What became of the thread's row and of its goal when the thread was put back.
_ROWS: Final = {
    "kept": "as it was",
    "changed": "says now where the rollout lies",
    "inserted": "put back",
    "left-to-codex": "Codex makes it when it starts",
}
_GOALS: Final = {
    "exists": "the thread has one; left as it is",
    "inserted": "put back as it was",
    "inserted-paused": "put back, paused",
    "no-place": "not put back: there is no table of goals yet",
    "withdrawn": "taken away again",
}

_ROWS_UNDONE: Final = {**_ROWS, "changed": "as it was before the restore"}

#: What became of a restore that a kill had ended half-way.
_REPAIRED: Final = {
    "completed": "was interrupted, and is completed now",
    "called-off": "was interrupted before it had changed anything, and is called off now",
    "still-interrupted": "was interrupted, and could not be completed now: preflight restore says why",
}

_MADE: Final = {
    "made": "checkpoint {} holds",
    "unchanged": "nothing has changed since checkpoint {}",
    "failed": "no checkpoint could be written of",
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
    keys = ("checkpoint_id", "made_by", "threads", "goals_kept", "size_bytes", "pin")
    blocks = []
    for home, checkpoints in by_home.items():
        rows = [["checkpoint", "made by", "threads", "goals", "size", ""]]
        pins = [{**checkpoint, "pin": "pinned" if checkpoint.get("pinned") else ""} for checkpoint in checkpoints]
        rows += [[_cell(checkpoint, key) for key in keys] for checkpoint in pins]
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
    archived = thread.get("archived_bytes")
    beside = f", and the archive {_cell(thread, 'archived_bytes')}" if archived else ""
    kept = "the whole thread" if thread.get("whole") else f"{_cell(thread, 'resume_bytes')} to resume from"
    if thread.get("file") is None:
        kept, beside = f"nothing, and the archive {_cell(thread, 'archived_bytes')}", ""
    levels = [name for name in ("digests", "structure", "history", "trial") if name in thread]
    verified = ", ".join(f"{name} {_cell(thread, name).replace('-', ' ')}" for name in levels)
    return [
        line(f"Thread {_cell(thread, 'thread_id')}"),
        *wrapped(f"{_cell(thread, 'thread_bytes')}, of which this checkpoint holds {kept}{beside}", indent="  "),
        *wrapped(f"verified: {verified}", indent="  "),
        *([line(f"  {thread['file']}")] if thread.get("file") is not None else []),
    ]


def _verify(data: Data) -> Blocks:
    lines = [line(f"Checkpoint {_cell(data, 'checkpoint_id')}"), line(f"  {_cell(data, 'path')}")]
    for entry in _rows(data, "files"):
        what = f"thread {entry['thread_id']}" if "thread_id" in entry else _cell(entry, "file")
        lines += wrapped(f"{what}: {proven(entry)}", indent="    ", first="  ")
    return [lines, _reread(data)]


def _checkpoint(data: Data) -> Blocks:
    would = data.get("would_checkpoint")
    if isinstance(would, list | tuple):
        if not would:
            return [[line("Nothing would be written: the newest checkpoint is up to date.")]]
        return [[line("A checkpoint would be written of"), *(line(f"  thread {one}") for one in would)]]
    blocks = []
    for home in _rows(data, "checkpointed"):
        lines = [line(f"Home {_cell(home, 'home')}")]
        what = _MADE.get(_cell(home, "outcome"), "{}").format(_cell(home, "checkpoint_id"))
        threads = "1 thread" if home.get("threads") == 1 else f"{_cell(home, 'threads')} threads"
        lines += wrapped(f"{what}: {threads}, {_cell(home, 'thread_bytes')}", indent="  ")
        blocks.append(lines)
    proofs = [
        each
        for entry in _rows(data, "verification")
        for each in wrapped(f"thread {_cell(entry, 'thread_id')}: {proven(entry)}", indent="    ", first="  ")
    ]
    afterwards = [each for home in _rows(data, "pruned") for each in _pruned(home, dry_run=False)]
    return [*(blocks or [[line("Nothing was to be done.")]]), proofs, afterwards + _reread(data)]


def _reread(data: Data) -> list[Line]:
    lines = []
    for home in _rows(data, "read_back"):
        whole = "" if home.get("complete") else "; the time limit came before the rest"
        lines.append(line(f"  Read back {_cell(home, 'read_bytes')} of {_cell(home, 'stored_bytes')}{whole}."))
    return lines


def _prune(data: Data) -> Blocks:
    dry_run = bool(data.get("dry_run"))
    homes = [
        [line(f"Home {_cell(home, 'home')}"), *_kept(home), *_pruned(home, dry_run=dry_run)]
        for home in _rows(data, "pruned")
    ]
    return homes or [[line("There is no checkpoint yet."), line("next: ", ("preflight checkpoint", Style.COMMAND))]]


def _kept(home: Data) -> list[Line]:
    lines = []
    for one in _rows(home, "kept"):
        reasons = one.get("reasons")
        why = ", ".join(map(str, reasons)) if isinstance(reasons, list | tuple) else "-"
        lines += wrapped(f"{_cell(one, 'checkpoint_id')}  stays: {why}", indent="    ", first="  ")
    return lines


def _pruned(home: Data, *, dry_run: bool) -> list[Line]:
    removed = _rows(home, "removed")
    if not removed:
        return [line("  No checkpoint is to be removed.")] if dry_run else [line("  No checkpoint was removed.")]
    verb = "would go" if dry_run else "removed"
    lines = []
    for one in removed:
        lines += wrapped(f"{_cell(one, 'checkpoint_id')}  {verb}: {_cell(one, 'reason')}", indent="    ", first="  ")
    return [*lines, line(f"  {_cell(home, 'freed_bytes')} {'would be' if dry_run else 'were'} freed.")]


def _pin(data: Data) -> Blocks:
    state = "is pinned" if data.get("pinned") else "has no pin"
    already = "" if data.get("changed") else " already"
    return [[line(f"Checkpoint {_cell(data, 'checkpoint_id')} {state}{already}.")]]


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


def _hooks(data: Data) -> Blocks:
    if "did" in data:
        return _hook_done(data)
    rows = [["scheduler", "here", "state", "at"]]
    rows += [[_cell(hook, key) for key in ("name", "available", "state", "at")] for hook in _rows(data, "hooks")]
    head, *body = columns(rows)
    details = [
        each
        for hook in _rows(data, "hooks")
        for detail in _sentences(hook, "details")
        for each in wrapped(f"{_cell(hook, 'name')}: {detail}", indent="  ")
    ]
    return [[line((head, Style.DIM)), *map(line, body)], details]


def _hook_done(data: Data) -> Blocks:
    name, steps = _cell(data, "name"), _rows(data, "steps")
    if not steps:
        already = "is installed already" if data.get("state") == "installed" else "has nothing of ours"
        return [[line(f"{name}: {already}; nothing was changed.")], _hook_details(data)]
    if data.get("dry_run"):
        head = "Nothing was changed. This would be done:"
    elif data.get("did") == "install":
        head = f"{name} runs a checkpoint every night at {_cell(data, 'at')}. This was done:"
    else:
        head = f"{name} has nothing of ours any more. This was done:"
    return [[line(head), *(line("  " + each) for step in steps for each in _hook_step(step))], _hook_details(data)]


def _hook_step(step: Data) -> list[str]:
    argv = step.get("argv")
    if isinstance(argv, list | tuple):
        changes = [
            f"  {sign} {each}" for sign, key in (("-", "removed"), ("+", "added")) for each in _sentences(step, key)
        ]
        return [f"run {' '.join(map(str, argv))}", *changes]
    to = f" to {step['to']}" if "to" in step else ""
    return [f"{_cell(step, 'do')} {_cell(step, 'path')}{to}"]


def _hook_details(data: Data) -> list[Line]:
    return [each for detail in _sentences(data, "details") for each in wrapped(detail)]


def _restore(data: Data) -> Blocks:
    repaired = [
        each
        for row in _rows(data, "repaired")
        for each in wrapped(f"Restore {_cell(row, 'restore_id')} {_REPAIRED.get(_cell(row, 'outcome'), '')}.")
    ]
    return [repaired, _restored(data) if "thread_id" in data else []]


def _restored(data: Data) -> list[Line]:
    thread, dry_run = f"thread {_cell(data, 'thread_id')}", bool(data.get("dry_run"))
    rows = _rows(data, "files")
    if data.get("what") == "undo":
        head = f"The restore of {thread} would be undone." if dry_run else f"The restore of {thread} is undone."
        origin = []
    else:
        what = "whole" if data.get("what") == "full" else "ready to be resumed"
        head = f"{'Would put back' if dry_run else 'Put back'}, {what}: {thread}"
        origin = [line(f"  from checkpoint {_cell(data, 'checkpoint_id')}")]
    lines = [line((head, Style.STRONG)), *origin]
    for row in rows:
        lines += [line(f"  {_cell(row, 'path')}"), line(f"    {_cell(row, 'size_bytes')}{_read_back(row)}")]
    kept = _sentences(data, "kept")
    lines += [line("  what was there is kept as"), *(line(f"    {path}") for path in kept)] if kept else []
    told = [("row", _ROWS_UNDONE if data.get("what") == "undo" else _ROWS), ("goal", _GOALS)]
    lines += [line(f"  {key}: {words.get(str(data[key]), data[key])}") for key, words in told if data.get(key)]
    if data.get("new_home") and not dry_run:
        call = f"CODEX_HOME={shlex.quote(_cell(data, 'home'))} codex resume {_cell(data, 'thread_id')}"
        lines += [line("  This home has the thread alone: no settings, no sign-in, no other thread.")]
        lines += [line("open it: ", (call, Style.COMMAND))]
    elif not dry_run and data.get("what") != "undo":
        lines += [line("undo it: ", (f"preflight restore --undo {_cell(data, 'thread_id')}", Style.COMMAND))]
    return lines


def _read_back(row: Data) -> str:
    return f", read back, SHA-256 {row['sha256']}" if row.get("sha256") else ""


def _sentences(data: Data, key: str) -> list[str]:
    value = data.get(key)
    return [str(each) for each in value] if isinstance(value, list | tuple) else []


def _goal(goal: Data) -> list[Line]:
    outcome = str(goal.get("outcome"))
    if outcome == "changed" and goal.get("pending"):
        outcome = "withheld"
    return wrapped(
        f"goal of thread {_cell(goal, 'thread_id')}: {_OUTCOMES.get(outcome, outcome)}", indent="    ", first="  "
    )


def _rows(data: Data, key: str) -> list[Data]:
    value = data.get(key)
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list | tuple) else []


def _cell(data: Data, key: str) -> str:
    return cell(key, data.get(key))


LAYOUTS: Final[Mapping[str, Callable[[Data], Blocks]]] = {
    "checkpoint": _checkpoint,
    "pin": _pin,
    "prune": _prune,
    "unpin": _pin,
    "config": _config,
    "finish": _finish,
    "hooks": _hooks,
    "list": _list,
    "restore": _restore,
    "resume-goals": _resume_goals,
    "show": _show,
    "verify": _verify,
}
