"""Outputs of img2dataset and of those that write as it does: a tar and the Parquet that tells of its samples.

The Parquet also holds what never came into the tar: those rows come in as failed, with the status as the error's class
and the message as it stands. A row that should be in the tar and is not has failed, too. Our own corpora and
video2dataset's (clips have keys such as `0000000012_003`) are read in the same way.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from corpusmith.operators.sources.files import SourceFile, label, shown
from corpusmith.operators.sources.parquet_table import ParquetTable
from corpusmith.operators.sources.rows import BadRow, Rows
from corpusmith.operators.sources.samples import Sample, clip_of
from corpusmith.operators.sources.sidecars import KEY
from corpusmith.operators.sources.tar_table import media_arrays, read_tar
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.urls import redact_url

STATUS = "status"
MESSAGE = "error_message"
SUCCESS = "success"

_CONSUMED = frozenset({STATUS, MESSAGE, "tar_offset", "tar_size"})
"""Columns that say how the download ended and where the media was: the rows' fates and media say it now."""
_LINK = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
_MISSING = "missing media"


class ShardTable:
    """A Parquet of samples, and the tar with their media.

    Args:
        parquet: the Parquet.
        tar: the tar; None if it is gone.
    """

    is_open = False
    is_bare = False
    has_media = True

    def __init__(self, parquet: SourceFile, tar: SourceFile | None) -> None:
        self._tar = tar
        self._parquet = parquet
        self._table = ParquetTable(parquet.path)
        self.is_empty = self._table.is_empty
        if KEY not in self._table.columns:
            hint = "set input.format: webdataset for the tars alone, parquet for the table alone"
            raise UserError("img2dataset's Parquets have a column `key`", where=shown(parquet.path), hint=hint)
        self.columns = {name: type for name, type in self._table.columns.items() if name not in _CONSUMED}

    def rows(self, names: Sequence[str], batch_rows: int) -> Iterator[Rows]:
        samples, end = self._samples()
        passed_over: Counter[str] = sum((sample.passed_over for sample in samples.values()), Counter())
        told = [*dict.fromkeys([*names, KEY, *({STATUS, MESSAGE} & self._table.columns.keys())])]
        for piece in self._table.rows(told, batch_rows):
            yield self._rows(piece, samples, end, passed_over)
            passed_over = Counter()

    def _samples(self) -> tuple[dict[str, Sample], str]:
        """Samples of the tar by key, and what is wrong with the tar; empty for nothing."""
        found: dict[str, Sample] = {}
        if self._tar is None:
            return found, "there is no tar beside the Parquet"
        for sample in read_tar(self._tar, is_hashed=True, is_any_media=True):
            if not sample.key:
                return found, f"{label(self._tar.path)}: {sample.problem}"
            if sample.key in found:
                found[sample.key].problem = "the key stands in two places of the tar"
            else:
                # texts and further columns come from the Parquet
                sample.text = sample.json = None
                found[sample.key] = sample
        return found, ""

    def _rows(self, piece: Rows, samples: Mapping[str, Sample], end: str, passed_over: Counter[str]) -> Rows:
        keys = piece.columns[KEY].cast(pa.string()).to_pylist()
        mine = [samples.get(key) if key is not None else None for key in keys]
        bad = dict(piece.bad)
        for i, problem in self._problems(piece, keys, mine, end).items():
            bad.setdefault(i, problem)
        mine = [None if i in bad else sample for i, sample in enumerate(mine)]
        if self._tar is None:
            media, sha256 = pa.nulls(piece.count, pa.string()), pa.nulls(piece.count, pa.string())
        else:
            media, sha256 = media_arrays(self._tar, mine)
        parts = {i: part for i, key in enumerate(keys) if key is not None and (part := clip_of(key))}
        return Rows(piece.count, piece.columns, bad, media, sha256, parts, passed_over)

    def _problems(
        self, piece: Rows, keys: Sequence[str | None], mine: Sequence[Sample | None], end: str
    ) -> dict[int, BadRow]:
        blank = [None] * piece.count
        statuses = piece.columns[STATUS].to_pylist() if STATUS in piece.columns else blank
        messages = piece.columns[MESSAGE].to_pylist() if MESSAGE in piece.columns else blank
        found: dict[int, BadRow] = {}
        for i, (key, sample, status) in enumerate(zip(keys, mine, statuses, strict=True)):
            raw = f"{key}\n{status}".encode("utf-8", "surrogatepass")
            if status not in (None, SUCCESS):
                message = _LINK.sub(lambda link: redact_url(link[0]), str(messages[i] or ""))
                found[i] = BadRow(raw, message, str(status), is_read=True)
            elif sample is None or sample.media is None or not sample.media[0].size:
                reason = end or "the Parquet names it, the tar does not hold it"
                found[i] = BadRow(raw, f"{key}: {reason}", _MISSING, is_read=True)
            elif sample.problem:
                found[i] = BadRow(raw, f"{key}: {sample.problem}", is_read=True)
        return found
