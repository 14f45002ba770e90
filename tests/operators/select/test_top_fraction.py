"""top_fraction: the rule with sorted(), ties included, the same survivors in any order."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from captions import real_titles
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from shuffled import ShuffledRows, decided, table_of

from corpusmith.operators.contract import Reduced
from corpusmith.operators.registry import operator_class
from corpusmith.operators.select.top_fraction import TopFraction
from corpusmith.schemas.errors import UserError


def decide(table: pa.Table, folder: Path, order: int = 0, **config: Any) -> tuple[dict[str, dict[str, Any]], Reduced]:
    reduced = TopFraction(TopFraction.Config(**config)).reduce(ShuffledRows(table, folder, order))
    found = {row["uid"]: row for row in decided(reduced).to_pylist()}
    assert len(found) == table.num_rows
    return found, reduced


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def expected(table: pa.Table, within: str | None, *, lowest: bool, wanted: Any) -> dict[str, tuple[Any, ...]]:
    """Fate, error and rank of each row, with sorted() and a dictionary of lists."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    found: dict[str, tuple[Any, ...]] = {}
    for row in table.to_pylist():
        if is_missing(row["score"]):
            found[row["uid"]] = ("failed", "missing score", None)
        elif within and row[within] is None:
            found[row["uid"]] = ("failed", f"missing {within}", None)
        else:
            groups.setdefault(row[within] if within else None, []).append(row)
    for rows in groups.values():
        sign = 1 if lowest else -1
        ranked = sorted(rows, key=lambda row: (sign * row["score"], row["uid"]))
        stays = {row["uid"] for row in ranked[: wanted(len(rows))]}
        for row in rows:
            rank = sum(sign * other["score"] <= sign * row["score"] for other in rows) / len(rows)
            found[row["uid"]] = (None if row["uid"] in stays else "rejected", None, rank)
    return found


SCORE = st.none() | st.sampled_from([0.0, -0.0, 0.25, 0.5, 1e-300, math.inf, -math.inf, math.nan]) | st.floats(-1, 1)
WHOLE = st.none() | st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**53, 2**53 + 1, -1, 0])
LANGUAGE = st.none() | st.sampled_from(["en", "de", "日本", ""])


@given(
    scores=st.one_of(
        st.lists(st.tuples(SCORE, LANGUAGE), max_size=40), st.lists(st.tuples(WHOLE, LANGUAGE), max_size=40)
    ),
    bound=st.sampled_from([0.001, 0.29, 0.3, 0.5, 1.0, 1, 7, 100]),
    lowest=st.booleans(),
    within=st.sampled_from([None, "language"]),
    order=st.integers(0, 99),
)
@example(scores=[(0.25, "en")] * 10, bound=0.3, lowest=False, within=None, order=1)
@example(scores=[(2**53, "en"), (2**53 + 1, "en")], bound=1, lowest=False, within=None, order=0)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_is_the_rule(
    tmp_path: Path, scores: list[tuple[Any, Any]], bound: float, lowest: bool, within: str | None, order: int
) -> None:
    is_whole = any(isinstance(score, int) for score, _ in scores)
    values = pa.array([score for score, _ in scores], pa.int64() if is_whole else pa.float64())
    table = table_of(score=values, language=pa.array([language for _, language in scores], pa.string()))
    config = {"rows": bound} if isinstance(bound, int) else {"keep": bound}

    def wanted(size: int) -> int:
        return min(bound, size) if isinstance(bound, int) else max(1, math.floor(Fraction(str(bound)) * size))

    found, reduced = decide(table, tmp_path, order, by="score", lowest=lowest, within=within, **config)
    told = {uid: (row["fate"], row["error"], row["score_rank"]) for uid, row in found.items()}
    assert told == expected(table, within, lowest=lowest, wanted=wanted)
    assert all((row["reason"] is not None) == (row["fate"] == "rejected") for row in found.values())
    fates = Counter(fate for fate, _, _ in told.values())
    counts = {"kept": fates[None], "dropped": fates["rejected"], "failed": fates["failed"], "rows": len(scores)}
    assert {name: reduced.summary[name] for name in counts} == counts


def test_the_order_of_rows_means_nothing(tmp_path: Path) -> None:
    titles = real_titles()[:3000]
    lengths = pa.array([len(title) for title in titles], pa.int32())  # a few values: many ties at the cut
    table = table_of(length=lengths, first=[title[:1].lower() for title in titles])
    outcomes = []
    for order in range(4):
        found, reduced = decide(table, tmp_path, order, by="length", keep=0.3, within="first")
        outcomes.append((found, reduced.summary))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    kept = {uid for uid, row in outcomes[0][0].items() if row["fate"] is None}
    fewer = {
        uid for uid, row in decide(table, tmp_path, by="length", keep=0.1, within="first")[0].items() if not row["fate"]
    }
    assert fewer < kept


def test_a_share_is_exact_as_written_and_the_cut_is_told(tmp_path: Path) -> None:
    table = table_of(score=[i / 100 for i in range(100)])
    found, reduced = decide(table, tmp_path, by="score", keep=0.29)  # 0.29 * 100 is 28.999… in floating point
    assert Counter(row["fate"] for row in found.values()) == {None: 29, "rejected": 71}
    assert reduced.summary == {"rows": 100, "kept": 29, "dropped": 71, "failed": 0, "cut": 0.71}
    reasons = sorted(row["reason"] for row in found.values() if row["reason"])
    assert reasons[-1] == "top 0.29 by score: 0.7, cut >= 0.71"
    ranks = {row["score_rank"]: row["fate"] for row in found.values()}
    assert all((rank <= 0.29) == (fate is None) for rank, fate in ranks.items())


@pytest.mark.parametrize(
    ("type", "told"),
    [
        (pa.float16(), "lowest 1 rows by score within kind: a 0.5, cut <= 0.5, tied by uid"),
        (pa.float32(), "lowest 1 rows by score within kind: a 0.5, cut <= 0.5, tied by uid"),
        (pa.uint8(), "lowest 1 rows by score within kind: a 1, cut <= 1, tied by uid"),
        (pa.uint64(), "lowest 1 rows by score within kind: a 1, cut <= 1, tied by uid"),
    ],
    ids=str,
)
def test_numbers_of_any_type(tmp_path: Path, type: pa.DataType, told: str) -> None:
    numbers = np.array([0.5, 0.5, 2]) if pa.types.is_floating(type) else np.array([1, 1, 2])
    values = pa.array([*numbers.tolist(), None], pa.float64()).cast(type)
    table = table_of(score=values, kind=["a", "a", "a", "b"])
    found, reduced = decide(table, tmp_path, by="score", rows=1, lowest=True, within="kind")
    uids = sorted(table.column("uid").to_pylist()[:2])
    assert (found[uids[0]]["fate"], found[uids[1]]["reason"]) == (None, told)
    assert reduced.summary["cuts"] == [{"value": "a", "rows": 3, "kept": 1, "cut": numbers[0]}]


@pytest.mark.parametrize("count", [0, 3])
def test_a_pool_without_any_value(tmp_path: Path, count: int) -> None:
    for within in (None, "language"):
        table = table_of(score=pa.array([None] * count, pa.float32()), language=pa.array(["en"] * count, pa.string()))
        found, reduced = decide(table, tmp_path, by="score", keep=0.5, within=within)
        assert {row["error"] for row in found.values()} <= {"missing score"}
        assert reduced.summary == {"rows": count, "kept": 0, "dropped": 0, "failed": count}


def test_columns_without_an_order_of_numbers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="string, which has no top"):
        decide(table_of(score=["a"]), tmp_path, by="score", keep=0.5)
    with pytest.raises(UserError, match="make no groups"):
        decide(table_of(score=[1.0], tags=[["a"]]), tmp_path, by="score", keep=0.5, within="tags")


def test_what_recipes_write() -> None:
    assert operator_class("top_fraction") is TopFraction
    assert TopFraction(TopFraction.Config(by="a", keep=0.5, within="b")).requires == ("a", "b")
    for wrong in ({"by": "a"}, {"by": "a", "keep": 0}, {"by": "a", "keep": 1.1}, {"by": "a", "keep": 0.5, "rows": 3}):
        with pytest.raises(ValidationError):
            TopFraction.Config.model_validate(wrong)


@pytest.mark.slow
def test_ten_million_rows_in_bounded_memory(tmp_path: Path) -> None:
    """8 bytes a value held, decisions streamed: the pool's uids alone would be 360 MB."""
    import resource

    class Made:
        """Rows that are made anew in each pass."""

        count, seed, scratch_dir = 10_000_000, 0, str(tmp_path)

        def reader(self, columns: Any) -> pa.RecordBatchReader:
            schema = pa.schema([("uid", pa.string()), ("score", pa.float32())])
            return pa.RecordBatchReader.from_batches(schema, self._batches(schema))

        def _batches(self, schema: pa.Schema) -> Any:
            digits = [f"{i:05x}" for i in range(100_000)]
            for start in range(100):
                drawn = np.random.default_rng(start).random(100_000, np.float32)
                uids = pa.array([f"{start:027x}{digit}" for digit in digits])
                yield pa.record_batch([uids, pa.array(drawn)], schema=schema)

        map = None

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reduced = TopFraction(TopFraction.Config(by="score", keep=0.3)).reduce(Made())  # pyright: ignore[reportArgumentType]
    kept = sum(batch.column("fate").null_count for batch in reduced.decisions)
    assert kept == 3_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 800_000
