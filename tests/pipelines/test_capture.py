"""Bisecting in one process: any set of bad rows, any way of delivering, against what each row gives alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmith.operators.contract import Annotate, Children, Config, Part, Split
from corpusmith.pipelines.capture import OperatorContractError, iter_parts, process_captured
from corpusmith.schemas.columns import Column
from corpusmith.schemas.fates import RowError

VECTOR = pa.list_(pa.float32(), 2)


class Chunks(Config):
    """How many rows a part holds."""

    rows: int = 3


class Streamer(Annotate, name="test_streamer", version=1):
    """Yields squares in parts, from the last row to the first; stops at the first negative value that it meets."""

    Config = Chunks

    @property
    def requires(self) -> tuple[str, ...]:
        return ("value",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("square", pa.int64(), "value²"), Column("vector", VECTOR, "value twice"))

    def process(self, batch: pa.Table) -> Iterator[Part]:
        assert isinstance(self.config, Chunks)
        values = batch.column("value").to_numpy()
        for end in range(len(values), 0, -self.config.rows):
            rows = range(max(end - self.config.rows, 0), end)
            part = values[rows.start : rows.stop]
            if (part < 0).any():
                raise ValueError("negative")
            yield Part({"square": part**2, "vector": [np.full(2, v, np.float32) for v in part]}, rows=rows)


class Exploder(Split, name="test_exploder", version=1):
    """Value children of each row; raises for negative values."""

    @property
    def requires(self) -> tuple[str, ...]:
        return ("value",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("text", pa.string(), "text"),)

    def process(self, batch: pa.Table) -> Children:
        values = batch.column("value").to_pylist()
        if min(values) < 0:
            raise ValueError("negative")
        pairs = [(i, k) for i, value in enumerate(values) for k in range(value)]
        texts = ["\ud800" if k == 7 else str(k) for _, k in pairs]
        return Children([i for i, _ in pairs], [str(k) for _, k in pairs], {"text": texts})


class Broken(Annotate, name="test_broken", version=1):
    """Yields what a test puts here."""

    outcome: list[Any] = []

    @property
    def requires(self) -> tuple[str, ...]:
        return ("value",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("square", pa.int64(), "value²"),)

    def process(self, batch: pa.Table) -> Any:
        return self.outcome[0]()


def batch_of(values: list[int]) -> pa.Table:
    return pa.table({"uid": [str(i) for i in range(len(values))], "value": pa.array(values, pa.int64())})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([-1, 0, 1, 2, 3]), max_size=40), st.integers(1, 7))
def test_parts_hold_each_row_once_and_only_culprits_fail(values: list[int], rows: int) -> None:
    found: dict[int, Any] = {}
    announced: set[int] = set()
    for part in iter_parts(Streamer(Chunks(rows=rows)), batch_of(values), announced.add):
        assert part.rows is not None
        squares: Any = part.columns["square"]
        vectors: Any = part.columns["vector"]
        assert squares.type == pa.int64() and vectors.type == VECTOR
        for k, row in enumerate(part.rows):
            assert row not in found
            found[row] = part.errors.get(k, (squares[k].as_py(), vectors[k].as_py()))
    wrong = RowError("ValueError", "negative")
    assert found == {i: wrong if v < 0 else (v * v, [v, v]) for i, v in enumerate(values)}
    assert {i for i, v in enumerate(values) if v < 0} <= announced


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([-1, 0, 1, 2, 9]), max_size=40))
def test_a_split_is_bisected(values: list[int]) -> None:
    children = process_captured(Exploder(), batch_of(values))
    assert isinstance(children, Children)
    texts: Any = children.columns["text"]
    good = [(i, k) for i, v in enumerate(values) if 0 <= v < 8 for k in range(v)]
    assert sorted(zip(children.parents, children.keys, texts.to_pylist(), strict=True)) == [
        (i, str(k), str(k)) for i, k in good
    ]
    errors = {-1: "ValueError", 9: "UnicodeEncodeError"}
    assert {i: e.error for i, e in children.errors.items()} == {
        i: errors[v] for i, v in enumerate(values) if v in errors
    }


def yielding(*parts: Part, then: Exception | None = None) -> Callable[[], Iterator[Part]]:
    def outcome() -> Iterator[Part]:
        yield from parts
        if then is not None:
            raise then

    return outcome


@pytest.mark.parametrize(
    ("outcome", "match"),
    [
        (yielding(Part({"square": [1]}, rows=[0]), Part({"square": [1]}, rows=[0])), "gave row 0 twice"),
        (yielding(Part({"square": [1]}, rows=[1])), "no result for 1 of 2"),
        (yielding(Part({"square": [1, 2]}), then=ValueError("late")), "after its last row"),
        (lambda: [Part({"square": [1, 2]})], "returned list"),
        (lambda: iter([None]), "yielded NoneType"),
    ],
)
def test_a_generator_that_breaks_its_contract(outcome: Callable[[], Any], match: str) -> None:
    Broken.outcome[:] = [outcome]
    with pytest.raises(OperatorContractError, match=f"'test_broken'.*{match}"):
        process_captured(Broken(), batch_of([1, 2]))


@pytest.mark.parametrize(
    "values",
    [[7, None], np.array([7, 8]), pa.array([7, 8], pa.int8()), pa.chunked_array([[7], [8]]), [7.0, 8.0], [7, object()]],
)
def test_values_come_in_many_forms_and_errors_hide_theirs(values: Any) -> None:
    Broken.outcome[:] = [lambda: Part({"square": values}, {1: RowError("bad", "\ud800")})]
    outcome = process_captured(Broken(), batch_of([1, 2]))
    assert isinstance(outcome, list)
    assert outcome[0].columns["square"] == pa.array([7, None], pa.int64())
    assert outcome[0].errors == {1: RowError("bad", "?")}
