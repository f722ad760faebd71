"""Every verb on a home with real rollouts and databases: its keys in ``--json``, its sentences in text.

The keys of `data` are compared for equality like those of the envelope (test_json_keys.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from preflight.codex.sample_home import SampleHome, make_sample_home
from tests.contract.test_json_keys import DATA, ENVELOPE, FINDING, HOME, THREAD_KEYS

Preflight = Callable[..., CompletedProcess[str]]

KEYS = {
    "check": [*DATA, "verification"],
    "run": [*DATA, "verification"],
    "run --dry-run": [*DATA, "verification", "would_pause", "would_checkpoint"],
    "checkpoint --dry-run": ["would_checkpoint"],
    "checkpoint --if-changed": ["checkpointed", "checkpoint", "checkpoints", "verification", "pruned", "read_back"],
    "list": ["checkpoints"],
    "show": [
        "checkpoint_id", "created_at", "home", "made_by", "threads", "goals_kept", "size_bytes", "path",
        "target_version", "reason", "databases", "goals", "threads_held",
    ],
    "verify": ["checkpoint_id", "path", "files"],
    "verify --read-data-subset 1/7": ["checkpoint_id", "path", "files", "read_back"],
    "prune --dry-run": ["pruned", "dry_run"],
    "pin latest": ["checkpoint_id", "pinned", "changed"],
    "unpin latest": ["checkpoint_id", "pinned", "changed"],
    "resume-goals --dry-run": ["goals", "dry_run"],
    "finish": ["finished", "dry_run"],
    "config show": ["settings"],
    "config path": ["path", "exists"],
}  # fmt: skip


@dataclass
class Told:
    """What one verb answered, as text and as JSON."""

    code: int
    text: str
    data: dict
    envelope: dict


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SampleHome:
    return make_sample_home(tmp_path_factory.mktemp("sample") / "home", large_bytes=2_000_000)


@pytest.fixture
def told(preflight: Preflight, home: SampleHome, tmp_path: Path) -> Callable[[str], Told]:
    """Asks one verb of the home, in text and in JSON, with a store of this test."""

    def ask(call: str) -> Told:
        words = [*call.split(), "--home", home.path, "--store", tmp_path / "store"]
        text = preflight(*words)
        answer = preflight(*words, "--json")
        assert answer.stderr == ""
        envelope = json.loads(answer.stdout)
        assert list(envelope) == ENVELOPE
        assert (envelope["exit_code"], envelope["command"]) == (answer.returncode, call.split(maxsplit=1)[0])
        assert all(list(finding) == FINDING for finding in envelope["findings"])
        return Told(text.returncode, text.stdout, envelope["data"], envelope)

    return ask


def test_the_story_from_check_to_finish(told: Callable[[str], Told], home: SampleHome, tmp_path: Path) -> None:
    thread = home.large_thread_id
    answers: dict[str, Told] = {call: told(call) for call in KEYS if call not in ("finish", "resume-goals --dry-run")}

    checked = answers["check"]
    assert checked.code == 3
    assert checked.text.startswith("WARN: The update can be installed; read the findings first.")
    assert "WARN  goal-active" in checked.text
    assert list(checked.data["homes"][0]) == HOME
    assert all(list(one) == THREAD_KEYS for one in checked.data["threads"])
    assert checked.data["checkpoint"] is None

    ran = answers["run"]
    assert ran.code == 0
    assert ran.text.startswith("PROCEED: The update can be installed now.\n\n1 goal is paused by preflight.\n")
    # The second command must mean the same home and store as the first.
    assert f"after the update: preflight finish --home {home.path} --store {tmp_path / 'store'}\n" in ran.text
    assert ran.data["checkpoint"]["id"] in ran.envelope["data"]["checkpoint"]["path"]
    (goal,) = [one for one in ran.data["threads"] if one["thread_id"] == thread]
    assert goal["paused_by_us"] is True
    assert goal["checkpoint"]["fresh"] is True

    assert ran.data["checkpoint"]["id"] in answers["list"].text
    assert "checkpoint holds" in answers["show"].text
    assert answers["show"].text.startswith(f"Checkpoint {ran.data['checkpoint']['id']}\n")
    assert answers["verify"].code == 0
    assert answers["verify"].text.startswith("VERIFIED: ")
    assert "digests passed, structure passed, history passed" in " ".join(answers["verify"].text.split())

    dry = answers["resume-goals --dry-run"] = told("resume-goals --dry-run")
    assert f"goal of thread {thread}: paused by us; would be put back" in " ".join(dry.text.split())
    finished = answers["finish"] = told("finish")
    assert finished.code == 0
    assert f"goal of thread {thread}: put back" in finished.text
    assert told("resume-goals").text == "No goal is paused by preflight.\n"

    for call, answer in answers.items():
        assert list(answer.data) == KEYS[call], call
        assert home.goal.objective not in answer.text + json.dumps(answer.envelope), call
        for line in answer.text.splitlines():
            # Paths and commands keep their line, so that they can be copied; nothing else is longer than a screen.
            assert len(line) <= 80 or "/" in line, (call, line)


def test_an_objective_is_shown_when_it_is_asked_for(told: Callable[[str], Told], home: SampleHome) -> None:
    told("run")
    for call in ("check --show-text", "show --show-text"):
        answer = told(call)
        assert home.goal.objective in json.dumps(answer.envelope)
        assert home.goal.objective in answer.text
    told("resume-goals")


def test_a_checkpoint_that_was_damaged_does_not_verify(
    told: Callable[[str], Told], home: SampleHome, tmp_path: Path
) -> None:
    ran = told("run")
    (kept,) = Path(ran.data["checkpoint"]["path"]).glob("threads/*/*.jsonl")
    kept.chmod(0o600)
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    damaged = told("verify")
    assert damaged.code == 12
    assert damaged.text.startswith("UNVERIFIED: what was read back cannot be relied on.\n")
    assert damaged.envelope["findings"]
    told("resume-goals")


def test_without_a_checkpoint_the_next_step_is_said(told: Callable[[str], Told]) -> None:
    listed = told("list")
    assert (listed.code, listed.data) == (0, {"checkpoints": []})
    assert listed.text.startswith("There is no checkpoint yet.\nnext: preflight run")
