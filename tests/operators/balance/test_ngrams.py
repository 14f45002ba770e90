"""Words and pairs of texts: counted as a plain loop does, chosen by the published rule, in whatever batches."""

from __future__ import annotations

import math
import random
import string
import unicodedata
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from captions import drawn_captions, emoji_languages, emoji_names
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpusmith.operators.balance.matching import space_text
from corpusmith.operators.balance.ngrams import Choice, Grams, count_grams
from corpusmith.operators.balance.words import NO_SPACE_LANGUAGES, PUNCTUATION, words_and_pairs

Text = str | None
Row = tuple[Text, Text]
"""A text and its language."""


def naive_words(text: str, language: Text) -> list[str | None]:
    """Words in their order, None where a pair does not reach across; one character at a time."""
    if language in (None, "en"):
        return [token if any(c.isalnum() for c in token) else None for token in space_text(text).split(" ")]
    words: list[str | None] = []
    run, kind, is_open = "", "", False
    for character in [*text, " "]:
        new = naive_kind(character, language)
        is_mark = language in NO_SPACE_LANGUAGES and unicodedata.category(character).startswith("M") and is_open
        if is_mark and kind != "run":
            run += character
            continue
        if new in ("run", "katakana") and new == kind:
            run += character
            continue
        if run:
            words.append(run if kind != "punctuation" else None)
        run, kind, is_open = ("", "", False) if new == "white" else (character, new, new != "katakana")
    return words


def naive_kind(character: str, language: str) -> str:
    code = ord(character)
    if character.isspace():
        return "white"
    is_other_punctuation = language in NO_SPACE_LANGUAGES and unicodedata.category(character).startswith("P")
    if character in PUNCTUATION or is_other_punctuation:
        return "punctuation"
    if 0x4E00 <= code <= 0x9FFF or 0x0E00 <= code <= 0x0EFF:
        return "alone"
    name = unicodedata.name(character, "")
    if language in NO_SPACE_LANGUAGES and name.startswith("HIRAGANA"):
        return "alone"
    if language in NO_SPACE_LANGUAGES and name.startswith("KATAKANA"):
        return "katakana"
    return "run"


def naive(rows: list[Row], choice: Choice) -> list[tuple[str, str, Text, int, float | None]]:
    """The rule, with counters."""
    found: list[tuple[str, str, Text, int, float | None]] = []
    for language in sorted({language or "" for _, language in rows}):
        words: Counter[str] = Counter()
        pairs: Counter[tuple[str, str]] = Counter()
        for text, own in rows:
            if text is None or (own or "") != language:
                continue
            listed = naive_words(text, own or None)
            words.update(word for word in listed if word is not None)
            pairs.update((a, b) for a, b in pairwise(listed) if a is not None and b is not None)
        most = int(len(words) * choice.word_share)
        most = most if choice.max_words is None else min(most, choice.max_words)
        ranked = sorted((w for w in words if words[w] >= choice.min_count), key=lambda w: (-words[w], w.encode()))
        found += [(w, "unigram", language or None, words[w], None) for w in ranked[:most]]
        if choice.min_pmi is None:
            continue
        bits = {p: math.log2(n * words.total() / (words[p[0]] * words[p[1]])) for p, n in pairs.items()}
        tied = [p for p in pairs if pairs[p] >= choice.min_pair_count and bits[p] >= choice.min_pmi]
        tied.sort(key=lambda p: (-bits[p], -pairs[p], " ".join(p).encode()))
        between = "" if language in NO_SPACE_LANGUAGES else " "
        found += [(between.join(p), "bigram", language or None, pairs[p], bits[p]) for p in tied[: choice.max_pairs]]
    return found


def counted(rows: list[Row], choice: Choice, size: int, scratch: Path) -> Grams:
    starts = range(0, len(rows), size)
    batches = (
        (
            pa.array([text for text, _ in rows[start : start + size]], pa.string()),
            pa.array([language for _, language in rows[start : start + size]], pa.string()),
        )
        for start in starts
    )
    return count_grams(batches, choice, str(scratch))


def assert_equal(found: Grams, expected: list[tuple[str, str, Text, int, float | None]]) -> None:
    rows = [tuple(row.values()) for row in found.table.to_pylist()]
    assert [row[:4] for row in rows] == [row[:4] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row[4] == (None if other[4] is None else pytest.approx(other[4], abs=1e-9))


PIECES = st.sampled_from(
    [*"aAbé7.-,！“・", "", "\n", "\u3000", "猫", "犬", "ねこ", "カメラ", "กำ", "ab", "😀", "-a", "l'a"]
)
ROWS = st.lists(
    st.tuples(
        st.none() | st.lists(PIECES, max_size=9).flatmap(lambda p: st.sampled_from([" ".join(p), "".join(p)])),
        st.sampled_from([None, "en", "fr", "ja", "th", ""]),
    ),
    max_size=12,
)
CHOICES = st.builds(
    Choice,
    min_count=st.integers(1, 3),
    word_share=st.sampled_from([1.0, 0.5]),
    max_words=st.none() | st.integers(1, 4),
    # off the values that counts can give, so that a last bit does not decide
    min_pmi=st.none() | st.sampled_from([-99.0, 0.3001, 1.1001]),
    min_pair_count=st.integers(1, 2),
    max_pairs=st.none() | st.integers(1, 4),
)


@given(ROWS, CHOICES, st.integers(1, 13))
@settings(max_examples=35, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_words_and_pairs_are_the_rule(tmp_path: Path, rows: list[Row], choice: Choice, size: int) -> None:
    assert_equal(counted(rows, choice, size, tmp_path), naive(rows, choice))


def test_real_texts_of_fourteen_languages(tmp_path: Path) -> None:
    rows: list[Row] = [(name, language) for language in emoji_languages() for name in emoji_names(language)[:400]]
    choice = Choice(min_count=2, min_pmi=4.0001, min_pair_count=2)
    expected = naive(rows, choice)
    assert len({language for *_, language, _, _ in expected}) == 14
    assert_equal(counted(rows, choice, 1000, tmp_path), expected)


def test_order_and_batches_do_not_matter(tmp_path: Path) -> None:
    texts = [text for batch in drawn_captions(3000, 3) for text in batch.to_pylist()]
    rows: list[Row] = [(text, None) for text in texts]
    choice = Choice(min_count=3, min_pmi=3.0, min_pair_count=2, max_pairs=500)
    first = counted(rows, choice, 3000, tmp_path)
    assert first.table.num_rows > 500
    for size in (47, 500):
        random.Random(size).shuffle(rows)
        assert counted(rows, choice, size, tmp_path).table.equals(first.table)


def test_every_entry_matches_a_text_that_it_comes_from(tmp_path: Path) -> None:
    texts = next(iter(drawn_captions(300, 4)))
    entries = count_grams([(texts, None)], Choice(min_count=1, min_pmi=-99.0), str(tmp_path)).table.column("entry")
    # no spaced text holds a newline, so that nothing matches across two of them
    spaced = "\n".join(map(space_text, texts.to_pylist()))
    assert len(entries) > 1000
    assert [entry for entry in entries.to_pylist() if f" {entry} " not in spaced] == []


def test_pmi_is_that_of_nltk(tmp_path: Path) -> None:
    # "new york" 4 times, "new" 5, "york" 4, of 20 words: log2(4 * 20 / (5 * 4))
    texts = pa.array([*["in new york city"] * 4, "the new one a"])
    table = count_grams([(texts, None)], Choice(min_count=1, min_pmi=-99.0), str(tmp_path)).table
    (pair,) = [row for row in table.to_pylist() if row["entry"] == "new york"]
    assert (pair["count"], pair["pmi"]) == (4, 2.0)


def test_a_threshold_out_of_reach_is_told(tmp_path: Path) -> None:
    texts = pa.array(["red panda", "red panda", "red car"])
    found = count_grams([(texts, None)], Choice(min_count=1, min_pmi=30.0), str(tmp_path))
    assert found.words == 6
    assert found.highest_pmi == pytest.approx(math.log2(2 * 6 / (3 * 2)))
    assert count_grams([(texts, None)], Choice(min_count=1, min_pmi=1e9), str(tmp_path)).table.num_rows == 3
    assert count_grams([(texts, None)], Choice(min_count=1), str(tmp_path)).highest_pmi is None


@pytest.mark.parametrize(
    ("language", "text", "words", "pairs"),
    [
        (None, "A cat, a\tdog!", ["A", "cat", "a", "dog"], ["A cat", "a dog"]),
        (None, "a  b", ["a", "b"], []),
        (None, "... , -", [], []),
        ("fr", "l'été  chaud", ["l", "été", "chaud"], ["été chaud"]),
        ("fr", "東京 2", ["東", "京", "2"], ["東 京", "京 2"]),
        ("ko", "한국 여행", ["한국", "여행"], ["한국 여행"]),
        ("zh", "一只猫。狗", ["一", "只", "猫", "狗"], ["一 只", "只 猫"]),
        ("ja", "カメラの写真", ["カメラ", "の", "写", "真"], ["カメラ の", "の 写", "写 真"]),
        ("th", "กินน้ำ", ["กิ", "น", "น้", "ำ"], ["กิ น", "น น้", "น้ ำ"]),
        ("fr", "", [], []),
        ("zh", " \x1c\u3000", [], []),
    ],
)
def test_words_of_languages(language: str | None, text: str, words: list[str], pairs: list[str]) -> None:
    found = [part.to_pylist() for part in words_and_pairs(pa.array([text]), language, has_pairs=True)]
    assert found[0] == words
    assert (found[1] if len(found) > 1 else []) == pairs


def test_hostile_texts(tmp_path: Path) -> None:
    texts = pa.array(["", None, "x" * 1_000_000, "ab " * 300_000, "\u202eab\u202c", "a\0b", ".*", string.punctuation])
    for language in (None, "zh"):
        languages = pa.repeat(pa.scalar(language, pa.string()), len(texts))
        found = count_grams([(texts, languages)], Choice(min_count=1, min_pmi=-99.0), str(tmp_path)).table
        counts = dict(zip(found.column("entry").to_pylist(), found.column("count").to_pylist(), strict=True))
        assert counts["ab"] == 300_000
        assert counts["x" * 1_000_000] == 1


@pytest.mark.parametrize("texts", [[], [pa.array([], pa.string())], [pa.nulls(3, pa.string())]])
def test_no_texts(tmp_path: Path, texts: list[pa.Array]) -> None:
    found = count_grams(((batch, None) for batch in texts), Choice(min_pmi=1.0), str(tmp_path))
    assert (found.table.num_rows, found.words, found.highest_pmi) == (0, 0, None)
