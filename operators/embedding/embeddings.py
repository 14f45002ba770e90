"""embeddings: give rows the embeddings that lie in files, as clip-retrieval writes them or in Parquet.

Encoders run elsewhere, once; what they made is joined by uid, url, the source's own id or any other column. Vectors are
made unit vectors of 16-bit floats. Each worker opens the files for itself, so on a cluster they lie where all workers
see them; see `files` and `entries` for what is read and held.

Results are not stored by the state: looking up is as fast as reading them back, and they depend on the files, which a
stored annotation may not. The files' fingerprint is part of the step, so that later steps of changed files start anew.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from corpusmith.operators.contract import Annotate, Part
from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.embedding import files
from corpusmith.operators.embedding.entries import Entries
from corpusmith.operators.embedding.vectors import MISSING, causes
from corpusmith.schemas.columns import EMBEDDING, UID, Column
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import RowError


class FileEmbeddings(Annotate, name="embeddings", version=1):
    """Add the embeddings that lie in files: clip-retrieval's .npy and metadata, or a column of Parquet files."""

    class Config(BaseConfig):
        path: str = Field(
            description="folder with img_emb/*.npy and metadata/*.parquet (clip-retrieval's layout), or a Parquet file "
            "or folder of such; local"
        )
        on: str = Field(default=UID.name, description="column of the rows to find their entry by: uid, url, source_uid")
        key: str | None = Field(
            default=None, description="column of the files' tables that holds the same; the name of `on` by default"
        )
        vectors: str | None = Field(
            default=None,
            description="folder of the matrices in clip-retrieval's layout (img_emb by default; text_emb), or column "
            "of lists of floats in the Parquet files (embedding by default)",
        )
        name: str = Field(default=EMBEDDING.name, description="name of the column to add")
        files_sha256: str | None = Field(
            default=None,
            validate_default=True,
            description="fingerprint of the files, filled in when the recipe is read so that changed files are a "
            "changed step; give it to insist on some",
        )

        @field_validator("files_sha256")
        @classmethod
        def _are_the_files(cls, given: str | None, info: ValidationInfo) -> str | None:
            if not {"path", "on", "key", "vectors"} <= info.data.keys():
                return given
            vectors = info.data["vectors"]
            try:
                found = files.find(info.data["path"], vectors)
                files.check(found, info.data["key"] or info.data["on"], vectors)
                digest = files.fingerprint(found)
            except UserError as error:
                raise ValueError(str(error)) from error
            if given not in (None, digest):
                raise ValueError(f"the embeddings are others: {digest}")
            return digest

    positional = "path"
    stored = False
    isolated = False
    batch_rows = 4096
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.config.on,) if self.config.on != UID.name else ()

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column(self.config.name, EMBEDDING.type, EMBEDDING.meaning),)

    def setup(self) -> None:
        config = self.config
        found = files.find(config.path, config.vectors)
        if files.fingerprint(found) != config.files_sha256:
            raise UserError("the embeddings changed after the recipe was read", where=config.path)
        self._entries = Entries(found, config.key or config.on, config.vectors)

    def close(self) -> None:
        del self._entries

    def process(self, batch: pa.Table) -> Part:
        entries, dimension = self._entries, self._entries.vectors.dimension
        places = entries.find(batch.column(self.config.on))
        is_found = places >= 0
        lengths = np.full(len(places), MISSING)
        made, lengths[is_found] = entries.vectors.take(places[is_found])
        is_live = (lengths == dimension) & (dimension > 0)
        ends = pa.array(np.concatenate([[0], np.cumsum(is_live)]) * dimension, pa.int32())
        values = pa.array(made[is_live[is_found]].astype(np.float16).ravel())
        column = pa.ListArray.from_arrays(ends, values, mask=pa.array(~is_live))
        return Part({self.config.name: column}, self._errors(lengths, dimension, is_found))

    def _errors(self, lengths: np.ndarray, dimension: int, is_found: np.ndarray) -> dict[int, RowError]:
        errors, details = causes(lengths, dimension, self.config.name)
        told = {}
        for i in np.flatnonzero(errors.is_valid().to_numpy(zero_copy_only=False)).tolist():
            detail = details[i].as_py() if is_found[i] else f"no entry of this {self.config.on}"
            told[i] = RowError(errors[i].as_py(), detail or "")
        return told
