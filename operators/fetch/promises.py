"""The smallest event loop that can drive libcurl: promises, flows that wait for them, timers and sockets, one thread.

A flow is a generator that yields promises and is resumed with what each came to. asyncio would do as well, and costs
more CPU for a request than libcurl itself does, which is what bounds a downloader of small files.
Everything here belongs to the loop's own thread, except `call()`, which any thread may use.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_LONGEST_WAIT_S = 60.0


class Promise(Generic[T]):
    """A value, or an error, that is known sooner or later; the first that is given counts."""

    __slots__ = ("_loop", "_then", "error", "is_done", "value")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._then: list[Callable[[Promise[T]], None]] = []
        self.is_done = False
        self.value: T | None = None
        self.error: Exception | None = None

    def fulfil(self, value: T) -> None:
        """Make the value known."""
        self._settle(value, None)

    def fail(self, error: Exception) -> None:
        """Make known why there is no value."""
        self._settle(None, error)

    def then(self, callback: Callable[[Promise[T]], None]) -> None:
        """Have a function called with this promise, soon after it is done."""
        if self.is_done:
            self._loop.soon(callback, self)
        else:
            self._then.append(callback)

    def _settle(self, value: T | None, error: Exception | None) -> None:
        if self.is_done:
            return
        self.is_done, self.value, self.error = True, value, error
        for callback in self._then:
            self._loop.soon(callback, self)
        self._then = []


Flow = Generator[Promise[Any], Any, T]
"""Yields promises; is sent their values, or thrown their errors; returns its own result."""


class Loop:
    """Runs callbacks, timers and socket events in the thread that calls run()."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._ready: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._timers: list[tuple[float, int, Promise[None]]] = []
        self._count = itertools.count()
        self._calls: deque[Callable[[], None]] = deque()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._is_woken = False
        self._is_ending = False
        self.watch(self._wake_out.fileno(), selectors.EVENT_READ, self._on_wake)

    def call(self, function: Callable[[], None]) -> None:
        """Have a function called in the loop's thread; from any thread."""
        self._calls.append(function)
        self._wake()

    def soon(self, function: Callable[[Any], None], argument: Any) -> None:
        """Call a function once what runs now has returned: nothing ever runs inside something else."""
        self._ready.append((function, argument))

    def after(self, wait_s: float) -> Promise[None]:
        """A promise that is kept in so many seconds."""
        promise: Promise[None] = Promise(self)
        heapq.heappush(self._timers, (time.monotonic() + wait_s, next(self._count), promise))
        return promise

    def start(self, flow: Flow[T]) -> Promise[T]:
        """Begin a flow; the promise is its result."""
        promise: Promise[T] = Promise(self)
        self._advance(flow, promise, None)
        return promise

    def watch(self, fd: int, events: int, callback: Callable[[int, int], None]) -> None:
        """Call a function with a file descriptor and its events whenever some of `events` occur."""
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, callback)
        else:
            self._selector.register(fd, events, callback)

    def unwatch(self, fd: int) -> None:
        """End a watch; one that is not there is none."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def run(self) -> None:
        """Work until end() is called."""
        while not self._is_ending:
            self._run_ready()
            for key, events in self._selector.select(self._wait_s()):
                key.data(key.fd, events)
            self._run_timers()

    def end(self) -> None:
        """Have run() return after the present round."""
        self._is_ending = True

    def close(self) -> None:
        """Let the file descriptors go."""
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _advance(self, flow: Flow[T], promise: Promise[T], waited: Promise[Any] | None) -> None:
        """Resume a flow until it waits for something that is not known yet."""
        try:
            while waited is None or waited.is_done:
                if waited is not None and waited.error is not None:
                    waited = flow.throw(waited.error)
                else:
                    waited = flow.send(None if waited is None else waited.value)
        except StopIteration as stopped:
            promise.fulfil(stopped.value)
        except Exception as error:  # noqa: BLE001 - whoever waits for the flow is told
            promise.fail(error)
        else:
            waited.then(lambda done: self._advance(flow, promise, done))

    def _run_ready(self) -> None:
        while self._ready:
            function, argument = self._ready.popleft()
            function(argument)

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2].fulfil(None)

    def _wait_s(self) -> float:
        if not self._timers:
            return _LONGEST_WAIT_S
        return min(_LONGEST_WAIT_S, max(0.0, self._timers[0][0] - time.monotonic()))

    def _on_wake(self, fd: int, events: int) -> None:
        """Make one call; others wait for a round of events, so that a rush of them makes no server look silent."""
        self._wake_out.recv(4096)
        self._is_woken = False
        if self._calls:
            self._calls.popleft()()
        if self._calls:
            self._wake()

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            with contextlib.suppress(OSError):  # a loop that has ended: nobody waits for what it was to do
                self._wake_in.send(b"!")
