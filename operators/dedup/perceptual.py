"""dedup.perceptual: of the pictures that look alike one goes on.

Two pictures look alike whose 64-bit hashes differ in at most `radius` bits; a group is whatever is connected by such
steps, so that it does not depend on any order, and the ends of a long chain may differ by more than `radius`. Who
represents a group is fixed by the rows alone: the highest value of `prefer`, then the lowest uid.

DuckDB orders the rows by that rule and numbers the values of `only_if`, spilling where it must; from there on a row is
a few integers. Equal hashes are one before neighbours are looked for.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Reduce, Reduced, Resources, Rows
from corpusmith.operators.dedup.groups import DEDUP_GROUP, DEDUP_SIZE, summary
from corpusmith.operators.dedup.hamming import MAX_RADIUS, connected
from corpusmith.operators.dedup.phash import PHASH
from corpusmith.operators.duck import MEMORY_BYTES, quoted, renamed, spilling
from corpusmith.schemas.columns import UID, Column
from corpusmith.schemas.fates import Fate

_HASH_PATTERN = "[0-9a-fA-F]{16}"
_SHOWN_LENGTH = 40
_SLICE_ROWS = 1 << 20


class Perceptual(Reduce, name="dedup.perceptual", version=1):
    """Keep one of the pictures that look alike: whose 64-bit hashes are connected by steps of a few bits."""

    class Config(BaseConfig):
        column: str = Field(
            default=PHASH.name, description="column with the hash, 16 hex digits; a row without one fails"
        )
        radius: int = Field(
            default=4,
            ge=0,
            le=MAX_RADIUS,
            description="bits in which two hashes may differ and still look alike; 0: equal hashes only. By chance a "
            "million unrelated pictures hold less than one such pair at 4, about 7 at 6, about 350 at 8",
        )
        only_if: tuple[str, ...] = Field(
            default=(),
            description="columns that must be equal, too, such as the caption; a row without a value in one of them "
            "fails",
        )
        prefer: str | None = Field(
            default=None,
            description="column whose highest value says who represents its group, rows without a value last; "
            "ties, and all groups where it is left out, go to the lowest uid",
        )

    positional = "radius"
    resources = Resources(memory_bytes=MEMORY_BYTES)
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        wanted = (self.config.column, *self.config.only_if, *([self.config.prefer] if self.config.prefer else []))
        return tuple(dict.fromkeys(name for name in wanted if name != UID.name))

    @property
    def produces(self) -> tuple[Column, ...]:
        return (DEDUP_GROUP, DEDUP_SIZE)

    def reduce(self, rows: Rows) -> Reduced:
        sources = {UID.name: UID.name, "hash": self.config.column, **self._keys}
        stream = renamed(
            rows.reader(self.requires), sources | ({"preference": self.config.prefer} if self.config.prefer else {})
        )
        with spilling(stream, rows.scratch_dir) as connection:
            ranked = connection.sql(self._query()).to_arrow_table()
        decisions = self._decisions(ranked)
        return Reduced(decisions, summary(decisions))

    @property
    def _keys(self) -> dict[str, str]:
        return {f"key_{i}": name for i, name in enumerate(self.config.only_if)}

    def _query(self) -> str:
        """SQL for the uid, the hash as a number, the number of the row's `only_if` values, and why a row fails."""
        ranking = "preference DESC NULLS LAST, uid" if self.config.prefer else "uid"
        missing = " ".join(
            f"WHEN {own} IS NULL THEN {quoted(f'missing {name}')}"
            for own, name in {"hash": self.config.column, **self._keys}.items()
        )
        malformed = f"NOT regexp_full_match(hash::VARCHAR, '{_HASH_PATTERN}')"
        context = f"dense_rank() OVER (ORDER BY {', '.join(self._keys)})" if self._keys else "0"
        return f"""
            SELECT uid,
                CASE WHEN {malformed} THEN {quoted(f"malformed {self.config.column}")} {missing} END AS error,
                CASE WHEN {malformed} THEN 'not 16 hex digits: ' || left(hash::VARCHAR, {_SHOWN_LENGTH}) END AS detail,
                TRY_CAST('0x' || hash::VARCHAR AS UBIGINT) AS number,
                {context}::UBIGINT AS context
            FROM stream
            ORDER BY {ranking}
        """

    def _decisions(self, ranked: pa.Table) -> pa.Table:
        """Decisions over rows that come in the order in which they would represent a group."""
        live = np.flatnonzero(ranked.column("error").is_null().to_numpy())
        numbers = ranked.column("number").fill_null(0).to_numpy()
        firsts, sizes_of_live = _grouped(numbers[live], ranked.column("context").to_numpy()[live], self.config.radius)
        kept, sizes = np.arange(len(numbers)), np.zeros(len(numbers), np.int64)
        kept[live], sizes[live] = live[firsts], sizes_of_live
        distances = np.bitwise_count(numbers ^ numbers[kept])
        found = {"kept": pa.array(kept), "size": pa.array(sizes), "distance": pa.array(distances)}
        rows = pa.table({UID.name: ranked[UID.name], "error": ranked["error"], "detail": ranked["detail"], **found})
        uids = ranked.column(UID.name).cast(pa.large_string()).combine_chunks()
        starts = range(0, max(rows.num_rows, 1), _SLICE_ROWS)
        return pa.concat_tables([self._told(rows.slice(start, _SLICE_ROWS), uids) for start in starts])

    def _told(self, rows: pa.Table, uids: pa.LargeStringArray) -> pa.Table:
        """The decisions for some rows, in words; slices keep the texts below what one Arrow array can hold."""
        failed = rows.column("error").is_valid()
        kept = uids.take(rows.column("kept").combine_chunks()).cast(pa.string())
        rejected = pc.and_not(pc.not_equal(rows.column(UID.name), kept), failed)
        label = f"near-duplicate {self.config.column}: of "
        distance = rows.column("distance").cast(pa.string())
        reason = pc.binary_join_element_wise(label, kept, " (distance ", distance, ")", "")
        fate = pc.case_when(pc.make_struct(failed, rejected), Fate.FAILED.value, Fate.REJECTED.value)
        return pa.table(
            {
                UID.name: rows.column(UID.name),
                "fate": fate,
                "reason": pc.case_when(pc.make_struct(failed, rejected), rows.column("detail"), reason),
                "error": rows.column("error"),
                DEDUP_GROUP.name: pc.if_else(failed, None, kept),
                DEDUP_SIZE.name: pc.if_else(failed, None, rows.column("size")),
            }
        )


def _grouped(hashes: np.ndarray, contexts: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """For each row the first row of its group, and the rows in that.

    Args:
        hashes: (N,) uint64.
        contexts: (N,) uint64; only rows of one context are ever in one group.
        radius: in bits.
    """
    order = np.lexsort((hashes, contexts))
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(hashes[order]) != 0) | (np.diff(contexts[order]) != 0)
    distinct = np.empty(len(order), np.int64)
    distinct[order] = np.cumsum(is_new) - 1
    chosen = order[is_new]
    groups = connected(hashes[chosen], contexts[chosen], radius)[distinct]
    firsts = np.full(len(chosen), len(order))
    np.minimum.at(firsts, groups, np.arange(len(order)))
    return firsts[groups], np.bincount(groups, minlength=1)[groups]
