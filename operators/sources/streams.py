"""Input files as streams of bytes, stored or unpacked, in which every failure names the file.

What a file system's library raises in the middle of a file is its own affair (aiohttp, botocore and others have each
their classes), so it is turned into a UserError at the call that asks for bytes. What a decoder raises about bad
bytes is known and few. Both are caught around those calls alone: an error in a reader of tables stays what it is.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import fsspec
import pyarrow as pa

from corpusmith.operators.sources.files import compression_of, shown, told
from corpusmith.schemas.errors import UserError

_UNPACKERS: Mapping[str, Callable[[Any], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": lambda stored: pa.CompressedInputStream(pa.PythonFile(stored, "r"), "zstd"),
}


@contextmanager
def open_stored(path: str, *, is_seekable: bool = True) -> Iterator[io.RawIOBase]:
    """The bytes of a file as stored; read from start to end only, a web server need not know ranges.

    Raises:
        UserError: the file cannot be opened or read.
    """
    with _fetching(path):
        fs, inner = fsspec.core.url_to_fs(path)
        options = {} if is_seekable or "http" not in fs.protocol else {"block_size": 0}
        opened = fs.open(inner, "rb", **options)
    with opened:
        yield _Stored(opened, path)


@contextmanager
def open_unpacked(path: str) -> Iterator[io.RawIOBase]:
    """The bytes of a file, decompressed by its suffix, to be read from start to end.

    Raises:
        UserError: the file cannot be opened, read or decompressed.
    """
    with open_stored(path, is_seekable=False) as stored:
        suffix = compression_of(path)
        if suffix is None:
            yield stored
            return
        with _UNPACKERS[suffix](stored) as unpacked:
            yield _Unpacked(unpacked, path)


class _Stored(io.RawIOBase):
    """A file of a file system, which it does not close."""

    def __init__(self, inner: Any, path: str) -> None:
        self._inner = inner
        self._path = path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._inner.seekable()

    def read(self, size: int = -1, /) -> bytes:
        with _fetching(self._path):
            return self._inner.read(size)

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()


class _Unpacked(io.RawIOBase):
    """What a decompressor gives."""

    def __init__(self, inner: Any, path: str) -> None:
        self._inner = inner
        self._path = path

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        with decoding(self._path):
            return self._inner.read(size)


@contextmanager
def _fetching(path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        hint = "check that the file is there and can be reached, and start again"
        raise UserError(f"cannot be read: {told(error, path)}", where=shown(path), hint=hint) from error


@contextmanager
def decoding(path: str) -> Iterator[None]:
    """Tell what decompressors and Arrow raise about bad bytes; UnicodeDecodeError is of names in a Parquet footer.

    Raises:
        UserError: the file is damaged.
    """
    try:
        yield
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
        hint = "it is damaged, cut short, or not what its name says; leave it out or fetch it again"
        raise UserError(f"cannot be read: {told(error, path)}", where=shown(path), hint=hint) from error
