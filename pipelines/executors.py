"""Executors: who runs the units of a stream, and the shards at the end.

`InlineExecutor` uses threads of this process. `RayExecutor` runs the same worker in actor pools of Ray Data, on this
machine or on a cluster; it lives in its own module so that an inline run never imports Ray.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, Protocol, TypeVar

from corpusmith.pipelines.bind import Step
from corpusmith.pipelines.stream import StreamJob, StreamWorker
from corpusmith.pipelines.units import Unit

SO_FAR_EVERY_S = 1.0
WAITING_UNITS = 32
"""Units of a stream that waits on a network which one worker has in hand: each is held as long as its slowest row."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """Runs streams and independent tasks."""

    name: str

    @property
    def cpus(self) -> int:
        """Cores to work with."""
        ...

    def run_stream(self, job: StreamJob, units: Sequence[Unit]) -> Iterator[dict[str, Any]]:
        """Run units; yields each one's summary when it is done, and perhaps some before: how far it is."""
        ...

    def run_tasks(self, task: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Run independent tasks; yields results as they come."""
        ...

    def close(self) -> None:
        """Release workers."""
        ...


def waits(steps: Sequence[Step]) -> bool:
    """Whether some step mostly waits for others."""
    return any(s.operator.resources.waits for s in steps)


def available_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class InlineExecutor:
    """Threads of this process: for debuggers, tests and small jobs."""

    name = "inline"

    def __init__(self, cpus: int | None = None) -> None:
        self._cpus = cpus or available_cpus()

    @property
    def cpus(self) -> int:
        """See Executor."""
        return self._cpus

    def run_stream(self, job: StreamJob, units: Sequence[Unit]) -> Iterator[dict[str, Any]]:
        """See Executor."""
        worker = StreamWorker(job, job.segment.stream)
        threads = WAITING_UNITS * self.cpus if waits(job.segment.stream) else self.cpus
        try:
            yield from _in_threads(worker.run, units, threads, worker.so_far)
        finally:
            worker.close()

    def run_tasks(self, task: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """See Executor."""
        return _in_threads(task, items, self.cpus)

    def close(self) -> None:
        """Nothing is held between streams."""


def _in_threads(
    task: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    so_far: Callable[[], Iterable[Result]] = tuple,
) -> Iterator[Result]:
    """Run tasks, few ahead of their turn; the first error stops the rest.

    Args:
        task: what to do with an item.
        items: what to do it with.
        threads: tasks at once.
        so_far: asked every second, for what else to yield.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="corpusmith")
    running: set[Future[Result]] = set()
    waiting = iter(items)
    asked = time.monotonic()
    try:
        while True:
            running |= {pool.submit(task, item) for item in islice(waiting, 2 * threads - len(running))}
            if not running:
                return
            finished, running = wait(running, timeout=SO_FAR_EVERY_S, return_when=FIRST_COMPLETED)
            yield from (f.result() for f in finished)
            if time.monotonic() - asked >= SO_FAR_EVERY_S:
                yield from so_far()
                asked = time.monotonic()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def side_by_side(first: Iterator[Result], second: Iterator[Result]) -> Iterator[Result]:
    """Items of two iterators, the first one run in a thread of its own; an error of either ends both."""
    done: queue.SimpleQueue[Result] = queue.SimpleQueue()
    stop = threading.Event()

    def run_first() -> None:
        for item in first:
            done.put(item)
            if stop.is_set():
                break

    with ThreadPoolExecutor(1, thread_name_prefix="corpusmith-head") as pool:
        running = pool.submit(run_first)
        try:
            for item in second:
                yield item
                if running.done():
                    running.result()
                while not done.empty():
                    yield done.get()
            running.result()
        finally:
            stop.set()
    while not done.empty():
        yield done.get()
