"""The gate: discover, inspect, pause, checkpoint, verify, decide (design, section 4), from top to bottom.

`check` looks and changes nothing. `run` pauses, writes and proves checkpoints, and on anything but
`proceed` and `warn` puts every goal back as it was, also when it is interrupted half-way.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime

from preflight import policy
from preflight.checkpoint.store import Store, store_root
from preflight.codex.home import find_homes, shared_files
from preflight.codex.runtime import RuntimeVersion
from preflight.errors import GoalsStayPaused, PreflightError, UsageProblem
from preflight.home_run import HomeRun
from preflight.model import Finding, Home, Result, Verdict
from preflight.request import Request
from preflight.system.deadline import Deadline
from preflight.system.locks import RunLock


def check(request: Request) -> Result:
    """The verdict without changing anything. Raises HomeRefused, UnknownSchema, DatabaseBusy, TimeLimitReached."""
    deadline = Deadline(request.timeout)
    homes, not_checked = find_homes(request.homes, request.env, request.user_home)
    runs = [HomeRun(home, request, deadline, "") for home in homes]
    for run_ in runs:
        run_.store = Store.existing(store_root(request.store, request.env), run_.home)
        run_.look()
    _require_known(request, runs)
    return _result("check", runs, not_checked, homes, checkpointing=False)


def run(request: Request) -> Result:
    """The gate: on `proceed` and `warn` goals stay paused until `finish`, on anything else they are put back.

    Raises what `check` raises, Locked, StoreRefused; whatever is raised, goals that were paused are
    put back first.
    """
    deadline = Deadline(request.timeout)
    homes, not_checked = find_homes(request.homes, request.env, request.user_home)
    runs = [HomeRun(home, request, deadline, _new_run_id()) for home in homes]
    if request.dry_run:
        return _dry_run(request, runs, not_checked, homes)
    with ExitStack() as stack:
        for run_ in runs:
            # Read before anything is written: an unknown schema must leave no trace.
            run_.look()
        _require_known(request, runs)
        for run_ in runs:
            run_.store = Store.open(store_root(request.store, request.env), run_.home)
            stack.enter_context(RunLock(run_.store.folder).acquire(Deadline(0), _owner(request, run_.run_id)))
            run_.clear_left_behind()
        try:
            for run_ in runs:
                if request.pause and run_.pause(stack):
                    run_.look()
                run_.checkpoint()
                run_.conclude()
            result = _result("run", runs, not_checked, homes, checkpointing=True)
            result = replace(result, keep_in=tuple(r.store.reports for r in runs if r.store is not None))
            if result.verdict is Verdict.BLOCK:
                decision = policy.verdict_on((*result.findings, *_put_all_back(runs)))
                data = {**result.data, "homes": tuple(r.seen for r in runs if r.seen is not None)}
                result = replace(result, data=data, findings=decision.findings, exit_code=decision.exit_code)
        except BaseException as error:
            stuck = _put_all_back(runs)
            if stuck and isinstance(error, PreflightError):
                message = f"{error.message}; {stuck[0].cause}"
                raise GoalsStayPaused(message, path=stuck[0].path, hint=stuck[0].remedy) from error
            raise
    return result


def _put_all_back(runs: Sequence[HomeRun]) -> list[Finding]:
    """Put the goals of every home back; a finding for each home where that could not be done.

    Against a signal in the middle of it: all is tried once more before the signal has its way. `cli`
    lets no second one through.
    """
    try:
        return _put_each_back(runs)
    except BaseException:
        _put_each_back(runs)
        raise


def _put_each_back(runs: Sequence[HomeRun]) -> list[Finding]:
    from preflight.pause import still_paused

    stuck = []
    for run_ in runs:
        try:
            run_.put_back()
        except (PreflightError, OSError) as error:
            stuck.append(still_paused(run_.home, error))
    return stuck


def _result(
    command: str, runs: Sequence[HomeRun], not_checked: Sequence[str], homes: Sequence[Home], *, checkpointing: bool
) -> Result:
    observed = [(r.seen, r.circumstances(checkpointing=checkpointing)) for r in runs if r.seen is not None]
    decision = policy.decide(observed, runs[0].request.settings) if runs else policy.verdict_on([policy.no_home()])
    decision = policy.verdict_on((*decision.findings, *shared_files(homes)))
    gaps = [*not_checked, *(gap for r in runs for gap in r.not_checked)]
    if runs and (named := runs[0].request.target_version) is not None and RuntimeVersion.parse(named) is None:
        gaps.append(f"what the target version changes: {named!r} is not a version, so it was taken as unknown")
    gaps += [gap for seen, _ in observed for gap in seen.not_checked]
    return Result(
        command=command,
        verdict=decision.verdict,
        exit_code=decision.exit_code,
        data={
            "homes": tuple(seen for seen, _ in observed),
            "checkpoint": tuple(r.made.reference for r in runs if r.made is not None),
            "verification": [level for r in runs if r.made is not None for level in r.made.verification],
        },
        findings=decision.findings,
        not_checked=tuple(gaps),
    )


def _dry_run(request: Request, runs: Sequence[HomeRun], not_checked: Sequence[str], homes: Sequence[Home]) -> Result:
    for run_ in runs:
        run_.store = Store.existing(store_root(request.store, request.env), run_.home)
        run_.look()
    _require_known(request, runs)
    result = _result("run", runs, not_checked, homes, checkpointing=False)
    seen = [s for r in runs if r.seen is not None for s in r.seen.threads]
    wanted = {thread_id.lower() for thread_id in request.threads}
    plan = {
        "would_pause": [s.thread.thread_id for s in seen if s.thread.goal is not None and s.thread.goal.is_active],
        "would_checkpoint": [
            s.thread.thread_id for s in seen if policy.needs_checkpoint(s) or s.thread.thread_id in wanted
        ],
    }
    return replace(result, data={**result.data, **plan})


def _require_known(request: Request, runs: Sequence[HomeRun]) -> None:
    known = {t.thread_id for r in runs if r.found is not None for t in r.found.threads}
    for thread_id in request.threads:
        if thread_id.lower() not in known:
            raise UsageProblem(f"there is no thread {thread_id}", hint="preflight check --json lists the threads")


def _new_run_id() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _owner(request: Request, run_id: str) -> dict[str, object]:
    return {
        "program": "preflight run",
        "run_id": run_id,
        "reason": request.reason,
    }
