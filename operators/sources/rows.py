"""Rows of one table, whatever its format: what a table says of its columns, and what it streams.

A bad row is part of the stream, so that it costs itself alone and is lost nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from corpusmith.operators.sources.files import shown
from corpusmith.schemas.errors import UserError

BATCH_BYTES = 1 << 26
"""A batch of long texts ends here, short of its number of rows."""


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
        is_bare: whether it is a list without names, whose one column is called as the recipe calls it.
    """

    columns: dict[str, pa.DataType]
    is_empty: bool
    is_open: bool
    is_bare: bool

    def rows(self, names: Sequence[str], batch_rows: int) -> Iterator[Rows]:
        """Stream the named columns, as far as the table has them."""
        ...


def refuse_repeats(names: Sequence[str], path: str) -> None:
    """Refuse a table that has two columns of one name.

    Raises:
        UserError: it has.
    """
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"columns stand twice: {', '.join(repeated)}", where=shown(path), hint="rename one of each")
