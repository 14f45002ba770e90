"""`shards`: the final form of a corpus, as img2dataset lays it out, so that every WebDataset trainer loads it.

Shard 0 is `00000.tar`, `00000.parquet` and `00000_stats.json`. A sample is `<key>.<jpg|png|mp4|…>` (absent for a
sample without media), `<key>.txt` (absent without a caption) and `<key>.json`; the key is the shard's number and the
sample's place in it, `000010005`. The Parquet holds the same rows and, as `tar_offset` and `tar_size`, where the
media lies in the tar: one range read fetches a sample. Any other name `<int>_*.json` would be taken by img2dataset
for its mark of a finished shard, which is why the offsets have no file of their own.

Tar and Parquet are functions of the rows and the media alone: no clock, user or chunking of the table enters them.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import itertools
import json
import math
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from corpusmith.operators import contract
from corpusmith.operators.contract import Write
from corpusmith.operators.media_type import extension_of
from corpusmith.operators.write.tar import Member, TarWriter
from corpusmith.schemas.columns import CAPTION, MEDIA, PARENT, RESERVED_NAMES, UID, URL, Column

KEY = Column("key", pa.string(), "name of the sample in its tar: the shard's number and the place in the shard")
STATUS = Column("status", pa.string(), "img2dataset's word for how the sample ended: always success here")
ERROR_MESSAGE = Column("error_message", pa.string(), "img2dataset's column; always null for a kept sample")
TAR_OFFSET = Column("tar_offset", pa.int64(), "first byte of the media in the tar; null without media", "bytes")
TAR_SIZE = Column("tar_size", pa.int64(), "length of the media in the tar; null without media", "bytes")
SHARD_COLUMNS: tuple[Column, ...] = (KEY, STATUS, ERROR_MESSAGE, TAR_OFFSET, TAR_SIZE)
"""Columns that the writer makes; columns of these names from earlier in the recipe give way."""

SUCCESS = "success"

_MIN_KEY_DIGITS = 4
_ROWS_AT_ONCE = 1024
_FIRST_COLUMNS = (
    *(KEY.name, UID.name, URL.name, CAPTION.name, STATUS.name, ERROR_MESSAGE.name),
    *("width", "height", "original_width", "original_height", "exif", "sha256"),
)
_PLAIN_TYPES = {
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
}
_LEFT_OUT = (RESERVED_NAMES - {UID.name, PARENT.name}) | {MEDIA.name} | {c.name for c in SHARD_COLUMNS}


class ShardsConfig(contract.Config):
    """How the kept samples are cut into shards."""

    samples_per_shard: int = Field(
        default=10_000, ge=1, le=1_000_000, description="samples in a shard at most; shards are balanced below it"
    )
    shard_digits: int = Field(default=5, ge=1, le=10, description="digits of a shard's number, in file names and keys")
    compression_level: int = Field(default=3, ge=1, le=19, description="zstd level of the Parquet files")


class Shards(Write, name="shards", version=1):
    """Write WebDataset shards as img2dataset lays them out: tar, Parquet with media offsets, stats."""

    Config = ShardsConfig
    config: ShardsConfig

    @property
    def requires(self) -> tuple[str, ...]:
        return ()

    def write_shard(self, index: int, rows: pa.Table, media: Iterator[bytes | None], folder: str) -> list[str]:
        """Write one shard; see the module's docstring for the files.

        Raises:
            ValueError: more rows than `samples_per_shard`, or not one media item a row.
        """
        if rows.num_rows > self.config.samples_per_shard:
            raise ValueError(f"shard {index} has {rows.num_rows} rows, above {self.config.samples_per_shard}")
        started_s = time.time()
        stem = f"{index:0{self.config.shard_digits}d}"
        names = [f"{stem}.tar", f"{stem}.parquet", f"{stem}_stats.json"]
        tar_path, parquet_path, stats_path = (Path(folder) / name for name in names)
        columns = _columns_of(rows, _keys(stem, rows.num_rows, self.config.samples_per_shard))
        with tar_path.open("wb") as file:
            columns |= _write_samples(file, pa.table(columns), media)
        table = pa.table({name: columns[name] for name in _ordered(columns)})
        pq.write_table(table, parquet_path, compression="zstd", compression_level=self.config.compression_level)
        stats_path.write_text(json.dumps(_stats(rows.num_rows, started_s, time.time()), indent=4))
        return names


def shard_bounds(rows: int, samples_per_shard: int) -> list[tuple[int, int]]:
    """First row and row after the last of each shard: gapless, none empty, sizes that differ by at most one."""
    count = -(-rows // samples_per_shard)
    edges = [rows * i // count for i in range(count + 1)] if count else []
    return list(itertools.pairwise(edges))


def _keys(stem: str, count: int, samples_per_shard: int) -> list[str]:
    """Keys of a shard's samples; the digits depend on `samples_per_shard` alone, so that no place overflows them."""
    digits = max(_MIN_KEY_DIGITS, len(str(samples_per_shard - 1)))
    return [f"{stem}{i:0{digits}d}" for i in range(count)]


def _columns_of(rows: pa.Table, keys: list[str]) -> dict[str, pa.Array | pa.ChunkedArray]:
    """The rows as the Parquet and the .json members hold them: all columns but the offsets."""
    columns = {name: _plain(rows[name]) for name in rows.column_names if name not in _LEFT_OUT}
    columns[KEY.name] = pa.array(keys, KEY.type)
    columns[STATUS.name] = pa.array([SUCCESS] * len(keys), STATUS.type)
    columns[ERROR_MESSAGE.name] = pa.nulls(len(keys), ERROR_MESSAGE.type)
    return columns


def _ordered(names: Iterable[str]) -> list[str]:
    """img2dataset's columns first, in its order, then the others by name."""
    place = {name: i for i, name in enumerate(_FIRST_COLUMNS)}
    return sorted(names, key=lambda name: (place.get(name, len(place)), name))


def _plain(column: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The column in one piece and in the plain type of its kind: how it travelled must not show in the bytes."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    kind = _PLAIN_TYPES.get(kind, kind)
    return (column if kind == column.type else column.cast(kind)).combine_chunks()


def _write_samples(file: BinaryIO, table: pa.Table, media: Iterator[bytes | None]) -> dict[str, pa.Array]:
    """Write the tar; returns the columns that say where each sample's media lies in it."""
    members: list[Member | None] = []
    with TarWriter(file) as tar:
        for row, data in zip(_iter_rows(table), media, strict=True):
            key, caption = row[KEY.name], row.get(CAPTION.name)
            members.append(tar.add(f"{key}.{extension_of(data)}", data) if data is not None else None)
            if caption is not None:
                tar.add(f"{key}.txt", str(caption).encode())
            tar.add(f"{key}.json", _json_of(row).encode())
    return {
        TAR_OFFSET.name: pa.array([member and member.offset for member in members], TAR_OFFSET.type),
        TAR_SIZE.name: pa.array([member and member.size for member in members], TAR_SIZE.type),
    }


def _iter_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        try:
            yield from batch.to_pylist()
        except (OverflowError, ValueError):  # a time that Python has no value for, such as one of the year 60000
            columns = [[_python_value(scalar) for scalar in column] for column in batch.columns]
            yield from (dict(zip(batch.schema.names, values, strict=True)) for values in zip(*columns, strict=True))


def _python_value(scalar: pa.Scalar) -> Any:
    """The value; a time beyond Python's as Arrow writes it; None for a list or struct that holds one."""
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        return None if pa.types.is_nested(scalar.type) else scalar.cast(pa.string()).as_py()


def _json_of(row: dict[str, Any]) -> str:
    """The row as one line of JSON with sorted keys; bytes as base64, times as ISO 8601, NaN and infinity as null."""
    try:
        return _encode_json(row)
    except ValueError:  # JSON has no NaN and no infinity
        return _encode_json(_finite(row))


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON")


_encode_json = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, allow_nan=False, separators=(",", ":"), default=_json_value
).encode


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _stats(count: int, started_s: float, ended_s: float) -> dict[str, Any]:
    """img2dataset's record of a shard; its times (seconds since 1970) are the only bytes that vary."""
    return {
        "count": count,
        "successes": count,
        "failed_to_download": 0,
        "failed_to_resize": 0,
        "duration": ended_s - started_s,
        "start_time": started_s,
        "end_time": ended_s,
        "status_dict": {SUCCESS: count},
    }
