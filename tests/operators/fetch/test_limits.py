"""Limits that a download keeps: for one host, for the run as a whole, in bytes a second; and in what order it works."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from downloads import Opened, outcomes, rows_of, table
from hostile_server import JPEG, HostileServer


def test_rate_of_one_host() -> None:
    with HostileServer() as server, Opened(per_host_rate=20.0) as operator:
        started_s = time.perf_counter()
        told = outcomes(operator, [server.url(f"good/{i}") for i in range(11)])
        taken_s = time.perf_counter() - started_s
    assert all(isinstance(values, dict) for values in told)
    assert 0.5 <= taken_s < 3


def test_a_rate_is_one_host_s_own() -> None:
    with HostileServer() as server, Opened(per_host_rate=10.0, allow_hosts=("127.0.0.0/8", "localhost")) as operator:
        hosts = ("127.0.0.1", "localhost")
        started_s = time.perf_counter()
        outcomes(operator, [server.url(f"good/{i}", host) for i in range(4) for host in hosts])
        assert 0.3 <= time.perf_counter() - started_s < 0.65


def test_limits_of_the_run_are_shared_out() -> None:
    with HostileServer() as server:
        urls = [server.url(f"slow/0.05/{i}") for i in range(12)]
        with Opened(share=0.25, per_host=8) as operator:
            outcomes(operator, urls)
        assert server.most_open == 2
    with HostileServer() as server:
        with Opened(share=0.01, per_host=8) as operator:
            outcomes(operator, [server.url(f"good/{i}") for i in range(8)])
        assert server.most_open == 1
    with HostileServer() as server, Opened(share=0.25, per_host_rate=40.0) as operator:
        started_s = time.perf_counter()
        outcomes(operator, [server.url(f"good/{i}") for i in range(5)])
        assert time.perf_counter() - started_s >= 0.4


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_bytes_a_second(share: float) -> None:
    """A quarter of a second's worth may come at once, and one piece more for each request."""
    rate, bodies = 50_000, 30
    limits = {"max_bytes_per_s": rate, "idle_timeout_s": 0.3, "timeout_s": 0.5, "retries": 0}
    with HostileServer() as server, Opened(share, **limits) as operator:
        started_s = time.perf_counter()
        told = outcomes(operator, [server.url(f"good/{i:03}") for i in range(bodies)])
        taken_s = time.perf_counter() - started_s
    assert all(isinstance(values, dict) and values["media"].startswith(JPEG) for values in told), told
    ideal_s = bodies * (len(JPEG) + 3) / (rate * share) - 0.25
    assert 0.8 * ideal_s <= taken_s < 1.3 * ideal_s + 0.4


def test_the_concurrency_of_a_worker() -> None:
    hosts = [f"127.0.0.{i}" for i in range(1, 2)] + ["localhost"]
    with HostileServer() as server:
        with Opened(concurrency=3, allow_hosts=("127.0.0.0/8", "localhost")) as operator:
            outcomes(operator, [server.url(f"slow/0.02/{i}", host) for i in range(10) for host in hosts])
        assert server.most_open <= 6  # connections that wait for their next request are open too
        assert server.requests.total() == 20


def test_a_busy_host_holds_no_other_back() -> None:
    """Rows that wait for their host take no place in the window."""
    with HostileServer() as server:
        urls = [server.url(f"slow/0.15/{i}") for i in range(20)] + [
            server.url(f"good/{i}", "localhost") for i in range(20)
        ]
        with Opened(per_host=2, concurrency=4, allow_hosts=("127.0.0.0/8",)) as operator:
            started_s = time.perf_counter()
            arrivals = [
                (position, time.perf_counter() - started_s)
                for part in operator.process(table(urls))
                for position, _ in rows_of(operator, part)
            ]
    assert {position for position, at_s in arrivals if at_s < 1.2} >= set(range(20, 40))
    assert max(at_s for _, at_s in arrivals) > 1.4


def test_servers_that_stall_hold_no_other_back() -> None:
    """A request that waits in silence is parked: it keeps its place at its host, and none in the window."""
    with HostileServer() as server:
        urls = [server.url(f"slow/2/{i}") for i in range(6)]
        urls += [server.url(f"good/{i}", "localhost") for i in range(30)]
        with Opened(concurrency=2, per_host=8, allow_hosts=("127.0.0.0/8",)) as operator:
            started_s = time.perf_counter()
            arrivals = {
                position: time.perf_counter() - started_s
                for part in operator.process(table(urls))
                for position, _ in rows_of(operator, part)
            }
    assert max(at_s for position, at_s in arrivals.items() if position >= 6) < 1.9
    assert min(at_s for position, at_s in arrivals.items() if position < 6) >= 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_breaks_ends_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a mistake of ours")

    with HostileServer() as server:
        operator = Opened().operator
        operator.setup()
        monkeypatch.setattr("corpusmith.operators.fetch.fetching.Fetcher.fetch", broken)
        told = outcomes(operator, [server.url("good")] * 3)
        operator.close()
        assert told == [("download broke", "ValueError: a mistake of ours")] * 3
        assert outcomes(operator, [server.url("good")]) == told[:1]


def test_bodies_that_nobody_takes_hold_requests_back() -> None:
    with (
        HostileServer() as server,
        Opened(concurrency=4, per_host=4, waiting_max_bytes=1, recent_max_bytes=0) as operator,
    ):
        urls = [server.url(f"good/{i}") for i in range(400)]
        parts = operator.process(table(urls))
        rows = len(next(parts).rows or ())
        time.sleep(0.5)
        assert server.requests.total() < 200, "a slow taker is waited for"
        assert rows + sum(len(part.rows or ()) for part in parts) == 400
        left_behind = operator.process(table(urls))
        next(left_behind)
        del left_behind
        assert isinstance(outcomes(operator, [server.url("good/again")])[0], dict)
