"""redact_url(): secrets go, the rest stays, and no text makes it raise."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmith.schemas.urls import REDACTED, is_secret_parameter, redact_url, redact_urls

ANY_TEXT = st.text(st.characters(codec=None))
URL_LIKE = st.lists(
    st.sampled_from(
        [
            "http",
            ":",
            "//",
            "/",
            "\\",
            "@",
            "?",
            "&",
            "=",
            "#",
            ";",
            "%3F",
            "%26",
            "sig",
            "a",
            "[",
            "]",
            "%",
            "0",
            "\ud800",
        ]
    ),
    max_size=24,
).map("".join)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://example.com/a.jpg", "http://example.com/a.jpg"),
        ("http://example.com/@user/a.jpg?w=300&page=2", "http://example.com/@user/a.jpg?w=300&page=2"),
        ("http://example.com:8080/@user", "http://example.com:8080/@user"),
        ("http://[2001:db8::1]:80/@user", "http://[2001:db8::1]:80/@user"),
        ("http://me:secret@example.com/a", "http://example.com/a"),
        ("http://me:sec@ret@example.com/a", "http://example.com/a"),
        ("http://me:sec/ret@example.com/a", "http://example.com/a"),
        ("http://me:sec#r?et@example.com/a", "http://example.com/a"),
        ("http:\\\\me:secret@example.com/a", "http:\\\\example.com/a"),
        ("//me@example.com/a", "//example.com/a"),
        ("me:secret@example.com/a", "example.com/a"),
        (
            "https://b.s3.amazonaws.com/k?X-Amz-Signature=s3cr3t&w=1",
            f"https://b.s3.amazonaws.com/k?X-Amz-Signature={REDACTED}&w=1",
        ),
        ("https://x/?w=1&sig=a;s3cr3t=%2B?x#top", f"https://x/?w=1&sig={REDACTED}#top"),
        ("https://x/#access_token=s3cr3t", f"https://x/#access_token={REDACTED}"),
        ("https://x/a;jsessionid=s3cr3t?w=1", f"https://x/a;jsessionid={REDACTED}"),
        ("https://x/?u=http://y/?sig=s3cr3t&w=1", f"https://x/?u=http://y/?sig={REDACTED}&w=1"),
        (
            "https://x/?u=http%3A%2F%2Fy%3Fw%3D1%26sig%3Ds3cr3t",
            f"https://x/?u=http%3A%2F%2Fy%3Fw%3D1%26sig%3D{REDACTED}",
        ),
        ("https://x/?s%69g=s3cr3t", f"https://x/?s%69g={REDACTED}"),
        ("http://x/a b\r\nSet: 1", "http://x/a%20b%0D%0ASet:%201"),
    ],
)
def test_known_urls(url: str, shown: str) -> None:
    assert redact_url(url) == shown


SECRET = (
    *("X-Amz-Credential", "X-Amz-Signature", "x-goog-signature", "Signature", "sig", "token", "key", "Expires"),
    *("AWSAccessKeyId", "GoogleAccessId", "Policy", "Key-Pair-Id", "se", "sp", "sv", "sr", "access_token", "auth"),
    *("api_key", "apikey", "sessionToken", "client_secret"),
)
OTHER = ("w", "h", "width", "author", "keyword", "page", "id", "quality", "format", "service", "space", "significance")


@pytest.mark.parametrize("name", SECRET)
def test_secret_names(name: str) -> None:
    assert is_secret_parameter(name)
    assert "s3cr3t" not in redact_url(f"https://x/a.jpg?w=1&{name}=s3cr3t&h=2")


@pytest.mark.parametrize("name", OTHER)
def test_other_names(name: str) -> None:
    url = f"https://x/a.jpg?{name}=value"
    assert redact_url(url) == url


@settings(deadline=None, max_examples=200)
@given(ANY_TEXT | URL_LIKE)
def test_any_text_gives_one_line_of_valid_unicode(text: str) -> None:
    shown = redact_url(text)
    shown.encode("utf-8")
    assert len(shown.splitlines()) <= 1


@settings(deadline=None, max_examples=200)
@given(
    user=st.text(st.characters(codec="utf-8", exclude_characters="@/\\?#[]:")),
    password=st.text(st.characters(codec="utf-8", exclude_characters="@")),
    host=st.sampled_from(["a.com", "[::1]:8"]),
)
def test_no_password_survives(user: str, password: str, host: str) -> None:
    assert redact_url(f"http://{user}:s3cr3t{password}@{host}/p?q=1") == f"http://{host}/p?q=1"


@settings(deadline=None, max_examples=200)
@given(before=ANY_TEXT, value=st.text(st.characters(codec="utf-8", exclude_characters="&#")))
def test_no_signature_survives(before: str, value: str) -> None:
    shown = redact_url(f"http://x/?{before}&sig=s3cr3t{value}&w=1")
    assert "s3cr3t" not in shown


def test_a_megabyte_takes_no_more_than_a_moment() -> None:
    started = time.perf_counter()
    for text in ("?", "%3f", "a:", "?a=", "?sig=", "@", "%25", ";aaaaaaaaa"):
        redact_url("http://" + text * (10**6 // len(text)))
    assert time.perf_counter() - started < 20


@settings(deadline=None, max_examples=200)
@given(st.lists(st.none() | ANY_TEXT | URL_LIKE, max_size=6))
def test_many_urls_are_shown_as_each_alone(urls: list[str | None]) -> None:
    whole = [None if url is None else url.encode("utf-8", "ignore").decode() for url in urls]
    column = pa.chunked_array([pa.array(whole, pa.string()), pa.array(["http://x/a.jpg"], pa.string())])
    assert redact_urls(column).to_pylist() == [None if url is None else redact_url(url) for url in column.to_pylist()]
