"""What an earlier run left of a shard whose failed rows are tried again: records, and the images of its successes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyarrow as pa

from corpusmith.operators.write.tar import read_members
from corpusmith.pipelines.img2dataset.flags import Flags
from corpusmith.pipelines.img2dataset.inputs import InputShard
from corpusmith.pipelines.img2dataset.records import SUCCESS, key_of, made_schema
from corpusmith.pipelines.storage import Storage
from corpusmith.schemas.columns import URL
from corpusmith.schemas.errors import UserError


@dataclass(frozen=True)
class Previous:
    """A finished shard.

    Args:
        storage: the output folder.
        stem: the shard's number with its digits.
        extension: of its images.
        records: what is told of each row, in the order of the rows.
        failed: positions of the rows that failed.
    """

    storage: Storage
    stem: str
    extension: str
    records: list[dict[str, Any]]
    failed: list[int]

    def successes(self, output_format: str) -> Iterator[tuple[int, bytes]]:
        """Position and image of each success.

        Raises:
            UserError: an image is missing.
        """
        places = {self.records[i]["key"]: i for i in set(range(len(self.records))) - set(self.failed)}
        readers = {"webdataset": self._from_tar, "files": self._from_files, "parquet": self._from_parquet}
        for key, media in readers[output_format](list(places)):
            yield places.pop(key), media
        if places:
            raise UserError(
                f"{len(places)} images are missing: {min(places)} …",
                where=f"{self.storage.root}/{self.stem}",
                hint=f"delete {self.stem}_stats.json: the next run makes the shard anew",
            )

    def _from_tar(self, keys: list[str]) -> Iterator[tuple[str, bytes]]:
        wanted = {f"{key}.{self.extension}": key for key in keys}
        with self.storage.open(f"{self.stem}.tar") as file:
            members = [member for member in read_members(cast(BinaryIO, file)) if member.name in wanted]
            for member in members:
                file.seek(member.offset)
                yield wanted[member.name], file.read(member.size)

    def _from_files(self, keys: list[str]) -> Iterator[tuple[str, bytes]]:
        for key in keys:
            try:
                yield key, self.storage.read(f"{self.stem}/{key}.{self.extension}")
            except FileNotFoundError:
                continue

    def _from_parquet(self, keys: list[str]) -> Iterator[tuple[str, bytes]]:
        wanted = set(keys)
        with self.storage.parquet(f"{self.stem}.parquet") as file:
            for batch in file.iter_batches(256, columns=["key", self.extension]):
                for key, media in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
                    if key in wanted and media is not None:
                        yield key, media


def retried(storage: Storage, shard: InputShard, flags: Flags) -> Previous | None:
    """What there is of a finished shard; None if no row of it failed.

    Raises:
        UserError: the shard has no records, or was made of other rows.
    """
    stem = f"{shard.number:0{flags.oom_shard_count}d}"
    stats = json.loads(storage.read(f"{stem}_stats.json"))
    if stats["successes"] == stats["count"]:
        return None
    hint = "retry wants the input, the format and the shard size of the first run"
    try:
        records = _records(storage, stem, flags)
    except (FileNotFoundError, pa.ArrowException) as error:
        raise UserError(f"the records cannot be read: {error}", where=f"{stem}.parquet", hint=hint) from error
    expected = [key_of(flags, shard.number, i) for i in range(shard.rows.num_rows)]
    urls = shard.rows.column(URL.name).to_pylist()
    if [r["key"] for r in records] != expected or any(a["url"] != b for a, b in zip(records, urls, strict=True)):
        raise UserError("the shard was made of other rows", where=f"{storage.root}/{stem}.parquet", hint=hint)
    failed = [i for i, record in enumerate(records) if record["status"] != SUCCESS]
    return Previous(storage, stem, flags.encode_format, records, failed)


def _records(storage: Storage, stem: str, flags: Flags) -> list[dict[str, Any]]:
    with storage.parquet(f"{stem}.parquet") as file:
        made = [f.name for f in made_schema(flags) if f.name in file.schema_arrow.names]
        records = file.read(columns=[*made, URL.name]).to_pylist()
    return sorted(records, key=lambda record: record["key"])
