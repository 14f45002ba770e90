"""Executors: tasks in threads, and two streams of results side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from corpusmith.pipelines.executors import InlineExecutor, side_by_side


def test_tasks_run_at_once_and_all_come_back() -> None:
    barrier = threading.Barrier(2, timeout=5)

    def task(number: int) -> int:
        if number < 2:
            barrier.wait()
        return number * number

    assert sorted(InlineExecutor(2).run_tasks(task, range(50))) == [n * n for n in range(50)]


def test_the_first_error_ends_the_tasks() -> None:
    started: list[int] = []

    def task(number: int) -> int:
        started.append(number)
        if number == 3:
            raise ValueError("three")
        time.sleep(0.01)
        return number

    with pytest.raises(ValueError, match="three"):
        list(InlineExecutor(2).run_tasks(task, range(1000)))
    assert len(started) < 30


def numbers(start: int, stop: int, wait_s: float = 0.0, fail_at: int | None = None) -> Iterator[int]:
    """Numbers, slowly, perhaps with an error."""
    for number in range(start, stop):
        time.sleep(wait_s)
        if number == fail_at:
            raise ValueError(f"failed at {number}")
        yield number


@pytest.mark.parametrize(("first_s", "second_s"), [(0.0, 0.01), (0.01, 0.0), (0.0, 0.0)])
def test_side_by_side_gives_every_item_once(first_s: float, second_s: float) -> None:
    both = list(side_by_side(numbers(0, 20, first_s), numbers(20, 40, second_s)))
    assert sorted(both) == list(range(40))


def test_side_by_side_takes_no_longer_than_the_longer() -> None:
    started = time.monotonic()
    list(side_by_side(numbers(0, 10, 0.05), numbers(10, 20, 0.05)))
    assert time.monotonic() - started < 0.9


def test_an_error_of_either_ends_both() -> None:
    endless_before = threading.active_count()
    with pytest.raises(ValueError, match="failed at 5"):
        list(side_by_side(numbers(0, 10, fail_at=5), numbers(10, 10_000, 0.001)))
    with pytest.raises(ValueError, match="failed at 15"):
        list(side_by_side(numbers(0, 10_000, 0.001), numbers(10, 20, fail_at=15)))
    assert threading.active_count() == endless_before
