"""Spherical k-means over unit vectors: FAISS trains the centroids, and each row's nearest one is decided exactly.

FAISS (Johnson, Douze and Jégou, "Billion-scale similarity search with GPUs", 2017; MIT) runs Lloyd's iterations on
the inner product with centroids brought back to unit length, as SemDeDup and DataComp did, on GPUs where its build and
the machine have them. Like FAISS itself, training looks at no more than 256 rows a cluster, drawn by the seed from rows
in the caller's order: sort them by uid first, as `vectors.load` does, so that nothing depends on how they came.

Centroids are rounded to 16-bit floats. So their dot products with 16-bit vectors are exact (`vectors.dots`), and a
row's centroid is the one of the greatest, the first of equals: FAISS proposes by 32-bit floats, and rows whose best two
are nearer to each other than those are sure of are computed again. Training on the CPU gave the same centroids to the
last bit on any number of threads; another CPU's instructions, another FAISS or a GPU may give other ones.

Memory: min(N, 256 k) x d x 4 bytes to train, and blocks of some tens of megabytes; 16 bytes a row for what is found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmith.operators.embedding.vectors import Doubles, Floats, Ints, blocks, dots

MAX_CLUSTERS = 50_000
ROWS_PER_CLUSTER = 256
"""Rows that training looks at, for each cluster, at most."""
_UNIT_ROUNDOFF = 2.0**-24


@dataclass(frozen=True)
class Clusters:
    """What k-means finds for N vectors.

    Args:
        centroids: (k, d) unit vectors, rounded to 16-bit floats; some may be equal, or nobody's nearest.
        assignment: (N,) index of each row's nearest centroid.
        similarity: (N,) dot product of each row with it.
    """

    centroids: Floats
    assignment: Ints
    similarity: Doubles


def missing() -> str | None:
    """What this environment lacks for k-means, as Operator.missing() tells it."""
    if find_spec("faiss") is not None:
        return None
    return "faiss is not installed: pip install 'corpusmith[faiss]', or 'corpusmith[faiss-gpu]' for GPUs"


def default_k(count: int) -> int:
    """About the square root of the number of rows, at most MAX_CLUSTERS, at least 1."""
    return min(max(round(math.sqrt(count)), 1), MAX_CLUSTERS)


def spherical_kmeans(
    vectors: npt.NDArray[np.floating],
    k: int,
    *,
    iterations: int = 20,
    seed: int,
    rows_per_cluster: int = ROWS_PER_CLUSTER,
) -> Clusters:
    """Cluster unit vectors by cosine.

    Args:
        vectors: (N, d) unit vectors, 16-bit floats (or rounded to them), N > 0; in an order that is always the same.
        k: clusters; N where that is less.
        iterations: of Lloyd's algorithm.
        seed: of the sample and of the first centroids.
        rows_per_cluster: rows to train on, for each cluster, at most.
    """
    centroids = _trained(vectors, min(k, len(vectors)), iterations, seed, rows_per_cluster)
    return Clusters(centroids, *assign(vectors, centroids))


def assign(vectors: npt.NDArray[np.floating], centroids: Floats) -> tuple[Ints, Doubles]:
    """The nearest centroid of each row, by the greatest exact dot product, the first of equals.

    Args:
        vectors: (N, d) unit vectors, 16-bit floats (or rounded to them).
        centroids: (k, d), as of Clusters.

    Returns:
        (N,) indices of centroids, and (N,) dot products with them.
    """
    nearest, similarity = np.zeros(len(vectors), np.int64), np.zeros(len(vectors))
    index = _index(centroids)
    for block in blocks(len(vectors), centroids.shape[1]):
        rows = np.ascontiguousarray(vectors[block], np.float32)
        nearest[block] = _nearest(rows, centroids, index)
        similarity[block] = dots(rows, centroids[nearest[block]])
    return nearest, similarity


def dot_error(dimension: int) -> float:
    """By how much a dot product of two unit vectors in 32-bit floats can differ from the exact one, in any order of its
    terms (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1), vectors scaled beforehand included.
    """
    return (dimension + 8) * _UNIT_ROUNDOFF * 1.01


def _trained(vectors: npt.NDArray[np.floating], k: int, iterations: int, seed: int, rows_per_cluster: int) -> Floats:
    import faiss

    count, dimension = vectors.shape
    size = min(count, k * rows_per_cluster)
    drawn = np.random.default_rng(seed).choice(count, size, replace=False) if size < count else np.arange(count)
    sample = vectors[np.sort(drawn)].astype(np.float32)
    kmeans = faiss.Kmeans(
        dimension,
        k,
        niter=iterations,
        seed=seed % 2**31,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=max(-(-size // k), 1),
        gpu=faiss.get_num_gpus() > 0,
    )
    kmeans.train(sample)
    assert kmeans.centroids is not None
    return kmeans.centroids.astype(np.float16).astype(np.float32)


def _index(centroids: Floats) -> Any:
    """A FAISS index over the centroids, on the GPUs where there are any."""
    import faiss

    index = faiss.IndexFlatIP(centroids.shape[1])
    if faiss.get_num_gpus() > 0:
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(np.ascontiguousarray(centroids))
    return index


def _nearest(rows: Floats, centroids: Floats, index: Any) -> Ints:
    """Proposals of the index; rows that it cannot be sure of are computed in doubles, which are exact here."""
    found, places = index.search(rows, min(2, len(centroids)))
    nearest = places[:, 0].astype(np.int64)
    if len(centroids) == 1:
        return nearest
    unsure = np.flatnonzero(found[:, 0] - found[:, 1] <= 2 * dot_error(rows.shape[1]))
    step = max((1 << 22) // len(centroids), 1)
    doubles = centroids.astype(np.float64)
    for start in range(0, len(unsure), step):
        part = unsure[start : start + step]
        nearest[part] = np.argmax(rows[part].astype(np.float64) @ doubles.T, axis=1)
    return nearest
