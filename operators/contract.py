"""The operator contract: what an operator is, by the shape of what it does.

An operator is a small class: a frozen `Config` (its YAML parameters), the columns that it requires and produces, its
resources, `setup()` and one method that does the work. Constructors do no I/O. Validation, timing, per-row error
capture and the routing of fates happen in `corpusmith.pipelines`, where no subclass can override them.

Purity: an annotation is a function of the columns that it requires (and of the seed, if `seeded`). Its results are
stored by that rule and reused by later runs, so an operator that reads anything else must not be stored.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar, final

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from corpusmith.schemas.columns import RESERVED_NAMES, Column
from corpusmith.schemas.fates import RowError

Mapped = TypeVar("Mapped")

OPERATIONAL: dict[str, Any] = {"operational": True}
"""Marks a parameter that decides how work is done, not what comes of it: `Field(…, json_schema_extra=OPERATIONAL)`.

Time-outs, retries, sizes of pools. Changing one keeps all published results; failures are tried again by `retry`.
"""


class Config(BaseModel):
    """Parameters of an operator: frozen, typed, and closed to names that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def deciding(self) -> dict[str, Any]:
        """The parameters that decide results, JSON-able: all but the operational ones."""
        operational = {name for name, f in type(self).model_fields.items() if f.json_schema_extra == OPERATIONAL}
        return self.model_dump(mode="json", exclude=operational)


@dataclass(frozen=True)
class Resources:
    """What one worker of an operator holds while it works.

    Args:
        cpus: cores; GPUs: cards, fractions allowed.
        memory_bytes: memory that the scheduler should set aside, 0 for no claim.
        waits: the operator mostly waits for others (a network, a server), so many batches may be inside it at once.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int = 0
    waits: bool = False


@dataclass(frozen=True)
class Part:
    """Results for some rows of a batch.

    Args:
        columns: name → values, one for each row of the part, None where not known.
        errors: position within the part → why that row failed (its values are ignored).
        rows: positions of the part's rows within the batch; None for all rows in order.
    """

    columns: Mapping[str, Sequence[Any] | pa.Array | pa.ChunkedArray]
    errors: Mapping[int, RowError] = field(default_factory=dict)
    rows: Sequence[int] | None = None


@dataclass(frozen=True)
class Decision:
    """What a select decides.

    Args:
        keep: one boolean for each row.
        reasons: position → why the row is rejected: names column, value and bound. One for each row with keep = False.
        errors: position → why the row could not be decided.
    """

    keep: Sequence[bool] | pa.Array
    reasons: Mapping[int, str] = field(default_factory=dict)
    errors: Mapping[int, RowError] = field(default_factory=dict)


@dataclass(frozen=True)
class Children:
    """What a split makes of a batch: n rows, each with its parent.

    Args:
        parents: for each child the position of its parent in the batch.
        keys: for each child what tells it from its siblings (an integer-microsecond span, an index); part of its uid.
        columns: produced columns, one value for each child; other columns are inherited from the parent.
        errors: position in the batch → why that row could not be split.
    """

    parents: Sequence[int]
    keys: Sequence[str]
    columns: Mapping[str, Sequence[Any] | pa.Array]
    errors: Mapping[int, RowError] = field(default_factory=dict)


class Rows(Protocol):
    """The live rows that reach a reduce."""

    count: int
    seed: int
    scratch_dir: str
    """A local folder for spilling; removed afterwards."""

    def reader(self, columns: Sequence[str]) -> pa.RecordBatchReader:
        """Stream `uid` and the named required columns, in an order that means nothing."""
        ...

    def map(self, work: Callable[[pa.Table], Mapped], columns: Sequence[str]) -> Iterator[Mapped]:
        """Work on pieces of the rows in parallel: threads of this process, or workers of the cluster for large pools.

        Args:
            work: takes a table of `uid` and the columns, some thousands of rows; must be picklable, without effects,
                thread-safe, and should release the GIL where it spends its time.
            columns: required columns.

        Returns:
            The results, a piece each, as they come: their order means nothing and which rows make a piece neither.
        """
        ...


@dataclass(frozen=True)
class Reduced:
    """What a reduce decides over all rows.

    Args:
        decisions: one row for each input uid, in any order: `uid`; `fate` (null to go on, "rejected" or "failed"),
            `reason`, `error`; and the produced columns. A reader is consumed once, so that a large pool's decisions
            need not be held; it ends before the scratch folder does.
        summary: JSON-able facts for the report, which shows any: scalars, name → scalar, name → [before, after], name →
            facts, and lists of [name, before, after].
    """

    decisions: pa.Table | pa.RecordBatchReader
    summary: Mapping[str, Any] = field(default_factory=dict)


class Operator(ABC):
    """Base of all operators; subclass one of the kinds below.

    A subclass names itself in its class statement: `class Phash(Annotate, name="phash", version=1)`. Raise `version`
    when the same input gives another result: stored results of the old version are then no longer used.
    """

    kind: ClassVar[str]
    name: ClassVar[str] = ""
    version: ClassVar[int] = 0
    Config: ClassVar[type[Config]] = Config
    positional: ClassVar[str | None] = None
    """The parameter that a bare YAML value sets: `keep: "width > 200"`."""

    resources: ClassVar[Resources] = Resources()
    seeded: ClassVar[bool] = False
    """Whether `self.seed` takes part in the result."""
    stored: ClassVar[bool] = True
    """Whether results are kept for later runs; False for operators far faster than reading them back."""
    isolated: ClassVar[bool] = True
    """Whether the work runs in a child process, free to crash or hang; False for plain Arrow or asyncio code."""
    batch_rows: ClassVar[int] = 1024
    """Rows in a batch at most."""
    media_hash: ClassVar[str | None] = None
    """A produced column that holds the sha256 of the media that the operator makes, where it is known anyway."""
    row_timeout_s: ClassVar[float] = 120.0
    """An isolated operator that spends longer on one row is killed and the row fails."""

    share: float = 1.0
    """The part of the run's work that this worker does, set before setup(): limits of the run as a whole, such as a
    bandwidth, are multiplied by it."""

    def __init_subclass__(cls, name: str | None = None, version: int | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is None:
            return
        cls.name = name
        cls.version = version if version is not None else 1
        if not cls.__doc__:
            raise TypeError(f"operator {name!r} needs a docstring: its first line is its help")

    @final
    def __init__(self, config: Config | None = None, *, seed: int = 0) -> None:
        if not self.name or inspect.isabstract(type(self)):
            raise TypeError(f"{type(self).__name__} is not a complete operator: give it a name and its work method")
        self.config = config if config is not None else self.Config()
        self.seed = seed
        reserved = RESERVED_NAMES.intersection(column.name for column in self.produces)
        if reserved:
            raise TypeError(f"operator {self.name!r} produces reserved columns: {', '.join(sorted(reserved))}")

    @final
    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process: never what setup() took."""
        return {"config": self.config, "seed": self.seed}

    @property
    @abstractmethod
    def requires(self) -> tuple[str, ...]:
        """Names of the columns that the result depends on."""

    @property
    def produces(self) -> tuple[Column, ...]:
        """Columns that the operator adds or replaces."""
        return ()

    def missing(self) -> str | None:
        """What the operator needs and this environment lacks (a package, a model), and how to get it; None for nothing.

        Asked before a run starts; must be quick: look for packages and files, load nothing.
        """
        return None

    def setup(self) -> None:
        """Load models and open handles, once for each worker, before the first batch; heavy imports belong here."""

    def close(self) -> None:
        """Release what setup() took."""


class Annotate(Operator):
    """1 → 1, adds columns; pure in its required columns."""

    kind = "annotate"

    @abstractmethod
    def process(self, batch: pa.Table) -> Part | Iterator[Part]:
        """Annotate a batch.

        Args:
            batch: `uid` and the required columns, at most `batch_rows` rows.

        Returns:
            One Part for all rows, or parts as they become ready, which together hold each row once. An exception
            fails the rows that cause it: the batch is bisected to find them.
        """


class AnnotateRows(Annotate):
    """An annotate written for one row; an exception fails that row alone."""

    batch_rows = 64

    @abstractmethod
    def process_row(self, row: dict[str, Any]) -> Mapping[str, Any]:
        """Annotate one row.

        Args:
            row: `uid` and the required columns.

        Returns:
            Values of the produced columns.
        """

    @final
    def process(self, batch: pa.Table) -> Part:
        return self.process_announced(batch, lambda _: None)

    @final
    def process_announced(self, batch: pa.Table, announce: Any) -> Part:
        """As process(); calls `announce(i)` before row i, so that a killed worker's parent knows the culprit."""
        collected: list[Mapping[str, Any]] = []
        errors: dict[int, RowError] = {}
        for i, row in enumerate(_iter_rows(batch)):
            announce(i)
            try:
                collected.append(self.process_row(row))
            except Exception as exception:  # noqa: BLE001 - the row's fate tells it
                errors[i] = RowError.of(exception)
                collected.append({})
        columns = {c.name: [values.get(c.name) for values in collected] for c in self.produces}
        return Part(columns, errors)


class AnnotateAsync(Annotate):
    """An annotate that waits on a network: one coroutine a row, all batches of a worker in one sliding window.

    Finished rows leave in parts as they become ready, so that a slow row holds nobody else back.
    """

    resources = Resources(cpus=0.5, waits=True)
    isolated = False
    batch_rows = 256
    part_rows: ClassVar[int] = 32
    part_wait_s: ClassVar[float] = 0.5

    @property
    def window(self) -> int:
        """Rows in flight at most, over all batches of one worker."""
        return 64

    @abstractmethod
    async def process_row(self, row: dict[str, Any]) -> Mapping[str, Any]:
        """Annotate one row; see AnnotateRows.process_row."""

    async def open(self) -> None:
        """Open sessions, inside the event loop."""

    async def aclose(self) -> None:
        """Close what open() opened."""

    @final
    def setup(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"{self.name}-loop", daemon=True)
        self._thread.start()
        self._slots = asyncio.Semaphore(self.window)
        asyncio.run_coroutine_threadsafe(self.open(), self._loop).result()

    @final
    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end_all(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    @final
    def process(self, batch: pa.Table) -> Iterator[Part]:
        done: queue.SimpleQueue[tuple[int, Mapping[str, Any] | RowError]] = queue.SimpleQueue()
        for i, row in enumerate(_iter_rows(batch)):
            asyncio.run_coroutine_threadsafe(self._guarded(i, row, done), self._loop)
        waiting = batch.num_rows
        while waiting:
            ready = [done.get()]
            try:
                while len(ready) < min(self.part_rows, waiting):
                    ready.append(done.get(timeout=self.part_wait_s))
            except queue.Empty:
                pass  # the others are not ready yet: let these go on
            waiting -= len(ready)
            yield self._part(ready)

    async def _end_all(self) -> None:
        """Close, then end rows that still wait for a slot: whoever waits for them gets an answer."""
        await self.aclose()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _guarded(self, i: int, row: dict[str, Any], done: queue.SimpleQueue) -> None:
        try:
            async with self._slots:
                result: Mapping[str, Any] | RowError = await self.process_row(row)
        except Exception as exception:  # noqa: BLE001 - the row's fate tells it
            result = RowError.of(exception)
        except asyncio.CancelledError:
            done.put((i, RowError("cancelled", "the worker was closed")))
            raise
        done.put((i, result))

    def _part(self, ready: list[tuple[int, Mapping[str, Any] | RowError]]) -> Part:
        values = [result if not isinstance(result, RowError) else {} for _, result in ready]
        errors = {k: result for k, (_, result) in enumerate(ready) if isinstance(result, RowError)}
        columns = {c.name: [v.get(c.name) for v in values] for c in self.produces}
        return Part(columns, errors, rows=[i for i, _ in ready])


class Split(Operator):
    """1 → n; children name their parent."""

    kind = "split"
    stored = False

    @abstractmethod
    def process(self, batch: pa.Table) -> Children:
        """Split each row of a batch (`uid` and the required columns) into its children."""


class Select(Operator):
    """A cheap decision over one row's columns; never stored, computed again on each run."""

    kind = "select"
    stored = False
    isolated = False
    batch_rows = 16384

    @abstractmethod
    def decide(self, batch: pa.Table) -> Decision:
        """Decide over a batch of `uid` and the required columns."""


class Reduce(Operator):
    """Needs many rows; keeps, drops, or adds columns."""

    kind = "reduce"
    isolated = False

    @abstractmethod
    def reduce(self, rows: Rows) -> Reduced:
        """Decide over all live rows. The result must not depend on their order."""


class Write(Operator):
    """The end of a recipe: turns one slice of the kept rows into the files of one shard."""

    kind = "write"
    stored = False
    isolated = False

    @abstractmethod
    def write_shard(self, index: int, rows: pa.Table, media: Iterator[bytes | None], folder: str) -> list[str]:
        """Write the files of shard `index` into the local `folder`.

        Args:
            index: position of the shard, from 0.
            rows: the shard's samples in their final order.
            media: bytes of each sample, in the same order; None for a sample without media.
            folder: an existing local folder of this shard's own.

        Returns:
            Names of the files in publishing order: what a reader waits for comes last. Bytes depend on the
            arguments alone.
        """


def _iter_rows(batch: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows as dicts, media as bytes, one record batch at a time."""
    for piece in batch.to_batches():
        yield from piece.to_pylist()
