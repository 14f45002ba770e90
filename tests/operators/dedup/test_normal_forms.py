"""Normal forms: the stated rule a character at a time, one form for all spellings of a URL, and never an error."""

from __future__ import annotations

import time
import unicodedata

import pyarrow as pa
import pytest
from captions import drawn_captions, emoji_names
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpusmith.operators.dedup import normal_forms
from corpusmith.operators.dedup.normal_forms import Form, normal_form


def forms(values: list[str | None], form: Form) -> list[str | None]:
    found = normal_form(pa.array(values, pa.string()), form)
    assert found.type == pa.large_string()
    found.validate(full=True)
    return found.to_pylist()


SELECTORS = (0x034F, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0000, 0xE1000))
ZERO_WIDTH = (0xAD, 0x61C, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF)
INVISIBLE = frozenset(map(chr, (*SELECTORS, *ZERO_WIDTH, *range(0xFFF9, 0xFFFC))))


def is_space(char: str) -> bool:
    return unicodedata.category(char)[0] == "Z" or unicodedata.category(char) == "Cc"


def parts_words(char: str) -> bool:
    if unicodedata.category(char)[0] == "P":
        return char not in "#%&@"
    return is_space(char) or char in "<=>^`|~"


def naive_text(text: str) -> str:
    """The rule of `text`, for texts without long runs of marks."""
    folded = "".join(char for char in text if char not in INVISIBLE)
    for _ in range(2):
        folded = unicodedata.normalize("NFKC", folded).casefold()
    folded = unicodedata.normalize("NFKC", folded)
    words = "".join(" " if parts_words(char) else char for char in folded).split()
    return " ".join(words or "".join(" " if is_space(char) else char for char in folded).split())


CHARS = st.characters(exclude_categories=["Cs", "Cn"])
TEXTS = st.text(CHARS, max_size=12) | st.text(
    st.sampled_from(" \t\n\u00a0\u3000.,!#%&@+|~-'\u2026\u2019aAßİıΣςé\u0301\u200d\ufe0f❤Ａﬁ①\u00ad"), max_size=12
)


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.none() | TEXTS, max_size=20))
@example(texts=["\n\u0301", "\u0301", "a\n\u0301b", None, ""])
@example(texts=["!?!", "...", "\u2026", "¿", "\u200b", " \u3000 "])
def test_texts_are_the_rule(texts: list[str | None]) -> None:
    found = forms(texts, "text")
    assert found == [None if text is None else naive_text(text) for text in texts]
    assert forms(found, "text") == found


def test_real_texts_are_the_rule() -> None:
    texts = [name for language in ("ar", "de", "ja", "tr") for name in emoji_names(language)[::20]]
    texts += next(drawn_captions(2000)).to_pylist()
    assert forms([*texts], "text") == [naive_text(text) for text in texts]
    shouted = forms([f"  {text.upper()}!\n" for text in texts if text.upper().casefold() == text.casefold()], "text")
    assert shouted == forms([text for text in texts if text.upper().casefold() == text.casefold()], "text")


@pytest.mark.parametrize(
    ("one", "other", "is_equal"),
    [
        ("A red  Cat.", "a red cat", True),
        ("ＲＥＤ cat", "red cat", True),
        ("Straße", "STRASSE", True),
        ("caf\u00e9", "CAFE\u0301", True),
        ("red\u200bcat", "redcat", True),
        ("❤\ufe0f", "❤", True),
        ("cat | dog", "cat - dog", True),
        ("\u201cA cat\u201d", "A cat", True),
        ("…", "...", True),
        ("IMG 1", "IMG 2", False),
        ("C++", "C", False),
        ("C#", "C", False),
        ("5 %", "5", False),
        ("cafe", "café", False),
        ("!", "?", False),
        ("🐱", "🐶", False),
    ],
)
def test_which_texts_are_equal(one: str, other: str, is_equal: bool) -> None:
    first, second = forms([one, other], "text")
    assert (first == second) == is_equal


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("HTTP://Example.ORG:80/a/./b/../c.jpg?x=1#f", "//example.org/a/c.jpg?x=1"),
        ("https://example.org:443", "//example.org/"),
        ("https://example.org:80/", "//example.org:80/"),
        ("http://example.org:/?", "//example.org/"),
        ("http://example.org.:0080/", "//example.org/"),
        ("//example.org/%7Ea%2fb%c3%bc", "//example.org/~a%2Fb%C3%BC"),
        ("http://example.org/ü |\"'%", "//example.org/%C3%BC%20%7C%22'%25"),
        ("http://example.org/%2e%2E/a/%2e", "//example.org/a/"),
        ("http://example.org/a//../..", "//example.org/"),
        ("http://example.org/../../a/..b/.c", "//example.org/a/..b/.c"),
        ("http:\\\\example.org\\a\\b", "//example.org/a/b"),
        (" http://example.org/a\n\tb ", "//example.org/ab"),
        ("http://MÜNCHEN.de/", "//xn--mnchen-3ya.de/"),
        ("http://日本語。jp/", "//xn--wgv71a119e.jp/"),
        ("http://[2001:DB8:0::1]:80/", "//[2001:db8::1]/"),
        ("http://Ann:B@Example.org/", "//Ann:B@example.org/"),
        ("http://www.example.org/a/?b=2&a=1", "//www.example.org/a/?b=2&a=1"),
        ("http://example.org/?u=http://a/../b", "//example.org/?u=http://a/../b"),
        ("s3://Bucket/a/../b#c ", "s3://Bucket/a/../b#c"),
        ("data:image/png;base64,AA==", "data:image/png;base64,AA=="),
        ("http:///a", "http:///a"),
        ("http://a:b:c/", "http://a:b:c/"),
        ("http://a:8a/", "http://a:8a/"),
        ("cat.jpg", "cat.jpg"),
        ("", ""),
        (None, None),
    ],
)
def test_urls(url: str | None, form: str | None) -> None:
    assert forms([url], "url") == [form]


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("http://a.org/?utm_source=x&b=2&UTM_Medium=y&a=1&fbclid=z", "//a.org/?a=1&b=2"),
        ("http://a.org/?gclid=x", "//a.org/"),
        ("http://a.org/?utm%5Fsource=x&&", "//a.org/"),
        ("http://a.org/?b&a=2&a=1", "//a.org/?a=2&a=1&b"),
        ("http://a.org/?gclidish=x", "//a.org/?gclidish=x"),
        ("http://a.org/?page=gclid", "//a.org/?page=gclid"),
        ("http://a.org/a&utm_source=x", "//a.org/a&utm_source=x"),
        ("http://a.org/?GCLID", "//a.org/"),
    ],
)
def test_urls_without_tracking(url: str, form: str) -> None:
    assert forms([url], "url_without_tracking") == [form]


LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True)
SEGMENTS = st.lists(st.text(st.sampled_from("aZ9._~!$&'()*+,;=:@ü /?#%|\\"), min_size=1, max_size=5), max_size=4)


@settings(max_examples=300, deadline=None)
@given(host=st.lists(LABEL, min_size=1, max_size=3), segments=SEGMENTS, query=SEGMENTS, drawn=st.randoms())
def test_spellings_of_one_url_are_equal(host: list[str], segments: list[str], query: list[str], drawn) -> None:
    """A URL from its parts, each character that may be encoded encoded or not, host and scheme in any case."""

    def written(text: str, always: str) -> str:
        plain = [c if c not in always and c.isascii() and (drawn.random() < 0.5) else "" for c in text]
        return "".join(
            c
            or "".join(f"%{byte:{drawn.choice('xX').replace('x', '02x').replace('X', '02X')}}" for byte in raw.encode())
            for c, raw in zip(plain, text, strict=True)
        )

    def spelling() -> str:
        scheme, port = drawn.choice([("http", ""), ("https", ":443"), ("HTTP", ":80"), ("https", ":")])
        name = "".join(drawn.choice([char.lower(), char.upper()]) for char in ".".join(host))
        detour = drawn.choice(["", "/.", "/x/..", "/%2e"])
        reserved = "/?#%\\ |!$&'()*+,;=:@"
        path = "".join("/" + written(segment, reserved) for segment in segments if segment not in (".", ".."))
        asked = "&".join(written(part, reserved) for part in query)
        end = f"?{asked}" if asked else drawn.choice(["", "?"])
        return f"{scheme}://{name}{drawn.choice(['', '.'])}{port}{detour}{path or '/'}{end}{drawn.choice(['', '#x'])}"

    found = set(forms([spelling() for _ in range(6)], "url"))
    assert len(found) == 1


URLS = (
    st.text(max_size=20)
    | st.text(st.sampled_from("ab./?&=%2E2f3A7e-_~+:#@\\ \nü"), max_size=16).map("http://a.b/{}".format)
    | st.text(st.sampled_from("htTps:/[]@\\?#%.4a0üß\u3002\u200d "), max_size=16)
)


@settings(max_examples=500, deadline=None)
@given(urls=st.lists(URLS, max_size=8), form=st.sampled_from(["url", "url_without_tracking"]))
@example(
    urls=["http://[::ffff:1.2.3.4%25eth0]/", "http://[", "//", "http://@", "http://:80", "http://.", "%"], form="url"
)
def test_no_url_is_an_error_and_the_quick_way_is_the_slow_way(urls: list[str], form: Form) -> None:
    slow = normal_forms._url_form if form == "url" else normal_forms._form_without_tracking
    found = forms([*urls], form)
    assert found == [slow(url) for url in urls]
    assert forms(found, form) == found


def test_hostile_lengths_take_linear_time() -> None:
    started = time.process_time()
    size = 200_000
    urls = [
        *("http://" + "a." * size, "http://" + "@" * size, "http://" + ":" * size, "http://" + "\u0301" * size),
        *("http://a/" + "../" * size, "http://a/" + "b/../" * size, "http://a/" + "%41" * size, "//[" * size),
        *("http://a/?" + "&" * size, "http://a/?" + "utm_" * size, "http://a:" + "9" * size, "\\" * size, "x" * size),
    ]
    for form in ("url", "url_without_tracking"):
        forms([*urls], form)
    forms(["\u0301" * size, "a" + "\u0327\u0301" * size, "!" * size, "é!" * size, " " * size, "ﷺ" * size], "text")
    assert time.process_time() - started < 4


def test_slices_and_other_text_types() -> None:
    values = pa.array(["x", "A!", None, "Ü ü", "b"]).slice(1, 3)
    expected = ["a", None, "ü ü"]
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        assert normal_form(values.cast(kind), "text").to_pylist() == expected
    for form in ("text", "url", "url_without_tracking"):
        assert normal_form(pa.nulls(2), form).to_pylist() == [None, None]
        assert normal_form(pa.array([], pa.string()), form).to_pylist() == []
