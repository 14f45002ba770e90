"""One annotate step inside a stream: use published results where they count, compute and publish the rest.

Media needs care: only the last form that a stream makes is staged, so a finished download whose bytes are gone is
enough for a row that ends before its bytes are read, or whose later form is staged. `_unread` walks such rows ahead
through the stream to tell them from those that must be downloaded again.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.contract import Annotate, AnnotateRows, Part
from corpusmith.pipelines.bind import Step
from corpusmith.pipelines.capture import iter_parts
from corpusmith.pipelines.cell import IsolatedOperator
from corpusmith.pipelines.digests import row_digests
from corpusmith.pipelines.state import DIGEST, ERROR, MESSAGE
from corpusmith.pipelines.units import UnitContext, with_column, with_media, without_media
from corpusmith.schemas.columns import MEDIA, MEDIA_REF, MEDIA_SHA256, ROOT, UID
from corpusmith.schemas.fates import Fate, RowError

Ahead = Callable[[pa.Table, UnitContext], set[str]]
"""Given rows without their bytes, the uids of those whose bytes the rest of the stream will read."""


@dataclass(frozen=True)
class Found:
    """A batch, told apart by what is published.

    Args:
        rows: rows with a result, as they came.
        results: their results, aligned.
        missing: rows without.
        digests: of the missing rows' required values.
    """

    rows: pa.Table
    results: pa.Table
    missing: pa.Table
    digests: pa.Array


class AnnotateRunner:
    """Runs one annotate step for one worker.

    Args:
        step: the bound step.
        slots: child processes at most, for an isolated operator.
        staged: whether the media that the step makes is staged.
    """

    def __init__(self, step: Step, *, slots: int, staged: bool) -> None:
        assert isinstance(step.operator, Annotate)
        self.step = step
        self.operator = step.operator
        self.staged = staged
        self.makes_media = any(c.name == MEDIA.name for c in self.operator.produces)
        self.reads_media = MEDIA.name in self.operator.requires
        self._cell = IsolatedOperator(self.operator, slots=slots) if self.operator.isolated else None
        self._ready = False
        self._told_busy_s = 0.0
        self._clock = time.perf_counter if self.operator.resources.waits else time.thread_time
        self._setup_lock = threading.Lock()

    def _set_up(self) -> None:
        with self._setup_lock:
            if not self._ready and self._cell is None:
                self.operator.setup()
            self._ready = True

    def close(self) -> None:
        """End child processes, close the operator."""
        if self._cell is not None:
            self._cell.close()
        elif self._ready:
            self.operator.close()

    def apply(self, tables: Iterable[pa.Table], unit: UnitContext, ahead: Ahead) -> Iterator[pa.Table]:
        """Annotate live rows; rows that fail end here."""
        for table in tables if isinstance(self.operator, AnnotateRows) else _gather(tables, self.operator.batch_rows):
            unit.count(self.step.id).rows_in += table.num_rows
            for start in range(0, table.num_rows, self.operator.batch_rows):
                batch = table.slice(start, self.operator.batch_rows)
                yield from self._counted(self._annotate(batch, unit, ahead), unit)

    def _counted(self, tables: Iterable[pa.Table], unit: UnitContext) -> Iterator[pa.Table]:
        for table in tables:
            if table.num_rows:
                unit.count(self.step.id).rows_out += table.num_rows
                yield table

    def _annotate(self, batch: pa.Table, unit: UnitContext, ahead: Ahead) -> Iterator[pa.Table]:
        if not self.operator.stored:
            yield from self._compute(batch, None, unit)
            return
        found = self.find(batch, unit)
        if self.makes_media and not self.staged and found.rows.num_rows:
            unread = self._unread(found, unit, ahead)
            again = found.rows.filter(pc.invert(unread))
            if again.num_rows:
                found = Found(
                    found.rows.filter(unread),
                    found.results.filter(unread),
                    pa.concat_tables([found.missing, again]),
                    pa.concat_arrays([found.digests, row_digests(again, self.operator.requires)]),
                )
        unit.count(self.step.id).reused += found.rows.num_rows
        if found.rows.num_rows:
            errors, messages = found.results.column(ERROR), found.results.column(MESSAGE)
            yield self._settle(self._attach(found.rows, found.results), errors, messages, unit)
        if found.missing.num_rows:
            yield from self._compute(found.missing, found.digests, unit)

    def _unread(self, found: Found, unit: UnitContext, ahead: Ahead) -> pa.Array:
        """Mask of rows that can do without the bytes that were not staged."""
        needed = pa.array(sorted(ahead(self.live(found), unit)), pa.string())
        mask = pc.invert(pc.is_in(found.rows.column(UID.name), value_set=needed))
        return mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask

    def find(self, batch: pa.Table, unit: UnitContext) -> Found:
        """Look the published results of a batch up."""
        prior = unit.prior(self.step.id)
        digests = row_digests(batch, self.operator.requires)
        positions = prior.find(batch.column(UID.name), digests)
        hit = positions >= 0
        results = prior.table.take(pa.array(positions[hit]))
        if not hit.any():  # the rule in a first run, and media would be copied by a filter
            return Found(batch.slice(0, 0), results, batch, digests)
        missing = pa.array(~hit)
        return Found(batch.filter(pa.array(hit)), results, batch.filter(missing), digests.filter(missing))

    def walk(self, rows: pa.Table, unit: UnitContext, needed: set[str]) -> pa.Table:
        """Walk ahead with rows that lack their bytes: adds those that cannot do without, returns those that go on."""
        if not self.operator.stored:
            if self.reads_media:
                needed.update(rows.column(UID.name).to_pylist())
                return rows.slice(0, 0)
            scratch = UnitContext(unit.unit, unit.storage, {})
            gone_on = list(self._compute(rows, None, scratch))
            return pa.concat_tables(gone_on) if gone_on else rows.slice(0, 0)
        found = self.find(rows, unit)
        needed.update(found.missing.column(UID.name).to_pylist())
        live = self.live(found)
        return live.slice(0, 0) if self.staged else live

    def live(self, found: Found) -> pa.Table:
        """Rows with a stored result that go on, its columns attached."""
        table = self._attach(found.rows, found.results)
        return table if self.step.on_error == "null" else table.filter(pc.is_null(found.results.column(ERROR)))

    def _attach(self, rows: pa.Table, results: pa.Table) -> pa.Table:
        """Put stored columns in their places; media is then a reference, or nothing at all."""
        for name in self._stored_names():
            rows = with_column(rows, name, results.column(name))
        return without_media(rows) if self.makes_media else rows

    def _stored_names(self) -> set[str]:
        names = {c.name for c in self.operator.produces} - {MEDIA.name}
        return names | {MEDIA_SHA256.name, MEDIA_REF.name} if self.makes_media else names

    def _settle(
        self, table: pa.Table, errors: pa.ChunkedArray, messages: pa.ChunkedArray, unit: UnitContext
    ) -> pa.Table:
        """End the failed rows, or null them where the step says so; returns those that go on."""
        failed = pc.is_valid(errors)
        number = pc.sum(failed).as_py() or 0
        if not number:
            return table
        if self.step.on_error == "null":
            unit.count(self.step.id).nulled += number
            return table
        unit.end(
            table.filter(failed),
            self.step.id,
            Fate.FAILED,
            messages.filter(failed).to_pylist(),
            errors.filter(failed).to_pylist(),
        )
        return table.filter(pc.invert(failed))

    def _compute(self, batch: pa.Table, digests: pa.Array | None, unit: UnitContext) -> Iterator[pa.Table]:
        self._set_up()
        if self.reads_media:
            batch = with_media(batch, unit.storage)
        given = batch.select([n for n in (UID.name, *self.operator.requires) if n in batch.schema.names])
        count = unit.count(self.step.id)
        started = self._clock()
        for part in self._parts(given):
            count.time_s += self._spent(started)
            rows = part.rows if part.rows is not None else range(batch.num_rows)
            positions = pa.array(rows, pa.int64())
            is_whole = list(rows) == list(range(batch.num_rows))
            table = self._attach_part(batch if is_whole else batch.take(positions), part, unit)
            outcome = _outcome(part.errors, len(rows))
            count.computed += len(rows)
            count.count_errors(e.error for e in part.errors.values())
            if digests is not None:
                unit.add_results(self.step.id, self._result_table(table, digests.take(positions), *outcome))
            yield self._settle(table, *outcome, unit)
            started = self._clock()

    def _spent(self, started: float) -> float:
        """Seconds of the operator's own time; waiting for a core, or a child process busy with other rows, is none."""
        if self._cell is None:
            return self._clock() - started
        with self._setup_lock:
            busy_s = self._cell.busy_s
            spent, self._told_busy_s = busy_s - self._told_busy_s, busy_s
        return spent

    def _parts(self, given: pa.Table) -> Iterable[Part]:
        if self.reads_media:
            absent = np.flatnonzero(pc.is_null(given.column(MEDIA.name)).to_numpy(zero_copy_only=False))
            if len(absent):
                yield self._absent_media(absent)
                present = np.setdiff1d(np.arange(given.num_rows), absent)
                if len(present):
                    for part in self._parts(given.take(pa.array(present))):
                        inner = part.rows if part.rows is not None else range(len(present))
                        yield Part(part.columns, part.errors, rows=[int(present[i]) for i in inner])
                return
        if self._cell is None:
            yield from iter_parts(self.operator, given)
            return
        parts = self._cell.process(given)
        assert isinstance(parts, list)
        yield from parts

    def _absent_media(self, rows: np.ndarray) -> Part:
        error = RowError("missing media", "the sample has no media at this step")
        columns = {c.name: pa.nulls(len(rows), c.type) for c in self.operator.produces}
        return Part(columns, dict.fromkeys(range(len(rows)), error), rows=rows.tolist())

    def _attach_part(self, rows: pa.Table, part: Part, unit: UnitContext) -> pa.Table:
        failed = pa.array(np.isin(np.arange(rows.num_rows), list(part.errors))) if part.errors else None
        for column in self.operator.produces:
            values = part.columns[column.name]
            if not isinstance(values, (pa.Array, pa.ChunkedArray)):
                values = pa.array(values, column.type)
            if failed is not None:
                values = pc.if_else(failed, pa.scalar(None, column.type), values)
            rows = with_column(rows, column.name, values)
        return self._stage(rows, unit) if self.makes_media else rows

    def _stage(self, rows: pa.Table, unit: UnitContext) -> pa.Table:
        media = rows.column(MEDIA.name)
        unit.count(self.step.id).bytes += pc.sum(pc.binary_length(media)).as_py() or 0
        bodies: Sequence[bytes | None] = media.to_pylist() if self.staged or self.operator.media_hash is None else ()
        if self.operator.media_hash is not None:
            hashes = rows.column(self.operator.media_hash)
        else:
            hashes = pa.array([None if m is None else hashlib.sha256(m).hexdigest() for m in bodies], pa.string())
        rows = with_column(rows, MEDIA_SHA256.name, hashes)
        references = pa.array(unit.stage(self.step.id, bodies)) if self.staged else pa.nulls(rows.num_rows, pa.string())
        return with_column(rows, MEDIA_REF.name, pc.cast(references, pa.string()))

    def _result_table(
        self, rows: pa.Table, digests: pa.Array, error: pa.ChunkedArray, message: pa.ChunkedArray
    ) -> pa.Table:
        names = [UID.name, ROOT.name, *sorted(self._stored_names())]
        return (
            rows.select(names)
            .append_column(DIGEST, digests)
            .append_column(ERROR, error)
            .append_column(MESSAGE, message)
        )


def _outcome(errors: Mapping[int, RowError], rows: int) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Class and message of each row's error, null where it has none."""
    if not errors:
        none = pa.chunked_array([pa.nulls(rows, pa.string())])
        return none, none
    found = [errors.get(i) for i in range(rows)]
    error = pa.chunked_array([pa.array([None if e is None else e.error for e in found], pa.string())])
    message = pa.chunked_array([pa.array([None if e is None else e.message for e in found], pa.string())])
    return error, message


def _gather(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Join small tables until they hold `rows` rows: vectorised operators want full batches."""
    waiting: list[pa.Table] = []
    held = 0
    for table in tables:
        waiting.append(table)
        held += table.num_rows
        if held >= rows:
            yield pa.concat_tables(waiting, promote_options="default")
            waiting, held = [], 0
    if waiting:
        yield pa.concat_tables(waiting, promote_options="default")
