"""cluster_select: keep the clusters of the pool that lie nearest to reference embeddings.

DataComp's image-based filter (Gadre et al., 2023, section 3.2 and appendix on baselines): the pool's image embeddings
are clustered by k-means, and each reference embedding (there of ImageNet-1k's training pictures) chooses the cluster
whose centroid it is nearest to; the rows of chosen clusters stay. There 100,000 clusters and 20 iterations; here about
as many clusters as the square root of the rows, where `k` is not given.

What differs from the published code: clusters are spherical. DataComp trained Euclidean k-means, on the whole pool or a
sample of it, and then took the nearest centroid by the inner product with centroids as they were, which prefers compact
clusters. Here centroids have unit length in training and after it, so that both mean the cosine (see
`embedding.kmeans`).

Memory: see `embedding.vectors` for the pool, about 50 bytes a row; R x d x 2 bytes for R reference embeddings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, ValidationInfo, field_validator

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Reduce, Reduced, Resources, Rows
from corpusmith.operators.dedup.evaluation_sets import EvaluationSet, read_vectors
from corpusmith.operators.embedding import kmeans, vectors
from corpusmith.operators.embedding.vectors import Embeddings, Halves
from corpusmith.operators.named_files import sha256_of
from corpusmith.schemas.columns import EMBEDDING, UID, Column
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import Fate

CLUSTER = Column("cluster", pa.int64(), "number of the row's k-means cluster, from 0")
CLUSTER_SIMILARITY = Column(
    "cluster_similarity", pa.float64(), "cosine of the row's embedding and its cluster's centroid"
)
_SLICE_ROWS = 1 << 17
_HOW = "reference: FILE, a .npy of (N, d) floats or a .parquet with the column of the pool's embeddings"


class ClusterSelect(Reduce, name="cluster_select", version=1):
    """Keep the k-means clusters of embeddings to which some reference embedding is nearest (DataComp image-based)."""

    class Config(BaseConfig):
        column: str = Field(
            default=EMBEDDING.name,
            description="column of embeddings, lists of floats; a row without one, or with one that is not finite, all "
            "zero or of another dimension than most, fails",
        )
        reference: tuple[str, ...] = Field(
            default=(),
            description="files of reference embeddings by the same encoder, such as of ImageNet-1k's training "
            "pictures: .npy of (N, d) floats, or .parquet with a column of the pool's name",
        )
        reference_sha256: str | None = Field(
            default=None,
            validate_default=True,
            description="fingerprint of those files, filled in when the recipe is read so that changed ones are a "
            "changed step; give it to insist on some",
        )
        k: int | None = Field(
            default=None,
            ge=1,
            description="clusters, N where there are fewer rows; about the square root of the number of rows, at most "
            f"{kmeans.MAX_CLUSTERS:,}, where it is left out; DataComp: 100000",
        )
        iterations: int = Field(default=20, ge=1, description="of k-means")

        @field_validator("reference", mode="before")
        @classmethod
        def _one_or_more(cls, given: Any) -> Any:
            return (given,) if isinstance(given, str) else given

        @field_validator("reference_sha256")
        @classmethod
        def _is_the_reference(cls, given: str | None, info: ValidationInfo) -> str | None:
            if not info.data.get("reference"):
                return given  # missing() tells it, so that a recipe can leave the files to its user
            try:
                found = sha256_of(info.data["reference"], _HOW)
            except UserError as error:
                raise ValueError(str(error)) from error
            if given not in (None, found):
                raise ValueError(f"the reference embeddings are others: {found}")
            return found

    positional = "reference"
    resources = Resources(memory_bytes=2 << 30)
    seeded = True
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.config.column,)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (CLUSTER, CLUSTER_SIMILARITY)

    def missing(self) -> str | None:
        return kmeans.missing() or (None if self.config.reference else f"no reference embeddings are named: {_HOW}")

    def reduce(self, rows: Rows) -> Reduced:
        pool = vectors.load(rows, self.config.column)
        reference = self._reference(pool.dimension)
        count = pool.rows.num_rows
        clusters, similarities = np.full(count, -1), np.zeros(count)
        chosen, facts = np.zeros(0, np.int64), {}
        if len(pool.live):
            k = self.config.k or kmeans.default_k(len(pool.live))
            found = kmeans.spherical_kmeans(pool.vectors, k, iterations=self.config.iterations, seed=self.seed)
            clusters[pool.live], similarities[pool.live] = found.assignment, found.similarity
            chosen = np.unique(kmeans.assign(reference, found.centroids)[0])
            facts = {"clusters": len(found.centroids), "largest_cluster": int(np.bincount(found.assignment).max())}
        stays = np.isin(clusters, chosen)
        decided = _decisions(pool, clusters, similarities, stays)
        summary = {
            "rows": count,
            "kept": int(stays.sum()),
            "dropped": len(pool.live) - int(stays.sum()),
            "failed": count - len(pool.live),
            "reference_embeddings": len(reference),
            "chosen_clusters": len(chosen),
        }
        return Reduced(decided, summary | facts)

    def _reference(self, dimension: int) -> Halves:
        """(R, d) unit vectors of the reference.

        Raises:
            UserError: there is none, it changed, or it has another dimension than the pool's.
        """
        config = self.config
        if not config.reference:
            raise UserError("no reference embeddings are named", where="cluster_select", hint=_HOW)
        where = ", ".join(config.reference)
        if sha256_of(config.reference, _HOW) != config.reference_sha256:
            raise UserError("the reference embeddings changed after the recipe was read", where=where)
        found = read_vectors(EvaluationSet(embeddings=config.reference), config.column).vectors
        if dimension and found.shape[1] != dimension:
            what = f"the reference embeddings have {found.shape[1]} dimensions, those in {config.column!r} {dimension}"
            raise UserError(what, where=where, hint="embed both by the same encoder")
        return found


_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in (UID.name, "fate", "reason", "error")),
        *(pa.field(column.name, column.type) for column in (CLUSTER, CLUSTER_SIMILARITY)),
    ]
)


def _decisions(
    pool: Embeddings,
    clusters: npt.NDArray[np.int64],
    similarities: npt.NDArray[np.float64],
    stays: npt.NDArray[np.bool_],
) -> pa.RecordBatchReader:
    """The decisions, in slices."""

    def batches() -> Any:
        for start in range(0, len(clusters), _SLICE_ROWS):
            part = slice(start, start + _SLICE_ROWS)
            size = len(clusters[part])
            errors = pool.errors.slice(start, size).cast(pa.string())
            failed, own = errors.is_valid(), pa.array(clusters[part])
            dropped = pc.and_not(pa.array(~stays[part]), failed)
            fates = pc.case_when(pc.make_struct(failed, dropped), Fate.FAILED.value, Fate.REJECTED.value)
            told = pc.binary_join_element_wise("nearest to no reference: cluster = ", own.cast(pa.string()), "")
            details = pool.details.slice(start, size).cast(pa.string())
            reasons = pc.case_when(pc.make_struct(failed, dropped), details, told)
            uids = pool.rows.column(UID.name).slice(start, size).combine_chunks()
            values = [pc.if_else(failed, None, column) for column in (own, pa.array(similarities[part]))]
            columns = [uids, fates, reasons, errors, *values]
            yield pa.record_batch([c.cast(f.type) for c, f in zip(columns, _SCHEMA, strict=True)], _SCHEMA)

    return pa.RecordBatchReader.from_batches(_SCHEMA, batches())
