"""resample: thin frequent labels by a power of their frequency, such as the square root that hashtags are sampled by.

Weakly supervised pre-training (Mahajan et al., "Exploring the Limits of Weakly Supervised Pretraining", ECCV 2018)
takes images by frequency^-1/2 of their hashtags, after Mikolov et al. 2013, so that a frequent label is seen less
often than in proportion to its rows and a rare one more often. There images are repeated; here they are thinned, for a
corpus holds each once: the rule that a loader needs for repetitions is in mode online.

A label that f rows have weighs f^power, a row as much as its rarest label, since what else it shows must not hide that
one. A row stays with probability min(1, c × weight), where c is the one number for which as many rows stay on average
as are asked for: where weights are so high that the product would exceed 1, rows are all kept and the others get what
those leave over (water-filling). Labels are counted by DuckDB on disk; only their names, counts, and a few bytes a row
are held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from corpusmith.operators.balance.wording import joined, quoted, three_digits
from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Reduce, Reduced, Resources, Rows
from corpusmith.operators.draws import fractions
from corpusmith.operators.duck import MEMORY_BYTES, renamed, spilling
from corpusmith.operators.spool import spooled
from corpusmith.schemas.columns import UID, Column
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import Fate

if TYPE_CHECKING:
    import duckdb

CURVE_POINTS = 200
TOP_LABELS = 20
_BATCH_ROWS = 1 << 17

RESAMPLE_PROBABILITY = Column(
    "resample_probability",
    pa.float64(),
    "probability with which resample lets the row through; in mode online the weight by which a loader samples it",
)
RESAMPLE_COUNT = Column("resample_count", pa.int64(), "rows that have the rarest label of this one", "rows")
_DECISIONS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in (UID.name, "fate", "reason", "error")),
        *(pa.field(column.name, column.type) for column in (RESAMPLE_PROBABILITY, RESAMPLE_COUNT)),
    ]
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Resample(Reduce, name="resample", version=1):
    """Thin rows of frequent labels by a power of the frequency: square root for hashtags, clusters, languages."""

    class Config(BaseConfig):
        by: str = Field(
            min_length=1,
            description="column of the labels: one value or a list of them, such as hashtags, a cluster, a language. "
            "A null fails, a row with an empty list is dropped; equal labels of one row count once",
        )
        power: float = Field(
            default=-0.5,
            ge=-1,
            le=0,
            description="a row's weight is the frequency of its rarest label to this power: -0.5 is the square root, "
            "-1 gives all labels about as many rows, 0 draws rows alike",
        )
        keep: float | None = Field(default=None, gt=0, le=1, description="share of the rows with labels to keep")
        rows: int | None = Field(default=None, ge=1, description="instead of keep: rows to keep, on average")
        mode: Literal["cut", "online"] = Field(
            default="cut",
            description="cut: each row is drawn once and stays or goes; online: no row with a label goes, and a "
            "loader takes a row with probability resample_probability each time it comes by",
        )

        @model_validator(mode="after")
        def _one_target(self) -> Resample.Config:
            if (self.keep is None) == (self.rows is None):
                raise ValueError("give either keep, a share, or rows, a number")
            return self

    seeded = True
    resources = Resources(memory_bytes=MEMORY_BYTES)
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.config.by,)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (RESAMPLE_PROBABILITY, RESAMPLE_COUNT)

    def reduce(self, rows: Rows) -> Reduced:
        reader = rows.reader(self.requires)
        check_labels(reader.schema.field(self.config.by))
        with spilling(renamed(reader, {"uid": UID.name, "labels": self.config.by}), rows.scratch_dir) as connection:
            labels = _labelled(connection, pa.types.is_nested(reader.schema.field(self.config.by).type))
            counts = labels.column("count").to_numpy()
            rarest = _Rarest(connection)
            weights = counts[rarest.labels].astype(np.float64) ** self.config.power
            probabilities = fill(rarest.numbers, weights, self._expected(int(rarest.numbers.sum())))
            by_label = np.zeros(len(counts))
            by_label[rarest.labels] = probabilities
            taken: list[Ints] = []
            batches = self._decided(connection, labels, by_label, taken)
            decisions = spooled(batches, _DECISIONS, rows.scratch_dir)
            after = _counts_after(connection, np.concatenate([np.zeros(0, np.int64), *taken]), len(counts))
        return Reduced(decisions, self._summary(labels, after, rows.count, rarest, probabilities, sum(map(len, taken))))

    def _expected(self, labelled: int) -> float:
        """Rows that stay on average, of those with labels."""
        return self.config.keep * labelled if self.config.keep is not None else float(self.config.rows or 0)

    def _decided(
        self, connection: duckdb.DuckDBPyConnection, labels: pa.Table, probabilities: Floats, taken: list[Ints]
    ) -> Iterator[pa.RecordBatch]:
        """Decisions; adds to `taken` the numbers of the rows that the draw takes."""
        texts, counts = quoted(labels.column("label").combine_chunks()), labels.column("count").combine_chunks()
        stream = connection.sql(
            "SELECT pool.rowid AS row, uid, labels IS NULL AS is_missing, rarest "
            "FROM pool LEFT JOIN rarest ON rarest.row = pool.rowid"
        ).to_arrow_reader(_BATCH_ROWS)
        for batch in stream:
            found = batch.column("rarest")
            has_label = found.is_valid().to_numpy(zero_copy_only=False)
            own = np.append(probabilities, 0.0)[pc.fill_null(found, len(probabilities)).to_numpy()]
            draws = fractions(batch.column("uid"), self.seed, f"resample {self.config.by} ")
            is_taken = (draws < own) & has_label
            taken.append(batch.column("row").to_numpy()[is_taken])
            failed = batch.column("is_missing")
            dropped = pc.and_not(pa.array(~is_taken if self.config.mode == "cut" else ~has_label), failed)
            columns: list[Any] = [
                batch.column("uid"),
                pc.case_when(pc.make_struct(failed, dropped), Fate.FAILED.value, Fate.REJECTED.value),
                pc.if_else(dropped, self._reasons(own, draws, found, texts, counts), None),
                pc.if_else(failed, pa.scalar(f"missing {self.config.by}"), None),
                pc.if_else(failed, None, pa.array(own)),
                counts.take(found),
            ]
            yield pa.record_batch([c.cast(f.type) for c, f in zip(columns, _DECISIONS, strict=True)], _DECISIONS)

    def _reasons(self, own: Floats, draws: Floats, found: pa.Array, texts: pa.Array, counts: pa.Array) -> pa.Array:
        """Why a row would be dropped, for all rows."""
        label, count = texts.take(found), counts.take(found).cast(pa.large_string())
        numbers = (three_digits(own), ", draw = ", three_digits(draws))
        told = joined(f"resample {self.config.by}: p = ", *numbers, ", rarest label ", label, " of ", count, " rows")
        return pc.fill_null(told, f"no label: {self.config.by} is empty")

    def _summary(
        self, labels: pa.Table, after: Ints, rows: int, rarest: _Rarest, probabilities: Floats, taken: int
    ) -> dict[str, Any]:
        """Counts before and after; labels by falling count."""
        before = labels.column("count").to_numpy()
        ranks = np.unique(np.geomspace(1, max(len(before), 1), CURVE_POINTS).round().astype(np.int64))[: len(before)]
        labelled = int(rarest.numbers.sum())
        names = labels.column("label").slice(0, TOP_LABELS).to_pylist()
        return {
            "mode": self.config.mode,
            "power": self.config.power,
            "labels": len(before),
            "rows": rows,
            "rows_without_label": rows - labelled,
            "kept": taken if self.config.mode == "cut" else labelled,
            "taken": taken,
            "expected": float((rarest.numbers * probabilities).sum()),
            "kept_whole": int(rarest.numbers[probabilities >= 1].sum()),
            "curve": [[r, int(before[r - 1]), int(after[r - 1])] for r in ranks.tolist()],
            "top": [[name, int(before[i]), int(after[i])] for i, name in enumerate(names)],
        }


class _Rarest:
    """How many rows have each label as their rarest: (K,) places of labels, ascending, and (K,) rows."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        table = connection.sql(
            "SELECT rarest AS label, count(*) AS number FROM rarest GROUP BY rarest ORDER BY rarest"
        ).to_arrow_table()
        self.labels: Ints = table.column("label").to_numpy()
        self.numbers: Ints = table.column("number").to_numpy()


def check_labels(field: pa.Field) -> None:
    """Refuse a column that cannot hold labels.

    Raises:
        UserError: its values are neither texts nor whole numbers, nor lists of those.
    """
    value = field.type
    if pa.types.is_list(value) or pa.types.is_large_list(value) or pa.types.is_fixed_size_list(value):
        value = value.value_type
    if pa.types.is_dictionary(value):
        value = value.value_type
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_null, pa.types.is_boolean)
    if not any(is_one(value) for is_one in texts):
        what = f"the column {field.name!r} is {field.type}, and those are no labels"
        raise UserError(what, where="resample.by", hint="name a column of texts or whole numbers, or of lists of them")


def fill(numbers: Ints, weights: Floats, expected: float) -> Floats:
    """Probabilities min(1, c × weight) by which `expected` rows are kept on average, all where there are no more.

    Args:
        numbers: (K,) rows of each weight.
        weights: (K,) above 0.
        expected: rows to keep.

    Returns:
        (K,) probabilities; equal weights have equal ones.
    """
    if expected >= numbers.sum():
        return np.ones(len(weights))
    order = np.argsort(-weights, kind="stable")
    ranked, rows = weights[order], numbers[order].astype(np.float64)
    mass = np.cumsum((rows * ranked)[::-1])[::-1]
    whole = np.cumsum(rows) - rows
    # with the k heaviest kept whole, the factor that spreads the rest; the first k under which nobody exceeds 1 fits
    factors = np.maximum(expected - whole, 0) / np.maximum(mass, np.finfo(np.float64).tiny)
    fits = np.flatnonzero(factors * ranked <= 1)
    kept = np.ones(len(weights))
    if len(fits):
        kept[order[fits[0] :]] = factors[fits[0]] * ranked[fits[0] :]
    return kept


def _labelled(connection: duckdb.DuckDBPyConnection, is_list: bool) -> pa.Table:
    """Make tables of the pool, of each row's labels and of its rarest; labels are numbered by falling count.

    Returns:
        `label` and `count`, a label's number being its place; equals of one count in byte order.
    """
    texts = "CAST(labels AS VARCHAR[])" if is_list else "[CAST(labels AS VARCHAR)]"
    connection.execute(
        f"CREATE TEMP TABLE pool AS SELECT uid, CASE WHEN labels IS NULL THEN NULL ELSE {texts} END "
        "AS labels FROM stream"
    )
    unnested = "SELECT rowid AS row, unnest(list_distinct(labels)) AS label FROM pool"
    labels = connection.sql(
        f"SELECT label, count(*) AS count FROM ({unnested}) GROUP BY label ORDER BY count DESC, label"
    ).to_arrow_table()
    numbered = pa.table({"label": labels.column("label"), "number": np.arange(labels.num_rows)})
    connection.register("numbered", numbered)
    connection.execute(
        f"CREATE TEMP TABLE labelled AS SELECT row, number FROM ({unnested}) JOIN numbered USING (label)"
    )
    connection.execute("CREATE TEMP TABLE rarest AS SELECT row, max(number) AS rarest FROM labelled GROUP BY row")
    return labels


def _counts_after(connection: duckdb.DuckDBPyConnection, taken: Ints, labels: int) -> Ints:
    """Rows of each label among those that the draw takes."""
    connection.register("taken", pa.table({"row": taken}))
    found = connection.sql(
        "SELECT number, count(*) AS count FROM labelled SEMI JOIN taken USING (row) GROUP BY number"
    ).to_arrow_table()
    after = np.zeros(labels, np.int64)
    after[found.column("number").to_numpy()] = found.column("count").to_numpy()
    return after
