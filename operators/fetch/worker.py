"""The thread in which a worker's downloads run, and how rows go in and come out.

Rows of all batches share one window, so that a slow server delays nobody else. Results leave in lists, because each
hand-over between threads costs more than a small download does. Where the next step is slower than the network, bodies
pile up; above a bound no request begins until some have been taken.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from corpusmith.operators.fetch.config import DownloadConfig
from corpusmith.operators.fetch.fetching import Fetcher
from corpusmith.operators.fetch.promises import Loop, Promise
from corpusmith.operators.fetch.results import Downloaded
from corpusmith.schemas.fates import RowError

_PART_ROWS = 64
_PART_BYTES = 2 << 20
_PART_WAIT_S = 0.25
_END_WAIT_S = 10.0

Outcome = tuple[int, Downloaded | RowError]
"""Position of a row in its batch, and what came of it."""


class _Batch:
    """Rows of one batch on their way; the loop's thread puts lists of outcomes, the caller's takes them.

    Args:
        count_bytes: is told of bodies that come to wait, and, as less than nothing, of those that were taken.
    """

    def __init__(self, loop: Loop, rows: int, count_bytes: Callable[[int], None]) -> None:
        self._loop = loop
        self._count_bytes = count_bytes
        self.open_rows = set(range(rows))
        self._ready: list[Outcome] = []
        self._ready_bytes = 0
        self._waiting_bytes = 0
        self._is_abandoned = False
        self.lists: queue.SimpleQueue[tuple[list[Outcome], int]] = queue.SimpleQueue()

    def finish(self, position: int, promise: Promise[Downloaded]) -> None:
        """Take a row's outcome."""
        if position not in self.open_rows or self._is_abandoned:
            return
        self.open_rows.remove(position)
        error = promise.error and RowError.of(promise.error)
        self._ready.append((position, error or promise.value or RowError("cancelled", "no download")))
        self._ready_bytes += len(promise.value.body) if promise.value else 0
        if len(self._ready) >= _PART_ROWS or self._ready_bytes >= _PART_BYTES or not self.open_rows:
            self._hand_over(None)
        elif len(self._ready) == 1:
            self._loop.after(_PART_WAIT_S).then(self._hand_over)

    def cancel(self, error: RowError) -> None:
        """End all rows that are open."""
        self._ready += [(position, error) for position in sorted(self.open_rows)]
        self.open_rows.clear()
        self._hand_over(None)

    def take(self, size_bytes: int) -> None:
        """Bodies of so many bytes have been taken."""
        self._waiting_bytes -= size_bytes
        self._count_bytes(-size_bytes)

    def abandon(self) -> None:
        """Nobody will take what is left."""
        self._is_abandoned = True
        self.take(self._waiting_bytes)

    def _hand_over(self, _: object) -> None:
        if self._ready:
            self._waiting_bytes += self._ready_bytes
            self._count_bytes(self._ready_bytes)
            self.lists.put((self._ready, self._ready_bytes))
            self._ready, self._ready_bytes = [], 0


class DownloadWorker:
    """A thread with a loop and a fetcher.

    Args:
        share: see Fetcher.
    """

    def __init__(self, config: DownloadConfig, share: float) -> None:
        self._loop = Loop()
        self._fetcher = Fetcher(self._loop, config, share)
        self._batches: set[_Batch] = set()
        self._waiting_max_bytes = config.waiting_max_bytes
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._ended: RowError | None = None
        self._thread = threading.Thread(target=self._run, name="download", daemon=True)
        self._thread.start()

    def download(self, urls: Sequence[str | None]) -> Iterator[list[Outcome]]:
        """Download URLs; lists of outcomes as they become ready, each position once."""
        batch = _Batch(self._loop, len(urls), self._count_bytes)
        with self._lock:
            if self._ended is None:
                self._batches.add(batch)
                self._loop.call(partial(self._begin, batch, urls))
            else:
                batch.cancel(self._ended)
        left = len(urls)
        try:
            while left:
                outcomes, size_bytes = batch.lists.get()
                self._call(partial(batch.take, size_bytes))
                left -= len(outcomes)
                yield outcomes
        finally:
            if left:
                self._call(batch.abandon)

    def close(self) -> None:
        """End all downloads; rows in flight fail as `cancelled`."""
        with self._lock:
            if self._ended is None:
                self._loop.call(self._loop.end)
        self._thread.join(_END_WAIT_S)

    def _call(self, function: Callable[[], None]) -> None:
        with self._lock:
            if self._ended is None:
                self._loop.call(function)

    def _count_bytes(self, change: int) -> None:
        """Hold requests back while too much waits; in the loop's thread."""
        if not change:
            return
        self._waiting_bytes += change
        self._fetcher.hold(self._waiting_bytes > self._waiting_max_bytes)

    def _begin(self, batch: _Batch, urls: Sequence[str | None]) -> None:
        for position, url in enumerate(urls):
            self._fetcher.fetch(url or "").then(partial(batch.finish, position))
        self._batches = {other for other in self._batches if other.open_rows}

    def _run(self) -> None:
        ended = RowError("cancelled", "the worker was closed")
        try:
            self._loop.run()
        except Exception as error:
            ended = RowError("download broke", f"{type(error).__name__}: {error}"[:300])
            raise
        finally:
            with self._lock:
                self._ended = ended
                for batch in self._batches:
                    batch.cancel(ended)
            self._fetcher.close()
            self._loop.close()
