"""robots.txt: the examples of RFC 9309, hostile files, and what a download does with the answer of a site."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmith.operators.fetch.robots import MAX_CRAWL_DELAY_S, Rule, parse_robots

sys.path.insert(0, str(Path(__file__).parent))
from downloads import Opened, error_of, outcome, outcomes, values_of
from hostile_server import JPEG, HostileServer

SIMPLE = """
User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
"""
"""Section 5.1 of RFC 9309."""


@pytest.mark.parametrize(
    ("agent", "path", "is_allowed"),
    [
        ("corpusmith", "/a.gif", False),
        ("corpusmith", "/a.gif?x", True),
        ("corpusmith", "/example/x", False),
        ("corpusmith", "/publications/", True),
        ("corpusmith", "/", True),
        ("foobot", "/", False),
        ("FooBot", "/example/page.html", True),
        ("foobot", "/example/allowed.gif", True),
        ("foobot", "/example/other.gif", False),
        ("barbot", "/example/page.html", False),
        ("bazbot", "/example/page.html", False),
        ("barbot", "/a.gif", True),
        ("quxbot", "/example/page.html", True),
    ],
)
def test_the_simple_example(agent: str, path: str, is_allowed: bool) -> None:
    assert parse_robots(SIMPLE.encode(), agent).allows(path) == is_allowed


@pytest.mark.parametrize(
    ("lines", "path", "is_allowed"),
    [
        ("Allow: /example/page/\nDisallow: /example/page/disallowed.gif", "/example/page/disallowed.gif", False),
        ("Allow: /example/page/\nDisallow: /example/page/disallowed.gif", "/example/page/", True),
        ("Disallow: /a\nAllow: /a", "/a", True),
        ("Disallow: /", "/anything", False),
        ("Disallow:", "/anything", True),
        ("Disallow: /foo/bar?baz=quz", "/foo/bar?baz=quz", False),
        ("Disallow: /foo/bar/ツ", "/foo/bar/%E3%83%84", False),
        ("Disallow: /foo/bar/%E3%83%84", "/foo/bar/%e3%83%84", False),
        ("Disallow: /foo/bar/%62%61%7A", "/foo/bar/baz", False),
        ("Disallow: /path/file-with-a-%2A.html", "/path/file-with-a-*.html", True),
        ("Disallow: /this/*/exactly", "/this/path/exactly", False),
        ("Disallow: /this/*/exactly", "/this/exactly", True),
        ("Disallow: /end$", "/end", False),
        ("Disallow: /end$", "/ending", True),
        ("Disallow: /*a$", "/ba", False),
        ("Disallow: /*.php", "/x.php?y", False),
        ("Disallow: /a # not /b", "/a", False),
        ("DISALLOW : /a", "/a", False),
        ("Sitemap: https://example.org/\nDisallow: /a", "/a", False),
        ("nonsense\n\nDisallow: /a", "/a", False),
    ],
)
def test_rules(lines: str, path: str, is_allowed: bool) -> None:
    for ending in ("\n", "\r\n", "\r"):
        text = f"User-agent: *\n{lines}".replace("\n", ending)
        assert parse_robots(text.encode(), "corpusmith").allows(path) == is_allowed


def test_groups_of_one_agent_are_one() -> None:
    text = b"user-agent: a\ndisallow: /1\n\nuser-agent: b\ndisallow: /2\n\nuser-agent: A/2.0\ndisallow: /3\n"
    robots = parse_robots(text, "a")
    assert [robots.allows(path) for path in ("/1", "/2", "/3")] == [False, True, False]


def test_crawl_delay_is_bounded() -> None:
    for value, delay_s in {
        "2": 2.0,
        "0.5": 0.5,
        "86400": MAX_CRAWL_DELAY_S,
        "-1": 0.0,
        "soon": 0.0,
        "1e9": 0.0,
    }.items():
        assert parse_robots(f"user-agent: *\ncrawl-delay: {value}".encode(), "x").crawl_delay_s == delay_s


def test_patterns_take_linear_time() -> None:
    rule = Rule(False, "/" + "*a" * 5000 + "b$")
    started_s = time.perf_counter()
    assert not rule.matches("/" + "a" * 16000)
    assert time.perf_counter() - started_s < 0.5


def naive_match(pattern: str, path: str) -> bool:
    """The definition: a star is any text, a last dollar the end, nothing else is special."""
    if not pattern:
        return True
    if pattern == "$":
        return not path
    if pattern[0] == "*":
        return any(naive_match(pattern[1:], path[i:]) for i in range(len(path) + 1))
    return bool(path) and pattern[0] == path[0] and naive_match(pattern[1:], path[1:])


@settings(deadline=None, max_examples=300)
@given(st.text("ab*", max_size=7), st.booleans(), st.text("ab", max_size=8))
def test_matching_is_as_defined(pattern: str, is_whole: bool, path: str) -> None:
    pattern = "/" + pattern + ("$" if is_whole else "")
    assert Rule(True, pattern).matches("/" + path) == naive_match(pattern, "/" + path)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_robots_txt(body: bytes) -> None:
    assert isinstance(parse_robots(b"user-agent: *\n" + body, "corpusmith").allows("/a?b"), bool)


def served(answer: str) -> HostileServer:
    """A server whose robots.txt is answered as another path of it."""
    return HostileServer(pages={"/robots.txt": answer})


def test_a_site_is_asked_once_and_obeyed() -> None:
    with served("/text/" + quote("user-agent: corpusmith\ndisallow: /good/no", safe="")) as server:
        urls = [server.url(f"good/{'no' if i % 2 else 'yes'}{i}") for i in range(20)]
        with Opened(robots=True) as operator:
            told = outcomes(operator, urls)
            assert outcomes(operator, [server.url("redirect/%2Fgood%2Fno")]) == [
                ("robots disallowed", "robots.txt of 127.0.0.1")
            ]
        assert [isinstance(values, dict) for values in told] == [True, False] * 10
        assert server.requests["/robots.txt"] == 1
        assert not any(path.startswith("/good/no") for path in server.requests)


@pytest.mark.parametrize("answer", ["/status/404", "/status/403", "/loop/0", "/empty", "/garbled/x", "/good"])
def test_no_rules_to_be_had_is_leave(answer: str) -> None:
    with served(answer) as server:
        assert values_of(server.url("good"), robots=True)["media"] == JPEG


@pytest.mark.parametrize("answer", ["/status/500", "/status/429", "/reset", "/stall", "/raw/http09"])
def test_no_rules_to_be_reached_is_no_leave(answer: str) -> None:
    with served(answer) as server:
        told = outcome(server.url("good"), robots=True, retries=1, idle_timeout_s=0.2)
        assert isinstance(told, tuple)
        assert told[0] == "robots disallowed"
        assert told[1].startswith("robots.txt of 127.0.0.1 is out of reach: ")
        assert server.requests["/good"] == 0


def test_what_prevents_the_request_anyway_is_told_as_such() -> None:
    assert error_of("http://does-not-exist.invalid/", robots=True, retries=0) == "DNS failure"
    with HostileServer() as server:
        assert error_of(server.url("good", "localhost"), robots=True, allow_hosts=()) == "address refused"


def test_an_endless_robots_txt_is_cut() -> None:
    with served("/huge_chunked") as server:
        assert values_of(server.url("good"), robots=True)["media"] == JPEG


def test_crawl_delay_is_kept() -> None:
    with served("/text/" + quote("user-agent: *\ncrawl-delay: 0.2", safe="")) as server:
        started_s = time.perf_counter()
        with Opened(robots=True) as operator:
            outcomes(operator, [server.url(f"good/{i}") for i in range(5)])
        assert time.perf_counter() - started_s >= 0.8


def test_off_by_default() -> None:
    with served("/text/" + quote("user-agent: *\ndisallow: /", safe="")) as server:
        assert values_of(server.url("good"))["media"] == JPEG
        assert server.requests["/robots.txt"] == 0
