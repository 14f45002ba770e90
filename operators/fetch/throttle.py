"""A limit on the bytes that are received each second, over all requests of a worker.

A token bucket says whether a chunk may come in; a transfer whose chunk may not is paused, so that TCP slows its server
down, and goes on when it is its turn.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from corpusmith.operators.fetch.promises import Loop, Promise

_BURST_S = 0.25


class Pausable(Protocol):
    """A transfer that can wait."""

    is_paused: bool

    def resume(self, paused_s: float) -> None:
        """Go on."""
        ...


class Throttle:
    """Admits so many bytes a second, a quarter of a second's worth at once.

    Args:
        resumed: called after transfers were resumed, some of which may have ended by it.
    """

    def __init__(self, loop: Loop, bytes_per_s: float, resumed: Callable[[], None]) -> None:
        self._loop = loop
        self._rate = bytes_per_s
        self._resumed = resumed
        self._level = bytes_per_s * _BURST_S
        self._at_s = time.monotonic()
        self._paused: deque[tuple[Pausable, float]] = deque()
        self._is_resuming = False

    def admits(self, transfer: Pausable, size_bytes: int) -> bool:
        """Whether a chunk may be taken now; if not, the transfer is resumed later and offers it again.

        One chunk may make a debt, which is waited for. Those that wait already come first.
        """
        if self._is_open() and (self._is_resuming or not self._paused):
            self._level -= size_bytes
            return True
        self._paused.append((transfer, time.monotonic()))
        if len(self._paused) == 1 and not self._is_resuming:
            self._wait()
        return False

    def _is_open(self) -> bool:
        now = time.monotonic()
        self._level = min(self._rate * _BURST_S, self._level + (now - self._at_s) * self._rate)
        self._at_s = now
        return self._level > 0

    def _wait(self) -> None:
        self._loop.after(max(0.001, (1 - self._level) / self._rate)).then(self._go_on)

    def _go_on(self, _: Promise[None]) -> None:
        self._is_resuming = True
        while self._paused and self._is_open():
            transfer, since_s = self._paused.popleft()
            if transfer.is_paused:
                transfer.resume(time.monotonic() - since_s)
        self._is_resuming = False
        if self._paused:
            self._wait()
        self._resumed()
