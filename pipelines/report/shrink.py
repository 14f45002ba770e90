"""Pictures of samples, shrunk in a child process: hostile bytes may crash a decoder, and must not end the run."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from corpusmith.operators.contract import AnnotateRows
from corpusmith.pipelines.cell import IsolatedOperator
from corpusmith.pipelines.report.thumbnails import make_thumbnail
from corpusmith.schemas.columns import MEDIA, UID, Column
from corpusmith.schemas.fates import RowFailed

_THUMBNAIL = Column("thumbnail", pa.large_binary(), "small WebP of the media")


class Shrink(AnnotateRows, name="report.shrink", version=1):
    """Make a thumbnail of an encoded picture."""

    stored = False
    row_timeout_s = 10.0

    @property
    def requires(self) -> tuple[str, ...]:
        return (MEDIA.name,)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (_THUMBNAIL,)

    def process_row(self, row: dict[str, Any]) -> Mapping[str, Any]:
        """Encode small, or fail the row with what is wrong with its bytes."""
        thumbnail = make_thumbnail(row[MEDIA.name])
        if thumbnail.problem:
            raise RowFailed("no thumbnail", thumbnail.problem)
        return {_THUMBNAIL.name: base64.b64decode(thumbnail.uri.partition(",")[2])}


class Shrinker:
    """Shrinks pictures for one report; close() ends its child process."""

    def __init__(self) -> None:
        self._cell = IsolatedOperator(Shrink())

    def close(self) -> None:
        """End the child process, if one was started."""
        self._cell.close()

    def shrink(self, pictures: Sequence[bytes | None]) -> list[bytes | None]:
        """A small picture for each; None where there is none, or where it cannot be read."""
        small: list[bytes | None] = [None] * len(pictures)
        present = [i for i, picture in enumerate(pictures) if picture is not None]
        for start in range(0, len(present), Shrink.batch_rows):
            chosen = present[start : start + Shrink.batch_rows]
            media = pa.array([pictures[i] for i in chosen], MEDIA.type)
            parts = self._cell.process(pa.table({UID.name: [str(i) for i in chosen], MEDIA.name: media}))
            assert isinstance(parts, list)
            for part in parts:
                values = pa.array(part.columns[_THUMBNAIL.name]).to_pylist()
                for row, value in zip(part.rows or range(len(chosen)), values, strict=True):
                    small[chosen[row]] = value
        return small
