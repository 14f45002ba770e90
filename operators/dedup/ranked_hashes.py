"""A pool's hashes as numbers, in the order in which its rows would represent a group, those of finished corpora first.

DuckDB ranks the rows and numbers the values of `only_if` by GROUP BY and join, spilling where it must; from there on a
row is its uid and a few integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmith.operators.contract import Rows
from corpusmith.operators.duck import quoted, renamed, spilling
from corpusmith.operators.finished import CORPUS, samples
from corpusmith.schemas.columns import UID
from corpusmith.schemas.errors import UserError

if TYPE_CHECKING:
    import duckdb

DIGITS = (16, 64)
"""Of a hash as text: 64 or 256 bits."""
_SHOWN_LENGTH = 40
_WORD_DIGITS = 16
_BATCH_ROWS = 1 << 17


@dataclass(frozen=True)
class Ranked:
    """C rows of finished corpora that have a hash, then N rows of the pool.

    Args:
        uids: (C + N,) strings.
        corpora: (C,) strings: the corpus of each.
        words: (C + N, W) uint64, any for a failed row; W = 1 or 4.
        contexts: (C + N,) int64, equal where the values of `only_if` are.
        errors: (N,) why a row of the pool failed, or null.
        details: (N,) what else to say of that, or null.
        passed_over: rows of finished corpora without a hash of the pool's length or a value of `only_if`.
    """

    uids: pa.LargeStringArray
    corpora: pa.Array
    words: npt.NDArray[np.uint64]
    contexts: npt.NDArray[np.int64]
    errors: pa.Array
    details: pa.Array
    passed_over: int


@dataclass(frozen=True)
class Ranking:
    """What rows are ranked by; see Perceptual.Config."""

    column: str
    only_if: Sequence[str] = ()
    prefer: str | None = None
    against: Sequence[str] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the pool that are read, besides the uid."""
        wanted = (self.column, *self.only_if, *([self.prefer] if self.prefer else []))
        return tuple(dict.fromkeys(name for name in wanted if name != UID.name))

    def of(self, rows: Rows) -> Ranked:
        """Rank the rows of a reduce. Memory: about 100 bytes a row."""
        with spilling(self._stream(rows), rows.scratch_dir) as connection:
            connection.execute("CREATE TEMP TABLE pool AS FROM stream")
            digits = _digits(connection)
            keys = ", ".join(self._keys)
            if keys:
                connection.execute(
                    f"CREATE TEMP TABLE contexts AS SELECT {keys}, min(rowid) AS context FROM pool GROUP BY {keys}"
                )
            connection.execute(f"CREATE TEMP VIEW judged AS {self._judged(digits)}")
            passed_over = _scalar(connection, "SELECT count(*) FROM judged WHERE corpus IS NOT NULL AND error NOT NULL")
            return _collected(connection, digits // _WORD_DIGITS, self._ranking, passed_over)

    @property
    def _keys(self) -> dict[str, str]:
        return {f"key_{i}": name for i, name in enumerate(self.only_if)}

    @property
    def _ranking(self) -> str:
        preference = "preference DESC NULLS LAST, " if self.prefer else ""
        return f"corpus IS NULL, {preference}uid, corpus"

    def _stream(self, rows: Rows) -> pa.RecordBatchReader:
        """The pool and the finished corpora under own names: uid, hash, preference, key_0, …, and corpus."""
        sources = {UID.name: UID.name, "hash": self.column, **self._keys}
        pool = renamed(rows.reader(self.columns), sources | ({"preference": self.prefer} if self.prefer else {}))
        schema = pool.schema.append(pa.field("corpus", pa.string()))

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in pool:
                yield pa.record_batch([*batch.columns, pa.nulls(len(batch), pa.string())], schema)
            named = {**sources, "corpus": CORPUS}
            for batch in samples(self.against, [name for name in (self.column, *self.only_if) if name != UID.name]):
                yield pa.record_batch([_of_corpus(batch, named.get(f.name), f.type) for f in schema], schema)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _judged(self, digits: int) -> str:
        """SQL for the rows with the hash as numbers, the number of the `only_if` values, and why a row fails."""
        names = {"hash": self.column, **self._keys}
        missing = " ".join(f"WHEN {own} IS NULL THEN {quoted(f'missing {name}')}" for own, name in names.items())
        malformed = f"NOT regexp_full_match(hash::VARCHAR, '[0-9a-fA-F]{{{digits}}}')"
        starts = range(1, digits + 1, _WORD_DIGITS)
        words = [f"TRY_CAST('0x' || substr(hash::VARCHAR, {s}, {_WORD_DIGITS}) AS UBIGINT)" for s in starts]
        return f"""
            SELECT uid, corpus, {"preference," if self.prefer else ""}
                CASE WHEN {malformed} THEN {quoted(f"malformed {self.column}")} {missing} END AS error,
                CASE WHEN {malformed}
                    THEN 'not {digits} hex digits: ' || left(hash::VARCHAR, {_SHOWN_LENGTH}) END AS detail,
                {", ".join(f"coalesce({word}, 0::UBIGINT) AS word_{i}" for i, word in enumerate(words))},
                {"coalesce(context, -1)" if self._keys else "0"}::BIGINT AS context
            FROM pool {f"LEFT JOIN contexts USING ({', '.join(self._keys)})" if self._keys else ""}
        """


def _of_corpus(batch: pa.RecordBatch, name: str | None, kind: pa.DataType) -> pa.Array:
    """A column of a finished corpus in the pool's type; nulls for what is not read of it."""
    if name is None:
        return pa.nulls(len(batch), kind)
    try:
        return batch.column(name).cast(kind)
    except pa.ArrowException as error:
        hint = "deduplicate against corpora whose columns have the pool's types"
        where = str(batch.column(CORPUS)[0])
        raise UserError(f"column {name!r} is {batch.column(name).type}, not {kind}", where=where, hint=hint) from error


def _digits(connection: duckdb.DuckDBPyConnection) -> int:
    """Hex digits of the pool's hashes: what most of its rows have, the fewer of two as frequent."""
    counts = [
        f"count(*) FILTER (regexp_full_match(hash::VARCHAR, '[0-9a-fA-F]{{{digits}}}') AND corpus IS NULL)"
        for digits in DIGITS
    ]
    [(short, long)] = connection.execute(f"SELECT {', '.join(counts)} FROM pool").fetchall()
    return DIGITS[int(long > short)]


def _scalar(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    [(value,)] = connection.execute(query).fetchall()
    return int(value)


def _collected(connection: duckdb.DuckDBPyConnection, width: int, ranking: str, passed_over: int) -> Ranked:
    columns = ", ".join(["uid", "corpus", "error", "detail", "context", *(f"word_{i}" for i in range(width))])
    usable = "corpus IS NULL OR error IS NULL"
    total = _scalar(connection, f"SELECT count(*) FROM judged WHERE {usable}")
    words, contexts = np.empty((total, width), np.uint64), np.empty(total, np.int64)
    texts: list[pa.RecordBatch] = []
    at = 0
    found = connection.sql(f"SELECT {columns} FROM judged WHERE {usable} ORDER BY {ranking}")
    for batch in found.to_arrow_reader(_BATCH_ROWS):
        stop = at + len(batch)
        contexts[at:stop] = batch.column("context").to_numpy()
        for i in range(width):
            words[at:stop, i] = batch.column(f"word_{i}").to_numpy()
        texts.append(batch.select(["uid", "corpus", "error", "detail"]))
        at = stop
    kept = pa.schema([(name, pa.large_string()) for name in ("uid", "corpus", "error", "detail")])
    table = pa.Table.from_batches([batch.cast(kept) for batch in texts], kept).combine_chunks()
    uids, corpora, errors, details = (_array(table.column(name)) for name in kept.names)
    first = len(corpora) - corpora.null_count
    return Ranked(uids, corpora[:first], words, contexts, errors[first:], details[first:], passed_over)


def _array(column: pa.ChunkedArray) -> Any:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
