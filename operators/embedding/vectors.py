"""Embedding columns as matrices of unit vectors: what a usable embedding is, and a pool of them on disk.

A usable embedding is a list of finite floats, not all of them zero, of the pool's dimension: the one that most of its
rows have (of two that are as frequent, the larger). All else fails its own row: `missing COLUMN` where there is no
list, `malformed COLUMN` with what is wrong of it. Lengths are made 1 and values are kept as 16-bit floats, which is
what encoders' embeddings are stored as and moves a cosine by less than 0.001.

So stored, vectors have exact dot products: the product of two 16-bit floats of at most 1 is a multiple of 2^-48, and a
sum of such products that stays below 2 fits the 53 bits of a double whatever the order of its terms. So `dots` is the
same number in any library and on any number of threads, and decisions at a threshold can rest on it.

Memory: N x d x 2 bytes on disk (twice that while they are sorted), mapped into memory, which the system takes back when
it needs it; some tens of megabytes of blocks; about 150 bytes a row while they are sorted, 60 afterwards.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numpy.lib.stride_tricks import sliding_window_view

from corpusmith.operators.contract import Rows
from corpusmith.schemas.columns import UID
from corpusmith.schemas.errors import UserError

BLOCK_BYTES = 1 << 22
"""Of vectors at work at a time, as 32-bit floats."""
MISSING, NOT_FINITE, ZERO = -1, -2, -3
"""In place of the length of a list that is no vector."""

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Halves = npt.NDArray[np.float16]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of a pool of N rows, M of them usable.

    Args:
        rows: (N,) table of `uid` (large strings) and the columns asked for, sorted by uid.
        errors: (N,) strings: why a row has no vector, or null.
        details: (N,) strings: what else to say of that, or null.
        live: (M,) positions in `rows` of the rows that have a vector, ascending.
        vectors: (M, d) unit vectors, in the order of `live`; a file of the scratch folder, mapped into memory.
    """

    rows: pa.Table
    errors: pa.Array
    details: pa.Array
    live: Ints
    vectors: Halves

    @property
    def dimension(self) -> int:
        """d; 0 where no row has a vector."""
        return self.vectors.shape[1]


def load(rows: Rows, column: str, *, columns: Sequence[str] = ()) -> Embeddings:
    """The embeddings of a reduce's rows, sorted by uid: the same whatever the order in which they come.

    Args:
        rows: of the reduce; `column` and `columns` are among its required ones.
        column: holds the embeddings.
        columns: others to keep beside the uid.

    Raises:
        UserError: the column's type is no list of floats.
    """
    reader = rows.reader(list(dict.fromkeys([column, *columns])))
    check_type(reader.schema.field(column).type, column)
    return gathered(reader, column, rows.scratch_dir, schema=reader.schema, columns=columns)


def gathered(
    batches: Iterable[pa.RecordBatch],
    column: str,
    scratch_dir: str,
    *,
    schema: pa.Schema,
    columns: Sequence[str] = (),
    by: Sequence[str] = (UID.name,),
    dimension: int | None = None,
) -> Embeddings:
    """As `load`, from any batches of `uid`, `column` and `columns`; the column may be of another type in each.

    Args:
        batches: in any order.
        column: holds the embeddings.
        scratch_dir: local folder for the vectors.
        schema: of the batches, `column` left out or not.
        columns: to keep.
        by: columns to sort by, which together tell all rows apart.
        dimension: that is usable; the most frequent one by default.
    """
    kept = list(dict.fromkeys([UID.name, *(name for name in columns if name != column)]))
    parts: list[pa.RecordBatch] = []
    lengths: list[Ints] = [np.zeros(0, np.int64)]
    with tempfile.TemporaryFile(dir=scratch_dir) as spool:
        for batch in batches:
            check_type(batch.column(column).type, column)
            values, found = units(batch.column(column))
            spool.write(values.astype(np.float16).data)
            lengths.append(found)
            parts.append(batch.select(kept))
        table = pa.Table.from_batches(parts, pa.schema([schema.field(name) for name in kept]))
        table = table.set_column(0, UID.name, table.column(UID.name).cast(pa.large_string()))
        order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in by]).to_numpy().astype(np.int64)
        return _sorted(table, order, np.concatenate(lengths), spool, column, scratch_dir, dimension)


def unit_vectors(column: pa.Array | pa.ChunkedArray, name: str = "embedding") -> tuple[Floats, pa.Array]:
    """Embeddings of one dimension as unit vectors.

    The dimension is that of the most rows of the column (of two that are as frequent, the larger): use `load` for what
    must not depend on how rows are cut into batches.

    Args:
        column: (N,) lists of floats, of fixed size or not.
        name: of the column, for the errors.

    Returns:
        (N, d) float32, zeros where there is no usable embedding; (N,) strings: why, `missing embedding` or `malformed
        embedding`, or null.

    Raises:
        UserError: the column's type is no list of floats.
    """
    check_type(column.type, name)
    values, lengths = units(column)
    dimension = most_frequent(lengths)
    live = np.flatnonzero(lengths == dimension) if dimension else np.zeros(0, np.int64)
    vectors = np.zeros((len(lengths), dimension), np.float32)
    vectors[live] = rows_at(values, offsets_of(lengths)[live], dimension)
    return vectors, causes(lengths, dimension, name)[0]


def units(column: pa.Array | pa.ChunkedArray) -> tuple[Floats, Ints]:
    """The usable vectors of any dimension one after the other, made unit vectors.

    Args:
        column: (N,) lists of floats.

    Returns:
        float32 values; (N,) each row's length, or MISSING, NOT_FINITE, ZERO (of which no values are returned).
    """
    values, lengths = _flat(column)
    offsets, units = offsets_of(lengths), np.zeros(len(values), np.float32)
    faults = np.zeros(len(lengths), np.int64)
    for dimension in np.unique(lengths[lengths > 0]).tolist():
        rows = np.flatnonzero(lengths == dimension)
        for block in blocks(len(rows), dimension):
            at = offsets[rows[block]]
            made, faults[rows[block]] = normalised(rows_at(values, at, dimension))
            sliding_window_view(units, dimension, writeable=True)[at] = made
    is_sound = np.repeat(faults == 0, np.maximum(lengths, 0))
    return units[is_sound], np.where(faults == 0, lengths, faults)


def check_type(type: pa.DataType, name: str) -> None:
    """See that a column can hold embeddings; the null type is a column without any.

    Raises:
        UserError: it cannot.
    """
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if pa.types.is_null(type) or (any(is_list(type) for is_list in lists) and pa.types.is_floating(type.value_type)):
        return
    raise UserError(f"column {name!r} is {type}: embeddings are lists of floats", hint="name the embeddings' column")


def normalised(values: npt.NDArray[np.floating]) -> tuple[Floats, Ints]:
    """Rows made unit vectors, each by itself.

    Args:
        values: (B, d).

    Returns:
        (B, d) float32; (B,) NOT_FINITE or ZERO for a row that cannot be (its vector means nothing), else 0.
    """
    wide = values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        if values.dtype == np.float64:
            # squares of doubles may be too large or too small for a double, those of narrower floats are not
            largest = np.abs(wide).max(axis=1, initial=0.0)
            wide /= np.where(largest > 0, largest, 1.0)[:, None]
        squares = np.square(wide).sum(axis=1)
        faults = np.where(np.isfinite(squares), np.where(squares > 0, 0, ZERO), NOT_FINITE)
        wide /= np.sqrt(np.where(faults == 0, squares, 1.0))[:, None]
    return wide.astype(np.float32), faults


def dots(left: npt.NDArray[np.floating], right: npt.NDArray[np.floating]) -> Doubles:
    """Exact dot products, row by row, of (B, d) vectors whose values are 16-bit floats, in whatever type."""
    return np.einsum("bd,bd->b", left.astype(np.float64), right.astype(np.float64))


def blocks(count: int, dimension: int) -> Iterator[slice]:
    """Runs of `count` rows, each about BLOCK_BYTES as 32-bit floats."""
    step = max(BLOCK_BYTES // (4 * max(dimension, 1)), 1)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _flat(column: pa.Array | pa.ChunkedArray) -> tuple[npt.NDArray[np.floating], Ints]:
    """All values one after the other, NaN for null; each row's length, or MISSING."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_null(array.type):
        return np.zeros(0, np.float32), np.full(len(array), MISSING)
    array = array.cast(pa.large_list(array.type.value_type))
    lengths = pc.fill_null(pc.list_value_length(array), MISSING).to_numpy(zero_copy_only=False)
    return array.flatten().to_numpy(zero_copy_only=False), lengths.astype(np.int64)


def offsets_of(lengths: Ints) -> Ints:
    """Where each row's values begin; any for a row without."""
    sizes = np.maximum(lengths, 0)
    return np.cumsum(sizes) - sizes


def rows_at(values: npt.NDArray[np.floating], offsets: Ints, dimension: int) -> npt.NDArray[np.floating]:
    """(B, dimension) copy of the values from each offset on."""
    if not dimension or not len(offsets):
        return np.zeros((len(offsets), dimension), values.dtype)
    return sliding_window_view(values, dimension)[offsets]


def most_frequent(lengths: Ints) -> int:
    """The most frequent length, the larger of two; 0 where there is none."""
    found, counts = np.unique(lengths[lengths > 0], return_counts=True)
    return int(found[::-1][np.argmax(counts[::-1])]) if len(found) else 0


def causes(lengths: Ints, dimension: int, name: str) -> tuple[pa.Array, pa.Array]:
    """Errors and details of all rows, null for those of the dimension."""
    codes = pa.array(lengths)
    kinds = [pc.equal(codes, code) for code in (MISSING, NOT_FINITE, ZERO)]
    is_other = (lengths >= 0) & ((lengths != dimension) | (dimension == 0))
    sizes = pa.array(lengths, mask=~is_other).cast(pa.string())
    cases = pc.make_struct(*kinds, pa.array(is_other))
    missing, malformed = (pa.scalar(f"{word} {name}") for word in ("missing", "malformed"))
    other = pc.binary_join_element_wise(sizes, f" values, where the pool's embeddings have {dimension}", "")
    none = pa.scalar(None, pa.string())
    errors = pc.case_when(cases, missing, malformed, malformed, malformed)
    return errors, pc.case_when(cases, none, "holds a value that is not finite", "all values are zero", other)


def _sorted(
    table: pa.Table, order: Ints, lengths: Ints, spool: IO[bytes], column: str, scratch_dir: str, dimension: int | None
) -> Embeddings:
    """Put the table and the spooled vectors into an order."""
    dimension = most_frequent(lengths) if dimension is None else dimension
    offsets, lengths = offsets_of(lengths)[order], lengths[order]
    live = np.flatnonzero(lengths == dimension) if dimension else np.zeros(0, np.int64)
    errors, details = causes(lengths, dimension, column)
    values = _mapped(spool, int(np.maximum(lengths, 0).sum()))
    vectors = on_disk(len(live), dimension, scratch_dir)
    for block in blocks(len(live), dimension):
        vectors[block] = rows_at(values, offsets[live[block]], dimension)
    return Embeddings(table.take(pa.array(order)), errors, details, live, vectors)


def on_disk(count: int, dimension: int, folder: str) -> Halves:
    """(count, dimension) 16-bit floats in a file without a name, which goes with the array."""
    with tempfile.TemporaryFile(dir=folder) as file:
        if not count * dimension:
            return np.zeros((count, dimension), np.float16)
        return np.memmap(file, np.float16, "w+", shape=(count, dimension))


def _mapped(spool: IO[bytes], count: int) -> Halves:
    spool.flush()
    return np.memmap(spool, np.float16, "r", shape=(count,)) if count else np.zeros(0, np.float16)
