"""subset: keep the rows that a file of ids names, in the form in which DataComp exchanges selections.

A subset file is a NumPy array of DataComp's dtype `u8,u8`: the upper and lower half of each sample's id, a number of
128 bits that is written as 32 hex digits everywhere else, sorted (mlfoundations/datacomp, `baselines/apply_filter.py`
and `resharder.py`). So a selection that was made elsewhere is a step here; `corpusmith subset` writes ours in the same
form.

A file's ids are held by each worker, 16 bytes an id, and looked up by binary search.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Literal, cast

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, ValidationInfo, field_validator

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Decision, Select
from corpusmith.operators.named_files import sha256_of
from corpusmith.schemas.columns import SOURCE_UID, UID
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import RowError
from corpusmith.schemas.identity import UID_HEX_DIGITS

SUBSET_DTYPE = np.dtype("u8,u8")
"""Upper and lower half of an id."""
_SHOWN_CHARS = 40
_HOW = "a subset file is an array of dtype u8,u8, as DataComp's baselines and `corpusmith subset` write it"

_NO_DIGIT = 255
_NIBBLES = np.full(256, _NO_DIGIT, np.uint8)
for _value, _digits in enumerate(zip("0123456789abcdef", "0123456789ABCDEF", strict=True)):
    _NIBBLES[list(map(ord, _digits))] = _value

Halves = npt.NDArray[np.uint64]
"""(N, 2) upper and lower half of each id."""


class Subset(Select, name="subset", version=1):
    """Keep the rows whose ids stand in a file: a DataComp subset."""

    class Config(BaseConfig):
        path: str = Field(min_length=1, description="the subset file (.npy), a local path or a URL")
        by: Literal["source_uid", "uid"] = Field(
            default="source_uid",
            description="source_uid: the id that the source gives a sample, such as DataComp's own; uid: ours. A row "
            "whose id is not 32 hex digits fails",
        )
        path_sha256: str | None = Field(
            default=None,
            validate_default=True,
            description="sha256 of the file, filled in when the recipe is read so that a changed file is a changed "
            "step; give it to insist on a file",
        )

        @field_validator("path_sha256")
        @classmethod
        def _is_the_file(cls, given: str | None, info: ValidationInfo) -> str | None:
            if "path" not in info.data:
                return given
            try:
                found = sha256_of([info.data["path"]], _HOW)
            except UserError as error:
                raise ValueError(str(error)) from error
            if given not in (None, found):
                raise ValueError(f"the subset file is another one: {found}")
            return found

    positional = "path"
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return () if self.config.by == UID.name else (SOURCE_UID.name,)

    def setup(self) -> None:
        self._ids = np.asfortranarray(read_subset(self.config.path))  # the search wants each half in one piece
        self._label = f"not in {PurePosixPath(self.config.path).name}"

    def decide(self, batch: pa.Table) -> Decision:
        ids = batch.column(self.config.by).combine_chunks()
        halves, is_id = halves_of(ids)
        stays = np.zeros(len(ids), np.bool_)
        stays[is_id] = _are_among(halves[is_id], self._ids)
        dropped = np.flatnonzero(~stays & is_id)
        shown = ids.take(pa.array(dropped)).to_pylist()
        reasons = {
            i: f"{self._label}: {self.config.by} = {one}" for i, one in zip(dropped.tolist(), shown, strict=True)
        }
        unusable = np.flatnonzero(~is_id)
        errors = {
            i: self._error(one)
            for i, one in zip(unusable.tolist(), ids.take(pa.array(unusable)).to_pylist(), strict=True)
        }
        return Decision(pa.array(stays), reasons, errors)

    def _error(self, value: str | None) -> RowError:
        if value is None:
            return RowError(f"missing {self.config.by}")
        return RowError(f"malformed {self.config.by}", f"not {UID_HEX_DIGITS} hex digits: {value[:_SHOWN_CHARS]}")


def halves_of(ids: pa.Array) -> tuple[Halves, npt.NDArray[np.bool_]]:
    """Ids as pairs of numbers.

    Args:
        ids: (N,) strings.

    Returns:
        (N, 2) upper and lower half, zeros where there is no id; (N,) whether it is one: 32 hex digits, of any case.
    """
    fits = pc.fill_null(pc.equal(pc.binary_length(ids), UID_HEX_DIGITS), False)
    fitting = ids.filter(fits).cast(pa.binary()).cast(pa.binary(UID_HEX_DIGITS))
    data = fitting.buffers()[1]
    digits = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    digits = digits[fitting.offset * UID_HEX_DIGITS :][: len(fitting) * UID_HEX_DIGITS]
    nibbles = _NIBBLES[digits]
    octets = ((nibbles[0::2] << 4) | (nibbles[1::2] & 0xF)).reshape(-1, UID_HEX_DIGITS // 2)
    is_hex = (nibbles != _NO_DIGIT).reshape(-1, UID_HEX_DIGITS).all(axis=1)
    halves, is_id = np.zeros((len(ids), 2), np.uint64), fits.to_numpy(zero_copy_only=False).copy()
    is_id[is_id] = is_hex
    halves[is_id] = octets.view(">u8")[is_hex]
    return halves, is_id


def sorted_halves(halves: Halves) -> Halves:
    """Ids in ascending order, each once."""
    if len(halves) < 2 or _rises(halves):
        return halves
    ordered = halves[np.lexsort((halves[:, 1], halves[:, 0]))]
    is_new = np.ones(len(ordered), np.bool_)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return ordered[is_new]


def read_subset(path: str) -> Halves:
    """The ids of a subset file: (N, 2), sorted, each once.

    Raises:
        UserError: it cannot be read, or is no subset file.
    """
    try:
        with cast(Any, fsspec.open(path, "rb")) as file:
            array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, ImportError) as error:
        raise UserError(f"the subset file cannot be read: {error}", where=path, hint=_HOW) from error
    if not isinstance(array, np.ndarray):
        raise UserError("the file holds several arrays", where=path, hint=_HOW)
    fields = [array.dtype[i] for i in range(len(array.dtype.names or ()))]
    if array.ndim != 1 or len(fields) != 2 or any((field.kind, field.itemsize) != ("u", 8) for field in fields):
        what = f"the array is {array.ndim}-dimensional, of dtype {array.dtype}"
        raise UserError(what, where=path, hint=_HOW)
    return sorted_halves(
        np.stack([array[name] for name in array.dtype.names or ()], axis=1).astype(np.uint64, copy=False)
    )


def _rises(halves: Halves) -> bool:
    upper, lower = halves[:, 0], halves[:, 1]
    return bool(((upper[1:] > upper[:-1]) | ((upper[1:] == upper[:-1]) & (lower[1:] > lower[:-1]))).all())


def _are_among(wanted: Halves, ids: Halves) -> npt.NDArray[np.bool_]:
    """Whether each of some ids is among those of a sorted list."""
    if not len(ids):
        return np.zeros(len(wanted), np.bool_)
    upper, lower = ids[:, 0], ids[:, 1]
    first = np.searchsorted(upper, wanted[:, 0])
    place = np.minimum(first, len(ids) - 1)
    is_upper = upper[place] == wanted[:, 0]
    found = is_upper & (lower[place] == wanted[:, 1])
    # several ids with the same upper half: never by chance
    shared = is_upper & ~found & (upper[np.minimum(place + 1, len(ids) - 1)] == wanted[:, 0])
    for i in np.flatnonzero(shared).tolist():
        same = lower[first[i] : np.searchsorted(upper, wanted[i, 0], "right")]
        at = np.searchsorted(same, wanted[i, 1])
        found[i] = at < len(same) and same[at] == wanted[i, 1]
    return found
