"""A checkpoint resumes on trial in each release, the real home stays as it was, and nobody is asked anything.

The home and its goal are made by a release; the model it was made with stays up, so that a request would be
seen. What a real Codex does not do on request is in tests/integration/test_trial_resume_of_a_checkpoint.py.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from preflight.checkpoint.trial import Trial, TrialOutcome, trial_resume
from preflight.codex import boundary, resume_rollout
from preflight.codex.app_server import AppServer as Client
from preflight.codex.home import find_homes
from preflight.codex.runtime import CodexBinary, codex_binary
from preflight.codex.scratch_home import make_scratch_home
from preflight.codex.threads import find_threads
from preflight.model import Goal, GoalTable, Home, Thread
from preflight.system import children, databases
from preflight.system.children import Child
from preflight.system.deadline import Deadline
from tests.needs import cannot_be_had
from tests.real_codex.app_server import AppServer
from tests.real_codex.codex_release import PINNED, CodexRelease
from tests.real_codex.conftest import Codex, Shelf
from tests.real_codex.homes import CodexHome
from tests.real_codex.mock_model import MockModel
from tests.real_codex.threads import compacted

pytestmark = [pytest.mark.real_codex, pytest.mark.slow]

OBJECTIVE = "Improve it until somebody says stop"
LIMIT = 60.0


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds of one thread: the resume rollout, the goal, the copy of its database."""

    thread_id: str
    rollout: Path
    turns: int
    goal: Goal | None
    goals_database: Path | None


def checkpoint_of(home: CodexHome, thread_id: str, folder: Path) -> Checkpoint:
    (read,) = find_homes([home.path], {}, home.user)[0]
    thread = next(t for t in find_threads(read, Deadline(LIMIT)).threads if t.thread_id == thread_id)
    assert thread.head is not None
    folder.mkdir()
    rollout = folder / thread.head.path.name
    with boundary.opened(thread.lineage) as files, rollout.open("wb") as target:
        plan = resume_rollout.plan_resume(files, boundary.read_tail(files))
        resume_rollout.write_resume_rollout(files, plan, target, len)
    return Checkpoint(thread_id, rollout, shown_turns(rollout), thread.goal, copied_goals(read, thread, folder))


def copied_goals(home: Home, thread: Thread, folder: Path) -> Path | None:
    if thread.goal is None or thread.goal.table is GoalTable.STATE or home.goals_db is None:
        return None
    databases.backup(home.goals_db, folder / home.goals_db.name, Deadline(LIMIT))
    return folder / home.goals_db.name


def shown_turns(rollout: Path) -> int:
    """One for each `task_started`, less those that a rollback takes off the end: what every release shows."""
    turns = 0
    for line in rollout.read_bytes().splitlines():
        record = json.loads(line)
        kind = record["payload"].get("type") if record["type"] == "event_msg" else None
        if kind == "task_started":
            turns += 1
        elif kind == "thread_rolled_back":
            turns = max(0, turns - record["payload"]["num_turns"])
    return turns


def contents(home: Path) -> dict[str, tuple[int, int, str]]:
    """Every file of a home: its inode, its time, its digest."""
    files = (path for path in home.rglob("*") if path.is_file())
    facts = ((path, path.stat()) for path in files)
    return {
        str(path.relative_to(home)): (
            status.st_ino,
            status.st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path, status in facts
    }


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "scratch"
    folder.mkdir(mode=0o700)
    yield folder
    assert list(folder.iterdir()) == []


Try = Callable[..., Trial]


@pytest.fixture
def attempt(scratch: Path) -> Try:
    def run(release: CodexRelease, made: Checkpoint) -> Trial:
        return trial_resume(
            codex_binary(release.binary),
            made.rollout,
            made.thread_id,
            scratch=scratch,
            deadline=Deadline(LIMIT),
            goal=made.goal,
            goals_database=made.goals_database,
            expected_turns=made.turns,
        )

    return run


def check_turns(made: Checkpoint, runtime: str, trial: Trial) -> None:
    """0.147 alone shows none of a paginated file whose ordinals have gaps; then the trial does not count them."""
    blind = runtime == "0.147.0" and trial.turns == 0 and b'"history_mode":"paginated"' in made.rollout.read_bytes()
    assert blind or trial.turns == made.turns
    assert any("number of turns" in what for what in trial.not_checked) == blind


def with_an_active_goal(release: CodexRelease, home: CodexHome, model: MockModel) -> str:
    """A compacted thread whose goal was at work when the process was killed; a resume would go on with it."""
    home.make(model.url)
    with AppServer(release, home) as server:
        thread = compacted(server, model)
        server.set_goal(thread, objective=OBJECTIVE, status="active")
        model.wait_for_goal_turns(2)
        server.kill()
    return thread


@pytest.mark.parametrize("isolated", [True, False], ids=["isolated", "not isolated"])
@pytest.mark.parametrize("version", PINNED)
def test_a_goal_thread_of_each_release_resumes_on_trial_in_each_release(
    version: str,
    isolated: bool,
    codex: Codex,
    home: CodexHome,
    model: MockModel,
    attempt: Try,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if isolated and not children.network_free_prefix():
        cannot_be_had("this machine gives no network namespaces")
    if not isolated:
        monkeypatch.setattr(children, "network_free_prefix", list)
    made = checkpoint_of(home, with_an_active_goal(codex(version), home, model), tmp_path / "checkpoint")
    before, asked, copies = contents(home.path), len(model.requests), contents(made.rollout.parent)
    for runtime in PINNED:
        trial = attempt(codex(runtime), made)
        assert trial.outcome is TrialOutcome.PASSED, (runtime, trial, trial.runtime_words)
        assert (trial.runtime_version, trial.isolated) == (runtime, isolated)
        assert 0 < (trial.seconds or 0) < LIMIT
        assert (trial.peak_memory_bytes or 0) > 10_000_000
        check_turns(made, runtime, trial)
        goal = (trial.goal_status, trial.objective_matches)
        assert goal == ((None, None) if "0.128.0" in (version, runtime) else ("paused", True))
        assert ("the goal" in " ".join(trial.not_checked)) == ("0.128.0" in (version, runtime))
        assert OBJECTIVE not in repr(trial)
    assert contents(home.path) == before
    assert contents(made.rollout.parent) == copies
    assert len(model.requests) == asked


@pytest.mark.parametrize("provider", ["openai", "ollama", "a provider.of [mine]"])
@pytest.mark.parametrize("version", PINNED)
def test_the_provider_of_the_thread_need_not_be_reachable(
    version: str, provider: str, codex: Codex, shelf: Shelf, home: CodexHome, attempt: Try, tmp_path: Path
) -> None:
    made = checkpoint_of(home, shelf.put_back(home, version, "compacted").thread_id, tmp_path / "checkpoint")
    first, rest = made.rollout.read_bytes().split(b"\n", 1)
    meta = json.loads(first)
    meta["payload"]["model_provider"] = provider
    made.rollout.write_bytes(json.dumps(meta).encode() + b"\n" + rest)
    trial = attempt(codex(version), made)
    assert trial.outcome is TrialOutcome.PASSED, (trial, trial.runtime_words)


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("0.134.0", "rolled-back"),
        ("0.147.0", "rolled-back-across"),
        ("0.147.0", "compacted-automatically"),
        ("0.169.0", "forked"),
        ("0.169.0", "reverted"),
        ("0.169.0", "compacted-legacy"),
        ("0.169.0", "with-images"),
    ],
)
def test_every_release_shows_the_same_turns(
    version: str, kind: str, codex: Codex, shelf: Shelf, home: CodexHome, attempt: Try, tmp_path: Path
) -> None:
    made = checkpoint_of(home, shelf.put_back(home, version, kind).thread_id, tmp_path / "checkpoint")
    for runtime in PINNED:
        trial = attempt(codex(runtime), made)
        assert trial.outcome is TrialOutcome.PASSED, (runtime, trial, trial.runtime_words)
        check_turns(made, runtime, trial)


def test_a_file_that_codex_cannot_open_does_not_pass(
    codex: Codex, shelf: Shelf, home: CodexHome, attempt: Try, tmp_path: Path
) -> None:
    made = checkpoint_of(home, shelf.put_back(home, "0.134.0", "compacted").thread_id, tmp_path / "checkpoint")
    with made.rollout.open("ab") as file:
        file.write(b'{"timestamp":"2026-11-22T11:14:58.914Z","type":"event_msg","payload":"\xff"}\n')
    trial = attempt(codex("0.134.0"), made)
    assert trial.outcome is TrialOutcome.FAILED
    assert "UTF-8" in str(trial.runtime_words)
    assert str(trial.reason).startswith("Codex refused thread/resume")


@pytest.mark.parametrize("version", PINNED)
def test_even_a_turn_that_is_started_there_reaches_nobody(
    version: str, codex: Codex, shelf: Shelf, home: CodexHome, model: MockModel, tmp_path: Path
) -> None:
    """With its network and with a turn asked for: the scratch home alone keeps it from the model of the thread."""
    made = checkpoint_of(home, shelf.put_back(home, version, "compacted").thread_id, tmp_path / "checkpoint")
    home.point_at(model.url)
    folder = tmp_path / "by-hand"
    folder.mkdir(mode=0o700)
    program: CodexBinary = codex_binary(codex(version).binary)
    place = make_scratch_home(folder, made.rollout, dead_port=9, goals=False)
    with (
        Child([str(program.path), "app-server"], env=place.environment, cwd=place.work) as child,
        Client.on_pipes(child.stdin, child.stdout, Deadline(LIMIT)) as server,
    ):
        server.thread_resume(made.thread_id, place.work, Deadline(LIMIT), seconds=LIMIT)
        words = [{"type": "text", "text": "hello", "text_elements": []}]
        server.call("turn/start", {"threadId": made.thread_id, "input": words}, Deadline(LIMIT))
        deadline = Deadline(LIMIT)
        # 0.169 then waits for a network; the older ones give the turn up.
        while not any(note.method == "error" for note in server.notifications):
            deadline.check("waiting for the turn to fail")
            server.listen(0.05)
        assert any(note.method == "turn/started" for note in server.notifications)
    assert model.requests == []


@pytest.mark.parametrize("version", PINNED)
def test_a_trial_needs_nothing_of_the_environment(
    version: str,
    codex: Codex,
    shelf: Shelf,
    home: CodexHome,
    attempt: Try,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = checkpoint_of(home, shelf.put_back(home, version, "compacted").thread_id, tmp_path / "checkpoint")
    before = contents(home.path)
    for name in list(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.setenv("CODEX_HOME", str(home.path))
    monkeypatch.setenv("CODEX_SQLITE_HOME", str(home.path))
    assert attempt(codex(version), made).outcome is TrialOutcome.PASSED
    assert contents(home.path) == before
