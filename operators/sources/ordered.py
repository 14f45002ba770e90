"""Many iterators at work side by side, their items in the order of the iterators.

Files of an input are read in threads (decoders, digests and networks leave the others room), and still every run sees
the same rows in the same order. Each iterator is at most a few items ahead, which bounds what is held.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Full, Queue
from typing import Generic, TypeVar

T = TypeVar("T")

_ITEMS_AHEAD = 2
_LOOK_UP_S = 0.05
"""How often an iterator that is ahead looks whether its items are still wanted."""


class _Pump(Generic[T]):
    """One iterator in its thread."""

    def __init__(self, start: Callable[[], Iterable[T]], stopped: threading.Event) -> None:
        self._start = start
        self._stopped = stopped
        self._queue: Queue[list[T]] = Queue(_ITEMS_AHEAD)
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            for item in self._start():
                if not self._put([item]):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again where the items are taken
            self._error = error
        self._put([])

    def _put(self, item: list[T]) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=_LOOK_UP_S)
            except Full:
                continue
            return True
        return False

    def items(self) -> Iterator[T]:
        while item := self._queue.get():
            yield item[0]
        if self._error is not None:
            raise self._error


def in_order(starts: Sequence[Callable[[], Iterable[T]]], at_once: int) -> Iterator[T]:
    """The items of iterators, one iterator after the other, while the next ones already work.

    Args:
        starts: what makes each iterator; called, and the iterator driven, in a thread.
        at_once: threads.

    Raises:
        Exception: what an iterator raises, when its turn comes.
    """
    if len(starts) == 1:
        yield from starts[0]()
        return
    stopped = threading.Event()
    waiting = iter(starts)
    running: deque[_Pump[T]] = deque()
    with ThreadPoolExecutor(at_once, thread_name_prefix="input") as pool:

        def begin() -> None:
            start = next(waiting, None)
            if start is not None:
                running.append(_Pump(start, stopped))
                pool.submit(running[-1].run)

        try:
            for _ in range(at_once):
                begin()
            while running:
                yield from running.popleft().items()
                begin()
        finally:
            stopped.set()
