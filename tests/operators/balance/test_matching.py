"""Matching: the same pairs as the published substring test, whatever the entries and the texts."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpusmith.operators.balance import matching
from corpusmith.operators.balance.matching import Matcher, Matches, space_text, space_texts


def naively_spaced(text: str) -> str:
    """The published rule, character by character."""
    rules = dict.fromkeys("\t\n\r", " ") | {mark: f" {mark} " for mark in ",.;:?!`"}
    return f" {''.join(rules.get(character, character) for character in text)} "


def naive_matches(entries: list[str], texts: list[str | None]) -> list[tuple[int, int]]:
    """The published loop: every entry against every text."""
    spaced = [(row, naively_spaced(text)) for row, text in enumerate(texts) if text is not None]
    return [(row, k) for row, text in spaced for k, entry in enumerate(entries) if f" {entry} " in text]


def pairs(matches: Matches) -> list[tuple[int, int]]:
    return list(zip(matches.rows.tolist(), matches.entries.tolist(), strict=True))


CROWDED = st.text(st.sampled_from("ab  ,\t."), max_size=14)
"""Few characters, many spaces: texts and entries that overlap and touch in every way."""
ANY_TEXT = st.one_of(
    CROWDED, st.text(max_size=20), st.sampled_from(["", " ", "  ", "a", "a b", " a", "a ", "\0", "é è"])
)


@given(ANY_TEXT)
@settings(deadline=None)
def test_spacing_is_the_published_rule(text: str) -> None:
    assert space_text(text) == naively_spaced(text)


def test_spacing_of_columns() -> None:
    assert space_text("St. Louis,\tMO\r\n") == " St .  Louis ,  MO   "
    texts = pa.array(["x", "a,b", None, ""])
    assert space_texts(texts.slice(1)).to_pylist() == [" a , b ", None, "  "]


@given(st.lists(ANY_TEXT, max_size=12), st.lists(st.none() | ANY_TEXT, max_size=8))
@example(["", "a", "a", " ", "  ", "a  b"], ["", " ", "a", "a  b", None, "a,,b", "   "])
@example(["a a", "a", "a a a"], ["a a a", "a", "aa a"])
@example(["\0", "", "\0\0"], ["\0", "", "\0\0 \0"])
@example([], ["a"])
@example(["a"], [])
@settings(max_examples=300, deadline=None)
def test_is_the_substring_test(entries: list[str], texts: list[str | None]) -> None:
    matches = Matcher(entries).match(pa.array(texts, pa.string()))
    assert pairs(matches) == naive_matches(entries, texts)
    assert matches.rows.dtype == matches.entries.dtype == np.int64


def test_what_the_rule_means() -> None:
    entries = ["st. louis", "st", "louis", "Louis", "New York", "new  york", ",", "a", "a"]
    texts: list[str | None] = ["Louis, st. louis", "New York,a", "new  york", "New\nYork?", "NewYork"]
    found = [(texts[row], entries[k], k) for row, k in pairs(Matcher(entries).match(pa.array(texts)))]
    assert ("Louis, st. louis", "st. louis", 0) not in found
    assert ("New York,a", "a", 7) in found
    assert ("New York,a", "a", 8) in found
    assert ("new  york", "new  york", 5) in found
    assert ("New\nYork?", "New York", 4) in found
    assert pairs(Matcher(entries).match(pa.array(texts))) == naive_matches(entries, texts)


def zipfian_texts(count: int, seed: int) -> list[str | None]:
    drawn = random.Random(seed)
    words = [f"w{k:x}é"[: 1 + k % 5] for k in range(400)]
    return [" ".join(words[int(400 * drawn.random() ** 3)] for _ in range(drawn.randint(0, 30))) for _ in range(count)]


def test_many_texts_in_slices_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = zipfian_texts(400, seed=1)
    joined = " ".join(filter(None, texts)).split(" ")
    entries = [" ".join(joined[k : k + 1 + k % 7]) for k in range(0, 2000, 9)]
    whole = Matcher(entries).match(pa.array(texts))
    assert pairs(whole) == naive_matches(entries, texts)
    assert len(whole.rows) > 1000
    monkeypatch.setattr(matching, "_SLICE_BYTES", 100)
    chunked = pa.chunked_array([texts[:1], [], texts[1:150], texts[150:]], pa.large_string())
    assert pairs(Matcher(entries).match(chunked)) == pairs(whole)
    assert pairs(Matcher(entries).match(pa.array(["", *texts]).slice(1))) == pairs(whole)


def test_colliding_hashes_are_no_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Matcher, "_hash", lambda self, sums, starts, ends: np.zeros(len(starts), np.uint64))
    entries = ["a", "b", "abcdefgh", "abcdefgx", "abcdefghi", "abcdefghj", "a b", "", "a" * 40, "a" * 39 + "b"]
    texts: list[str | None] = ["a b", "abcdefghi abcdefgx", "a" * 39 + "b", "", "b  a"]
    assert pairs(Matcher(entries).match(pa.array(texts))) == naive_matches(entries, texts)


def test_hostile_texts_and_entries() -> None:
    entries = ["x" + " x" * 100, " " * 60, "x", "y" * 100_000]
    texts: list[str | None] = [" " * 100_000, "x " * 50_000, "y" * 100_000, "y" * 100_001, "," * 50_000]
    assert pairs(Matcher(entries).match(pa.array(texts))) == [(0, 1), (1, 0), (1, 2), (2, 3)]
