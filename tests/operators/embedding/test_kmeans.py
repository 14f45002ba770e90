"""Spherical k-means: nearest centroids exactly, the same on any threads, k beyond the rows, what FAISS finds."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from corpusmith.operators.embedding import kmeans, vectors


def units(seed: int, count: int, dimension: int, *, centres: int = 8, spread: float = 0.2) -> np.ndarray:
    drawn = np.random.default_rng(seed)
    middles = drawn.normal(size=(centres, dimension))
    made = middles[drawn.integers(0, centres, count)] + spread * drawn.normal(size=(count, dimension))
    return vectors.normalised(made)[0].astype(np.float16)


@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 80),
    dimension=st.sampled_from([1, 2, 3, 32]),
    k=st.integers(1, 100),
)
@settings(max_examples=40, deadline=None)
def test_each_row_has_its_nearest_centroid(seed: int, count: int, dimension: int, k: int) -> None:
    rows = units(seed, count, dimension)
    found = kmeans.spherical_kmeans(rows, k, iterations=3, seed=seed)
    assert found.centroids.shape == (min(k, count), dimension)
    assert np.isfinite(found.centroids).all()
    exact = rows.astype(np.float64) @ found.centroids.astype(np.float64).T
    assert np.array_equal(found.assignment, np.argmax(exact, axis=1))
    assert np.array_equal(found.similarity, exact.max(axis=1))


def test_equal_centroids_leave_the_first_its_rows() -> None:
    rows = np.repeat(np.eye(4, dtype=np.float16), 5, axis=0)
    found = kmeans.spherical_kmeans(rows, 15, seed=0)
    assert len(found.centroids) == 15
    assert len(set(found.assignment.tolist())) == 4
    assert all(len(set(found.assignment[i : i + 5].tolist())) == 1 for i in range(0, 20, 5))
    assert np.array_equal(found.similarity, np.ones(20))


def test_is_the_same_on_any_number_of_threads() -> None:
    rows = units(1, 4001, 96, centres=60, spread=0.6)
    usual, found = faiss.omp_get_max_threads(), []
    try:
        for threads in (1, 2, 3, 4):
            faiss.omp_set_num_threads(threads)
            with threadpool_limits(threads):
                found.append(kmeans.spherical_kmeans(rows, 67, iterations=8, seed=5))
    finally:
        faiss.omp_set_num_threads(usual)
    for other in found[1:]:
        assert np.array_equal(other.centroids, found[0].centroids)
        assert np.array_equal(other.assignment, found[0].assignment)
        assert np.array_equal(other.similarity, found[0].similarity)


def test_finds_the_clusters_that_there_are() -> None:
    rows = units(2, 3000, 64, centres=12, spread=0.1)
    found = kmeans.spherical_kmeans(rows, 200, seed=0, rows_per_cluster=4)
    same = found.assignment[:, None] == found.assignment
    near = rows.astype(np.float32) @ rows.astype(np.float32).T > 0.8
    assert not (same & ~near).any()
    trained = faiss.Kmeans(64, 12, niter=20, seed=0, spherical=True)
    trained.train(rows.astype(np.float32))
    ours = kmeans.spherical_kmeans(rows, 12, iterations=20, seed=0)
    assert trained.obj is not None
    assert ours.similarity.sum() == pytest.approx(trained.obj[-1], rel=1e-3)


def test_the_seed_decides() -> None:
    rows = units(3, 500, 8, centres=50, spread=1.0)
    first, same, other = (kmeans.spherical_kmeans(rows, 20, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.centroids, same.centroids)
    assert not np.array_equal(first.centroids, other.centroids)


def test_the_usual_number_of_clusters() -> None:
    assert [kmeans.default_k(count) for count in (0, 1, 2, 100, 10**6, 10**12)] == [1, 1, 1, 10, 1000, 50_000]
