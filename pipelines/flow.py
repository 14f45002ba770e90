"""Flows: the rows between streams, as files on storage.

A stream leaves one file a unit. Streams cut the same source rows differently: one that waits for a network or holds
media takes few rows in hand, one of texts and numbers many, since each unit and each call of an operator has its price.
So a flow knows how its files are cut, and gives the rows of any unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import pyarrow as pa

from corpusmith.pipelines.plan import MAX_UNIT_ROWS, Plan, Segment
from corpusmith.pipelines.state import read_range
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.units import Unit
from corpusmith.schemas.columns import MEDIA, ROOT


@dataclass(frozen=True)
class Flow:
    """The rows that left a stream.

    Args:
        folder: where its files lie, below the work folder.
        row_groups: row groups of the source that one file stands for, at most.
    """

    folder: str
    row_groups: int

    def path(self, unit: Unit) -> str:
        """The file of a unit of the stream itself."""
        return f"{self.folder}/{unit.name}.parquet"

    def read(self, work: Storage, unit: Unit) -> pa.Table:
        """All rows, dead ones included, that the source rows of any stream's unit have become."""
        groups = range(unit.row_group, unit.row_group + unit.row_groups)
        starts = dict.fromkeys(group // self.row_groups * self.row_groups for group in groups)
        paths = [f"{self.folder}/{unit_name(unit.bucket.name, start)}.parquet" for start in starts]
        if unit.row_groups % self.row_groups == 0 or self.row_groups == 1:
            return pa.concat_tables([work.read_table(path) for path in paths])
        return pa.concat_tables([read_range(work, path, ROOT.name, unit.low, unit.high) for path in paths])


def unit_name(bucket: str, row_group: int) -> str:
    """The name of the unit that begins at a row group of a bucket."""
    return f"{bucket}.{row_group:05d}"


def units_for(segment: Segment, plan: Plan, units: Sequence[Unit], rows: int) -> tuple[tuple[Unit, ...], int]:
    """The units in which a stream takes the source rows.

    Args:
        segment: which stream.
        plan: the plan.
        units: the source's smallest units, in order.
        rows: of the source.

    Returns:
        The units, and how many row groups of the source each holds, at most.
    """
    operators = [step.operator for step in segment.stream]
    names = {name for o in operators for name in (*o.requires, *(c.name for c in o.produces))}
    each = 1
    if MEDIA.name not in names and not any(o.resources.waits for o in operators):
        each = replace(plan, unit_rows_cap=MAX_UNIT_ROWS).unit_rows(rows) // plan.unit_rows(rows)
    return joined(units, each), each


def joined(units: Sequence[Unit], each: int) -> tuple[Unit, ...]:
    """Units of up to `each` neighbours of one bucket."""
    if each == 1:
        return tuple(units)
    runs = groupby(units, key=lambda unit: (unit.bucket, unit.row_group // each))
    return tuple(_joined(list(run)) for _, run in runs)


def _joined(units: Sequence[Unit]) -> Unit:
    return replace(units[0], high=units[-1].high, rows=sum(u.rows for u in units), row_groups=len(units))
