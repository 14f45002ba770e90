"""dedup.exact: of the rows that are equal in the named columns one goes on.

DuckDB groups the rows, by the values themselves and not by a hash of them, so that no collision merges two groups; it
spills to the scratch folder, so that memory does not grow with the pool but for the decisions. It is handed the stream
of rows and may open nothing.

Who represents a group is fixed by the rows alone: the highest value of `prefer`, then the lowest uid.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Reduce, Reduced, Resources, Rows
from corpusmith.schemas.columns import UID, Column
from corpusmith.schemas.fates import Fate

MEMORY_BYTES = 1 << 30
"""What DuckDB may hold before it spills."""
THREADS = 4
"""Each thread needs some 100 MB of the above."""

DEDUP_GROUP = Column("dedup_group", pa.string(), "uid of the row that represents all rows equal to this one")
DEDUP_SIZE = Column("dedup_size", pa.int64(), "rows that are equal to this one, itself included", "rows")


class Exact(Reduce, name="dedup.exact", version=1):
    """Keep one of the rows that are equal in the named columns."""

    class Config(BaseConfig):
        on: tuple[str, ...] = Field(
            min_length=1,
            description="columns that must be equal, text byte for byte; a row without a value in one of them fails",
        )
        prefer: str | None = Field(
            default=None,
            description="column whose highest value says who represents its group, rows without a value last; "
            "ties, and all groups where it is left out, go to the lowest uid",
        )

    positional = "on"
    resources = Resources(memory_bytes=MEMORY_BYTES)
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        wanted = (*self.config.on, *([self.config.prefer] if self.config.prefer else []))
        return tuple(dict.fromkeys(name for name in wanted if name != UID.name))

    @property
    def produces(self) -> tuple[Column, ...]:
        return (DEDUP_GROUP, DEDUP_SIZE)

    def reduce(self, rows: Rows) -> Reduced:
        import duckdb

        limits = {"memory_limit": f"{MEMORY_BYTES}B", "threads": THREADS, "preserve_insertion_order": "false"}
        with duckdb.connect(":memory:", config=limits | {"temp_directory": rows.scratch_dir}) as connection:
            connection.execute("SET enable_external_access = false")
            connection.register("stream", self._keyed(rows.reader(self.requires)))
            decisions = connection.sql(self._query()).to_arrow_table()
        return Reduced(decisions, _summary(decisions))

    def _keyed(self, reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
        """The stream with names of our own (SQL's ignore case) and NaN as null: a score that is none wins nothing."""
        sources = {UID.name: UID.name, **dict(zip(self._keys, self.config.on, strict=True))}
        if self.config.prefer:
            sources["preference"] = self.config.prefer
        schema = pa.schema([pa.field(own, reader.schema.field(name).type) for own, name in sources.items()])

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in reader:
                columns = [_nan_as_null(batch.column(name)) for name in sources.values()]
                yield pa.record_batch(columns, schema=schema)

        return pa.RecordBatchReader.from_batches(schema, batches())

    @property
    def _keys(self) -> list[str]:
        return [f"key_{i}" for i in range(len(self.config.on))]

    def _query(self) -> str:
        ranking = "preference DESC NULLS LAST, uid" if self.config.prefer else "uid"
        missing = " ".join(
            f"WHEN {key} IS NULL THEN {_quoted(f'missing {name}')}"
            for key, name in zip(self._keys, self.config.on, strict=True)
        )
        label = _quoted(f"duplicate {', '.join(self.config.on)}: of ")
        return f"""
            WITH grouped AS (
                SELECT uid, CASE {missing} END AS error,
                    first_value(uid) OVER equal_rows AS kept_uid, count(*) OVER equal_rows AS size
                FROM stream
                WINDOW equal_rows AS (
                    PARTITION BY {", ".join(self._keys)} ORDER BY {ranking}
                    ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
                )
            )
            SELECT uid,
                CASE WHEN error IS NOT NULL THEN '{Fate.FAILED}'
                    WHEN kept_uid <> uid THEN '{Fate.REJECTED}' END AS fate,
                CASE WHEN error IS NULL AND kept_uid <> uid THEN {label} || kept_uid END AS reason,
                error,
                CASE WHEN error IS NULL THEN kept_uid END AS {DEDUP_GROUP.name},
                CASE WHEN error IS NULL THEN size END AS {DEDUP_SIZE.name}
            FROM grouped
        """


def _nan_as_null(column: pa.Array) -> pa.Array:
    if not pa.types.is_floating(column.type):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def _quoted(text: str) -> str:
    """A SQL text literal."""
    return "'" + text.replace("'", "''") + "'"


def _summary(decisions: pa.Table) -> dict[str, Any]:
    rejected = pc.sum(pc.equal(decisions.column("fate"), Fate.REJECTED.value)).as_py() or 0
    failed = pc.sum(pc.equal(decisions.column("fate"), Fate.FAILED.value)).as_py() or 0
    groups = decisions.num_rows - rejected - failed
    largest = pc.max(decisions.column(DEDUP_SIZE.name)).as_py() or 0
    return {"rows": decisions.num_rows, "groups": groups, "dropped": rejected, "failed": failed, "largest": largest}
