"""JSON lines: one object a line, whose keys are columns and whose types the file's first lines decide.

The types are fixed before rows are streamed, since all batches of an input have one schema and nobody reads a large
file twice to learn it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow as pa

from corpusmith.operators.sources.files import label
from corpusmith.operators.sources.json_values import fit_all, kind_of, type_of
from corpusmith.operators.sources.lines import Lines, Record, bad_rows, batches, is_unicode, raw_bytes
from corpusmith.operators.sources.rows import BadRow, Rows
from corpusmith.operators.sources.streams import open_unpacked

JSON_SAMPLE_LINES = 1000
"""Lines of a file that decide its columns and their types."""


class JsonTable:
    """One JSON object a line. The first 1,000 lines decide columns and types.

    Whole numbers, numbers and booleans keep their type where all values agree; everything else is a text, lists and
    objects as JSON. A later value of another kind makes its row a bad row. A key that first appears later is left out,
    unless it is asked for by name: then it is a text.
    """

    is_open = True
    is_bare = False
    has_media = False

    def __init__(self, path: str) -> None:
        self._path = path
        kinds: dict[str, set[str]] = {}
        self.is_empty = True
        with open_unpacked(path) as stream:
            for record in islice(self._records(Lines(stream, path)), JSON_SAMPLE_LINES):
                self.is_empty = False
                for key, value in (record.values or {}).items():
                    kinds.setdefault(key, set()).add(kind_of(value))
        self.columns = {key: type_of(found) for key, found in kinds.items() if key and is_unicode(key)}

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
            columns[name], problems = fit_all(values, type)
            for i, problem in problems.items():
                reason = f"{label(self._path)}:{batch[i].line}: {name} = {problem}"
                bad.setdefault(i, BadRow(raw_bytes(batch[i].raw), reason))
        return Rows(len(batch), columns, bad)
