"""CSV and TSV: text with a header line, through the csv module in its strict mode.

A record that cannot be right (an unclosed quote, a wrong number of columns) gives up its first line only and reading
goes on behind that line: a stray quote would else swallow the rows up to the next one. The price is that a broken
record of several lines fails once for each line.

A TSV line that breaks the rules of quoting but has the right number of tabs is taken as it stands, since most
writers of TSV quote nothing.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

import pyarrow as pa

from corpusmith.operators.sources.files import label, shown
from corpusmith.operators.sources.lines import Lines, Record, bad_rows, batches, is_unicode, raw_bytes, text_array
from corpusmith.operators.sources.rows import BadRow, Rows, refuse_repeats
from corpusmith.operators.sources.streams import open_unpacked
from corpusmith.schemas.errors import UserError


class CsvTable:
    """CSV or TSV with a header line. All values are texts, and an empty one is null: the format knows neither."""

    is_open = False
    is_bare = False
    has_media = False

    def __init__(self, path: str, delimiter: str) -> None:
        self._path = path
        self._delimiter = delimiter
        with open_unpacked(path) as stream:
            lines = Lines(stream, path)
            self._names = self._header(lines)
            self.is_empty = next(self._records(lines), None) is None
        refuse_repeats(self._names, path)
        self.columns = dict.fromkeys(self._names, pa.string())

    def rows(self, names: Sequence[str], batch_rows: int) -> Iterator[Rows]:
        wanted = {name: self._names.index(name) for name in names if name in self.columns}
        with open_unpacked(self._path) as stream:
            lines = Lines(stream, self._path)
            self._header(lines)
            for batch in batches(self._records(lines), lines, batch_rows):
                yield self._batch(batch, wanted)

    def _header(self, lines: Lines) -> list[str]:
        where = f"{shown(self._path)}:1"
        try:
            names = next(csv.reader(lines, delimiter=self._delimiter, strict=True), [])
        except csv.Error as error:
            raise UserError(f"the header cannot be read: {error}", where=where, hint="is it a CSV file?") from error
        if not all(map(is_unicode, names)):
            raise UserError("the header is no UTF-8 text", where=where, hint="save the file as UTF-8")
        return [name.strip() or f"column_{i}" for i, name in enumerate(names, 1)]

    def _records(self, lines: Lines) -> Iterator[Record]:
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
                yield Record(number, values)
            elif values or problem:
                yield self._first_line(number, lines.keep_first(), problem or f"{len(values)} columns, not {width}")

    def _first_line(self, number: int, line: str, problem: str) -> Record:
        plain = line.rstrip("\r\n").split("\t")
        if self._delimiter == "\t" and len(plain) == len(self._names):
            return Record(number, plain)
        return Record(number, None, line, problem)

    def _batch(self, batch: list[Record], wanted: dict[str, int]) -> Rows:
        bad = bad_rows(self._path, batch)
        blank = [""] * len(self._names)
        values = [blank if record.values is None else record.values for record in batch]
        columns: dict[str, pa.Array] = {}
        for name, position in wanted.items():
            columns[name], wrong = text_array([row[position] or None for row in values])
            for i in wrong:
                raw = raw_bytes(self._delimiter.join(values[i]))
                bad.setdefault(i, BadRow(raw, f"{label(self._path)}:{batch[i].line}: invalid UTF-8 in {name!r}"))
        return Rows(len(batch), columns, bad)
