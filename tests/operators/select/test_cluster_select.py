"""cluster_select: the clusters that references choose, as two loops choose them; the same in any order."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from shuffled import ShuffledRows, decided, table_of

from corpusmith.operators.balance.quota import Quota
from corpusmith.operators.contract import Reduced
from corpusmith.operators.registry import operator_class
from corpusmith.operators.select.cluster_select import ClusterSelect
from corpusmith.schemas.errors import UserError

pytest.importorskip("faiss")


def decide(table: pa.Table, folder: Path, order: int = 0, **config: Any) -> tuple[dict[str, dict[str, Any]], Reduced]:
    reduced = ClusterSelect(ClusterSelect.Config(**config)).reduce(ShuffledRows(table, folder, order))
    found = {row["uid"]: row for row in decided(reduced).to_pylist()}
    assert len(found) == table.num_rows
    return found, reduced


def around(directions: np.ndarray, count: int, seed: int = 0, spread: float = 0.1) -> np.ndarray:
    """(count, d) vectors about some directions in turn, of any length."""
    draw = np.random.default_rng(seed)
    own = directions[np.arange(count) % len(directions)]
    return ((own + draw.normal(0, spread, own.shape)) * draw.uniform(0.5, 3, (count, 1))).astype(np.float32)


def reference(folder: Path, vectors: np.ndarray, name: str = "reference.npy") -> str:
    np.save(folder / name, vectors)
    return str(folder / name)


def test_what_lies_near_a_reference_stays(tmp_path: Path) -> None:
    directions = np.eye(16, dtype=np.float32)[:8]
    pool = around(directions, 800)
    path = reference(tmp_path, around(directions[[2, 5]], 10, seed=1))
    found, reduced = decide(table_of(embedding=list(pool)), tmp_path, reference=path, k=8)
    uids = table_of(embedding=list(pool)).column("uid").to_pylist()
    assert {i % 8 for i, uid in enumerate(uids) if found[uid]["fate"] is None} == {2, 5}
    assert reduced.summary["chosen_clusters"] == 2
    assert (reduced.summary["kept"], reduced.summary["dropped"], reduced.summary["failed"]) == (200, 600, 0)
    # of each cluster one number, which quotas take
    clusters = table_of(cluster=[found[uid]["cluster"] for uid in uids])
    quota = Quota(Quota.Config(by="cluster", at_most=10)).reduce(ShuffledRows(clusters, tmp_path))
    assert Counter(row["fate"] for row in decided(quota).to_pylist())[None] == 80


@given(
    count=st.integers(1, 60),
    k=st.none() | st.integers(1, 80),
    references=st.integers(1, 5),
    seed=st.integers(0, 9),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_is_the_rule_whatever_the_order(tmp_path: Path, count: int, k: int | None, references: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    table = table_of(embedding=list(draw.normal(size=(count, 6)).astype(np.float32)))
    chosen = draw.normal(size=(references, 6)).astype(np.float32)
    config = {"reference": reference(tmp_path, chosen), "k": k}
    found, reduced = decide(table, tmp_path, **config)
    assert decide(table, tmp_path, order=seed + 1, **config)[0] == found
    assert reduced.summary["clusters"] == min(k or max(round(math.sqrt(count)), 1), count)
    rows = list(found.values())
    kept = {row["cluster"] for row in rows if row["fate"] is None}
    dropped = {row["cluster"] for row in rows if row["fate"] == "rejected"}
    assert not kept & dropped
    assert all(row["reason"] == f"nearest to no reference: cluster = {row['cluster']}" for row in rows if row["fate"])
    # a reference that is a row of the pool keeps that row
    units = np.stack(table.column("embedding").to_pylist())
    np.save(tmp_path / "own.npy", units[:1])
    own, _ = decide(table, tmp_path, reference=str(tmp_path / "own.npy"), k=k)
    first = table.column("uid")[0].as_py()
    assert own[first]["fate"] is None
    assert {uid for uid, row in own.items() if row["fate"] is None} == {
        uid for uid, row in own.items() if row["cluster"] == own[first]["cluster"]
    }


def test_rows_that_cannot_be_judged_fail_and_the_others_go_on(tmp_path: Path) -> None:
    bad: list[Any] = [None, [0.0, 0.0], [math.nan, 1.0], [math.inf, 0.0], [1.0], [], [None, 1.0]]
    table = table_of(embedding=pa.array([*bad, *[[1.0, 0.1], [0.0, 2.0]] * 3], pa.list_(pa.float32())))
    path = reference(tmp_path, np.array([[3.0, 0.0]]))
    found, reduced = decide(table, tmp_path, reference=path, k=2)
    rows = [found[uid] for uid in table.column("uid").to_pylist()]
    assert [row["error"] for row in rows[:7]] == ["missing embedding", *["malformed embedding"] * 6]
    assert [row["fate"] for row in rows[7:]] == [None, "rejected"] * 3
    assert {(row["cluster"], row["cluster_similarity"]) for row in rows[:7]} == {(None, None)}
    assert reduced.summary["failed"] == 7
    for values in ([], [None]):
        empty = table_of(embedding=pa.array(values, pa.list_(pa.float32())))
        assert decide(empty, tmp_path, reference=path)[1].summary["kept"] == 0


def test_references_that_do_not_fit(tmp_path: Path) -> None:
    table = table_of(embedding=[[1.0, 0.0]])
    with pytest.raises(UserError, match="3 dimensions, those in 'embedding' 2"):
        decide(table, tmp_path, reference=reference(tmp_path, np.ones((2, 3), np.float32)))
    for wrong in (
        np.zeros((2, 2), np.float32),
        np.array([[math.nan, 1.0]]),
        np.ones((2, 2), np.int64),
        np.zeros((0, 2)),
    ):
        with pytest.raises(UserError):
            decide(table, tmp_path, reference=reference(tmp_path, wrong))
    operator = ClusterSelect(ClusterSelect.Config(reference=(reference(tmp_path, np.ones((1, 2), np.float32)),)))
    reference(tmp_path, np.ones((5, 2), np.float32))
    with pytest.raises(UserError, match="changed after the recipe was read"):
        operator.reduce(ShuffledRows(table, tmp_path))
    with pytest.raises(UserError, match="lists of floats"):
        decide(table_of(embedding=["a"]), tmp_path, reference=str(tmp_path / "reference.npy"))


def test_references_of_several_files(tmp_path: Path) -> None:
    directions = np.eye(4, dtype=np.float32)
    first = reference(tmp_path, directions[:1])
    pq.write_table(pa.table({"embedding": list(directions[1:2])}), tmp_path / "second.parquet")
    config = {"reference": [first, str(tmp_path / "second.parquet")], "k": 4}
    table = table_of(embedding=list(around(directions, 80)))
    found, reduced = decide(table, tmp_path, **config)
    assert reduced.summary["reference_embeddings"] == 2
    assert [found[uid]["fate"] for uid in table.column("uid").to_pylist()[:4]] == [None, None, "rejected", "rejected"]


def test_what_recipes_write(tmp_path: Path) -> None:
    assert operator_class("cluster_select") is ClusterSelect
    lack = ClusterSelect(ClusterSelect.Config()).missing()
    assert lack is not None
    assert "no reference embeddings" in lack
    path = reference(tmp_path, np.ones((1, 2), np.float32))
    config = ClusterSelect.Config.model_validate({"reference": path})
    assert ClusterSelect(config).missing() is None
    for wrong in ({"reference": str(tmp_path / "gone.npy")}, {"k": 0}, {"reference": path, "reference_sha256": "0"}):
        with pytest.raises(ValidationError):
            ClusterSelect.Config.model_validate(wrong)
