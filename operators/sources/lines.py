"""Lines of a text file, and records made of them, for the formats that are text: CSV, TSV, JSON lines, lists.

Bytes that are no UTF-8 must cost one record, not the file. They are kept as lone surrogates until a column is made,
which is where they are found, and go from there into the failed row as they stood in the file.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from corpusmith.operators.sources.files import label, shown
from corpusmith.operators.sources.rows import BATCH_BYTES, BadRow
from corpusmith.schemas.errors import UserError

_BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 24
_STEP_ROWS = 256


class Record(NamedTuple):
    """A row of a text file: its first line's number, and its values or what is wrong with it."""

    line: int
    values: Any
    raw: str = ""
    problem: str = ""


class Lines:
    """Lines of a text file, each with its newline; those taken since `mark()` can be given back."""

    def __init__(self, stream: Any, path: str) -> None:
        self._lines = _split_lines(stream, path)
        self._given_back: list[str] = []
        self.taken: list[str] = []
        self.number = 0
        """Of the line last taken, from 1."""
        self.characters = 0
        """Of all lines taken so far."""

    def __iter__(self) -> Lines:
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


def batches(records: Iterator[Record], lines: Lines, batch_rows: int) -> Iterator[list[Record]]:
    """Group the records that are made of some lines, none of the groups above BATCH_BYTES by much."""
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
    while block := stream.read(_BLOCK_BYTES):
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


def text_array(values: Sequence[str | None]) -> tuple[pa.Array, list[int]]:
    """An array of texts, and the positions of those that are no Unicode text, which are null in it."""
    try:
        return pa.array(values, pa.string()), []
    except UnicodeEncodeError:
        bad = [i for i, value in enumerate(values) if value is not None and not is_unicode(value)]
        blank = set(bad)
        return pa.array([None if i in blank else value for i, value in enumerate(values)], pa.string()), bad


def is_unicode(text: str) -> bool:
    """Whether a text can stand in a column: it holds no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def raw_bytes(text: str) -> bytes:
    """A text's bytes as they stood in the file."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def bad_rows(path: str, batch: Iterable[Record]) -> dict[int, BadRow]:
    """Position → what is wrong, of the records without values."""
    return {
        i: BadRow(raw_bytes(record.raw), f"{label(path)}:{record.line}: {record.problem}")
        for i, record in enumerate(batch)
        if record.values is None
    }
