"""Lists: one URL a line and nothing else; one text a line where the recipe has no URLs.

The column has no name in the file, so it is called as the recipe calls it. Empty lines are no rows, and what stands
around a line in white space is no part of it; no line is a comment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from corpusmith.operators.sources.files import label
from corpusmith.operators.sources.lines import Lines, Record, batches, raw_bytes, text_array
from corpusmith.operators.sources.rows import BadRow, Rows
from corpusmith.operators.sources.streams import open_unpacked


class TextList:
    """A file of one value a line."""

    is_open = False
    is_bare = True
    has_media = False

    def __init__(self, path: str, column: str) -> None:
        self._path = path
        self.columns = {column: pa.string()}
        with open_unpacked(path) as stream:
            self.is_empty = next(_records(Lines(stream, path)), None) is None

    def rows(self, names: Sequence[str], batch_rows: int) -> Iterator[Rows]:
        with open_unpacked(self._path) as stream:
            lines = Lines(stream, self._path)
            for batch in batches(_records(lines), lines, batch_rows):
                rows = self._batch(batch)
                yield rows if not rows.columns.keys().isdisjoint(names) else Rows(rows.count, {}, rows.bad)

    def _batch(self, batch: list[Record]) -> Rows:
        column, wrong = text_array([record.values for record in batch])
        where = label(self._path)
        bad = {i: BadRow(raw_bytes(batch[i].values), f"{where}:{batch[i].line}: invalid UTF-8") for i in wrong}
        return Rows(len(batch), dict.fromkeys(self.columns, column), bad)


def _records(lines: Lines) -> Iterator[Record]:
    while True:
        number = lines.mark()
        line = next(lines, None)
        if line is None:
            return
        if not line.isspace():
            yield Record(number, line.strip())
