"""Calls that are made beside the caller's own work, in a thread of their own and in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

__all__ = ["Beside"]


class Beside:
    """At most `ahead` calls are not done yet; who gives one more waits. A context manager.

    What a call raises is raised by a later `give`, or when the block ends, which waits for all of them; calls
    that were given before it was raised may still be made. A block that fails makes no more calls.
    """

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self._pool = ThreadPoolExecutor(1)
        self._given: deque[Future[object]] = deque()

    def give(self, call: Callable[..., object], *arguments: object) -> None:
        while len(self._given) >= self._ahead:
            self._given.popleft().result()
        self._given.append(self._pool.submit(call, *arguments))

    def finish(self) -> None:
        """Wait for all of them and let the thread go; raises what a call has raised."""
        self._end(given_up=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(given_up=error is not None)

    def _end(self, *, given_up: bool) -> None:
        try:
            while not given_up and self._given:
                self._given.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)
