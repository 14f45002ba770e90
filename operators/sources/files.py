"""Input files: what is known of one, its format by its name, and how errors and reasons call it.

Files lie on any file system that fsspec knows. Credentials and endpoints come from the environment, as the protocol's
library reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

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
UNSOUGHT_FORMATS = frozenset({"txt"})
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
        kind: format of a file that carries media or belongs to some: webdataset, img2dataset, folder, hf; empty for
            a table, whose name tells its format.
        root: the folder under which it was found, for a file of a kind.
        origin: name of the part of the input that it belongs to; empty where parts have no names.
    """

    path: str
    size: int
    stamp: str
    kind: str = ""
    root: str = ""
    origin: str = ""


def is_local(fs: Any) -> bool:
    """Whether a file system is this machine's own."""
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def source_file(fs: Any, info: Mapping[str, Any]) -> SourceFile:
    """A file as its file system tells of it now."""
    path = info["name"] if is_local(fs) else fs.unstrip_protocol(info["name"])
    return SourceFile(path, int(info.get("size") or 0), stamp_of(info))


def stamp_of(info: Mapping[str, Any]) -> str:
    """What changes when the content does, of what a file system tells of a file."""
    return next((str(info[key]) for key in _STAMPS if info.get(key) is not None), "")


def format_of(path: str, given: str | None) -> str:
    """Format of a file: as given, or by its name.

    Raises:
        UserError: the name does not tell, or the format cannot be compressed from outside.
    """
    found = given or format_by_name(path)
    if found is None:
        hint = f"set input.format, or name the file with one of {', '.join(FORMATS)}"
        raise UserError("the name does not tell the table's format", where=shown(path), hint=hint)
    if found == "parquet" and compression_of(path):
        raise UserError(
            "a Parquet file that is compressed from outside cannot be read", where=shown(path), hint="unpack it"
        )
    return found


def format_by_name(path: str) -> str | None:
    """The table's format that a file's name tells; None for none."""
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
