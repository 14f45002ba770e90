"""The facts of one run, as the report shows them.

Plain frozen records between two parties: a collector fills them from a finished run, the page is rendered from them
and from nothing else. So a page can be made of any run, and tested without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StepFacts:
    """One row of the funnel, in recipe order.

    Args:
        id, operator, kind, parameters: the step as the recipe names it.
        rows_in, rows_out: rows that reached the step, rows that went on.
        rejected, failed, split: rows that ended here; `made`: children that a split put in their place.
        computed, reused: results computed in this run, results taken from earlier runs.
        time_s: operator time, summed over workers.
        bytes: media bytes that the step made.
    """

    id: str
    operator: str
    kind: str
    parameters: Mapping[str, Any]
    rows_in: int
    rows_out: int
    rejected: int
    failed: int
    split: int
    made: int
    computed: int
    reused: int
    time_s: float
    bytes: int


@dataclass(frozen=True)
class SampleCard:
    """One sample to look at.

    Args:
        caption, url: as the source gave them; hostile.
        detail: what tells this sample's fate from its siblings': the value that missed the bound, an error's message.
        thumbnail: encoded picture, small or not; None where no picture was ever at hand.
    """

    uid: str
    caption: str
    url: str
    detail: str
    thumbnail: bytes | None


@dataclass(frozen=True)
class ReasonFacts:
    """Rows that one step dropped for one reason, with some of them to look at."""

    step: str
    fate: str
    label: str
    count: int
    samples: Sequence[SampleCard]


@dataclass(frozen=True)
class Histogram:
    """Distribution of a numeric column: `len(edges)` = bins + 1.

    Args:
        before, after: rows a bin, of all rows that had a value and of the kept ones.
    """

    column: str
    unit: str
    meaning: str
    edges: Sequence[float]
    before: Sequence[int]
    after: Sequence[int]


@dataclass(frozen=True)
class Categories:
    """Distribution of a column with few values: (value, rows before, rows kept)."""

    column: str
    meaning: str
    counts: Sequence[tuple[str, int, int]]


Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Curve:
    """Rows by rank.

    Args:
        points: (rank, count before, count after), by falling count before.
        t: count up to which nothing is thinned; None where there is no such bound.
    """

    points: Sequence[tuple[int, int, int]]
    t: float | None


@dataclass(frozen=True)
class Shift:
    """Rows of each name before a step and after it: (name, before, after)."""

    name: str
    counts: Sequence[tuple[str, int, int]]


@dataclass(frozen=True)
class PoolTable:
    """Facts about each of some names.

    Args:
        name: as the step calls the whole.
        columns: headings; "" for none. The first is that of the names.
        rows: a cell a column.
        chosen: place of the row that the recipe chose among them, None where it chose none.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Scalar]]
    chosen: int | None = None


@dataclass(frozen=True)
class PoolFacts:
    """What a step over the whole pool tells of itself; names as the step has them, hostile.

    Args:
        mark: column in which the step marks rows instead of dropping them; "" for none.
    """

    step: str
    operator: str
    mark: str
    scalars: Sequence[tuple[str, Scalar]]
    curve: Curve | None
    shifts: Sequence[Shift]
    tables: Sequence[PoolTable]

    @property
    def is_empty(self) -> bool:
        """Whether the step told nothing."""
        return not (self.scalars or self.curve or self.shifts or self.tables)


@dataclass(frozen=True)
class ReportData:
    """Everything on the page.

    Args:
        created: when the run ended, for people.
        duplicates: input rows with the uid of another; not in `rows_in`.
        rows_made: rows that splits made.
        fates: fate → rows; together they are `rows_in + rows_made`.
        corpus_bytes: size of all shards.
        wall_s: duration of the run on the wall clock.
        versions: package → version.
    """

    corpus: str
    description: str
    created: str
    recipe_yaml: str
    rows_in: int
    duplicates: int
    rows_made: int
    fates: Mapping[str, int]
    shards: int
    corpus_bytes: int
    wall_s: float
    steps: Sequence[StepFacts]
    reasons: Sequence[ReasonFacts]
    kept: Sequence[SampleCard]
    histograms: Sequence[Histogram]
    categories: Sequence[Categories]
    pools: Sequence[PoolFacts]
    warnings: Sequence[str]
    versions: Mapping[str, str]
