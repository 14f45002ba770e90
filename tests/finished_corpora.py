"""Finished corpora without a run: as little as a reader of their samples needs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmith.schemas.manifest import MANIFEST_PATH, Counts, FileRecord, Manifest, ShardRecord


def write_corpus(folder: Path, name: str, shards: Sequence[pa.Table]) -> str:
    """Write a manifest and one Parquet a shard; returns the folder.

    Args:
        folder: of the corpus; what is there is replaced.
        name: of the corpus.
        shards: the samples, with a `uid`.
    """
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    records = []
    for i, table in enumerate(shards):
        path = f"shards/{i:05d}.parquet"
        pq.write_table(table, folder / path)
        data = (folder / path).read_bytes()
        record = FileRecord(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        stats = FileRecord(sha256="", size_bytes=2)
        files = {path: record, path.replace(".parquet", "_stats.json"): stats}
        records.append(ShardRecord(index=i, samples=table.num_rows, files=files, content=""))
    kept = sum(table.num_rows for table in shards)
    counts = Counts(rows_in=kept, duplicates=0, rows_made=0, kept=kept, rejected=0, failed=0, split=0)
    manifest = Manifest(
        corpus=name,
        created="",
        recipe={},
        seed=0,
        fingerprints={},
        versions={},
        counts=counts,
        shards=records,
        ledger={},
    )
    (folder / MANIFEST_PATH).write_text(manifest.model_dump_json())
    return str(folder)
