"""From kept rows to shards: a seeded order, then one independent task of range reads for each shard.

The order is drawn from hash(seed, uid), so shards come shuffled for training and depend on nothing but what was kept.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from corpusmith.operators.write.shards import Shards, ShardsConfig
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.units import Unit, load_media, with_column
from corpusmith.schemas.columns import FATE, MEDIA_REF, UID
from corpusmith.schemas.manifest import FileRecord, ShardRecord
from corpusmith.schemas.urls import redact_urls

SHARDS_FOLDER = "shards"
MEDIA_BATCH_ROWS = 256
SORT_MEMORY = "2GB"
_ORDER_KEY = "order_key"


def lay_out(
    work: Storage, folder: str, flow: str, units: Sequence[Unit], bounds: Sequence[tuple[int, int]], seed: int
) -> list[str]:
    """Write the kept rows in their final order, one table a shard; returns the tables' paths in shard order.

    Args:
        work: the work folder.
        folder: where the tables go.
        flow: folder of the last segment's rows.
        units: all units.
        bounds: (start, end) of each shard in the order; see `shard_bounds`.
        seed: the corpus's seed.
    """
    tables = (_kept(work, f"{flow}/{unit.name}.parquet", seed) for unit in units)
    first = next(tables)
    schema = first.schema
    sortable = pa.schema([field.with_type(_stand_in(field.type)) for field in schema])
    batches = (b for table in _chain(first, tables) for b in table.cast(sortable).to_batches())
    reader = pa.RecordBatchReader.from_batches(sortable, batches)
    with tempfile.TemporaryDirectory(prefix="corpusmith-") as scratch:
        connection = duckdb.connect(config={"temp_directory": scratch, "memory_limit": SORT_MEMORY})
        connection.execute("SET enable_external_access = false")
        connection.register("kept", reader)
        ordered = connection.sql(f"SELECT * EXCLUDE ({_ORDER_KEY}) FROM kept ORDER BY {_ORDER_KEY}, {UID.name}")
        plain = schema.remove(schema.get_field_index(_ORDER_KEY))
        return list(_cut(work, folder, ordered.to_arrow_reader(1 << 16), bounds, plain))


def _stand_in(kind: pa.DataType) -> pa.DataType:
    """A type that holds all values of `kind` and passes through DuckDB, which lacks some and changes others."""
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_duration(kind) or pa.types.is_date64(kind):
        return pa.int64()
    if pa.types.is_decimal256(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_stand_in(field.type)) for field in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_stand_in(kind.value_type)), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_stand_in(kind.value_type)))
    return kind


def _chain(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


def _kept(work: Storage, path: str, seed: int) -> pa.Table:
    table = work.read_table(path)
    table = table.filter(pc.is_null(table.column(FATE.name)))
    keys = [xxhash.xxh3_64_intdigest(uid.encode(), seed=seed) for uid in table.column(UID.name).to_pylist()]
    return table.append_column(_ORDER_KEY, pa.array(keys, pa.uint64()))


def _cut(
    work: Storage, folder: str, reader: pa.RecordBatchReader, bounds: Sequence[tuple[int, int]], schema: pa.Schema
) -> Iterator[str]:
    held = schema.empty_table()
    for index, (start, end) in enumerate(bounds):
        while held.num_rows < end - start:
            batch = pa.Table.from_batches([reader.read_next_batch()])  # DuckDB changes names that are empty or hold NUL
            held = pa.concat_tables([held, batch.rename_columns(schema.names).cast(schema)])
        path = f"{folder}/{index:05d}.parquet"
        work.publish_table(path, held.slice(0, end - start))
        held = held.slice(end - start)
        yield path


@dataclass(frozen=True)
class ShardTask:
    """Writes one shard; independent of all others, so it runs anywhere.

    Args:
        corpus: the corpus folder; work: its work folder.
        config: of the writer.
        versions: of the libraries that decide the bytes.
    """

    corpus: Storage
    work: Storage
    config: ShardsConfig
    versions: dict[str, str]

    def __call__(self, numbered: tuple[int, str]) -> ShardRecord:
        """Write shard `numbered[0]` from the rows at `numbered[1]`, unless it stands there already."""
        index, path = numbered
        rows = self.work.read_table(path)
        content = self._content(index, rows)
        record_path = f"shards/{index:05d}.json"
        standing = self._standing(record_path, content)
        if standing is not None:
            return standing
        record = self._write(index, rows, content)
        self.work.publish(record_path, record.model_dump_json().encode())
        return record

    def _content(self, index: int, rows: pa.Table) -> str:
        """Digest of all that decides the shard's bytes; where media is staged is no part of it."""
        facts = {
            "index": index,
            "config": self.config.model_dump(),
            "writer": Shards.version,
            "versions": self.versions,
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        plain = rows.drop_columns([MEDIA_REF.name]).combine_chunks()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, plain.schema) as writer:
            writer.write_table(plain)
        digest.update(sink.getvalue())
        return digest.hexdigest()[:32]

    def _standing(self, record_path: str, content: str) -> ShardRecord | None:
        try:
            record = ShardRecord.model_validate_json(self.work.read(record_path))
            if record.content != content:
                return None
            sizes = {path: self.corpus.fs.info(self.corpus.full(path))["size"] for path in record.files}
        except FileNotFoundError:
            return None
        return record if all(record.files[path].size_bytes == size for path, size in sizes.items()) else None

    def _write(self, index: int, rows: pa.Table, content: str) -> ShardRecord:
        with tempfile.TemporaryDirectory(prefix=".tmp-shard-", dir=self._scratch()) as folder:
            writer = Shards(self.config)
            names = writer.write_shard(index, _shown(rows), self._media(rows), folder)
            files: dict[str, FileRecord] = {}
            for name in names:
                local = Path(folder) / name
                path = f"{SHARDS_FOLDER}/{name}"
                files[path] = file_record(local, timed=name.endswith("_stats.json"))
                self.corpus.publish_file(local, path)
        return ShardRecord(index=index, samples=rows.num_rows, files=files, content=content)

    def _scratch(self) -> str | None:
        if not self.corpus.is_local:
            return None
        folder = Path(self.work.full("tmp"))
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def _media(self, rows: pa.Table) -> Iterator[bytes | None]:
        for start in range(0, rows.num_rows, MEDIA_BATCH_ROWS):
            references = rows.column(MEDIA_REF.name).slice(start, MEDIA_BATCH_ROWS).to_pylist()
            yield from load_media(self.work, references)


def _shown(rows: pa.Table) -> pa.Table:
    """Rows as they leave the work folder: addresses without secrets."""
    if "url" not in rows.schema.names:
        return rows
    return with_column(rows, "url", redact_urls(rows.column("url")))


def file_record(local: Path, *, timed: bool) -> FileRecord:
    """Size and hash of a file; no hash where times are part of its bytes."""
    if timed:
        return FileRecord(sha256="", size_bytes=local.stat().st_size)
    with local.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(sha256=digest, size_bytes=local.stat().st_size)
