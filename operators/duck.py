"""DuckDB for operators that group a whole pool: one set of limits, and the stream of rows as its only input.

A grouping spills to the scratch folder, so that memory does not grow with the pool but for what the caller takes out.
That holds for GROUP BY, joins and ORDER BY. It does not for window functions: each partition of theirs has to fit into
memory, and a pool of a few times the limit ends in an error. DuckDB is handed the stream and may open nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.schemas.errors import UserError

if TYPE_CHECKING:
    import duckdb

MEMORY_BYTES = 1 << 30
"""What DuckDB may hold before it spills."""
THREADS = 4
"""Each thread needs some 100 MB of the above."""


@contextmanager
def spilling(stream: pa.RecordBatchReader, scratch_dir: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection in which `stream` is a table that can be read once.

    Args:
        stream: the rows, in any order.
        scratch_dir: a local folder for spilling.

    Raises:
        UserError: the one that the stream raised, which DuckDB makes an error of its own.
    """
    import duckdb

    raised: list[UserError] = []

    limits = {"memory_limit": f"{MEMORY_BYTES}B", "threads": THREADS, "preserve_insertion_order": "false"}
    with duckdb.connect(":memory:", config=limits | {"temp_directory": scratch_dir}) as connection:
        connection.execute("SET enable_external_access = false")
        connection.register("stream", pa.RecordBatchReader.from_batches(stream.schema, _noting(stream, raised)))
        try:
            yield connection
        except duckdb.Error as error:
            if raised:
                raise raised[0] from error
            raise


def _noting(stream: pa.RecordBatchReader, raised: list[UserError]) -> Iterator[pa.RecordBatch]:
    """The stream, and what it raises kept."""
    try:
        yield from stream
    except UserError as error:
        raised.append(error)
        raise


def renamed(
    reader: pa.RecordBatchReader,
    sources: Mapping[str, str],
    derived: Mapping[str, Callable[[pa.RecordBatch], pa.Array]] | None = None,
) -> pa.RecordBatchReader:
    """The stream under the caller's own names (SQL's ignore case), NaN as null: a score that is none wins nothing.

    Args:
        reader: the rows.
        sources: own name → column of `reader`.
        derived: own name → what makes a column from a batch of `reader`.
    """
    derived = derived or {}
    empty = pa.RecordBatch.from_pylist([], schema=reader.schema)
    fields = [pa.field(own, reader.schema.field(name).type) for own, name in sources.items()]
    schema = pa.schema([*fields, *(pa.field(own, make(empty).type) for own, make in derived.items())])

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            columns = [_nan_as_null(batch.column(name)) for name in sources.values()]
            yield pa.record_batch([*columns, *(make(batch) for make in derived.values())], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def quoted(text: str) -> str:
    """A SQL text literal."""
    return "'" + text.replace("'", "''") + "'"


def _nan_as_null(column: pa.Array) -> pa.Array:
    if not pa.types.is_floating(column.type):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
