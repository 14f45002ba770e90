"""top_fraction: the best share of the pool by a score, to the row.

The last step of many published filters: the top 30 % by CLIP score (Gadre et al., "DataComp", section 3.2), the top 15
to 20 % by a filtering network (Fang et al., "Data Filtering Networks"). A threshold belongs to an encoder and a pool; a
share of the pool carries over.

Of N rows that have a value, floor(keep * N) stay, for `keep` as it is written, and one at least. Rows that tie with the
last one that stays go by the lowest uid. DataComp's published code takes the value at place floor(keep * N), counted
from 0, as a threshold and keeps whatever reaches it: one row more, and all that tie with it.

The values are held and sorted, 8 bytes a row (up to 28 while there are groups to sort by), and of each row that ties
with the cut its uid; decisions are streamed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Reduce, Reduced, Rows
from corpusmith.operators.select.cuts import Cut, Groups, Ints, Piece, Ranking
from corpusmith.schemas.columns import UID, Column
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import Fate

SHOWN_GROUPS = 50
"""Groups of which the report tells the cut: the largest ones."""


class TopFraction(Reduce, name="top_fraction", version=1):
    """Keep the share of the rows with the highest, or lowest, values of a column."""

    class Config(BaseConfig):
        by: str = Field(min_length=1, description="column of numbers, such as clip_similarity; a row without one fails")
        keep: float | None = Field(
            default=None,
            gt=0,
            le=1,
            description="share of the rows with a value that stays: rounded down, one row at least",
        )
        rows: int | None = Field(
            default=None, ge=1, description="instead of keep: number of rows that stay; all, where there are fewer"
        )
        lowest: bool = Field(default=False, description="keep the lowest values instead of the highest")
        within: str | None = Field(
            default=None,
            description="column whose values have a cut each, such as language; a row without a value in it fails",
        )

        @model_validator(mode="after")
        def _one_bound(self) -> TopFraction.Config:
            if (self.keep is None) == (self.rows is None):
                raise ValueError("give either keep or rows")
            return self

    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        wanted = (self.config.by, *([self.config.within] if self.config.within else []))
        return tuple(dict.fromkeys(name for name in wanted if name != UID.name))

    @property
    def produces(self) -> tuple[Column, ...]:
        better = "at most" if self.config.lowest else "at least"
        among = f"the rows of its {self.config.within}" if self.config.within else "the rows"
        meaning = f"share of {among} whose {self.config.by} is {better} this row's: 0.1 is in the best tenth"
        return (Column(f"{self.config.by}_rank", pa.float64(), meaning),)

    def reduce(self, rows: Rows) -> Reduced:
        reading = _Reading(self.config, Groups(self.config.within or ""))
        ranking = Ranking.of((b.piece for b in reading.batches(rows)), lambda: len(reading.groups) or 1)
        wanted = np.array([self._wanted(size) for size in ranking.sizes.tolist()], np.int64)
        cut = Cut(ranking, wanted, lambda: (b.piece for b in reading.batches(rows)))
        schema = pa.schema([*_FATES, *(pa.field(column.name, column.type) for column in self.produces)])
        decided = (self._decided(batch, cut, ranking, schema) for batch in reading.batches(rows))
        summary = self._summary(rows.count, ranking.sizes, wanted, reading.numbers(cut.last), reading.groups)
        return Reduced(pa.RecordBatchReader.from_batches(schema, decided), summary)

    def _wanted(self, size: int) -> int:
        """Rows that stay of so many; exact for the share as it is written."""
        if self.config.rows is not None:
            return min(self.config.rows, size)
        return min(size, max(1, math.floor(Fraction(repr(self.config.keep)) * size)))

    def _decided(self, batch: _Batch, cut: Cut, ranking: Ranking, schema: pa.Schema) -> pa.RecordBatch:
        failed = batch.errors.is_valid()
        judged = np.flatnonzero(~failed.to_numpy(zero_copy_only=False))
        drops = ~cut.stays(batch.piece)
        places = np.full(len(failed), -1)
        places[judged[drops]] = np.arange(np.count_nonzero(drops))
        is_dropped = pa.array(places >= 0)
        ranks = np.zeros(len(failed))
        ranks[judged] = ranking.shares(batch.piece)
        fates = pc.case_when(pc.make_struct(failed, is_dropped), Fate.FAILED.value, Fate.REJECTED.value)
        reasons = self._reasons(batch, drops, cut).take(pa.array(places, mask=places < 0))
        texts = [column.cast(pa.string()) for column in (batch.uids, fates, reasons, batch.errors)]
        return pa.record_batch([*texts, pc.if_else(failed, None, pa.array(ranks))], schema=schema)

    def _reasons(self, batch: _Batch, drops: npt.NDArray[np.bool_], cut: Cut) -> pa.Array:
        """Why rows of the batch's piece go, for those that do."""
        config = self.config
        written = f"{config.rows} rows" if config.rows is not None else f"{config.keep:g}"
        label = f"{'lowest' if config.lowest else 'top'} {written} by {config.by}"
        keys, groups = batch.piece.keys[drops], batch.piece.groups[drops]
        is_tied = pa.array(keys == cut.last[groups])
        own, bound = batch.shown(keys), batch.shown(cut.last[groups])
        better = "<=" if config.lowest else ">="
        told = pc.binary_join_element_wise(own, f", cut {better} ", bound, pc.if_else(is_tied, ", tied by uid", ""), "")
        if config.within:
            label += f" within {config.within}"
            values = pa.array(batch.values).take(pa.array(groups)).cast(pa.string())
            told = pc.binary_join_element_wise(values, " ", told, "")
        return pc.binary_join_element_wise(f"{label}: ", told, "")

    def _summary(self, count: int, sizes: Ints, wanted: Ints, cuts: npt.NDArray[Any], groups: Groups) -> dict[str, Any]:
        judged, kept = int(sizes.sum()), int(wanted.sum())
        told: dict[str, Any] = {"rows": count, "kept": kept, "dropped": judged - kept, "failed": count - judged}
        if not judged:
            return told
        if self.config.within is None:
            return told | {"cut": cuts[0].item()}
        of_groups = zip(sizes.tolist(), map(str, groups.values), wanted.tolist(), cuts.tolist(), strict=True)
        judged_groups = sorted((g for g in of_groups if g[0]), key=lambda group: (-group[0], group[1]))
        shown = [
            {"value": value, "rows": size, "kept": kept, "cut": cut}
            for size, value, kept, cut in judged_groups[:SHOWN_GROUPS]
        ]
        return told | {"groups": len(judged_groups), "cuts": shown}


_FATES = [pa.field(name, pa.string()) for name in (UID.name, "fate", "reason", "error")]


@dataclass(frozen=True)
class _Batch:
    """A batch of rows as it is judged.

    Args:
        uids: (N,) strings.
        errors: (N,) strings: what a row lacks, null for nothing.
        piece: the rows that lack nothing.
        type: of the values.
        reading: how keys are made of values.
        values: of the groups.
    """

    uids: pa.Array
    errors: pa.Array
    piece: Piece
    type: pa.DataType
    reading: _Reading
    values: list[Any]

    def shown(self, keys: npt.NDArray[Any]) -> pa.Array:
        """The values of keys as texts, as short as their type allows."""
        is_half = pa.types.is_float16(self.type)
        return pa.array(self.reading.numbers(keys)).cast(pa.float32() if is_half else self.type).cast(pa.string())


@dataclass(frozen=True)
class _Reading:
    """From the rows of a pool to keys of which the lowest is the best; the same in each pass."""

    config: TopFraction.Config
    groups: Groups

    def batches(self, rows: Rows) -> Iterator[_Batch]:
        names = [self.config.by, *([self.config.within] if self.config.within else [])]
        for batch in rows.reader([name for name in names if name != UID.name]):
            yield self._read(batch)

    def _read(self, batch: pa.RecordBatch) -> _Batch:
        values = batch.column(self.config.by)
        keys, lacks = self._keys(values)
        groups = np.zeros(len(values), np.int32)
        errors = pc.if_else(pa.array(lacks), f"missing {self.config.by}", pa.scalar(None, pa.string()))
        if self.config.within:
            groups = self.groups.numbers(batch.column(self.config.within))
            errors = pc.if_else(pa.array((groups < 0) & ~lacks), f"missing {self.config.within}", errors)
            lacks = lacks | (groups < 0)
        uids = batch.column(UID.name)
        piece = Piece(uids.filter(pa.array(~lacks)), keys[~lacks], groups[~lacks])
        return _Batch(uids, errors, piece, values.type, self, self.groups.values if self.config.within else [])

    def _keys(self, values: pa.Array) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Keys, and whether there is none."""
        if pa.types.is_floating(values.type):
            keys = values.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
            return self.numbers(keys), np.isnan(keys)
        if not pa.types.is_integer(values.type):
            hint = "name a column of numbers, such as clip_similarity"
            raise UserError(f"the column {self.config.by!r} is {values.type}, which has no top", hint=hint)
        is_missing = values.is_null().to_numpy(zero_copy_only=False)
        return self.numbers(values.fill_null(0).to_numpy(zero_copy_only=False)), is_missing

    def numbers(self, keys: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values of keys, and keys of values: turned round where the highest is the best, without overflow."""
        if self.config.lowest:
            return keys
        return -keys if keys.dtype.kind == "f" else ~keys
