"""Balancing Parquet files without a recipe: the operator `balance` over any table of texts, read twice as a stream.

One thread reads and writes, the others match and decide on batches; few are in hand at once, so that memory depends on
the list of entries and on batches, not on the input. Kept rows come out in the input's order, all columns as they were.

A row is drawn by its identity: a column of ids, or else URL and text as recipes identify samples. So neither order nor
sharding of the input means anything, and rows that are alike in both stay or go together.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from corpusmith.operators.balance.balance import Balance
from corpusmith.operators.balance.rule import BALANCE_PROBABILITY, Decided
from corpusmith.operators.sources.files import is_local, shown
from corpusmith.operators.sources.rows import BATCH_BYTES
from corpusmith.pipelines.progress import Progress
from corpusmith.pipelines.storage import TEMPORARY_PREFIX, Storage
from corpusmith.pipelines.text_tables import Tables, TextRows, in_order
from corpusmith.schemas.errors import UserError

GROUP_ROWS = 1 << 17
"""Rows of a row group of the output, about."""
SAMPLE_ROWS = 100_000


@dataclass(frozen=True)
class Job:
    """What is balanced, by what, and where it goes.

    Args:
        inputs: Parquet files, folders, patterns or URLs.
        output: a Parquet file or its URL.
        config: of the operator; its column is the text's.
        seed: of the draws.
        uid_column: of ids; None for `uid` where all files have it, else the identity by URL and text.
        url_column: of URLs; None for the habitual names.
        cpus: threads; None for all cores.
        overwrite: whether the output may be there.
    """

    inputs: Sequence[str]
    output: str
    config: Balance.Config
    seed: int = 0
    uid_column: str | None = None
    url_column: str | None = None
    cpus: int | None = None
    overwrite: bool = False

    def tables(self) -> Tables:
        """The input."""
        config = self.config
        named = {"text": config.column, "language": config.language_column}
        return Tables.of(self.inputs, named | {"uid": self.uid_column, "url": self.url_column}, self.cpus)

    @property
    def counts_path(self) -> str:
        """Where the counts go: beside the output, under its name with `.json`."""
        return f"{self.output.removesuffix('.parquet')}.json"


def balance_files(job: Job, progress: Progress) -> dict[str, Any]:
    """Balance and write; returns the operator's summary.

    Raises:
        UserError: the input is no Parquet, or lacks a column; the output is there or cannot be written.
    """
    tables = job.tables()
    storage, name = _place(job.output)
    _refuse(job, tables, storage)
    with _scratch(storage) as scratch, ThreadPoolExecutor(tables.threads, "corpusmith") as pool:
        operator = Balance(job.config, seed=job.seed)
        counted = operator.count(TextRows(tables, pool, str(scratch), job.seed, progress))
        progress.start("balance", tables.count)
        is_online = job.config.mode == "online"
        schema = tables.schema.append(_WEIGHT) if is_online else tables.schema

        def decide(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Decided]:
            decided = counted.decide(tables.rows_of(batch))
            if is_online:
                return pa.record_batch([*batch.columns, decided.batch.column(_WEIGHT.name)], schema=schema), decided
            return batch.filter(pa.array(decided.is_kept)), decided

        def kept() -> Iterator[pa.RecordBatch]:
            for batch, decided in in_order(pool, decide, tables.batches(tables.schema.names), 2 * tables.threads):
                counted.tally.add(decided)
                progress.advance(decided.batch.num_rows, decided.batch.num_rows - batch.num_rows)
                yield batch

        _write(scratch / "kept.parquet", schema, kept())
        progress.end()
        summary = counted.summary()
        facts = {"parameters": job.config.model_dump(mode="json"), "seed": job.seed, "files": len(tables.files)}
        counts = json.dumps({**facts, "identity": tables.identity, **summary}, ensure_ascii=False)
        storage.publish(_name(job.counts_path), counts.encode())
        # what a reader waits for comes last
        storage.publish_file(scratch / "kept.parquet", name)
    return summary


def balance_sample(job: Job, progress: Progress) -> dict[str, Any]:
    """What a sample of SAMPLE_ROWS rows, as many of each file, would match and keep, taken as if it were the pool."""
    tables = replace(job.tables(), limit_rows=SAMPLE_ROWS)
    with tempfile.TemporaryDirectory(prefix="corpusmith-") as scratch, ThreadPoolExecutor(tables.threads) as pool:
        counted = Balance(job.config, seed=job.seed).count(TextRows(tables, pool, scratch, job.seed, progress))
        for batch in tables.batches(tables.columns):
            counted.tally.add(counted.decide(tables.rows_of(batch)))
    return counted.summary()


_WEIGHT = pa.field(BALANCE_PROBABILITY.name, BALANCE_PROBABILITY.type)


def _place(output: str) -> tuple[Storage, str]:
    """The folder of the output, and its name."""
    if not output.endswith(".parquet"):
        raise UserError("the output is one Parquet file", where=output, hint=f"-o {output.rstrip('/')}.parquet")
    folder, slash, name = output.rpartition("/")
    return Storage(folder or (slash or ".")), name


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _refuse(job: Job, tables: Tables, storage: Storage) -> None:
    """Refuse to write over something.

    Raises:
        UserError: the output is there, or is read from, or the weight's column is taken.
    """
    fs, inner = url_to_fs(job.output)
    own = str(Path(inner).resolve()) if is_local(fs) else fs.unstrip_protocol(inner)
    if own in {str(Path(f.path).resolve()) if "://" not in f.path else f.path for f in tables.files}:
        raise UserError("the output is among the input", where=job.output, hint="write to another folder")
    there = [path for path in (job.output, job.counts_path) if storage.exists(_name(path))]
    if there and not job.overwrite:
        raise UserError("is there already", where=there[0], hint="write elsewhere, or give --overwrite")
    if job.config.mode == "online" and _WEIGHT.name in tables.schema.names:
        raise UserError(f"the input has a column {_WEIGHT.name!r}", where=shown(tables.files[0].path), hint="rename it")


@contextmanager
def _scratch(storage: Storage) -> Iterator[Path]:
    """A folder for what is on its way: beside the output, so that it can be renamed, or local for a remote one."""
    folder = None
    if storage.is_local:
        Path(storage.full("")).mkdir(parents=True, exist_ok=True)
        folder = storage.full("")
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=folder) as scratch:
        yield Path(scratch)


def _write(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    held: list[pa.RecordBatch] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            held.append(batch)
            if sum(b.num_rows for b in held) >= GROUP_ROWS or sum(b.nbytes for b in held) >= 2 * BATCH_BYTES:
                writer.write_table(pa.Table.from_batches(held, schema))
                held.clear()
        if held:
            writer.write_table(pa.Table.from_batches(held, schema))
