"""url_parts: urllib's idea of a URL where there is one, null for the rest, and never an error."""

from __future__ import annotations

import re
import time
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpusmith.operators.registry import operator_class
from corpusmith.operators.text.url_parts import UrlParts, normal_host, registrable_domain


def parts(urls: list[str | None]) -> list[tuple[str | None, str | None]]:
    table = pa.table({"uid": [str(i) for i in range(len(urls))], "url": pa.array(urls, pa.string())})
    part = UrlParts().process(table)
    assert not part.errors
    for column in UrlParts().produces:
        assert part.columns[column.name].type == column.type  # pyright: ignore[reportAttributeAccessIssue]
    hosts, extensions = (part.columns[name].to_pylist() for name in ("host", "url_extension"))  # pyright: ignore[reportAttributeAccessIssue]
    return list(zip(hosts, extensions, strict=True))


@pytest.mark.parametrize(
    ("url", "host", "extension"),
    [
        ("https://www.Example.ORG/a/b.JPG?x=1.png#c.gif", "example.org", "jpg"),
        ("http://example.org", "example.org", None),
        ("http://example.org:8080/a.tar.gz", "example.org", "gz"),
        ("HTTP://user:pa%40ss@img.example.org/a.jpg:large", "img.example.org", "jpg"),
        ("http://example.org./a.", "example.org", None),
        ("http://www.com/", "www.com", None),
        ("http://www.www.example.org/", "www.example.org", None),
        ("http://localhost/a.b/c", "localhost", None),
        ("http://my_bucket.example.org/x.webp", "my_bucket.example.org", "webp"),
        ("s3://Bucket/key.png", "bucket", "png"),
        ("http://münchen.de/ü.jpg", "xn--mnchen-3ya.de", "jpg"),
        ("http://XN--MNCHEN-3YA.de/", "xn--mnchen-3ya.de", None),
        ("http://日本語。jp/", "xn--wgv71a119e.jp", None),
        ("http://ex%41mple.org/", "example.org", None),
        ("http://192.168.0.1/a.jpg", "192.168.0.1", "jpg"),
        ("http://[2001:DB8:0::1]:80/a.jpg", "2001:db8::1", "jpg"),
        ("http://good.example\\@evil.example/a.jpg", "good.example", "jpg"),
        ("http://user@evil.example@good.example/", "good.example", None),
        ("  http://example.org/a.jpg\n", "example.org", "jpg"),
        ("http://example.org?a.jpg", "example.org", None),
        ("http://example.org/a.jpg%00", "example.org", None),
        ("http://example.org/a.verylongextension", "example.org", None),
    ],
)
def test_urls(url: str, host: str, extension: str | None) -> None:
    assert parts([url]) == [(host, extension)]


GARBAGE = [
    "", " ", "cat", "example.org/a.jpg", "//example.org/a.jpg", "http:example.org", "http://", "http:///a", "http://.",
    "http://..", "http://a..b/", "http://-a.org/", "http://a b/", "http://[::1/", "http://[zz]/", "http://a:b:c/",
    "http://exa<mple>.org/", "http://%00/", "http://%zz/", "http://\u202e.org/", "http://\u00ad/",
    "data:image/png;base64,x",
    f"http://{'a' * 64}.org/", f"http://{'a.' * 200}org/", f"http://{'ü' * 100_000}/", f"http://{'%41' * 100_000}/",
    "http://xn--\u00fc.org/", "http://\ufdd0.org/", "javascript://", "http://\x00/", "1http://a.org/",
]  # fmt: skip


def test_garbage_is_null() -> None:
    found = parts([*GARBAGE, None])
    assert [(url, host) for url, (host, _) in zip(GARBAGE, found, strict=False) if host is not None] == []
    assert found[-1] == (None, None)


LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True)
HOST = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
PATH = st.lists(st.from_regex(r"/[A-Za-z0-9._~%:@!,-]{0,8}", fullmatch=True), max_size=3).map("".join)


@settings(max_examples=200, deadline=None)
@given(
    scheme=st.sampled_from(["http", "https", "ftp", "HTTP"]),
    user=st.sampled_from(["", "ann@", "ann:b@"]),
    host=HOST,
    port=st.sampled_from(["", ":", ":80", ":65535"]),
    path=PATH,
    rest=st.sampled_from(["", "?", "?a=b.png", "#c.gif", "?x=/y/@z"]),
)
def test_equal_to_urllib(scheme: str, user: str, host: str, port: str, path: str, rest: str) -> None:
    url = f"{scheme}://{user}{host.upper() if port else host}{port}{path}{rest}"
    split = urlsplit(url)
    short = host.removeprefix("www.")
    extension = re.search(r"\.([A-Za-z0-9]{1,10})(:[A-Za-z]+)?\Z", split.path)
    assert split.hostname == host
    assert parts([url]) == [(short if "." in short else host, extension[1].lower() if extension else None)]


@settings(max_examples=300, deadline=None)
@given(
    urls=st.lists(
        st.text(max_size=20)
        | st.tuples(st.just("http://"), st.text(max_size=12), st.just("/a.jpg")).map("".join)
        | st.text(st.sampled_from("htp:/[]@\\?#%.4a\u00fc\u3002\u200d "), max_size=16),
        max_size=8,
    )
)
@example(
    urls=["http://\u0130.org", "http://[::ffff:1.2.3.4%25eth0]/", "http://\u2488com/", "http://ß.de/", "http://￹/"]
)
def test_no_text_is_an_error_and_hosts_are_plain(urls: list[str]) -> None:
    for host, extension in parts([*urls]):
        assert host is None or re.fullmatch(r"[a-z0-9_.-]{1,253}|[0-9a-f:.]+(%\S+)?", host)
        assert extension is None or re.fullmatch(r"[a-z0-9]{1,10}", extension)
        assert host is None or ":" in host or normal_host(host) in (host, host.removeprefix("www."))


def test_hostile_lengths_take_linear_time() -> None:
    started = time.process_time()
    parts(
        [
            "http://" + "a." * 500_000,
            "http://" + "@" * 1_000_000,
            "http://a/" + "." * 1_000_000,
            "http://" + "\u0301" * 500_000,
            "http://a/" + "a.b/" * 250_000,
            "x" * 1_000_000,
        ]
    )
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("url", "domain"),
    [
        ("http://a.b.example.co.uk/x.jpg", "example.co.uk"),
        ("http://www.example.org/", "example.org"),
        ("http://EXAMPLE.org.:80/", "example.org"),
        ("http://somebody.github.io/", "somebody.github.io"),
        ("http://img.somebody.github.io/", "somebody.github.io"),
        ("http://github.io/", "github.io"),
        ("http://co.uk/", "co.uk"),
        ("http://localhost/", "localhost"),
        ("http://a.b.intranet/", "b.intranet"),
        ("http://cdn.münchen.de/", "xn--mnchen-3ya.de"),
        ("http://a.食狮.公司.cn/", "xn--85x722f.xn--55qx5d.cn"),
        ("http://192.168.0.1/", "192.168.0.1"),
        ("http://[2001:db8::1]/", "2001:db8::1"),
        ("cat.jpg", None),
        (None, None),
    ],
)
def test_domains(url: str | None, domain: str | None) -> None:
    operator = UrlParts(UrlParts.Config(domain=True))
    part = operator.process(pa.table({"uid": ["0"], "url": pa.array([url], pa.string())}))
    assert [column.name for column in operator.produces] == list(part.columns) == ["host", "url_extension", "domain"]
    assert part.columns["domain"].to_pylist() == [domain]  # pyright: ignore[reportAttributeAccessIssue]


@settings(max_examples=200, deadline=None)
@given(host=HOST | st.from_regex(r"[a-z0-9_.-]{1,30}", fullmatch=True))
@example(host="..")
@example(host="999.1.1.1")
@example(host="a." * 126 + "a")
def test_a_domain_is_the_end_of_its_host(host: str) -> None:
    domain = registrable_domain(host)
    assert host == domain or host.endswith(f".{domain}")
    assert registrable_domain(domain) == domain


def test_columns_are_named_for_the_url() -> None:
    assert operator_class("url_parts") is UrlParts
    other = UrlParts(UrlParts.Config(column="page"))
    assert other.requires == ("page",)
    assert [column.name for column in other.produces] == ["page_host", "page_extension"]
    empty = UrlParts().process(pa.table({"uid": pa.array([], pa.string()), "url": pa.nulls(0)}))
    assert all(len(values) == 0 for values in empty.columns.values())
