"""quota: at most so many rows for each value of a column, such as 100 for each host.

One site, one template or one author then cannot make up a corpus. Values are compared by themselves and not by a hash
of them. Which rows of a value stay is drawn from the seed and each row's identity, or told by a score; neither depends
on order, sharding or parallelism. Of two bounds the rows of the lower one are among those of the higher one.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Reduce, Reduced, Resources, Rows
from corpusmith.operators.draws import draws
from corpusmith.operators.duck import MEMORY_BYTES, quoted, renamed, spilling
from corpusmith.operators.select.keep import shown_sql
from corpusmith.schemas.columns import UID, Column
from corpusmith.schemas.fates import Fate

RANKED_ROWS = 65_536
"""Rows that are looked at together."""

QUOTA_SIZE = Column("quota_size", pa.int64(), "rows that the value had before its quota; null if exempt", "rows")

_NULL = "CAST(NULL AS VARCHAR)"
_WITHIN = f"uid, {_NULL} AS fate, {_NULL} AS reason, {_NULL} AS error, size AS {QUOTA_SIZE.name}"


class Quota(Reduce, name="quota", version=1):
    """Keep at most a number of rows for each value of a column."""

    class Config(BaseConfig):
        by: str = Field(min_length=1, description="column whose values have a quota each, such as host")
        at_most: int | None = Field(default=None, ge=1, description="rows of one value that stay at most")
        share: float | None = Field(
            default=None,
            gt=0,
            le=1,
            description="instead of at_most: a share of all rows that reach this step; rounded down, one row at least",
        )
        prefer: str | None = Field(
            default=None,
            description="column whose highest values stay, rows without a value last, ties by the lowest uid; "
            "left out: rows are drawn at random from the recipe's seed",
        )
        nulls: Literal["exempt", "group"] = Field(
            default="exempt",
            description="rows without a value in `by` all stay (exempt), or have one quota together (group)",
        )

        @model_validator(mode="after")
        def _one_bound(self) -> Quota.Config:
            if (self.at_most is None) == (self.share is None):
                raise ValueError("give either at_most or share")
            return self

    seeded = True
    resources = Resources(memory_bytes=MEMORY_BYTES)
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        wanted = (self.config.by, *([self.config.prefer] if self.config.prefer else []))
        return tuple(dict.fromkeys(name for name in wanted if name != UID.name))

    @property
    def produces(self) -> tuple[Column, ...]:
        return (QUOTA_SIZE,)

    def reduce(self, rows: Rows) -> Reduced:
        sources = {UID.name: UID.name, "value": self.config.by}
        if self.config.prefer:
            stream = renamed(rows.reader(self.requires), {**sources, "preference": self.config.prefer})
        else:
            stream = renamed(rows.reader(self.requires), sources, {"draw": self._draws})
        bound = self._bound(rows.count)
        with spilling(stream, rows.scratch_dir) as connection:
            connection.execute("CREATE TEMP TABLE pool AS FROM stream")
            connection.execute(self._sized())
            within = connection.sql(f"SELECT {_WITHIN} FROM sized WHERE coalesce(size, 0) <= {bound}").to_arrow_table()
            ranked = connection.sql(self._ranked(bound)).to_arrow_reader(RANKED_ROWS)
            decisions = pa.concat_tables([within, _cut(ranked, bound, within.schema)])
        return Reduced(decisions, _summary(decisions, bound))

    def _bound(self, count: int) -> int:
        """Rows of one value that stay at most, of `count` rows in all; exact for the share as it is written."""
        if self.config.at_most is not None:
            return self.config.at_most
        return max(1, math.floor(Fraction(repr(self.config.share)) * count))

    def _draws(self, batch: pa.RecordBatch) -> pa.Array:
        """Each row's draw (uint64), apart from those of other operators and of quotas by other columns."""
        return pa.array(draws(batch.column(UID.name), self.seed, f"quota {self.config.by} "), pa.uint64())

    def _sized(self) -> str:
        """SQL that makes the table of rows with the size and the first uid of their value; null where exempt."""
        counted = "WHERE value IS NOT NULL" if self.config.nulls == "exempt" else ""
        return f"""
            CREATE TEMP TABLE sized AS
            SELECT pool.*, size, value_id
            FROM pool LEFT JOIN (
                SELECT value, count(*) AS size, min(uid) AS value_id FROM pool {counted} GROUP BY value
            ) AS groups ON pool.value IS NOT DISTINCT FROM groups.value
        """

    def _ranked(self, bound: int) -> str:
        """SQL for the rows of values that have too many: value by value, those first that stay."""
        config = self.config
        ranking = "preference DESC NULLS LAST, uid" if config.prefer else "draw, uid"
        written = f"at most {config.at_most}" if config.at_most is not None else f"at most {config.share:g} of all"
        label = quoted(f"quota {config.by}: {written}: ")
        return f"""
            SELECT uid, value_id, size, {label} || coalesce({shown_sql("value")}, 'null') || ' has ' || size AS reason
            FROM sized WHERE size > {bound} ORDER BY value_id, {ranking}
        """


def _cut(ranked: pa.RecordBatchReader, bound: int, schema: pa.Schema) -> pa.Table:
    """Decisions over rows that come value by value: the first `bound` of each stay."""
    decided: list[pa.RecordBatch] = []
    last_id, before = None, 0
    for batch in ranked:
        if not batch.num_rows:
            continue
        ids = batch.column("value_id")
        begins = np.ones(len(ids), np.bool_)
        begins[1:] = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1)).to_numpy(zero_copy_only=False)
        begins[0] = ids[0].as_py() != last_id
        firsts = np.maximum.accumulate(np.where(begins, np.arange(len(ids)), -before))
        places = np.arange(len(ids)) - firsts
        last_id, before = ids[-1].as_py(), int(places[-1]) + 1
        is_over = pa.array(places >= bound)
        fates = pc.if_else(is_over, pa.scalar(Fate.REJECTED.value), None)
        reasons = pc.if_else(is_over, batch.column("reason"), None)
        columns = [batch.column("uid"), fates, reasons, pa.nulls(len(ids), pa.string()), batch.column("size")]
        decided.append(pa.record_batch(columns, schema=schema))
    return pa.Table.from_batches(decided, schema)


def _summary(decisions: pa.Table, bound: int) -> dict[str, Any]:
    sizes = decisions.column(QUOTA_SIZE.name)
    return {
        "rows": decisions.num_rows,
        "at_most": bound,
        "dropped": pc.sum(pc.equal(decisions.column("fate"), Fate.REJECTED.value)).as_py() or 0,
        "exempt": sizes.null_count,
        "largest": pc.max(sizes).as_py() or 0,
    }
