"""dedup.semantic: the published rule and connected components, in any order, on any threads, on bad input."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import run_recipe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from shuffled import ShuffledRows, decided, table_of
from threadpoolctl import threadpool_limits

from corpusmith.operators.contract import Reduced
from corpusmith.operators.dedup import semantic_groups
from corpusmith.operators.dedup.semantic import CURVE, Semantic
from corpusmith.operators.draws import draws
from corpusmith.operators.embedding import kmeans, vectors
from corpusmith.operators.registry import operator_class
from corpusmith.schemas.errors import UserError

Rows = dict[str, dict[str, Any]]


def decide(table: pa.Table, folder: Path, order: int = 0, seed: int = 0, **config: Any) -> tuple[Rows, Reduced]:
    reduced = Semantic(Semantic.Config(**config), seed=seed).reduce(ShuffledRows(table, folder, order, seed))
    decisions = decided(reduced)
    assert decisions.num_rows == table.num_rows
    return {row["uid"]: row for row in decisions.to_pylist()}, reduced


def pool_of(
    seed: int, count: int, dimension: int, spread: float, *, centres: int = 6, kind: pa.DataType | None = None
) -> pa.Table:
    """Vectors around a few centres, some of them twice, with a score."""
    drawn = np.random.default_rng(seed)
    middles = drawn.normal(size=(centres, dimension))
    made = middles[drawn.integers(0, centres, count)] + spread * drawn.normal(size=(count, dimension))
    made = made[drawn.integers(0, count, count)]
    values = pa.array(made.astype(np.float16 if kind == pa.float16() else np.float64).ravel(), kind or pa.float32())
    lists = pa.ListArray.from_arrays(pa.array(np.arange(count + 1) * dimension, pa.int32()), values)
    scores = [None if score == 0 else score for score in drawn.integers(0, 4, count).tolist()]
    return table_of(embedding=lists, score=pa.array(scores, pa.int64()))


def sound(table: pa.Table, folder: Path) -> tuple[list[str], np.ndarray]:
    """Sorted uids and their vectors, as stored."""
    loaded = vectors.load(ShuffledRows(table, folder), "embedding")
    return loaded.rows.column("uid").take(pa.array(loaded.live)).to_pylist(), np.array(loaded.vectors)


def naive(
    table: pa.Table, folder: Path, *, k: int, epsilon: float, rule: str, keep: str, prefer: str | None, seed: int
) -> dict[str, str]:
    """uid → uid of the row that represents it, by all pairs of each cluster in plain Python, cosines by doubles."""
    uids, stored = sound(table, folder)
    if not uids:
        return {}
    found = kmeans.spherical_kmeans(stored, k, seed=seed)
    exact = stored.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    scores = {row["uid"]: row["score"] for row in table.to_pylist()}
    drawn = dict(zip(uids, draws(pa.array(uids), seed, "dedup.semantic ").tolist(), strict=True))

    def key(i: int) -> tuple[Any, ...]:
        score = scores[uids[i]] if prefer else None
        distance = -found.similarity[i]
        own = {"farthest": -distance, "nearest": distance, "random": drawn[uids[i]]}[keep]
        return (score is None, -(score or 0), own, uids[i])

    kept: dict[str, str] = {}
    for cluster in set(found.assignment.tolist()):
        rows = sorted(np.flatnonzero(found.assignment == cluster).tolist(), key=key)
        edges = {(i, j) for i in rows for j in rows if i != j and exact[i] @ exact[j] > 1 - epsilon}
        first: dict[int, int] = {}
        for place, j in enumerate(rows):
            before = [i for i in rows[:place] if (i, j) in edges]
            first[j] = first[before[0]] if before else j
        if rule == "components":
            labels = {j: j for j in rows}
            for _ in rows:
                for i, j in edges:
                    labels[i] = labels[j] = min(labels[i], labels[j], key=rows.index)
            first = labels
        kept |= {uids[j]: uids[first[j]] for j in rows}
    return kept


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 40),
    dimension=st.sampled_from([1, 2, 3, 16]),
    spread=st.sampled_from([0.02, 0.1, 0.5]),
    k=st.sampled_from([1, 3, 8, 100]),
    epsilon=st.sampled_from([0.001, 0.01, 0.05, 0.3]),
    rule=st.sampled_from(["published", "components"]),
    keep=st.sampled_from(["farthest", "nearest", "random"]),
    prefer=st.sampled_from([None, "score"]),
    block_rows=st.sampled_from([5, 2048]),
)
@settings(max_examples=35, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_is_the_rule(
    tmp_path: Path,
    seed: int,
    count: int,
    dimension: int,
    spread: float,
    k: int,
    epsilon: float,
    rule: str,
    keep: str,
    prefer: str | None,
    block_rows: int,
) -> None:
    table = pool_of(seed, count, dimension, spread)
    rule_of = {"k": k, "epsilon": epsilon, "rule": rule, "keep": keep, "prefer": prefer}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic_groups, "_BLOCK_ROWS", block_rows)
        decisions, reduced = decide(table, tmp_path, seed, seed, **rule_of)
    expected = naive(table, tmp_path, seed=seed, **rule_of)
    assert {uid: row["dedup_group"] for uid, row in decisions.items()} == expected
    for uid, row in decisions.items():
        assert row["fate"] == (None if expected[uid] == uid else "rejected")
        assert row["dedup_size"] == list(expected.values()).count(expected[uid])
    dropped = sum(uid != kept for uid, kept in expected.items())
    assert reduced.summary["dropped"] == reduced.summary["dropped_by_epsilon"][f"{epsilon:g}"] == dropped


@pytest.mark.parametrize("rule", ["published", "components"])
def test_a_larger_epsilon_drops_more_and_the_curve_says_how_many(rule: str, tmp_path: Path) -> None:
    table = pool_of(5, 300, 8, 0.12, centres=10)
    dropped: list[set[str]] = []
    for epsilon in CURVE:
        decisions, reduced = decide(table, tmp_path, k=4, epsilon=epsilon, rule=rule)
        dropped.append({uid for uid, row in decisions.items() if row["fate"]})
        told = [reduced.summary["dropped_by_epsilon"][f"{other:g}"] for other in CURVE[: len(dropped)]]
        assert told == [len(rows) for rows in dropped]
    assert all(fewer <= more for fewer, more in pairwise(dropped))
    assert len(dropped[0]) < len(dropped[-1])


def test_components_drop_what_the_published_rule_drops_and_what_hangs_on_it(tmp_path: Path) -> None:
    # a chain of steps of 5 degrees from the centroid's side on: cosine 0.9962 a step, 0.9848 for two
    angles = np.radians([0, 5, 10, 15, 80])
    table = table_of(embedding=[[float(np.cos(a)), float(np.sin(a))] for a in angles])
    uids = table["uid"].to_pylist()
    rows, _ = decide(table, tmp_path, k=1, epsilon=0.005, rule="published", keep="nearest")
    # from the centroid (22 degrees) outwards: 15, 10, 5, 0, 80
    assert [rows[uid]["fate"] for uid in uids] == ["rejected", "rejected", "rejected", None, None]
    assert {rows[uid]["dedup_group"] for uid in uids[:4]} == {uids[3]}
    assert rows[uids[0]]["reason"] == f"near-duplicate embedding: of {uids[3]} (cosine 0.9659)"
    scored = table.append_column("score", pa.array([4, 1, 3, 2, 0]))
    published, _ = decide(scored, tmp_path, k=1, epsilon=0.005, rule="published", prefer="score")
    # by score: 0, 10, 15, 5: 10 has no near-duplicate before it
    assert [published[uid]["dedup_group"] for uid in uids] == [uids[0], uids[0], uids[2], uids[2], uids[4]]
    components, _ = decide(scored, tmp_path, k=1, epsilon=0.005, rule="components", prefer="score")
    assert [components[uid]["dedup_group"] for uid in uids] == [uids[0]] * 4 + [uids[4]]
    assert components[uids[0]]["dedup_size"] == 4


def test_the_farthest_from_the_centroid_stays(tmp_path: Path) -> None:
    table = table_of(embedding=[[1.0, 0.0], [1.0, 0.02], [1.0, 0.04]])
    uids = table["uid"].to_pylist()
    for keep, kept in (("farthest", {uids[0], uids[2]}), ("nearest", {uids[1]})):
        rows, _ = decide(table, tmp_path, k=1, keep=keep)
        assert {row["dedup_group"] for row in rows.values()} < kept | {""}
        assert [row["fate"] for row in rows.values()].count("rejected") == 2


def test_the_draw_of_random_is_the_seeds(tmp_path: Path) -> None:
    table = table_of(embedding=[[1.0, 2.0]] * 40)
    kept = []
    for seed in range(8):
        rows, _ = decide(table, tmp_path, order=seed, seed=seed, keep="random")
        again, _ = decide(table, tmp_path, order=99, seed=seed, keep="random")
        assert rows == again
        kept.append({row["dedup_group"] for row in rows.values()})
    assert all(len(group) == 1 for group in kept)
    assert len(set.union(*kept)) > 4


def test_at_the_edge_a_cosine_is_exact(tmp_path: Path) -> None:
    """Thresholds at the very cosines of pairs, where products of 32-bit floats say now one thing, now the other."""
    table = pool_of(11, 120, 64, 0.3, centres=3)
    _, stored = sound(table, tmp_path)
    left, right = np.triu_indices(len(stored), 1)
    cosines = semantic_groups.cosines_of(stored[left], stored[right])
    near = np.flatnonzero((cosines > 0.6) & (cosines < 0.999))
    order = np.arange(len(stored))
    clusters, fixed = np.zeros(len(stored), np.int64), np.zeros(len(stored), bool)
    checked = 0
    for place in np.random.default_rng(0).choice(near, 40, replace=False):
        for cosine in [*np.nextafter(cosines[place], [-2, 2]).tolist(), cosines[place]]:
            rule = semantic_groups.Rule(float(1 - cosine), is_published=True)
            found = semantic_groups.grouped(lambda rows: stored[rows], 64, order, clusters, fixed, rule)
            is_edge = cosines > 1 - rule.epsilon
            expected = set(right[is_edge].tolist())
            assert set(np.flatnonzero(found.representatives != order).tolist()) == expected
            checked += abs(cosines[place] - (1 - rule.epsilon)) < 1e-15
    assert checked > 100


def test_is_the_same_in_any_order_on_any_threads(tmp_path: Path) -> None:
    table, usual, told = pool_of(3, 2000, 48, 0.07, centres=40), faiss.omp_get_max_threads(), []
    try:
        for threads in (1, 2, 3):
            faiss.omp_set_num_threads(threads)
            with threadpool_limits(threads):
                rows, reduced = decide(table, tmp_path, threads, epsilon=0.05)
            told.append((rows, reduced.summary))
    finally:
        faiss.omp_set_num_threads(usual)
    assert told[0][1]["dropped"] > 100
    assert told[0] == told[1] == told[2]


def test_a_cluster_larger_than_a_block_and_many_pairs_at_the_edge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pool_of(7, 400, 3, 0.2, centres=2)
    expected, summary = decide(table, tmp_path, k=1, epsilon=0.02)
    monkeypatch.setattr(semantic_groups, "_BLOCK_ROWS", 7)
    monkeypatch.setattr(semantic_groups, "_PAIRS_AT_ONCE", 9)
    monkeypatch.setattr(semantic_groups, "dot_error", lambda _: 0.5)
    found, other = decide(table, tmp_path, 1, k=1, epsilon=0.02)
    assert found == expected
    assert other.summary == summary.summary


def test_rows_without_an_embedding_fail_and_the_others_go_on(tmp_path: Path) -> None:
    nan = float("nan")
    table = table_of(
        vector=pa.array([[1, 0], [nan, 1], [0, 0], None, [1, 0, 0], [0, 1], [1, 0.01], []], pa.list_(pa.float16()))
    )
    rows, reduced = decide(table, tmp_path, column="vector", k=50)
    told = [(rows[uid]["fate"], rows[uid]["error"], rows[uid]["reason"]) for uid in table["uid"].to_pylist()]
    assert told[1] == ("failed", "malformed vector", "holds a value that is not finite")
    assert told[2] == ("failed", "malformed vector", "all values are zero")
    assert told[3] == ("failed", "missing vector", None)
    assert told[4] == ("failed", "malformed vector", "3 values, where the pool's embeddings have 2")
    assert told[7] == ("failed", "malformed vector", "0 values, where the pool's embeddings have 2")
    assert sum(fate is None for fate, _, _ in (told[0], told[5], told[6])) >= 2
    assert reduced.summary["failed"] == 5
    assert reduced.summary["clusters"] == 3
    assert all(row["dedup_group"] is None for row in rows.values() if row["fate"] == "failed")


@pytest.mark.parametrize(
    "column", [pa.array([], pa.list_(pa.float32())), pa.nulls(3, pa.list_(pa.float32())), pa.array([[1.0, 2.0]])]
)
def test_no_row_none_usable_and_one(column: pa.Array, tmp_path: Path) -> None:
    rows, reduced = decide(table_of(embedding=column), tmp_path, k=7)
    assert len(rows) == len(column) == reduced.summary["rows"]
    assert reduced.summary["dropped"] == 0
    assert reduced.summary["failed"] == column.null_count


def test_preferences_of_any_order(tmp_path: Path) -> None:
    for values, kept in (
        ([1.5, float("nan"), None], 0),
        ([None, float("nan"), -3.0], 2),
        ([False, True, None], 1),
        (["a", "b", None], 1),
    ):
        table = table_of(embedding=[[1.0, 2.0]] * 3, best=values)
        rows, _ = decide(table, tmp_path, prefer="best")
        assert {row["dedup_group"] for row in rows.values()} == {table["uid"][kept].as_py()}
    with pytest.raises(UserError, match="'best' is list"):
        decide(table_of(embedding=[[1.0, 2.0]] * 3, best=[[1]] * 3), tmp_path, prefer="best")


@pytest.mark.parametrize(
    "config",
    [
        {"epsilon": 0},
        {"epsilon": -0.1},
        {"epsilon": 1.5},
        {"epsilon": float("nan")},
        {"k": 0},
        {"iterations": 0},
        {"keep": "hard"},
        {"rule": "paper"},
        {"prefer": "embedding"},
        {"against": ["nowhere"]},
    ],
)
def test_what_cannot_be(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Semantic.Config(**config)


def test_says_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = operator_class("dedup.semantic")(Semantic.Config())
    assert operator.missing() is None
    monkeypatch.setattr(kmeans, "find_spec", lambda _: None)
    assert "corpusmith[faiss]" in (operator.missing() or "")


def corpus_of(table: pa.Table, folder: Path, name: str = "old") -> str:
    """A finished corpus of all rows of a table."""
    urls = [f"http://{name}/{i}" for i in range(table.num_rows)]
    table = table.drop_columns(["uid"]).append_column("url", pa.array(urls)).append_column("caption", pa.array(urls))
    pq.write_table(table, folder / f"{name}.parquet")
    output = folder / name
    run_recipe(f"corpus: {name}\ninput: {{path: '{folder / f'{name}.parquet'}'}}\nsteps:\n- keep: 'true'\n", output)
    return str(output)


def test_against_finished_corpora(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    old = drawn.normal(size=(30, 6))
    new = np.concatenate([old[:10] * 3, old[5:10] + 1e-3, drawn.normal(size=(10, 6))])
    corpora = tuple(
        corpus_of(table_of(embedding=old[part].tolist()), tmp_path, name)
        for part, name in ((slice(0, 20), "first"), (slice(20, 30), "second"))
    )
    table = table_of(embedding=new.tolist())
    config = Semantic.Config(epsilon=0.005, k=2, against=corpora, keep="nearest")
    assert config.against_sha256
    for order in range(3):
        reduced = Semantic(config).reduce(ShuffledRows(table, tmp_path, order))
        rows = {row["uid"]: row for row in decided(reduced).to_pylist()}
        told = [rows[uid] for uid in table["uid"].to_pylist()]
        assert [row["fate"] for row in told] == ["rejected"] * 15 + [None] * 10
        assert all(" in first (cosine 1.0000)" in row["reason"] for row in told[:15])
        assert [row["dedup_size"] for row in told] == [2] * 5 + [3] * 10 + [1] * 10
        assert told[5]["dedup_group"] == told[10]["dedup_group"]
        assert reduced.summary["dropped_against_corpora"] == 15
        assert reduced.summary["compared_samples"] == 30
    with pytest.raises(UserError, match="no sample has an embedding of 5 dimensions"):
        decide(table_of(embedding=new[:, :5].tolist()), tmp_path, against=corpora)
    with pytest.raises(ValidationError, match="others"):
        Semantic.Config(against=corpora[:1], against_sha256=config.against_sha256)
    with pytest.raises(UserError, match="no column 'vector'"):
        decide(table_of(vector=new.tolist()), tmp_path, column="vector", against=corpora)
