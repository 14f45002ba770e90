"""A stream in a worker's hands: units go through the steps, every row comes out, alive or with its fate.

The same worker serves every executor: threads of one process, or actors of a cluster. A unit's rows leave as one table
on storage, written once all their results are published; its existence is what says that the unit is done.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.contract import Annotate
from corpusmith.pipelines.annotate import AnnotateRunner
from corpusmith.pipelines.bind import Step
from corpusmith.pipelines.capture import OperatorContractError
from corpusmith.pipelines.flow import Flow
from corpusmith.pipelines.plan import Segment, flow_schema
from corpusmith.pipelines.runners import SelectRunner, SplitRunner
from corpusmith.pipelines.state import Ranged, Store
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.units import MediaBin, StepStats, Unit, UnitContext, conform, with_column, without_media
from corpusmith.schemas.columns import FATE, FATE_ERROR, FATE_REASON, FATE_STEP, ROOT, UID, Column
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import Fate

REMOVE_STEP = "remove"
REMOVED_REASON = "removed on request: uid"

KEEP_EVERY_S = 0.5
FLOW_ROW_GROUP_ROWS = 1024
"""Units of the next stream may be small, and read no more than they must."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Barrier:
    """The reduce before a stream: which step it was, and its decisions."""

    step: Step
    decisions: str


@dataclass(frozen=True)
class StreamJob:
    """Everything that a worker needs to run one segment's stream; travels to actors.

    Args:
        work: the work folder.
        segment: which stream.
        columns_in: data columns of the rows that come in (before the barrier's).
        barrier: the reduce before; None for the first segment.
        flow_in: the previous segment's rows; None for the first segment.
        flow_out: where this segment's rows go.
        folders: step id → folder of its results.
        slots: child processes of an isolated operator at most, in one worker.
        keep_originals: stage the first media of the stream too.
        removed: table of uids that must not come back, or None.
        shares: step id → the part of the run's work that one worker does; 1 where it is not said.
    """

    work: Storage
    segment: Segment
    columns_in: tuple[Column, ...]
    barrier: Barrier | None
    flow_in: Flow | None
    flow_out: Flow
    folders: dict[str, str]
    slots: int = 1
    keep_originals: bool = False
    removed: str | None = None
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def staged_steps(self) -> set[str]:
        """Ids of the steps whose media is staged."""
        makers = [s.id for s in self.segment.stream if any(c.name == "media" for c in s.operator.produces)]
        return {makers[-1], *(makers[:1] if self.keep_originals else ())} if makers else set()


@dataclass(frozen=True)
class InFlight:
    """Rows of a unit on their way from one stage's workers to the next: alive with their media, dead ones apart."""

    live: list[pa.Table]
    done: list[pa.Table]
    stats: dict[str, StepStats] = field(default_factory=dict)


class StreamWorker:
    """Runs units through a stage: consecutive steps of a stream that share resources. Thread-safe.

    Args:
        job: the stream.
        steps: the stage's steps, a run of the stream's.
    """

    def __init__(self, job: StreamJob, steps: Sequence[Step]) -> None:
        self.job = job
        stream = job.segment.stream
        for step in stream:
            step.operator.share = job.shares.get(step.id, 1.0)
        start = stream.index(steps[0]) if steps else 0
        self.first = start == 0
        self.last = start + len(steps) == len(stream)
        staged = job.staged_steps
        # later stages' steps are here to be walked through alone: they tell which rows have their bytes read
        ahead = stream[start:]
        self._ahead_runners = [_runner(step, job.slots, staged) for step in ahead]
        self._runners = self._ahead_runners[: len(steps)]
        self._stores = {
            s.id: Store(job.work, job.folders[s.id], s.operator.produces)
            for s in ahead
            if isinstance(s.operator, Annotate) and s.operator.stored
        }
        # children are not counted in rows of the unit
        is_plain = bool(steps) and not any(s.operator.kind == "split" for s in stream)
        self._last_id = steps[-1].id if is_plain else ""
        self._staged = [s.id for s in steps if s.id in staged]
        self._decisions = Ranged(job.work, job.barrier.decisions, ROOT.name) if job.barrier is not None else None
        self._removed: pa.Array | None = None
        self._lock = threading.Lock()
        self._in_hand: dict[str, UnitContext] = {}
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None

    def close(self) -> None:
        """End what the operators hold."""
        self._closing.set()
        for runner in self._ahead_runners:
            runner.close()

    def run(self, unit: Unit) -> dict[str, Any]:
        """Run a unit from its start to its published end; returns a summary that JSON can carry."""
        return self.finish(unit, self.advance(unit, None))

    def so_far(self) -> list[dict[str, Any]]:
        """Summaries of the units in hand, as finish() gives them, but not done."""
        return [self._so_far(context) for context in list(self._in_hand.values())]

    def _so_far(self, context: UnitContext) -> dict[str, Any]:
        # a copy in one step: the unit's thread goes on
        stats = dict(context.stats)
        through = stats.get(self._last_id, StepStats()).rows_out
        rows = min(context.unit.rows, through + sum(t.num_rows for t in list(context.done))) if self._last_id else 0
        plain = {step: asdict(count) for step, count in stats.items()}
        return {"unit": context.unit.name, "rows": rows, "live": 0, "stats": plain, "is_done": False}

    def advance(self, unit: Unit, before: InFlight | None) -> InFlight:
        """Run a unit through this stage and publish its results."""
        context = UnitContext(unit, self.job.work, self._stores)
        context.bins = {s: MediaBin(self.job.folders[s].replace("results/", "media/", 1), unit) for s in self._staged}
        self._keep(context)
        try:
            return self._advance(context, before)
        finally:
            del self._in_hand[unit.name]

    def _advance(self, context: UnitContext, before: InFlight | None) -> InFlight:
        started = time.perf_counter()
        unit = context.unit
        tables: Iterable[pa.Table] = self._load(unit, context) if before is None else before.live
        for position, runner in enumerate(self._runners):
            tables = runner.apply(tables, context, self._ahead(position + 1))
        live = list(tables)
        if self.last:
            live = [self._without_removed(without_media(table), context) for table in live]
        context.flush()
        context.count("").time_s += time.perf_counter() - started
        if before is None:
            return InFlight(live, context.done, context.stats)
        return InFlight(live, before.done + context.done, {**before.stats, **context.stats})

    def _keep(self, context: UnitContext) -> None:
        """Have what a unit has ready published in time, whatever its own thread waits for."""
        self._in_hand[context.unit.name] = context
        with self._lock:
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep_on, name="corpusmith-keeper", daemon=True)
                self._keeper.start()

    def _keep_on(self) -> None:
        while not self._closing.wait(KEEP_EVERY_S):
            for context in list(self._in_hand.values()):
                try:
                    context.flush_if_due()
                except (UserError, OSError) as error:
                    # it still waits: the unit's own thread publishes it, or fails with the same error
                    _log.warning("results of unit %s are not published yet: %s", context.unit.name, error)

    def finish(self, unit: Unit, rows: InFlight) -> dict[str, Any]:
        """Write the unit's rows."""
        schema = self.job.segment.schema
        tables = [conform(t, schema) for t in (*rows.live, *rows.done)]
        table = pa.concat_tables([schema.empty_table(), *tables])
        table = table.sort_by([(ROOT.name, "ascending"), (UID.name, "ascending")])
        self.job.work.publish_table(self.job.flow_out.path(unit), table, row_group_rows=FLOW_ROW_GROUP_ROWS)
        live = sum(t.num_rows for t in rows.live)
        stats = {step: asdict(count) for step, count in rows.stats.items()}
        return {"unit": unit.name, "rows": unit.rows, "live": live, "stats": stats, "is_done": True}

    def _load(self, unit: Unit, context: UnitContext) -> list[pa.Table]:
        job = self.job
        if job.flow_in is None:
            with job.work.parquet(unit.source) as parquet:
                table = parquet.read_row_groups(range(unit.row_group, unit.row_group + unit.row_groups))
            table = with_column(table, ROOT.name, table.column(UID.name))
        else:
            table = job.flow_in.read(job.work, unit)
            table = table.filter(pc.is_null(table.column(FATE.name)))
        table = conform(table, flow_schema(job.columns_in))
        table = self._without_removed(table, context)
        dead = pc.is_valid(table.column(FATE.name))
        bad = table.filter(dead)
        if bad.num_rows:
            steps = bad.column(FATE_STEP.name).to_pylist()
            reasons, errors = bad.column(FATE_REASON.name).to_pylist(), bad.column(FATE_ERROR.name).to_pylist()
            context.end(bad, steps[0], Fate.FAILED, reasons, errors)
        table = table.filter(pc.invert(dead))
        if job.barrier is not None and table.num_rows:
            table = self._pass_barrier(table, unit, job.barrier, context)
        return [table] if table.num_rows else []

    def _without_removed(self, table: pa.Table, context: UnitContext) -> pa.Table:
        if self.job.removed is None:
            return table
        with self._lock:
            if self._removed is None:
                self._removed = self.job.work.read_table(self.job.removed).column(UID.name).combine_chunks()
        gone = pc.is_in(table.column(UID.name), value_set=self._removed)
        rows = table.filter(gone)
        context.end(rows, REMOVE_STEP, Fate.REJECTED, [REMOVED_REASON] * rows.num_rows, [None] * rows.num_rows)
        return table.filter(pc.invert(gone))

    def _pass_barrier(self, table: pa.Table, unit: Unit, barrier: Barrier, context: UnitContext) -> pa.Table:
        """Apply the decisions of the reduce before this stream."""
        assert self._decisions is not None
        decisions = self._decisions.read(unit.low, unit.high)
        positions = pc.index_in(table.column(UID.name), value_set=decisions.column(UID.name).combine_chunks())
        if positions.null_count:
            raise OperatorContractError(f"reduce {barrier.step.id!r} gave {positions.null_count} rows no decision")
        decisions = decisions.take(positions)
        for column in barrier.step.operator.produces:
            table = with_column(table, column.name, pc.cast(decisions.column(column.name), column.type))
        fates, ending = decisions.column("fate"), [Fate.REJECTED, Fate.FAILED]
        if barrier.step.mark is not None:
            ending.remove(Fate.REJECTED)
            table = with_column(table, barrier.step.mark, pc.is_null(fates))
        count = context.count(barrier.step.id)
        count.rows_in += table.num_rows
        for fate in ending:
            mask = pc.fill_null(pc.equal(fates, fate.value), False)
            reasons = decisions.column("reason").filter(mask).to_pylist()
            context.end(
                table.filter(mask), barrier.step.id, fate, reasons, decisions.column("error").filter(mask).to_pylist()
            )
        is_ended = pc.is_in(fates, value_set=pa.array([fate.value for fate in ending]))
        table = table.filter(pc.invert(is_ended))
        count.rows_out += table.num_rows
        return table

    def _ahead(self, position: int) -> Any:
        """How to tell which rows will have their bytes read by the steps from `position` on."""

        def walk(rows: pa.Table, unit: UnitContext) -> set[str]:
            needed: set[str] = set()
            for runner in self._ahead_runners[position:]:
                if not rows.num_rows:
                    break
                rows = runner.walk(rows, unit, needed)
            return needed

        return walk


def _runner(step: Step, slots: int, staged: set[str]) -> AnnotateRunner | SelectRunner | SplitRunner:
    if step.operator.kind == "select":
        return SelectRunner(step)
    if step.operator.kind == "split":
        return SplitRunner(step, slots=slots)
    return AnnotateRunner(step, slots=slots, staged=step.id in staged)
