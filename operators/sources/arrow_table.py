"""Hugging Face datasets that `save_to_disk` has written: Arrow streams, mapped into memory and never copied.

An image column is a struct of bytes and path. A value's bytes lie in the file as they are, so its reference is the
address of the value less that of the map. A value that has only a path refers to that file, if it is an image file of
this machine; an address is not followed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from corpusmith.operators.sources.files import SourceFile, label, shown, stamp_of
from corpusmith.operators.sources.parquet_table import plain_type, valid
from corpusmith.operators.sources.references import Reference, mark_of, to_text
from corpusmith.operators.sources.rows import BadRow, Rows, refuse_repeats
from corpusmith.operators.sources.samples import MEDIA_EXTENSIONS
from corpusmith.operators.sources.streams import decoding
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.recipe import AUTO

_HABITS = ("image", "jpg", "img", "picture", "photo", "png", "webp", "video", "mp4")
"""Names of the columns that hold media, the likeliest first."""
_PIECE_BYTES = 1 << 20

Found = tuple[str, str]
"""Reference and sha256."""


class ArrowTable:
    """An Arrow stream with a column of images or videos.

    Args:
        file: the file, of this machine.
        media: name of that column, or `auto`.
    """

    is_open = False
    is_bare = False
    has_media = True

    def __init__(self, file: SourceFile, media: str) -> None:
        if "://" in file.path:
            hint = "copy the dataset to a disk of this machine, or of all nodes"
            raise UserError("a Hugging Face dataset cannot be read from there", where=shown(file.path), hint=hint)
        self._file = file
        with decoding(file.path), pa.memory_map(file.path) as mapped, pa.ipc.open_stream(mapped) as stream:
            schema = stream.schema
            self.is_empty = next(iter(stream), None) is None
        refuse_repeats(schema.names, file.path)
        held = [field.name for field in schema if _holds_media(field.type)]
        self._media = _chosen(media, held, schema, file)
        self.columns = {f.name: plain_type(f.type) for f in schema if f.name not in held}
        self._passed_over = [name for name in held if name != self._media]

    def rows(self, names: Sequence[str], batch_rows: int) -> Iterator[Rows]:
        wanted = [name for name in names if name in self.columns]
        with decoding(self._file.path), pa.memory_map(self._file.path) as mapped:
            # a view of the whole file, into which the buffers of all batches point
            whole = mapped.read_buffer()
            first = 0
            with pa.ipc.open_stream(whole) as stream:
                for batch in stream:
                    for start in range(0, batch.num_rows, batch_rows):
                        piece = batch.slice(start, batch_rows)
                        yield self._rows(piece, wanted, whole, first)
                        first += piece.num_rows

    def _rows(self, batch: pa.RecordBatch, wanted: Sequence[str], whole: pa.Buffer, first: int) -> Rows:
        columns: dict[str, pa.Array] = {}
        bad: dict[int, BadRow] = {}
        where = label(self._file.path)
        for name in wanted:
            array = batch.column(name)
            array = array.cast(self.columns[name]) if pa.types.is_dictionary(array.type) else array
            columns[name], wrong = valid(array)
            for i in wrong:
                raw = array[i].cast(pa.large_binary()).as_py()
                bad.setdefault(i, BadRow(raw, f"{where}: row {first + i + 1}: invalid UTF-8 in {name!r}"))
        found: list[Found | None] = []
        for i, one in enumerate(self._media_of(batch, whole)):
            found.append(one if isinstance(one, tuple) else None)
            if not isinstance(one, tuple):
                raw = f"{self._file.path}\n{first + i}\n{one}".encode("utf-8", "surrogatepass")
                bad.setdefault(i, BadRow(raw, f"{where}: row {first + i + 1}: {one}", "missing media", is_read=True))
        passed_over = {f"values of {name}": int(batch.num_rows) for name in self._passed_over}
        pairs = [None if i in bad else pair for i, pair in enumerate(found)]
        media = pa.array([pair and pair[0] for pair in pairs], pa.string())
        sha256 = pa.array([pair and pair[1] for pair in pairs], pa.string())
        return Rows(batch.num_rows, columns, bad, media, sha256, passed_over=passed_over)

    def _media_of(self, batch: pa.RecordBatch, whole: pa.Buffer) -> Iterator[Found | str]:
        """For each row reference and sha256, or what is wrong."""
        array = batch.column(self._media)
        array.validate(full=True)
        if not pa.types.is_struct(array.type):
            yield from (one or "no image" for one in self._in_file(array, whole))
            return
        is_there = array.is_valid().to_pylist()
        paths: list[str | None] = [None] * len(array)
        if array.type.get_field_index("path") >= 0:
            paths = array.field("path").to_pylist()
        values = array.field("bytes")
        for one, is_valid, path in zip(self._in_file(values, whole), is_there, paths, strict=True):
            if not is_valid:
                yield "no image"
            else:
                yield one or (_beside(path) if path else "no image")

    def _in_file(self, values: pa.Array, whole: pa.Buffer) -> Iterator[Found | None]:
        """Where the values lie in the file; None for a null or an empty one."""
        offset_bytes = 8 if pa.types.is_large_binary(values.type) else 4
        _, offsets_buffer, data = values.buffers()
        if data is None or not data.size or offsets_buffer is None:
            yield from [None] * len(values)
            return
        base = data.address - whole.address
        if base < 0 or base + data.size > whole.size:
            hint = "save it again with `save_to_disk`: its values lie in the file as they are"
            raise UserError("the Arrow file is compressed", where=shown(self._file.path), hint=hint)
        every = memoryview(offsets_buffer).cast("B").cast("q" if offset_bytes == 8 else "i")
        offsets = every[values.offset : values.offset + len(values) + 1]
        content = memoryview(whole)
        mark = mark_of(self._file.size, self._file.stamp)
        for i, is_valid in enumerate(values.is_valid().to_pylist()):
            start, size = base + offsets[i], offsets[i + 1] - offsets[i]
            if not is_valid or not size:
                yield None
                continue
            digest = hashlib.sha256(content[start : start + size]).hexdigest()
            yield to_text(Reference(self._file.path, start, size, mark)), digest


def _holds_media(type: pa.DataType) -> bool:
    if pa.types.is_struct(type):
        index = type.get_field_index("bytes")
        return index >= 0 and _is_bytes(type.field(index).type)
    return _is_bytes(type)


def _is_bytes(type: pa.DataType) -> bool:
    return pa.types.is_binary(type) or pa.types.is_large_binary(type)


def _chosen(wanted: str, held: Sequence[str], schema: pa.Schema, file: SourceFile) -> str:
    if wanted != AUTO and wanted not in held:
        hint = f"columns that hold some: {', '.join(held) or 'none'}"
        raise UserError(f"there are no images in a column {wanted!r}", where=shown(file.path), hint=hint)
    if not held:
        hint = f"columns: {', '.join(schema.names)}; images are structs of bytes and path, or bytes"
        raise UserError("the dataset has no column of images", where=shown(file.path), hint=hint)
    return wanted if wanted != AUTO else next((name for name in _HABITS if name in held), held[0])


def _beside(path: str) -> Found | str:
    """Reference and sha256 of an image file that a dataset names, or why it is not taken."""
    if "://" in path:
        return "no bytes, and an address is not followed"
    file = Path(path)
    if file.suffix.lower()[1:] not in MEDIA_EXTENSIONS or not file.is_absolute():
        return "no bytes, and the path leads to no image file of this machine"
    try:
        if not file.is_file():
            return "no bytes, and there is no such file as the path names"
        digest = hashlib.sha256()
        with file.open("rb", buffering=0) as stream:
            status = os.fstat(stream.fileno())
            while piece := stream.read(_PIECE_BYTES):
                digest.update(piece)
    except OSError as error:
        return f"no bytes, and the file cannot be read: {error.strerror}"
    if not status.st_size:
        return "the file has no bytes"
    mark = mark_of(status.st_size, stamp_of({"mtime": status.st_mtime}))
    return to_text(Reference(path, 0, status.st_size, mark)), digest.hexdigest()
