"""Work that blocks (a resolver, a file system's library), done in threads that nobody ever waits for.

A pool of the standard library is joined when the interpreter ends, so that one lookup that hangs would hold the whole
run. These threads are daemons: who gave up waiting for one leaves it behind.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from corpusmith.operators.fetch.promises import Loop, Promise

T = TypeVar("T")


class _Work:
    """One call, and how far it is."""

    def __init__(self, function: Callable[[], Any], promise: Promise[Any]) -> None:
        self.function = function
        self.promise = promise
        self.is_running = False
        self.is_given_up = False


class BlockingPool:
    """At most so many threads, begun when work needs them; those that hang in work that was given up do not count."""

    def __init__(self, loop: Loop, threads: int, name: str) -> None:
        self._loop = loop
        self._most = threads
        self._name = name
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._threads = 0
        self._open = 0

    def run(self, function: Callable[[], T], timeout_s: float, late: Exception) -> Promise[T]:
        """The promise of a function's result; it fails with `late` after `timeout_s`, whatever the thread then does."""
        promise: Promise[T] = Promise(self._loop)
        work = _Work(function, promise)
        self._open += 1
        self._loop.after(timeout_s).then(lambda _: self._give_up(work, late))
        self._work.put(work)
        self._fill()
        return promise

    def close(self) -> None:
        """Have idle threads end; busy ones end with their work."""
        for _ in range(self._threads):
            self._work.put(None)

    def _fill(self) -> None:
        if self._threads < min(self._open, self._most):
            self._threads += 1
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()

    def _give_up(self, work: _Work, late: Exception) -> None:
        if work.promise.is_done:
            return
        self._open -= 1
        work.promise.fail(late)
        if work.is_running:
            work.is_given_up = True
            self._threads -= 1
            self._fill()

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            if work.promise.is_done:
                continue
            work.is_running = True
            try:
                settle = partial(work.promise.fulfil, work.function())
            except Exception as error:  # noqa: BLE001 - whoever waits is told
                settle = partial(work.promise.fail, error)
            if work.is_given_up:
                return
            self._loop.call(partial(self._end, work, settle))

    def _end(self, work: _Work, settle: Callable[[], None]) -> None:
        if not work.promise.is_done:
            self._open -= 1
            settle()
