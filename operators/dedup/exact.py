"""dedup.exact: of the rows that are equal in the named columns one goes on.

Equal are the values themselves, or their normal forms (`normal_forms.py`), and never a hash of them alone, so that no
collision merges two groups: DuckDB hashes all rows to find those that may have a twin, and groups these by value.

Who represents a group is fixed by the rows alone: the highest value of `prefer`, then the lowest uid. A finished corpus
in `against` comes before all rows: its samples represent the groups that they belong to, those of the corpus that
stands first in the list, and of several there the one of the lowest uid. A sample that was delivered before is known by
its uid, too, and then stands for its values there and here.

The rows are read once into DuckDB, which spills, and the decisions leave it as a stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Reduce, Reduced, Resources, Rows
from corpusmith.operators.dedup.against import AgainstSha256, check_unchanged
from corpusmith.operators.dedup.exact_query import ExactQuery
from corpusmith.operators.dedup.groups import DEDUP_GROUP, DEDUP_SIZE
from corpusmith.operators.dedup.normal_forms import Form, normal_form
from corpusmith.operators.duck import MEMORY_BYTES, renamed, spilling
from corpusmith.operators.finished import samples
from corpusmith.schemas.columns import UID, Column
from corpusmith.schemas.errors import UserError

if TYPE_CHECKING:
    import duckdb

_BATCH_ROWS = 65_536
_ORIGIN = (pa.field("place of the corpus", pa.int64()), pa.field("name of the corpus", pa.string()))
_ORIGIN_NAMES = (("place", _ORIGIN[0].name), ("corpus", _ORIGIN[1].name))
"""The query's names and ours, which are no column's."""


class Exact(Reduce, name="dedup.exact", version=1):
    """Keep one of the rows that are equal in the named columns."""

    class Config(BaseConfig):
        on: tuple[str, ...] = Field(
            min_length=1,
            description="columns that must be equal, text byte for byte; a row without a value in one of them fails",
        )
        forms: dict[str, Form] = Field(
            default={},
            description="columns of `on` that are equal where their normal forms are. text: case, punctuation, white "
            "space, and compatible or invisible characters mean nothing; url: nor do http or https, the host's case, a "
            "default port, the fragment, dot segments, and how characters are percent-encoded; url_without_tracking: "
            "nor do utm_…, gclid, fbclid and their like, and the order of parameters. Values stay as they are",
        )
        prefer: str | None = Field(
            default=None,
            description="column whose highest value says who represents its group, rows without a value last; "
            "ties, and all groups where it is left out, go to the lowest uid",
        )
        against: tuple[str, ...] = Field(
            default=(),
            description="folders of finished corpora: rows that are equal to one of their samples are dropped, and so "
            "are rows that are a sample of theirs, by their uid",
        )
        against_sha256: AgainstSha256 = None

        @field_validator("forms")
        @classmethod
        def _are_compared(cls, forms: dict[str, Form], info: ValidationInfo) -> dict[str, Form]:
            for name in forms:
                if name not in info.data.get("on", forms):
                    raise ValueError(f"column {name!r} is not among those of `on`")
            return forms

    positional = "on"
    resources = Resources(memory_bytes=MEMORY_BYTES)
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        wanted = (*self.config.on, *([self.config.prefer] if self.config.prefer else []))
        return tuple(dict.fromkeys(name for name in wanted if name != UID.name))

    @property
    def produces(self) -> tuple[Column, ...]:
        return (DEDUP_GROUP, DEDUP_SIZE)

    def reduce(self, rows: Rows) -> Reduced:
        config = self.config
        with ExitStack() as stack:
            connection = stack.enter_context(spilling(self._keyed(rows), rows.scratch_dir))
            connection.execute("CREATE TEMP TABLE pool AS FROM stream")
            if config.against:
                self._deliver(connection, rows.reader(self.requires).schema)
            query = ExactQuery(config.on, self._label, config.prefer is not None, bool(config.against))
            for statement in query.preparations():
                connection.execute(statement)
            summary = connection.sql(query.facts()).to_arrow_table().to_pylist()[0]
            decided = connection.sql(query.decisions()).to_arrow_reader(_BATCH_ROWS)
            return Reduced(_closing(decided, stack.pop_all()), summary)

    def _deliver(self, connection: duckdb.DuckDBPyConnection, pool: pa.Schema) -> None:
        """Make the table of the finished corpora's samples; not of a stream, whose errors DuckDB puts in its words."""
        delivered = self._delivered(pool)
        connection.register("samples", delivered.schema.empty_table())
        connection.execute("CREATE TEMP TABLE delivered AS FROM samples")
        for batch in delivered:
            connection.register("samples", pa.Table.from_batches([batch]))
            connection.execute("INSERT INTO delivered FROM samples")

    @property
    def _label(self) -> str:
        forms = self.config.forms
        return f"duplicate {', '.join(f'{n} (form {forms[n]})' if n in forms else n for n in self.config.on)}"

    def _keyed(self, rows: Rows) -> pa.RecordBatchReader:
        """The rows as the query wants them; normal forms are made in parallel."""
        keys = _Keys(self.config.on, self.config.forms, self.config.prefer)
        reader = rows.reader(self.requires)
        if not self.config.forms:
            return keys.of(reader)
        schema = keys.of(reader).schema
        tables = rows.map(keys, self.requires)
        return pa.RecordBatchReader.from_batches(schema, (batch for table in tables for batch in table.to_batches()))

    def _delivered(self, pool: pa.Schema) -> pa.RecordBatchReader:
        """The finished corpora's samples, each with the place of its corpus in the list.

        Args:
            pool: types of the columns.
        """
        config = self.config
        check_unchanged(config.against, config.against_sha256)
        names = list(dict.fromkeys([UID.name, *config.on]))
        schema = pa.schema([*(pool.field(name) for name in names), *_ORIGIN])

        def batches() -> Iterator[pa.RecordBatch]:
            for place, folder in enumerate(config.against):
                for batch in samples([folder], names[1:]):
                    columns = [_cast(batch.column(i), pool.field(name), folder) for i, name in enumerate(names)]
                    placed = pa.array(np.full(batch.num_rows, place))
                    yield pa.record_batch([*columns, placed, batch.column(len(names))], schema=schema)

        reader = pa.RecordBatchReader.from_batches(schema, batches())
        return _Keys(config.on, config.forms, others=_ORIGIN_NAMES).of(reader)


@dataclass(frozen=True)
class _Keys:
    """Makes the query's columns of the rows'; travels to workers."""

    on: tuple[str, ...]
    forms: dict[str, Form]
    prefer: str | None = None
    others: tuple[tuple[str, str], ...] = ()

    def __call__(self, table: pa.Table) -> pa.Table:
        return self.of(table.to_reader()).read_all()

    def of(self, reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
        """uid, key_0 …, perhaps preference, and the other columns.

        Raises:
            UserError: a column that has a form holds no texts.
        """
        for name in self.forms:
            _check_texts(reader.schema.field(name))
        keys = {f"key_{i}": name for i, name in enumerate(self.on)}
        plain = {own: name for own, name in keys.items() if name not in self.forms}
        formed = {
            own: partial(_formed, name=name, form=self.forms[name]) for own, name in keys.items() if name in self.forms
        }
        preference = {"preference": self.prefer} if self.prefer else {}
        return renamed(reader, {UID.name: UID.name, **plain, **preference, **dict(self.others)}, formed)


def _formed(batch: pa.RecordBatch, name: str, form: Form) -> pa.Array:
    return normal_form(batch.column(name), form)


def _check_texts(field: pa.Field) -> None:
    if _kind(field.type) not in ("text", "null"):
        raise UserError(f"column {field.name!r} holds {field.type}, not texts", hint="leave it out of `forms`")


def _cast(values: pa.Array, field: pa.Field, corpus: str) -> pa.Array:
    try:
        if _kind(values.type) in (_kind(field.type), "null"):
            return values.cast(field.type)
    except pa.ArrowInvalid:
        pass
    what = f"column {field.name!r} holds {values.type} here and {field.type} in the pool"
    raise UserError(what, where=corpus, hint="compare columns of one type")


def _kind(held: pa.DataType) -> str:
    """What may be compared: whole numbers of any width, texts of any layout."""
    if pa.types.is_dictionary(held):
        return _kind(held.value_type)
    if pa.types.is_string(held) or pa.types.is_large_string(held):
        return "text"
    return "whole number" if pa.types.is_integer(held) else str(held)


def _closing(reader: pa.RecordBatchReader, stack: ExitStack) -> pa.RecordBatchReader:
    """The reader, which closes the stack at its end."""

    def batches() -> Iterator[pa.RecordBatch]:
        with stack:
            yield from reader

    return pa.RecordBatchReader.from_batches(reader.schema, batches())
