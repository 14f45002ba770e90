"""Units: the pieces of work of a stream, and what travels with one while a worker has it in hand."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.sources.references import Reference, is_outside, parse
from corpusmith.pipelines.buckets import Bucket
from corpusmith.pipelines.outside import read_outside
from corpusmith.pipelines.state import Results, Store
from corpusmith.pipelines.storage import Storage
from corpusmith.schemas.columns import (
    FATE,
    FATE_CHILDREN,
    FATE_ERROR,
    FATE_REASON,
    FATE_STEP,
    MEDIA,
    MEDIA_REF,
)
from corpusmith.schemas.fates import Fate

FLUSH_EVERY_S = 3.0
"""Results wait no longer than this for their publication: what a kill can cost."""


ERROR_CLASSES = 100
OTHER_ERRORS = "other errors"


@dataclass(frozen=True)
class Unit:
    """A run of source rows that is worked on as one task, in every segment.

    Args:
        name: bucket and number; names the unit's files.
        bucket: the bucket of all its rows.
        low, high: first and last root uid.
        source: path of the source table, below the work folder.
        row_group: where in it.
        rows: number of source rows.
        row_groups: how many of the table's row groups they are, from that one on.
    """

    name: str
    bucket: Bucket
    low: str
    high: str
    source: str
    row_group: int
    rows: int
    row_groups: int = 1

    def to_json(self) -> str:
        """The unit as text."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Unit:
        """The inverse of to_json."""
        plain = json.loads(text)
        return Unit(**{**plain, "bucket": Bucket(**plain["bucket"])})


@dataclass
class StepStats:
    """What one step did, in rows; times are summed over workers.

    `errors` counts the failures of computed rows by the error's class, those of a step whose errors are null included.
    """

    rows_in: int = 0
    rows_out: int = 0
    rejected: int = 0
    failed: int = 0
    split: int = 0
    made: int = 0
    computed: int = 0
    reused: int = 0
    nulled: int = 0
    time_s: float = 0.0
    bytes: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    def add(self, other: StepStats) -> None:
        """Add another's counts."""
        for name, value in asdict(other).items():
            if name != "errors":
                setattr(self, name, getattr(self, name) + value)
        for error, number in other.errors.items():
            self._count_error(error, number)

    def since(self, earlier: StepStats) -> StepStats:
        """What came after an earlier look at the same counts."""
        before = asdict(earlier)
        numbers = {n: max(0, v - before[n]) for n, v in asdict(self).items() if n != "errors"}
        return StepStats(**numbers, errors=dict(Counter(self.errors) - Counter(earlier.errors)))

    def count_errors(self, classes: Iterable[str]) -> None:
        """Count failures by their classes."""
        for error, number in Counter(classes).items():
            self._count_error(error, number)

    def _count_error(self, error: str, number: int) -> None:
        """Count under its own name, unless a step makes up classes without end."""
        is_known = error in self.errors or len(self.errors) < ERROR_CLASSES
        name = error if is_known else OTHER_ERRORS
        self.errors[name] = self.errors.get(name, 0) + number


def decode_stats(plain: dict[str, dict[str, Any]]) -> dict[str, StepStats]:
    """Stats by step from their JSON form."""
    return {step: StepStats(**values) for step, values in plain.items()}


class MediaBin:
    """Media of one unit on its way to staging: bytes appended, references handed out, published in one piece."""

    def __init__(self, folder: str, unit: Unit) -> None:
        self._folder = folder
        self._unit = unit
        self._start()

    def _start(self) -> None:
        self.path = f"{self._folder}/{self._unit.name}-{secrets.token_hex(8)}.bin"
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, media: bytes) -> str:
        """Append; returns the reference."""
        reference = f"{self.path}#{self._size}:{len(media)}"
        self._parts.append(media)
        self._size += len(media)
        return reference

    def flush(self, storage: Storage) -> None:
        """Publish what was added since the last flush."""
        if self._parts:
            storage.publish(self.path, b"".join(self._parts))
            self._start()


def load_media(storage: Storage, references: Sequence[str | None]) -> list[bytes | None]:
    """Bytes of media, by range reads: of the work folder or, in place, of input files; None without a reference.

    Raises:
        UserError: an input file has changed since it was read in, or is gone.
    """
    staged: list[tuple[str, int, int]] = []
    outside: list[Reference] = []
    for reference in references:
        if reference is None:
            continue
        if is_outside(reference):
            outside.append(parse(reference))
        else:
            path, _, span = reference.rpartition("#")
            offset, _, size = span.partition(":")
            staged.append((path, int(offset), int(size)))
    loaded = {False: iter(storage.read_spans(staged)), True: iter(read_outside(outside))}
    return [None if reference is None else next(loaded[is_outside(reference)]) for reference in references]


@dataclass
class UnitContext:
    """A unit in a worker's hand: rows that are done with, results not yet published, counts.

    One thread works on it; another may publish what waits.
    """

    unit: Unit
    storage: Storage
    stores: dict[str, Store]
    done: list[pa.Table] = field(default_factory=list)
    stats: dict[str, StepStats] = field(default_factory=dict)
    bins: dict[str, MediaBin] = field(default_factory=dict)
    _prior: dict[str, Results] = field(default_factory=dict)
    _pending: dict[str, list[pa.Table]] = field(default_factory=dict)
    _flushed_at: float = field(default_factory=time.monotonic)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def prior(self, step_id: str) -> Results:
        """Published results of a step for the unit's rows."""
        if step_id not in self._prior:
            store = self.stores[step_id]
            self._prior[step_id] = store.results(self.unit.bucket, self.unit.low, self.unit.high)
        return self._prior[step_id]

    def count(self, step_id: str) -> StepStats:
        """The counts of a step, to be added to."""
        return self.stats.setdefault(step_id, StepStats())

    def add_results(self, step_id: str, results: pa.Table) -> None:
        """Queue results for publication; publishes all that wait when it is time."""
        with self._lock:
            if results.num_rows:
                self._pending.setdefault(step_id, []).append(results)
            self.flush_if_due()

    def stage(self, step_id: str, media: Sequence[bytes | None]) -> list[str | None]:
        """Queue media that a step has made for staging; returns the references."""
        with self._lock:
            media_bin = self.bins[step_id]
            return [None if m is None else media_bin.add(m) for m in media]

    def flush_if_due(self) -> None:
        """Publish what waits, if the last time is long enough ago."""
        if time.monotonic() - self._flushed_at > FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Publish what waits: media first, then results, the last step's first.

        A result that refers to media is never visible before it, and a download is not visible as finished before what
        was made of it.
        """
        with self._lock:
            for media_bin in self.bins.values():
                media_bin.flush(self.storage)
            for step_id in reversed(list(self.stores)):
                if tables := self._pending.get(step_id):
                    self.stores[step_id].publish(self.unit.bucket, pa.concat_tables(tables))
                    # only now: what could not be published still waits
                    del self._pending[step_id]
            self._flushed_at = time.monotonic()

    def end(
        self, rows: pa.Table, step_id: str, fate: Fate, reasons: Sequence[str | None], errors: Sequence[str | None]
    ) -> None:
        """Give rows their fate."""
        if not rows.num_rows:
            return
        count = self.count(step_id)
        setattr(count, fate.value, getattr(count, fate.value) + rows.num_rows)
        rows = with_column(rows, FATE.name, pa.array([fate.value] * rows.num_rows, pa.string()))
        rows = with_column(rows, FATE_STEP.name, pa.array([step_id] * rows.num_rows, pa.string()))
        rows = with_column(rows, FATE_REASON.name, pa.array(reasons, pa.string()))
        rows = with_column(rows, FATE_ERROR.name, pa.array(errors, pa.string()))
        self.done.append(without_media(rows))

    def end_split(self, rows: pa.Table, step_id: str, children: Sequence[int]) -> None:
        """Mark rows as split into so many children each."""
        rows = with_column(rows, FATE_CHILDREN.name, pa.array(children, pa.int64()))
        self.end(rows, step_id, Fate.SPLIT, [None] * rows.num_rows, [None] * rows.num_rows)


def with_column(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table with a column set or replaced."""
    index = table.schema.get_field_index(name)
    if index < 0:
        return table.append_column(name, values)
    return table.set_column(index, name, values)


def without_media(table: pa.Table) -> pa.Table:
    """The table without bytes in memory."""
    return table.drop_columns([MEDIA.name]) if MEDIA.name in table.schema.names else table


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns of `schema`: others dropped, missing ones null.

    A row that ended before the step that makes a column may still carry the input's column of that name; where that
    one's values cannot be of the type, they are left out.
    """
    columns = []
    for f in schema:
        column = table.column(f.name) if f.name in table.schema.names else None
        columns.append(pa.nulls(table.num_rows, f.type) if column is None else _as_type(column, f.type))
    return pa.table(columns, schema=schema)


def _as_type(column: pa.ChunkedArray, type: pa.DataType) -> pa.ChunkedArray | pa.Array:
    if column.type == type:
        return column
    try:
        return pc.cast(column, type)
    except pa.ArrowException:
        return pa.nulls(len(column), type)


def with_media(table: pa.Table, storage: Storage) -> pa.Table:
    """The table with the bytes of staged media in memory, where they are not yet."""
    references = table.column(MEDIA_REF.name).to_pylist()
    if MEDIA.name in table.schema.names:
        present = pc.is_valid(table.column(MEDIA.name)).to_pylist()
        if all(here or reference is None for here, reference in zip(present, references, strict=True)):
            return table
        held = table.column(MEDIA.name).to_pylist()
    else:
        held = [None] * table.num_rows
    loaded = load_media(storage, [r if b is None else None for r, b in zip(references, held, strict=True)])
    media = [b if b is not None else new for b, new in zip(held, loaded, strict=True)]
    return with_column(table, MEDIA.name, pa.array(media, MEDIA.type))
