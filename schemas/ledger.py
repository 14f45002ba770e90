"""The ledger: one row a sample, kept or not. Addresses are stored without secrets; a hash finds the row again."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.schemas.columns import PARENT, ROOT, SOURCE_UID, UID

LEDGER_FOLDER = "ledger"

LEDGER_SCHEMA = pa.schema(
    [
        pa.field(UID.name, pa.string()),
        pa.field(ROOT.name, pa.string()),
        pa.field(PARENT.name, pa.string()),
        pa.field(SOURCE_UID.name, pa.string()),
        pa.field("url", pa.string()),
        pa.field("url_hash", pa.string()),
        pa.field("fate", pa.string()),
        pa.field("step", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("error", pa.string()),
        pa.field("children", pa.int64()),
    ]
)


def url_hash(url: str | None) -> str | None:
    """What `explain URL` looks for: 128 bits of the sha256 of the address as given, 32 hex digits."""
    return None if url is None else hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def reason_labels(reasons: pa.Array | pa.ChunkedArray, errors: pa.Array | pa.ChunkedArray) -> pa.Array:
    """What to count each reason by: the error's class, or the part of the reason before the value; (N,) strings."""
    heads = pc.list_element(pc.split_pattern(pc.fill_null(reasons, ""), ": ", max_splits=1), 0)
    return pc.coalesce(errors, heads)
