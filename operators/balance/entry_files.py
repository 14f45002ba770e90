"""Entries files: the lists of entries that texts are matched against, as a versioned Parquet, a text file or JSON.

The Parquet is what `corpusmith entries build` writes: an entry a row, with where it comes from, its language (null for
all) and what it was chosen by; its metadata says how it was made and holds the list's fingerprint, so that a file
which was cut or edited on the way is noticed. Text and JSON are lists as the field passes them around: MetaCLIP's
metadata.json is a JSON list, MetaCLIP 2's per-language files are objects from entry to a mark of its source.

A list is taken as it is, order and duplicates included, for the published match test counts each of equal entries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpusmith.operators.sources.files import shown
from corpusmith.operators.sources.streams import decoding, open_stored
from corpusmith.schemas.errors import UserError

FORMAT_VERSION = 1
SUFFIXES = (".parquet", ".json", ".txt")
SCHEMA = pa.schema(
    [
        pa.field("entry", pa.large_string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("language", pa.string()),
        pa.field("count", pa.int64()),
        pa.field("pmi", pa.float64()),
        pa.field("views", pa.int64()),
    ]
)
"""Columns of an entries file. `source` names what an entry comes from, `count` is occurrences in the counted texts,
`pmi` pointwise mutual information in bits, `views` those of a page title; null where they do not apply."""

_METADATA_KEY = b"corpusmith.entries"
_REBUILD = "build it again: corpusmith entries build OUT.parquet --from FILE takes any list or table of entries"


@dataclass(frozen=True)
class Entries:
    """A list of entries.

    Args:
        texts: large_string, without nulls, in the file's order, duplicates included.
        languages: string, one for each entry, null for an entry of all languages; None where no entry names one.
        fingerprint: sha256 of texts and languages in their order.
    """

    texts: pa.Array
    languages: pa.Array | None
    fingerprint: str

    def __len__(self) -> int:
        return len(self.texts)


def fingerprint(entries: Iterable[str] | pa.Array, languages: pa.Array | None = None) -> str:
    """sha256 of a list, order included; lengths stand before the bytes, so no two lists give the same bytes.

    Args:
        entries: the texts, none null.
        languages: one for each, or null; None and all null are the same list.
    """
    texts: Any = entries if isinstance(entries, pa.Array) else pa.array(list(entries), pa.large_string())
    digest = hashlib.sha256(b"%d;" % len(texts))
    for column in [texts] if languages is None or languages.null_count == len(languages) else [texts, languages]:
        lengths = pc.fill_null(pc.binary_length(column).cast(pa.int64()), -1)
        digest.update(lengths.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        digest.update(_bytes(column))
    return digest.hexdigest()


def _bytes(strings: pa.Array) -> memoryview:
    """The bytes of strings, one after the other."""
    plain = strings.drop_null().cast(pa.large_binary())
    _, offsets_buffer, data = plain.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64, len(plain) + 1, 8 * plain.offset) if len(plain) else [0, 0]
    return memoryview(data or b"")[offsets[0] : offsets[-1]]


def entries_of(texts: pa.Array, languages: pa.Array | None = None) -> Entries:
    """A list in hand as `read_entries` would give it."""
    texts = texts.cast(pa.large_string())
    if languages is not None and languages.null_count == len(languages):
        languages = None
    return Entries(texts, languages, fingerprint(texts, languages))


def entries_table(columns: pa.Table, how: Mapping[str, Any]) -> pa.Table:
    """The table of an entries file, ready to be written: with the metadata that `read_entries` asks for.

    Args:
        columns: of SCHEMA.
        how: what the list was made of and by which options; JSON values.
    """
    table = columns.select(SCHEMA.names).cast(SCHEMA).combine_chunks()
    told = {
        "format_version": FORMAT_VERSION,
        "entries": table.num_rows,
        "fingerprint": fingerprint(_whole(table, "entry"), _whole(table, "language")),
        "built": dict(how),
    }
    return table.replace_schema_metadata({_METADATA_KEY: json.dumps(told, ensure_ascii=False).encode()})


def list_metadata(table: pa.Table) -> dict[str, Any]:
    """What the table of an entries file says of itself: `format_version`, `entries`, `fingerprint`, `built`."""
    return json.loads((table.schema.metadata or {})[_METADATA_KEY])


def read_entries(path: str) -> Entries:
    """The entries of a file.

    Args:
        path: local, or a URL such as s3://bucket/entries.parquet. A `.parquet` is one that `corpusmith entries build`
            has written. A `.txt` holds one entry a line, empty lines are none. A `.json` holds a list of strings; an
            object whose keys are the entries and whose values strings, as MetaCLIP 2 has them; or an object of lists,
            a language each. UTF-8.

    Raises:
        UserError: the file cannot be read, or is no such list, or holds no entry.
    """
    with open_stored(path) as stream:
        data = stream.read()
    try:
        if path.lower().endswith(".parquet"):
            entries = _from_table(*_open(data, path)[:2], path)
        else:
            entries = entries_of(*_from_text(data, path))
    except (ValueError, pa.ArrowException) as error:
        raise UserError(f"entries cannot be read: {error}", where=shown(path)) from error
    if not len(entries):
        raise UserError("the list holds no entry", where=shown(path), hint="name the file that was meant")
    return entries


def read_table(path: str) -> pa.Table:
    """All columns of an entries file, a Parquet; see `list_metadata`.

    Raises:
        UserError: the file cannot be read, or is no entries file.
    """
    with open_stored(path) as stream:
        data = stream.read()
    try:
        table, told = _open(data, path, SCHEMA.names)
        _from_table(table, told, path)
    except (ValueError, pa.ArrowException) as error:
        raise UserError(f"entries cannot be read: {error}", where=shown(path)) from error
    return table


def is_entries_file(path: str) -> bool:
    """Whether a Parquet says that it is an entries file.

    Raises:
        UserError: it cannot be read.
    """
    with open_stored(path) as stream, decoding(path):
        return _METADATA_KEY in (pq.read_schema(stream).metadata or {})


def _open(data: bytes, path: str, columns: Iterable[str] = ("entry", "language")) -> tuple[pa.Table, dict[str, Any]]:
    file = pq.ParquetFile(pa.BufferReader(data))
    metadata = file.schema_arrow.metadata or {}
    if _METADATA_KEY not in metadata:
        raise UserError("a Parquet, but no entries file: its format version is missing", where=path, hint=_REBUILD)
    told = json.loads(metadata[_METADATA_KEY])
    if told["format_version"] != FORMAT_VERSION:
        what = f"an entries file of format {told['format_version']}; this corpusmith reads format {FORMAT_VERSION}"
        raise UserError(what, where=path, hint="build it again, or use the corpusmith that wrote it")
    if not file.schema_arrow.remove_metadata().equals(SCHEMA):
        raise UserError("its columns are not those of an entries file", where=path, hint=_REBUILD)
    return file.read(columns=list(columns)), told


def _from_table(table: pa.Table, told: Mapping[str, Any], path: str) -> Entries:
    table.validate(full=True)
    entries = entries_of(_whole(table, "entry"), _whole(table, "language"))
    if entries.fingerprint != told["fingerprint"]:
        raise UserError("its entries are not those that it was written with", where=path, hint=_REBUILD)
    return entries


def _whole(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name).combine_chunks()
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


def _from_text(data: bytes, path: str) -> tuple[pa.Array, pa.Array | None]:
    text = data.decode("utf-8-sig")
    if not path.lower().endswith(".json"):
        lines = text.replace("\r\n", "\n").split("\n")
        return pa.array([line for line in lines if line], pa.large_string()), None
    listed, languages = _from_json(json.loads(text))
    if not all(map(_is_text, listed)):
        hint = 'write ["cat", "New York"], or {"en": ["cat"], "ja": ["猫"]}'
        raise UserError("not a list of strings", where=shown(path), hint=hint)
    return pa.array(listed, pa.large_string()), None if languages is None else pa.array(languages, pa.string())


def _from_json(value: Any) -> tuple[list[Any], list[str] | None]:
    """Entries and their languages; [None] for what is neither list nor object of the known forms."""
    if isinstance(value, list):
        return value, None
    if not isinstance(value, dict) or not value:
        return [None], None
    if all(isinstance(listed, list) for listed in value.values()):
        pairs = [(entry, language) for language, listed in value.items() for entry in listed]
        return [entry for entry, _ in pairs], [language for _, language in pairs]
    return list(value) if all(map(_is_text, value.values())) else [None], None


def _is_text(value: object) -> bool:
    """Whether a value is a string of whole characters: JSON can write half of one."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)
