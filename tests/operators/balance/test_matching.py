"""Matching: the same pairs as the published substring tests, whatever the entries and the texts."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from captions import drawn_captions, emoji_languages, emoji_names, real_titles
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peers import peer

from corpusmith.operators.balance import matching
from corpusmith.operators.balance.matching import Matcher, Matches, Rule, needs_space, space_text, space_texts

FREE = re.compile(
    "[\u2e80-\u2fdf\u2ff0-\u2fff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ebef]"
    "|[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]"
    "|[!-/:-@\\[-`{-~]|[，。、；：？！“”‘’（）【】《》〈〉「」『』～—]"
)
"""Characters beside which the published code of MetaCLIP 2 wants no boundary."""


def naively_spaced(text: str) -> str:
    """The published rule, character by character."""
    rules = dict.fromkeys("\t\n\r", " ") | {mark: f" {mark} " for mark in ",.;:?!`"}
    return f" {''.join(rules.get(character, character) for character in text)} "


def naive_key(entry: str, rule: Rule) -> str | None:
    """What has to be a substring of a spaced text; None for an entry that matches nothing."""
    if rule == "metaclip":
        return f" {entry} "
    if not entry:
        return None
    return ("" if FREE.match(entry[0]) else " ") + entry + ("" if FREE.match(entry[-1]) else " ")


def naive_matches(
    entries: Sequence[str], texts: Sequence[str | None], rule: Rule = "metaclip"
) -> list[tuple[int, int]]:
    """The published loop: every entry against every text."""
    spaced = [(row, naively_spaced(text)) for row, text in enumerate(texts) if text is not None]
    keys = [(k, key) for k, entry in enumerate(entries) if (key := naive_key(entry, rule)) is not None]
    return [(row, k) for row, text in spaced for k, key in keys if key in text]


def matches_of_substrings(entries: Sequence[str], texts: Sequence[str], rule: Rule) -> list[tuple[int, int]]:
    """The same, for many: substrings of the texts, of all lengths that entries have, looked up in a dictionary."""
    owners, lengths = defaultdict(list), defaultdict(set)
    for k, entry in enumerate(entries):
        key = naive_key(entry, rule) or ""
        owners[key].append(k)
        lengths[key[:2]].add(len(key))
    found = []
    for row, text in enumerate(map(naively_spaced, texts)):
        keys = {
            text[i : i + length]
            for i in range(len(text))
            for n in (1, 2)
            for length in lengths.get(text[i : i + n], ())
        }
        found += [(row, k) for k in sorted(k for key in keys for k in owners.get(key, ()))]
    return found


def pairs(matches: Matches) -> list[tuple[int, int]]:
    return list(zip(matches.rows.tolist(), matches.entries.tolist(), strict=True))


def found(entries: Sequence[str], texts: Sequence[str | None], rule: Rule = "metaclip") -> list[tuple[int, int]]:
    """What the matcher finds, of which the counts are the same."""
    matcher, array = Matcher(entries, rule), pa.array(texts, pa.string())
    matches = matcher.match(array)
    assert matcher.counts(array).tolist() == np.bincount(matches.entries, minlength=len(entries)).tolist()
    return pairs(matches)


CROWDED = st.text(st.sampled_from("ab  ,\t."), max_size=14)
"""Few characters, many spaces: texts and entries that overlap and touch in every way."""
CROWDED_HAN = st.text(st.sampled_from("日本a の(,。ก "), max_size=9)
"""The same, with edges of all kinds."""
ANY_TEXT = st.one_of(
    CROWDED,
    CROWDED_HAN,
    st.text(max_size=20),
    st.sampled_from(["", " ", "  ", "a", "a b", " a", "a ", "\0", "é è", ".*", "[a-z]+", "سوشي", "(a", "a)", "日本の"]),
)


@given(ANY_TEXT)
@settings(deadline=None)
def test_spacing_is_the_published_rule(text: str) -> None:
    assert space_text(text) == naively_spaced(text)


def test_spacing_of_columns() -> None:
    assert space_text("St. Louis,\tMO\r\n") == " St .  Louis ,  MO   "
    texts = pa.array(["x", "a,b", None, ""])
    assert space_texts(texts.slice(1)).to_pylist() == [" a , b ", None, "  "]


@pytest.mark.parametrize("rule", ["metaclip", "metaclip2"])
@given(st.lists(ANY_TEXT, max_size=12), st.lists(st.none() | ANY_TEXT, max_size=8))
@example(["", "a", "a", " ", "  ", "a  b"], ["", " ", "a", "a  b", None, "a,,b", "   "])
@example(["a a", "a", "a a a"], ["a a a", "a", "aa a"])
@example(["\0", "", "\0\0"], ["\0", "", "\0\0 \0"])
@example(
    ["日", "本", "日本", "日 本", "日本 ", " 日", "a日", "日a", "a"], ["日本", "a日本a", " 日 本 ", "日本  ", "a日 日a"]
)
@example([], ["a"])
@example(["a"], [])
@settings(max_examples=200, deadline=None)
def test_is_the_substring_test(rule: Rule, entries: list[str], texts: list[str | None]) -> None:
    assert found(entries, texts, rule) == naive_matches(entries, texts, rule)


def test_what_the_rule_means() -> None:
    entries = ["st. louis", "st", "louis", "Louis", "New York", "new  york", ",", "a", "a"]
    texts: list[str | None] = ["Louis, st. louis", "New York,a", "new  york", "New\nYork?", "NewYork"]
    told = [(texts[row], entries[k], k) for row, k in found(entries, texts)]
    assert ("Louis, st. louis", "st. louis", 0) not in told
    assert ("New York,a", "a", 7) in told
    assert ("New York,a", "a", 8) in told
    assert ("new  york", "new  york", 5) in told
    assert ("New\nYork?", "New York", 4) in told
    assert found(entries, texts) == naive_matches(entries, texts)


@pytest.mark.parametrize(
    ("entry", "matching", "others"),
    [
        ("寿司", ["美味的寿司店", "寿司", "a寿司b"], ["寿 司"]),
        ("すし", ["すし", "の すし 。", "すし,"], ["おいしいすし", "すし。"]),
        ("스시", ["맛있는 스시"], ["스시를"]),
        ("カレー粉", ["カレー粉末", "a カレー粉。"], ["インドカレー粉"]),
        ("แมว", ["รูปแมวน่ารัก"], []),
        ("c++", ["c++", "learn c++14"], ["ac++"]),
        ("(cat)", ["a(cat)b"], ["( cat )"]),
        (".", ["a.b"], ["a"]),
        ("u.s.", [], ["the u.s. flag", "u.s."]),
        ("", [], ["", "  ", "a"]),
    ],
)
def test_what_metaclip2_means(entry: str, matching: list[str], others: list[str]) -> None:
    texts = matching + others
    assert [row for row, _ in found([entry], texts, "metaclip2")] == list(range(len(matching)))
    assert naive_matches([entry], texts, "metaclip2") == [(row, 0) for row in range(len(matching))]


def test_edges_are_those_of_the_published_code() -> None:
    characters = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    differing = [character for character in characters if needs_space(character) == bool(FREE.match(character))]
    assert differing == []


def zipfian_texts(count: int, seed: int) -> list[str | None]:
    drawn = random.Random(seed)
    words = [f"w{k:x}é"[: 1 + k % 5] for k in range(400)]
    return [" ".join(words[int(400 * drawn.random() ** 3)] for _ in range(drawn.randint(0, 30))) for _ in range(count)]


def test_many_texts_in_every_form_of_arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = zipfian_texts(400, seed=1)
    texts[7] = texts[200] = None
    joined = " ".join(filter(None, texts)).split(" ")
    entries = [" ".join(joined[k : k + 1 + k % 7]) for k in range(0, 2000, 9)]
    matcher = Matcher(pa.chunked_array([entries[:3], [], entries[3:]]))
    whole = matcher.match(pa.array(texts))
    assert pairs(whole) == naive_matches(entries, texts)
    assert len(whole.rows) > 1000
    assert whole.rows.dtype == whole.entries.dtype == np.int64
    monkeypatch.setattr(matching, "_SLICE_ROWS", 30)
    monkeypatch.setattr(matching, "_PAIRS", 8)
    longer = pa.array(["first", *texts, "last"])
    forms: dict[str, pa.Array | pa.ChunkedArray] = {
        "string": pa.array(texts),
        "large_string": pa.array(texts, pa.large_string()),
        "string_view": pa.array(texts, pa.string_view()),
        "dictionary": pa.array(texts).dictionary_encode(),
        "chunks": pa.chunked_array([texts[:1], [], texts[1:150], texts[150:]], pa.large_string()),
        "slice": longer.slice(1, len(texts)),
        "slice of views": longer.cast(pa.string_view()).slice(1, len(texts)),
        "slice of a dictionary": longer.dictionary_encode().slice(1, len(texts)),
        "slice of large strings": longer.cast(pa.large_string()).slice(1, len(texts)),
    }
    for name, form in forms.items():
        assert pairs(matcher.match(form)) == pairs(whole), name
        assert matcher.counts(form).tolist() == np.bincount(whole.entries, minlength=len(entries)).tolist(), name
    for empty in (pa.array([], pa.string()), pa.chunked_array([], pa.string()), pa.nulls(3), pa.nulls(3, pa.string())):
        assert pairs(matcher.match(empty)) == []


def as_strings(texts: Sequence[bytes]) -> pa.Array:
    """Bytes that Arrow takes for UTF-8 without a look."""
    binary = pa.array(texts, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(binary), binary.buffers())


RAW = st.lists(
    st.sampled_from([b"a", b" ", b",", b"\xe6", b"\x97", b"\xa5", b"\xff", b"\xf0", "日".encode(), b"\0"]), max_size=9
)


@pytest.mark.parametrize("rule", ["metaclip", "metaclip2"])
@given(st.lists(RAW.map(b"".join), max_size=6))
@example([b"\xf0", b"a\xe6", b"\xe6\x97", "日".encode() + b"\xa5", b"\xc3"])
@settings(max_examples=100, deadline=None)
def test_invalid_utf8_is_compared_as_bytes(rule: Rule, texts: list[bytes]) -> None:
    entries = ["a", "日", "a日", "日a", "日 ", "a a", "", "\0", "日日"]
    keys = [naive_key(entry, rule) for entry in entries]
    spaced = [b" " + text.replace(b",", b" , ") + b" " for text in texts]
    expected = [(i, k) for i, t in enumerate(spaced) for k, key in enumerate(keys) if key and key.encode() in t]
    assert pairs(Matcher(entries, rule).match(as_strings(texts))) == expected


def mixed(state: int, word: int) -> int:
    """A step of the hash; it can be undone, so that texts of one hash are easily made."""
    state = (state ^ word) * 0x9E3779B97F4A7C15 % (1 << 64)
    return state ^ state >> 32


def test_colliding_hashes_are_no_matches() -> None:
    drawn, entry, made = random.Random(0), b"abcdefghijklmnop", []
    words = [int.from_bytes(part, "little") for part in (entry[:8], entry[8:])]
    token = 0x452821E638D01377 ^ 16
    while len(made) < 20:
        first = int.from_bytes(drawn.randbytes(8), "little")
        second = mixed(token, words[0]) ^ words[1] ^ mixed(token, first)
        text = first.to_bytes(8, "little") + second.to_bytes(8, "little")
        assert mixed(mixed(token, first), second) == mixed(mixed(token, words[0]), words[1])
        if not set(text) & set(b" \t\n\r,.;:?!`"):
            made.append(text)
    matcher = Matcher([entry.decode(), "abcdefgh"])
    assert pairs(matcher.match(as_strings([*made, entry]))) == [(len(made), 0)]
    from corpusmith.operators.balance import matching_kernels as kernels

    hashed = [
        kernels._token_hash(matching._words(np.frombuffer(t + bytes(16), np.uint8)), 0, 16) for t in (entry, *made)
    ]
    assert len(set(hashed)) == 1


def test_hostile_texts_and_entries() -> None:
    entries = ["x" + " x" * 100, " " * 60, "x", "y" * 100_000]
    texts: list[str | None] = [" " * 100_000, "x " * 50_000, "y" * 100_000, "y" * 100_001, "," * 50_000]
    assert found(entries, texts) == [(0, 1), (1, 0), (1, 2), (2, 3)]
    assert found(["一" * n for n in range(1, 300)], ["一" * 100_000], "metaclip2") == [(0, k) for k in range(299)]


@pytest.mark.parametrize("piece", ["a ", " ", "(", "日本の "])
@pytest.mark.parametrize("rule", ["metaclip", "metaclip2"])
def test_time_is_linear_in_one_long_text(rule: Rule, piece: str) -> None:
    entries = [piece * n for n in range(1, 80)] + [(piece * n).strip() for n in range(1, 80)]
    matcher = Matcher(entries, rule)

    def seconds(size_bytes: int) -> float:
        text = pa.array([piece * (size_bytes // len(piece.encode()))])
        begun = time.thread_time()
        matcher.counts(text)
        return time.thread_time() - begun

    seconds(1000)
    small_s, large_s = (min(seconds(size) for _ in range(2)) for size in (1 << 16, 1 << 19))
    assert large_s < 3 * 8 * small_s + 0.05  # quadratic: 64 times


def real_pool() -> tuple[list[str], list[str]]:
    """20,000 captions in fourteen languages, and 30,000 entries made of names, words and pairs, 1,000 of them twice."""
    drawn = random.Random(0)
    names = [name for language in emoji_languages() for name in emoji_names(language)]
    captions = next(drawn_captions(8_000, seed=5)).to_pylist()
    captions += [
        drawn.choice(["{}{}", "{} {}", "{}，{}", "{} ({})"]).format(*drawn.sample(names, 2)) for _ in range(12_000)
    ]
    words = [word for title in (*real_titles(), *names[::3]) for word in title.split(" ")]
    distinct = list(dict.fromkeys([*names, *words, *map(" ".join, pairwise(words))]))
    entries = drawn.sample(distinct, 29_000)
    return drawn.sample([*entries, *entries[:1000]], 30_000), captions


@pytest.mark.parametrize("rule", ["metaclip", "metaclip2"])
def test_real_captions_in_many_languages(rule: Rule) -> None:
    entries, captions = real_pool()
    matches = found(entries, captions, rule)
    assert matches == matches_of_substrings(entries, captions, rule)
    assert len(matches) > 50_000
    assert matches_of_substrings(entries[:500], captions[:200], rule) == naive_matches(
        entries[:500], captions[:200], rule
    )


def test_threads_share_a_matcher_and_copies_find_the_same() -> None:
    entries, captions = real_pool()
    matcher, texts = Matcher(entries, "metaclip2"), pa.array(captions[7_000:10_000])
    whole = pairs(matcher.match(texts))
    with ThreadPoolExecutor(4) as pool:
        assert all(pairs(matches) == whole for matches in pool.map(matcher.match, [texts] * 8))
    arrays: list[pickle.PickleBuffer] = []
    plain = pickle.dumps(matcher, protocol=5, buffer_callback=arrays.append)
    assert len(plain) < 10_000
    copy = pickle.loads(plain, buffers=[bytes(array.raw()) for array in arrays])  # cannot be written to, as in Ray
    assert pairs(copy.match(texts)) == whole


@pytest.mark.parametrize("rule", ["metaclip", "metaclip2"])
@pytest.mark.parametrize(
    ("entries", "problem"),
    [(pa.array(["a", None]), "null"), (as_strings([b"a", b"\xff"]), "UTF-8"), (as_strings([b"\xe6\x97"]), "UTF-8")],
)
def test_lists_that_are_none(rule: Rule, entries: pa.Array, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Matcher(entries, rule)


AUTOMATON = """
import hashlib, json, sys, ahocorasick
keys, texts = json.load(open(sys.argv[1]))
automaton = ahocorasick.Automaton()
for k, key in enumerate(keys):
    automaton.add_word(key, k)
automaton.make_automaton()
found = [(row, k) for row, text in enumerate(texts) for k in sorted({k for _, k in automaton.iter(text)})]
print(len(found), hashlib.sha256(repr(found).encode()).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rule", ["metaclip", "metaclip2"])
def test_finds_what_pyahocorasick_finds(rule: Rule, tmp_path: Path) -> None:
    python = peer("matching", ["pyahocorasick==2.3.1", "ahocorasick_rs==1.0.3", "daachorse==0.5.0"])
    drawn = random.Random(6)
    names, captions = real_pool()
    captions += [text for batch in drawn_captions(30_000, seed=8) for text in batch.to_pylist()]
    words = [word for text in captions for word in text.split(" ")]
    listed = dict.fromkeys(names)
    while len(listed) < 500_000:
        listed[" ".join(drawn.choices(words, k=drawn.choice([1, 2, 2, 3])))] = None
    entries = [entry for entry in listed if entry]
    keys = [naive_key(entry, rule) for entry in entries]
    (tmp_path / "pool.json").write_text(json.dumps([keys, list(map(naively_spaced, captions))]))
    told = subprocess.check_output([str(python), "-c", AUTOMATON, str(tmp_path / "pool.json")], text=True).split()
    matches = found(entries, captions, rule)
    assert [str(len(matches)), hashlib.sha256(repr(matches).encode()).hexdigest()] == told
