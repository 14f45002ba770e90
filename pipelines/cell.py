"""Cells: child processes in which native decoders may crash or hang without harm.

A crash takes a whole process, and a hung native call cannot be interrupted from inside. So an isolated operator works
in a child that can be lost. What a lost child was working on is tried again in smaller groups until each culprit has
died alone in a fresh child; everybody else's results are as if the culprits had not been there.

Children are new programs, never forks: threads and servers live in the parent. Nothing that a child sends is unpickled.
"""

from __future__ import annotations

import os
import queue
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import pyarrow as pa

from corpusmith.operators.contract import Annotate, AnnotateRows, Children, Operator, Part, Split
from corpusmith.pipelines.capture import (
    OperatorContractError,
    failed_children,
    failed_part,
    halves,
    merged_children,
    placed,
    take_rows,
)
from corpusmith.pipelines.cell_process import Answer, ChildProcess, Death
from corpusmith.pipelines.cell_worker import stream_of
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import RowError

SETUP_TIMEOUT_S = 600.0
START_ATTEMPTS = 2

_PICKLING = threading.Lock()


class Cell:
    """One child process that holds one operator; started when first needed, and again after each death.

    Args:
        operator: whose `row_timeout_s` is the time without progress after which the child is killed.
        pickled: the same, from pickled_by_value().
        lean: the child keeps pyarrow from loading pandas; see IsolatedOperator.
    """

    def __init__(self, operator: Operator, pickled: bytes, *, lean: bool = False) -> None:
        self._operator = operator
        self._pickled = pickled
        self._lean = lean
        self._child: ChildProcess | None = None
        self.answered = 0
        """Batches that the present child has answered."""
        self.busy_s = 0.0
        """Seconds that children spent inside process()."""

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while there is none."""
        child = self._child
        return child.pid if child is not None else None

    def start(self) -> None:
        """Make sure that a child is there and has set its operator up.

        Raises:
            UserError: from setup(), or because the child was lost in setup() in each attempt.
        """
        detail, tail = "", ""
        for _ in range(START_ATTEMPTS):
            if self._child is not None:
                return
            self._child = ChildProcess()
            self.answered = 0
            header = {"python_path": os.environ.get("PYTHONPATH"), "lean": self._lean}
            outcome = self._child.exchange(header, memoryview(self._pickled), SETUP_TIMEOUT_S)
            if isinstance(outcome, Answer) and "ready" in outcome.header:
                return
            tail = self._end()
            if isinstance(outcome, Answer):
                raise UserError(**outcome.header["user_error"])
            detail = outcome.detail
        what = f"operator {self._operator.name!r} cannot start: {detail} in setup()"
        raise UserError(what, hint=tail or "it wrote nothing to stderr")

    def ask(self, batch: pa.Table) -> Answer | Death:
        """Let the child process a batch; start() comes first.

        Raises:
            OperatorContractError: the operator broke its contract. The child lives on.
        """
        assert self._child is not None, "start() comes first"
        outcome = self._child.exchange({}, stream_of(batch), self._operator.row_timeout_s)
        if isinstance(outcome, Death):
            self._end()
            return outcome
        self.answered += 1
        self.busy_s += outcome.header["busy_s"]
        if "violation" in outcome.header:
            raise OperatorContractError(outcome.header["violation"])
        return outcome

    def interrupt(self) -> None:
        """Kill the child under the thread that waits for it; any thread may call this."""
        child = self._child
        if child is not None:
            child.interrupt()

    def close(self) -> None:
        """End the child, if there is one."""
        self._end(gently=True)

    def _end(self, *, gently: bool = False) -> str:
        child, self._child = self._child, None
        return child.end(gently=gently) if child is not None else ""


class IsolatedOperator:
    """Runs an operator's work in child processes; deaths and hangs cost only the rows that cause them. Thread-safe.

    Args:
        operator: an Annotate or a Split; its setup() and close() are called in the children alone.
        slots: children at most; threads beyond that wait for a free one.
        lean: start children sooner, without pandas in pyarrow: only for operators that never convert from or to it.
    """

    def __init__(self, operator: Operator, *, slots: int = 1, lean: bool = False) -> None:
        self.operator = operator
        self.slots = slots
        self._lean = lean
        self._lock = threading.Lock()
        self._cells: list[Cell] = []
        self._free: queue.LifoQueue[Cell] = queue.LifoQueue()
        self._closed = False

    @property
    def busy_s(self) -> float:
        """Seconds that children spent inside process(), without pipes; unknown for batches that killed one."""
        return sum(cell.busy_s for cell in self._cells)

    @property
    def pids(self) -> list[int]:
        """Process ids of the children."""
        return [pid for cell in self._cells if (pid := cell.pid) is not None]

    def start_one(self) -> None:
        """Start a child ahead of its first batch, unless none is free; threads that call this at once start one each.

        Raises:
            UserError: the operator cannot be set up.
        """
        cell = self._take_cell()
        try:
            self._start(cell)
        finally:
            self._free.put(cell)

    def process(self, batch: pa.Table) -> list[Part] | Children:
        """Process a batch; see capture.process_captured().

        Raises:
            OperatorContractError: the operator broke its contract.
            UserError: the operator cannot be set up.
        """
        cell = self._take_cell()
        try:
            pieces = self._pieces(cell, batch)
        finally:
            self._free.put(cell)
        if isinstance(self.operator, Split):
            return merged_children(self.operator, pieces)
        return [placed(part, rows) for rows, parts in pieces for part in parts]

    def _take_cell(self) -> Cell:
        with self._lock:
            if not self._cells and not self._closed:
                pickled = pickled_by_value(self.operator, [self.operator])
                self._cells = [Cell(self.operator, pickled, lean=self._lean) for _ in range(self.slots)]
                for cell in self._cells:
                    self._free.put(cell)
        self._check_open()
        return self._free.get()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"operator {self.operator.name!r} is closed")

    def _pieces(self, cell: Cell, batch: pa.Table) -> list[tuple[list[int], Any]]:
        """Outcomes for groups of rows that together are the batch; each row is tried a logarithmic number of times."""
        pieces: list[tuple[list[int], Any]] = []
        waiting = [list(range(batch.num_rows))]
        while waiting:
            rows = waiting.pop()
            if not rows:
                continue
            self._start(cell)
            is_fresh = cell.answered == 0
            outcome = cell.ask(take_rows(batch, rows))
            if isinstance(outcome, Answer):
                pieces.append((rows, _outcome(self.operator, outcome)))
            elif len(rows) == 1 and is_fresh:
                self._check_open()
                pieces.append((rows, _failed(self.operator, outcome.row_error())))
            else:
                was_idle = outcome.row < 0 and not is_fresh
                waiting += [rows] if was_idle else reversed(self._smaller_groups(rows, outcome))
        return pieces

    def _start(self, cell: Cell) -> None:
        self._check_open()
        try:
            cell.start()
        except UserError:
            self._check_open()
            raise

    def _smaller_groups(self, rows: list[int], death: Death) -> list[list[int]]:
        """What to try next: the announced row alone, then the others in halves."""
        if len(rows) == 1:
            return [rows]
        if not isinstance(self.operator, AnnotateRows) or not 0 <= death.row < len(rows):
            return halves(rows)
        suspect = rows[death.row]
        return [[suspect], *halves([row for row in rows if row != suspect])]

    def close(self) -> None:
        """End all children, those at work too, whose process() then raises RuntimeError; may be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            closed: list[Cell] = []
            patience_s = 0.0
            while len(closed) < len(self._cells):
                try:
                    cell = self._free.get(timeout=patience_s)
                except queue.Empty:
                    patience_s = 0.1
                    for cell in self._cells:
                        cell.interrupt()
                    continue
                cell.close()
                closed.append(cell)
            for cell in closed:
                self._free.put(cell)  # for threads that wait for one: they find out that it is over


def pickled_by_value(value: Any, operators: Iterable[Operator]) -> bytes:
    """A value that holds operators as bytes that another process can load, wherever their classes were defined.

    Classes of modules that are not installed (scripts, notebooks, tests) travel by value.
    """
    with by_value(cloudpickle, defining_modules(*(part for o in operators for part in (o, o.config)))):
        return cloudpickle.dumps(value)


@contextmanager
def by_value(pickler: Any, modules: Iterable[ModuleType]) -> Iterator[None]:
    """Let a cloudpickle take what is defined in modules that are not installed along, and not their names."""
    with _PICKLING:
        already = pickler.list_registry_pickle_by_value()
        chosen = {m for m in modules if not _is_installed(m) and m.__name__ not in already}
        for module in chosen:
            pickler.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in chosen:
                pickler.unregister_pickle_by_value(module)


def defining_modules(*values: Any) -> set[ModuleType]:
    """The modules in which the classes of values are defined, and what these are made of."""
    classes = {cls for value in values for cls in type(value).__mro__}
    return {sys.modules[cls.__module__] for cls in classes if cls.__module__ in sys.modules}


def _is_installed(module: ModuleType) -> bool:
    if module.__name__.partition(".")[0] == "corpusmith" or module.__name__ in sys.builtin_module_names:
        return True
    file = getattr(module, "__file__", None)
    folders = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return file is not None and any(Path(file).is_relative_to(folder) for folder in folders)


def _outcome(operator: Operator, answer: Answer) -> list[Part] | Children:
    header, table = answer.header, answer.table()
    if isinstance(operator, Split):
        return Children(header["parents"], header["keys"], _columns(table), _errors(header))
    parts, start = [], 0
    for part in header["parts"]:
        columns = _columns(table.slice(start, len(part["rows"])))
        parts.append(Part(columns, _errors(part), rows=part["rows"]))
        start += len(part["rows"])
    return parts


def _columns(table: pa.Table) -> dict[str, pa.Array | pa.ChunkedArray]:
    return {name: table.column(name).combine_chunks() for name in table.column_names}


def _errors(header: dict[str, Any]) -> dict[int, RowError]:
    return {int(position): RowError(*error) for position, error in header["errors"].items()}


def _failed(operator: Operator, error: RowError) -> list[Part] | Children:
    if isinstance(operator, Split):
        return failed_children(operator, error)
    assert isinstance(operator, Annotate)
    return [failed_part(operator, [0], error)]
