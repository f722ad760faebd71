"""A call that cannot be understood ends with 2, one sentence, a suggestion, and nothing done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Preflight = Callable[..., CompletedProcess[str]]

WRONG = [
    (["chek"], "there is no verb 'chek'. Did you mean 'check'?", "preflight --help", None),
    (["resume_goals"], "Did you mean 'resume-goals'?", "preflight --help", None),
    ([], "no verb was given; the verbs are check, run", "preflight --help", None),
    (["check", "--targetversion", "1"], "Did you mean '--target-version'?", "preflight check --help", "check"),
    (["run", "--wait", "soon"], "--wait is 'soon': expected a duration", None, "run"),
    (["run", "--timeout", "0"], "--timeout is '0': expected a duration above zero", None, "run"),
    (["run", "--reason", "two words"], "expected one word", "preflight run --help", "run"),
    (["check", "--home", ""], "the path is empty", "preflight check --help", "check"),
    (["check", "--store", ""], "--store is ''", None, "check"),
    (["check", "--config", "/nowhere.toml"], "there is no configuration file /nowhere.toml", None, "check"),
    (["check", "surplus"], "unexpected extra argument", "preflight check --help", "check"),
    (["config"], "Missing command.", "preflight config --help", "config"),
    (["--colour", "check"], "Did you mean '--color'?", "preflight --help", None),
]


@pytest.mark.parametrize(("words", "sentence", "hint", "verb"), WRONG, ids=lambda value: " ".join(value or ["-"]))
def test_for_people(preflight: Preflight, words: list[str], sentence: str, hint: str | None, verb: str | None) -> None:
    done = preflight(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("USAGE: ")
    assert sentence in " ".join(done.stderr.split())
    assert hint is None or f"next: {hint}\n" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("words", "sentence", "hint", "verb"), WRONG, ids=lambda value: " ".join(value or ["-"]))
def test_for_programs(
    preflight: Preflight, words: list[str], sentence: str, hint: str | None, verb: str | None
) -> None:
    done = preflight(*words, "--json")
    assert (done.returncode, done.stderr) == (2, "")
    envelope = json.loads(done.stdout)
    (error,) = envelope["errors"]
    assert sentence in error["message"]
    assert hint is None or error["hint"] == hint
    assert (envelope["command"], envelope["exit_code"]) == (verb, 2)
    # A program that reads nothing but the verdict must not take a failure of the gate for a yes.
    assert envelope["verdict"] == (None if verb == "config" else "block")


def test_options_stand_before_or_behind_the_verb(preflight: Preflight, user: Path) -> None:
    file = user / "my.toml"
    file.write_text('wait = "7 s"', encoding="utf-8")
    answers = [
        preflight("--json", "--config", file, "config", "show"),
        preflight("config", "--config", file, "show", "--json"),
        preflight("config", "show", "--json", "--config", file),
    ]
    for done in answers:
        settings = {row["key"]: row for row in json.loads(done.stdout)["data"]["settings"]}
        assert (settings["wait"]["value"], settings["wait"]["origin"]) == (7, str(file))


def test_of_two_places_the_one_behind_the_verb_counts(preflight: Preflight) -> None:
    done = preflight("--config", "/nowhere/a.toml", "config", "path", "--config", "/nowhere/b.toml", "--json")
    assert json.loads(done.stdout)["data"] == {"path": "/nowhere/b.toml", "exists": False}


def test_a_folder_may_begin_with_a_tilde(preflight: Preflight, user: Path) -> None:
    done = preflight("config", "path", "--config=~/my.toml", "--json")
    assert json.loads(done.stdout)["data"]["path"] == str(user / "my.toml")


def test_the_configuration_file_can_be_named_by_a_variable(
    preflight: Preflight, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFLIGHT_CONFIG", str(user / "my.toml"))
    assert json.loads(preflight("config", "path", "--json").stdout)["data"]["path"] == str(user / "my.toml")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["config", "show", "-h"]])
def test_help_and_version_go_to_stdout_and_fit_the_envelope(preflight: Preflight, words: list[str]) -> None:
    done = preflight(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    envelope = json.loads(preflight(*words, "--json").stdout)
    assert envelope["data"] == {"text": done.stdout}


def test_shell_completion_offers_the_verbs(preflight: Preflight, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "_PREFLIGHT_COMPLETE": "bash_complete",
        "COMP_WORDS": "preflight re",
        "COMP_CWORD": "1",
    }.items():
        monkeypatch.setenv(name, value)
    done = preflight()
    assert (done.returncode, done.stdout, done.stderr) == (0, "plain,resume-goals\nplain,restore\n", "")
