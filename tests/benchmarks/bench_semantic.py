"""dedup.semantic against the bare matrix products of its distance work, on one thread.

Run it as `python tests/benchmarks/bench_semantic.py [ROWS [DIMENSION]]`. The pool is 100,000 unit vectors of 512
dimensions around 3,000 centres of unequal size, a fifth of them near-duplicates of others. The reference is matrix
products of the same shapes by NumPy's BLAS, results thrown away: for k-means each iteration's rows by k and the final
assignment of all rows; within clusters each cluster by itself, of which BLAS computes one triangle. The ratio is the
reference's time over ours, 1 for nothing but products. Both run on one thread and times are of the cores' clock, so
that others at work on the machine count for little.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits
from timing import say

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' helpers

from shuffled import ShuffledRows, decided

from corpusmith.operators.dedup.semantic import CURVE, Semantic
from corpusmith.operators.dedup.semantic_groups import Rule, grouped
from corpusmith.operators.embedding import kmeans

TURNS = 3
ITERATIONS = 20


def pool(count: int, dimension: int) -> np.ndarray:
    """(N, d) float16 unit vectors."""
    drawn = np.random.default_rng(0)
    centres = drawn.normal(size=(3000, dimension)).astype(np.float32)
    chosen = np.minimum(drawn.zipf(1.3, count), len(centres)) - 1
    made = centres[chosen] + 0.8 * drawn.normal(size=(count, dimension)).astype(np.float32)
    copies = drawn.permutation(count)[: count // 5]
    noise = drawn.normal(size=(len(copies), dimension)).astype(np.float32)
    made[copies] = made[drawn.integers(0, count, len(copies))] + 0.05 * noise
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made.astype(np.float16)


def least_s(work: Callable[[], object]) -> float:
    """Seconds of a core, the least of a few turns."""
    turns = []
    for _ in range(TURNS):
        started = time.process_time()
        work()
        turns.append(time.process_time() - started)
    return min(turns)


def products_of_kmeans(vectors: np.ndarray, centroids: np.ndarray) -> float:
    """Seconds of the products alone: an iteration is timed and counted as often as it is done."""
    trained = min(len(vectors), len(centroids) * kmeans.ROWS_PER_CLUSTER)

    def multiply(count: int) -> None:
        for start in range(0, count, 4096):
            np.matmul(vectors[start : min(start + 4096, count)], centroids.T)

    return ITERATIONS * least_s(lambda: multiply(trained)) + least_s(lambda: multiply(len(vectors)))


def compare(count: int, dimension: int) -> None:
    """Print a line for each part and one for the whole."""
    vectors = pool(count, dimension)
    k = kmeans.default_k(count)
    found = kmeans.spherical_kmeans(vectors, k, iterations=ITERATIONS, seed=0)
    wide = vectors.astype(np.float32)
    started = time.process_time()
    kmeans.spherical_kmeans(vectors, k, iterations=ITERATIONS, seed=0)
    clustering_s, clustering_bare_s = time.process_time() - started, products_of_kmeans(wide, found.centroids)
    say_line(f"k-means, k = {k}, {ITERATIONS} iterations", clustering_s, clustering_bare_s)

    order = np.lexsort((found.similarity, found.assignment))
    members = [wide[rows] for rows in np.split(order, np.flatnonzero(np.diff(found.assignment[order])) + 1)]
    largest = max(len(rows) for rows in members)
    within_bare_s = least_s(lambda: [rows @ rows.T for rows in members])
    for rule in ("published", "components"):
        chosen, fixed = Rule(0.01, rule == "published", CURVE), np.zeros(count, bool)
        within_s = least_s(
            lambda chosen=chosen, fixed=fixed: grouped(
                lambda rows: vectors[rows], dimension, order, found.assignment, fixed, chosen
            )
        )
        say_line(f"within clusters of up to {largest:,} rows, {rule}", within_s, within_bare_s)
    with tempfile.TemporaryDirectory() as folder:
        values = pa.array(vectors.ravel())
        lists = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * dimension), values)
        table = pa.table({"uid": [f"{i:032x}" for i in range(count)], "embedding": lists})
        rows, started = ShuffledRows(table, Path(folder)), time.process_time()
        reduced = Semantic(Semantic.Config(rule="published")).reduce(rows)
        decided(reduced)
        say_line("the whole reduce", time.process_time() - started, clustering_bare_s + within_bare_s)
    say(f"dropped by epsilon: {reduced.summary['dropped_by_epsilon']}")


def say_line(name: str, ours_s: float, bare_s: float) -> None:
    say(f"{name}: {ours_s:.2f} s, bare products {bare_s:.2f} s (ratio {bare_s / ours_s:.2f})")


def main() -> None:
    import faiss

    count, dimension = ([int(number) for number in sys.argv[1:]] + [100_000, 512][len(sys.argv) - 1 :])[:2]
    say(f"{count:,} rows of {dimension} dimensions")
    faiss.omp_set_num_threads(1)
    with threadpool_limits(1):
        compare(count, dimension)


if __name__ == "__main__":
    main()
