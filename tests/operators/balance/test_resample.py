"""resample: the stated rule with the draws at hand, as many rows as asked for, the same outcome in any order."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pyarrow as pa
import pytest
import xxhash
from captions import icon_texts
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from shuffled import ShuffledRows, decided, table_of

from corpusmith.operators.balance.resample import Resample, fill
from corpusmith.operators.registry import operator_class
from corpusmith.schemas.errors import UserError

Labels = Sequence[str | None] | None


def resample(
    table: pa.Table, folder: Path, *, seed: int = 0, order: int = 0, **config: Any
) -> tuple[dict[str, dict[str, Any]], Mapping[str, Any]]:
    """uid → decision, and the summary."""
    reduced = Resample(Resample.Config(by="tags", **config), seed=seed).reduce(ShuffledRows(table, folder, order))
    rows = {row["uid"]: row for row in decided(reduced).to_pylist()}
    assert rows.keys() == set(table.column("uid").to_pylist())
    return rows, json.loads(json.dumps(reduced.summary))


def probabilities(weights: Mapping[str, float], expected: float) -> dict[str, float]:
    """Water-filling by its definition: the heaviest are kept whole until nobody else exceeds 1."""
    if expected >= len(weights):
        return dict.fromkeys(weights, 1.0)
    full: set[str] = set()
    while True:
        rest = {uid: weight for uid, weight in weights.items() if uid not in full}
        factor = (expected - len(full)) / sum(rest.values())
        over = {uid for uid, weight in rest.items() if factor * weight > 1 + 1e-9}
        if not over:
            return dict.fromkeys(full, 1.0) | {uid: factor * weight for uid, weight in rest.items()}
        full |= over


TAGS = st.none() | st.lists(st.none() | st.sampled_from(["cat", "dog", "sky", "a 'q'", ""]), max_size=4)


@given(st.lists(TAGS, max_size=30), st.sampled_from([0.0, -0.5, -1.0]), st.floats(0.05, 1), st.integers(0, 99))
@example([], -0.5, 0.5, 0)
@example([None, [], [None]], -0.5, 1.0, 0)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_is_the_stated_rule(tmp_path: Path, tags: list[Labels], power: float, keep: float, order: int) -> None:
    table = table_of(tags=pa.array(tags, pa.list_(pa.string())))
    rows, summary = resample(table, tmp_path, power=power, keep=keep, seed=order, order=order)
    own = {row["uid"]: {tag for tag in row["tags"] or () if tag is not None} for row in table.to_pylist()}
    counts = Counter(tag for found in own.values() for tag in found)
    rarest = {uid: min(counts[tag] for tag in found) for uid, found in own.items() if found}
    expected = probabilities({uid: count**power for uid, count in rarest.items()}, keep * len(rarest))
    for uid, labels in zip(table.column("uid").to_pylist(), tags, strict=True):
        row = rows[uid]
        if labels is None:
            assert (row["fate"], row["error"], row["reason"]) == ("failed", "missing tags", None)
            continue
        assert row["resample_probability"] == pytest.approx(expected.get(uid, 0.0), abs=1e-9)
        assert row["resample_count"] == rarest.get(uid)
        drawn = (xxhash.xxh64_intdigest(f"resample tags {uid}".encode(), order) >> 11) / 2**53
        if abs(drawn - row["resample_probability"]) > 1e-9:
            assert (row["fate"] is None) == (drawn < row["resample_probability"])
        assert (row["reason"] is not None) == (row["fate"] == "rejected")
    after = Counter(tag for uid, found in own.items() if rows[uid]["fate"] is None for tag in found)
    assert {label: (b, a) for label, b, a in summary["top"]} == {t: (counts[t], after[t]) for t in counts}
    assert summary["rows_without_label"] == len(tags) - len(rarest)


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0.01, 10)), min_size=1, max_size=12), st.floats(0.1, 700))
@settings(max_examples=300, deadline=None)
def test_as_many_rows_as_asked_for(groups: list[tuple[int, float]], expected: float) -> None:
    numbers, weights = (np.array(column) for column in zip(*groups, strict=True))
    found = fill(numbers, weights, expected)
    assert ((found > 0) & (found <= 1)).all()
    assert (found * numbers).sum() == pytest.approx(min(expected, numbers.sum()), rel=1e-9)
    spread = found < 1
    if spread.any():
        factors = found[spread] / weights[spread]
        assert factors == pytest.approx(factors[0], rel=1e-9)
        assert (weights[~spread] * factors[0] >= 1 - 1e-9).all()


def hashtags() -> pa.Table:
    """Search terms of icons, which repeat as hashtags do."""
    return table_of(tags=pa.array([list(terms) for _, terms in icon_texts()] * 2, pa.list_(pa.string())))


def test_square_root_of_real_terms(tmp_path: Path) -> None:
    table = hashtags()
    outcomes = [resample(table, tmp_path, keep=0.3, order=order) for order in range(3)]
    assert outcomes[0] == outcomes[1] == outcomes[2]
    rows, summary = outcomes[0]
    labelled = [row for row in rows.values() if row["resample_count"]]
    assert summary["expected"] == pytest.approx(0.3 * len(labelled))
    deviation = math.sqrt(sum(r["resample_probability"] * (1 - r["resample_probability"]) for r in labelled))
    assert abs(summary["kept"] - summary["expected"]) < 4 * deviation
    factors = {
        round(row["resample_probability"] * math.sqrt(row["resample_count"]), 9)
        for row in labelled
        if row["resample_probability"] < 1
    }
    assert len(factors) == 1
    assert summary["curve"][0][1] == max(b for _, b, _ in summary["top"])


def test_on_average_over_seeds(tmp_path: Path) -> None:
    table = table_of(tags=["cat"] * 90 + ["rare"] * 10)
    kept = [Counter() for _ in range(40)]
    for seed, found in enumerate(kept):
        rows, _ = resample(table, tmp_path, rows=30, seed=seed)
        for uid, tag in zip(*table.to_pydict().values(), strict=True):
            found[tag] += rows[uid]["fate"] is None
    shares = {"cat": 30 * 90**0.5 / (90**0.5 + 10**0.5), "rare": 30 * 10**0.5 / (90**0.5 + 10**0.5)}
    for tag, share in shares.items():
        assert np.mean([found[tag] for found in kept]) == pytest.approx(share, abs=4 * math.sqrt(share / 40))


def test_reasons_and_modes(tmp_path: Path) -> None:
    table = table_of(tags=pa.array([7] * 50 + [8] * 2 + [None], pa.int64()))
    rows, summary = resample(table, tmp_path, rows=5)
    reasons = {row["reason"].split(", draw")[0] for row in rows.values() if row["reason"]}
    assert all(reason.startswith("resample tags: p = ") for reason in reasons)
    assert any(row["reason"].endswith('rarest label "7" of 50 rows') for row in rows.values() if row["reason"])
    weighed, told = resample(table, tmp_path, rows=5, mode="online")
    assert [row["resample_probability"] for row in weighed.values() if row["fate"] is None].count(None) == 0
    assert (told["kept"], told["taken"]) == (52, summary["taken"])
    assert {u: r["resample_probability"] for u, r in rows.items()} == {
        u: r["resample_probability"] for u, r in weighed.items()
    }
    everything, _ = resample(table, tmp_path, rows=1000)
    assert sum(row["fate"] is None for row in everything.values()) == 52


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "either keep"),
        ({"keep": 0.5, "rows": 3}, "either keep"),
        ({"keep": 0.0}, "greater than 0"),
        ({"rows": 0}, "greater than or equal to 1"),
        ({"keep": 0.5, "power": 0.5}, "less than or equal to 0"),
    ],
)
def test_parameters_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Resample.Config(by="tags", **wrong)


def test_columns_that_hold_no_labels(tmp_path: Path) -> None:
    for values in ([0.5], [[0.5]], [{"a": 1}]):
        with pytest.raises(UserError, match="are no labels"):
            resample(table_of(tags=pa.array(values)), tmp_path, keep=0.5)


def test_what_recipes_write() -> None:
    assert operator_class("resample") is Resample
    operator = Resample(Resample.Config(by="hashtags", keep=0.3))
    assert operator.requires == ("hashtags",)
    assert cloudpickle.loads(cloudpickle.dumps(operator)).config == operator.config
