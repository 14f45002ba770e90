"""Embedding columns: unit vectors of any form of list, rows that are none, the same pool in any order."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shuffled import ShuffledRows, table_of

from corpusmith.operators.embedding import vectors
from corpusmith.schemas.errors import UserError

NAN, INF = float("nan"), float("inf")
ROWS = [[3, 4, 0], None, [0, 0, 0], [1, NAN, 2], [0, 0, 2], [1, 2], [], [1, None, 2], [1, INF, 1], [-INF, 0, 0]]
MALFORMED, MISSING = "malformed embedding", "missing embedding"
ERRORS = [None, MISSING, MALFORMED, MALFORMED, None, *[MALFORMED] * 5]


@pytest.mark.parametrize("value", [pa.float16(), pa.float32(), pa.float64()])
@pytest.mark.parametrize("listed", [pa.list_, pa.large_list, lambda value: pa.list_(value, 3)])
def test_every_form_of_list(value: pa.DataType, listed: object) -> None:
    kind = listed(value)  # pyright: ignore[reportCallIssue]
    is_fixed = pa.types.is_fixed_size_list(kind)
    rows = [row for row in ROWS if not is_fixed or row is None or len(row) == 3]
    expected = [ERRORS[ROWS.index(row)] for row in rows]
    column = pa.array(rows, kind)
    for sliced, start in ((column, 0), (column[1:], 1), (pa.chunked_array([column[1:3], column[3:]]), 1)):
        found, errors = vectors.unit_vectors(sliced)
        assert errors.to_pylist() == expected[start:]
        assert found.dtype == np.float32
        wanted = [[0.6, 0.8, 0], [0, 0, 1]][1 if start else 0 :]
        np.testing.assert_allclose(found[errors.is_null().to_numpy(zero_copy_only=False)], wanted, rtol=1e-7)
        assert not found[errors.is_valid().to_numpy(zero_copy_only=False)].any()


def test_values_whose_squares_no_double_holds() -> None:
    column = pa.array([[3e300, 4e300], [3e-300, 4e-300], [3e-310, 4e-310]], pa.list_(pa.float64()))
    found, errors = vectors.unit_vectors(column)
    assert errors.null_count == 3
    np.testing.assert_allclose(found, [[0.6, 0.8]] * 3, rtol=1e-6)
    narrow = pa.array([[3e38, 3e38], [1e-45, 0]], pa.list_(pa.float32()))
    np.testing.assert_allclose(vectors.unit_vectors(narrow)[0], [[0.5**0.5] * 2, [1, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    "column", [pa.nulls(3), pa.array([], pa.list_(pa.float32())), pa.array([[]] * 2, pa.list_(pa.float32()))]
)
def test_nothing_usable(column: pa.Array, tmp_path: Path) -> None:
    found, errors = vectors.unit_vectors(column)
    assert found.shape == (len(column), 0)
    assert errors.null_count == 0
    loaded = vectors.load(ShuffledRows(table_of(embedding=column, other=[1] * len(column)), tmp_path), "embedding")
    assert loaded.vectors.shape == (0, 0)
    assert loaded.errors.null_count == 0
    assert len(loaded.errors) == len(column)


@pytest.mark.parametrize("column", [pa.array(["a"]), pa.array([1.0]), pa.array([[1]]), pa.array([["a"]])])
def test_a_column_that_is_no_embedding(column: pa.Array, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'embedding' is .*: embeddings are lists of floats"):
        vectors.load(ShuffledRows(table_of(embedding=column), tmp_path), "embedding")
    with pytest.raises(UserError, match="lists of floats"):
        vectors.unit_vectors(column)


def test_the_dimension_is_that_of_most() -> None:
    column = pa.array([[1, 0], [1, 0, 0], [1, 0], [0, 1, 0], [1]], pa.list_(pa.float32()))
    found, errors = vectors.unit_vectors(column, "clip")
    assert found.shape == (5, 3)
    assert errors.to_pylist() == ["malformed clip", None, "malformed clip", None, "malformed clip"]


@given(
    rows=st.lists(
        st.none() | st.lists(st.sampled_from([0.0, 1.0, -2.5, 1e-3, NAN]), max_size=3) | st.just([1.0, 2.0]),
        max_size=30,
    ),
    order=st.integers(0, 1000),
    block=st.sampled_from([8, 1 << 22]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_pool_is_the_same_in_any_order(
    tmp_path: Path, rows: list[list[float] | None], order: int, block: int
) -> None:
    column = pa.array(rows, pa.list_(pa.float32()))
    table = table_of(embedding=column, score=list(range(len(rows))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "BLOCK_BYTES", block)
        loaded = vectors.load(ShuffledRows(table, tmp_path, order), "embedding", columns=["score"])
    units, errors = vectors.unit_vectors(column)
    places = sorted(range(len(rows)), key=lambda i: table["uid"][i].as_py())
    assert loaded.rows.to_pylist() == [{"uid": table["uid"][i].as_py(), "score": i} for i in places]
    assert loaded.errors.to_pylist() == [errors[i].as_py() for i in places]
    assert loaded.live.tolist() == [n for n, i in enumerate(places) if not errors[i].is_valid]
    expected = units[[i for i in places if not errors[i].is_valid]].astype(np.float16)
    assert np.array_equal(loaded.vectors, expected)
    assert not list(tmp_path.iterdir())


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    column = pa.array([[1, 0, 0], [0, 0, 0], [1, NAN, 0], [1, 2], None, [1, 0, 1]], pa.list_(pa.float32()))
    table = table_of(embedding=column)
    loaded = vectors.load(ShuffledRows(table, tmp_path), "embedding")
    told = dict(zip(loaded.rows["uid"].to_pylist(), loaded.details.to_pylist(), strict=True))
    assert [told[uid] for uid in table["uid"].to_pylist()] == [
        None,
        "all values are zero",
        "holds a value that is not finite",
        "2 values, where the pool's embeddings have 3",
        None,
        None,
    ]


def test_dot_products_are_exact() -> None:
    drawn = np.random.default_rng(0)
    units, _ = vectors.normalised(drawn.normal(size=(20, 700)) * 10.0 ** drawn.integers(-6, 1, (20, 700)))
    halves = units.astype(np.float16)
    places = random.Random(0).sample(range(700), 700)
    found = vectors.dots(halves[:10], halves[10:])
    assert np.array_equal(found, vectors.dots(halves[:10][:, places], halves[10:][:, places]))
    for left, right, dot in zip(halves[:10], halves[10:], found, strict=True):
        products = (Fraction(float(a)) * Fraction(float(b)) for a, b in zip(left, right, strict=True))
        assert sum(products) == Fraction(float(dot))
