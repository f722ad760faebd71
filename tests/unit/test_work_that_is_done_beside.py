"""Calls are made in another thread, in their order; who gives too many waits, and no error is lost."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from preflight.system.beside import Beside
from preflight.system.growing import growing


def test_calls_are_made_in_their_order_and_the_block_waits_for_them() -> None:
    made: list[tuple[int, int]] = []
    with Beside(ahead=3) as beside:
        for number in range(50):
            beside.give(lambda n: made.append((n, threading.get_ident())), number)
    assert [number for number, _ in made] == list(range(50))
    assert {thread for _, thread in made} != {threading.get_ident()}


def test_who_gives_too_many_waits_for_one_to_be_done() -> None:
    go_on, made = threading.Event(), []
    with Beside(ahead=2) as beside:
        beside.give(go_on.wait)
        beside.give(made.append, 1)
        assert made == []
        go_on.set()
        beside.give(made.append, 2)
    assert made == [1, 2]


@pytest.mark.parametrize("given_after", [0, 5])
def test_an_error_is_raised_by_a_later_call_or_at_the_end(given_after: int) -> None:
    def fail() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"), Beside(ahead=1) as beside:
        beside.give(fail)
        for _ in range(given_after):
            beside.give(int)


def test_a_block_that_fails_waits_for_the_call_that_is_being_made_and_makes_no_others() -> None:
    begun, go_on, made = threading.Event(), threading.Event(), []

    def slow() -> None:
        begun.set()
        go_on.wait()
        made.append("slow")

    with pytest.raises(KeyError), Beside(ahead=9) as beside:
        beside.give(slow)
        for number in range(5):
            beside.give(made.append, number)
        begun.wait()
        threading.Timer(0.05, go_on.set).start()
        raise KeyError
    assert made == ["slow"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked to write out early")
def test_a_file_that_grows_is_written_out_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, start, length, __: asked.append((start, length)))
    block = os.urandom(5 << 20)
    path = tmp_path / "file"
    path.write_bytes(b"kept")
    with growing(path, keep=4) as write:
        for _ in range(15):
            write(block)
    assert path.read_bytes() == b"kept" + 15 * block
    assert asked == [(4, 35 << 20), (4 + (35 << 20), 35 << 20)]
