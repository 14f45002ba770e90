"""Input files: found by path, folder or pattern on any file system that fsspec knows, and known by their names.

Credentials and endpoints come from the environment, as the protocol's library reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
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
    ".txt": "txt",
}
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
_UNSOUGHT_FORMATS = frozenset({"txt"})
"""Of files that stand in folders for many reasons: notes, licences, captions beside images."""
_LINK = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
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
            below it for files of a known format, those left out whose names start with a dot or an underscore, and
            `.txt`, which may be anything: lists are named, or matched by a pattern. A pattern matches no file that
            starts with a dot.

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
        fs.invalidate_cache()  # object stores remember listings, and files may have come since
        listed = list(_list(fs, inner))
    except FileNotFoundError as error:
        hint = "check input.path; a pattern such as urls/*.parquet takes several files"
        raise UserError("there is no such file or folder", where=where, hint=hint) from error
    except Exception as error:
        hint = "check the path and the credentials; s3:// paths need pip install 'corpusmith[s3]'"
        raise UserError(f"cannot be listed: {told(error, path)}", where=where, hint=hint) from error
    if not listed:
        what = "no file matches the pattern" if has_magic(path) else "the folder holds no table"
        sought = ", ".join(suffix for suffix, format in FORMATS.items() if format not in _UNSOUGHT_FORMATS)
        hint = f"tables end in {sought}, compressed ones in .csv.gz and so on; a list (.txt) is named itself"
        raise UserError(what, where=where, hint=hint)
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
        is_sought = _format(name) not in (None, *_UNSOUGHT_FORMATS)
        if is_sought and not any(part.startswith((".", "_")) for part in parts):
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
    if found == "parquet" and compression_of(path):
        raise UserError(
            "a Parquet file that is compressed from outside cannot be read", where=shown(path), hint="unpack it"
        )
    return found


def _format(path: str) -> str | None:
    return FORMATS.get(PurePosixPath(_name(path).removesuffix(compression_of(path) or "")).suffix)


def compression_of(path: str) -> str | None:
    """The suffix that tells a file's compression; null for none."""
    return next((suffix for suffix in COMPRESSIONS if _name(path).endswith(suffix)), None)


def _name(path: str) -> str:
    plain = path.partition("?")[0] if path.startswith(("http://", "https://")) else path
    return PurePosixPath(plain).name.lower()


def shown(path: str) -> str:
    """A path as errors show it: without what grants access."""
    return redact_url(path) if "://" in path else path


def label(path: str) -> str:
    """A file's name as a failed row's reason shows it: the same wherever the file lies."""
    return PurePosixPath(shown(path).partition("?")[0]).name


def told(error: Exception, path: str) -> str:
    """An error's class and text, without what grants access to the file or whatever else it names."""
    text = str(error).replace(path, shown(path))
    return f"{type(error).__name__}: {_LINK.sub(lambda link: redact_url(link[0]), text)}"
