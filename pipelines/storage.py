"""Storage: one folder of a file system or an object store, seen through fsspec.

Every write is a `publish`: readers see the whole object or none of it (a rename on a file system, one PUT on an object
store). There is no other way to write, so a kill at any moment leaves nothing half-written under a final name.
"""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from corpusmith.schemas.errors import UserError

TEMPORARY_PREFIX = ".tmp-"
RANGE_GAP_BYTES = 64 * 1024
"""Two wanted ranges closer than this are read as one."""


@dataclass(frozen=True)
class Entry:
    """A published object: its path relative to the storage's root, and its size in bytes."""

    path: str
    size: int


class Storage:
    """A root folder and everything below it.

    Args:
        root: a local path or an fsspec URL (`s3://bucket/folder`). Credentials and endpoints come from the
            environment, as the protocol's library reads them.
    """

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/") if "://" in root else str(Path(root).absolute())

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    @cached_property
    def _filesystem(self) -> tuple[Any, str]:
        try:
            fs, path = fsspec.core.url_to_fs(self.root)
        except (ImportError, ValueError) as error:
            raise UserError(
                str(error), where=self.root, hint="for s3:// paths: pip install 'corpusmith[s3]'"
            ) from error
        return fs, path

    @property
    def fs(self) -> Any:
        """The fsspec file system."""
        return self._filesystem[0]

    @cached_property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine's file system."""
        return "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    def full(self, path: str) -> str:
        """The file system's own path of an object."""
        return f"{self._filesystem[1]}/{path}" if path else self._filesystem[1]

    def below(self, folder: str) -> Storage:
        """The storage of a folder below this one."""
        return Storage(f"{self.root}/{folder}")

    def publish(self, path: str, data: bytes | memoryview | pa.Buffer) -> None:
        """Make `data` visible at `path`, replacing what was there."""
        target = self.full(path)
        with _told(self.root, path):
            if not self.is_local:
                self.fs.pipe_file(target, bytes(data))
                return
            temporary = self._temporary(target)
            try:
                with temporary.open("wb") as file:
                    file.write(data)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def publish_file(self, local: Path, path: str) -> None:
        """Move the local file `local` to `path`; its content is on disk before it is visible."""
        target = self.full(path)
        with _told(self.root, path):
            if not self.is_local:
                self.fs.put_file(str(local), target)
                local.unlink()
                return
            with local.open("rb") as file:
                os.fsync(file.fileno())
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            local.replace(target)

    def publish_table(self, path: str, table: pa.Table, *, row_group_rows: int | None = None) -> int:
        """Publish a table as Parquet (zstd); returns its size in bytes."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", compression_level=1, row_group_size=row_group_rows)
        data = sink.getvalue()
        self.publish(path, data)
        return data.size

    def _temporary(self, target: str) -> Path:
        folder = Path(target).parent
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"

    def read(self, path: str) -> bytes:
        """The bytes of an object; FileNotFoundError if there is none."""
        return self.fs.cat_file(self.full(path))

    def read_range(self, path: str, start: int, size: int) -> bytes:
        """`size` bytes from `start`."""
        return self.fs.cat_file(self.full(path), start=start, end=start + size)

    def read_ranges(self, path: str, ranges: list[tuple[int, int]]) -> list[bytes]:
        """Several (start, size) ranges of one object, neighbours in one request."""
        order = sorted(range(len(ranges)), key=ranges.__getitem__)
        found: dict[int, bytes] = {}
        for run in _runs(order, ranges):
            start = ranges[run[0]][0]
            end = max(ranges[i][0] + ranges[i][1] for i in run)
            data = memoryview(self.read_range(path, start, end - start))
            for i in run:
                offset = ranges[i][0] - start
                found[i] = bytes(data[offset : offset + ranges[i][1]])
        return [found[i] for i in range(len(ranges))]

    def open(self, path: str) -> BinaryIO:
        """A seekable file for reading."""
        if self.is_local:
            return Path(self.full(path)).open("rb")
        return self.fs.open(self.full(path), "rb", cache_type="readahead", block_size=1 << 20)

    def parquet(self, path: str) -> pq.ParquetFile:
        """A Parquet file; small remote ones come in one request."""
        if self.is_local:
            return pq.ParquetFile(self.full(path), memory_map=True)
        size = self.fs.info(self.full(path))["size"]
        return pq.ParquetFile(io.BytesIO(self.read(path)) if size < (8 << 20) else self.open(path))

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """A whole Parquet file."""
        with self.parquet(path) as file:
            return file.read(columns=columns)

    def list(self, folder: str = "") -> list[Entry]:
        """All published objects below `folder`, sorted by path; empty when there is no such folder."""
        top = self.full(folder)
        try:
            self.fs.invalidate_cache(top)
            details: Mapping[str, Mapping[str, Any]] = self.fs.find(top, detail=True)
        except FileNotFoundError:
            return []
        prefix = len(self.full("")) + (0 if self.full("").endswith("/") else 1)
        entries = [Entry(path[prefix:], info["size"]) for path, info in details.items()]
        return sorted((e for e in entries if TEMPORARY_PREFIX not in e.path), key=lambda e: e.path)

    def exists(self, path: str) -> bool:
        """Whether an object is published there."""
        return self.fs.isfile(self.full(path))

    def delete(self, *paths: str) -> None:
        """Remove objects; those already gone are no error."""
        for path in paths:
            try:
                self.fs.rm_file(self.full(path))
            except FileNotFoundError:
                continue

    def delete_folder(self, folder: str) -> None:
        """Remove everything below a folder, and temporaries that kills left in it."""
        target = self.full(folder)
        if self.fs.exists(target):
            self.fs.rm(target, recursive=True)


def _runs(order: list[int], ranges: list[tuple[int, int]]) -> Iterator[list[int]]:
    """Group range numbers, ascending by start, into stretches worth one request."""
    run: list[int] = []
    end = 0
    for i in order:
        start, size = ranges[i]
        if run and start > end + RANGE_GAP_BYTES:
            yield run
            run = []
        run.append(i)
        end = max(end, start + size)
    if run:
        yield run


@contextmanager
def _told(root: str, path: str) -> Iterator[None]:
    """Turn what a full or read-only target raises into an error that a user can act on."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}",
            where=root,
            hint="make room or choose another --output; what was published so far is safe and the same command goes on",
        ) from error
