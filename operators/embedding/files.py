"""Files of embeddings: which there are, whether they fit together, and a fingerprint of them.

Two layouts are read. clip-retrieval's (Beaumont, MIT): a folder with `img_emb/img_emb_0.npy` and its siblings, and
`metadata/metadata_0.parquet` beside them, row by row. Or Parquet files with a column of keys and one of lists of
floats.

A fingerprint takes names, sizes and content. Content is read whole up to 4 MiB a file; of larger files it is 64 blocks
of 64 KiB at equal distances, the first and the last included: gigabytes of embeddings would take minutes each time a
recipe is read. So a change that keeps a large file's size and touches none of those blocks is not seen.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from corpusmith.operators.embedding.vectors import check_type
from corpusmith.schemas.columns import EMBEDDING
from corpusmith.schemas.errors import UserError

MATRICES = "img_emb"
METADATA = "metadata"
_NUMBER = re.compile(r"(\d+)\.(?:npy|parquet)$")
_SAMPLED_BLOCKS = 64
_BLOCK_BYTES = 1 << 16


@dataclass(frozen=True)
class EmbeddingFile:
    """Some entries: a Parquet file, and the matrix whose rows are its rows'.

    Args:
        table: Parquet with the keys.
        matrix: .npy, N x d floats; None where the Parquet holds the vectors itself.
    """

    table: Path
    matrix: Path | None = None


def find(path: str, vectors: str | None) -> list[EmbeddingFile]:
    """The files at a path, in the order of their names.

    Args:
        path: a folder of clip-retrieval's layout, or a Parquet file or a folder of such.
        vectors: for clip-retrieval's layout the folder of matrices; "img_emb" by default.

    Raises:
        UserError: there are none, or one lacks its partner.
    """
    root = Path(path)
    if "://" in path:
        hint = "copy them to a disk that all workers see: they are mapped into memory"
        raise UserError("embeddings are read from local files", where=path, hint=hint)
    if not root.exists():
        raise UserError("there is nothing", where=path, hint="name a folder, or a Parquet file, of embeddings")
    if (root / METADATA).is_dir():
        return _paired(root, vectors or MATRICES)
    tables = [root] if root.is_file() else sorted(root.rglob("*.parquet"))
    if not tables:
        hint = f"clip-retrieval's layout is {MATRICES}/*.npy with {METADATA}/*.parquet; else give Parquet files"
        raise UserError("no files of embeddings", where=path, hint=hint)
    return [EmbeddingFile(table) for table in tables]


def check(files: Sequence[EmbeddingFile], key: str, vectors: str | None) -> None:
    """See that files fit together, by their headers alone.

    Raises:
        UserError: a column is not there, a matrix is none or has other rows than its Parquet, dimensions differ.
    """
    dimensions: dict[int, Path] = {}
    for file in files:
        schema, count = _header(file.table)
        _require(schema, key, file.table)
        if file.matrix is None:
            name = vectors or EMBEDDING.name
            _require(schema, name, file.table)
            check_type(schema.field(name).type, name)
            continue
        matrix = matrix_of(file.matrix)
        dimensions.setdefault(matrix.shape[1], file.matrix)
        if len(matrix) != count:
            raise UserError(f"{len(matrix)} vectors for {count} rows of {file.table.name}", where=str(file.matrix))
    if len(dimensions) > 1:
        told = " and ".join(f"{dimension} in {path.name}" for dimension, path in dimensions.items())
        raise UserError(f"vectors of different dimensions: {told}", where=str(files[0].matrix))


def matrix_of(path: Path) -> npt.NDArray[np.floating]:
    """An .npy file's N x d floats, mapped into memory.

    Raises:
        UserError: it holds something else.
    """
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"the matrix cannot be read: {error}", where=str(path)) from error
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.floating):
        shown = f"{matrix.dtype} of shape {matrix.shape}" if isinstance(matrix, np.ndarray) else "an archive"
        raise UserError(f"holds {shown}, not a matrix of floats", where=str(path))
    return matrix


def fingerprint(files: Sequence[EmbeddingFile]) -> str:
    """sha256 of the files' names, sizes and sampled contents; where they lie means nothing."""
    digest = hashlib.sha256()
    for file in files:
        for path in (file.table, *([file.matrix] if file.matrix else [])):
            size_bytes = path.stat().st_size
            digest.update(f"{path.name}\0{size_bytes}\0".encode())
            with path.open("rb") as opened:
                for start in _sampled(size_bytes):
                    opened.seek(start)
                    digest.update(opened.read(_BLOCK_BYTES))
    return digest.hexdigest()


def _sampled(size_bytes: int) -> list[int]:
    """Where the blocks begin that stand for a file."""
    if size_bytes <= _SAMPLED_BLOCKS * _BLOCK_BYTES:
        return list(range(0, size_bytes, _BLOCK_BYTES))
    last = size_bytes - _BLOCK_BYTES
    return [last * i // (_SAMPLED_BLOCKS - 1) for i in range(_SAMPLED_BLOCKS)]


def _paired(root: Path, vectors: str) -> list[EmbeddingFile]:
    """Matrices and tables of equal numbers."""
    matrices, tables = (_numbered(root / vectors, "*.npy"), _numbered(root / METADATA, "*.parquet"))
    if not matrices:
        raise UserError(f"there are no matrices, {vectors}/*.npy with a number in their names", where=str(root))
    for number in sorted(matrices.keys() ^ tables.keys()):
        what = f"{vectors}/*_{number}.npy and {METADATA}/*_{number}.parquet need each other"
        found = matrices.get(number) or tables[number]
        raise UserError(f"{what}: there is only {found.name}", where=str(root))
    return [EmbeddingFile(tables[number], matrices[number]) for number in sorted(matrices)]


def _numbered(folder: Path, pattern: str) -> dict[int, Path]:
    named = ((_NUMBER.search(path.name), path) for path in sorted(folder.glob(pattern)))
    return {int(found[1]): path for found, path in named if found}


def _header(path: Path) -> tuple[pa.Schema, int]:
    try:
        with pq.ParquetFile(path) as file:
            return file.schema_arrow, file.metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"the Parquet cannot be read: {error}", where=str(path)) from error


def _require(schema: pa.Schema, name: str, path: Path) -> None:
    if name not in schema.names:
        hint = f"it has: {', '.join(schema.names)}"
        raise UserError(f"there is no column {name!r}", where=str(path), hint=hint)
