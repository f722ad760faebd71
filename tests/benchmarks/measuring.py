"""How things are measured: paired runs, whole processes by what the kernel counted, cold files on request.

Of two programs that are compared neither is run first for all its turns: each round runs every one of
them once (A B A B), so that what else the machine does meanwhile meets all of them. A ratio is the
median of the rounds' ratios, for the same reason.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Contender", "Launcher", "Measured", "Process", "Sample", "WrongStatusError", "forget", "here", "paired"]

_LIMIT_SECONDS = 300.0


class WrongStatusError(Exception):
    """A program that is compared ended with a status that says it has not done its work."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. `peak_bytes` only of whole processes; `answer` is what the run found, to be compared."""

    seconds: float
    peak_bytes: int | None = None
    answer: object = None


@dataclass(frozen=True, slots=True)
class Measured:
    """All runs of one contender, in the order of the rounds."""

    samples: tuple[Sample, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def seconds(self) -> tuple[float, ...]:
        return tuple(sample.seconds for sample in self.samples)

    @property
    def peak_bytes(self) -> int | None:
        """The most that any run needed."""
        peaks = [sample.peak_bytes for sample in self.samples if sample.peak_bytes is not None]
        return max(peaks, default=None)

    @property
    def answers(self) -> tuple[object, ...]:
        return tuple(sample.answer for sample in self.samples)

    def times(self, other: Measured) -> float:
        """How many times as long as the other: the median of the rounds' ratios."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))


@dataclass(frozen=True, slots=True)
class Contender:
    """What takes part in a comparison: `run` is measured, `prepare` comes before each run and is not."""

    run: Callable[[], Sample]
    prepare: Callable[[], object] = lambda: None


def paired(contenders: Mapping[str, Contender], rounds: int, *, warm_up: bool = True) -> dict[str, Measured]:
    """Each contender once a round; one round more before them, which does not count, where caches are to be warm."""
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    for number in range(-1 if warm_up else 0, rounds):
        for name, contender in contenders.items():
            contender.prepare()
            sample = contender.run()
            if number >= 0:
                samples[name].append(sample)
    return {name: Measured(tuple(taken)) for name, taken in samples.items()}


def here(work: Callable[[], object]) -> Sample:
    """Run it in this process; its answer is what it returns."""
    began = time.perf_counter()
    answer = work()
    return Sample(time.perf_counter() - began, answer=answer)


def forget(*paths: Path) -> None:
    """Take files, which must be on the disk already, out of the system's memory: the next reading is cold."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A program to be run as a whole process. `statuses` are those that mean that it did its work.

    `offset` is where its stdin, `stdin`, is to begin. What it prints goes to `output`, else nowhere.
    """

    argv: Sequence[str | Path]
    environment: Mapping[str, str]
    folder: Path
    statuses: frozenset[int] = frozenset({0})
    stdin: Path = Path(os.devnull)
    offset: int = 0
    output: Path | None = None


class Launcher:
    """Runs whole processes through `launcher.py`; a context manager. `folder` is for what they say on stderr."""

    def __init__(self, folder: Path) -> None:
        self._words = folder / "stderr"

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", Path(__file__).with_name("launcher.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child.stdin is not None:
            self._child.stdin.close()
        self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()

    def run(self, process: Process) -> Sample:
        """Run it to its end; the answer is its exit status. Raises WrongStatusError, also after five minutes."""
        argv = [str(word) for word in process.argv]
        request = {
            "argv": argv,
            "environment": dict(process.environment),
            "folder": str(process.folder),
            "stdin": str(process.stdin),
            "offset": process.offset,
            "stdout": str(process.output or os.devnull),
            "stderr": str(self._words),
            "limit": _LIMIT_SECONDS,
        }
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(request) + "\n")
        self._child.stdin.flush()
        done = json.loads(self._child.stdout.readline())
        if done["status"] not in process.statuses:
            said = [self._words, *([process.output] if process.output is not None else [])]
            words = "".join(path.read_text(errors="replace")[-1000:] for path in said)
            raise WrongStatusError(f"{argv[:3]} ended with status {done['status']}: {words}")
        return Sample(done["seconds"], done["peak_bytes"], done["status"])

    def contender(self, process: Process, prepare: Callable[[], object] = lambda: None) -> Contender:
        return Contender(lambda: self.run(process), prepare)
