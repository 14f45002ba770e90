"""Parquet files with texts, streamed for work that sees every row: batches in order, threads beside, little in hand.

Parquet files of any number and size are one table here. What the work needs of a row is its text, its language and its
identity, which is never where it lies: a column of ids, or URL and text as recipes identify samples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpusmith.operators.balance.rule import texts_of
from corpusmith.operators.sources.files import SourceFile, format_by_name, shown
from corpusmith.operators.sources.listing import list_files
from corpusmith.operators.sources.names import HABITS
from corpusmith.operators.sources.parquet_table import valid
from corpusmith.operators.sources.rows import BATCH_BYTES, refuse_repeats
from corpusmith.operators.sources.streams import decoding, open_stored
from corpusmith.pipelines.executors import available_cpus
from corpusmith.pipelines.progress import Progress
from corpusmith.schemas.columns import UID
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.identity import uids_of_urls

BATCH_ROWS = 1 << 15

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Tables:
    """Parquet files of one schema, read batch by batch in their order.

    Args:
        schema: of all files.
        sizes: rows and bytes of each.
        text: name of the column of texts.
        language: of their languages, or None.
        uid, url: names of the columns of ids and of URLs, or None: what identities are made of.
        threads: that work on batches.
        limit_rows: rows to read at most, spread over the files; None for all.
    """

    files: Sequence[SourceFile]
    schema: pa.Schema
    sizes: Sequence[tuple[int, int]]
    text: str
    language: str | None
    uid: str | None
    url: str | None
    threads: int
    limit_rows: int | None = None

    @classmethod
    def of(cls, inputs: Sequence[str], named: Mapping[str, str | None], cpus: int | None) -> Tables:
        """The input's files, their footers read.

        Args:
            inputs: files, folders, patterns or URLs.
            named: text, language, uid, url → the column that is asked for, None for none or the habitual one.
            cpus: threads; None for all cores.

        Raises:
            UserError: there are none, their columns differ, or one that is named is missing.
        """
        files = list_files(list(inputs), "parquet")
        footers = [_footer(file) for file in files]
        schema = footers[0][0]
        for file, (other, _, _) in zip(files, footers, strict=True):
            if not other.equals(schema):
                what = f"its columns are not those of {shown(files[0].path)}: {_difference(schema, other)}"
                raise UserError(what, where=shown(file.path), hint="balance files of one schema at a time")
        for kind, name in named.items():
            if name is not None and name not in schema.names:
                hint = f"--{kind}-column NAME? columns: {', '.join(schema.names)}"
                raise UserError(f"there is no column {name!r}", where=shown(files[0].path), hint=hint)
        url = named["url"] or next((name for name in HABITS["url"] if name in schema.names), None)
        for name in (named["text"], named["language"], url):
            if name is not None:
                texts_of(schema.empty_table(), name)
        uid = named["uid"] or (UID.name if UID.name in schema.names else None)
        sizes = [(rows, size) for _, rows, size in footers]
        return cls(files, schema, sizes, str(named["text"]), named["language"], uid, url, cpus or available_cpus())

    @property
    def count(self) -> int:
        """Rows that are read."""
        return sum(min(rows, self._limit) for rows, _ in self.sizes)

    @property
    def columns(self) -> list[str]:
        """The columns that decisions need."""
        return list(dict.fromkeys(n for n in (self.text, self.language, self.uid, self.url) if n is not None))

    @property
    def identity(self) -> str:
        """What a row is drawn by, for people."""
        by_text = f"{self.url} and {self.text}" if self.url else self.text
        return f"{self.uid}, or {by_text} where it is null" if self.uid else by_text

    @cached_property
    def _limit(self) -> int:
        """Rows of one file at most."""
        if self.limit_rows is None:
            return max((rows for rows, _ in self.sizes), default=0)
        return -(-self.limit_rows // len(self.files))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Stream columns of all files."""
        for file, (rows, size) in zip(self.files, self.sizes, strict=True):
            batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(1, size)))
            left = self._limit
            with open_stored(file.path) as stream, decoding(file.path):
                for batch in pq.ParquetFile(stream).iter_batches(batch_rows, columns=list(columns)):
                    yield batch.select(columns).slice(0, left)
                    left -= batch.num_rows
                    if left <= 0:
                        break

    def texts_of(self, batch: pa.RecordBatch, columns: Sequence[str]) -> pa.Table:
        """Columns of texts, without what is no UTF-8."""
        table = pa.Table.from_batches([batch])
        arrays = [pa.chunked_array([valid(c)[0] for c in texts_of(table, n).chunks], pa.string()) for n in columns]
        return pa.table(arrays, names=list(columns))

    def rows_of(self, batch: pa.RecordBatch) -> pa.Table:
        """What the operator sees of a batch: its rows' identities, texts and languages."""
        names = [name for name in (self.text, self.language) if name is not None]
        table = self.texts_of(batch, list(dict.fromkeys([*names, *([self.url] if self.url else [])])))
        urls = table.column(self.url) if self.url else pa.nulls(batch.num_rows, pa.string())
        if self.uid is None:
            uids = pa.array(uids_of_urls(urls, table.column(self.text)), pa.string())
        else:
            uids = batch.column(self.uid).cast(pa.string())
            if uids.null_count:
                own = pa.array(uids_of_urls(urls, table.column(self.text)), pa.string())
                uids = pc.coalesce(uids, own)
        return pa.table([uids, *(table.column(name) for name in names)], names=[UID.name, *names])


class TextRows:
    """The texts of files as the operator's first pass sees them (`contract.Rows`): it counts, and needs no uids."""

    def __init__(
        self, tables: Tables, pool: ThreadPoolExecutor, scratch_dir: str, seed: int, progress: Progress
    ) -> None:
        self.count = tables.count
        self.seed = seed
        self.scratch_dir = scratch_dir
        self._tables = tables
        self._pool = pool
        self._progress = progress

    def reader(self, columns: Sequence[str]) -> pa.RecordBatchReader:
        """See `contract.Rows`; without uids."""
        schema = pa.schema([pa.field(name, pa.string()) for name in columns])
        return pa.RecordBatchReader.from_batches(schema, self._batches(columns))

    def map(self, work: Callable[[pa.Table], Result], columns: Sequence[str]) -> Iterator[Result]:
        """See `contract.Rows`; without uids."""

        def piece(batch: pa.RecordBatch) -> tuple[Result, int]:
            return work(self._tables.texts_of(batch, columns)), batch.num_rows

        self._progress.start("count", self.count)
        for result, rows in in_order(self._pool, piece, self._tables.batches(columns), 2 * self._tables.threads):
            self._progress.advance(rows)
            yield result
        self._progress.end()

    def _batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        self._progress.start("collect entries", self.count)
        for batch in self._tables.batches(columns):
            self._progress.advance(batch.num_rows)
            yield from self._tables.texts_of(batch, columns).to_batches()
        self._progress.end()


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Results in the order of the items, at most `ahead` of them in hand."""
    running: deque[Future[Result]] = deque()
    try:
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) >= ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()


def _footer(file: SourceFile) -> tuple[pa.Schema, int, int]:
    """Schema, rows, and bytes unpacked."""
    if format_by_name(file.path) not in (None, "parquet"):
        raise UserError("no Parquet file", where=shown(file.path), hint="name the Parquet files: folder/*.parquet")
    with open_stored(file.path) as stream, decoding(file.path):
        parquet = pq.ParquetFile(stream)
        groups = range(parquet.metadata.num_row_groups)
        size = sum(parquet.metadata.row_group(i).total_byte_size for i in groups)
        schema = parquet.schema_arrow.remove_metadata()
        refuse_repeats(schema.names, file.path)
        return schema, parquet.metadata.num_rows, size


def _difference(first: pa.Schema, other: pa.Schema) -> str:
    """The first column in which two schemas differ."""
    for name in dict.fromkeys([*first.names, *other.names]):
        here, there = (s.field(name).type if name in s.names else "missing" for s in (first, other))
        if here != there:
            return f"{name} is {there}, not {here}"
    return "their order, or what may be null"
