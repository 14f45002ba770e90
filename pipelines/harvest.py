"""The harvest: one pass over all rows of a finished run, for the ledger, the counts, and what the report shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.pipelines.flow import Flow, joined
from corpusmith.pipelines.plan import Plan
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.units import Unit, conform, with_column
from corpusmith.schemas.columns import (
    CAPTION,
    FATE,
    FATE_CHILDREN,
    FATE_ERROR,
    FATE_REASON,
    FATE_STEP,
    MEDIA_REF,
    UID,
    URL,
    Column,
)
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import Fate, conservation_gap
from corpusmith.schemas.ledger import LEDGER_FOLDER, LEDGER_SCHEMA, reason_labels, url_hash
from corpusmith.schemas.manifest import Counts
from corpusmith.schemas.urls import redact_urls

LEDGER_FILE_ROWS = 1 << 18
SAMPLES_A_REASON = 24
TOLD_FAILURES = 5
VALUES_ROWS = 100_000
"""Distributions are drawn from all rows up to this many, from a sample by uid beyond."""

ReasonKey = tuple[str, str, str]
"""Step, fate, label."""


@dataclass
class Harvest:
    """What a pass over the rows found.

    Args:
        counts: where every row went.
        reasons: (step, fate, label) → rows.
        samples: (step, fate, label) → some of them, as dicts; kept rows under ("", "kept", "").
        values: rows for distributions: fate and `value_columns`.
    """

    counts: Counts
    reasons: Counter[ReasonKey] = field(default_factory=Counter)
    samples: dict[ReasonKey, list[dict]] = field(default_factory=dict)
    values: list[pa.Table] = field(default_factory=list)


def failures_told(reasons: Counter[ReasonKey], rows: int, *, step: str | None = None) -> str:
    """The commonest failures in words: `download Timeout 412 (4.1%), download HTTPStatus 404 301 (3.0%)`.

    Args:
        reasons: see Harvest.
        rows: what the shares are of.
        step: only failures of this one, which is then not named.
    """
    failed = Counter({key: n for key, n in reasons.items() if key[1] == Fate.FAILED and step in (None, key[0])})
    told = [
        f"{f'{at} ' if step is None else ''}{label} {number:,} ({number / max(1, rows):.1%})"
        for (at, _, label), number in failed.most_common(TOLD_FAILURES)
    ]
    if others := failed.total() - sum(n for _, n in failed.most_common(TOLD_FAILURES)):
        told.append(f"{len(failed) - TOLD_FAILURES:,} others {others:,}")
    return ", ".join(told)


def ended_rows(work: Storage, plan: Plan, flows: Sequence[Flow], unit: Unit) -> pa.Table:
    """All rows that a unit's source rows became, each with its fate; columns of the last segment."""
    schema = plan.segments[-1].schema
    ended = []
    for segment, flow in zip(plan.segments, flows, strict=True):
        table = flow.read(work, unit)
        if segment is plan.segments[-1]:
            table = with_column(table, FATE.name, pc.fill_null(table.column(FATE.name), Fate.KEPT.value))
        ended.append(conform(table.filter(pc.is_valid(table.column(FATE.name))), schema))
    return pa.concat_tables(ended).sort_by(UID.name)


def harvest(
    work: Storage, corpus: Storage, plan: Plan, flows: Sequence[Flow], units: Sequence[Unit], duplicates: int
) -> tuple[Harvest, list[str]]:
    """Write the ledger and gather counts and samples.

    Returns:
        The harvest, and the paths of the ledger's files below the corpus folder.

    Raises:
        UserError: some row has no fate, or more than one.
    """
    counts = Counts(rows_in=0, duplicates=duplicates, rows_made=0, kept=0, rejected=0, failed=0, split=0)
    found = Harvest(counts)
    columns = [FATE.name, *(c.name for c in value_columns(plan))]
    share = min(1.0, VALUES_ROWS / max(1, sum(u.rows for u in units)))
    writer = _LedgerWriter(corpus)
    for unit in joined(units, max(flow.row_groups for flow in flows)):
        rows = ended_rows(work, plan, flows, unit)
        _count(found, rows, unit)
        _sample(found, rows)
        found.values.append(_share_of(rows.select([*columns, UID.name]), share))
        writer.add(_ledger_rows(rows))
    return found, writer.close()


def _count(found: Harvest, rows: pa.Table, unit: Unit) -> None:
    fates = {one["values"]: one["counts"] for one in pc.value_counts(rows.column(FATE.name)).to_pylist()}
    children = pc.sum(rows.column(FATE_CHILDREN.name)).as_py() or 0
    gap = conservation_gap(unit.rows, children, fates)
    distinct = pc.count_distinct(rows.column(UID.name)).as_py()
    if gap or distinct != rows.num_rows:
        raise UserError(
            f"rows are not accounted for in unit {unit.name}: {unit.rows} in, {children} made, fates {fates}, "
            f"{distinct} distinct uids",
            hint="this is a bug in corpusmith or in an operator that splits rows; please report it with the recipe",
        )
    counts = found.counts
    counts.rows_in += unit.rows
    counts.rows_made += children
    for fate in Fate:
        setattr(counts, fate.value, getattr(counts, fate.value) + fates.get(fate.value, 0))


def _sample(found: Harvest, rows: pa.Table) -> None:
    """Count reasons, and choose some rows of each: those with a picture first, then by uid, in no order of work."""
    codes, keys = _reason_keys(rows)
    sizes = np.bincount(codes, minlength=len(keys)).tolist()
    found.reasons.update({key: n for key, n in zip(keys, sizes, strict=True) if key[1] in (Fate.REJECTED, Fate.FAILED)})
    has_picture = rows.column(MEDIA_REF.name).is_valid().to_numpy()
    # rows come sorted by uid
    order = np.lexsort((~has_picture, codes))
    places = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = order[places < SAMPLES_A_REASON]
    names = (UID.name, URL.name, CAPTION.name, MEDIA_REF.name, FATE_REASON.name)
    shown = rows.select([name for name in names if name in rows.schema.names]).take(pa.array(chosen))
    for code, row in zip(codes[chosen].tolist(), shown.to_pylist(), strict=True):
        found.samples.setdefault(keys[code], []).append(row)
    for code in set(codes[chosen].tolist()):
        held = found.samples[keys[code]]
        held.sort(key=lambda row: (row[MEDIA_REF.name] is None, row[UID.name]))
        del held[SAMPLES_A_REASON:]


def _share_of(rows: pa.Table, share: float) -> pa.Table:
    """A share of the rows, chosen by uid."""
    last = f"{int(share * 0xFFFFFFFF):08x}" + "f" * 24
    return rows.filter(pc.less_equal(rows.column(UID.name), last)).drop_columns([UID.name])


def value_columns(plan: Plan) -> list[Column]:
    """Columns that steps made and that a distribution can show: numbers, flags, short words; no source texts."""
    source = {c.name for c in plan.source_columns}
    made = {c.name: c for step in plan.steps for c in step.produces if c.name not in source}
    return [c for c in made.values() if _is_plain(c.type)]


def _is_plain(kind: pa.DataType) -> bool:
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return is_number or pa.types.is_boolean(kind) or pa.types.is_string(kind)


def _reason_keys(rows: pa.Table) -> tuple[np.ndarray, list[ReasonKey]]:
    """For each row the position of its key in a list of distinct ones."""
    fates = rows.column(FATE.name)
    labels = reason_labels(rows.column(FATE_REASON.name), rows.column(FATE_ERROR.name))
    is_kept = pc.equal(fates, Fate.KEPT.value)
    columns = [pc.if_else(is_kept, "", rows.column(FATE_STEP.name)), fates, pc.if_else(is_kept, "", labels)]
    texts: list[list[str]] = []
    codes = np.zeros(rows.num_rows, np.int64)
    for column in columns:
        encoded = (column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column).dictionary_encode()
        texts.append(encoded.dictionary.to_pylist())
        codes = codes * len(encoded.dictionary) + encoded.indices.to_numpy(zero_copy_only=False)
    distinct, places = np.unique(codes, return_inverse=True)
    steps, inner = np.divmod(distinct, len(texts[1]) * len(texts[2]) or 1)
    of_fate, of_label = np.divmod(inner, len(texts[2]) or 1)
    parts = zip(steps.tolist(), of_fate.tolist(), of_label.tolist(), strict=True)
    return places.reshape(-1), [(texts[0][a], texts[1][b], texts[2][c]) for a, b, c in parts]


def _ledger_rows(rows: pa.Table) -> pa.Table:
    named = rows.schema.names
    urls = rows.column(URL.name) if URL.name in named else pa.chunked_array([pa.nulls(rows.num_rows, pa.string())])
    renamed = {
        "step": FATE_STEP.name,
        "reason": FATE_REASON.name,
        "error": FATE_ERROR.name,
        "children": FATE_CHILDREN.name,
    }
    table = rows.append_column("url_hash", pa.array(map(url_hash, urls.to_pylist()), pa.string()))
    table = with_column(table, URL.name, redact_urls(urls))
    for name, column in renamed.items():
        table = with_column(table, name, table.column(column))
    return conform(table, LEDGER_SCHEMA)


class _LedgerWriter:
    """Publishes ledger rows in files of bounded size."""

    def __init__(self, corpus: Storage) -> None:
        self._corpus = corpus
        self._held: list[pa.Table] = []
        self._rows = 0
        self.paths: list[str] = []

    def add(self, table: pa.Table) -> None:
        self._held.append(table)
        self._rows += table.num_rows
        if self._rows >= LEDGER_FILE_ROWS:
            self._publish()

    def close(self) -> list[str]:
        self._publish()
        stale = [e.path for e in self._corpus.list(LEDGER_FOLDER) if e.path not in self.paths]
        self._corpus.delete(*stale)
        return self.paths

    def _publish(self) -> None:
        if self._held:
            self.paths.append(f"{LEDGER_FOLDER}/{len(self.paths):05d}.parquet")
            self._corpus.publish_table(self.paths[-1], pa.concat_tables(self._held).sort_by(UID.name))
            self._held, self._rows = [], 0
