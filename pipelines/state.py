"""State: the published results of one operator under one fingerprint.

A store is a folder of Parquet files of two sorts: fragments, as workers publish them while a stream runs, and bucket
files, into which fragments are compacted. A row holds a uid, the digest of the values that its result was computed
from, the outcome, and the produced columns. A result counts for a row only if uid and digest match; nothing else is
remembered about a run, so there is no log that could disagree with the results.

A task that ran twice may have published twice: of several results for the same uid and digest, readers take the one
with the lowest `attempt`, which compaction keeps.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpusmith.pipelines.buckets import Bucket, all_buckets
from corpusmith.pipelines.storage import Entry, Storage
from corpusmith.schemas.columns import MEDIA, MEDIA_REF, MEDIA_SHA256, ROOT, UID, Column

DIGEST = "result_digest"
ERROR = "result_error"
MESSAGE = "result_message"
ATTEMPT = "result_attempt"

ROW_GROUP_ROWS = 4096
_LAST = "\U0010ffff"
COMPACTION_THREADS = 4

_KEYS = [(ROOT.name, "ascending"), (UID.name, "ascending"), (DIGEST, "ascending"), (ATTEMPT, "ascending")]


def result_schema(produces: Sequence[Column]) -> pa.Schema:
    """Columns of a store: keys, outcome, and what the operator produces (media as a reference and a sha256)."""
    fields = [
        pa.field(UID.name, pa.string()),
        pa.field(ROOT.name, pa.string()),
        pa.field(DIGEST, pa.binary(16)),
        pa.field(ATTEMPT, pa.string()),
        pa.field(ERROR, pa.string()),
        pa.field(MESSAGE, pa.string()),
    ]
    for column in produces:
        if column.name == MEDIA.name:
            fields += [pa.field(MEDIA_SHA256.name, pa.string()), pa.field(MEDIA_REF.name, pa.string())]
        else:
            fields.append(pa.field(column.name, column.type))
    return pa.schema(fields)


class Results:
    """Stored results for the rows of one range of root uids, searchable by uid and digest.

    Args:
        table: results, sorted and with one for each uid and digest.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._keys = _key(self.table) if self.table.num_rows else None

    def find(self, uids: pa.Array | pa.ChunkedArray, digests: pa.Array) -> np.ndarray:
        """For each row the position of its result in `table`, or -1."""
        if self._keys is None:
            return np.full(len(uids), -1, dtype=np.int64)
        wanted = pa.table({UID.name: uids, DIGEST: digests})
        found = pc.index_in(_key(wanted), value_set=self._keys)
        return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)


def _key(table: pa.Table) -> pa.Array:
    uid = pc.cast(table.column(UID.name).combine_chunks(), pa.binary())
    digest = pc.cast(table.column(DIGEST).combine_chunks(), pa.binary())
    return pc.binary_join_element_wise(uid, digest, pa.scalar(b"", pa.binary()))


def _one_each(table: pa.Table) -> pa.Table:
    """Sort by root, uid, digest, attempt; keep the first of each (uid, digest)."""
    if table.num_rows < 2:
        return table
    table = table.sort_by(_KEYS)
    keys = _key(table)
    first = pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1))
    return table.filter(pa.concat_arrays([pa.array([True]), first]))


@dataclass(frozen=True)
class _File:
    bucket: Bucket
    is_fragment: bool
    path: str


class Store:
    """One operator's results: `folder` is `results/<operator>-<fingerprint>`."""

    def __init__(self, storage: Storage, folder: str, produces: Sequence[Column]) -> None:
        self.storage = storage
        self.folder = folder
        self.schema = result_schema(produces)
        self._by_bucket: dict[Bucket, list[_File]] | None = None

    def publish(self, bucket: Bucket, table: pa.Table) -> None:
        """Make one fragment of results visible; all rows belong to `bucket`."""
        attempt = secrets.token_hex(8)
        stamped = table.append_column(ATTEMPT, pa.array([attempt] * table.num_rows, pa.string()))
        path = f"{self.folder}/{bucket.name}.{attempt}.fragment.parquet"
        self.storage.publish_table(path, stamped.select(self.schema.names), row_group_rows=ROW_GROUP_ROWS)

    def refresh(self) -> None:
        """Look again at what is published; a store otherwise sees what was there at its first read."""
        by_bucket: dict[Bucket, list[_File]] = {}
        for file in map(_parse, self.storage.list(self.folder)):
            by_bucket.setdefault(file.bucket, []).append(file)
        self._by_bucket = by_bucket

    def _present(self) -> dict[Bucket, list[_File]]:
        if self._by_bucket is None:
            self.refresh()
        return self._by_bucket or {}

    @property
    def files(self) -> list[_File]:
        """Files at the last look."""
        return [file for files in self._present().values() for file in files]

    @property
    def bits(self) -> int:
        """Bits of the finest partition among the files."""
        return max((bucket.bits for bucket in self._present()), default=0)

    def _overlapping(self, bucket: Bucket) -> list[_File]:
        present = self._present()
        others = [other for bits in {b.bits for b in present} for other in bucket.overlapping(bits)]
        return [file for other in others for file in present.get(other, ())]

    def results(self, bucket: Bucket, low: str, high: str) -> Results:
        """Results of rows of `bucket` whose root uid is within [low, high]."""
        files = self._overlapping(bucket)
        table = pa.concat_tables([self.schema.empty_table(), *(self._read(file, low, high) for file in files)])
        # what compaction has written is sorted, with one of each
        is_settled = len(files) == 1 and not files[0].is_fragment
        return Results(table if is_settled else _one_each(table))

    def _read(self, file: _File, low: str, high: str) -> pa.Table:
        return read_range(self.storage, file.path, ROOT.name, low, high, self.schema.names).cast(self.schema)

    def read_bucket(self, bucket: Bucket) -> pa.Table:
        """All results of a bucket, one for each uid and digest, sorted by root uid."""
        return self.results(bucket, bucket.low, bucket.high).table

    def compact(self, bits: int, *, drop: Callable[[pa.Table], pa.Array] | None = None) -> int:
        """Merge fragments, and bucket files of other partitions, into one file for each bucket.

        Args:
            bits: the partition wanted.
            drop: mask of results to leave out (`retry`, `remove`); then every bucket is written again.

        Returns:
            Results left out by `drop`.
        """
        self.refresh()
        stale = [f.path for f in self.files if f.is_fragment or f.bucket.bits != bits]
        if not stale and drop is None:
            return 0
        with ThreadPoolExecutor(COMPACTION_THREADS) as pool:
            dropped = sum(pool.map(lambda bucket: self._compact_bucket(bucket, drop), all_buckets(bits)))
        self.storage.delete(*stale)
        self.refresh()
        return dropped

    def _compact_bucket(self, bucket: Bucket, drop: Callable[[pa.Table], pa.Array] | None) -> int:
        files = self._overlapping(bucket)
        settled = all(not f.is_fragment and f.bucket == bucket for f in files)
        if not files or (settled and drop is None):
            return 0
        table = self.read_bucket(bucket)
        before = table.num_rows
        if drop is not None:
            table = table.filter(pc.invert(pc.fill_null(drop(table), False)))
        self.storage.publish_table(self._bucket_path(bucket), table, row_group_rows=ROW_GROUP_ROWS)
        return before - table.num_rows

    def _bucket_path(self, bucket: Bucket) -> str:
        return f"{self.folder}/{bucket.name}.parquet"


def _parse(entry: Entry) -> _File:
    name = entry.path.rsplit("/", 1)[-1]
    return _File(Bucket.parse(name.split(".")[0]), ".fragment." in name, entry.path)


def read_range(
    storage: Storage, path: str, key: str, low: str, high: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """Rows of a Parquet file whose `key` is within [low, high], reading only row groups that may hold some."""
    return Ranged(storage, path, key).read(low, high, columns)


class Ranged:
    """A Parquet file of which ranges are read, many of them: what its footer says is looked at once. Thread-safe.

    Args:
        storage: where it lies.
        path: of the file; it must not change.
        key: column by which ranges go; best the one that the file is sorted by.
    """

    def __init__(self, storage: Storage, path: str, key: str) -> None:
        self._storage, self._path, self._key = storage, path, key
        self._lock = threading.Lock()
        self._metadata: pq.FileMetaData | None = None

    def read(self, low: str, high: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows whose key is within [low, high]."""
        with self._lock:
            if self._metadata is None:
                self._look()
        groups = np.flatnonzero((self._lowest <= high) & (self._highest >= low)).tolist()
        with self._storage.parquet(self._path, metadata=self._metadata) as parquet:
            table = parquet.read_row_groups(groups, columns=list(columns) if columns is not None else None)
        values = table.column(self._key)
        return table.filter(pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high)))

    def _look(self) -> None:
        with self._storage.parquet(self._path) as parquet:
            metadata, index = parquet.metadata, parquet.schema_arrow.get_field_index(self._key)
        bounds = [
            _bounds(metadata.row_group(group).column(index).statistics) for group in range(metadata.num_row_groups)
        ]
        self._lowest = np.array([lowest for lowest, _ in bounds], np.str_)
        self._highest = np.array([highest for _, highest in bounds], np.str_)
        self._metadata = metadata


def _bounds(statistics: pq.Statistics | None) -> tuple[str, str]:
    """The lowest and the highest value of a row group; what includes all where they are not known."""
    if statistics is None or not statistics.has_min_max:
        return "", _LAST
    return statistics.min, statistics.max
