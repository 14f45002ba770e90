"""Input files: found by path, folder or pattern on any file system that fsspec knows, and opened as plain bytes.

Credentials and endpoints come from the environment, as the protocol's library reads them.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec
import pyarrow as pa
from fsspec.core import has_magic

from corpusmith.schemas.errors import UserError
from corpusmith.schemas.urls import redact_url

FORMATS: Mapping[str, str] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_UNPACKERS: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
COMPRESSIONS = (*_UNPACKERS, ".zst")
_STAMPS = ("ETag", "etag", "md5Hash", "checksum", "content_md5", "mtime", "LastModified", "last_modified", "created")


@dataclass(frozen=True)
class SourceFile:
    """One input file.

    Args:
        path: local path, or URL with its protocol.
        size: bytes as stored.
        stamp: what changes when the content does: a checksum or a time of change, as the file system gives it; empty
            where it gives neither, as some web servers do.
    """

    path: str
    size: int
    stamp: str


def list_files(paths: str | Sequence[str]) -> list[SourceFile]:
    """Find input files.

    Args:
        paths: files, folders, and patterns (`*`, `**`, `?`, `[…]`), local or as URLs. A folder is searched with all
            below it for files of a known format, those left out whose names start with a dot or an underscore; a
            pattern matches no file that starts with a dot.

    Returns:
        Each file once, sorted by path.

    Raises:
        UserError: a path is missing, a pattern or folder matches nothing, or a file system cannot be reached.
    """
    found: dict[str, SourceFile] = {}
    for path in [paths] if isinstance(paths, str) else paths:
        found.update((file.path, file) for file in _files_at(path))
    if not found:
        raise UserError("no input files are named", hint="give input.path a file, a folder or a pattern")
    return [found[path] for path in sorted(found)]


def _files_at(path: str) -> list[SourceFile]:
    where = shown(path)
    try:
        fs, inner = fsspec.core.url_to_fs(path if "://" in path else str(Path(path).expanduser()))
        listed = list(_list(fs, inner))
    except FileNotFoundError as error:
        hint = "check input.path; a pattern such as urls/*.parquet takes several files"
        raise UserError("there is no such file or folder", where=where, hint=hint) from error
    except Exception as error:
        told = str(error).replace(path, where)
        hint = "check the path and the credentials; s3:// paths need pip install 'corpusmith[s3]'"
        raise UserError(f"cannot be listed: {type(error).__name__}: {told}", where=where, hint=hint) from error
    if not listed:
        what = "no file matches the pattern" if has_magic(path) else "the folder holds no table"
        raise UserError(
            what, where=where, hint=f"tables end in {', '.join(FORMATS)}, compressed ones in .csv.gz and so on"
        )
    return [_source_file(fs, info) for info in listed]


def _list(fs: Any, path: str) -> Iterator[dict[str, Any]]:
    is_web = "http" in fs.protocol
    if has_magic(path) and not is_web and not fs.exists(path):
        for name, info in fs.glob(path, detail=True).items():
            if info["type"] == "file" and not PurePosixPath(name).name.startswith("."):
                yield info
        return
    info = fs.info(path)
    if is_web or info["type"] == "file":
        yield info
        return
    for name, below in fs.find(path, detail=True).items():
        parts = PurePosixPath(name).relative_to(path.rstrip("/") or "/").parts
        if _format(name) and not any(part.startswith((".", "_")) for part in parts):
            yield below


def _source_file(fs: Any, info: dict[str, Any]) -> SourceFile:
    is_local = "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)
    path = info["name"] if is_local else fs.unstrip_protocol(info["name"])
    stamp = next((str(info[key]) for key in _STAMPS if info.get(key) is not None), "")
    return SourceFile(path, int(info.get("size") or 0), stamp)


def format_of(path: str, given: str | None) -> str:
    """Format of a file: as given, or by its name.

    Raises:
        UserError: the name does not tell, or the format cannot be compressed from outside.
    """
    found = given or _format(path)
    if found is None:
        hint = f"set input.format, or name the file with one of {', '.join(FORMATS)}"
        raise UserError("the name does not tell the table's format", where=shown(path), hint=hint)
    if found == "parquet" and _name(path).endswith(COMPRESSIONS):
        raise UserError(
            "a Parquet file that is compressed from outside cannot be read", where=shown(path), hint="unpack it"
        )
    return found


def _format(path: str) -> str | None:
    name = _name(path)
    for suffix in COMPRESSIONS:
        name = name.removesuffix(suffix)
    return FORMATS.get(PurePosixPath(name).suffix)


def _name(path: str) -> str:
    plain = path.partition("?")[0] if path.startswith(("http://", "https://")) else path
    return PurePosixPath(plain).name.lower()


def shown(path: str) -> str:
    """A path as errors show it: without what grants access."""
    return redact_url(path) if "://" in path else path


def label(path: str) -> str:
    """A file's name as a failed row's reason shows it: the same wherever the file lies."""
    return PurePosixPath(shown(path).partition("?")[0]).name


@contextmanager
def open_stored(path: str, *, is_seekable: bool = True) -> Iterator[IO[bytes]]:
    """The bytes of a file as stored; read from start to end only, a web server need not know ranges.

    Raises:
        UserError: the file cannot be opened or read.
    """
    with _readable(path):
        fs, inner = fsspec.core.url_to_fs(path)
        options = {} if is_seekable or "http" not in fs.protocol else {"block_size": 0}
        with fs.open(inner, "rb", **options) as stream:
            yield stream


@contextmanager
def open_unpacked(path: str) -> Iterator[Any]:
    """The bytes of a file, decompressed by its suffix; something with `read(size)`.

    Raises:
        UserError: the file cannot be opened, read or decompressed.
    """
    with open_stored(path, is_seekable=False) as stored:
        suffix = PurePosixPath(_name(path)).suffix
        if suffix == ".zst":
            yield pa.CompressedInputStream(pa.PythonFile(stored, "r"), "zstd")
        elif suffix in _UNPACKERS:
            with _UNPACKERS[suffix](stored) as unpacked:
                yield unpacked
        else:
            yield stored


@contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, pa.ArrowException, ImportError) as error:
        told = str(error).replace(path, shown(path))
        hint = "it is damaged, cut short, or not what its name says; leave it out or fetch it again"
        raise UserError(f"cannot be read: {type(error).__name__}: {told}", where=shown(path), hint=hint) from error
