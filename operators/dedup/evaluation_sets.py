"""Evaluation sets as decontaminate compares rows with them: named hashes, or named unit vectors.

Hashes come from lists (a text file with one a line, CSV, Parquet, JSON), or are made of images; embeddings from .npy or
Parquet. What cannot be read is an error that names the file and the line: a set of which a part is missing in silence
would let that part into the corpus.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from corpusmith.operators.dedup.evaluation_images import Named, image_hashes
from corpusmith.operators.embedding.vectors import Halves, blocks, check_type, normalised, unit_vectors
from corpusmith.schemas.errors import UserError

SHA256 = "sha256"
DIGITS: Mapping[str, int] = {"phash": 16, "pdq": 64, SHA256: 64}
NAME_COLUMNS = ("name", "file_name", "key", "uid", "url")
"""Of a table: the first of these that it has names its rows in reasons."""


class EvaluationSet(BaseModel):
    """Where one evaluation set is: one of four kinds, in one or more files or folders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: tuple[str, ...] = Field(
        default=(), description="folders of images, tars or patterns of tars, finished corpora; hashed here"
    )
    hashes: tuple[str, ...] = Field(
        default=(),
        description="lists of hashes of the recipe's kind: .txt, one a line; .json, a list or an object of names; .csv "
        "or .parquet with a column of the kind's name",
    )
    sha256: tuple[str, ...] = Field(default=(), description="lists of the media's sha256, in the same forms")
    embeddings: tuple[str, ...] = Field(
        default=(), description=".npy of (N, d) floats, or .parquet with the column that the pool has"
    )

    @field_validator("images", "hashes", "sha256", "embeddings", mode="before")
    @classmethod
    def _one_or_more(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _of_one_kind(self) -> EvaluationSet:
        if sum(bool(paths) for paths in (self.images, self.hashes, self.sha256, self.embeddings)) != 1:
            raise ValueError("give one of images, hashes, sha256, embeddings; other kinds are sets of their own")
        return self


@dataclass(frozen=True)
class Hashes:
    """(E,) names, in order, and their hashes: (E, W) uint64, W = 1 or 4."""

    names: Sequence[str]
    words: npt.NDArray[np.uint64]

    @property
    def content(self) -> bytes:
        """What a fingerprint of the set is made of."""
        return json.dumps([list(self.names), self.words.tobytes().hex()]).encode()


@dataclass(frozen=True)
class Vectors:
    """(E,) names, and (E, d) unit vectors."""

    names: Sequence[str]
    vectors: Halves

    @property
    def content(self) -> bytes:
        """What a fingerprint of the set is made of."""
        return json.dumps([list(self.names), hashlib.sha256(self.vectors.tobytes()).hexdigest()]).encode()


def read_hashes(given: EvaluationSet, kind: str, *, skip_unreadable: bool) -> Hashes:
    """The hashes of a set of images, hashes, or sha256.

    Args:
        given: the set.
        kind: of hashes, `phash` or `pdq`.
        skip_unreadable: leave out images that cannot be hashed.

    Raises:
        UserError: a file cannot be read or holds something else.
    """
    if given.images:
        named = image_hashes(given.images, kind, skip_unreadable=skip_unreadable)
    else:
        column = SHA256 if given.sha256 else kind
        named = [pair for path in given.sha256 or given.hashes for pair in _listed(path, column)]
    named.sort()
    digits = DIGITS[SHA256 if given.sha256 else kind]
    words = [[int(text[at : at + 16], 16) for at in range(0, digits, 16)] for _, text in named]
    return Hashes([name for name, _ in named], np.array(words, np.uint64))


def read_vectors(given: EvaluationSet, column: str) -> Vectors:
    """The unit vectors of a set of embeddings, 16-bit floats in a matrix: E × d × 2 bytes.

    Args:
        given: the set.
        column: of a Parquet file.

    Raises:
        UserError: a file cannot be read, or holds something else than vectors of one length, none of them zero.
    """
    names, parts = [], []
    for path in given.embeddings:
        own, vectors = _opened(path, lambda file, path=path: _vectors(file, path, column))
        if parts and parts[0].shape[1] != vectors.shape[1]:
            raise UserError(f"embeddings of {vectors.shape[1]} values, not {parts[0].shape[1]}", where=path)
        names += own
        parts.append(vectors)
    return Vectors(names, np.concatenate(parts))


def _opened(path: str, read: Callable[[Any], Any]) -> Any:
    """What a reader makes of a file."""
    try:
        with fsspec.open(path, "rb") as file:
            return read(file)
    except (OSError, ValueError, ImportError, pa.ArrowException) as error:
        hint = "check that the file is there, whole, and what its name says"
        raise UserError(f"the evaluation set cannot be read: {error}", where=path, hint=hint) from error


def _listed(path: str, column: str) -> list[Named]:
    """Names and hashes of a list."""
    readers = {".txt": _text, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    reader = next((reader for suffix, reader in readers.items() if path.endswith(suffix)), None)
    if reader is None:
        raise UserError("this is no list of hashes", where=path, hint=f"lists end in {', '.join(readers)}")
    named = _opened(path, lambda file: reader(file, path, column))
    pattern = re.compile(f"[0-9a-fA-F]{{{DIGITS[column]}}}")
    for name, text in named:
        if not isinstance(text, str) or not pattern.fullmatch(text):
            what = f"{name} is no {column} of {DIGITS[column]} hex digits: {str(text)[:70]!r}"
            raise UserError(what, where=path, hint="mend or remove it: a row left out would be let into the corpus")
    if not named:
        raise UserError("the list is empty", where=path)
    return named


def _text(file: Any, path: str, column: str) -> list[Named]:
    lines = file.read().decode().splitlines()
    return [(f"line {i + 1}", line.strip()) for i, line in enumerate(lines) if line.strip()]


def _json(file: Any, path: str, column: str) -> list[Named]:
    found = json.load(file)
    if isinstance(found, dict):
        return list(found.items())
    if not isinstance(found, list):
        raise UserError("this is neither a list of hashes nor an object of names and hashes", where=path)
    return [(f"item {i + 1}", text) for i, text in enumerate(found)]


def _csv(file: Any, path: str, column: str) -> list[Named]:
    names = pyarrow.csv.open_csv(file).schema.names
    file.seek(0)
    texts = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True)
    return _of_table(pyarrow.csv.read_csv(file, convert_options=texts), path, column)


def _parquet(file: Any, path: str, column: str) -> list[Named]:
    return _of_table(_table(file, path, column), path, column)


def _of_table(table: pa.Table, path: str, column: str) -> list[Named]:
    if column not in table.column_names:
        raise UserError(
            f"the table has no column {column!r}", where=path, hint=f"it has {', '.join(table.column_names)}"
        )
    return list(zip(_names(table), table.column(column).to_pylist(), strict=True))


def _table(file: Any, path: str, column: str) -> pa.Table:
    """A Parquet's column, and what names its rows."""
    parquet = pq.ParquetFile(file)
    there = parquet.schema_arrow.names
    return parquet.read([name for name in there if name in (column, *NAME_COLUMNS)])


def _names(table: pa.Table) -> list[str]:
    column = next((name for name in NAME_COLUMNS if name in table.column_names), None)
    found = table.column(column).to_pylist() if column is not None else [None] * table.num_rows
    return [f"row {i + 1}" if name is None else str(name) for i, name in enumerate(found)]


def _vectors(file: Any, path: str, column: str) -> tuple[list[str], Halves]:
    """Names and unit vectors of a file."""
    if path.endswith(".npy"):
        matrix = np.load(file, allow_pickle=False)
        if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.floating) or not matrix.size:
            raise UserError(f"this is no matrix of floats but {matrix.dtype} of shape {matrix.shape}", where=path)
        names = [f"row {i + 1}" for i in range(len(matrix))]
        made = [normalised(matrix[block]) for block in blocks(*matrix.shape)]
        vectors = np.concatenate([units.astype(np.float16) for units, _ in made])
        is_bad = np.concatenate([faults for _, faults in made]) != 0
    elif path.endswith(".parquet"):
        table = _table(file, path, column)
        if column not in table.column_names or not table.num_rows:
            raise UserError(f"there are no embeddings in a column {column!r}", where=path)
        check_type(table.schema.field(column).type, column)
        names, (units, errors) = _names(table), unit_vectors(table.column(column), column)
        vectors, is_bad = units.astype(np.float16), errors.is_valid().to_numpy(zero_copy_only=False)
    else:
        raise UserError("embeddings are a .npy or a .parquet file", where=path)
    if is_bad.any():
        what = (
            f"{names[int(np.argmax(is_bad))]} is no usable embedding: missing, zero, not finite, or of another length"
        )
        raise UserError(what, where=path, hint="mend or remove it: a row left out would be let into the corpus")
    return names, vectors
