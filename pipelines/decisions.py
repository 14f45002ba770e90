"""Decisions of a reduce on their way to storage: each beside its root uid, sorted by that, in bounded memory.

A reduce decides in an order of its own; the streams behind it read by ranges of root uids. So decisions are cut by the
head of their uid into parts that fit into memory, joined there with the rows' roots, and, where rows were split from
others, cut once more by the head of the root.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.pipelines.capture import OperatorContractError
from corpusmith.pipelines.units import conform
from corpusmith.schemas.columns import ROOT, UID

PART_ROWS = 1 << 19
"""Rows that are joined and sorted together; some 300 bytes each, a few times over."""
_HEAD_DIGITS = 4
_HEADS = 16**_HEAD_DIGITS
_ROOTS = pa.schema([pa.field(UID.name, pa.string()), pa.field(ROOT.name, pa.string())])


def settled(
    decisions: pa.RecordBatchReader, roots: Iterable[pa.Table], count: int, schema: pa.Schema, scratch_dir: str
) -> Iterator[pa.Table]:
    """Decisions with their root uid, sorted by root and uid.

    Args:
        decisions: one row for each uid, in any order.
        roots: tables of uid and root uid of all rows.
        count: of the rows.
        schema: that the decisions are brought into.
        scratch_dir: a local folder.

    Raises:
        OperatorContractError: some row has no decision, or some uid more than one.
    """
    parts = min(_HEADS, max(1, -(-count // PART_ROWS)))
    decided = _Parts(Path(scratch_dir) / "decided", schema, parts)
    known = _Parts(Path(scratch_dir) / "roots", _ROOTS, parts)
    is_plain = True
    with decided.filling():
        for batch in decisions:
            decided.add(conform(pa.Table.from_batches([batch]), schema), UID.name)
    with known.filling():
        for table in roots:
            known.add(table.select(_ROOTS.names).cast(_ROOTS), UID.name)
            is_plain &= bool(pc.all(pc.equal(table.column(UID.name), table.column(ROOT.name)), min_count=0).as_py())
    joined = (_joined(decided.table(part), known.table(part)) for part in range(parts))
    if is_plain:
        yield from map(_sorted, joined)
        return
    by_root = _Parts(Path(scratch_dir) / "by-root", schema.append(pa.field(ROOT.name, pa.string())), parts)
    with by_root.filling():
        for table in joined:
            by_root.add(table, ROOT.name)
    yield from (_sorted(by_root.table(part)) for part in range(parts))


def _joined(decisions: pa.Table, roots: pa.Table) -> pa.Table:
    positions = pc.index_in(roots.column(UID.name), value_set=decisions.column(UID.name).combine_chunks())
    if positions.null_count or decisions.num_rows != roots.num_rows:
        raise OperatorContractError(
            f"{decisions.num_rows} decisions for {roots.num_rows} rows, {positions.null_count} rows without one"
        )
    return decisions.take(positions).append_column(ROOT.name, roots.column(ROOT.name))


def _sorted(table: pa.Table) -> pa.Table:
    return table.sort_by([(ROOT.name, "ascending"), (UID.name, "ascending")])


class _Parts:
    """A table cut by the head of a uid: in memory where one part is enough, in files else."""

    def __init__(self, folder: Path, schema: pa.Schema, parts: int) -> None:
        self._folder, self._schema, self._parts = folder, schema, parts
        self._held: list[pa.Table] = []
        self._writers: list[pa.RecordBatchStreamWriter] = []

    def filling(self) -> ExitStack:
        """Open for `add`, within a `with`."""
        stack = ExitStack()
        if self._parts > 1:
            self._folder.mkdir()
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            for part in range(self._parts):
                sink = stack.enter_context(pa.OSFile(str(self._path(part)), "wb"))
                writer = pa.ipc.new_stream(sink, self._schema, options=options)
                self._writers.append(stack.enter_context(writer))
        return stack

    def add(self, table: pa.Table, key: str) -> None:
        """Sort rows into the parts by the head of their `key`."""
        if self._parts == 1:
            self._held.append(table)
            return
        places = _heads(table.column(key)) * self._parts // _HEADS
        order = np.argsort(places, kind="stable")
        table = table.take(pa.array(order))
        ends = np.cumsum(np.bincount(places, minlength=self._parts)).tolist()
        for writer, start, end in zip(self._writers, [0, *ends], ends, strict=False):
            if end > start:
                writer.write_table(table.slice(start, end - start))

    def table(self, part: int) -> pa.Table:
        """All rows of a part; its file is gone then."""
        if self._parts == 1:
            return pa.concat_tables([self._schema.empty_table(), *self._held])
        with pa.ipc.open_stream(self._path(part)) as reader:
            table = reader.read_all()
        self._path(part).unlink()
        return table

    def _path(self, part: int) -> Path:
        return self._folder / f"{part:05d}.arrow"


def _heads(uids: pa.ChunkedArray) -> np.ndarray:
    """The number that each uid begins with, (N,) int64; 0 for what is no uid."""
    heads = pc.utf8_slice_codeunits(uids, 0, _HEAD_DIGITS).combine_chunks().dictionary_encode()
    numbers = np.array([_number(head) for head in heads.dictionary.to_pylist()], np.int64)
    return numbers[heads.indices.to_numpy(zero_copy_only=False)]


def _number(head: str) -> int:
    try:
        return int(head, 16)
    except ValueError:
        return 0
