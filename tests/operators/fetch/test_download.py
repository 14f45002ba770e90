"""The download operator against a server that misbehaves, over real sockets on loopback."""

from __future__ import annotations

import hashlib
import io
import socket
import sys
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from corpusmith.operators.fetch.addresses import Allowed, address_refusal, embedded_v4
from corpusmith.operators.fetch.config import DownloadConfig
from corpusmith.operators.fetch.download import Download
from corpusmith.operators.fetch.responses import opt_out, retry_after_s
from corpusmith.operators.fetch.targets import checked_url
from corpusmith.operators.media_type import media_type
from corpusmith.schemas.fates import RowFailed

sys.path.insert(0, str(Path(__file__).parent))
from downloads import Opened, Outcome, error_of, outcome, outcomes, rows_of, table, values_of
from hostile_server import JPEG, HostileServer


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with HostileServer() as running:
        yield running


def test_good_answer_gives_bytes_and_facts(server: HostileServer) -> None:
    values = values_of(server.url("good"))
    assert values == {
        "media": JPEG,
        "sha256": hashlib.sha256(JPEG).hexdigest(),
        "size_bytes": len(JPEG),
        "mime": "image/jpeg",
        "etag": None,
        "http_status": 200,
    }


def test_contract() -> None:
    operator = Download(DownloadConfig(concurrency=7))
    assert operator.requires == ("url",)
    assert operator.resources.waits
    assert (operator.name, operator.stored, operator.isolated, operator.batch_rows) == ("download", True, False, 256)
    assert [c.name for c in operator.produces] == ["media", "sha256", "size_bytes", "mime", "etag", "http_status"]


PERMANENT = {
    "status/404": "HTTPStatus 404",
    "status/206": "HTTPStatus 206",
    "status/304": "HTTPStatus 304",
    "status/302": "HTTPStatus 302",
    "status/204": "empty body",
    "empty": "empty body",
    "odd_encoding/br": "bad response",
    "odd_encoding/gzip": "bad response",
    "huge_declared": "too large",
    "huge_chunked": "too large",
    "bomb": "too large",
    "garbage": "bad response",
    "loop/0": "too many redirects",
    "robots/noai": "opted out",
    "robots/corpusmith%3A%20NoImageIndex": "opted out",
    "redirect/file%3A%2F%2F%2Fetc%2Fpasswd%3Fsig%3Ds3cr3t": "scheme refused",
    "redirect/ftp%3A%2F%2Fexample.com%2Fa": "scheme refused",
    "redirect/http%3A%2F%2F10.0.0.1%2F%3Fsig%3Ds3cr3t": "address refused",
    "redirect/http%3A%2F%2F169.254.169.254%2Flatest%2Fmeta-data": "address refused",
    "redirect/http%3A%2F%2F%5B%3A%3A1%5D%2F": "address refused",
    "redirect/%2F%2F0.0.0.0%2F": "address refused",
    "redirect/http%3A%2F%2Fme%3As3cr3t@127.0.0.1%2F": "invalid URL",
    "redirect/http%3A%2F%2Fme%3As3cr3t@%5B%2F": "invalid URL",
    "redirect/http%3A%2F%2Fdoes-not-exist.invalid%2F%3Fsig%3Ds3cr3t": "DNS failure",
}
TRANSIENT = {
    "status/500": "HTTPStatus 500",
    "status/408": "HTTPStatus 408",
    "status/425": "HTTPStatus 425",
    "truncated": "truncated body",
    "cut_compressed": "truncated body",
    "reset": "connection failed",
    "slow/20": "Timeout",
    "stall": "Timeout",
}


@pytest.mark.parametrize(("path", "error"), PERMANENT.items())
def test_permanent_failures_are_not_retried(server: HostileServer, path: str, error: str) -> None:
    asked = f"{path}?X-Amz-Signature=s3cr3t"
    told = outcome(server.url(asked))
    assert isinstance(told, tuple)
    assert told[0] == error
    assert "s3cr3t" not in told[1]
    assert server.requests["/" + asked] == 1


@pytest.mark.parametrize(("path", "error"), TRANSIENT.items())
def test_transient_failures_are_retried(server: HostileServer, path: str, error: str) -> None:
    asked = f"{path}?X-Amz-Signature=s3cr3t"
    told = outcome(server.url(asked), idle_timeout_s=0.2, retries=1)
    assert isinstance(told, tuple)
    assert told[0] == error
    assert "s3cr3t" not in told[1]
    # A reset of a kept connection is also repeated once by HTTP's own rule (RFC 9112, 9.3.1).
    assert server.requests["/" + asked] in ((2,) if path != "reset" else (2, 4))


def test_a_retry_that_succeeds(server: HostileServer) -> None:
    assert values_of(server.url("flaky/2/500/"))["http_status"] == 200
    assert server.requests["/flaky/2/500/"] == 3


def test_no_retries(server: HostileServer) -> None:
    assert error_of(server.url("flaky/1/502/"), retries=0) == "HTTPStatus 502"
    assert server.requests["/flaky/1/502/"] == 1


def test_retry_after_is_honoured_up_to_a_bound(server: HostileServer) -> None:
    started = time.perf_counter()
    values_of(server.url("flaky/1/429/1"), backoff_max_s=5.0)
    assert 1.0 <= time.perf_counter() - started < 3
    started = time.perf_counter()
    values_of(server.url("flaky/1/429/3600"))
    assert time.perf_counter() - started < 1


def test_time_outs_say_which(server: HostileServer) -> None:
    silent = outcome(server.url("slow/20/a"), idle_timeout_s=0.2, retries=0)
    dripping = outcome(server.url("drip/0.05"), idle_timeout_s=0.4, timeout_s=0.6, retries=0)
    assert silent == ("Timeout", "the server was silent for 0.2 s")
    assert dripping == ("Timeout", "not finished within 0.6 s")


def test_no_connection_in_time() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        time.sleep(0.05)
        url = f"http://127.0.0.1:{full.getsockname()[1]}/"
        assert outcome(url, connect_timeout_s=0.3, retries=0) == ("Timeout", "no connection within 0.3 s")


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert error_of(f"http://127.0.0.1:{port}/", retries=0) == "connection failed"


def test_tls_to_a_server_without_it(server: HostileServer) -> None:
    assert error_of(server.url("good").replace("http:", "https:"), retries=0) == "connection failed"


def test_size_limits_are_exact(server: HostileServer) -> None:
    for path in ("good", "compressed"):
        assert values_of(server.url(path), max_bytes=len(JPEG))["media"] == JPEG
        assert error_of(server.url(path), max_bytes=len(JPEG) - 1) == "too large"


def test_type_is_found_from_content(server: HostileServer) -> None:
    assert values_of(server.url("wrong_type"))["mime"] == "image/jpeg"


def test_redirects(server: HostileServer) -> None:
    target = server.url("good/redirected")
    assert values_of(server.url(f"redirect/{quote(target, safe='')}"))["media"].endswith(b"redirected")
    assert values_of(server.url("redirect/..%2Fgood%2Frelative"))["media"].endswith(b"relative")
    assert error_of(server.url("redirect/%2Fgood"), max_redirects=0) == "too many redirects"
    assert server.requests["/loop/5"] <= 1
    assert server.requests["/loop/6"] == 0


def test_opt_out_can_be_ignored(server: HostileServer) -> None:
    assert values_of(server.url("robots/noai"), disallowed_header_directives=())["media"] == JPEG
    assert values_of(server.url("robots/otherbot%3A%20noai"))["media"] == JPEG


def test_requests_are_plain(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    with Opened(user_agent="testbot (+https://example.org)") as operator:
        outcomes(operator, [server.url("echo_headers")])
        sent = outcomes(operator, [server.url("echo_headers?again")])[0]
    assert isinstance(sent, dict)
    assert b"testbot (+https://example.org)" in sent["media"]
    assert b"cookie" not in sent["media"]
    assert b"'accept-encoding': 'identity'" in sent["media"]


def test_signed_urls_are_sent_as_given(server: HostileServer) -> None:
    path = "/echo_path/a%2Fb%3d%7e/../x?sig=%2b%2F+x&b=[1]|2"
    assert values_of(f"http://127.0.0.1:{server.port}{path}#top")["media"] == path.encode()
    assert values_of(server.url("echo_path/é ü"))["media"] == b"/echo_path/%C3%A9%20%C3%BC"


def test_etag_that_is_no_text(server: HostileServer) -> None:
    assert values_of(server.url("etag/%22a%22"))["etag"] == '"a"'
    assert "udcff" in values_of(server.url("etag/%C3%BF"))["etag"]


@pytest.mark.parametrize(
    ("url", "error"),
    {
        None: "invalid URL",
        "": "invalid URL",
        "example.com/a.jpg": "invalid URL",
        "http://": "invalid URL",
        "http:///a.jpg": "invalid URL",
        "http://[::1": "invalid URL",
        "http://a:99999/": "invalid URL",
        "http://example.com:s3cr3t@127.0.0.1/": "invalid URL",
        "http://example.com\\@127.0.0.1/": "invalid URL",
        "http://" + "a" * 20000: "invalid URL",
        "file:///etc/passwd": "scheme refused",
        "ftp://example.com/a": "scheme refused",
        "data:image/png;base64,s3cr3t": "scheme refused",
        "javascript:alert(1)": "scheme refused",
        "http://127.0.0.1/": "address refused",
        "http://127.1/": "address refused",
        "http://2130706433/": "address refused",
        "http://0x7f000001/": "address refused",
        "http://0177.0.0.1/": "address refused",
        "http://127.0.0.1./": "address refused",
        "http://①②⑦.0.0.1/": "address refused",
        "http://127。0。0。1/": "address refused",
        "http://[::ffff:127.0.0.1]/": "address refused",
        "http://[64:ff9b::a00:1]/": "address refused",
        "http://[fe80::1%25eth0]/": "address refused",
        "http://localhost/": "address refused",
        "http://does-not-exist.invalid/?sig=s3cr3t": "DNS failure",
        "http://" + "a" * 70 + ".com/": "DNS failure",
    }.items(),
)
def test_what_is_never_contacted(url: str | None, error: str) -> None:
    told = outcome(url, allow_hosts=(), retries=0)
    assert isinstance(told, tuple)
    assert told[0] == error
    assert "s3cr3t" not in told[1]


def test_hosts_are_allowed_by_name_address_or_network(server: HostileServer) -> None:
    by_name, by_address = server.url("good", "localhost"), server.url("good")
    for allowed in ("localhost", "LOCALHOST.", "127.0.0.1", "127.0.0.0/8"):
        assert values_of(by_name, allow_hosts=(allowed,))["media"] == JPEG
    assert values_of(by_address, allow_hosts=("127.0.0.0/8",))["media"] == JPEG
    before = server.connections
    for allowed in ((), ("other.example",), ("10.0.0.0/8",)):
        assert error_of(by_name, allow_hosts=allowed) == "address refused"
        assert error_of(by_address, allow_hosts=allowed) == "address refused"
    assert server.connections == before
    with pytest.raises(ValueError, match="no host name"):
        DownloadConfig(allow_hosts=("http://a/",))


def test_of_several_answers_only_the_allowed_is_contacted(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, server.port)) for a in ("10.0.0.1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    url = server.url("good", "rebinding.example")
    assert values_of(url, connect_timeout_s=1.0)["media"] == JPEG
    told = outcome(url, allow_hosts=())
    assert told == ("address refused", "rebinding.example: 10.0.0.1 is private, 127.0.0.1 is loopback")


def test_a_slow_url_holds_no_batch_mate_back(server: HostileServer) -> None:
    urls = [server.url("slow/1.5/mate"), *(server.url(f"good/mate{i}") for i in range(40))]
    with Opened() as operator:
        started = time.perf_counter()
        arrivals = [
            (position, time.perf_counter() - started)
            for part in operator.process(table(urls))
            for position, _ in rows_of(operator, part)
        ]
    early = {position for position, at_s in arrivals if at_s < 1.4}
    assert early == set(range(1, 41))
    assert arrivals[-1][0] == 0


def test_batches_overlap_in_one_window(server: HostileServer) -> None:
    batches = [[server.url(f"slow/0.5/batch{b}-{i}") for i in range(8)] for b in range(4)]
    with Opened(per_host=32, concurrency=32) as operator:
        started = time.perf_counter()
        threads = [threading.Thread(target=outcomes, args=(operator, batch)) for batch in batches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert time.perf_counter() - started < 1.5  # one after the other, they take 2 s
    assert sum(server.requests[f"/slow/0.5/batch{b}-{i}"] for b in range(4) for i in range(8)) == 32


def test_connections_are_few_and_reused() -> None:
    with HostileServer() as server, Opened(per_host=3) as operator:
        told = outcomes(operator, [server.url(f"good/{i}") for i in range(150)])
        assert all(isinstance(values, dict) for values in told)
        assert server.requests.total() == 150
        assert server.connections <= 3
        assert server.most_open <= 3


def test_waiting_for_a_busy_host_is_no_time_out(server: HostileServer) -> None:
    urls = [server.url(f"slow/0.2/queue{i}") for i in range(6)]
    with Opened(per_host=1, timeout_s=0.7, idle_timeout_s=0.6, retries=0) as operator:
        assert all(isinstance(values, dict) for values in outcomes(operator, urls))


def test_one_url_is_one_download(server: HostileServer) -> None:
    url, bad = server.url("slow/0.1/shared"), server.url("stall?shared")
    with Opened(idle_timeout_s=0.3, retries=0) as operator:
        told = outcomes(operator, [url, bad] * 20)
        assert told[::2] == [told[0]] * 20
        assert told[1::2] == [("Timeout", "the server was silent for 0.3 s")] * 20
        assert outcomes(operator, [url]) == [told[0]]
    assert server.requests["/slow/0.1/shared"] == 1
    assert server.requests["/stall?shared"] == 1


def test_recent_bodies_are_bounded_in_bytes(server: HostileServer) -> None:
    urls = [server.url(f"good/{i}recent") for i in range(4)]
    with Opened(recent_max_bytes=3 * (len(JPEG) + 8)) as operator:
        for url in (*urls, urls[3], urls[0]):
            outcomes(operator, [url])
    assert [server.requests[f"/good/{i}recent"] for i in range(4)] == [2, 1, 1, 1]


def test_bodies_beyond_the_bound_are_not_kept(server: HostileServer) -> None:
    with Opened(recent_max_bytes=100) as operator:
        for _ in range(2):
            outcomes(operator, [server.url("good/large")])
    assert server.requests["/good/large"] == 2


def test_close_ends_what_is_in_flight(server: HostileServer) -> None:
    operator = Opened().operator
    operator.setup()
    told: list[Outcome] = []
    consumer = threading.Thread(target=lambda: told.extend(outcomes(operator, [server.url("slow/20/closed")])))
    consumer.start()
    time.sleep(0.2)
    operator.close()
    consumer.join(5)
    assert told == [("cancelled", "the worker was closed")]


@settings(deadline=None, max_examples=300)
@given(st.ip_addresses())
def test_every_special_purpose_address_is_refused(address: IPv4Address | IPv6Address) -> None:
    special = not address.is_global or address.is_multicast or address.is_reserved
    if special and embedded_v4(address) is None:
        assert address_refusal(address)


@pytest.mark.parametrize(
    ("address", "is_refused"),
    {
        "8.8.8.8": False,
        "::ffff:8.8.8.8": False,
        "64:ff9b::808:808": False,
        "2002:808:808::1": False,
        "2606:4700::1111": False,
        "0.0.0.0": True,
        "100.64.0.1": True,
        "168.63.129.16": True,
        "192.168.1.1": True,
        "224.0.0.1": True,
        "255.255.255.255": True,
        "::": True,
        "::1": True,
        "::127.0.0.1": True,
        "::ffff:10.0.0.1": True,
        "2002:7f00:1::": True,
        "64:ff9b::7f00:1": True,
        "64:ff9b:1::1": True,
        "2001:0:808:808::": True,
        "fd00:ec2::254": True,
        "fe80::1": True,
        "ff02::1": True,
    }.items(),
)
def test_addresses(address: str, is_refused: bool) -> None:
    assert (address_refusal(ip_address(address)) is not None) == is_refused


def test_addresses_in_urls() -> None:
    assert checked_url("HTTP://[2606:4700::1111]:8080/a", Allowed()).url == "http://[2606:4700::1111]:8080/a"
    assert checked_url(" http://8.8.8.8?a ", Allowed()).url == "http://8.8.8.8/?a"


def test_networks_allow_what_leads_into_them() -> None:
    allowed = Allowed.of(["10.0.0.0/8", "[::1]"])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "::1"):
        assert allowed.refusal(ip_address(address)) is None
    assert allowed.refusal(ip_address("192.168.0.1")) == "private"


URL_PIECES = ["http://", "a.com", "[", "]", ":", "@", "/", "\\", "?", "#", "%", "1", ".", "\ud800", " "]


@settings(deadline=None, max_examples=300)
@given(
    st.text(st.characters(codec=None)).map(lambda text: "http://" + text)
    | st.lists(st.sampled_from(URL_PIECES)).map("".join)
)
def test_any_text_is_a_url_or_fails_as_a_row(text: str) -> None:
    try:
        target = checked_url(text, Allowed())
    except RowFailed as failed:
        failed.row_error.message.encode("utf-8")
    else:
        assert target.site.scheme in ("http", "https")
        assert target.url.isascii()
        assert not set(target.url) & set(" \r\n\t")
        assert target.url.startswith(target.site.prefix + "/")


@pytest.mark.parametrize(
    ("header", "directive"),
    {
        "noai": "noai",
        "NoImageIndex, nofollow": "noimageindex",
        "none": "none",
        "nofollow, noarchive": None,
        "corpusmith: noindex": "noindex",
        "*: noindex": "noindex",
        "otherbot: noindex, noai": None,
        "otherbot: noindex, corpusmith: noai": "noai",
        "max-snippet: -1, noindex": "noindex",
        "unavailable_after: Sunday, 25-Jun-2034 15:00:00 PST, noai": "noai",
        "": None,
        ":,:": None,
    }.items(),
)
def test_opt_out_headers(header: str, directive: str | None) -> None:
    assert opt_out([header], "Corpusmith", ("noai", "noimageai", "noindex", "noimageindex")) == directive


def test_retry_after_seconds_dates_and_nonsense() -> None:
    assert retry_after_s("120") == 120
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert (retry_after_s("Wed, 21 Oct 2099 07:28:00 GMT") or 0) > 1e8
    assert [retry_after_s(text) for text in (None, "", "soon", "-5", "²", "9" * 400)] == [None] * 6


@pytest.mark.parametrize(
    ("kind", "mime"),
    [(kind, f"image/{kind}") for kind in ("jpeg", "png", "gif", "webp", "bmp", "tiff", "avif")],
)
def test_types_of_real_images(kind: str, mime: str) -> None:
    encoded = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(encoded, kind)
    assert media_type(encoded.getvalue()) == mime


@pytest.mark.parametrize(("suffix", "codec", "mime"), [("mp4", "mp4v", "video/mp4"), ("webm", "VP80", "video/webm")])
def test_types_of_real_clips(tmp_path: Path, suffix: str, codec: str, mime: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (64, 64))
    for _ in range(3):
        writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()
    assert media_type(path.read_bytes()) == mime


@pytest.mark.parametrize(
    ("body", "mime"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "image/heic"),
        (b"\0\0\0\x18ftypqt  \0\0\0\0", "video/quicktime"),
        (b"\xef\xbb\xbf \n<!DOCTYPE html><p>", "text/html"),
        (b"<HTML>", "text/html"),
        (b"<?xml version='1.0'?>\n<!-- drawn -->\n<svg xmlns='x'>", "image/svg+xml"),
        (b"<htmlx>", None),
        (b"RIFF", None),
        (b"BMW is a car", None),
        (b"not found", None),
        (b"<!--" * 1000, None),
        (b"<!-->" * 1000, None),
    ],
)
def test_types_by_content(body: bytes, mime: str | None) -> None:
    assert media_type(body) == mime


@given(st.binary(max_size=64))
def test_any_bytes_have_a_type_or_none(body: bytes) -> None:
    mime = media_type(body)
    assert mime is None or "/" in mime
