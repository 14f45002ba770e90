"""Digests of required values: equal exactly where the values are, whatever somebody puts into them."""

from __future__ import annotations

import datetime
import math
import struct
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmith.pipelines.digests import SetDigest, fingerprint, row_digests

HOSTILE_TEXTS = st.one_of(
    st.none(),
    st.sampled_from(
        ["", "-", ":", "0", "0:", "-:", "1:a", "null", "None", "NaN", "1", "1.0", "\0", "a\0", " ", "é", "é"]
    ),
    st.text(alphabet="-:01a", max_size=6),
)
NUMBERS = st.one_of(st.none(), st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324]), st.floats())


def digests_of(**columns: pa.Array) -> list[bytes]:
    table = pa.table(columns)
    return row_digests(table, list(columns)).to_pylist()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(rows=st.lists(st.tuples(HOSTILE_TEXTS, HOSTILE_TEXTS, HOSTILE_TEXTS), min_size=2, max_size=30))
def test_texts_that_differ_have_different_digests(rows: list[tuple[str | None, ...]]) -> None:
    columns = [pa.array([row[i] for row in rows], pa.string()) for i in range(3)]
    digests = digests_of(a=columns[0], b=columns[1], c=columns[2])
    assert len(set(digests)) == len(set(rows))
    assert len(set(zip(rows, digests, strict=True))) == len(set(rows))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(NUMBERS, st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))), min_size=2, max_size=30)
)
def test_numbers_that_differ_in_any_bit_have_different_digests(rows: list[tuple[float | None, int | None]]) -> None:
    floats, integers = [row[0] for row in rows], [row[1] for row in rows]
    digests = digests_of(x=pa.array(floats, pa.float64(), from_pandas=False), n=pa.array(integers, pa.int64()))
    bits = [(None if x is None else struct.pack("<d", x), n) for x, n in rows]
    assert len(set(digests)) == len(set(bits))
    assert len(set(zip(digests, bits, strict=True))) == len(set(bits))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    rows=st.lists(
        st.one_of(
            st.none(), st.lists(st.one_of(st.none(), st.sampled_from(["", "a", "a, b", '"', "null"])), max_size=3)
        ),
        min_size=2,
        max_size=20,
    )
)
def test_lists_that_differ_have_different_digests(rows: list[list[str | None] | None]) -> None:
    digests = digests_of(tags=pa.array(rows, pa.list_(pa.string())))
    assert len(set(digests)) == len({None if row is None else tuple(row) for row in rows})


KINDS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "bool": (pa.bool_(), [True, False, None]),
    "binary": (pa.binary(), [b"", b"\xff\xfe", b"-", b"0", None]),
    "fixed binary": (pa.binary(2), [b"\xff\xfe", b"\0\0", None]),
    "large string": (pa.large_string(), ["", "-", None]),
    "decimal": (pa.decimal128(6, 2), [Decimal("1.10"), Decimal("1.01"), None]),
    "half": (pa.float16(), [0.0, 1.5, None]),
    "date": (pa.date32(), [datetime.date(1, 1, 1), datetime.date(9999, 12, 31), None]),
    "duration": (pa.duration("ns"), [0, 1, -1, None]),
    "time": (pa.time32("ms"), [0, 1, None]),
    "timestamp beyond the calendar": (pa.timestamp("s", "UTC"), [-(2**60), 0, 2**60, 2**60 + 1, None]),
    "timestamp of nanoseconds": (pa.timestamp("ns"), [0, 1, 1000, None]),
    "interval": (pa.month_day_nano_interval(), [(1, 0, 0), (0, 30, 0), (0, 0, 1), None]),
    "struct": (pa.struct([("a", pa.int64()), ("b", pa.binary())]), [{"a": 1, "b": b"x"}, {"a": None, "b": b""}, None]),
    "spans": (pa.list_(pa.list_(pa.float32())), [[[0.1, 0.2]], [[0.1], [0.2]], [[]], [], [None], None]),
    "null": (pa.null(), [None]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_tells_its_values_apart(kind: str) -> None:
    type_, values = KINDS[kind]
    column = pa.array(values, type_)
    digests = digests_of(x=column)
    assert len(set(digests)) == len(values)
    in_pieces = pa.chunked_array([column.slice(i, 1) for i in range(len(column))], type_)
    assert row_digests(pa.table({"x": in_pieces}), ["x"]).to_pylist() == digests
    assert row_digests(pa.table({"x": column}).slice(len(values) - 1), ["x"]).to_pylist() == digests[-1:]
    assert row_digests(pa.table({"x": column.slice(0, 0)}), ["x"]).to_pylist() == []


NUMBER_LISTS = [pa.list_(pa.float16()), pa.large_list(pa.float32()), pa.list_(pa.int32()), pa.list_(pa.float64(), 2)]


@pytest.mark.parametrize("kind", NUMBER_LISTS, ids=str)
def test_lists_of_numbers_have_digests_of_their_own_whatever_stands_beside_them(kind: pa.DataType) -> None:
    values = [[1, 2], None, [2, 1], [1, None], [None, 1], [0, 0], [None, None], [1, 3]]
    values += [] if pa.types.is_fixed_size_list(kind) else [[], [1], [1, 2, 0], [None]]
    column = pa.chunked_array([pa.array(values[:3], kind), pa.array(values[2:], kind).slice(1)])
    together = row_digests(pa.table({"e": column}), ["e"]).to_pylist()
    alone = [row_digests(pa.table({"e": pa.array([v], kind)}), ["e"])[0].as_py() for v in values]
    assert together == alone
    assert len(set(alone)) == len(values)


def test_a_dictionary_is_worth_its_values() -> None:
    texts = pa.array(["a", None, "b", "a"])
    assert digests_of(x=texts.dictionary_encode()) == digests_of(x=texts)


def test_media_counts_by_its_sha256_and_nothing_else_counts() -> None:
    table = pa.table({"media_sha256": ["aa", "bb"], "media_ref": ["x#0:1", "y#0:1"], "caption": ["c", "c"]})
    digests = row_digests(table, ["media"])
    moved = table.set_column(1, "media_ref", pa.array(["z#9:1", None]))
    assert row_digests(moved, ["media"]) == digests
    assert digests[0] != digests[1]
    assert len(set(row_digests(table, ["caption"]).to_pylist())) == 1
    assert len(set(row_digests(table, []).to_pylist())) == 1


def test_the_order_of_the_columns_counts() -> None:
    table = pa.table({"a": ["x"], "b": ["y"]})
    assert row_digests(table, ["a", "b"]) != row_digests(table, ["b", "a"])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(rows=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8), chance=st.randoms())
def test_a_sets_digest_ignores_order_and_nothing_else(rows: list[tuple[int, int]], chance: Any) -> None:
    def of(pairs: list[tuple[int, int]], pieces: int) -> str:
        digest = SetDigest()
        for i in range(pieces):
            piece = pairs[i::pieces]
            uids = pa.array([f"{uid:032x}" for uid, _ in piece], pa.string())
            digest.add(uids, pa.array([bytes([value] * 16) for _, value in piece], pa.binary(16)))
        return digest.hexdigest()

    shuffled = list(rows)
    chance.shuffle(shuffled)
    assert of(rows, 1) == of(shuffled, 2)
    assert of(rows, 1) != of([*rows, (0, 0)], 1)
    if rows:
        uid, value = rows[0]
        assert of(rows, 1) != of([(uid, value + 6), *rows[1:]], 1)


def test_a_fingerprint_ignores_the_order_of_keys_alone() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})
    assert len(fingerprint({})) == 16
