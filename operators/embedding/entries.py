"""Embeddings of files by key: an index of 16-byte keys, and the vectors where they lie.

A key is the first 16 bytes of BLAKE2b of its text, so that no two texts are taken for each other, by accident or by
design. Of several entries with one key the first counts, in the order of the files' names and of their rows.

Memory: 24 bytes an entry. Matrices are mapped into memory. Vectors of Parquet files are written to one file of 16-bit
floats in the temporary folder, N x d x 2 bytes, which goes when the entries do, and take 16 bytes an entry more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from corpusmith.operators.embedding.files import EmbeddingFile, matrix_of
from corpusmith.operators.embedding.vectors import (
    Floats,
    Halves,
    Ints,
    most_frequent,
    normalised,
    offsets_of,
    rows_at,
    units,
)
from corpusmith.schemas.columns import EMBEDDING

_BATCH_ROWS = 16_384
_KEY_BYTES = 16


class Vectors(Protocol):
    """The vectors of numbered entries."""

    dimension: int

    def take(self, places: Ints) -> tuple[Floats, Ints]:
        """(B, d) unit vectors, and (B,) each one's length, or what is wrong with it as `vectors.units` says it."""
        ...


class Matrices:
    """Vectors in .npy files, one after the other."""

    def __init__(self, files: Sequence[EmbeddingFile]) -> None:
        self._matrices = [matrix_of(file.matrix) for file in files if file.matrix is not None]
        self._ends = np.cumsum([len(matrix) for matrix in self._matrices])
        self.dimension = int(self._matrices[0].shape[1])

    def take(self, places: Ints) -> tuple[Floats, Ints]:
        """See Vectors."""
        made, lengths = np.zeros((len(places), self.dimension), np.float32), np.zeros(len(places), np.int64)
        owners = np.searchsorted(self._ends, places, side="right")
        for owner in np.unique(owners).tolist():
            own, matrix = np.flatnonzero(owners == owner), self._matrices[owner]
            made[own], faults = normalised(matrix[places[own] - (self._ends[owner] - len(matrix))])
            lengths[own] = np.where(faults == 0, self.dimension, faults)
        return made, lengths


class Lists:
    """Vectors of a column of Parquet files; the usable dimension is that of most."""

    def __init__(self, files: Sequence[EmbeddingFile], column: str) -> None:
        with tempfile.TemporaryFile() as spool:
            lengths = [np.zeros(0, np.int64)]
            for batch in _batches(files, column):
                values, found = units(batch.column(0))
                spool.write(values.astype(np.float16).data)
                lengths.append(found)
            spool.flush()
            self._lengths = np.concatenate(lengths)
            self._offsets = offsets_of(self._lengths)
            count = int(np.maximum(self._lengths, 0).sum())
            empty: Halves = np.zeros(0, np.float16)
            self._values = np.memmap(spool, np.float16, "r", shape=(count,)) if count else empty
        self.dimension = most_frequent(self._lengths)

    def take(self, places: Ints) -> tuple[Floats, Ints]:
        """See Vectors."""
        made, lengths = np.zeros((len(places), self.dimension), np.float32), self._lengths[places]
        sound = np.flatnonzero(lengths == self.dimension)
        made[sound] = rows_at(self._values, self._offsets[places[sound]], self.dimension)
        return made, lengths


class Entries:
    """The entries of files by their keys.

    Args:
        files: in their order.
        key: column of the keys.
        vectors: column of the vectors where files have no matrix; "embedding" by default.
    """

    def __init__(self, files: Sequence[EmbeddingFile], key: str, vectors: str | None) -> None:
        keys = [np.zeros((0, 2), np.uint64)]
        present = [np.zeros(0, np.bool_)]
        for batch in _batches(files, key):
            keys.append(_digests(batch.column(0)))
            present.append(batch.column(0).is_valid().to_numpy(zero_copy_only=False))
        places = np.flatnonzero(np.concatenate(present))
        high, low = np.concatenate(keys)[places].T
        order = np.lexsort((low, high))
        self._high, self._low, self._places = high[order], low[order], places[order]
        has_matrices = files[0].matrix is not None
        self.vectors: Vectors = Matrices(files) if has_matrices else Lists(files, vectors or EMBEDDING.name)

    def find(self, keys: pa.Array | pa.ChunkedArray) -> Ints:
        """(N,) the number of each key's entry; -1 for none, and for null."""
        wanted = _digests(keys)
        at = np.searchsorted(self._high, wanted[:, 0])
        while True:
            within = at < len(self._high)
            step = within.copy()
            step[within] = self._high[at[within]] == wanted[within, 0]
            step[step] = self._low[at[step]] < wanted[step, 1]
            if not step.any():
                break
            at[step] += 1
        is_found = within & keys.is_valid().to_numpy(zero_copy_only=False)
        is_found[is_found] = (self._high[at[is_found]] == wanted[is_found, 0]) & (
            self._low[at[is_found]] == wanted[is_found, 1]
        )
        places = np.full(len(keys), -1)
        places[is_found] = self._places[at[is_found]]
        return places


def _batches(files: Sequence[EmbeddingFile], column: str) -> Iterator[pa.RecordBatch]:
    for file in files:
        with pq.ParquetFile(file.table) as opened:
            yield from opened.iter_batches(_BATCH_ROWS, columns=[column])


def _digests(keys: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """(N, 2) keys; any for null."""
    texts = keys.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()
    digests = b"".join(blake2b(text or b"", digest_size=_KEY_BYTES).digest() for text in texts)
    return np.frombuffer(digests, "<u8").reshape(-1, 2)
