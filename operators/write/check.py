"""Whether a shard is whole: its tar can be read to the end and says the same as its Parquet.

Works on img2dataset's shards too, whose Parquet also lists samples that failed and has no offsets. Headers are read,
media is not, so a shard of gigabytes costs a few thousand small reads; memory grows with the samples of one shard
alone. Bytes that changed inside a member are the business of the manifest's sha256.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmith.operators.write.shards import KEY, STATUS, SUCCESS, TAR_OFFSET, TAR_SIZE
from corpusmith.operators.write.tar import DamagedTarError, read_members
from corpusmith.schemas.columns import CAPTION, UID

EXAMPLES_PER_PROBLEM = 3
_BATCH_ROWS = 4096
_COLUMNS = (KEY.name, UID.name, STATUS.name, CAPTION.name, TAR_OFFSET.name, TAR_SIZE.name)

Samples = dict[str, dict[str, tuple[int, int]]]
"""key → extension → offset and size in the tar."""


class _Problems:
    """What was found, counted by kind, so that a shard that is wrong throughout gives a line and not ten thousand."""

    def __init__(self) -> None:
        self._details: dict[str, list[str]] = defaultdict(list)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, kind: str, detail: str) -> None:
        self._counts[kind] += 1
        if len(self._details[kind]) < EXAMPLES_PER_PROBLEM:
            self._details[kind].append(detail)

    def lines(self) -> list[str]:
        return [f"{kind}: {', '.join(details)}{self._rest(kind)}" for kind, details in self._details.items()]

    def _rest(self, kind: str) -> str:
        more = self._counts[kind] - len(self._details[kind])
        return f" and {more} more" if more else ""


def check_shard(tar: str | PathLike[str] | BinaryIO, parquet: str | PathLike[str] | BinaryIO) -> list[str]:
    """Problems of one shard, `KIND: DETAIL`, a few examples each; an empty list when there are none.

    Args:
        tar: path of the tar, or a seekable binary file.
        parquet: path of the Parquet, or a seekable binary file.
    """
    problems = _Problems()
    samples = None
    try:
        with Path(tar).open("rb") if isinstance(tar, str | PathLike) else nullcontext(tar) as file:
            samples = _samples_of(file, problems)
    except (OSError, DamagedTarError) as error:
        problems.add("tar unreadable", str(error))
    try:
        _compare(_rows_of(parquet), samples, problems)
    except (OSError, ValueError, pa.ArrowException) as error:
        problems.add("parquet unreadable", str(error).partition("\n")[0])
    return problems.lines()


def _samples_of(file: BinaryIO, problems: _Problems) -> Samples:
    """The tar's samples, by WebDataset's rule: the key ends at the first dot of the file name."""
    samples: Samples = {}
    previous = None
    for member in read_members(file):
        folder, slash, base = member.name.rpartition("/")
        stem, _, extension = base.partition(".")
        key = folder + slash + stem
        if key != previous and key in samples:
            problems.add("sample in two places of the tar", key)
        if extension in samples.setdefault(key, {}):
            problems.add("duplicate member in the tar", member.name)
        samples[key][extension] = (member.offset, member.size)
        previous = key
    return samples


def _rows_of(parquet: str | PathLike[str] | BinaryIO) -> Iterator[dict[str, Any]]:
    """Rows of kept samples: the columns of `_COLUMNS` that the file has."""
    with pq.ParquetFile(parquet) as file:
        names = [name for name in _COLUMNS if name in file.schema_arrow.names]
        if KEY.name not in names:
            raise pa.ArrowInvalid(f"it has no column {KEY.name!r}")
        for batch in file.iter_batches(_BATCH_ROWS, columns=names):
            yield from (row for row in batch.to_pylist() if row.get(STATUS.name, SUCCESS) == SUCCESS)


def _compare(rows: Iterator[dict[str, Any]], samples: Samples | None, problems: _Problems) -> None:
    """Rows against samples; without samples (the tar cannot be read) the rows among themselves."""
    keys: set[str] = set()
    uids: set[str | None] = set()
    for row in rows:
        key, uid = str(row[KEY.name]), row.get(UID.name)
        if key in keys:
            problems.add("duplicate key in the parquet", key)
        if uid is not None and uid in uids:
            problems.add("duplicate uid in the parquet", str(uid))
        keys.add(key)
        uids.add(uid)
        if samples is not None and key not in samples:
            problems.add("sample missing in the tar", key)
        elif samples is not None:
            _compare_sample(row, samples[key], problems)
    for key in sorted((samples or {}).keys() - keys):
        problems.add("sample without a row in the parquet", key)


def _compare_sample(row: dict[str, Any], members: dict[str, tuple[int, int]], problems: _Problems) -> None:
    key = str(row[KEY.name])
    if "json" not in members:
        problems.add("member missing in the tar", f"{key}.json")
    if row.get(CAPTION.name) is not None and "txt" not in members:
        problems.add("member missing in the tar", f"{key}.txt")
    if TAR_OFFSET.name not in row:
        return
    media = {span for extension, span in members.items() if extension not in ("json", "txt")}
    told = (row[TAR_OFFSET.name], row.get(TAR_SIZE.name))
    if told[0] is None and media:
        problems.add("media without an offset in the parquet", key)
    elif told[0] is not None and not media:
        problems.add("media missing in the tar", key)
    elif told[0] is not None and told not in media:
        problems.add("offset in the parquet is not the media's", f"{key} at {told[0]}, {told[1]} bytes")
