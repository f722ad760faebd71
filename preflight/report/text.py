"""The answer for people: the verdict first, then what to do, then the figures it rests on.

Written for somebody who is woken by it: one word in capitals and one sentence, findings with the
worst first, each with the next command on a line of its own that can be copied whole. Ids, sizes and
states only; an objective appears when `show_text` asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from preflight.model import CheckpointRef, Finding, HomeObservation, Observation, Result, Severity, Verdict
from preflight.report import EXIT_WORDS, Failure, exit_code_of
from preflight.report.lines import Line, Style, columns, human_size, line, wrapped
from preflight.report.values import described
from preflight.report.verbs import LAYOUTS, proven

__all__ = ["Wanted", "failure_lines", "result_lines"]

# A verb and its options, not a sentence that begins with one; help is the same for every home.
_ID = r"\d{8}T\d{6}Z-[0-9a-f]{6}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_OURS = re.compile(rf"preflight [a-z-]+( (latest|THREAD|{_ID}))*( --(?!help)[a-z-]+( (\"[^\"]*\"|[^\s-]\S*))?)*")
_THEIRS = re.compile(r"codex( [a-z-]+)+|preflight( [a-z-]+)* --help")
# Shown of one kind before "and N more"; -v shows all, --json always has all.
_SHOWN = 10

_BEFORE = {
    Verdict.PROCEED: "The update can be installed now.",
    Verdict.WARN: "The update can be installed; read the findings first.",
    Verdict.BLOCK: "Do not install the update yet.",
}
_AFTER = {
    Verdict.PROCEED: "Everything is still there.",
    Verdict.WARN: "Everything that matters is there; read the findings.",
    Verdict.BLOCK: "Something is missing or damaged; nothing of the checkpoint has been removed.",
}
_SENTENCES = {"check": _BEFORE, "run": _BEFORE, "finish": _AFTER}
_VERIFIED = line(("VERIFIED", Style.PROCEED), ": what was read back is what was written.")
_UNVERIFIED = line(("UNVERIFIED", Style.BLOCK), ": what was read back cannot be relied on.")
_HALF_VERIFIED = line(("TRY LATER", Style.WARN), ": what was read back is what was written; the time limit came first.")
_NOT_INSTALLED = "Do not install the update now."
_WITHOUT_VERDICT = {"finish": "Whether everything is still there has not been proven."}
_STYLES = {
    Verdict.PROCEED: Style.PROCEED,
    Verdict.WARN: Style.WARN,
    Verdict.BLOCK: Style.BLOCK,
    Severity.WARN: Style.WARN,
    Severity.BLOCK: Style.BLOCK,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How much a person asked for: `quiet` the verdict and the findings, `verbose` lists in full.

    `options` is what the next command needs to mean the same home and store, such as ``--home /srv/codex``.
    """

    quiet: bool = False
    verbose: bool = False
    show_text: bool = False
    options: str = ""


def result_lines(result: Result, wanted: Wanted) -> list[Line]:
    """The whole answer of a verb that ended with a result, as blocks with an empty line between them."""
    homes = _observed(result.data.get("homes"))
    threads = [each for home in homes for each in home.threads]
    seen = {each.thread.thread_id: each for each in threads}
    headline = _headline(result)
    blocks = [headline, _paused(threads, wanted), *_findings(result.findings, seen, wanted)]
    # A verb without a verdict has nothing but its figures to answer with. The night's is called by schedulers, and
    # cron sends a mail for whatever is printed.
    if not (wanted.quiet and (headline or result.command == "checkpoint")):
        layout = LAYOUTS.get(result.command, _gate)
        blocks += [
            _threads(threads, wanted),
            *layout(result.data),
            *(_home(home) for home in homes),
            _not_checked(result.not_checked),
        ]
    return _joined(blocks)


def failure_lines(failure: Failure, wanted: Wanted) -> list[Line]:
    """A call that ended without a result: the word, the sentence, and the next step."""
    word = EXIT_WORDS.get(failure.exit_code, "stopped").upper()
    lines = wrapped(f"{word}: {failure.message}")
    if failure.verdict is not None and failure.command is not None:
        lines.append(line("There is no verdict. " + _WITHOUT_VERDICT.get(failure.command, _NOT_INSTALLED)))
    return lines + (_next(failure.hint, wanted) if failure.hint else [])


def _joined(blocks: Sequence[Sequence[Line]]) -> list[Line]:
    """The blocks with one empty line between them and none at either end."""
    lines: list[Line] = []
    for block in blocks:
        for each in [line(), *block]:
            if each.parts or (lines and lines[-1].parts):
                lines.append(each)
    return lines if not lines or lines[-1].parts else lines[:-1]


def _headline(result: Result) -> list[Line]:
    if result.command == "verify":
        return [{0: _VERIFIED, 75: _HALF_VERIFIED}.get(exit_code_of(result), _UNVERIFIED)]
    if result.verdict is None:
        return []
    word = result.verdict.value.upper()
    numbers = [
        f"{number:,} {severity.value}"
        for severity in (Severity.BLOCK, Severity.WARN)
        if (number := sum(finding.severity is severity for finding in result.findings))
    ]
    found = f" Findings: {', '.join(numbers)}." if numbers else ""
    first, *more = wrapped(f"{word}: {_SENTENCES.get(result.command, _BEFORE)[result.verdict]}{found}")
    return [line((word, _STYLES[result.verdict]), first.text.removeprefix(word)), *more]


def _findings(findings: Sequence[Finding], seen: Mapping[str, Observation], wanted: Wanted) -> list[list[Line]]:
    """One block for each kind of finding, the worst kinds and the largest threads first."""

    def weight(finding: Finding) -> tuple[bool, str, int]:
        known = seen.get(finding.thread_id or "")
        return (finding.severity is not Severity.BLOCK, finding.finding_id, -known.thread.size_bytes if known else 0)

    kinds: dict[tuple[Severity, str], dict[tuple[object, ...], list[Finding]]] = {}
    for finding in sorted(findings, key=weight):
        alike = kinds.setdefault((finding.severity, finding.finding_id), {})
        alike.setdefault((finding.cause, finding.expected, finding.remedy), []).append(finding)
    return [
        [
            line((severity.value.upper(), _STYLES[severity]), f"  {finding_id}"),
            *(each for same in alike.values() for each in _alike(same, seen, wanted)),
        ]
        for (severity, finding_id), alike in kinds.items()
    ]


def _alike(same: Sequence[Finding], seen: Mapping[str, Observation], wanted: Wanted) -> list[Line]:
    """Findings that differ only in what they were found on: the cause once, then each place, then what to do."""
    first, alone = same[0], len(same) == 1
    lines = wrapped(first.cause, indent="  ")
    shown = same if wanted.verbose else same[:_SHOWN]
    for finding in shown:
        lines += _place(finding, seen.get(finding.thread_id or ""), measured=not alone)
    if len(shown) < len(same):
        lines.append(line(f"    and {len(same) - len(shown):,} more; -v shows them all"))
    compared = [f"measured {_number(first.measured)}"] if alone and first.measured is not None else []
    compared += [f"expected {_number(first.expected)}"] if first.expected is not None else []
    lines += wrapped(", ".join(compared), indent="    ", style=Style.DIM)
    return lines + (_next(first.remedy, wanted, indent="  ") if first.remedy else [])


def _place(finding: Finding, seen: Observation | None, *, measured: bool) -> list[Line]:
    """What the finding was found on: a thread, a file, or both."""
    places = [_about(finding.thread_id, seen)] if finding.thread_id is not None else []
    places += [str(finding.path)] if finding.path is not None else []
    if measured and finding.measured is not None and (seen is None or finding.measured != seen.thread.size_bytes):
        places.append(f"measured {_number(finding.measured)}")
    return wrapped(", ".join(places), indent="      ", first="    ")


def _number(value: str | int) -> str:
    """A count or an age in full; from a hundred million on it is a size, of a file or of memory."""
    if isinstance(value, str):
        return value
    return f"{value:,}" if value < 100_000_000 else human_size(value)


def _about(thread_id: str, seen: Observation | None) -> str:
    if seen is None:
        return f"thread {thread_id}"
    goal = seen.thread.goal
    size = f"{human_size(seen.thread.size_bytes)} ({seen.size_class.value})"
    return f"thread {thread_id}, {size}" + (f", goal {goal.status}" if goal is not None else "")


def _paused(threads: Iterable[Observation], wanted: Wanted) -> list[Line]:
    paused = sum(each.paused_by_us for each in threads)
    if not paused:
        return []
    return [
        line(f"{paused:,} {'goal is' if paused == 1 else 'goals are'} paused by preflight."),
        *_next("preflight finish", wanted, remark="after the update"),
        *_next("preflight resume-goals", wanted, remark="if there is no update"),
    ]


def _next(step: str, wanted: Wanted, *, indent: str = "", remark: str = "") -> list[Line]:
    """What to do now. A command keeps its line, however long: a wrapped command cannot be copied."""
    title = f"{indent}{remark or 'next'}: "
    if _OURS.fullmatch(step):
        return [line(title, (f"{step} {wanted.options}".rstrip(), Style.COMMAND))]
    if _THEIRS.fullmatch(step):
        return [line(title, (step, Style.COMMAND))]
    return wrapped(step, indent=" " * len(title), first=title)


def _threads(threads: Sequence[Observation], wanted: Wanted) -> list[Line]:
    if not threads:
        return []
    ordered = sorted(threads, key=lambda each: -each.thread.size_bytes)
    shown = ordered if wanted.verbose else ordered[:_SHOWN]
    rows = [["thread", "size", "class", "goal", "checkpoint"]]
    rows += [
        [
            each.thread.thread_id,
            human_size(each.thread.size_bytes),
            each.size_class.value,
            each.thread.goal.status if each.thread.goal is not None else "-",
            _checkpoint_word(each),
        ]
        for each in shown
    ]
    head, *body = columns(rows, right={1})
    lines = [line((head, Style.DIM))]
    for row, each in zip(body, shown, strict=True):
        lines.append(line(row))
        if wanted.show_text and each.thread.goal is not None:
            lines += wrapped(f"objective: {each.thread.goal.objective}", indent="  ")
    if len(shown) < len(ordered):
        lines.append(line(f"and {len(ordered) - len(shown):,} more; -v shows them all"))
    return lines


def _checkpoint_word(each: Observation) -> str:
    if each.checkpoint is None:
        return "none"
    return ("fresh" if each.checkpoint.fresh else "old") + ("" if each.checkpoint.verified else ", unverified")


def _gate(data: Mapping[str, object]) -> list[list[Line]]:
    """What `check` and `run` did, and the values of any verb that has no layout of its own."""
    made = data.get("checkpoint")
    references = [each for each in made if isinstance(each, CheckpointRef)] if isinstance(made, tuple) else []
    blocks = [[line(f"Checkpoint {each.checkpoint_id}"), line(f"  {each.path}")] for each in references]
    verification = data.get("verification")
    entries = [each for each in verification if isinstance(each, Mapping)] if isinstance(verification, list) else []
    blocks.append([part for each in entries for part in _proven(each)])
    shown = {"homes", "checkpoint", "verification"}
    return [*blocks, described({key: value for key, value in data.items() if key not in shown})]


def _proven(entry: Mapping[str, object]) -> list[Line]:
    return wrapped(f"thread {entry.get('thread_id')}: {proven(entry)}", indent="  ")


def _home(observation: HomeObservation) -> list[Line]:
    counted = ", ".join(_counted(name, number) for name, number in observation.counts.items() if number)
    lines = [line(f"Home {observation.home.path}"), *wrapped(counted, indent="  ")]
    for runtime in observation.runtimes:
        version = runtime.version or "(version unknown)"
        lines.append(line(f"  running: codex {version}, {runtime.role.value}, pid {runtime.pid}"))
    if observation.last_good_night is not None:
        lines.append(line(f"  last good night: {observation.last_good_night}"))
    return lines


def _counted(name: str, number: int) -> str:
    """``3 active goals``, ``1 rollout``, ``30.0 MB of rollouts``."""
    words = name.replace("_", " ")
    if words.endswith(" bytes"):
        return f"{human_size(number)} of {words.removesuffix(' bytes')}s"
    return f"{number:,} {words.removesuffix('s') if number == 1 else words}"


def _not_checked(sentences: Sequence[str]) -> list[Line]:
    if not sentences:
        return []
    lines = [line(("Not checked", Style.STRONG))]
    for sentence in sentences:
        lines += wrapped(sentence, indent="    ", first="  - ")
    return lines


def _observed(value: object) -> list[HomeObservation]:
    return [home for home in value if isinstance(home, HomeObservation)] if isinstance(value, list | tuple) else []
