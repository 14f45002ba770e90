"""TLS, HTTP/2, and which address is contacted: judged when a socket is opened, for the host that it is opened for."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from certificates import self_signed, server_context
from downloads import Opened, outcome, outcomes, table
from hostile_server import JPEG, HostileServer
from http2_server import BODY, Http2Server

NAMES = ("inside.example", "outside.example")
Files = tuple[Path, Path]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return self_signed(tmp_path_factory.mktemp("tls"), *NAMES)


@pytest.fixture
def trusted(certificate: Files, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    return certificate


@pytest.fixture
def all_names_are_loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    yield


def test_http2_shares_one_connection(trusted: Files) -> None:
    with Http2Server(server_context(*trusted), delay_s=0.02) as server:
        urls = [f"https://127.0.0.1:{server.port}/{i}" for i in range(40)]
        with Opened(per_host=40) as operator:
            told = outcomes(operator, urls[:1]) + outcomes(operator, urls[1:])
    assert all(isinstance(values, dict) and values["media"] == BODY for values in told), told[0]
    assert (server.streams, server.connections) == (40, 1)


def test_the_first_requests_to_a_site_do_not_wait_for_each_other(trusted: Files) -> None:
    with Http2Server(server_context(*trusted), delay_s=0.05) as server, Opened(per_host=4) as operator:
        told = outcomes(operator, [f"https://127.0.0.1:{server.port}/{i}" for i in range(40)])
    assert all(isinstance(values, dict) for values in told)
    assert server.connections <= 4


def test_tls_without_http2(trusted: Files) -> None:
    with HostileServer(tls=server_context(*trusted)) as server:
        urls = [server.url("slow/1/tls"), *(server.url(f"good/{i}") for i in range(20))]
        with Opened(per_host=4) as operator:
            started_s = time.perf_counter()
            parts = list(operator.process(table(urls)))
        assert sum(len(part.errors) for part in parts) == 0
        assert time.perf_counter() - started_s < 2
        assert 0 not in (parts[0].rows or ()), "one slow answer must not hold the others"
        assert server.connections <= 4


def test_a_certificate_that_nobody_vouches_for(certificate: Files) -> None:
    with HostileServer(tls=server_context(*certificate)) as server:
        told = outcome(server.url("good"))
        assert told == ("connection failed", "the server's certificate is not valid")
        assert server.requests.total() == 0


def test_plain_http_to_a_tls_port(certificate: Files) -> None:
    with HostileServer(tls=server_context(*certificate)) as server:
        told = outcome(server.url("good").replace("https:", "http:"), retries=0)
    assert isinstance(told, tuple)
    assert told[0] in ("connection failed", "bad response")


@pytest.mark.usefixtures("all_names_are_loopback")
def test_a_connection_to_an_allowed_name_serves_no_other() -> None:
    with HostileServer() as server, Opened(allow_hosts=("inside.example",)) as operator:
        inside, outside = (server.url("good", name) for name in NAMES)
        for _ in range(2):
            values, told = outcomes(operator, [inside + "?a", outside])
            assert isinstance(values, dict)
            assert values["media"] == JPEG
            assert told == ("address refused", "outside.example: 127.0.0.1 is loopback")
        assert server.connections == 1


@pytest.mark.usefixtures("all_names_are_loopback")
def test_an_http2_connection_to_an_allowed_name_serves_no_other(trusted: Files) -> None:
    with Http2Server(server_context(*trusted)) as server, Opened(allow_hosts=("inside.example",)) as operator:
        for i in range(3):
            inside, outside = (f"https://{name}:{server.port}/{i}" for name in NAMES)
            values, told = outcomes(operator, [inside, outside])
            assert isinstance(values, dict), values
            assert told == ("address refused", "outside.example: 127.0.0.1 is loopback")
        assert (server.connections, server.streams) == (1, 3)


def test_an_answer_that_changes_after_the_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver's answer is the address that is judged, with the socket; there is no second look-up to differ."""
    calls: list[str] = []

    def look_up(host: str, *_: object, **__: object) -> list[tuple]:
        calls.append(host)
        address = "203.0.113.9" if len(calls) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with HostileServer() as server, Opened(allow_hosts=(), retries=0) as operator:
        for _ in range(2):
            told = outcomes(operator, [server.url("good", "rebinding.example")])[0]
            assert told == ("address refused", "rebinding.example: 203.0.113.9 is reserved for documentation")
        assert server.connections == 0
    assert calls == ["rebinding.example"]


def test_a_resolver_that_hangs_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve, let_go = socket.getaddrinfo, threading.Event()

    def look_up(host: str, *rest: object, **named: object) -> list[tuple]:
        if host.startswith("hangs"):
            let_go.wait(20)
        return resolve(host, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with HostileServer() as server:
        urls = [f"http://hangs{i}.example/" for i in range(8)] + [
            server.url(f"good/{i}", "localhost") for i in range(8)
        ]
        started_s = time.perf_counter()
        with Opened(connect_timeout_s=0.4, retries=1, concurrency=4, allow_hosts=("localhost",)) as operator:
            told = outcomes(operator, urls)
        assert time.perf_counter() - started_s < 4
    let_go.set()
    assert [t[0] if isinstance(t, tuple) else "" for t in told] == ["DNS failure"] * 8 + [""] * 8
    assert told[0] == ("DNS failure", "hangs0.example: no answer within 0.4 s")


def test_look_ups_that_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def look_up(host: str, *_: object, **__: object) -> list[tuple]:
        calls.append(host)
        errno = socket.EAI_AGAIN if host.startswith("busy") else socket.EAI_NONAME
        raise socket.gaierror(errno, "as the resolver says")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with Opened(retries=2) as operator:
        told = outcomes(operator, ["http://busy.example/", "http://gone.example/", "http://gone.example/2"])
    assert told[0] == ("DNS failure", "busy.example: as the resolver says")
    assert (calls.count("busy.example"), calls.count("gone.example")) == (3, 1)


def test_file_descriptors_come_back() -> None:
    with HostileServer() as server:
        descriptors, before = Path("/proc/self/fd"), 0
        if not descriptors.exists():
            pytest.skip("no /proc to count open files in")
        for _ in range(3):
            with Opened() as operator:
                outcomes(operator, [server.url(f"good/{i}", "localhost") for i in range(20)])
                before = len(list(descriptors.iterdir()))
        time.sleep(0.1)
        assert len(list(descriptors.iterdir())) < before
