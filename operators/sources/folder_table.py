"""Folders of image files, with texts beside them or tables that tell of them.

`a/cat.jpg` goes with `a/cat.txt` or `a/cat.caption` (the text) and `a/cat.json` (further columns), and with the row of
`a/metadata.csv`, `.jsonl` or `.parquet` whose `file_name` is `cat.jpg`, as Hugging Face's imagefolder has it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa

from corpusmith.operators.sources.csv_table import CsvTable
from corpusmith.operators.sources.files import SourceFile, shown, told
from corpusmith.operators.sources.json_table import JsonTable
from corpusmith.operators.sources.lines import is_unicode
from corpusmith.operators.sources.listing import METADATA_NAMES
from corpusmith.operators.sources.parquet_table import ParquetTable
from corpusmith.operators.sources.references import Reference, mark_of, to_text
from corpusmith.operators.sources.rows import BadRow, Rows
from corpusmith.operators.sources.samples import MAX_SIDECAR_BYTES, MEDIA_EXTENSIONS
from corpusmith.operators.sources.sidecars import Told, columns_of, fill_columns, tell
from corpusmith.schemas.errors import UserError

FILE_NAME = "file_name"
"""Path of an image below the folder; in metadata tables, below the table's own folder."""

PART_FILES = 2048
"""Images read as one table, several of which are read side by side."""

_TEXT_SUFFIXES = (".txt", ".caption")
_PIECE_BYTES = 1 << 20
_BATCH_ROWS = 512


class FolderTable:
    """Some of the images of a folder.

    Args:
        images: the image files.
        beside: path of a sidecar → its file.
        metadata: path of an image → what a table tells of it.
        lost: names that tables tell of and the folder does not hold, with what is told.
        look_rows: images whose sidecars decide columns and types.
    """

    is_open = True
    is_bare = False
    has_media = True
    is_empty = False

    def __init__(
        self,
        images: Sequence[SourceFile],
        beside: Mapping[str, SourceFile],
        metadata: Mapping[str, Mapping[str, Any]],
        lost: Sequence[Told],
        look_rows: int,
    ) -> None:
        self._images = images
        self._beside = beside
        self._metadata = metadata
        self._lost = lost
        looked = [self._tell(image) for image in images[:look_rows]]
        self.columns = {**columns_of([*looked, *lost[:look_rows]]), FILE_NAME: pa.string()}

    def rows(self, names: Sequence[str], batch_rows: int) -> Iterator[Rows]:
        wanted = {name: self.columns.get(name, pa.string()) for name in names if name != FILE_NAME}
        step = min(batch_rows, _BATCH_ROWS)
        for start in range(0, len(self._images), step):
            yield self._rows(self._images[start : start + step], wanted)
        for start in range(0, len(self._lost), step):
            yield self._filled(self._lost[start : start + step], [None] * step, wanted)

    def _rows(self, images: Sequence[SourceFile], wanted: Mapping[str, pa.DataType]) -> Rows:
        samples = [self._tell(image) for image in images]
        found = [self._digest(image, sample) for image, sample in zip(images, samples, strict=True)]
        return self._filled(samples, found, wanted)

    def _filled(
        self, samples: Sequence[Told], found: Sequence[tuple[str, str] | None], wanted: Mapping[str, pa.DataType]
    ) -> Rows:
        columns, bad = fill_columns(samples, wanted)
        columns[FILE_NAME] = pa.array([s.name if is_unicode(s.name) else None for s in samples], pa.string())
        pairs = [None if i in bad else found[i] for i in range(len(samples))]
        media = pa.array([pair and pair[0] for pair in pairs], pa.string())
        return Rows(len(samples), columns, bad, media, pa.array([pair and pair[1] for pair in pairs], pa.string()))

    def _tell(self, image: SourceFile) -> Told:
        stem = image.path.removesuffix(PurePosixPath(image.path).suffix)
        texts = [self._beside[stem + suffix] for suffix in _TEXT_SUFFIXES if stem + suffix in self._beside]
        values = self._beside.get(f"{stem}.json")
        problem = ""
        try:
            text = _small(texts[0]) if texts else None
            json = _small(values) if values is not None else None
        except _UnusableError as error:
            text = json = None
            problem = str(error)
        sample = tell(inside(image), text, json, problem)
        if image.path in self._metadata:
            sample.values = {**self._metadata[image.path], **sample.values}
        return sample

    def _digest(self, image: SourceFile, sample: Told) -> tuple[str, str] | None:
        """Reference and sha256 of an image; None, and the sample has failed, where it cannot be used."""
        try:
            _check_place(image)
            digest = hashlib.sha256()
            size = 0
            for piece in _pieces(image):
                digest.update(piece)
                size += len(piece)
        except _UnusableError as error:
            sample.fail(error.kind, str(error))
            return None
        if not size:
            sample.fail("missing media", "the file has no bytes")
            return None
        if size != image.size and image.stamp:
            what = f"the file has {size} bytes and had {image.size} when the input was listed"
            raise UserError(what, where=shown(image.path), hint="start again when nothing writes there any more")
        return to_text(Reference(image.path, 0, size, mark_of(image.size, image.stamp))), digest.hexdigest()


class _UnusableError(Exception):
    """A file that cannot be used, and the class of that error."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(problem)
        self.kind = kind


def inside(file: SourceFile) -> str:
    """A file's path below the folder that the recipe names."""
    return file.path.removeprefix(file.root.rstrip("/") + "/")


def folder_tables(files: Sequence[SourceFile], look_rows: int) -> Iterator[tuple[SourceFile, FolderTable]]:
    """The images of folders as tables of at most PART_FILES images; each with the first of its files.

    Raises:
        UserError: a metadata table cannot be read, or has no column `file_name`.
    """
    images = [file for file in files if PurePosixPath(file.path).suffix.lower()[1:] in MEDIA_EXTENSIONS]
    known = {file.path for file in images}
    beside = {file.path: file for file in files if file.path not in known}
    tables = [file for file in beside.values() if PurePosixPath(file.path).name in METADATA_NAMES]
    metadata: dict[str, Mapping[str, Any]] = {}
    lost: dict[str, list[Told]] = {image.origin: [] for image in images}
    for table in tables:
        for path, told_of in _metadata(table):
            if path in known:
                metadata[path] = told_of.values
            else:
                lost[table.origin].append(told_of)
    for origin in lost:
        own = [image for image in images if image.origin == origin]
        for start in range(0, len(own), PART_FILES):
            part, ends = own[start : start + PART_FILES], start + PART_FILES >= len(own)
            yield part[0], FolderTable(part, beside, metadata, lost[origin] if ends else (), look_rows)


def _metadata(file: SourceFile) -> Iterator[tuple[str, Told]]:
    """Path of an image → what a metadata table tells of it, or why its row cannot be used."""
    suffix = PurePosixPath(file.path).suffix
    readers = {".csv": lambda: CsvTable(file.path, ","), ".jsonl": lambda: JsonTable(file.path)}
    table = readers.get(suffix, lambda: ParquetTable(file.path))()
    if FILE_NAME not in table.columns and not table.is_empty:
        hint = f"columns: {', '.join(table.columns)}"
        raise UserError(f"a metadata table needs the column {FILE_NAME!r}", where=shown(file.path), hint=hint)
    folder = file.path.rpartition("/")[0]
    for piece in table.rows(list(table.columns), _BATCH_ROWS):
        rows = pa.table(dict(piece.columns)).to_pylist() if piece.columns else []
        for i, row in enumerate(rows):
            name = row.pop(FILE_NAME, None)
            path = f"{folder}/{name or ''}"
            sample = Told(inside(SourceFile(path, 0, "", root=file.root)), values=row)
            bad: BadRow | None = piece.bad.get(i)
            if bad is not None:
                sample.fail(bad.error, bad.reason)
            sample.fail("missing media", "a metadata table names it, and there is no such image file")
            yield path, sample


@lru_cache(16)
def _file_system(root: str) -> Any:
    return fsspec.core.url_to_fs(root)[0]


def _check_place(image: SourceFile) -> None:
    """Refuse what is no regular file, or lies outside the folder behind a link."""
    if "://" in image.path:
        return
    path = Path(image.path)
    try:
        status = path.stat()
    except OSError as error:
        problem = "a link that leads nowhere" if path.is_symlink() else str(error.strerror)
        raise _UnusableError("unreadable", problem) from error
    if not stat.S_ISREG(status.st_mode):
        raise _UnusableError("unreadable", "no regular file")
    root = _real(image.root)
    place = os.path.realpath(path) if path.is_symlink() else f"{_real(str(path.parent))}/{path.name}"
    if not place.startswith(root.rstrip("/") + "/"):
        raise _UnusableError("outside the folder", "a link leads out of the input's folder")


@lru_cache(4096)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def _pieces(file: SourceFile) -> Iterator[bytes]:
    """The bytes of a file, at most 1 MiB at once.

    Raises:
        _UnusableError: it cannot be read.
    """
    try:
        fs = None if "://" not in file.path else _file_system(file.root)
        with Path(file.path).open("rb", buffering=0) if fs is None else fs.open(file.path, "rb") as stream:
            while piece := stream.read(_PIECE_BYTES):
                yield piece
    except Exception as error:  # what a file system's library raises is its own affair; the row tells it
        raise _UnusableError("unreadable", told(error, file.path)) from error


def _small(file: SourceFile) -> bytes:
    """The bytes of a text or JSON beside an image."""
    _check_place(file)
    if file.size > MAX_SIDECAR_BYTES:
        raise _UnusableError("bad row", f"{PurePosixPath(file.path).suffix} has {file.size} bytes")
    return b"".join(_pieces(file))
