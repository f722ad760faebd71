"""One line of 50 MB costs a run its own length once or twice, whatever it is and wherever it stands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from preflight.codex.sample_rollout import RolloutWriter, rollout_path
from preflight.model import HistoryBase
from tests.troubled_home import OBJECTIVE, PATIENT, ROOT, TroubledHome, make_troubled_home

LINE_BYTES = 50_000_000
NOW = b'{"timestamp":"2026-05-30T09:05:00.000Z",'

#: What stands before and behind the filling, and the filling: 5 bytes that are repeated.
LINES: Mapping[str, tuple[bytes, bytes, bytes]] = {
    "a command's output": (
        b'"type":"response_item","payload":{"type":"function_call_output","call_id":"c","output":"',
        b'"}}\n',
        b"ab\\nc",
    ),
    "a person's message with an image": (
        b'"type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_image","image_url":"',
        b'"}]}}\n',
        b"iVBOR",
    ),
    "text with more than one byte a letter": (
        b'"type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"',
        b'"}]}}\n',
        "été".encode(),
    ),
    "a compaction": (
        b'"type":"compacted","payload":{"message":"m","replacement_history":[{"type":"message","role":"user","content":"',
        b'"}]}}\n',
        b'a\\"[b',
    ),
    "NULs": (b"", b"\n", bytes(5)),
    "brackets": (b'"type":"world_state","payload":[', b"1]}\n", b"[[]],"),
    "a torn line": (b'"type":"event_msg","payload":{"type":"agent_message","message":"', b"", b"abcde"),
}

#: How a run ends with each of them.
CODES = dict.fromkeys(LINES, 0) | {"NULs": 3, "a torn line": 3}

PEAK = """
import sys
from preflight.cli import main
code = main(sys.argv[1:])
with open("/proc/self/status") as status:
    (peak,) = [line.split()[1] for line in status if line.startswith("VmHWM")]
sys.stderr.write(f"{code} {peak}\\n")
"""


def long_line(kind: str, size: int) -> Iterator[bytes]:
    before, behind, filling = LINES[kind]
    yield NOW if before else b""
    yield before
    block = filling * 20_000
    for _ in range(size // len(block)):
        yield block
    yield filling
    yield behind


def home_with_a_long_line(folder: Path, kind: str, size: int, *, paginated: bool = False) -> TroubledHome:
    def patient(writer: RolloutWriter) -> None:
        writer.turn("This one is long.", outputs=[300], end="open")
        for part in long_line(kind, size):
            writer.raw(part)
        if kind != "a torn line":
            writer.event("task_complete", turn_id=None)
            writer.goal_turn(OBJECTIVE, outputs=[300])

    return make_troubled_home(folder, patient, paginated=paginated)


def peak_of_a_run(home: TroubledHome, *words: str) -> tuple[int, int]:
    """Exit code of a run and the most memory that its process ever held, in bytes."""
    command = [sys.executable, "-c", PEAK, *words, "--json", "--home", home.path, "--store", home.store]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PATH": "/nowhere"})
    code, peak = ended.stderr.split()
    return int(code), int(peak) * 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("kind", LINES)
def test_the_peak_grows_by_no_more_than_twice_a_line_of_50_mb(tmp_path: Path, kind: str) -> None:
    small = home_with_a_long_line(tmp_path / "small", kind, 1_000)
    large = home_with_a_long_line(tmp_path / "large", kind, LINE_BYTES)
    assert large.rollouts[PATIENT].stat().st_size > 0.9 * LINE_BYTES
    for verb in ("check", "run"):
        code, base = peak_of_a_run(small, verb)
        same, peak = peak_of_a_run(large, verb)
        assert same == code
        assert code == (3 if verb == "check" else CODES[kind])
        assert peak - base < 2.2 * LINE_BYTES, f"{verb}: {base:,} bytes without the line, {peak:,} with it"


def fork_with_a_long_line(folder: Path, size: int) -> TroubledHome:
    """A thread that goes on from another file: its resume rollout has ordinals of its own, line by line."""
    base_id = "01a2036d-0000-7000-8000-0000000000ba"
    home = make_troubled_home(folder, paginated=True)
    base = rollout_path(home.path, base_id)
    with RolloutWriter(base, base_id, paginated=True) as writer:
        writer.turn("This is where it comes from.", outputs=[300])
        writer.compaction()
        writer.turn("And from here.", outputs=[300])
    cut = HistoryBase(file_id=base_id, end_ordinal_exclusive=writer.next_ordinal, end_byte_offset=base.stat().st_size)
    home.rollouts[PATIENT].unlink()
    with RolloutWriter(home.rollouts[PATIENT], PATIENT, paginated=True, base=cut) as writer:
        writer.turn("This one is long.", outputs=[size])
    return home


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_counting_ordinals_anew_holds_no_more_than_that_line_either(tmp_path: Path) -> None:
    small, large = (fork_with_a_long_line(tmp_path / str(size), size) for size in (1_000, LINE_BYTES))
    # Compressing has memory of its own, which grows with a file of this length up to what its window needs.
    code, base = peak_of_a_run(small, "run", "--archive", "never")
    same, peak = peak_of_a_run(large, "run", "--archive", "never")
    assert (code, same) == (0, 0)
    assert peak - base < 2.2 * LINE_BYTES, f"{base:,} bytes without the line, {peak:,} with it"
