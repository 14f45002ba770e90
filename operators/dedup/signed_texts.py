"""Signed texts on their way: made in pieces wherever the rows are, gathered in files of the scratch folder.

What is as large as the texts, and what is needed one band at a time, lies in files: the texts themselves, end to end,
and a file of keys for each band. In memory a row costs its uid and some numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.dedup.shingles import Bytes, Ints, Sizes, TextForm, buffers, forms_of
from corpusmith.schemas.columns import UID
from corpusmith.schemas.errors import UserError

Hashes = npt.NDArray[np.uint64]

GOOD, MALFORMED, EMPTY, MISSING = range(4)
"""What became of a row: signed; or why not. MISSING + i: the i-th column of those that are needed is null."""


@dataclass(frozen=True)
class Signing:
    """Makes keys of texts; travels to workers.

    Args:
        columns: the column with the text, then those that must be equal, too.
        prefer: column that ranks rows, carried along, or None.
        form, sizes: the form of texts, and how they are cut.
        bands, rows_per_band: permutations are as many as both multiplied; 0 rows put all texts into one bucket.
    """

    columns: tuple[str, ...]
    prefer: str | None
    form: TextForm
    sizes: Sizes
    bands: int
    rows_per_band: int

    def __call__(self, rows: pa.Table) -> Signed:
        from corpusmith.operators.dedup.minhash_kernels import band_keys, text_hashes

        forms = forms_of(rows.column(self.columns[0]), form=self.form, column=self.columns[0])
        contexts = self._contexts(rows)
        multipliers, addends = permutations(self.bands * self.rows_per_band)
        data, offsets = forms.data, forms.offsets
        keys = band_keys(data, offsets, self.sizes, multipliers, addends, self.bands, contexts)
        states = np.where(np.diff(offsets) > 0, GOOD, EMPTY)
        for i, name in reversed(list(enumerate(self.columns))):
            states[rows.column(name).is_null().to_numpy()] = MISSING + i
        states[forms.is_malformed] = MALFORMED
        preferences = _nan_as_null(rows.column(self.prefer)) if self.prefer else None
        uids = rows.column(UID.name).cast(pa.large_string()).combine_chunks()
        hashes = text_hashes(data, offsets, contexts)
        return Signed(uids, preferences, states.astype(np.uint8), data, np.diff(offsets), hashes, keys)

    def _contexts(self, rows: pa.Table) -> Hashes:
        """(N,) a hash of each row's values that must be equal; 0 where there are no such columns."""
        from corpusmith.operators.dedup.minhash_kernels import text_hashes

        contexts = np.zeros(rows.num_rows, np.uint64)
        for name in self.columns[1:]:
            data, offsets = buffers(_as_bytes(rows.column(name), name))
            contexts = text_hashes(data, offsets, contexts)
        return contexts


@dataclass(frozen=True)
class Signed:
    """Some rows: what became of each, its text's form, a hash of that and its context, and (bands, N) keys."""

    uids: pa.LargeStringArray
    preferences: pa.ChunkedArray | None
    states: npt.NDArray[np.uint8]
    data: Bytes
    lengths: Ints
    hashes: Hashes
    keys: Hashes


class SignedTexts:
    """All rows, gathered piece by piece; close() before reading.

    Args:
        folder: a local scratch folder.
        bands: as signed.
    """

    def __init__(self, folder: str, bands: int) -> None:
        self._folder = Path(folder)
        names = ["texts", "lengths", "states", "hashes", *(f"keys_{band}" for band in range(bands))]
        self._files = {name: (self._folder / f"minhash_{name}").open("wb") for name in names}
        self._uids: list[pa.LargeStringArray] = []
        self._preferences: list[pa.ChunkedArray] = []
        self.count = 0

    def extend(self, pieces: Iterator[Signed]) -> None:
        """Append rows."""
        for piece in pieces:
            self.count += len(piece.uids)
            self._uids.append(piece.uids)
            if piece.preferences is not None:
                self._preferences.append(piece.preferences)
            for name, values in self._parts(piece):
                self._files[name].write(np.ascontiguousarray(values).data)

    def close(self) -> None:
        """No more rows come."""
        for file in self._files.values():
            file.close()

    @staticmethod
    def _parts(piece: Signed) -> Iterator[tuple[str, np.ndarray]]:
        yield from (("texts", piece.data), ("lengths", piece.lengths), ("states", piece.states))
        yield "hashes", piece.hashes
        yield from ((f"keys_{band}", keys) for band, keys in enumerate(piece.keys))

    @property
    def uids(self) -> pa.ChunkedArray:
        """(N,) large strings."""
        return pa.chunked_array(self._uids, pa.large_string())

    @property
    def preferences(self) -> pa.ChunkedArray | None:
        """(N,) of the column's type, NaN as null, and null where a piece has none; None where no piece has any."""
        chunks = [chunk for column in self._preferences for chunk in column.chunks]
        if not chunks:
            return None
        return pa.chunked_array([*chunks, pa.nulls(self.count - sum(map(len, chunks)), chunks[0].type)])

    @property
    def states(self) -> npt.NDArray[np.uint8]:
        """(N,) what became of each row."""
        return np.fromfile(self._path("states"), np.uint8)

    @property
    def hashes(self) -> Hashes:
        """(N,) of text and context."""
        return np.fromfile(self._path("hashes"), np.uint64)

    def keys(self, band: int) -> Hashes:
        """(N,) of one band."""
        return np.fromfile(self._path(f"keys_{band}"), np.uint64)

    def offsets(self) -> Ints:
        """(N + 1,) where each text begins."""
        lengths = np.fromfile(self._path("lengths"), np.int64)
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])

    def texts(self) -> Bytes:
        """UTF-8 of all, mapped from the file."""
        path = self._path("texts")
        if not path.stat().st_size:
            return np.zeros(0, np.uint8)
        return np.memmap(path, np.uint8, "r+").view(np.ndarray)

    def _path(self, name: str) -> Path:
        return self._folder / f"minhash_{name}"


def permutations(count: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Multipliers, odd, and addends, of permutations of 32 bits; the first ones are the same for any count."""
    drawn = np.random.Generator(np.random.PCG64(0x6D696E68)).integers(0, 2**32, (count, 2), np.uint32)
    return np.ascontiguousarray(drawn[:, 0] | np.uint32(1)), np.ascontiguousarray(drawn[:, 1])


def _as_bytes(column: pa.ChunkedArray, name: str) -> pa.LargeBinaryArray:
    """Values as bytes that differ where the values do; nulls as none."""
    try:
        strings = column.cast(pa.large_string()).cast(pa.large_binary())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        hint = "name columns of texts, numbers, times or booleans"
        raise UserError(f"values of column {name!r} cannot be compared: {error}", hint=hint) from error
    return pc.fill_null(strings, b"").combine_chunks()


def _nan_as_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_floating(column.type):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
