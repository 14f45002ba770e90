"""Input: files of URLs, cut into shards in their order, as img2dataset cuts them.

A shard never spans two files, and a row without a URL keeps its place: so the same input gives the same keys, whatever
was finished before, and keys agree with those that img2dataset gave.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa

from corpusmith.operators.sources.streams import open_unpacked
from corpusmith.operators.sources.tables import RENAMED_PREFIX, SourceFile, list_files, read_tables
from corpusmith.pipelines.img2dataset.flags import Flags
from corpusmith.schemas.columns import CAPTION, SOURCE_UID, UID, URL
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.recipe import InputSpec

EXPECTED = "expected_hash"
"""Column of the hash that the bytes must have; no column of the output."""

_READ_ROWS = 16384


@dataclass(frozen=True)
class InputShard:
    """Rows of one shard to be.

    Args:
        number: of the shard.
        rows: url, caption (where asked for), the further columns under their own names, and `EXPECTED`.
    """

    number: int
    rows: pa.Table


def input_files(flags: Flags) -> list[SourceFile]:
    """The files of URLs, sorted by path.

    Raises:
        UserError: there are none.
    """
    path = flags.url_list
    fs, inner = fsspec.core.url_to_fs(path)
    if fs.isdir(inner):
        return list_files(f"{path.rstrip('/')}/*.{flags.input_format}")
    return list_files(path)


def input_shards(flags: Flags, first_number: int) -> Iterator[InputShard]:
    """The shards of the input, numbered from `first_number`.

    Raises:
        UserError: a file cannot be read or lacks a column.
    """
    number = first_number
    for file in input_files(flags):
        for rows in _cut(_rows(file, flags), flags.number_sample_per_shard):
            yield InputShard(number, rows)
            number += 1


def _cut(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of `size`, the last one perhaps shorter."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        if count < size:
            continue
        whole = pa.concat_tables(waiting)
        start = 0
        while count - start >= size:
            yield whole.slice(start, size)
            start += size
        waiting, count = [whole.slice(start)], count - start
    if count:
        yield pa.concat_tables(waiting)


def _wanted(flags: Flags) -> dict[str, str]:
    """Column of the rows → its name in the file, URL and caption apart."""
    wanted = {name: name for name in flags.save_additional_columns or ()}
    if flags.verify_hash:
        wanted[EXPECTED] = flags.verify_hash[0]
    if flags.bbox_col:
        wanted[flags.bbox_col] = flags.bbox_col
    return wanted


def _rows(file: SourceFile, flags: Flags) -> Iterator[pa.Table]:
    if flags.input_format.startswith("json") and not flags.input_format.startswith("jsonl"):
        yield _json_table(file, flags)
        return
    wanted = _wanted(flags)
    own_ids = [name for name in (UID.name, SOURCE_UID.name) if name in wanted.values()]
    spec = InputSpec(
        format=flags.input_format.removesuffix(".gz"),  # pyright: ignore[reportArgumentType]
        url=flags.url_col,
        caption=flags.caption_col,
        source_uid=own_ids[0] if own_ids else None,
        columns=list(dict.fromkeys(name for name in wanted.values() if name not in own_ids[:1])),
    )
    for batch in read_tables([file], spec, batch_rows=min(_READ_ROWS, flags.number_sample_per_shard)):
        found = {URL.name: batch.column(URL.name)}
        if flags.caption_col:
            found[CAPTION.name] = batch.column(CAPTION.name)
        for name, inner in wanted.items():
            found[name] = batch.column(SOURCE_UID.name if inner in own_ids[:1] else _carried(inner, batch))
        yield pa.table(found)


def _carried(name: str, batch: pa.RecordBatch) -> str:
    """What a column of the file is called in the rows of `read_tables`, which keeps some names for itself."""
    names = batch.schema.names
    while f"{RENAMED_PREFIX}{name}" in names:
        name = f"{RENAMED_PREFIX}{name}"
    return name


def _json_table(file: SourceFile, flags: Flags) -> pa.Table:
    """A JSON file of rows (`[{…}, …]`) or of columns (`{"url": […], …}`, `{"url": {"0": …}, …}`)."""
    with open_unpacked(file.path) as stream:
        try:
            parsed = json.loads(stream.read())
        except ValueError as error:
            raise UserError(f"is no JSON: {error}", where=file.path, hint="is it jsonl, an object a line?") from error
    names = {URL.name: flags.url_col}
    if flags.caption_col:
        names[CAPTION.name] = flags.caption_col
    names |= _wanted(flags)
    columns = {name: _json_column(parsed, inner, file) for name, inner in names.items()}
    for name in {URL.name, CAPTION.name} & columns.keys():
        columns[name] = [value if value is None else str(value) for value in columns[name]]
    try:
        return pa.table({name: _array(values, name) for name, values in columns.items()})
    except (pa.ArrowException, UnicodeEncodeError) as error:
        raise UserError(f"columns cannot be read: {error}", where=file.path, hint="give it as jsonl") from error


def _array(values: list[Any], name: str) -> pa.Array:
    return pa.array(values, pa.string() if name in (URL.name, CAPTION.name) else None)


def _json_column(parsed: Any, name: str, file: SourceFile) -> list[Any]:
    if isinstance(parsed, Mapping):
        column = parsed.get(name)
        values = list(column.values()) if isinstance(column, Mapping) else column
        if isinstance(values, list):
            return values
    elif isinstance(parsed, list):
        rows = [row for row in parsed if isinstance(row, Mapping)]
        if len(rows) == len(parsed) and any(name in row for row in rows):
            return [row.get(name) for row in rows]
    raise UserError(f"there is no column {name!r}", where=file.path, hint="--url_col, --caption_col name the columns")
