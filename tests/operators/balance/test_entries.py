"""Lists joined of several sources: in their order, nothing twice but what a list itself has twice."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from wordnet_files import write_wordnet

from corpusmith.operators.balance.entries import Part, join, listed_part, numbers_part, wordnet_part
from corpusmith.operators.balance.entry_files import SCHEMA
from corpusmith.operators.balance.words import PUNCTUATION

Entry = tuple[str, str | None]
MAX_CHARS = 5
ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(["", "a", " a", "A", "b", "!", "?。", "-a", "aaaaa", "aaaaaa"]),
        st.sampled_from([None, "en", "fr"]),
    ),
    max_size=8,
)
PARTS = st.lists(st.tuples(ENTRIES, st.booleans()), max_size=4)


def part(entries: list[Entry], *, is_listed: bool) -> Part:
    texts = pa.array([entry for entry, _ in entries], pa.large_string())
    languages = pa.array([language for _, language in entries], pa.string())
    if is_listed:
        return listed_part(texts, languages, None)
    sources = pa.array(["unigram"] * len(entries), pa.string())
    return Part(pa.table({"entry": texts, "source": sources, "language": languages}))


def naive_join(parts: list[tuple[list[Entry], bool]]) -> tuple[list[Entry], int]:
    taken: list[Entry] = []
    for entries, is_listed in parts:
        before = set(taken)
        for text, language in entries:
            entry = text if is_listed else text.strip()
            if not is_listed and (len(entry) > MAX_CHARS or all(c in PUNCTUATION for c in entry)):
                continue
            seen = before if is_listed else set(taken)
            # what stands for all languages before the source began stands for each
            if (entry, language) not in seen and (entry, None) not in before:
                taken.append((entry, language))
    return taken, sum(len(entries) for entries, _ in parts) - len(taken)


@given(PARTS)
@settings(deadline=None)
def test_join_is_the_rule(parts: list[tuple[list[Entry], bool]]) -> None:
    joined = join([part(entries, is_listed=is_listed) for entries, is_listed in parts], MAX_CHARS)
    expected, left_out = naive_join(parts)
    found = joined.table.select(["entry", "language"]).to_pylist()
    assert [(row["entry"], row["language"]) for row in found] == expected
    assert joined.left_out.total() == left_out
    assert joined.table.schema == SCHEMA


def test_sources_in_the_published_order(tmp_path: Path) -> None:
    write_wordnet(tmp_path)
    own = part([("7", "en"), ("dog", "en"), ("Dog", "en"), ("dog", "fr")], is_listed=False)
    joined = join([wordnet_part(str(tmp_path), "en"), own])
    rows = joined.table.to_pylist()
    assert [row["entry"] for row in rows[:101]] == [*map(str, range(100)), "entity"]
    assert {row["language"] for row in rows[:100]} == {None}
    assert {row["language"] for row in rows[100:-2]} == {"en"}
    assert [(row["entry"], row["language"], row["source"]) for row in rows[-2:]] == [
        ("Dog", "en", "unigram"),
        ("dog", "fr", "unigram"),
    ]
    assert joined.left_out == {"there already": 2}


def test_a_language_for_lists_that_name_none() -> None:
    texts = pa.array(["cat", "chat", "cat"], pa.large_string())
    named = listed_part(texts, pa.array([None, "fr", None], pa.string()), "en")
    assert named.table.column("language").to_pylist() == ["en", "fr", "en"]
    assert listed_part(texts, None, "en").table.column("language").to_pylist() == ["en"] * 3
    assert join([named]).table.column("entry").to_pylist() == ["cat", "chat", "cat"]


def test_nothing_to_join() -> None:
    assert join([]).table.num_rows == 0
    assert join([numbers_part(), numbers_part()]).table.num_rows == 100
