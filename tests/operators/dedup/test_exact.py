"""dedup.exact: the groups of a dictionary, the same representative in any order, and no row without a decision."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from shuffled import ShuffledRows, table_of

from corpusmith.operators import duck
from corpusmith.operators.contract import Reduced
from corpusmith.operators.dedup.exact import Exact
from corpusmith.operators.registry import operator_class


def decide(table: pa.Table, folder: Path, order: int = 0, **config: Any) -> tuple[dict[str, dict[str, Any]], Reduced]:
    reduced = Exact(Exact.Config(**config)).reduce(ShuffledRows(table, folder, order))
    decisions = {row["uid"]: row for row in reduced.decisions.to_pylist()}
    assert len(decisions) == reduced.decisions.num_rows == table.num_rows
    return decisions, reduced


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def expected(table: pa.Table, on: Sequence[str], prefer: str | None = None) -> dict[str, dict[str, Any]]:
    """The rule, with a dictionary of lists."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    decisions: dict[str, dict[str, Any]] = {}
    for row in table.to_pylist():
        absent = [name for name in on if is_missing(row[name])]
        blank = {"uid": row["uid"], "fate": None, "reason": None, "error": None}
        decisions[row["uid"]] = {**blank, "dedup_group": None, "dedup_size": None}
        if absent:
            decisions[row["uid"]] |= {"fate": "failed", "error": f"missing {absent[0]}"}
        else:
            groups.setdefault(tuple(row[name] for name in on), []).append(row)
    for rows in groups.values():
        scores = [(row[prefer], row) for row in rows if not is_missing(row[prefer])] if prefer else []
        top = max((score for score, _ in scores), default=None)
        best = [row for score, row in scores if score == top] or rows
        kept = min(row["uid"] for row in best)
        for row in rows:
            decision = decisions[row["uid"]]
            decision |= {"dedup_group": kept, "dedup_size": len(rows)}
            if row["uid"] != kept:
                decision |= {"fate": "rejected", "reason": f"duplicate {', '.join(on)}: of {kept}"}
    return decisions


TEXT = (
    st.none() | st.text(max_size=3) | st.sampled_from(["", " ", "a", "A", "a ", "a\0", "\0", "é", "e\u0301", "ß", "ss"])
)
ROW = st.tuples(TEXT, TEXT, st.none() | st.sampled_from([0.0, -0.0, 1.5, -2.0, math.inf, -math.inf, math.nan]))


@given(
    rows=st.lists(ROW, max_size=30),
    on=st.sampled_from([["caption"], ["Caption", "caption"], ["score"]]),
    prefer=st.sampled_from([None, "score"]),
    order=st.integers(0, 99),
)
@example(rows=[("x", "'", math.nan), ("x", "'", None), ("x", "'", -1.0)], on=["caption"], prefer="score", order=0)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_is_the_rule(
    tmp_path: Path, rows: list[tuple[Any, ...]], on: list[str], prefer: str | None, order: int
) -> None:
    first, second, scores = ([row[i] for row in rows] for i in range(3))
    table = table_of(
        caption=pa.array(first, pa.string()),
        Caption=pa.array(second, pa.string()),
        score=pa.array(scores, pa.float64()),
    )
    decisions, reduced = decide(table, tmp_path, order, on=on, prefer=prefer)
    assert decisions == expected(table, on, prefer)
    fates = [decision["fate"] for decision in decisions.values()]
    told = (reduced.summary["groups"], reduced.summary["dropped"], reduced.summary["failed"])
    assert told == (fates.count(None), fates.count("rejected"), fates.count("failed"))


@pytest.mark.parametrize(
    "values",
    [
        pa.array([3, 3, None, 2**62, 2**62 + 1]),
        pa.array([b"\xff", b"\xff", None, b"", b"\0"]),
        pa.array([["a"], ["a"], None, [], [None]], pa.list_(pa.string())),
        pa.array(["a", "a", None, "b", "a"], pa.large_string()),
        pa.array([True, True, None, False, False]),
    ],
    ids=lambda values: str(values.type),
)
def test_columns_of_other_types(tmp_path: Path, values: pa.Array) -> None:
    table = table_of(key=values)
    decisions, _ = decide(table, tmp_path, on=["key"])
    sizes = [decisions[uid]["dedup_size"] for uid in table.column("uid").to_pylist()]
    plain = values.to_pylist()
    assert sizes == [None if value is None else plain.count(value) for value in plain]


def test_order_means_nothing(tmp_path: Path) -> None:
    drawn = random.Random(3)
    table = table_of(
        url=[f"http://example.org/{drawn.randint(0, 300)}" for _ in range(2000)],
        width=[drawn.choice([None, 100, 200]) for _ in range(2000)],
    )
    outcomes = [decide(table, tmp_path, order, on=["url"], prefer="width")[0] for order in range(3)]
    assert outcomes[0] == outcomes[1] == outcomes[2] == expected(table, ["url"], "width")
    kept = [decision["uid"] for decision in outcomes[0].values() if decision["fate"] is None]
    again = table.filter(pa.array([uid in set(kept) for uid in table.column("uid").to_pylist()]))
    assert all(decision["fate"] is None for decision in decide(again, tmp_path, on=["url"])[0].values())


def test_captions_larger_than_memory_spill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duck, "MEMORY_BYTES", 48_000_000)
    monkeypatch.setattr(duck, "THREADS", 1)
    captions = [f"{'long caption ' * 75}{i % 40_000}" for i in range(80_000)]
    assert sum(map(len, captions)) > 1.5 * duck.MEMORY_BYTES
    decisions, reduced = decide(table_of(caption=captions), tmp_path, on=["caption"])
    assert reduced.summary == {"rows": 80_000, "groups": 40_000, "dropped": 40_000, "failed": 0, "largest": 2}
    assert {decision["dedup_size"] for decision in decisions.values()} == {2}


def test_no_rows(tmp_path: Path) -> None:
    decisions, reduced = decide(table_of(caption=pa.array([], pa.string())), tmp_path, on=["caption"])
    assert decisions == {}
    assert reduced.summary == {"rows": 0, "groups": 0, "dropped": 0, "failed": 0, "largest": 0}


def test_what_recipes_write() -> None:
    assert operator_class("dedup.exact") is Exact
    assert Exact(Exact.Config(on=("url", "caption"), prefer="width")).requires == ("url", "caption", "width")
    assert Exact(Exact.Config(on=("width",), prefer="width")).requires == ("width",)
    for wrong in ({}, {"on": ()}, {"on": ["url"], "keep": "first"}):
        with pytest.raises(ValidationError):
            Exact.Config.model_validate(wrong)
