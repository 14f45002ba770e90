"""Records: what is told of each row, in img2dataset's columns, words and JSON."""

from __future__ import annotations

import base64
import datetime
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from corpusmith.pipelines.img2dataset.flags import Flags
from corpusmith.pipelines.img2dataset.inputs import EXPECTED
from corpusmith.schemas.columns import CAPTION, URL
from corpusmith.schemas.fates import RowError

SUCCESS = "success"
DOWNLOAD_FAILED = "failed_to_download"
RESIZE_FAILED = "failed_to_resize"

HASH_MISMATCH = "hash mismatch"


@dataclass(frozen=True)
class Outcome:
    """How one row ended.

    Args:
        status: img2dataset's word.
        error: why it failed; null for a success.
        media: the image.
        made: width, height, original_width, original_height, exif, and the hash under its kind, as far as known.
    """

    status: str
    error: RowError | None = None
    media: bytes | None = None
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def message(self) -> str | None:
        """The error as one text: its class, by which it is counted, and what it was about."""
        if self.error is None:
            return None
        return f"{self.error.error}: {self.error.message}" if self.error.message else self.error.error


def made_schema(flags: Flags) -> list[pa.Field]:
    """Columns that a row gets here."""
    fields = [
        *(pa.field(name, pa.string()) for name in ("key", "status", "error_message")),
        *(pa.field(name, pa.int32()) for name in ("width", "height", "original_width", "original_height")),
    ]
    if flags.extract_exif:
        fields.append(pa.field("exif", pa.string()))
    if flags.compute_hash:
        fields.append(pa.field(flags.compute_hash, pa.string()))
    return fields


def output_schema(flags: Flags, rows: pa.Schema) -> pa.Schema:
    """All columns in img2dataset's order: further ones, caption, a verified hash, boxes, URL, what is made here."""
    made = {f.name: f for f in made_schema(flags)}
    fields = {name: rows.field(name) for name in flags.save_additional_columns or ()}
    if CAPTION.name in rows.names:
        fields[CAPTION.name] = rows.field(CAPTION.name)
    if flags.verify_hash:
        fields[flags.verify_hash[1]] = made[flags.verify_hash[1]]
    if flags.bbox_col:
        fields[flags.bbox_col] = rows.field(flags.bbox_col)
    fields[URL.name] = rows.field(URL.name)
    for name, made_field in made.items():
        fields.setdefault(name, made_field)
    return pa.schema(list(fields.values()))


def key_of(flags: Flags, shard: int, index: int) -> str:
    """The key of a row: the shard's number, then the place in the shard, each with its digits."""
    digits = len(str(flags.number_sample_per_shard - 1))
    return f"{shard:0{flags.oom_shard_count}d}{index:0{digits}d}"


def json_of(record: dict[str, Any]) -> bytes:
    """A record as img2dataset writes it: four spaces, escapes for what is not ASCII; null for NaN and infinity."""
    try:
        return _indented(record)
    except ValueError:  # JSON has no NaN and no infinity
        return _indented(_finite(record))


def _indented(record: dict[str, Any]) -> bytes:
    """What `json.dumps(record, indent=4)` gives, several times as fast for plain values."""
    lines = (f"    {_plain_json(name)}: {_value_json(value)}" for name, value in record.items())
    return "{{\n{}\n}}".format(",\n".join(lines)).encode()


def _value_json(value: Any) -> str:
    if isinstance(value, list | dict):
        return json.dumps(value, indent=4, allow_nan=False, default=_json_value).replace("\n", "\n    ")
    return _plain_json(value)


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


_plain_json = json.JSONEncoder(allow_nan=False, default=_json_value).encode


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def given_of(rows: pa.Table) -> list[dict[str, Any]]:
    """What the input says of each row, without what is only compared with."""
    return rows.drop_columns([EXPECTED] if EXPECTED in rows.column_names else []).to_pylist()


def stats_of(statuses: Sequence[str], reasons: Counter[str], started_s: float, ended_s: float) -> dict[str, Any]:
    """img2dataset's record of a shard; times are seconds since 1970, reasons are counted by their class."""
    counted = Counter(statuses)
    return {
        "count": len(statuses),
        "successes": counted[SUCCESS],
        DOWNLOAD_FAILED: counted[DOWNLOAD_FAILED],
        RESIZE_FAILED: counted[RESIZE_FAILED],
        "duration": ended_s - started_s,
        "start_time": started_s,
        "end_time": ended_s,
        "status_dict": dict(reasons),
    }
