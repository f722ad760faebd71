"""Exit codes are a promise to updaters: each has one meaning, one word, and a line in the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from preflight import cli, errors
from preflight.errors import PreflightError
from preflight.report import EXIT_WORDS

README = Path(__file__).resolve().parents[2] / "README.md"

#: Design, section 5.2: what an updater relies on.
CODES = {
    0: "proceed", 1: "internal error", 2: "usage", 3: "warn", 10: "block", 11: "locked", 12: "unverified",
    13: "unsupported", 75: "try later",
}  # fmt: skip


def every_error() -> list[type[PreflightError]]:
    return [getattr(errors, name) for name in errors.__all__]


def test_the_codes_are_those_of_the_design() -> None:
    assert EXIT_WORDS == CODES


def test_every_error_has_a_word_of_its_own_and_a_code_of_the_table() -> None:
    words = [error.code for error in every_error()]
    assert len(set(words)) == len(words)
    assert {error.exit_code for error in every_error()} <= CODES.keys() - {0, 3, 10}


def test_no_error_ends_like_a_verdict_or_like_an_unrelated_error() -> None:
    # One code, one branch of the tree: whoever handles the parent handles every child.
    branches: dict[int, set[type]] = {}
    for error in every_error():
        below = [kind for kind in error.__mro__ if kind is not PreflightError and issubclass(kind, PreflightError)]
        if error.exit_code != PreflightError.exit_code:
            branches.setdefault(error.exit_code, set()).add(below[-1])
    assert {code: len(kinds) for code, kinds in branches.items()} == dict.fromkeys(branches, 1)


def test_every_error_is_exported() -> None:
    defined = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, PreflightError)
    }
    assert defined == set(errors.__all__)


@pytest.mark.parametrize("code", CODES)
def test_the_readme_has_a_line_for_every_code(code: int) -> None:
    assert re.search(rf"^\|\s*`?{code}\b.*\|.*\w.*\|", README.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("verb", [verb for section in cli.VERBS.values() for verb in section])
def test_the_readme_shows_every_verb(verb: str) -> None:
    assert f"preflight {verb}" in README.read_text(encoding="utf-8")
