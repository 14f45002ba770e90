"""dedup.exact: of the rows that are equal in the named columns one goes on.

DuckDB groups the rows, by the values themselves and not by a hash of them, so that no collision merges two groups.

Who represents a group is fixed by the rows alone: the highest value of `prefer`, then the lowest uid.
"""

from __future__ import annotations

import pyarrow as pa
from pydantic import Field

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Reduce, Reduced, Resources, Rows
from corpusmith.operators.dedup.groups import DEDUP_GROUP, DEDUP_SIZE, summary
from corpusmith.operators.duck import MEMORY_BYTES, quoted, renamed, spilling
from corpusmith.schemas.columns import UID, Column
from corpusmith.schemas.fates import Fate


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
        with spilling(self._keyed(rows.reader(self.requires)), rows.scratch_dir) as connection:
            connection.execute("CREATE TEMP TABLE pool AS FROM stream")
            decisions = connection.sql(self._query()).to_arrow_table()
        return Reduced(decisions, summary(decisions))

    def _keyed(self, reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
        sources = {UID.name: UID.name, **dict(zip(self._keys, self.config.on, strict=True))}
        return renamed(reader, sources | ({"preference": self.config.prefer} if self.config.prefer else {}))

    @property
    def _keys(self) -> list[str]:
        return [f"key_{i}" for i in range(len(self.config.on))]

    def _query(self) -> str:
        missing = " ".join(
            f"WHEN {key} IS NULL THEN {quoted(f'missing {name}')}"
            for key, name in zip(self._keys, self.config.on, strict=True)
        )
        label = quoted(f"duplicate {', '.join(self.config.on)}: of ")
        return f"""
            WITH groups AS ({self._groups()}),
            grouped AS (
                SELECT uid, CASE {missing} END AS error, kept_uid, size
                FROM pool LEFT JOIN groups USING ({", ".join(self._keys)})
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

    def _groups(self) -> str:
        """SQL for the groups: their keys, who represents each, and its size."""
        keys = ", ".join(self._keys)
        if self.config.prefer is None:
            return f"SELECT {keys}, min(uid) AS kept_uid, count(*) AS size FROM pool GROUP BY {keys}"
        return f"""
            SELECT {keys}, min(uid) AS kept_uid, any_value(size) AS size
            FROM pool JOIN (
                SELECT {keys}, max(preference) AS best, count(*) AS size FROM pool GROUP BY {keys}
            ) AS bests USING ({keys})
            WHERE preference IS NOT DISTINCT FROM best
            GROUP BY {keys}
        """
