"""text_counts: the counts of a Python dictionary, in whatever order rows come, spilling where memory is short."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from shuffled import ShuffledRows, table_of

from corpusmith.operators import duck
from corpusmith.operators.contract import Reduced
from corpusmith.operators.registry import operator_class
from corpusmith.operators.text.text_counts import TextCounts


def count(table: pa.Table, folder: Path, order: int = 0, **config: Any) -> tuple[dict[str, dict[str, Any]], Reduced]:
    operator = TextCounts(TextCounts.Config(**config))
    reduced = operator.reduce(ShuffledRows(table, folder, order))
    names = [column.name for column in operator.produces]
    assert reduced.decisions.schema.names == ["uid", "fate", "reason", "error", *names]
    decisions = {row["uid"]: row for row in reduced.decisions.to_pylist()}
    assert len(decisions) == reduced.decisions.num_rows == table.num_rows
    return decisions, reduced


def simple_case(text: str) -> str:
    """One character for one: upper, then lower."""
    upper = [c.upper() if len(c.upper()) == 1 else c for c in text]
    return "".join(c.lower() if len(c.lower()) == 1 else "i" if c == "İ" else c for c in upper)


def reference_key(text: str | None, *, ignore_case: bool, collapse_spaces: bool) -> str | None:
    if text is None:
        return None
    text = " ".join(text.split()) if collapse_spaces else text
    return simple_case(text) if ignore_case else text


PIECES = ["a", "A", " ", "  ", "\t", "\u3000", "\u00a0", "\n", "é", "e\u0301", "É", "ß", "ss", "ẞ", "ς", "σ", "Σ", "ſ",
          "s", "K", "k", "Ω", "ﬁ", "fi", "İ", "i", "I", "\0", "שלום", "日本", "\u202e", "🚀", "ǅ", "Ǆ"]  # fmt: skip
TEXT = st.none() | st.lists(st.sampled_from(PIECES), max_size=3).map("".join)


@given(
    texts=st.lists(TEXT, max_size=30), ignore_case=st.booleans(), collapse_spaces=st.booleans(), order=st.integers(0)
)
@example(texts=["", None, " "], ignore_case=False, collapse_spaces=False, order=0)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_is_the_rule(
    tmp_path: Path, texts: list[str | None], ignore_case: bool, collapse_spaces: bool, order: int
) -> None:
    table = table_of(caption=pa.array(texts, pa.string()))
    rule = {"ignore_case": ignore_case, "collapse_spaces": collapse_spaces}
    decisions, reduced = count(table, tmp_path, order, **rule)
    keys = [reference_key(text, **rule) for text in texts]
    counts = Counter(key for key in keys if key is not None)
    for uid, key in zip(table.column("uid").to_pylist(), keys, strict=True):
        known = (None, None, counts[key]) if key is not None else ("failed", "missing caption", None)
        decision = decisions[uid]
        assert (decision["fate"], decision["error"], decision["text_count"]) == known
        assert decision["reason"] is None
    assert reduced.summary == {
        "rows": len(texts),
        "texts": len(counts),
        "repeated": sum(n for n in counts.values() if n > 1),
        "largest": max(counts.values(), default=0),
        "failed": keys.count(None),
    }


def test_order_means_nothing(tmp_path: Path) -> None:
    drawn = random.Random(5)
    table = table_of(caption=[f"{drawn.choice('aA')} {drawn.randint(0, 200)}" for _ in range(3000)])
    outcomes = [count(table, tmp_path, order)[0] for order in range(3)]
    assert outcomes[0] == outcomes[1] == outcomes[2]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_other_string_types(tmp_path: Path, kind: pa.DataType) -> None:
    table = table_of(title=pa.array(["a", "A ", None, "b"], pa.string()).cast(kind))
    decisions, _ = count(table, tmp_path, column="title")
    assert [decisions[uid]["title_text_count"] for uid in table.column("uid").to_pylist()] == [2, 2, None, 1]


def test_texts_larger_than_memory_spill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duck, "MEMORY_BYTES", 48_000_000)
    monkeypatch.setattr(duck, "THREADS", 1)
    captions = [f"{'long caption ' * 120}{i % 15_000}" for i in range(45_000)]
    assert sum(map(len, captions)) > 1.4 * duck.MEMORY_BYTES
    _, reduced = count(table_of(caption=captions), tmp_path)
    assert reduced.summary == {"rows": 45_000, "texts": 15_000, "repeated": 45_000, "largest": 3, "failed": 0}


def test_texts_of_a_megabyte(tmp_path: Path) -> None:
    long = "long " * 200_000
    decisions, _ = count(table_of(caption=[long, long.upper(), long + "x"]), tmp_path)
    assert sorted(decision["text_count"] for decision in decisions.values()) == [1, 2, 2]


def test_what_recipes_write() -> None:
    assert operator_class("text_counts") is TextCounts
    assert TextCounts().requires == ("caption",)
    assert [column.name for column in TextCounts().produces] == ["text_count"]
