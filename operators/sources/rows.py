"""Rows of one table: CSV, TSV, JSON lines and Parquet, read as a stream in which a bad row costs itself alone.

CSV goes through the csv module in its strict mode. A record that cannot be right (an unclosed quote, a wrong number
of columns) gives up its first line only and reading goes on behind that line: a stray quote would else swallow the
rows up to the next one. The price is that a broken record of several lines fails once for each line.

A TSV line that breaks the rules of quoting but has the right number of tabs is taken as it stands, since most
writers of TSV quote nothing.
"""

from __future__ import annotations

import builtins
import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import NoneType
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmith.operators.sources.files import label, open_stored, open_unpacked, shown
from corpusmith.schemas.errors import UserError

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 24
BATCH_BYTES = 1 << 26
"""A batch of long texts ends here, short of its number of rows."""
JSON_SAMPLE_LINES = 1000
"""Lines of a JSON lines file that decide its columns and their types."""

_SHOWN_CHARS = 60
_STEP_ROWS = 256
_PYTHON_TYPES = {pa.string(): str, pa.bool_(): bool, pa.int64(): int, pa.float64(): float}


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read: what stands there, and why."""

    raw: bytes
    reason: str


@dataclass(frozen=True)
class Rows:
    """Some rows of a table.

    Args:
        count: rows, bad ones included.
        columns: name in the file → values, null in bad rows.
        bad: position → why the row could not be read.
    """

    count: int
    columns: Mapping[str, pa.Array]
    bad: Mapping[int, BadRow] = field(default_factory=dict)


class Table(Protocol):
    """A table of the input.

    Args:
        columns: name in the file → type.
        is_empty: whether it is known to have no rows.
        is_open: whether rows may hold columns that are not listed; their values are texts.
    """

    columns: dict[str, pa.DataType]
    is_empty: bool
    is_open: bool

    def rows(self, names: Sequence[str], batch_rows: int) -> Iterator[Rows]:
        """Stream the named columns, as far as the table has them."""
        ...


def open_table(path: str, format: str) -> Table:
    """Look at a table's columns.

    Raises:
        UserError: the file cannot be read, or is no table of that format.
    """
    if format == "parquet":
        return _ParquetTable(path)
    return _JsonTable(path) if format == "jsonl" else _CsvTable(path, "\t" if format == "tsv" else ",")


class _Record(NamedTuple):
    """A row of a text file: its first line's number, and its values or what is wrong with it."""

    line: int
    values: Any
    raw: str = ""
    problem: str = ""


class _Lines:
    """Lines of a text file, each with its newline; those taken since `mark()` can be given back."""

    def __init__(self, stream: Any, path: str) -> None:
        self._lines = _split_lines(stream, path)
        self._given_back: list[str] = []
        self.taken: list[str] = []
        self.number = 0
        """Of the line last taken, from 1."""
        self.characters = 0
        """Of all lines taken so far."""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._given_back.pop() if self._given_back else next(self._lines)
        self.taken.append(line)
        self.number += 1
        self.characters += len(line)
        return line

    def mark(self) -> int:
        """Start a record; returns the number of its first line."""
        self.taken.clear()
        return self.number + 1

    def keep_first(self) -> str:
        """The first line since mark(); the others are given back."""
        self._given_back += reversed(self.taken[1:])
        self.number -= len(self.taken) - 1
        return self.taken[0]


def _batches(records: Iterator[_Record], lines: _Lines, batch_rows: int) -> Iterator[list[_Record]]:
    while chunk := list(islice(records, min(batch_rows, _STEP_ROWS))):
        end = lines.characters + BATCH_BYTES
        while len(chunk) < batch_rows and lines.characters < end:
            more = list(islice(records, min(batch_rows - len(chunk), _STEP_ROWS)))
            if not more:
                break
            chunk += more
        yield chunk


def _split_lines(stream: Any, path: str) -> Iterator[str]:
    rest = b""
    is_first = True
    while block := stream.read(BLOCK_BYTES):
        block = rest + block
        if is_first:
            block = _without_bom(block, path)
            is_first = False
        cut = block.rfind(b"\n") + 1
        rest = block[cut:]
        if len(rest) > MAX_LINE_BYTES:
            what = f"a line is longer than {MAX_LINE_BYTES} bytes"
            raise UserError(what, where=shown(path), hint="is it a table of texts?")
        yield from io.StringIO(_decoded(block[:cut]), newline="\n")
    if rest:
        yield _decoded(rest)


def _without_bom(block: bytes, path: str) -> bytes:
    if block.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError("the text is UTF-16", where=shown(path), hint="save it as UTF-8")
    return block.removeprefix(b"\xef\xbb\xbf")


def _decoded(block: bytes) -> str:
    """Text in which bytes that are no UTF-8 stand as lone surrogates, which no column accepts."""
    return block.decode("utf-8", "surrogateescape")


def _text_array(values: Sequence[str | None]) -> tuple[pa.Array, list[int]]:
    """An array of texts, and the positions of those that are no Unicode text, which are null in it."""
    try:
        return pa.array(values, pa.string()), []
    except UnicodeEncodeError:
        bad = [i for i, value in enumerate(values) if value is not None and not _is_unicode(value)]
        blank = set(bad)
        return pa.array([None if i in blank else value for i, value in enumerate(values)], pa.string()), bad


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _raw(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


class _CsvTable:
    """CSV or TSV with a header line. All values are texts, and an empty one is null: the format knows neither."""

    is_open = False

    def __init__(self, path: str, delimiter: str) -> None:
        self._path = path
        self._delimiter = delimiter
        with open_unpacked(path) as stream:
            lines = _Lines(stream, path)
            self._names = self._header(lines)
            self.is_empty = next(self._records(lines), None) is None
        _refuse_repeats(self._names, path)
        self.columns = dict.fromkeys(self._names, pa.string())

    def rows(self, names: Sequence[str], batch_rows: int) -> Iterator[Rows]:
        wanted = {name: self._names.index(name) for name in names if name in self.columns}
        with open_unpacked(self._path) as stream:
            lines = _Lines(stream, self._path)
            self._header(lines)
            for batch in _batches(self._records(lines), lines, batch_rows):
                yield self._batch(batch, wanted)

    def _header(self, lines: _Lines) -> list[str]:
        where = f"{shown(self._path)}:1"
        try:
            names = next(csv.reader(lines, delimiter=self._delimiter, strict=True), [])
        except csv.Error as error:
            raise UserError(f"the header cannot be read: {error}", where=where, hint="is it a CSV file?") from error
        if not all(map(_is_unicode, names)):
            raise UserError("the header is no UTF-8 text", where=where, hint="save the file as UTF-8")
        return [name.strip() or f"column_{i}" for i, name in enumerate(names, 1)]

    def _records(self, lines: _Lines) -> Iterator[_Record]:
        width = len(self._names)
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        while True:
            number = lines.mark()
            problem = ""
            values: list[str] = []
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                problem = str(error)
            if len(values) == width and not problem:
                yield _Record(number, values)
            elif values or problem:
                yield self._first_line(number, lines.keep_first(), problem or f"{len(values)} columns, not {width}")

    def _first_line(self, number: int, line: str, problem: str) -> _Record:
        plain = line.rstrip("\r\n").split("\t")
        if self._delimiter == "\t" and len(plain) == len(self._names):
            return _Record(number, plain)
        return _Record(number, None, line, problem)

    def _batch(self, batch: list[_Record], wanted: dict[str, int]) -> Rows:
        bad = _bad_rows(self._path, batch)
        blank = [""] * len(self._names)
        values = [blank if record.values is None else record.values for record in batch]
        columns: dict[str, pa.Array] = {}
        for name, position in wanted.items():
            columns[name], wrong = _text_array([row[position] or None for row in values])
            for i in wrong:
                raw = _raw(self._delimiter.join(values[i]))
                bad.setdefault(i, BadRow(raw, f"{label(self._path)}:{batch[i].line}: invalid UTF-8 in {name!r}"))
        return Rows(len(batch), columns, bad)


def _bad_rows(path: str, batch: Iterable[_Record]) -> dict[int, BadRow]:
    return {
        i: BadRow(_raw(record.raw), f"{label(path)}:{record.line}: {record.problem}")
        for i, record in enumerate(batch)
        if record.values is None
    }


def _refuse_repeats(names: Sequence[str], path: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"columns stand twice: {', '.join(repeated)}", where=shown(path), hint="rename one of each")


class _JsonTable:
    """One JSON object a line. The first 1,000 lines decide columns and types.

    Whole numbers, numbers and booleans keep their type where all values agree; everything else is a text, lists and
    objects as JSON. A later value of another kind makes its row a bad row. A key that first appears later is left out,
    unless it is asked for by name: then it is a text.
    """

    is_open = True

    def __init__(self, path: str) -> None:
        self._path = path
        kinds: dict[str, set[str]] = {}
        self.is_empty = True
        with open_unpacked(path) as stream:
            for record in islice(self._records(_Lines(stream, path)), JSON_SAMPLE_LINES):
                self.is_empty = False
                for key, value in (record.values or {}).items():
                    kinds.setdefault(key, set()).add(_kind(value))
        self.columns = {key: _json_type(found) for key, found in kinds.items() if key and _is_unicode(key)}

    def rows(self, names: Sequence[str], batch_rows: int) -> Iterator[Rows]:
        wanted = {name: self.columns.get(name, pa.string()) for name in names}
        with open_unpacked(self._path) as stream:
            lines = _Lines(stream, self._path)
            for batch in _batches(self._records(lines), lines, batch_rows):
                yield self._batch(batch, wanted)

    def _records(self, lines: _Lines) -> Iterator[_Record]:
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
                yield _Record(number, None, line, f"invalid JSON: {error}")
                continue
            if isinstance(values, dict):
                yield _Record(number, values, line)
            else:
                yield _Record(number, None, line, "the line is no JSON object")

    def _batch(self, batch: list[_Record], wanted: dict[str, pa.DataType]) -> Rows:
        bad = _bad_rows(self._path, batch)
        columns: dict[str, pa.Array] = {}
        for name, type in wanted.items():
            values = [(record.values or {}).get(name) for record in batch]
            columns[name], problems = _fit_all(values, type)
            for i, problem in problems.items():
                reason = f"{label(self._path)}:{batch[i].line}: {name} = {problem}"
                bad.setdefault(i, BadRow(_raw(batch[i].raw), reason))
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
        return (text, "") if _is_unicode(text) else (None, "no Unicode text")
    kind = _kind(value)
    if pa.types.is_floating(type) and kind in ("int", "float"):
        return float(value), ""
    if kind != "text" and _json_type({kind}) == type:
        return value, ""
    return None, f"{repr(value)[:_SHOWN_CHARS]}, which is no {type} as in the file's first lines"


class _ParquetTable:
    """A Parquet file, streamed batch by batch; types are kept, dictionaries are unpacked."""

    is_open = False

    def __init__(self, path: str) -> None:
        self._path = path
        with open_stored(path) as stream:
            file = pq.ParquetFile(stream)
            schema = file.schema_arrow
            rows = file.metadata.num_rows
            stored = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        self.is_empty = rows == 0
        self._batch_rows = max(1, BATCH_BYTES * rows // max(1, stored))
        _refuse_repeats(schema.names, path)
        self.columns = {f.name: _plain_type(f.type) for f in schema}

    def rows(self, names: Sequence[str], batch_rows: int) -> Iterator[Rows]:
        wanted = [name for name in names if name in self.columns]
        first = 0
        with open_stored(self._path) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(min(batch_rows, self._batch_rows), columns=wanted):
                yield self._rows(batch.select(wanted), first)
                first += batch.num_rows

    def _rows(self, batch: pa.RecordBatch, first: int) -> Rows:
        columns: dict[str, pa.Array] = {}
        bad: dict[int, BadRow] = {}
        for name in batch.schema.names:
            array = batch.column(name)
            if pa.types.is_dictionary(array.type):
                array = array.cast(self.columns[name])
            columns[name], wrong = _valid(array)
            for i in wrong:
                raw = array[i].cast(pa.large_binary()).as_py()
                bad.setdefault(i, BadRow(raw, f"{label(self._path)}: row {first + i + 1}: invalid UTF-8 in {name!r}"))
        return Rows(batch.num_rows, columns, bad)


def _plain_type(type: pa.DataType) -> pa.DataType:
    return type.value_type if isinstance(type, pa.DictionaryType) else type


def _valid(array: pa.Array) -> tuple[pa.Array, list[int]]:
    """The array, and the positions of texts that are no UTF-8, which are null in it; Parquet promises no valid text."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
            raise
    else:
        return array, []
    values: list[str | None] = []
    bad: list[int] = []
    for i, raw in enumerate(array.cast(pa.large_binary()).to_pylist()):
        try:
            values.append(None if raw is None else raw.decode())
        except UnicodeDecodeError:
            values.append(None)
            bad.append(i)
    return pa.array(values, array.type), bad
