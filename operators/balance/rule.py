"""The two passes of a balance over pieces of a pool: count what each entry matches, then decide over each row.

Both travel to workers and have no effects: a piece's counts are added to the others', its decisions stand for
themselves. A row's factors are multiplied in the order of the entries, so that its probability is the same to the last
bit in whatever piece it comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.balance.lexicon import NO_GROUP, Ints, Lexicon, Pairs
from corpusmith.operators.balance.wording import joined, quoted, three_digits
from corpusmith.operators.draws import fractions
from corpusmith.schemas.columns import UID, Column
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import Fate

SALT = "balance "
SHOWN_ENTRIES = 3

BALANCE_PROBABILITY = Column(
    "balance_probability",
    pa.float64(),
    "probability with which the balance lets the row through; in mode online the weight by which a loader samples it",
)
BALANCE_MATCHES = Column("balance_matches", pa.int64(), "entries of the balance that the row's text matches", "entries")

DECISIONS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in (UID.name, "fate", "reason", "error")),
        *(pa.field(column.name, column.type) for column in (BALANCE_PROBABILITY, BALANCE_MATCHES)),
    ]
)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sparse:
    """Counts of some slots: (K,) slots, ascending, and (K,) their rows."""

    slots: Ints
    counts: Ints

    @classmethod
    def of(cls, slots: Ints) -> Sparse:
        """How often each slot occurs."""
        return cls(*np.unique(slots, return_counts=True))

    def add_to(self, totals: Ints) -> None:
        """Add to the counts of all slots."""
        totals[self.slots] += self.counts


@dataclass(frozen=True)
class Matching:
    """Where texts and their languages stand, and what they are matched against.

    Args:
        column: of texts.
        language_column: of their languages; None where all rows are one group.
    """

    lexicon: Lexicon
    column: str
    language_column: str | None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return (self.column,) if self.language_column is None else (self.column, self.language_column)

    def match(self, rows: pa.Table) -> tuple[Pairs, Ints, pa.Array]:
        """Pairs; the group of each row; and why a row cannot be judged, null where it can."""
        texts = texts_of(rows, self.column)
        errors = pc.if_else(texts.is_null(), f"missing {self.column}", pa.scalar(None, pa.string())).combine_chunks()
        groups = np.zeros(len(texts), np.int64)
        if self.language_column is not None:
            languages = texts_of(rows, self.language_column).combine_chunks()
            found = pc.index_in(languages, value_set=pa.array(self.lexicon.groups, languages.type))
            groups = pc.fill_null(found, NO_GROUP).to_numpy().astype(np.int64)
            missing = pc.if_else(languages.is_null(), f"missing {self.language_column}", pa.scalar(None, pa.string()))
            errors = pc.coalesce(errors, missing)
            texts = pc.if_else(errors.is_null(), texts, pa.scalar(None, texts.type))
        return self.lexicon.match(texts, groups), groups, errors


@dataclass(frozen=True)
class Count:
    """The first pass: rows of each slot, in a piece."""

    matching: Matching

    def __call__(self, rows: pa.Table) -> Sparse:
        return Sparse.of(self.matching.match(rows)[0].slots)


@dataclass(frozen=True)
class Decided:
    """Decisions over a piece, in its order, and what they make of the counts.

    Args:
        batch: of DECISIONS.
        after: rows of each slot that the draw takes.
        group_rows, group_taken: for each group its rows that can be judged, and those that the draw takes.
        expected: sum of the probabilities, in units of 2**-40, so that it can be added in any order.
    """

    batch: pa.RecordBatch
    after: Sparse
    group_rows: Ints
    group_taken: Ints
    expected: int

    @property
    def is_kept(self) -> npt.NDArray[np.bool_]:
        """(N,) whether each row goes on."""
        return self.batch.column("fate").is_null().to_numpy(zero_copy_only=False)


@dataclass(frozen=True)
class Decide:
    """The second pass.

    Args:
        misses: for each slot the probability that it does not let a row through.
        thresholds: t of each group.
        labels: the entries, quoted.
        is_online: nothing is cut.
    """

    matching: Matching
    misses: Floats
    thresholds: Ints
    labels: pa.Array
    seed: int
    is_online: bool

    def __call__(self, rows: pa.Table) -> Decided:
        pairs, groups, errors = self.matching.match(rows)
        numbers = np.bincount(pairs.rows, minlength=rows.num_rows)
        probabilities = _probabilities(pairs.slots, numbers, self.misses)
        drawn = _Drawn(pairs, groups, numbers, probabilities, fractions(rows.column(UID.name), self.seed, SALT))
        failed = errors.is_valid().to_numpy(zero_copy_only=False)
        taken = (drawn.draws < probabilities) & ~failed
        dropped = np.zeros(len(taken), np.bool_) if self.is_online else ~taken & ~failed
        columns: list[Any] = [
            rows.column(UID.name).combine_chunks(),
            pc.case_when(pc.make_struct(pa.array(failed), pa.array(dropped)), Fate.FAILED.value, Fate.REJECTED.value),
            self._reasons(rows, drawn, dropped),
            errors,
            pa.array(probabilities, mask=failed),
            pa.array(numbers, pa.int64(), mask=failed),
        ]
        number = len(self.thresholds)
        return Decided(
            pa.record_batch([c.cast(f.type) for c, f in zip(columns, DECISIONS, strict=True)], DECISIONS),
            Sparse.of(pairs.slots[taken[pairs.rows]]),
            np.bincount(groups[~failed], minlength=number),
            np.bincount(groups[taken], minlength=number),
            int(np.rint(probabilities[~failed] * 2**40).sum(dtype=np.int64)),
        )

    def _reasons(self, rows: pa.Table, drawn: _Drawn, dropped: npt.NDArray[np.bool_]) -> pa.Array:
        """Why rows are dropped; null for others."""
        is_matched = drawn.numbers > 0
        told = np.full(rows.num_rows, -1)
        matched, unmatched = np.flatnonzero(dropped & is_matched), np.flatnonzero(dropped & ~is_matched)
        told[matched] = np.arange(len(matched))
        told[unmatched] = len(matched) + np.arange(len(unmatched))
        texts = texts_of(rows, self.matching.column).take(pa.array(unmatched))
        without = joined(f"no entry matched: {self.matching.column} = ", quoted(texts))
        reasons = pa.concat_arrays([self._missed(drawn, matched), *without.chunks])
        return reasons.take(pa.array(told, mask=told < 0))

    def _missed(self, drawn: _Drawn, places: Ints) -> pa.Array:
        """Reasons of rows that match entries and whose draw none of them let through."""
        openings = pa.array([f"balance t={t}: p = " for t in self.thresholds.tolist()], pa.large_string())
        firsts, numbers = (np.cumsum(drawn.numbers) - drawn.numbers)[places], drawn.numbers[places]
        shown = [self._label(drawn.pairs.slots, firsts + k, numbers > k) for k in range(SHOWN_ENTRIES)]
        more = pc.if_else(pa.array(numbers > SHOWN_ENTRIES), ", …", "").cast(pa.large_string())
        return joined(
            openings.take(pa.array(drawn.groups[places])),
            three_digits(drawn.probabilities[places]),
            ", draw = ",
            three_digits(drawn.draws[places]),
            ", matched ",
            shown[0],
            *(pc.fill_null(joined(", ", label), "") for label in shown[1:]),
            more,
        )

    def _label(self, slots: Ints, places: Ints, is_there: npt.NDArray[np.bool_]) -> pa.Array:
        """Quoted entries; null where there is none."""
        found = np.full(len(places), -1)
        found[is_there] = self.matching.lexicon.entries[slots[places[is_there]]]
        return self.labels.take(pa.array(found, mask=~is_there))


@dataclass(frozen=True)
class _Drawn:
    """What is known of each row of a piece: its group, its pairs and their number, its probability and its draw."""

    pairs: Pairs
    groups: Ints
    numbers: Ints
    probabilities: Floats
    draws: Floats


def texts_of(rows: pa.Table, name: str) -> pa.ChunkedArray:
    """A column of texts.

    Raises:
        UserError: it holds something else.
    """
    column = rows.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):
        column = column.cast(pa.string())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise UserError(f"the column {name!r} is {column.type} and not text", hint="name a column of texts")
    return column


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    array = column.combine_chunks()
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


def _probabilities(slots: Ints, numbers: Ints, misses: Floats) -> Floats:
    """1 - product of the misses of each row's slots; 0 for a row without any.

    Args:
        slots: matched ones, row by row.
        numbers: matched slots of each row.
        misses: of each slot.
    """
    probabilities = np.zeros(len(numbers))
    matched = np.flatnonzero(numbers)
    if len(matched):
        firsts = (np.cumsum(numbers) - numbers)[matched]
        probabilities[matched] = 1 - np.multiply.reduceat(misses[slots], firsts)
    return probabilities
