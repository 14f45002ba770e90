"""Digests of required values: when they match, a stored result counts.

A row's digest covers the values that an operator requires and nothing else: neither the row's place, nor what was
selected before it. Media counts by its sha256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from corpusmith.schemas.columns import MEDIA, MEDIA_SHA256

_NULL = b"-"
"""Stands where a value's length would."""


def row_digests(table: pa.Table, requires: Sequence[str]) -> pa.Array:
    """Digest of each row's required values: fixed binary of 16 bytes (xxh3-128).

    Each value is written as its length and its bytes, so that no two different rows give the same input.
    """
    keys = [_as_binary(table, name) for name in requires]
    if not keys:
        empty = xxhash.xxh3_128_digest(b"")
        return pa.array([empty] * table.num_rows, pa.binary(16))
    framed: list[pa.Array] = []
    for key in keys:
        lengths = pc.cast(pc.cast(pc.binary_length(key), pa.string()), pa.large_binary())
        framed += [pc.fill_null(lengths, _NULL), pc.fill_null(key, b"")]
    joined = pc.binary_join_element_wise(*framed, pa.scalar(b":", pa.large_binary()))
    digest = xxhash.xxh3_128_digest
    return pa.array(list(map(digest, joined.to_pylist())), pa.binary(16))


def _as_binary(table: pa.Table, name: str) -> pa.Array:
    """A column's values as bytes: distinct values of its type have distinct bytes, null stays null."""
    column = table.column(MEDIA_SHA256.name if name == MEDIA.name else name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_floating(kind):
        # the bits, not the decimal form: every distinct value is distinct
        column = pc.cast(column, pa.float64()).combine_chunks().view(pa.int64())
    elif pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        # the number, not the date: a date may lie outside the calendar
        column = column.combine_chunks().view(pa.int32() if kind.bit_width == 32 else pa.int64())
    elif _is_list_of_numbers(kind):
        column = _bytes_of_lists(column.combine_chunks())
    elif not _is_castable(kind):
        column = _as_json(column)
    if not _is_bytes(column.type):
        column = pc.cast(column, pa.large_string())
    column = pc.cast(column, pa.large_binary())
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))


def _bytes_of_lists(lists: pa.Array) -> pa.Array:
    """Each list's numbers as they lie in memory: embeddings have too many to be written out. Null stays null."""
    values = lists.flatten()
    numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]) * numbers.itemsize
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(numbers))]
    plain = pc.if_else(lists.is_valid(), pa.Array.from_buffers(pa.large_binary(), len(lists), buffers), None)
    if not values.null_count:
        return plain
    holed = np.zeros(len(lists), np.bool_)
    holed[pc.list_parent_indices(lists).filter(values.is_null())] = True
    return pc.replace_with_mask(plain, pa.array(holed), _as_json(lists.filter(pa.array(holed))).cast(pa.large_binary()))


def _as_json(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return pa.array([None if v is None else json.dumps(v, default=str) for v in column.to_pylist()], pa.string())


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _is_castable(kind: pa.DataType) -> bool:
    """Whether Arrow casts the type to text, or to bytes, without making two values one."""
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    is_number = pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind)
    return is_text or is_number or pa.types.is_null(kind) or _is_bytes(kind)


def fingerprint(facts: Mapping[str, Any]) -> str:
    """64 bits as 16 hex digits of anything JSON-able; the key order of mappings does not matter."""
    text = json.dumps(facts, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class SetDigest:
    """Digest of a set of rows, whatever their order: 128-bit row hashes added up, and their number."""

    def __init__(self) -> None:
        self._sum = 0
        self._count = 0

    def add(self, uids: pa.Array | pa.ChunkedArray, digests: pa.Array) -> None:
        """Take rows in."""
        binary = pa.binary()
        rows = pc.binary_join_element_wise(pc.cast(uids, binary), pc.cast(digests, binary), pa.scalar(b"", binary))
        self._sum += sum(map(xxhash.xxh3_128_intdigest, rows.to_pylist()))
        self._count += len(rows)

    def hexdigest(self) -> str:
        """The digest so far."""
        return fingerprint({"sum": self._sum & ((1 << 128) - 1), "count": self._count})
