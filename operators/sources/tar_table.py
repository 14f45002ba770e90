"""WebDataset tars: each sample a row, its media where it lies in the tar.

The first samples decide columns and types, as the first lines do of JSON. The media is read once, for its sha256, which
is what a sample without an address is known by.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import pyarrow as pa

from corpusmith.operators.sources.files import SourceFile, label, shown
from corpusmith.operators.sources.lines import is_unicode
from corpusmith.operators.sources.references import Reference, mark_of, to_text
from corpusmith.operators.sources.rows import Rows
from corpusmith.operators.sources.samples import Sample, clip_of, read_samples
from corpusmith.operators.sources.sidecars import KEY, Told, columns_of, fill_columns, tell
from corpusmith.operators.sources.streams import open_stored
from corpusmith.operators.sources.tar_members import TarWalk
from corpusmith.schemas.errors import UserError

BATCH_ROWS = 2048
"""Media is read for each row, so batches are small enough for a limit to end the reading early."""

_BATCH_BYTES = 1 << 26
_BUFFER_BYTES = 1 << 20


class TarTable:
    """A tar of samples.

    Args:
        file: the tar.
        look_rows: samples that decide columns and types.
    """

    is_open = True
    is_bare = False
    has_media = True

    def __init__(self, file: SourceFile, look_rows: int) -> None:
        self._file = file
        looked = list(islice(read_tar(file, is_hashed=False), look_rows))
        if looked and not looked[0].key:
            hint = "leave it out, fetch it again, or set input.format to what it is"
            raise UserError(f"this is no tar archive: {looked[0].problem}", where=shown(file.path), hint=hint)
        self.is_empty = not looked
        found = columns_of(tell(s.key, s.text, s.json) for s in looked)
        self.columns = {**found, KEY: pa.string()}

    def rows(self, names: Sequence[str], batch_rows: int) -> Iterator[Rows]:
        wanted = {name: self.columns.get(name, pa.string()) for name in names if name != KEY}
        samples: list[Sample] = []
        size = 0
        for sample in read_tar(self._file, is_hashed=True):
            samples.append(sample)
            size += len(sample.key) + len(sample.text or b"") + len(sample.json or b"")
            if len(samples) >= min(batch_rows, BATCH_ROWS) or size > _BATCH_BYTES:
                yield self._rows(samples, wanted)
                samples, size = [], 0
        if samples:
            yield self._rows(samples, wanted)

    def _rows(self, samples: Sequence[Sample], wanted: Mapping[str, pa.DataType]) -> Rows:
        told = [self._tell(sample) for sample in samples]
        columns, bad = fill_columns(told, wanted)
        media, sha256 = media_arrays(self._file, samples)
        columns[KEY] = pa.array([s.key if is_unicode(s.key) else None for s in samples], pa.string())
        parts = {i: part for i, s in enumerate(samples) if (part := clip_of(s.key))}
        passed_over = sum((sample.passed_over for sample in samples), Counter())
        return Rows(len(samples), columns, bad, media, sha256, parts, passed_over)

    def _tell(self, sample: Sample) -> Told:
        if not sample.key:
            return tell(label(self._file.path), None, None, sample.problem)
        told = tell(sample.key, sample.text, sample.json, sample.problem)
        if sample.media is None:
            told.fail("missing media", "no member of the sample is an image or a video")
        elif not sample.media[0].size:
            told.fail("missing media", "the member has no bytes")
        return told


def media_arrays(file: SourceFile, samples: Sequence[Sample | None]) -> tuple[pa.Array, pa.Array]:
    """References to the samples' media in a tar, and sha256 of its bytes; null where there is none to use."""
    mark = mark_of(file.size, file.stamp)
    usable = [s.media if s is not None and not s.problem else None for s in samples]
    usable = [media if media is not None and media[0].size else None for media in usable]
    references = [m and to_text(Reference(file.path, m[0].offset, m[0].size, mark)) for m in usable]
    return pa.array(references, pa.string()), pa.array([m and m[1] for m in usable], pa.string())


def read_tar(file: SourceFile, *, is_hashed: bool, is_any_media: bool = False) -> Iterator[Sample]:
    """The samples of a tar; see `read_samples`.

    Raises:
        UserError: the file cannot be opened or read.
    """
    with open_stored(file.path) as stored, io.BufferedReader(stored, _BUFFER_BYTES) as stream:
        yield from read_samples(TarWalk(stream, file.size), is_hashed=is_hashed, is_any_media=is_any_media)
