"""dedup.semantic: of the rows whose embeddings say nearly the same one goes on (SemDeDup).

Abbas et al., "SemDeDup: Data-efficient learning at web-scale through semantic deduplication", 2023: embeddings are
clustered by k-means, and only rows of one cluster are compared. Within a cluster rows are sorted by distance from the
centroid, the farthest ("hard" ones) first, and a row is dropped if its cosine with any row before it, itself dropped or
not, exceeds 1 - epsilon.

The direction of epsilon: a larger one drops more. That is what the paper and the published code do; the README of that
code says the opposite ("lower epsilon will cause more agressive pruning").

`rule: published` is that rule. A dropped row belongs to the group of the first row before it that is a near-duplicate
of it, and so on until a row that is kept. `rule: components` keeps one row of whatever is connected by near-duplicates,
as the other ways to deduplicate do: it drops the same rows and those that have no near-duplicate before them but are
connected with such a row all the same. Under both no two rows that are kept are near-duplicates within a cluster;
duplicates that k-means puts into two clusters stay, which is the price of not comparing all with all.

Rows of finished corpora (`against`) come before all others and stay: they are put into the clusters of the pool's
centroids and not compared with each other.

Cosines and distances are exact for embeddings of 16-bit floats, so that who goes depends on the clusters, the rows and
the parameters alone: on no order, number of threads or size of blocks (see `embedding.vectors`, `embedding.kmeans`).

Memory: embeddings lie on disk, N x d x 2 bytes of the scratch folder, twice that while they are sorted. About 250 bytes
a row are held, and while k-means trains min(N, 256 k) x d x 4 bytes: 2.5 GB for 10M rows of 512 dimensions.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Reduce, Reduced, Resources, Rows
from corpusmith.operators.dedup.against import AgainstSha256, check_unchanged
from corpusmith.operators.dedup.groups import DEDUP_GROUP, DEDUP_SIZE
from corpusmith.operators.dedup.semantic_groups import Groups, Rule, grouped
from corpusmith.operators.dedup.semantic_pool import Pool, preference
from corpusmith.operators.draws import draws
from corpusmith.operators.embedding import kmeans, vectors
from corpusmith.operators.embedding.vectors import Doubles
from corpusmith.schemas.columns import EMBEDDING, UID, Column

CURVE = (0.001, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
"""Values of epsilon that the report counts for, besides the one that decides."""


class Semantic(Reduce, name="dedup.semantic", version=1):
    """Keep one of the rows whose embeddings nearly agree: in one k-means cluster, cosine > 1 - epsilon (SemDeDup)."""

    class Config(BaseConfig):
        epsilon: float = Field(
            default=0.01,
            gt=0,
            le=1,
            description="rows of a cluster whose cosine exceeds 1 - epsilon are near-duplicates: a larger epsilon "
            "drops more; 0.001 to 0.05 are usual, and what is near depends on the encoder",
        )
        column: str = Field(
            default=EMBEDDING.name,
            description="column of embeddings, lists of floats; a row without one, or with one that is not finite, all "
            "zero or of another dimension than most, fails",
        )
        k: int | None = Field(
            default=None,
            ge=1,
            description="clusters; about the square root of the number of rows, at most 50,000, where it is left out",
        )
        iterations: int = Field(default=20, ge=1, description="of k-means")
        rule: Literal["components", "published"] = Field(
            default="components",
            description="components: one row stays of whatever is connected by near-duplicates; published: a row goes "
            "if a row before it is its near-duplicate, whether that one stays or not (SemDeDup to the letter; drops "
            "fewer)",
        )
        keep: Literal["farthest", "nearest", "random"] = Field(
            default="farthest",
            description="who comes first and so represents a group: the farthest from the centroid (SemDeDup's hard "
            "examples), the nearest (easy ones), or a seeded draw; ties go to the lowest uid",
        )
        prefer: str | None = Field(
            default=None,
            description="column whose highest value comes first, such as a resolution or a score, rows without a value "
            "last; `keep` decides between equal ones",
        )
        against: tuple[str, ...] = Field(
            default=(),
            description="folders of finished corpora with a column of such embeddings: rows near to one of their "
            "samples go, too",
        )
        against_sha256: AgainstSha256 = None

        @field_validator("prefer")
        @classmethod
        def _is_another(cls, prefer: str | None, info: ValidationInfo) -> str | None:
            if prefer is not None and prefer == info.data.get("column"):
                raise ValueError("embeddings have no order: name a column of values, such as a score")
            return prefer

    positional = "epsilon"
    resources = Resources(memory_bytes=2 << 30)
    seeded = True
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        wanted = (self.config.column, *([self.config.prefer] if self.config.prefer else []))
        return tuple(dict.fromkeys(name for name in wanted if name != UID.name))

    @property
    def produces(self) -> tuple[Column, ...]:
        return (DEDUP_GROUP, DEDUP_SIZE)

    def missing(self) -> str | None:
        return kmeans.missing()

    def reduce(self, rows: Rows) -> Reduced:
        config = self.config
        check_unchanged(config.against, config.against_sha256)
        own = vectors.load(rows, config.column, columns=[config.prefer] if config.prefer else [])
        pool = Pool.of(own, config.against, config.column, rows.scratch_dir)
        groups, facts = self._grouped(pool)
        grouping, cosines = pool.told(groups)

        def measures(start: int, stop: int) -> pa.Array:
            return pa.array([f"cosine {cosine:.4f}" for cosine in cosines[start:stop].tolist()], pa.string())

        decisions = grouping.told(f"near-duplicate {config.column}", measures)
        return Reduced(decisions, grouping.summary() | facts)

    def _grouped(self, pool: Pool) -> tuple[Groups, dict[str, Any]]:
        config, own = self.config, pool.own
        if not len(own.live):
            return Groups(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), {}), {}
        k = config.k or kmeans.default_k(len(own.live))
        found = kmeans.spherical_kmeans(own.vectors, k, iterations=config.iterations, seed=self.seed)
        theirs, _ = kmeans.assign(pool.theirs.vectors, found.centroids)
        clusters = np.concatenate([found.assignment, theirs])
        rule = Rule(config.epsilon, config.rule == "published", CURVE)
        order = np.lexsort((*self._ranks(pool, found.similarity), ~pool.is_fixed, clusters))
        groups = grouped(pool.take, own.dimension, order, clusters, pool.is_fixed, rule)
        facts = {
            "clusters": len(found.centroids),
            "largest_cluster": int(np.bincount(clusters).max()),
            "dropped_by_epsilon": {f"{epsilon:g}": groups.dropped[epsilon] for epsilon in rule.epsilons},
            **({"compared_samples": len(theirs)} if config.against else {}),
        }
        return groups, facts

    def _ranks(self, pool: Pool, similarity: Doubles) -> list[np.ndarray]:
        """Keys of `np.lexsort` for who comes first, the last one foremost; places are by uid, which ends ties."""
        config, rows = self.config, pool.own.rows.take(pa.array(pool.own.live))
        keys: list[np.ndarray] = [similarity if config.keep == "farthest" else -similarity]
        if config.keep == "random":
            keys = [draws(rows.column(UID.name), self.seed, "dedup.semantic ")]
        if config.prefer is not None:
            keys.append(preference(rows.column(config.prefer), config.prefer))
        return [np.concatenate([key, np.zeros(len(pool.theirs.live), key.dtype)]) for key in keys]
