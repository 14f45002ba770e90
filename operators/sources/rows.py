"""Rows of one table, whatever its format: what a table says of its columns, and what it streams.

A bad row is part of the stream, so that it costs itself alone and is lost nowhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from corpusmith.operators.sources.files import shown
from corpusmith.schemas.errors import UserError

MAX_COLUMNS = 4096
"""All columns are carried from step to step; a line of a million commas would occupy a run for hours."""

BATCH_BYTES = 1 << 26
"""A batch of long texts ends here, short of its number of rows."""


@dataclass(frozen=True)
class BadRow:
    """A row that fails as it comes in.

    Args:
        raw: what stands there; tells the row from others that fail, unless it has a URL that does.
        reason: why it fails.
        error: the class of the error.
        is_read: whether the row's values are there, so that its URL says which sample it would have been.
    """

    raw: bytes
    reason: str
    error: str = "bad row"
    is_read: bool = False


@dataclass(frozen=True)
class Rows:
    """Some rows of a table.

    Args:
        count: rows, bad ones included.
        columns: name in the file → values, null in bad rows.
        bad: position → why the row fails.
        media: references to the rows' media (see `references`), null where a row has none; None for a table without.
        sha256: of the media's bytes, 64 hex digits, null where a row has none.
        parts: position → which part of what its URL names a row is, for clips that were cut of one film.
        passed_over: kind of thing → how many of it stood between the rows and were not read.
    """

    count: int
    columns: Mapping[str, pa.Array]
    bad: Mapping[int, BadRow] = field(default_factory=dict)
    media: pa.Array | None = None
    sha256: pa.Array | None = None
    parts: Mapping[int, str] = field(default_factory=dict)
    passed_over: Mapping[str, int] = field(default_factory=dict)


class Table(Protocol):
    """A table of the input.

    Args:
        columns: name in the file → type.
        is_empty: whether it is known to have no rows.
        is_open: whether rows may hold columns that are not listed; their values are texts.
        is_bare: whether it is a list without names, whose one column is called as the recipe calls it.
        has_media: whether its rows carry media.
    """

    columns: dict[str, pa.DataType]
    is_empty: bool
    is_open: bool
    is_bare: bool
    has_media: bool

    def rows(self, names: Sequence[str], batch_rows: int) -> Iterator[Rows]:
        """Stream the named columns, as far as the table has them."""
        ...


def refuse_repeats(names: Sequence[str], path: str) -> None:
    """Refuse a table that has two columns of one name, or more columns than can be meant.

    Raises:
        UserError: it has.
    """
    if len(names) > MAX_COLUMNS:
        what = f"{len(names):,} columns, above {MAX_COLUMNS:,}"
        raise UserError(what, where=shown(path), hint="is it a table of URLs and texts? take the columns that matter")
    repeated = sorted(name for name, number in Counter(names).items() if number > 1)
    if repeated:
        raise UserError(f"columns stand twice: {', '.join(repeated)}", where=shown(path), hint="rename one of each")
