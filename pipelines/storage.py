"""Storage: one folder of a file system or an object store, seen through fsspec.

Every write is a `publish`: readers see the whole object or none of it (a rename on a file system, one PUT on an object
store). There is no other way to write, so a kill at any moment leaves nothing half-written under a final name.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from corpusmith.schemas.columns import CAPTION, MEDIA_REF, MEDIA_SHA256, ROOT, SOURCE_UID, UID, URL
from corpusmith.schemas.errors import UserError

TEMPORARY_PREFIX = ".tmp-"
RANGE_GAP_BYTES = 64 * 1024
"""Two wanted ranges closer than this are read as one."""
RANGE_RUN_BYTES = 32 << 20
"""One request asks for no more than this, unless a single range is longer."""
SMALL_BYTES = 4 << 20
"""Remote Parquet files up to this size come whole, in one request."""
DELETE_ATTEMPTS = 5
DISTINCT_COLUMNS = frozenset(
    {UID.name, ROOT.name, SOURCE_UID.name, URL.name, CAPTION.name, MEDIA_SHA256.name, MEDIA_REF.name, "result_digest"}
)
"""Their values hardly repeat: to look for repetitions costs time, and a dictionary of all of them space."""

Span = tuple[str, int, int]
"""A range of an object: path, start, size in bytes."""


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
            # a listing that is kept tells of objects that others have deleted, and not of those that they made
            fs, path = fsspec.core.url_to_fs(self.root, use_listings_cache=False)
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
        """Make `data` visible at `path`, replacing what was there.

        Raises:
            UserError: it cannot be written.
        """
        with self._told("write", path, missing_too=True):
            if self.is_local:
                self._place(path, data, lambda temporary, target: temporary.replace(target))
            else:
                self.fs.pipe_file(self.full(path), bytes(data))

    def create(self, path: str, data: bytes) -> bool:
        """Publish `data` unless something is there; returns whether it did.

        Of several that try at once one succeeds, wherever the object store knows conditional writes: a store that does
        not lets the last one win.
        """
        with self._told("write", path, missing_too=True):
            try:
                if self.is_local:
                    self._place(path, data, lambda temporary, target: os.link(temporary, target))
                else:
                    self.fs.pipe_file(self.full(path), data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.EINVAL) or self.is_local:
                    raise
                self.fs.pipe_file(self.full(path), data)
        return True

    def publish_file(self, local: Path, path: str) -> None:
        """Move the local file `local` to `path`; its content is on disk before it is visible.

        Raises:
            UserError: it cannot be written.
        """
        with self._told("write", path, missing_too=True):
            target = self.full(path)
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
        pq.write_table(
            table,
            sink,
            compression="zstd",
            compression_level=1,
            row_group_size=row_group_rows,
            use_dictionary=_repeating(table.schema),
        )
        data = sink.getvalue()
        self.publish(path, data)
        return data.size

    def publish_tables(self, path: str, tables: Iterable[pa.Table], *, row_group_rows: int) -> None:
        """As `publish_table`, of one or more tables of one schema that are made one after the other."""
        with self._local_beside(path) as temporary, ExitStack() as stack:
            writer: pq.ParquetWriter | None = None
            # what goes wrong while a table is made is no failure to write
            for table in tables:
                with self._told("write", path, missing_too=True):
                    writer = writer or stack.enter_context(
                        pq.ParquetWriter(
                            temporary,
                            table.schema,
                            compression="zstd",
                            compression_level=1,
                            use_dictionary=_repeating(table.schema),
                        )
                    )
                    writer.write_table(table, row_group_size=row_group_rows)
            stack.close()
            self.publish_file(temporary, path)

    @contextmanager
    def _local_beside(self, path: str) -> Iterator[Path]:
        """A name for a temporary file that can become `path`."""
        with ExitStack() as stack:
            if self.is_local:
                folder = Path(self.full(path)).parent
                folder.mkdir(parents=True, exist_ok=True)
            else:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="corpusmith-")))
            temporary = folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)

    def _place(self, path: str, data: bytes | memoryview | pa.Buffer, place: Callable[[Path, Path], object]) -> None:
        """Write a temporary file beside `path`, down to the disk, and let `place` give it its name."""
        target = Path(self.full(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            place(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, path: str) -> bytes:
        """The bytes of an object; FileNotFoundError if there is none."""
        with self._told("read", path):
            return self.fs.cat_file(self.full(path))

    def read_range(self, path: str, start: int, size: int) -> bytes:
        """`size` bytes from `start`; see read_spans."""
        return self.read_spans([(path, start, size)])[0]

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several (start, size) ranges of one object; see read_spans."""
        return self.read_spans([(path, start, size) for start, size in ranges])

    def read_spans(self, spans: Sequence[Span]) -> list[bytes]:
        """Ranges of objects, in their order: neighbours in one request, requests to an object store side by side.

        Raises:
            FileNotFoundError: an object is missing.
            UserError: an object ends before a range does, or cannot be read.
        """
        return read_spans(spans, self._fetch, self._too_short)

    def _too_short(self, path: str, end: int) -> UserError:
        return UserError(
            f"{path} ends at byte {end}, before what is said to lie there",
            where=self.root,
            hint="the file is damaged: `corpusmith clean --staging` makes the next run make it again",
        )

    def _fetch(self, spans: Sequence[Span]) -> Iterator[bytes]:
        if self.is_local:
            for path, start, size in spans:
                with self._told("read", path), Path(self.full(path)).open("rb", buffering=0) as file:
                    file.seek(start)
                    data = file.read(size)
                yield data
            return
        paths = [self.full(path) for path, _, _ in spans]
        starts, ends = [start for _, start, _ in spans], [start + size for _, start, size in spans]
        with self._told("read", spans[0][0] if spans else ""):
            data = self.fs.cat_ranges(paths, starts, ends, on_error="raise")
        yield from data

    def open(self, path: str) -> IO[bytes]:
        """A seekable file for reading; FileNotFoundError if there is none."""
        with self._told("read", path):
            if self.is_local:
                return Path(self.full(path)).open("rb")
            return self.fs.open(self.full(path), "rb", cache_type="readahead", block_size=1 << 20)

    def parquet(self, path: str, *, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
        """A Parquet file; FileNotFoundError if there is none.

        Args:
            path: of the file.
            metadata: its footer, where that was read before.
        """
        if self.is_local:
            with self._told("read", path):
                return pq.ParquetFile(self.full(path), memory_map=True, metadata=metadata)
        with self._told("read", path):
            head = self.fs.cat_file(self.full(path), start=0, end=SMALL_BYTES)
        return pq.ParquetFile(io.BytesIO(head) if len(head) < SMALL_BYTES else self.open(path), metadata=metadata)

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """A whole Parquet file."""
        with self.parquet(path) as file:
            return file.read(columns=columns)

    def list(self, folder: str = "") -> list[Entry]:
        """All published objects below `folder`, sorted by path; empty when there is no such folder."""
        top = self.full(folder)
        with self._told("list", folder):
            try:
                details: Mapping[str, Mapping[str, Any]] = self.fs.find(top, detail=True)
            except FileNotFoundError:
                return []
        prefix = len(self.full("")) + (0 if self.full("").endswith("/") else 1)
        entries = [Entry(path[prefix:], info["size"]) for path, info in details.items()]
        return sorted((e for e in entries if TEMPORARY_PREFIX not in e.path), key=lambda e: e.path)

    def exists(self, path: str) -> bool:
        """Whether an object is published there."""
        with self._told("look for", path):
            try:
                return self.fs.info(self.full(path))["type"] == "file"
            except FileNotFoundError:
                return False

    def delete(self, *paths: str) -> None:
        """Remove objects; those already gone are no error."""
        if not paths:
            return
        with self._told("delete", paths[0]):
            if self.is_local:
                for path in paths:
                    Path(self.full(path)).unlink(missing_ok=True)
                return
            try:
                self.fs.rm([self.full(path) for path in paths])
            except FileNotFoundError:
                for path in paths:
                    with suppress(FileNotFoundError):
                        self.fs.rm_file(self.full(path))

    def delete_folder(self, folder: str) -> None:
        """Remove everything below a folder, and temporaries that kills left in it."""
        with self._told("delete", folder):
            if self.is_local:
                _remove_tree(Path(self.full(folder)))
                return
            with suppress(FileNotFoundError):
                self.fs.rm(self.full(folder), recursive=True)

    @contextmanager
    def _told(self, doing: str, path: str, *, missing_too: bool = False) -> Iterator[None]:
        """Turn what a full, forbidden or unreachable store raises into an error that a user can act on."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            # what a protocol's library raises is its own affair; on a file system all but OSError is a bug of ours
            is_missing = isinstance(error, FileNotFoundError) and not missing_too
            if is_missing or (self.is_local and not isinstance(error, OSError)):
                raise
            detail = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            raise UserError(f"cannot {doing} {path}: {detail}", where=self.root, hint=self._hint(error)) from error

    def _hint(self, error: Exception) -> str:
        safe = "what was published so far is safe and the same command goes on"
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return f"make room or choose another --output; {safe}"
        if self.is_local:
            return f"check that the folder may be written to, or choose another --output; {safe}"
        return f"check bucket, credentials and endpoint in the environment, and the network; {safe}"


def _remove_tree(folder: Path) -> None:
    """Remove a folder in which the workers of a run that has just been killed may still be writing."""
    for attempt in range(DELETE_ATTEMPTS):
        try:
            shutil.rmtree(folder)
            return
        except FileNotFoundError:
            if not folder.exists():
                return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or attempt == DELETE_ATTEMPTS - 1:
                raise


def read_spans(
    spans: Sequence[Span],
    fetch: Callable[[Sequence[Span]], Iterable[bytes]],
    too_short: Callable[[str, int], UserError],
) -> list[bytes]:
    """Ranges of files in their order, neighbours fetched as one.

    Args:
        spans: what is wanted.
        fetch: reads stretches; what it gives of one may end early.
        too_short: path, and where the file ends, → the error that a range lies behind.
    """
    order = sorted((i for i, (_, _, size) in enumerate(spans) if size), key=spans.__getitem__)
    runs = list(_runs(order, spans))
    whole = [_hull([spans[i] for i in run]) for run in runs]
    found = [b""] * len(spans)
    for run, (path, first, size), data in zip(runs, whole, fetch(whole), strict=True):
        if len(data) < size:
            raise too_short(path, first + len(data))
        view = memoryview(data)
        for i in run:
            start = spans[i][1] - first
            found[i] = bytes(view[start : start + spans[i][2]])
    return found


def _hull(spans: Sequence[Span]) -> Span:
    """The range from the first start to the last end of ranges of one object."""
    start = min(start for _, start, _ in spans)
    return spans[0][0], start, max(start + size for _, start, size in spans) - start


def _repeating(schema: pa.Schema) -> Any:
    """Columns to look for repetitions in; True for all, where some are nested: pyarrow knows those by other names."""
    if any(pa.types.is_nested(f.type) for f in schema):
        return True
    return [f.name for f in schema if f.name not in DISTINCT_COLUMNS]


def _runs(order: Sequence[int], spans: Sequence[Span]) -> Iterator[list[int]]:
    """Group range numbers, ascending by path and start, into stretches worth one request."""
    run: list[int] = []
    first, end = 0, 0
    for i in order:
        path, start, size = spans[i]
        apart = run and (path != spans[run[0]][0] or start > end + RANGE_GAP_BYTES)
        if apart or (run and max(end, start + size) - first > RANGE_RUN_BYTES):
            yield run
            run = []
        if not run:
            first, end = start, 0
        run.append(i)
        end = max(end, start + size)
    if run:
        yield run
