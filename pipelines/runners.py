"""One select or split step inside a stream: rows go on or end here; children go on in their parent's place."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from corpusmith.operators.contract import Select, Split
from corpusmith.pipelines.bind import Step
from corpusmith.pipelines.capture import OperatorContractError, process_captured
from corpusmith.pipelines.cell import IsolatedOperator
from corpusmith.pipelines.units import UnitContext, with_column
from corpusmith.schemas.columns import PARENT, UID
from corpusmith.schemas.fates import Fate
from corpusmith.schemas.identity import child_uid


class SelectRunner:
    """Runs one select step."""

    def __init__(self, step: Step) -> None:
        assert isinstance(step.operator, Select)
        self.step = step
        self.operator = step.operator
        self._setup = False
        self._lock = threading.Lock()

    def close(self) -> None:
        """Nothing is held beyond the operator."""
        self.operator.close()

    def apply(self, tables: Iterable[pa.Table], unit: UnitContext, ahead: Any) -> Iterator[pa.Table]:
        """Let kept rows go on; end the others."""
        del ahead
        for table in tables:
            kept = self._decide(table, unit, record=True)
            if kept.num_rows:
                yield kept

    def walk(self, rows: pa.Table, unit: UnitContext, needed: set[str]) -> pa.Table:
        """Rows that would go on."""
        del needed
        return self._decide(rows, unit, record=False)

    def _decide(self, table: pa.Table, unit: UnitContext, *, record: bool) -> pa.Table:
        with self._lock:
            if not self._setup:
                self.operator.setup()
                self._setup = True
        started = time.thread_time()
        decision = self.operator.decide(table.select([UID.name, *self.operator.requires]))
        elapsed = time.thread_time() - started
        keep = np.asarray(decision.keep, dtype=bool)
        if len(keep) != table.num_rows:
            raise OperatorContractError(f"select {self.step.id!r} decided {len(keep)} of {table.num_rows} rows")
        failed = sorted(decision.errors)
        if self.step.mark is not None:
            table = with_column(table, self.step.mark, pa.array(keep))
            keep = np.ones_like(keep)
        keep[failed] = False
        kept = table.filter(pa.array(keep))
        if record:
            self._record(table, keep, decision.reasons, decision.errors, unit)
            count = unit.count(self.step.id)
            count.rows_in += table.num_rows
            count.rows_out += kept.num_rows
            count.computed += table.num_rows
            count.time_s += elapsed
            count.count_errors(e.error for e in decision.errors.values())
        return kept

    def _record(self, table: pa.Table, keep: np.ndarray, reasons: Any, errors: Any, unit: UnitContext) -> None:
        failed = sorted(errors)
        rejected = [i for i in np.flatnonzero(~keep).tolist() if i not in errors]
        silent = [i for i in rejected if i not in reasons]
        if silent:
            raise OperatorContractError(f"select {self.step.id!r} rejected {len(silent)} rows without a reason")
        rows = table.take(pa.array(rejected, pa.int64()))
        unit.end(rows, self.step.id, Fate.REJECTED, [reasons[i] for i in rejected], [None] * len(rejected))
        rows = table.take(pa.array(failed, pa.int64()))
        unit.end(
            rows, self.step.id, Fate.FAILED, [errors[i].message for i in failed], [errors[i].error for i in failed]
        )


class SplitRunner:
    """Runs one split step: a row's children go on in its place."""

    def __init__(self, step: Step, *, slots: int) -> None:
        assert isinstance(step.operator, Split)
        self.step = step
        self.operator = step.operator
        self._cell = IsolatedOperator(self.operator, slots=slots) if self.operator.isolated else None
        self._setup = False
        self._lock = threading.Lock()

    def close(self) -> None:
        """End child processes, close the operator."""
        if self._cell is not None:
            self._cell.close()
        elif self._setup:
            self.operator.close()

    def walk(self, rows: pa.Table, unit: UnitContext, needed: set[str]) -> pa.Table:
        """Children inherit media, so all rows that reach a split keep theirs."""
        del unit
        needed.update(rows.column(UID.name).to_pylist())
        return rows.slice(0, 0)

    def apply(self, tables: Iterable[pa.Table], unit: UnitContext, ahead: Any) -> Iterator[pa.Table]:
        """Split rows; the parents end here."""
        del ahead
        for table in tables:
            for start in range(0, table.num_rows, self.operator.batch_rows):
                children = self._split(table.slice(start, self.operator.batch_rows), unit)
                if children.num_rows:
                    yield children

    def _split(self, batch: pa.Table, unit: UnitContext) -> pa.Table:
        with self._lock:
            if self._cell is None and not self._setup:
                self.operator.setup()
                self._setup = True
        started = time.perf_counter()
        given = batch.select([UID.name, *self.operator.requires])
        made = self._cell.process(given) if self._cell is not None else process_captured(self.operator, given)
        assert not isinstance(made, list)
        count = unit.count(self.step.id)
        count.time_s += time.perf_counter() - started
        count.rows_in += batch.num_rows
        count.computed += batch.num_rows
        count.made += len(made.parents)
        count.rows_out += len(made.parents)
        count.count_errors(e.error for e in made.errors.values())
        children = self._children(batch, made)
        self._end_parents(batch, made, unit)
        return children

    def _children(self, batch: pa.Table, made: Any) -> pa.Table:
        parents = batch.take(pa.array(made.parents, pa.int64()))
        parent_uids = parents.column(UID.name).to_pylist()
        uids = [child_uid(p, self.operator.name, key) for p, key in zip(parent_uids, made.keys, strict=True)]
        if len(set(uids)) != len(uids):
            raise OperatorContractError(f"split {self.step.id!r} gave two children of one parent the same key")
        children = with_column(parents, UID.name, pa.array(uids, pa.string()))
        children = with_column(children, PARENT.name, pa.array(parent_uids, pa.string()))
        for column in self.operator.produces:
            children = with_column(children, column.name, pa.array(made.columns[column.name], column.type))
        return children

    def _end_parents(self, batch: pa.Table, made: Any, unit: UnitContext) -> None:
        numbers = np.bincount(np.asarray(made.parents, dtype=np.int64), minlength=batch.num_rows)
        failed = sorted(made.errors)
        numbers[failed] = -1
        split = np.flatnonzero(numbers > 0)
        unit.end_split(batch.take(pa.array(split)), self.step.id, numbers[split].tolist())
        empty = batch.take(pa.array(np.flatnonzero(numbers == 0)))
        unit.end(empty, self.step.id, Fate.REJECTED, ["no children: 0 made"] * empty.num_rows, [None] * empty.num_rows)
        messages, errors = [made.errors[i].message for i in failed], [made.errors[i].error for i in failed]
        unit.end(batch.take(pa.array(failed, pa.int64())), self.step.id, Fate.FAILED, messages, errors)
