"""Tables of URLs and texts: the rows that a recipe starts from.

Files of several formats and schemas give one stream of batches under one schema: uid, source_uid, url, caption, the
columns of a fate, and whatever else the files carry. What cannot be read, or has no URL, is a row too, with the fate
`failed` at the step `input`: nothing that a file holds is lost without a word.

Columns are looked at first (Parquet footers, header lines, the first lines of JSON), rows are streamed later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.sources.files import SourceFile, shown
from corpusmith.operators.sources.formats import open_tables
from corpusmith.operators.sources.listing import list_files
from corpusmith.operators.sources.names import Names, is_texts, resolve_names
from corpusmith.operators.sources.ordered import in_order
from corpusmith.operators.sources.rows import Rows, Table
from corpusmith.schemas.columns import (
    CAPTION,
    FATE,
    FATE_ERROR,
    FATE_REASON,
    FATE_STEP,
    MEDIA,
    MEDIA_REF,
    MEDIA_SHA256,
    ORIGIN,
    RESERVED_NAMES,
    SOURCE_UID,
    TEXTS,
    UID,
    URL,
    Column,
)
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import Fate
from corpusmith.schemas.identity import child_uid, uid_of, uids_of_media, uids_of_urls
from corpusmith.schemas.recipe import InputSpec

__all__ = ["INPUT_STEP", "SourceFile", "input_names", "input_schema", "list_files", "read_tables"]

INPUT_STEP = "input"
"""The step that rows fail at which cannot be read."""

RENAMED_PREFIX = "source_"
"""Stands before the name of a carried column whose own name is taken."""

_HEAD = (UID, SOURCE_UID, URL, CAPTION, FATE, FATE_STEP, FATE_ERROR, FATE_REASON)
_TAKEN = frozenset({*RESERVED_NAMES, MEDIA.name, SOURCE_UID.name, URL.name, CAPTION.name})
_FILES_AT_ONCE = 16
_READERS = 4
"""Files read at once: as many as decode and hash side by side, few enough to hold little."""
_STAYS = frozenset({"file_name"})
"""Ids that say more than which sample it is, and so are carried as well."""


def input_schema(files: Sequence[SourceFile], spec: InputSpec) -> pa.Schema:
    """The schema of the batches that `read_tables` gives, from a look at the files alone.

    Raises:
        UserError: as `read_tables`.
    """
    return _layout(files, spec).schema


def input_names(files: Sequence[SourceFile], spec: InputSpec) -> Names:
    """Which columns of the files become `url`, `caption` and `source_uid`.

    Raises:
        UserError: as `read_tables`.
    """
    return _layout(files, spec).names


def read_tables(
    files: Sequence[SourceFile],
    spec: InputSpec,
    *,
    batch_rows: int = 65536,
    passed_over: Counter[str] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Stream the rows of input files, file after file, several of them read at once.

    Args:
        files: what to read; see `list_files`.
        spec: format and columns.
        batch_rows: rows in a batch at most.
        passed_over: counts what stood between the rows and was not read, by kind.

    Yields:
        Batches of one schema: `uid`, `source_uid`, `url`, `caption`, `fate`, `fate_step`, `fate_error`, `fate_reason`
        (null but for rows that failed), `media_sha256` and `media_ref` where the files carry media, `texts` where a
        row may have several, `origin` where the files have names, and the carried columns, null where a file lacks
        them. A carried column whose name is taken is called `source_NAME`.

    Raises:
        UserError: a file cannot be read, lacks a column that the recipe names, or there is no row at all.
    """
    layout = _layout(files, spec)
    counter = Counter() if passed_over is None else passed_over
    rows = 0

    def batches(file: SourceFile, table: Table) -> Iterator[tuple[pa.RecordBatch, Mapping[str, int]]]:
        for piece in table.rows(layout.wanted, batch_rows):
            yield _batch(piece, file, layout), piece.passed_over

    for batch, others in in_order([partial(batches, *pair) for pair in layout.tables], _READERS):
        rows += batch.num_rows
        counter.update(others)
        if batch.num_rows:
            yield batch
    if not rows:
        raise _no_rows(files)


def _no_rows(files: Sequence[SourceFile]) -> UserError:
    paths = ", ".join(shown(file.path) for file in files[:3])
    return UserError("the input has no rows", where=paths, hint="check input.path")


@dataclass(frozen=True)
class _Layout:
    """How the columns of files become those of rows.

    Args:
        tables: the files that have rows.
        names: of the address, the texts and the id in the files.
        has_texts: whether rows may have several texts.
        carried: name in the files → field of the rows.
    """

    tables: tuple[tuple[SourceFile, Table], ...]
    names: Names
    has_texts: bool
    carried: Mapping[str, pa.Field]

    @cached_property
    def wanted(self) -> list[str]:
        """Columns to read from the files."""
        names = (self.names.url, *self.names.captions, self.names.source_uid)
        return [*dict.fromkeys([*(name for name in names if name is not None), *self.carried])]

    @cached_property
    def has_media(self) -> bool:
        return any(table.has_media for _, table in self.tables)

    @cached_property
    def has_origins(self) -> bool:
        return any(file.origin for file, _ in self.tables)

    @cached_property
    def made(self) -> tuple[Column, ...]:
        """Columns that are not simply carried."""
        media = (MEDIA_SHA256, MEDIA_REF) if self.has_media else ()
        texts = (TEXTS,) if self.has_texts else ()
        return (*_HEAD, *media, *texts, *((ORIGIN,) if self.has_origins else ()))

    @cached_property
    def schema(self) -> pa.Schema:
        return pa.schema([*(pa.field(c.name, c.type) for c in self.made), *self.carried.values()])


def _layout(files: Sequence[SourceFile], spec: InputSpec) -> _Layout:
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        tables = [(file, table) for file, table in open_tables(files, spec, pool) if not table.is_empty]
    if not tables:
        raise _no_rows(files)
    names = resolve_names(tables, spec)
    _call_lists(tables, names)
    known = {name: type for _, table in tables for name, type in table.columns.items()}
    used = names.all - _STAYS
    wanted = [name for name in (known if spec.columns is None else spec.columns) if name not in used]
    has_texts = len(names.captions) > 1 or any(is_texts(known.get(name, pa.null())) for name in names.captions)
    carried: dict[str, pa.Field] = {}
    taken = {*_TAKEN, *((TEXTS.name,) if has_texts else ())}
    taken |= {ORIGIN.name} if any(file.origin for file in files) else set()
    for name in dict.fromkeys(wanted):
        free = name
        while free.lower() in taken:
            free = RENAMED_PREFIX + free
        taken.add(free.lower())
        carried[name] = pa.field(free, _common_type(name, tables))
    return _Layout(tuple(tables), names, has_texts, carried)


def _call_lists(tables: Sequence[tuple[SourceFile, Table]], names: Names) -> None:
    """Call the columns of lists without names as those of the tables beside them."""
    for _, table in tables:
        if table.is_bare:
            table.columns = {name: pa.string() for name in [names.url or next(iter(names.captions), URL.name)]}


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
    names = layout.names
    urls = _column(piece, names.url, pa.string(), file)
    texts = [_texts(piece, name, file) for name in names.captions]
    captions, every = _joined(texts, names.captions, piece.count, is_several=layout.has_texts)
    errors = _errors(piece, urls, captions, layout)
    media = [piece.sha256, piece.media] if layout.has_media else []
    columns = [
        pa.array(_uids(piece, urls, captions, every), pa.string()),
        _column(piece, names.source_uid, pa.string(), file),
        urls,
        captions,
        *_fates(piece.count, errors),
        *(pa.nulls(piece.count, pa.string()) if values is None else values for values in media),
        *([every] if every is not None else []),
        *([pa.repeat(file.origin, piece.count)] if layout.has_origins else []),
        *(_column(piece, name, field.type, file) for name, field in layout.carried.items()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=layout.schema)


def _uids(piece: Rows, urls: pa.Array, captions: pa.Array, texts: pa.Array | None) -> list[str]:
    has_url = pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(urls), ""), False).to_pylist()
    if piece.sha256 is None or all(has_url):
        uids = uids_of_urls(urls, captions)
    else:
        pairs = zip(has_url, uids_of_urls(urls, captions), uids_of_media(piece.sha256, captions), strict=True)
        uids = [by_url if is_by_url else by_media for is_by_url, by_url, by_media in pairs]
    for i, more in enumerate([] if texts is None else texts.to_pylist()):
        if len(more) > 1:
            # the first text is in the uid already; the others tell the row from one that has not the same
            uids[i] = child_uid(uids[i], "texts", uid_of(*(text["text"] for text in more[1:])))
    for i, part in piece.parts.items():
        if has_url[i]:
            uids[i] = child_uid(uids[i], "part", part)
    for i, bad in piece.bad.items():
        if not (bad.is_read and has_url[i]):
            uids[i] = uid_of("bad", bad.raw)
    return uids


def _errors(piece: Rows, urls: pa.Array, captions: pa.Array, layout: _Layout) -> dict[int, tuple[str, str]]:
    """Position → class and message, of the rows that fail."""
    if layout.has_media:
        absent = pc.is_null(piece.media) if piece.media is not None else pa.array([True] * piece.count)
        missing = ("missing media", "the sample has no image or video")
        lacking = [i for i, is_absent in enumerate(absent.to_pylist()) if is_absent]
    elif layout.names.url is None:
        missing = ("missing caption", "the row has no text")
        lacking = _blank(captions)
    else:
        missing = ("missing url", "the row has no URL")
        lacking = _blank(urls)
    errors: dict[int, tuple[str, str]] = dict.fromkeys(lacking, missing)
    errors.update({i: (bad.error, bad.reason) for i, bad in piece.bad.items()})
    return errors


def _texts(piece: Rows, name: str, file: SourceFile) -> pa.Array:
    """A column of texts, or of lists of texts, as it is."""
    array = piece.columns.get(name)
    if array is not None and is_texts(array.type):
        return array
    return _column(piece, name, pa.string(), file)


def _joined(
    columns: Sequence[pa.Array], kinds: Sequence[str], count: int, *, is_several: bool
) -> tuple[pa.Array, pa.Array | None]:
    """The first text of each row that is not blank; and, where rows may have several, all that are not null."""
    if not is_several:
        return (columns[0] if columns else pa.nulls(count, pa.string())), None
    rows: list[list[dict[str, str]]] = [[] for _ in range(count)]
    for kind, column in zip(kinds, columns, strict=True):
        for i, value in enumerate(column.to_pylist()):
            texts = value if isinstance(value, list) else [value]
            rows[i] += [{"kind": kind, "text": text} for text in texts if text is not None]
    first = [next((one["text"] for one in row if one["text"].strip()), None) for row in rows]
    return pa.array(first, pa.string()), pa.array(rows, TEXTS.type)


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


def _blank(texts: pa.Array) -> list[int]:
    """Positions of texts that are null, empty, or white space alone; few of them have no visible ASCII character."""
    is_plain = pc.fill_null(pc.match_substring_regex(texts, "[!-~]"), False)
    rest = np.flatnonzero(~is_plain.to_numpy(zero_copy_only=False)).tolist()
    values = texts.take(pa.array(rest, pa.int64())).to_pylist()
    return [i for i, text in zip(rest, values, strict=True) if not text or text.isspace()]


def _fates(count: int, errors: Mapping[int, tuple[str, str]]) -> list[pa.Array]:
    """Values of fate, fate_step, fate_error and fate_reason."""
    if not errors:
        return [pa.nulls(count, pa.string())] * 4
    told = [(Fate.FAILED.value, INPUT_STEP, *errors[i]) if i in errors else (None,) * 4 for i in range(count)]
    return [pa.array(values, pa.string()) for values in zip(*told, strict=True)]
