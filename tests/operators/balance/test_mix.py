"""mix: proportions that hold, to the row; the same rows in any order; a smaller mixture inside a larger one."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from captions import emoji_names, icon_texts
from corpora import fates, outcome, run_recipe
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from shuffled import ShuffledRows, decided, table_of

from corpusmith.operators.balance.mix import Mix, apportioned
from corpusmith.operators.contract import Reduced
from corpusmith.operators.registry import operator_class
from corpusmith.schemas.errors import UserError


def decide(
    table: pa.Table, folder: Path, order: int = 0, seed: int = 0, **config: Any
) -> tuple[dict[str, dict[str, Any]], Reduced]:
    reduced = Mix(Mix.Config(**config), seed=seed).reduce(ShuffledRows(table, folder, order, seed))
    found = {row["uid"]: row for row in decided(reduced).to_pylist()}
    assert len(found) == table.num_rows
    return found, reduced


def kept(found: dict[str, dict[str, Any]]) -> set[str]:
    return {uid for uid, row in found.items() if row["fate"] is None}


WEIGHT = st.sampled_from([1, 3, 0.7, 0.3, 0.1, 1e-3, 2.5])


@given(
    origins=st.lists(st.sampled_from(["a", "b", "日本", "other", None]), max_size=60),
    weights=st.dictionaries(st.sampled_from(["a", "b", "日本"]), WEIGHT, min_size=1),
    seed=st.sampled_from([0, 7]),
    order=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_is_the_largest_mixture_that_holds_the_proportions(
    tmp_path: Path, origins: list[str | None], weights: dict[str, float], seed: int, order: int
) -> None:
    sizes = Counter(origins)
    assume(all(sizes[part] for part in weights))
    table = table_of(origin=pa.array(origins, pa.string()))
    found, reduced = decide(table, tmp_path, order, seed, weights=weights)
    exact = {part: Fraction(str(weight)) for part, weight in weights.items()}
    total = min(sizes[part] / weight for part, weight in exact.items())
    rows: dict[Any, list[str]] = {part: [] for part in weights}
    for row in table.to_pylist():
        rows.setdefault(row["origin"], []).append(row["uid"])
    expected = set()
    for part, weight in exact.items():
        ranked = sorted(rows[part], key=lambda uid: (xxhash.xxh64_intdigest(f"mix origin {uid}".encode(), seed), uid))
        expected |= set(ranked[: math.floor(total * weight)])
    assert kept(found) == expected
    assert {uid for uid, row in found.items() if row["error"]} == set(rows.get(None, []))
    told = {row["reason"] for uid, row in found.items() if uid in rows.get("other", [])}
    assert told <= {"mix origin: other is no part"}
    assert reduced.summary["kept"] == len(expected)
    assert any(reduced.summary["parts"][part] == [sizes[part]] * 2 for part in weights)


@given(weights=st.dictionaries(st.text("abcd", min_size=1, max_size=2), WEIGHT, min_size=1), rows=st.integers(0, 1000))
def test_shares_add_up(weights: dict[str, float], rows: int) -> None:
    exact = {part: Fraction(str(weight)) for part, weight in weights.items()}
    shares = apportioned(exact, rows)
    assert sum(shares.values()) == rows
    total = sum(exact.values())
    assert all(abs(shares[part] - rows * weight / total) < 1 for part, weight in exact.items())


def test_a_smaller_mixture_lies_inside_a_larger_one_and_seeds_differ(tmp_path: Path) -> None:
    table = table_of(language=["en"] * 700 + ["de"] * 500)
    weights = {"en": 0.7, "de": 0.3}
    mixtures = [kept(decide(table, tmp_path, by="language", weights=weights, rows=n)[0]) for n in (100, 500, 1000)]
    assert [len(one) for one in mixtures] == [100, 500, 1000]
    assert mixtures[0] < mixtures[1] < mixtures[2]
    assert mixtures[2] == kept(decide(table, tmp_path, order=5, by="language", weights=weights)[0])
    assert mixtures[1] != kept(decide(table, tmp_path, seed=1, by="language", weights=weights, rows=500)[0])


def test_parts_that_are_too_small(tmp_path: Path) -> None:
    table = table_of(origin=["a"] * 10 + ["b"] * 100)
    with pytest.raises(UserError, match="origin = 'a' has 10 rows, the mixture 50") as caught:
        decide(table, tmp_path, weights={"a": 1, "b": 1}, rows=100)
    assert "rows: 20 at most" in str(caught.value)
    found, reduced = decide(table, tmp_path, weights={"a": 1, "b": 1}, rows=100, may_fall_short=True)
    assert reduced.summary["parts"] == {"a": [10, 10], "b": [100, 50]}
    assert len(kept(found)) == 60
    with pytest.raises(UserError, match="no row has origin = 'c'"):
        decide(table, tmp_path, weights={"a": 1, "c": 1})


def test_values_that_are_no_texts_and_pools_without_rows(tmp_path: Path) -> None:
    clusters = table_of(cluster=pa.array([0, 0, 0, 17, 17, None], pa.int32()))
    found, _ = decide(clusters, tmp_path, by="cluster", weights={0: 1, 17: 2})
    assert Counter(row["fate"] for row in found.values()) == {None: 3, "rejected": 2, "failed": 1}
    assert {row["reason"] for row in found.values()} == {None, "mix cluster: 1 rows of 0"}
    flags = table_of(nsfw=[True, False])
    assert len(kept(decide(flags, tmp_path, by="nsfw", weights={False: 1})[0])) == 1
    assert decide(table_of(origin=pa.array([], pa.string())), tmp_path, weights={"a": 1})[1].summary["kept"] == 0
    with pytest.raises(UserError, match="no parts"):
        decide(table_of(origin=[["a"]]), tmp_path, weights={"a": 1})


def test_what_recipes_write() -> None:
    assert operator_class("mix") is Mix
    assert Mix(Mix.Config(weights={"a": 1})).requires == ("origin",)
    for wrong in ({}, {"weights": {}}, {"weights": {"a": 0}}, {"weights": {"a": -1}}, {"weights": {"a": math.nan}}):
        with pytest.raises(ValidationError):
            Mix.Config.model_validate(wrong)
    with pytest.raises(ValidationError, match="belongs to rows"):
        Mix.Config.model_validate({"weights": {"a": 1}, "may_fall_short": True})


def test_a_recipe_over_two_corpora_in_any_order_and_cut_into_any_files(tmp_path: Path) -> None:
    emoji = list(emoji_names("en"))[:400]
    icons = [label for label in dict.fromkeys(label for label, _ in icon_texts()) if label not in emoji][:300]
    outcomes = []
    for number in (1, 7, 64):
        folder = tmp_path / f"in{number}"
        for name, texts in (("emoji", emoji), ("icons", icons)):
            (folder / name).mkdir(parents=True)
            shuffled = sorted(texts, key=lambda text: xxhash.xxh64_intdigest(text.encode(), number))
            for i in range(number):
                part = pa.table({"caption": pa.array(shuffled[i::number], pa.string())})
                pq.write_table(part, folder / name / f"{i:03d}.parquet")
        recipe = f"""
            corpus: mixed
            input: {{path: ["{folder}/emoji", "{folder}/icons"], origins: [emoji, icons], url: null}}
            steps:
              - mix: {{weights: {{emoji: 0.4, icons: 0.6}}}}
        """
        result = run_recipe(recipe, tmp_path / f"out{number}")
        outcomes.append(outcome(tmp_path / f"out{number}"))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert result.manifest.counts.kept == 300 + 200
    assert Counter(row["step"] for row in fates(tmp_path / "out64").values()) == {None: 500, "mix": 200}
