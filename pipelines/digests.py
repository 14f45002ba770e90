"""Digests of required values: when they match, a stored result counts.

A row's digest covers the values that an operator requires and nothing else: neither the row's place, nor what was
selected before it. Media counts by its sha256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

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
    return pa.array([digest(value) for value in joined.to_pylist()], pa.binary(16))


def _as_binary(table: pa.Table, name: str) -> pa.Array:
    column = table.column(MEDIA_SHA256.name if name == MEDIA.name else name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    kind = column.type
    if pa.types.is_floating(kind):
        # the bits, not the decimal form: every distinct value is distinct
        column = pc.cast(pc.cast(column, pa.float64()).view(pa.int64()), pa.string())
    elif pa.types.is_nested(kind) or pa.types.is_dictionary(kind) or pa.types.is_temporal(kind):
        column = pa.array([None if v is None else json.dumps(v, default=str) for v in column.to_pylist()], pa.string())
    elif pa.types.is_null(kind):
        column = pa.nulls(len(column), pa.string())
    elif not (pa.types.is_large_binary(kind) or pa.types.is_binary(kind)):
        column = pc.cast(column, pa.string())
    return pc.cast(column, pa.large_binary())


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
        for uid, digest in zip(uids.to_pylist(), digests.to_pylist(), strict=True):
            self._sum += xxhash.xxh3_128_intdigest(uid.encode() + digest)
            self._count += 1

    def hexdigest(self) -> str:
        """The digest so far."""
        return fingerprint({"sum": self._sum & ((1 << 128) - 1), "count": self._count})
