"""Running a reduce: the live rows of a stream in, decisions out, kept under a digest of the rows that it saw.

The same rows with the same required values, in whatever order they arrive, have the same digest; then the decisions of
an earlier run are used.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.contract import Mapped, Reduce, Reduced
from corpusmith.pipelines.bind import Step
from corpusmith.pipelines.capture import OperatorContractError
from corpusmith.pipelines.decisions import settled
from corpusmith.pipelines.digests import SetDigest, row_digests
from corpusmith.pipelines.executors import Executor
from corpusmith.pipelines.plan import Segment
from corpusmith.pipelines.state import ROW_GROUP_ROWS
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.units import Unit
from corpusmith.schemas.columns import FATE, ROOT, UID


class FlowRows:
    """The live rows that left a stream, as a reduce sees them."""

    def __init__(
        self, work: Storage, folder: str, units: Sequence[Unit], segment: Segment, seed: int, executor: Executor
    ) -> None:
        self._work = work
        self._executor = executor
        self._paths = [f"{folder}/{unit.name}.parquet" for unit in units]
        self._schema = segment.schema
        self.seed = seed
        self.scratch_dir = ""
        self.count = sum(table.num_rows for table in self._tables([UID.name]))

    def _tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        wanted = list(dict.fromkeys(columns))
        for path in self._paths:
            yield _live_rows(self._work, path, wanted)

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """As reader(), one table a unit."""
        return self._tables([UID.name, *columns])

    def map(self, work: Callable[[pa.Table], Mapped], columns: Sequence[str]) -> Iterator[Mapped]:
        """See `contract.Rows`."""
        names = list(dict.fromkeys([UID.name, *columns]))
        schema = pa.schema([self._schema.field(name) for name in names])
        yield from self._executor.run_tasks(_OnLiveRows(self._work, schema, work), self._paths)

    def reader(self, columns: Sequence[str]) -> pa.RecordBatchReader:
        """See `contract.Rows`."""
        names = list(dict.fromkeys([UID.name, *columns]))
        schema = pa.schema([self._schema.field(name) for name in names])
        batches = (b for table in self._tables(names) for b in table.cast(schema).to_batches())
        return pa.RecordBatchReader.from_batches(schema, batches)


def _live_rows(work: Storage, path: str, columns: Sequence[str]) -> pa.Table:
    table = work.read_table(path, list(dict.fromkeys([*columns, FATE.name])))
    return table.filter(pc.is_null(table.column(FATE.name))).select(columns)


@dataclass(frozen=True)
class _OnLiveRows(Generic[Mapped]):
    """Work on the live rows of a unit; travels to workers."""

    storage: Storage
    schema: pa.Schema
    work: Callable[[pa.Table], Mapped]

    def __call__(self, path: str) -> Mapped:
        return self.work(_live_rows(self.storage, path, self.schema.names).cast(self.schema))


@dataclass(frozen=True)
class Decided:
    """Where a reduce's decisions lie, what it tells the report, and what it cost."""

    path: str
    summary: Mapping[str, Any]
    reused: bool
    time_s: float


def run_reduce(work: Storage, folder: str, step: Step, rows: FlowRows) -> Decided:
    """Decide over all live rows, or find that this was done before.

    Args:
        work: the work folder.
        folder: of the step's decisions below it.
        step: a reduce.
        rows: what reaches it.
    """
    operator = step.operator
    assert isinstance(operator, Reduce)
    started = time.perf_counter()
    digest = SetDigest()
    for table in rows.tables(operator.requires):
        digest.add(table.column(UID.name), row_digests(table, operator.requires))
    path = f"{folder}/{digest.hexdigest()}.parquet"
    facts = path.replace(".parquet", ".json")
    if work.exists(facts):
        return Decided(path, json.loads(work.read(facts)), True, time.perf_counter() - started)
    operator.setup()
    with tempfile.TemporaryDirectory(prefix="corpusmith-") as scratch:
        rows.scratch_dir = scratch
        reduced = operator.reduce(rows)
        work.publish_tables(path, _settled(step, reduced, rows), row_group_rows=ROW_GROUP_ROWS)
    operator.close()
    work.publish(facts, json.dumps(dict(reduced.summary), default=str).encode())
    return Decided(path, dict(reduced.summary), False, time.perf_counter() - started)


def _settled(step: Step, reduced: Reduced, rows: FlowRows) -> Iterator[pa.Table]:
    """Decisions with their root uid, sorted by it, a part at a time."""
    operator, decisions = step.operator, reduced.decisions
    fields = [pa.field(name, pa.string()) for name in (UID.name, "fate", "reason", "error")]
    schema = pa.schema([*fields, *(pa.field(c.name, c.type) for c in operator.produces)])
    lacking = [c.name for c in operator.produces if c.name not in decisions.schema.names]
    if lacking:
        raise OperatorContractError(f"reduce {step.id!r} did not produce {', '.join(lacking)}")
    reader = decisions.to_reader() if isinstance(decisions, pa.Table) else decisions
    try:
        yield from settled(reader, rows.tables([ROOT.name]), rows.count, schema, rows.scratch_dir)
    except OperatorContractError as error:
        raise OperatorContractError(f"reduce {step.id!r} gave {error}") from error
