"""Finished corpora as a reduce reads them: the kept samples' columns, from the Parquets beside the shards.

What a reduce reads besides its rows decides its result, so its config carries a fingerprint of it: a parameter
`…_sha256` that is filled in when the recipe is read, so that a changed file is a changed step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from corpusmith.schemas.columns import UID
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.manifest import MANIFEST_PATH, Manifest

CORPUS = "corpus"
"""Column of `samples`: the name of the corpus that a sample belongs to."""
_BATCH_ROWS = 65_536


def corpora_sha256(corpora: Sequence[str]) -> str:
    """Fingerprint of the samples of finished corpora, from their manifests; the order of the list means nothing.

    Raises:
        UserError: one of them is no finished corpus.
    """
    digests = sorted(_content(_finished(corpus)[2]) for corpus in corpora)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def samples(corpora: Sequence[str], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Samples of finished corpora: `uid`, the columns, and CORPUS; in the order of the list and of the shards.

    Args:
        corpora: folders, local or as URLs.
        columns: of the samples, without `uid`.

    Raises:
        UserError: one of them is no finished corpus, or its samples lack a column.
    """
    for corpus in corpora:
        fs, root, manifest = _finished(corpus)
        for path in (path for shard in manifest.shards for path in sorted(shard.files) if path.endswith(".parquet")):
            try:
                with fs.open(f"{root}/{path}", "rb") as file:
                    yield from _read(pq.ParquetFile(file), corpus, manifest.corpus, columns)
            except (OSError, pa.ArrowInvalid) as error:
                hint = f"`corpusmith verify {corpus}` tells what else it lacks"
                raise UserError(f"{path} cannot be read: {error}", where=corpus, hint=hint) from error


def _read(parquet: pq.ParquetFile, corpus: str, name: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    wanted = list(dict.fromkeys([UID.name, *columns]))
    lacking = [column for column in wanted if column not in parquet.schema_arrow.names]
    if lacking:
        hint = f"its samples have: {', '.join(sorted(parquet.schema_arrow.names))}"
        raise UserError(f"the corpus has no column {lacking[0]!r}", where=corpus, hint=hint)
    for batch in parquet.iter_batches(_BATCH_ROWS, columns=wanted):
        yield batch.select(wanted).append_column(CORPUS, pa.repeat(pa.scalar(name, pa.string()), batch.num_rows))


def _finished(corpus: str) -> tuple[Any, str, Manifest]:
    """The file system, the folder there, and the manifest of a corpus."""
    try:
        fs, root = fsspec.core.url_to_fs(corpus.rstrip("/"))
        return fs, root, Manifest.model_validate_json(fs.cat_file(f"{root}/{MANIFEST_PATH}"))
    except FileNotFoundError as error:
        hint = "give the folder of a corpus that a run has finished: it holds manifest.json"
        raise UserError("this is no finished corpus", where=corpus, hint=hint) from error
    except (OSError, ImportError, ValueError, ValidationError) as error:
        raise UserError(f"the corpus cannot be read: {error}", where=corpus) from error


def _content(manifest: Manifest) -> str:
    """Digest of the samples themselves: the same for the same samples whatever the versions and times."""
    digest = hashlib.sha256(manifest.corpus.encode())
    for shard in manifest.shards:
        for path, record in sorted(shard.files.items()):
            digest.update(f"\n{path} {record.sha256}".encode() if path.endswith(".parquet") else b"")
    return digest.hexdigest()
