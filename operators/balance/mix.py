"""mix: parts of a pool in given proportions, such as 70 % of one corpus and 30 % of another.

The parts are the values of a column: the name that `input.origins` gives each input, a language, a category. Without a
number of rows it is the largest mixture that holds the proportions and repeats no row: with n rows in a part of weight
w, the least n / w of all parts is T, and floor(T * w) rows of each stay. With a number of rows each part's share of it
is rounded so that the shares add up (largest remainder, ties by name). Arithmetic is exact for the weights as they are
written.

Which rows of a part stay is drawn from the seed and each row's identity, so that it depends on neither order nor
sharding; the rows of a smaller mixture are among those of a larger one. 12 bytes a row are held, 28 while they are
sorted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Reduce, Reduced, Rows
from corpusmith.operators.draws import draws
from corpusmith.operators.select.cuts import Cut, Piece, Ranking
from corpusmith.schemas.columns import ORIGIN, UID
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import Fate


class Mix(Reduce, name="mix", version=1):
    """Keep parts of the pool in given proportions: several corpora, languages or categories with weights."""

    class Config(BaseConfig):
        by: str = Field(
            default=ORIGIN.name,
            description="column whose values are the parts; a row without a value fails, one of another value goes",
        )
        weights: dict[str, float] = Field(
            min_length=1, description="value → its part of the mixture; numbers above 0, of which only ratios count"
        )
        rows: int | None = Field(
            default=None, ge=1, description="rows of the mixture; left out: as many as hold the proportions"
        )
        may_fall_short: bool = Field(
            default=False,
            description="with `rows`: a part with too few rows gives all it has; false: that is an error",
        )

        @field_validator("weights", mode="before")
        @classmethod
        def _names_are_texts(cls, weights: Any) -> Any:
            """Numbers and booleans as their column shows them: `weights: {0: 1, 17: 3}`."""
            if not isinstance(weights, Mapping):
                return weights
            return {_name(value): weight for value, weight in weights.items()}

        @field_validator("weights")
        @classmethod
        def _are_positive(cls, weights: dict[str, float]) -> dict[str, float]:
            for value, weight in weights.items():
                if not (weight > 0 and math.isfinite(weight)):
                    raise ValueError(f"the weight of {value!r} is {weight:g}: it has to be a number above 0")
            return weights

        @model_validator(mode="after")
        def _falls_short_of_something(self) -> Mix.Config:
            if self.may_fall_short and self.rows is None:
                raise ValueError("may_fall_short belongs to rows: without them no part falls short")
            return self

    seeded = True
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.config.by,)

    def reduce(self, rows: Rows) -> Reduced:
        parts = sorted(self.config.weights)
        ranking = Ranking.of(self._pieces(rows, parts), lambda: len(parts))
        sizes = dict(zip(parts, ranking.sizes.tolist(), strict=True))
        wanted = self._wanted(sizes)
        cut = Cut(ranking, np.array([wanted[part] for part in parts], np.int64), lambda: self._pieces(rows, parts))
        decided = (self._decided(batch, parts, cut, wanted) for batch in rows.reader(self.requires))
        told = {part: [sizes[part], wanted[part]] for part in parts}
        summary = {"rows": rows.count, "kept": sum(wanted.values()), "parts": told}
        return Reduced(pa.RecordBatchReader.from_batches(_SCHEMA, decided), summary)

    def _wanted(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Rows of each part that stay.

        Raises:
            UserError: a part has too few rows, or none.
        """
        exact = {part: Fraction(repr(weight)) for part, weight in self.config.weights.items()}
        total = min(Fraction(sizes[part]) / weight for part, weight in exact.items())
        largest = {part: math.floor(total * weight) for part, weight in exact.items()}
        if self.config.rows is None:
            empty = sorted(part for part in largest if not sizes[part])
            if empty and any(sizes.values()):
                hint = "a mixture of its proportions has no rows: leave the part out, or check the name"
                raise UserError(f"no row has {self.config.by} = {empty[0]!r}", where="mix", hint=hint)
            return largest
        wanted = apportioned(exact, self.config.rows)
        short = sorted(part for part in wanted if wanted[part] > sizes[part])
        if short and not self.config.may_fall_short:
            what = f"{self.config.by} = {short[0]!r} has {sizes[short[0]]:,} rows, the mixture {wanted[short[0]]:,}"
            hint = f"rows: {sum(largest.values())} at most, or may_fall_short: true to take all that there are"
            raise UserError(what, where="mix", hint=hint)
        return {part: min(number, sizes[part]) for part, number in wanted.items()}

    def _pieces(self, rows: Rows, parts: Sequence[str]) -> Iterator[Piece]:
        for batch in rows.reader(self.requires):
            yield self._piece(batch, _numbers(batch.column(self.config.by), parts))

    def _piece(self, batch: pa.RecordBatch, numbers: np.ndarray) -> Piece:
        """The rows that belong to a part."""
        uids = batch.column(UID.name).filter(pa.array(numbers >= 0))
        return Piece(uids, draws(uids, self.seed, f"mix {self.config.by} "), numbers[numbers >= 0])

    def _decided(
        self, batch: pa.RecordBatch, parts: Sequence[str], cut: Cut, wanted: Mapping[str, int]
    ) -> pa.RecordBatch:
        values = batch.column(self.config.by)
        numbers = _numbers(values, parts)
        stays = np.zeros(len(numbers), np.bool_)
        stays[numbers >= 0] = cut.stays(self._piece(batch, numbers))
        is_missing = values.is_null()
        label = f"mix {self.config.by}: "
        words = [f"{label}{wanted[part]} rows of {part}" for part in parts]
        others = pc.binary_join_element_wise(label, pc.utf8_slice_codeunits(_texts(values), 0, 60), " is no part", "")
        reasons = pc.coalesce(pa.array(words, pa.string()).take(pa.array(numbers, mask=numbers < 0)), others)
        goes = pc.and_not(pa.array(~stays), is_missing)
        fates = pc.case_when(pc.make_struct(is_missing, goes), Fate.FAILED.value, Fate.REJECTED.value)
        errors = pc.if_else(is_missing, f"missing {self.config.by}", pa.scalar(None, pa.string()))
        reasons = pc.if_else(goes, reasons, pa.scalar(None, pa.string()))
        columns = [batch.column(UID.name), fates, reasons, errors]
        return pa.record_batch([column.cast(pa.string()) for column in columns], schema=_SCHEMA)


_SCHEMA = pa.schema([pa.field(name, pa.string()) for name in (UID.name, "fate", "reason", "error")])


def apportioned(weights: Mapping[str, Fraction], rows: int) -> dict[str, int]:
    """Whole shares that add up to `rows`: rounded down, then one more for the largest remainders, ties by name."""
    total = sum(weights.values())
    shares = {part: rows * weight / total for part, weight in weights.items()}
    whole = {part: math.floor(share) for part, share in shares.items()}
    ranked = sorted(shares, key=lambda part: (whole[part] - shares[part], part))
    for part in ranked[: rows - sum(whole.values())]:
        whole[part] += 1
    return whole


def _name(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _texts(values: pa.Array) -> pa.Array:
    """The values as texts.

    Raises:
        UserError: the column holds lists or structs.
    """
    if pa.types.is_nested(values.type):
        what = f"the column has values of type {values.type}: they are no parts"
        raise UserError(what, where="mix", hint="name a column of texts or numbers, such as origin")
    return values.cast(pa.string())


def _numbers(values: pa.Array, parts: Sequence[str]) -> np.ndarray:
    """The number of each row's part, int32; -1 for none."""
    found = pc.index_in(_texts(values), value_set=pa.array(parts, pa.string()))
    return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
