"""The search for hashes that differ in few bits: what all pairs give, however the bits are cut, and no pairs' cost."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmith.operators.dedup import hamming
from corpusmith.operators.dedup.hamming import MAX_RADIUS, Nearest, connected


def apart(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(N, M) bits in which each of (N, W) hashes differs from each of (M, W)."""
    return np.bitwise_count(left[:, None] ^ right[None]).sum(axis=2, dtype=np.int64)


def labels_of_all_pairs(hashes: np.ndarray, contexts: np.ndarray, radius: int) -> np.ndarray:
    is_edge = (apart(hashes, hashes) <= radius) & (contexts[:, None] == contexts)
    labels = np.arange(len(hashes))
    while not np.array_equal(labels, lower := np.where(is_edge, labels, len(hashes)).min(axis=1)):
        labels = lower
    return labels


def flipped(hashes: np.ndarray, drawn: np.random.Generator, most: int) -> np.ndarray:
    """The hashes with up to `most` bits changed, each with another number of them."""
    made = hashes.copy()
    for i, count in enumerate(drawn.integers(0, most, len(hashes), endpoint=True)):
        for bit in drawn.integers(0, 64 * hashes.shape[1], count):
            made[i, bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    return made


def clustered(drawn: np.random.Generator, count: int, words: int, bits: int, most: int) -> np.ndarray:
    """(count, words) hashes that differ in some of `bits` bits; half of them are near another one."""
    open_bits = drawn.permutation(64 * words)[:bits]
    mask = np.zeros(words, np.uint64)
    for bit in open_bits:
        mask[bit // 64] |= np.uint64(1) << np.uint64(bit % 64)
    hashes = drawn.integers(0, 2**64, (count, words), np.uint64, endpoint=False) & mask
    copies = drawn.random(count) < 0.5
    hashes[copies] = flipped(hashes[drawn.integers(0, count, count)], drawn, most)[copies]
    return hashes


CASES = st.sampled_from([1, 4]).flatmap(
    lambda words: st.tuples(
        st.just(words), st.integers(0, MAX_RADIUS[64 * words]), st.integers(0, 64 * words), st.integers(0, 2**32 - 1)
    )
)


@given(
    case=CASES,
    count=st.integers(1, 300),
    contexts=st.integers(1, 3),
    costs=st.sampled_from([(60.0, 10.0, 3.5), (0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (0.0, 1.0, 40.0)]),
    short=st.sampled_from([2, 50, 2048]),
)
@settings(max_examples=120, deadline=None)
def test_connected_is_exact_however_the_bits_are_cut(
    case: tuple[int, int, int, int], count: int, contexts: int, costs: tuple[float, float, float], short: int
) -> None:
    """Low prices of sorting and looking up make many bands of few hashes."""
    words, radius, bits, seed = case
    drawn = np.random.default_rng(seed)
    hashes = clustered(drawn, count, words, bits, most=2 * radius + 1)
    numbers = drawn.integers(0, contexts, count) * 7 - 1
    with pytest.MonkeyPatch.context() as patch:
        for name, cost in zip(("_SORT_NS", "_VISIT_NS", "_PAIR_NS"), costs, strict=True):
            patch.setattr(hamming, name, cost)
        patch.setattr(hamming, "_MAX_KEY_BITS", 16)
        patch.setattr(hamming, "_SHORT_CONTEXT", short)
        found = connected(hashes, numbers, radius)
    assert np.array_equal(found, labels_of_all_pairs(hashes, numbers, radius))


@given(case=CASES, count=st.integers(0, 200), queries=st.integers(0, 60), pair_cost=st.sampled_from([3.5, 1e4]))
@settings(max_examples=80, deadline=None)
def test_nearest_is_the_nearest(case: tuple[int, int, int, int], count: int, queries: int, pair_cost: float) -> None:
    words, radius, bits, seed = case
    drawn = np.random.default_rng(seed)
    hashes = clustered(drawn, count, words, bits, most=radius) if count else np.zeros((0, words), np.uint64)
    asked = clustered(drawn, queries, words, bits, most=radius) if queries else np.zeros((0, words), np.uint64)
    if count and queries:
        asked[::2] = flipped(hashes[drawn.integers(0, count, len(asked[::2]))], drawn, 2 * radius + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming, "_PAIR_NS", pair_cost)
        patch.setattr(hamming, "_MAX_KEY_BITS", 16)
        found, distances = Nearest(hashes, radius).of(asked)
    if not count:
        assert (found == -1).all() and (distances == radius + 1).all()
        return
    all_distances = apart(asked, hashes)
    nearest = all_distances.min(axis=1)
    is_near = nearest <= radius
    assert np.array_equal(distances, np.where(is_near, nearest, radius + 1))
    assert np.array_equal(found, np.where(is_near, all_distances.argmin(axis=1), -1))


@pytest.mark.parametrize(("words", "radius"), [(1, 4), (4, 31)])
def test_of_equally_near_the_first(words: int, radius: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are one bit away, each another one: the first of them is found by the last bands, not by the first."""
    monkeypatch.setattr(hamming, "_PAIR_NS", 1e4)
    centre = np.random.default_rng(1).integers(0, 2**64, (1, words), np.uint64, endpoint=False)
    for seed in range(10):
        bits = np.append(0, 1 + np.random.default_rng(seed).permutation(64 * words - 1))
        hashes = np.repeat(centre, len(bits), axis=0)
        hashes[np.arange(len(bits)), bits // 64] ^= np.uint64(1) << (bits % 64).astype(np.uint64)
        assert len(hamming._bands(hashes, radius)) > 1
        found, distances = Nearest(hashes, radius).of(centre)
        assert (found[0], distances[0]) == (0, 1)


@pytest.mark.parametrize(("words", "radius"), [(1, 4), (1, 12), (4, 31), (4, 40)])
def test_large_pools_get_bands_and_stay_exact(words: int, radius: int) -> None:
    """Without tuning: as many hashes as make the search cut them."""
    drawn = np.random.default_rng(5)
    hashes = clustered(drawn, 3000, words, 64 * words, most=2 * radius)
    assert len(hamming._bands(hashes, radius)) > 1 or radius == 12
    contexts = np.zeros(len(hashes), np.int64)
    assert np.array_equal(connected(hashes, contexts, radius), labels_of_all_pairs(hashes, contexts, radius))


def test_order_only_renames() -> None:
    drawn = np.random.default_rng(7)
    hashes = clustered(drawn, 5000, 4, 256, most=40)
    first = connected(hashes, np.zeros(5000, np.int64), 31)
    order = drawn.permutation(5000)
    second = connected(hashes[order], np.zeros(5000, np.int64), 31)
    groups = len(np.unique(first))
    assert groups < 4900
    assert len(np.unique(second)) == len(np.unique(np.stack([first[order], second]), axis=1).T) == groups


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("words", "bits", "count", "groups"),
    [(1, 16, 60_000, 1), (1, 30, 60_000, None), (4, 40, 50_000, 1), (4, 100, 50_000, None)],
    ids=["64 dense", "64 as sparse as makes most pairs", "256 dense", "256 as sparse as makes most pairs"],
)
def test_clusters_cost_no_pairs(words: int, bits: int, count: int, groups: int | None) -> None:
    """All pairs of either, looked at once for each choice of bands, would take minutes."""
    radius = {1: 4, 4: 31}[words]
    hashes = np.unique(clustered(np.random.default_rng(0), count, words, bits, most=0), axis=0)
    assert len(hashes) > count // 3
    started = time.process_time()
    found = connected(hashes, np.zeros(len(hashes), np.int64), radius)
    assert time.process_time() - started < 20
    assert groups is None or len(np.unique(found)) == groups
    for i in np.random.default_rng(1).choice(len(hashes), 200, replace=False):
        near = np.bitwise_count(hashes ^ hashes[i]).sum(axis=1) <= radius
        assert len(np.unique(found[near])) == 1


@pytest.mark.parametrize("radius", [0, 1, 3, 5])
@pytest.mark.parametrize("words", [1, 4])
def test_small_radii_cost_no_pairs(words: int, radius: int) -> None:
    """The fewer bits may differ, the fewer bands are wanted: but never so few that only all pairs are left."""
    drawn = np.random.default_rng(0)
    hashes = drawn.integers(0, 2**63, (200_000, words), np.uint64)
    copies = hashes[:1000].copy()
    copies[:, 0] ^= np.uint64((1 << radius) - 1)
    started = time.process_time()
    found = connected(np.concatenate([hashes, copies]), np.zeros(201_000, np.int64), radius)
    assert time.process_time() - started < 10
    assert np.array_equal(found, [*range(200_000), *range(1000)])


def test_two_dense_clusters_far_apart_stay_two() -> None:
    """Equal in a quarter of their bits, so that many bands put both into one run."""
    drawn = np.random.default_rng(3)
    centres = np.zeros((2, 4), np.uint64)
    centres[1, :3] = np.uint64(2**64 - 1)
    hashes = np.unique(flipped(np.repeat(centres, 10_000, axis=0), drawn, 12), axis=0)
    started = time.process_time()
    found = connected(hashes, np.zeros(len(hashes), np.int64), 31)
    assert time.process_time() - started < 20
    assert len(np.unique(found)) == 2
