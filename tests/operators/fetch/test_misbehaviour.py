"""Every way in which a server can misbehave that we know of: each row ends as it should, in time, and nobody is harmed.

Beside each misbehaviour the same worker downloads from a good server, and must get what it asked for.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from downloads import Opened, outcomes
from hostile_server import JPEG, HostileServer, bomb_body
from raw_answers import ENDLESS, PICTURE, RAW

MAX_BYTES = 2**18
TIME_CAP_S = 2.0
"""The total time-out is 0.8 s; the rest is this machine's."""

MOST_MEMORY_BYTES = 48 * 2**20
"""What a misbehaviour may make the process grow by; an endless server sends 64 MiB."""

FAILURES = {
    "raw/nothing": "connection failed",
    "raw/cut_status_line": "connection failed",
    "raw/cut_headers": "truncated body",
    "raw/cut_after_headers": "truncated body",
    "raw/http09": "bad response",
    "raw/http_9_9": "bad response",
    "raw/status_of_two_digits": "bad response",
    "raw/status_of_letters": "bad response",
    "raw/status_999": "HTTPStatus 999",
    "raw/negative_length": "bad response",
    "raw/absurd_length": "too large",
    "raw/length_of_letters": "bad response",
    "raw/two_lengths": "bad response",
    "raw/length_too_long": "truncated body",
    "raw/chunk_size_of_letters": "bad response",
    "raw/chunk_size_negative": "bad response",
    "raw/chunk_size_absurd": "bad response",
    "raw/chunk_without_end": "bad response",
    "raw/chunks_without_last": "truncated body",
    "raw/nul_in_header": "bad response",
    "raw/line_without_colon": "bad response",
    "raw/gzip_in_gzip": "bad response",
    "raw/gzip_and_more": "bad response",
    "raw/transfer_gzip": "bad response",
    "raw/transfer_unknown": "bad response",
    "raw/switching_protocols": "truncated body",
    "raw/only_interim_answers": "connection failed",
    "raw/redirect_without_location": "HTTPStatus 302",
    "raw/redirect_with_empty_location": "HTTPStatus 302",
    "raw/redirect_with_bytes": "invalid URL",
    "raw/tls_alert": "bad response",
    "raw/smtp": "bad response",
    "endless/body": "too large",
    "endless/chunks": "too large",
    "endless/headers": "bad response",
    "endless/header_line": "bad response",
    "endless/status_line": "bad response",
    "endless/interim_answers": "bad response",
    "endless/trailers": "bad response",
    "endless/garbage": "bad response",
    "huge_declared": "too large",
    "huge_chunked": "too large",
    "bomb": "too large",
    "cut_compressed": "truncated body",
    "odd_encoding/br": "bad response",
    "slow/20": "Timeout",
    "slow_head/0.02": "Timeout",
    "drip/0.02": "Timeout",
    "stall": "Timeout",
    "reset": "connection failed",
    "reset_after/head": "connection failed",
    "reset_after/body": "truncated body",
    "empty": "empty body",
    "status/204": "empty body",
    "status/205": "HTTPStatus 205",
    "status/206": "HTTPStatus 206",
    "status/304": "HTTPStatus 304",
    "status/451": "HTTPStatus 451",
    "loop/0": "too many redirects",
    "redirect/http%3A%2F%2F169.254.169.254%2F": "address refused",
    "redirect/gopher%3A%2F%2F127.0.0.1%2F": "scheme refused",
    "redirect/http%3A%2F%2F%5B%2F": "invalid URL",
    "redirect/http%3A%2F%2F%2F": "HTTPStatus 404",
    "robots/noai": "opted out",
    "flaky/1/503/": "HTTPStatus 503",
}
BODIES = {
    "raw/length_too_short": PICTURE[:12],
    "raw/length_and_chunks": b"abcd",
    "raw/no_length": PICTURE,
    "raw/bytes_in_header": PICTURE,
    "raw/folded_header": PICTURE,
    "raw/some_interim_answers": PICTURE,
    "wrong_type": JPEG,
    "compressed": JPEG,
}
"""Misbehaviour that leaves no doubt about the body."""

EITHER = {"endless/chunk_extension": ("truncated body", "Timeout")}
"""Nothing of it is a body, so that only time ends it, or the server's own patience."""


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[HostileServer, HostileServer]]:
    bomb_body()  # takes the server longer than the client waits
    with HostileServer() as bad, HostileServer() as good:
        with Opened() as operator:
            outcomes(operator, [good.url("good")])  # what a first download imports is no one's misbehaviour
        yield bad, good


def test_each_kind_is_tested() -> None:
    tested = {*FAILURES, *BODIES, *EITHER}
    assert {f"raw/{name}" for name in RAW} | {f"endless/{name}" for name in ENDLESS} <= tested
    assert len(tested) >= 60


@pytest.mark.parametrize("path", [*FAILURES, *BODIES, *EITHER])
def test_misbehaviour(servers: tuple[HostileServer, HostileServer], path: str) -> None:
    bad, good = servers
    memory = psutil.Process(os.getpid()).memory_info
    before_bytes = memory().rss
    started_s = time.perf_counter()
    limits = {"connect_timeout_s": 0.4, "idle_timeout_s": 0.3, "timeout_s": 0.8, "retries": 0}
    with Opened(max_bytes=MAX_BYTES, **limits) as operator:
        asked = bad.url(f"{path}?X-Amz-Signature=s3cr3t")
        told, *beside = outcomes(operator, [asked, *(good.url(f"good/{i}?{path}") for i in range(4))])
        again = outcomes(operator, [good.url(f"good/afterwards?{path}")])
    assert time.perf_counter() - started_s < TIME_CAP_S
    assert memory().rss - before_bytes < MOST_MEMORY_BYTES
    assert all(isinstance(outcome, dict) for outcome in [*beside, *again])
    if path in BODIES:
        assert isinstance(told, dict), told
        assert told["media"] == BODIES[path]
    else:
        assert isinstance(told, tuple), told
        assert told[0] in EITHER.get(path, (FAILURES.get(path),))
        assert "s3cr3t" not in told[1]


def test_all_of_them_at_once(servers: tuple[HostileServer, HostileServer]) -> None:
    bad, good = servers
    urls = [bad.url(f"{path}?at-once") for path in (*FAILURES, *BODIES)]
    limits = {"connect_timeout_s": 0.5, "idle_timeout_s": 0.5, "timeout_s": 1.5, "retries": 1, "per_host": 64}
    started_s = time.perf_counter()
    with Opened(max_bytes=MAX_BYTES, **limits) as operator:
        told = outcomes(operator, [*urls, *(good.url(f"good/{i}?at-once") for i in range(20))])
    assert time.perf_counter() - started_s < 6
    assert all(isinstance(outcome, dict) for outcome in told[len(urls) :])
    failures = [outcome[0] for outcome in told if isinstance(outcome, tuple)]
    recovered = 1  # the server that answers 503 once
    assert len(failures) == len(FAILURES) - recovered


def test_a_connection_that_ends_after_its_answer(servers: tuple[HostileServer, HostileServer]) -> None:
    bad, _ = servers
    with Opened(per_host=1, retries=0) as operator:
        told = outcomes(operator, [bad.url(f"good_then_gone/{i}") for i in range(20)])
    assert all(isinstance(outcome, dict) for outcome in told)


def test_absurd_retry_after(servers: tuple[HostileServer, HostileServer]) -> None:
    bad, _ = servers
    waits = ["1e300", "999999999", "-1", "tomorrow", "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 99 Dec 0000 99:99:99"]
    started_s = time.perf_counter()
    with Opened() as operator:
        told = outcomes(operator, [bad.url(f"flaky/1/429/{wait}?absurd") for wait in waits])
    assert all(isinstance(outcome, dict) for outcome in told), told
    assert time.perf_counter() - started_s < 2
