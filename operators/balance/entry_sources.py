"""Columns of the tables that lists of entries are made of: read file by file, whatever the format.

No uid is made and nothing is sorted, so that a corpus of texts passes as fast as it decodes. Rows that cannot be read
are counted, and every text is valid UTF-8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial

import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.sources.files import SourceFile, shown
from corpusmith.operators.sources.formats import open_tables
from corpusmith.operators.sources.listing import list_files
from corpusmith.operators.sources.ordered import in_order
from corpusmith.operators.sources.rows import Table
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.recipe import InputSpec

_FILES_AT_ONCE = 16
_READERS = 2
_BATCH_ROWS = 1 << 16


class ColumnSource:
    """Some columns of tables.

    Args:
        paths: files, folders and patterns, local or URLs; Parquet, CSV, TSV, JSONL, or lists of one text a line.
        columns: option that names a column → the column's name. The first one is that of lists without names.

    Attributes:
        bad: counts rows that could not be read, by file, as they are met.
    """

    def __init__(self, paths: Sequence[str], columns: Mapping[str, str]) -> None:
        self._paths = list(paths)
        self._columns = dict(columns)
        self.bad: Counter[str] = Counter()

    @cached_property
    def files(self) -> list[SourceFile]:
        """The files.

        Raises:
            UserError: there are none.
        """
        try:
            return list_files(self._paths)
        except UserError as error:
            # the hints are for recipes
            hint = "check the path; a pattern such as 'texts/*.parquet' takes several files, a .txt is named itself"
            raise UserError(error.what, where=error.where, hint=hint) from error

    @cached_property
    def tables(self) -> list[tuple[SourceFile, Table]]:
        """The files that have rows, each known to have the columns.

        Raises:
            UserError: a file cannot be read or lacks a column, or none has a row.
        """
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            opened = list(
                open_tables(self.files, InputSpec(url=None, caption=next(iter(self._columns.values()))), pool)
            )
        tables = [(file, table) for file, table in opened if not table.is_empty]
        if not tables:
            raise UserError("there is no row", where=", ".join(shown(path) for path in self._paths[:3]))
        for file, table in tables:
            self._check(file, table)
        return tables

    def _check(self, file: SourceFile, table: Table) -> None:
        for option, name in self._columns.items():
            if name not in table.columns and not table.is_open:
                known = ", ".join(list(table.columns)[:20])
                hint = "a list has one column" if table.is_bare else f"set {option} to one of its columns: {known}"
                raise UserError(f"there is no column {name!r}", where=shown(file.path), hint=hint)

    def batches(self) -> Iterator[tuple[SourceFile, list[pa.Array]]]:
        """The columns, batch by batch and file after file; null where a row could not be read.

        Raises:
            UserError: as `tables`.
        """

        def read(file: SourceFile, table: Table) -> Iterator[tuple[SourceFile, list[pa.Array]]]:
            for rows in table.rows(list(self._columns.values()), _BATCH_ROWS):
                if rows.bad:
                    self.bad[shown(file.path)] += len(rows.bad)
                yield file, [_array(rows.columns.get(name), rows.count) for name in self._columns.values()]

        yield from in_order([partial(read, *pair) for pair in self.tables], _READERS)


def _array(column: pa.Array | None, count: int) -> pa.Array:
    return pa.nulls(count, pa.string()) if column is None else column


def as_texts(column: pa.Array, name: str, where: str) -> pa.Array:
    """A column as large strings; blank texts are null.

    Raises:
        UserError: it holds neither texts nor plain values.
    """
    try:
        texts = column.cast(pa.large_string())
    except pa.ArrowException as error:
        what = f"the column {name!r} is {column.type}, no text"
        raise UserError(what, where=where, hint="name a column of texts") from error
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(texts), ""), pa.scalar(None, pa.large_string()), texts)
