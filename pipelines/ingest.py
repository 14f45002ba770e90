"""Ingest: input files to source rows, one row a uid, in buckets cut into units.

Rows are read once in file order and sorted by uid in runs of bounded size; each bucket is then gathered from the runs.
The result is kept under a digest of the set of input files, so an unchanged input is not read again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.sources.tables import SourceFile, read_tables
from corpusmith.pipelines.buckets import Bucket, all_buckets, bucket_bits
from corpusmith.pipelines.digests import fingerprint
from corpusmith.pipelines.plan import Plan
from corpusmith.pipelines.state import read_range
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.units import Unit
from corpusmith.schemas.columns import UID
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.recipe import InputSpec

RUN_ROWS = 1 << 20
RUN_ROW_GROUP_ROWS = 1 << 15
_ORDER = "input_order"


@dataclass(frozen=True)
class Source:
    """An ingested input.

    Args:
        rows: distinct uids.
        duplicates: rows beyond the first of their uid.
        bits: bits of the partition.
        units: the pieces of work.
        passed_over: kind of thing → how many of it stood between the rows and were not read.
    """

    rows: int
    duplicates: int
    bits: int
    units: tuple[Unit, ...]
    passed_over: dict[str, int]


def ingest(work: Storage, files: list[SourceFile], spec: InputSpec, plan: Plan, limit: int | None) -> Source:
    """Read the input into the work folder, unless this very set of files is there already.

    Raises:
        UserError: an input file is unreadable, or there is no row at all.
    """
    # a path may hold bytes that are no text
    listed = [{**asdict(file), "path": ascii(file.path), "root": ascii(file.root)} for file in files]
    facts = {"files": listed, "input": spec.model_dump(mode="json"), "limit": limit}
    folder = f"source/{fingerprint({**facts, 'cap': plan.unit_rows_cap})}"
    index_path = f"{folder}/index.json"
    if not work.exists(index_path):
        work.delete_folder("source")
        source = _gather(work, folder, files, spec, plan, limit)
        if not source.rows:
            raise UserError(
                "the input has no rows", where=_shown(spec), hint="check --input and the recipe's input section"
            )
        work.publish(index_path, _to_json(source))
    return _from_json(work.read(index_path))


def _shown(spec: InputSpec) -> str:
    return spec.path if isinstance(spec.path, str) else ", ".join(spec.path or ["input"])


def _to_json(source: Source) -> bytes:
    return json.dumps({**vars(source), "units": [unit.to_json() for unit in source.units]}).encode()


def _from_json(data: bytes) -> Source:
    plain = json.loads(data)
    return Source(**{**plain, "units": tuple(map(Unit.from_json, plain["units"]))})


def _gather(
    work: Storage, folder: str, files: list[SourceFile], spec: InputSpec, plan: Plan, limit: int | None
) -> Source:
    runs: list[str] = []
    rows = 0
    passed_over: Counter[str] = Counter()
    for table in _sorted_runs(files, spec, limit, passed_over):
        runs.append(f"{folder}/run-{len(runs):05d}.parquet")
        work.publish_table(runs[-1], table, row_group_rows=RUN_ROW_GROUP_ROWS)
        rows += table.num_rows
    bits = bucket_bits(rows)
    unit_rows = plan.unit_rows(rows)
    units: list[Unit] = []
    distinct = 0
    for bucket in all_buckets(bits):
        table = _first_of_each([read_range(work, run, UID.name, bucket.low, bucket.high) for run in runs])
        if table.num_rows:
            path = f"{folder}/{bucket.name}.parquet"
            work.publish_table(path, table, row_group_rows=unit_rows)
            units += _cut(table, bucket, path, unit_rows)
            distinct += table.num_rows
    work.delete(*runs)
    return Source(distinct, rows - distinct, bits, tuple(units), dict(passed_over))


def _sorted_runs(
    files: list[SourceFile], spec: InputSpec, limit: int | None, passed_over: Counter[str]
) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    held_rows = 0
    taken = 0
    for batch in read_tables(files, spec, passed_over=passed_over):
        if limit is not None:
            batch = batch.slice(0, max(0, limit - taken))
        held.append(batch)
        held_rows += batch.num_rows
        taken += batch.num_rows
        full = limit is not None and taken >= limit
        if held_rows >= RUN_ROWS or full:
            yield _run(held, taken - held_rows)
            held, held_rows = [], 0
        if full:
            return
    if held_rows:
        yield _run(held, taken - held_rows)


def _run(batches: list[pa.RecordBatch], first: int) -> pa.Table:
    table = pa.Table.from_batches(batches)
    order = pa.array(np.arange(first, first + table.num_rows))
    return table.append_column(_ORDER, order).sort_by([(UID.name, "ascending"), (_ORDER, "ascending")])


def _first_of_each(pieces: list[pa.Table]) -> pa.Table:
    """Rows sorted by uid, the first in input order of each."""
    if not pieces:
        return pa.table({UID.name: pa.array([], pa.string())})
    table = pa.concat_tables(pieces).sort_by([(UID.name, "ascending"), (_ORDER, "ascending")])
    if table.num_rows > 1:
        uids = table.column(UID.name).combine_chunks()
        new = pc.not_equal(uids.slice(1), uids.slice(0, len(uids) - 1))
        table = table.filter(pa.concat_arrays([pa.array([True]), new]))
    return table.drop_columns([_ORDER])


def _cut(table: pa.Table, bucket: Bucket, path: str, unit_rows: int) -> Iterator[Unit]:
    uids = table.column(UID.name)
    for group, start in enumerate(range(0, table.num_rows, unit_rows)):
        end = min(start + unit_rows, table.num_rows)
        low, high = uids[start].as_py(), uids[end - 1].as_py()
        yield Unit(f"{bucket.name}.{group:05d}", bucket, low, high, path, group, end - start)
