"""JSON lines: one object a line, whose keys are columns and whose types the file's first lines decide.

The types are fixed before rows are streamed, since all batches of an input have one schema and nobody reads a large
file twice to learn it.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from types import NoneType
from typing import Any

import pyarrow as pa

from corpusmith.operators.sources.files import label
from corpusmith.operators.sources.lines import Lines, Record, bad_rows, batches, is_unicode, raw_bytes
from corpusmith.operators.sources.rows import BadRow, Rows
from corpusmith.operators.sources.streams import open_unpacked

JSON_SAMPLE_LINES = 1000
"""Lines of a file that decide its columns and their types."""

_SHOWN_CHARS = 60
_PYTHON_TYPES = {pa.string(): str, pa.bool_(): bool, pa.int64(): int, pa.float64(): float}


class JsonTable:
    """One JSON object a line. The first 1,000 lines decide columns and types.

    Whole numbers, numbers and booleans keep their type where all values agree; everything else is a text, lists and
    objects as JSON. A later value of another kind makes its row a bad row. A key that first appears later is left out,
    unless it is asked for by name: then it is a text.
    """

    is_open = True
    is_bare = False

    def __init__(self, path: str) -> None:
        self._path = path
        kinds: dict[str, set[str]] = {}
        self.is_empty = True
        with open_unpacked(path) as stream:
            for record in islice(self._records(Lines(stream, path)), JSON_SAMPLE_LINES):
                self.is_empty = False
                for key, value in (record.values or {}).items():
                    kinds.setdefault(key, set()).add(_kind(value))
        self.columns = {key: _json_type(found) for key, found in kinds.items() if key and is_unicode(key)}

    def rows(self, names: Sequence[str], batch_rows: int) -> Iterator[Rows]:
        wanted = {name: self.columns.get(name, pa.string()) for name in names}
        with open_unpacked(self._path) as stream:
            lines = Lines(stream, self._path)
            for batch in batches(self._records(lines), lines, batch_rows):
                yield self._batch(batch, wanted)

    def _records(self, lines: Lines) -> Iterator[Record]:
        while True:
            number = lines.mark()
            line = next(lines, None)
            if line is None:
                return
            if line.isspace():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Record(number, None, line, f"invalid JSON: {error}")
                continue
            if isinstance(values, dict):
                yield Record(number, values, line)
            else:
                yield Record(number, None, line, "the line is no JSON object")

    def _batch(self, batch: list[Record], wanted: dict[str, pa.DataType]) -> Rows:
        bad = bad_rows(self._path, batch)
        columns: dict[str, pa.Array] = {}
        for name, type in wanted.items():
            values = [(record.values or {}).get(name) for record in batch]
            columns[name], problems = _fit_all(values, type)
            for i, problem in problems.items():
                reason = f"{label(self._path)}:{batch[i].line}: {name} = {problem}"
                bad.setdefault(i, BadRow(raw_bytes(batch[i].raw), reason))
        return Rows(len(batch), columns, bad)


def _fit_all(values: list[Any], type: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    """JSON values as a column, and what is wrong with those that are no values of its type, which are null in it."""
    if {*map(builtins.type, values)} <= {_PYTHON_TYPES[type], NoneType}:
        try:
            return pa.array(values, type), {}
        except (UnicodeEncodeError, OverflowError, pa.ArrowInvalid):
            pass  # some value does not fit: the others are told apart below
    fitted = [_fit(value, type) for value in values]
    problems = {i: problem for i, (_, problem) in enumerate(fitted) if problem}
    return pa.array([value for value, _ in fitted], type), problems


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return "int"
    return "float" if isinstance(value, float) else "text"


def _json_type(kinds: set[str]) -> pa.DataType:
    known = kinds - {"null"}
    if known == {"bool"}:
        return pa.bool_()
    if known == {"int"}:
        return pa.int64()
    return pa.float64() if known and known <= {"int", "float"} else pa.string()


def _fit(value: Any, type: pa.DataType) -> tuple[Any, str]:
    """A JSON value as one of a column's type, or what is wrong with it."""
    if value is None:
        return None, ""
    if pa.types.is_string(type):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return (text, "") if is_unicode(text) else (None, "no Unicode text")
    kind = _kind(value)
    if pa.types.is_floating(type) and kind in ("int", "float"):
        return float(value), ""
    if kind != "text" and _json_type({kind}) == type:
        return value, ""
    return None, f"{repr(value)[:_SHOWN_CHARS]}, which is no {type} as in the file's first lines"
