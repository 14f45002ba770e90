"""Running an operator's work so that an exception costs only the rows that cause it, and a broken promise is found.

Two things can go wrong in an operator's Python code, and they are told apart here. A row that it cannot handle is a
`RowError` of that row: an exception over many rows is bisected until the culprits stand alone. A violated contract (a
row left out, a column of another type) is a bug of the operator and raises `OperatorContractError`.

Child processes and in-process execution both go through this file, so that they agree on every row.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from corpusmith.operators.contract import Annotate, AnnotateRows, Children, Operator, Part, Split
from corpusmith.schemas.fates import RowError

Announce = Callable[[int], None]
"""Called with the position of the row at hand, or of the first row at hand where many are worked on together."""

Values = Sequence[Any] | pa.Array | pa.ChunkedArray


class OperatorContractError(Exception):
    """An operator broke its contract: names the operator, the column where there is one, and what is wrong."""


def _silent(_: int) -> None:
    """Announce to nobody."""


def process_captured(operator: Operator, batch: pa.Table, announce: Announce = _silent) -> list[Part] | Children:
    """Run an annotate's or a split's work over a batch.

    Args:
        operator: an Annotate or a Split that has been set up.
        batch: `uid` and the required columns.
        announce: told which row is at hand.

    Returns:
        Annotate: parts that together hold each row once, `rows` always given. Split: all children. Columns are Arrow
        arrays of the declared types, null where the row has an error.

    Raises:
        OperatorContractError: the outcome is not what the contract asks for.
    """
    if isinstance(operator, Split):
        return _split(operator, batch, announce)
    if isinstance(operator, Annotate):
        return list(iter_parts(operator, batch, announce))
    raise TypeError(f"operator {operator.name!r} is a {operator.kind}: only annotate and split process batches")


def iter_parts(operator: Annotate, batch: pa.Table, announce: Announce = _silent) -> Iterator[Part]:
    """As process_captured(), part by part as an annotate yields them."""
    waiting = [list(range(batch.num_rows))]
    while waiting:
        rows = waiting.pop()
        if not rows:
            continue
        failure = yield from _attempt(operator, batch, rows, announce)
        if failure is None:
            continue
        undelivered, error = failure
        if len(rows) == 1:
            yield failed_part(operator, rows, error)
        else:
            waiting += reversed(halves(undelivered))


def _attempt(
    operator: Annotate, batch: pa.Table, rows: list[int], announce: Announce
) -> Generator[Part, None, tuple[list[int], RowError] | None]:
    """Yield what the operator makes of `rows`; returns the undelivered rows and the error if it raises."""
    undelivered = dict.fromkeys(rows)
    announce(rows[0])
    parts = _parts(operator, take_rows(batch, rows), lambda i: announce(rows[i]))
    while True:
        try:
            part = next(parts)
        except StopIteration:
            break
        except OperatorContractError:
            raise
        except Exception as exception:  # noqa: BLE001 (becomes the error of the rows that cause it)
            if not undelivered:
                _violated(operator, f"raised {exception!r} after its last row")
            return list(undelivered), clean_error(RowError.of(exception))
        checked = placed(checked_part(operator, part, len(rows)), rows)
        for row in checked.rows or ():
            if row not in undelivered:
                _violated(operator, f"gave row {row} twice")
            del undelivered[row]
        yield checked
    if undelivered:
        _violated(operator, f"gave no result for {len(undelivered)} of {len(rows)} rows")
    return None


def _parts(operator: Annotate, batch: pa.Table, announce: Announce) -> Iterator[Part]:
    if isinstance(operator, AnnotateRows):
        yield operator.process_announced(batch, announce)
        return
    outcome = operator.process(batch)
    if isinstance(outcome, Part):
        yield outcome
    elif isinstance(outcome, Iterator):
        yield from outcome
    else:
        _violated(operator, f"process() returned {type(outcome).__name__}, not Part or Iterator[Part]")


def _split(operator: Split, batch: pa.Table, announce: Announce) -> Children:
    pieces: list[tuple[list[int], Children]] = []
    waiting = [list(range(batch.num_rows))]
    while waiting:
        rows = waiting.pop()
        if not rows:
            continue
        announce(rows[0])
        try:
            outcome = operator.process(take_rows(batch, rows))
        except Exception as exception:  # noqa: BLE001 (becomes the error of the rows that cause it)
            if len(rows) == 1:
                pieces.append((rows, failed_children(operator, clean_error(RowError.of(exception)))))
            else:
                waiting += reversed(halves(rows))
            continue
        pieces.append((rows, checked_children(operator, outcome, len(rows))))
    return merged_children(operator, pieces)


def halves(rows: list[int]) -> list[list[int]]:
    """Rows in two parts, in order; a part may be empty."""
    middle = (len(rows) + 1) // 2
    return [rows[:middle], rows[middle:]]


def take_rows(batch: pa.Table, rows: list[int]) -> pa.Table:
    """Rows of a batch by ascending position, without copying where they are neighbours."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return batch.slice(rows[0], len(rows))
    return batch.take(pa.array(rows, pa.int64()))


def placed(part: Part, rows: Sequence[int]) -> Part:
    """The same part with its `rows`, positions within `rows`, as positions within the whole batch."""
    inner = part.rows if part.rows is not None else range(len(rows))
    return Part(part.columns, part.errors, rows=[rows[i] for i in inner])


def failed_part(operator: Annotate, rows: Sequence[int], error: RowError) -> Part:
    """A part of rows that all failed for one reason."""
    columns = {c.name: pa.nulls(len(rows), c.type) for c in operator.produces}
    return Part(columns, dict.fromkeys(range(len(rows)), error), rows=list(rows))


def failed_children(operator: Split, error: RowError) -> Children:
    """What a split makes of one row that failed."""
    return Children([], [], {c.name: pa.array([], c.type) for c in operator.produces}, {0: error})


def merged_children(operator: Split, pieces: Sequence[tuple[Sequence[int], Children]]) -> Children:
    """One Children for a batch from those of its pieces, each with the positions of its rows within the batch."""
    parents = [rows[i] for rows, children in pieces for i in children.parents]
    keys = [key for _, children in pieces for key in children.keys]
    errors = {rows[i]: error for rows, children in pieces for i, error in children.errors.items()}
    columns = {}
    for column in operator.produces:
        columns[column.name] = _joined([children.columns[column.name] for _, children in pieces], column.type)
    return Children(parents, keys, columns, errors)


def _joined(arrays: list[Any], type_: pa.DataType) -> pa.Array | pa.ChunkedArray:
    chunks = [c for a in arrays for c in (a.chunks if isinstance(a, pa.ChunkedArray) else [a])]
    return pa.chunked_array(chunks, type_).combine_chunks()


def checked_part(operator: Annotate, part: Part, batch_rows: int) -> Part:
    """Hold a part against the contract and give it its declared types; `rows` and `errors` are made concrete."""
    if not isinstance(part, Part):
        _violated(operator, f"yielded {type(part).__name__}, not Part")
    rows = [int(i) for i in part.rows] if part.rows is not None else list(range(batch_rows))
    is_right = part.rows is None or (len(set(rows)) == len(rows) and all(0 <= i < batch_rows for i in rows))
    if not is_right:
        _violated(operator, f"gave rows that are not distinct positions within a batch of {batch_rows}")
    errors = _checked_errors(operator, part.errors, len(rows))
    return Part(_checked_columns(operator, part.columns, len(rows), errors), errors, rows=rows)


def checked_children(operator: Split, children: Children, batch_rows: int) -> Children:
    """Hold what a split made against the contract and give it its declared types."""
    if not isinstance(children, Children):
        _violated(operator, f"process() returned {type(children).__name__}, not Children")
    parents = [int(i) for i in children.parents]
    keys = list(children.keys)
    errors = _checked_errors(operator, children.errors, batch_rows)
    if any(not 0 <= i < batch_rows for i in parents):
        _violated(operator, f"gave parents that are not positions within a batch of {batch_rows}")
    if len(keys) != len(parents) or not all(isinstance(key, str) for key in keys):
        _violated(operator, f"gave {len(keys)} keys for {len(parents)} children: one string is due for each")
    if len(set(zip(parents, keys, strict=True))) != len(keys):
        _violated(operator, "gave two children of one parent the same key")
    if not errors.keys().isdisjoint(parents):
        _violated(operator, "gave children to a row that it failed")
    child_errors: dict[int, RowError] = {}
    columns = _checked_columns(operator, children.columns, len(keys), child_errors)
    if child_errors:
        errors |= {parents[i]: error for i, error in sorted(child_errors.items(), reverse=True)}
        good = [i for i, parent in enumerate(parents) if parent not in errors]
        columns = {name: array.take(pa.array(good, pa.int64())) for name, array in columns.items()}
        parents, keys = [parents[i] for i in good], [keys[i] for i in good]
    return Children(parents, keys, columns, errors)


def _checked_errors(operator: Operator, errors: Mapping[int, RowError], rows: int) -> dict[int, RowError]:
    for position, error in errors.items():
        if not 0 <= position < rows or not isinstance(error, RowError):
            _violated(operator, f"gave the error {error!r} to position {position} of {rows}")
    return {int(position): clean_error(error) for position, error in errors.items()}


def clean_error(error: RowError) -> RowError:
    """The same error in text that UTF-8 can hold: messages quote hostile bytes."""
    return RowError(_encodable(error.error), _encodable(error.message))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _checked_columns(
    operator: Operator, columns: Mapping[str, Values], rows: int, errors: dict[int, RowError]
) -> dict[str, pa.Array | pa.ChunkedArray]:
    """Columns in their declared types, null where there is an error; rows with unencodable text join `errors`."""
    declared = {c.name: c.type for c in operator.produces}
    for name in declared.keys() - columns.keys():
        _violated(operator, "is missing from the result", column=name)
    for name in columns.keys() - declared.keys():
        _violated(operator, "is in the result but not declared in `produces`", column=name)
    checked = {}
    for name, type_ in declared.items():
        values = columns[name]
        if len(values) != rows:
            _violated(operator, f"has {len(values)} values for {rows} rows", column=name)
        try:
            checked[name] = _arrow(values, type_, errors)
        except UnicodeEncodeError:
            errors.update(_unencodable(values, type_, errors))
            checked[name] = _arrow(values, type_, errors)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as exception:
            _violated(operator, f"cannot be {type_}: {exception}", column=name)
    if not errors:
        return checked
    present = pa.array([None if i in errors else i for i in range(rows)], pa.int64())
    return {name: array.take(present) for name, array in checked.items()}


def _arrow(values: Any, type_: pa.DataType, errors: Mapping[int, RowError]) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        return whole if whole.type == type_ else whole.cast(type_)
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype != object and not errors:
        return pa.array(values).cast(type_)
    present = [None if i in errors else v for i, v in enumerate(values)]
    if pa.types.is_large_binary(type_):
        return _media_array(present)
    if pa.types.is_integer(type_) and pa.types.is_floating((inferred := pa.array(present)).type):
        return inferred.cast(type_)  # refuses fractions, which pa.array(…, type) would cut off
    return pa.array(present, type_)


def _media_array(bodies: Sequence[bytes | None]) -> pa.Array:
    """Media as an array of large binaries, copied once: Arrow's own builder copies again each time that it grows."""
    offsets = np.zeros(len(bodies) + 1, np.int64)
    np.cumsum([len(body) if body is not None else 0 for body in bodies], out=offsets[1:])
    is_valid = pa.array([body is not None for body in bodies], pa.bool_())
    data = b"".join(body for body in bodies if body is not None)
    buffers = [is_valid.buffers()[1], pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(bodies), buffers)


def _unencodable(values: Values, type_: pa.DataType, errors: Mapping[int, RowError]) -> dict[int, RowError]:
    """Rows that hold text with lone surrogates: it comes from hostile bytes, so it is their fault alone."""
    found = {}
    for i, value in enumerate(values):
        try:
            if i not in errors:
                pa.array([value], type_)
        except UnicodeEncodeError as exception:
            found[i] = clean_error(RowError.of(exception))
    return found


def _violated(operator: Operator, what: str, *, column: str | None = None) -> NoReturn:
    subject = f"operator {operator.name!r}, column {column!r}" if column else f"operator {operator.name!r}"
    raise OperatorContractError(f"{subject}: {what}")
