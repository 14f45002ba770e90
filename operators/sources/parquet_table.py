"""Parquet: columns with types of their own, streamed batch by batch.

Parquet promises no valid text in its columns of text, and Arrow does not look: what is no UTF-8 is found here, before
something else trips over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmith.operators.sources.files import label
from corpusmith.operators.sources.rows import BATCH_BYTES, BadRow, Rows, refuse_repeats
from corpusmith.operators.sources.streams import decoding, open_stored


class ParquetTable:
    """A Parquet file, streamed batch by batch; types are kept, dictionaries are unpacked."""

    is_open = False
    is_bare = False
    has_media = False

    def __init__(self, path: str) -> None:
        self._path = path
        with open_stored(path) as stream, decoding(path):
            file = pq.ParquetFile(stream)
            schema = file.schema_arrow
            rows = file.metadata.num_rows
            stored = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        self.is_empty = rows == 0
        self._batch_rows = max(1, BATCH_BYTES * rows // max(1, stored))
        refuse_repeats(schema.names, path)
        self.columns = {f.name: plain_type(f.type) for f in schema}

    def rows(self, names: Sequence[str], batch_rows: int) -> Iterator[Rows]:
        wanted = [name for name in names if name in self.columns]
        first = 0
        with open_stored(self._path) as stream, decoding(self._path):
            for batch in pq.ParquetFile(stream).iter_batches(min(batch_rows, self._batch_rows), columns=wanted):
                yield self._rows(batch.select(wanted), first)
                first += batch.num_rows

    def _rows(self, batch: pa.RecordBatch, first: int) -> Rows:
        columns: dict[str, pa.Array] = {}
        bad: dict[int, BadRow] = {}
        for name in batch.schema.names:
            array = batch.column(name)
            if pa.types.is_dictionary(array.type):
                array = array.cast(self.columns[name])
            columns[name], wrong = valid(array)
            for i in wrong:
                raw = array[i].cast(pa.large_binary()).as_py()
                bad.setdefault(i, BadRow(raw, f"{label(self._path)}: row {first + i + 1}: invalid UTF-8 in {name!r}"))
        return Rows(batch.num_rows, columns, bad)


def plain_type(type: pa.DataType) -> pa.DataType:
    """The type of a column's values, out of a dictionary."""
    return type.value_type if isinstance(type, pa.DictionaryType) else type


def valid(array: pa.Array) -> tuple[pa.Array, list[int]]:
    """The array, and the positions of texts that are no UTF-8, which are null in it."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
            raise
    else:
        return array, []
    values: list[str | None] = []
    bad: list[int] = []
    for i, raw in enumerate(array.cast(pa.large_binary()).to_pylist()):
        try:
            values.append(None if raw is None else raw.decode())
        except UnicodeDecodeError:
            values.append(None)
            bad.append(i)
    return pa.array(values, array.type), bad
