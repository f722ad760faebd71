"""A test that needs what the machine has not: skipped for a person, failed where everything must be tested."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def cannot_be_had(reason: str) -> NoReturn:
    """Skip the test that is running; with PREFLIGHT_REQUIRE_CODEX=1, which `.ci/run` sets, fail it."""
    if os.environ.get("PREFLIGHT_REQUIRE_CODEX") == "1":
        pytest.fail(f"needed to test everything: {reason}", pytrace=False)
    pytest.skip(reason)
