"""Where finished rows go: a tar, a folder of files, or a Parquet for each shard.

What is not finished lies under `_tmp` in the output folder (for an object store: in a local temporary folder), and
gets its name when the shard is complete: media first, its Parquet then, and last `_stats.json`, which is what says that
a shard is done. A kill leaves nothing half-written under a final name.
"""

from __future__ import annotations

import shutil
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmith.operators.write.tar import TarWriter
from corpusmith.pipelines.img2dataset.flags import Flags
from corpusmith.pipelines.img2dataset.records import SUCCESS, json_of
from corpusmith.pipelines.storage import Storage
from corpusmith.schemas.columns import CAPTION

_GROUP_ROWS = 1000
_GROUP_BYTES = 1 << 25


class Sink(ABC):
    """The files of one shard in the making; any thread may add.

    Args:
        storage: the output folder.
        scratch: a local folder for what is not finished.
        stem: the shard's number with its digits.
        flags: form of the output.
        schema: of the records.
    """

    def __init__(self, storage: Storage, scratch: Path, stem: str, flags: Flags, schema: pa.Schema) -> None:
        self.storage = storage
        self.scratch = scratch
        self.stem = stem
        self.extension = flags.encode_format
        self.has_captions = flags.caption_col is not None
        self.schema = schema
        self._lock = threading.Lock()

    def add(self, record: dict[str, Any], media: bytes | None) -> None:
        """Add a row that has ended; only a success has media."""
        with self._lock:
            self._add(record, media)

    def members(self, record: dict[str, Any], media: bytes) -> list[tuple[str, bytes]]:
        """The files of a success, sorted by extension: image, JSON, text."""
        key = record["key"]
        files = [(f"{key}.{self.extension}", media)]
        if self.has_captions:
            files.append((f"{key}.txt", (record[CAPTION.name] or "").encode()))
        return sorted([*files, (f"{key}.json", json_of(record))])

    @abstractmethod
    def _add(self, record: dict[str, Any], media: bytes | None) -> None: ...

    @abstractmethod
    def publish(self, table: pa.Table) -> None:
        """Give the files their names. Args: table: all records in the order of their keys."""

    def _publish_parquet(self, table: pa.Table) -> None:
        path = self.scratch / f"{self.stem}.parquet"
        pq.write_table(table, path)
        self.storage.publish_file(path, f"{self.stem}.parquet")


class TarSink(Sink):
    """`webdataset`: successes in the order in which they come."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._path = self.scratch / f"{self.stem}.tar"
        self._file = self._path.open("wb")
        self._tar = TarWriter(self._file)

    def _add(self, record: dict[str, Any], media: bytes | None) -> None:
        if record["status"] == SUCCESS and media is not None:
            for name, data in self.members(record, media):
                self._tar.add(name, data)
            self._tar.members.clear()

    def publish(self, table: pa.Table) -> None:
        self._tar.close()
        self._file.close()
        self.storage.publish_file(self._path, f"{self.stem}.tar")
        self._publish_parquet(table)


class FolderSink(Sink):
    """`files`: a folder of files for each shard."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._folder = self.scratch / self.stem
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()

    def _add(self, record: dict[str, Any], media: bytes | None) -> None:
        if record["status"] == SUCCESS and media is not None:
            for name, data in self.members(record, media):
                (self._folder / name).write_bytes(data)

    def publish(self, table: pa.Table) -> None:
        if self.storage.is_local:
            target = Path(self.storage.full(self.stem))
            if target.exists():  # of a run that was killed, or before a retry
                target.rename(self.scratch / f"{self.stem}.old")
            self._folder.rename(target)
            shutil.rmtree(self.scratch / f"{self.stem}.old", ignore_errors=True)
        else:
            for path in sorted(self._folder.iterdir()):
                self.storage.publish_file(path, f"{self.stem}/{path.name}")
        self._publish_parquet(table)


class ParquetSink(Sink):
    """`parquet`: records and images in one Parquet, in the order in which rows end."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._path = self.scratch / f"{self.stem}.parquet"
        self._schema = self.schema.append(pa.field(self.extension, pa.binary()))
        self._writer = pq.ParquetWriter(self._path, self._schema)
        self._rows: list[dict[str, Any]] = []
        self._waiting_bytes = 0

    def _add(self, record: dict[str, Any], media: bytes | None) -> None:
        self._rows.append({**record, self.extension: media})
        self._waiting_bytes += len(media or b"")
        if len(self._rows) >= _GROUP_ROWS or self._waiting_bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows, self._waiting_bytes = [], 0

    def publish(self, table: pa.Table) -> None:
        self._flush()
        self._writer.close()
        self.storage.publish_file(self._path, self._path.name)


class NoSink(Sink):
    """`dummy`: nothing but the statistics."""

    def _add(self, record: dict[str, Any], media: bytes | None) -> None:
        del record, media

    def publish(self, table: pa.Table) -> None:
        del table


SINKS: dict[str, type[Sink]] = {"webdataset": TarSink, "files": FolderSink, "parquet": ParquetSink, "dummy": NoSink}
"""Output format → how it is written."""
