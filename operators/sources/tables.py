"""Tables of URLs and texts: the rows that a recipe starts from.

Files of several formats and schemas give one stream of batches under one schema: uid, source_uid, url, caption, the
columns of a fate, and whatever else the files carry. What cannot be read, or has no URL, is a row too, with the fate
`failed` at the step `input`: nothing that a file holds is lost without a word.

Columns are looked at first (Parquet footers, header lines, the first lines of JSON), rows are streamed later.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from corpusmith.operators.sources.files import SourceFile, list_files, shown
from corpusmith.operators.sources.formats import open_table
from corpusmith.operators.sources.rows import Rows, Table
from corpusmith.schemas.columns import (
    CAPTION,
    FATE,
    FATE_ERROR,
    FATE_REASON,
    FATE_STEP,
    MEDIA,
    RESERVED_NAMES,
    SOURCE_UID,
    UID,
    URL,
)
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import Fate
from corpusmith.schemas.identity import uid_of, uids_of_urls
from corpusmith.schemas.recipe import InputSpec

__all__ = ["INPUT_STEP", "SourceFile", "list_files", "read_tables"]

INPUT_STEP = "input"
"""The step that rows fail at which cannot be read."""

RENAMED_PREFIX = "source_"
"""Stands before the name of a carried column whose own name is taken."""

_HEAD = (UID, SOURCE_UID, URL, CAPTION, FATE, FATE_STEP, FATE_ERROR, FATE_REASON)
_TAKEN = frozenset({*RESERVED_NAMES, MEDIA.name, SOURCE_UID.name, URL.name, CAPTION.name})
_FILES_AT_ONCE = 16


def read_tables(files: Sequence[SourceFile], spec: InputSpec, *, batch_rows: int = 65536) -> Iterator[pa.RecordBatch]:
    """Stream the rows of input files, file after file.

    Args:
        files: what to read; see `list_files`.
        spec: format and columns.
        batch_rows: rows in a batch at most.

    Yields:
        Batches of one schema: `uid`, `source_uid`, `url`, `caption`, `fate`, `fate_step`, `fate_error`, `fate_reason`
        (null but for rows that failed) and the carried columns, null where a file lacks them. A carried column whose
        name is taken is called `source_NAME`; a column `uid` becomes `source_uid` where the recipe names none.

    Raises:
        UserError: a file cannot be read, lacks a column that the recipe names, or there is no row at all.
    """
    layout = _layout(files, spec)
    rows = 0
    for file, table in layout.tables:
        for piece in table.rows(layout.names, batch_rows):
            rows += piece.count
            yield _batch(piece, file, layout)
    if not rows:
        paths = ", ".join(shown(file.path) for file in files[:3])
        raise UserError("the input has no rows", where=paths, hint="check input.path")


@dataclass(frozen=True)
class _Layout:
    """How the columns of files become those of rows.

    Args:
        tables: the files that have rows.
        url, caption, source_uid: their names in the files.
        carried: name in the files → field of the rows.
    """

    tables: tuple[tuple[SourceFile, Table], ...]
    url: str | None
    caption: str | None
    source_uid: str | None
    carried: Mapping[str, pa.Field]

    @property
    def names(self) -> list[str]:
        """Columns to read from the files."""
        return [*dict.fromkeys([*filter(None, (self.url, self.caption, self.source_uid)), *self.carried])]

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([*(pa.field(c.name, c.type) for c in _HEAD), *self.carried.values()])


def _layout(files: Sequence[SourceFile], spec: InputSpec) -> _Layout:
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        looked = pool.map(lambda file: open_table(file.path, spec), files)
        tables = [(file, table) for file, table in zip(files, looked, strict=True) if not table.is_empty]
    for key in ("url", "caption", "source_uid"):
        _check_named(key, getattr(spec, key), tables)
    known = {name: None for _, table in tables for name in table.columns}
    source_uid = spec.source_uid or next((name for name in (UID.name, SOURCE_UID.name) if name in known), None)
    used = {spec.url, spec.caption, source_uid}
    wanted = [name for name in (known if spec.columns is None else spec.columns) if name not in used]
    carried: dict[str, pa.Field] = {}
    taken = set(_TAKEN)
    for name in dict.fromkeys(wanted):
        free = name
        while free.lower() in taken:
            free = RENAMED_PREFIX + free
        taken.add(free.lower())
        carried[name] = pa.field(free, _common_type(name, tables))
    return _Layout(tuple(tables), spec.url, spec.caption, source_uid, carried)


def _check_named(key: str, name: str | None, tables: Sequence[tuple[SourceFile, Table]]) -> None:
    for file, table in tables:
        if name is None or name in table.columns or (key == "caption" and table.is_bare):
            continue
        folded = {column.lower(): column for column in table.columns}
        close = difflib.get_close_matches(name.lower(), folded, n=1)
        guess = f"input.{key}={folded[close[0]]}? " if close else ""
        none = f"; input.{key}=null for none" if key != "source_uid" else ""
        hint = f"{guess}columns: {', '.join(table.columns)}{none}"
        raise UserError(f"there is no column {name!r} for {key}", where=shown(file.path), hint=hint)


def _common_type(name: str, tables: Sequence[tuple[SourceFile, Table]]) -> pa.DataType:
    """The type that holds a column's values of all files; a text where numbers meet texts."""
    common: pa.DataType = pa.null()
    is_found = False
    for file, table in tables:
        type = table.columns.get(name)
        is_found = is_found or type is not None or table.is_open
        if type is None or type == common:
            continue
        try:
            fields = [pa.schema([(name, common)]), pa.schema([(name, type)])]
            common = pa.unify_schemas(fields, promote_options="permissive").field(name).type
        except pa.ArrowException as error:
            if pa.types.is_nested(common) or pa.types.is_nested(type):
                what = f"the column {name!r} is {type} here and {common} in another file"
                raise UserError(
                    what, where=shown(file.path), hint="leave it out: list others in input.columns"
                ) from error
            common = pa.string()
    if not is_found and tables:
        hint = f"columns: {', '.join(dict.fromkeys(column for _, table in tables for column in table.columns))}"
        raise UserError(f"no input file has the column {name!r}", where="input.columns", hint=hint)
    return pa.string() if pa.types.is_null(common) else common


def _batch(piece: Rows, file: SourceFile, layout: _Layout) -> pa.RecordBatch:
    urls = _column(piece, layout.url, pa.string(), file)
    captions = _column(piece, layout.caption, pa.string(), file)
    names = [urls.to_pylist(), captions.to_pylist()]
    uids = uids_of_urls(*names)
    errors: dict[int, tuple[str, str]] = dict.fromkeys(_blank(names[layout.url is None]), _missing(layout))
    for i, bad in piece.bad.items():
        uids[i] = uid_of("bad", bad.raw)
        errors[i] = ("bad row", bad.reason)
    columns = [
        pa.array(uids, pa.string()),
        _column(piece, layout.source_uid, pa.string(), file),
        urls,
        captions,
        *_fates(piece.count, errors),
        *(_column(piece, name, field.type, file) for name, field in layout.carried.items()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=layout.schema)


def _column(piece: Rows, name: str | None, type: pa.DataType, file: SourceFile) -> pa.Array:
    array = piece.columns.get(name) if name is not None else None
    if array is None:
        return pa.nulls(piece.count, type)
    if array.type == type:
        return array
    try:
        return array.cast(type, safe=not pa.types.is_floating(type))
    except pa.ArrowException as error:
        what = f"the column {name!r} is {array.type} and cannot be read as {type}: {error}"
        raise UserError(
            what, where=shown(file.path), hint="name another column, or leave it out of input.columns"
        ) from error


def _blank(texts: Sequence[str | None]) -> list[int]:
    return [i for i, text in enumerate(texts) if not text or text.isspace()]


def _missing(layout: _Layout) -> tuple[str, str]:
    """The error of a row without what names it: the URL, or the text where the input has no URLs."""
    return ("missing caption", "the row has no text") if layout.url is None else ("missing url", "the row has no URL")


def _fates(count: int, errors: Mapping[int, tuple[str, str]]) -> list[pa.Array]:
    """Values of fate, fate_step, fate_error and fate_reason."""
    if not errors:
        return [pa.nulls(count, pa.string())] * 4
    told = [(Fate.FAILED.value, INPUT_STEP, *errors[i]) if i in errors else (None,) * 4 for i in range(count)]
    return [pa.array(values, pa.string()) for values in zip(*told, strict=True)]
