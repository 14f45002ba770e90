"""Groups of 64-bit hashes that are connected by steps of a few bits, found exactly and without looking at all pairs.

Pigeonhole, in the form of Manku, Jain and Das Sarma ("Detecting Near-Duplicates for Web Crawling", WWW 2007, section
3): cut the bits into `bands`; two hashes that differ in at most `radius` bits are equal in at least `bands - radius` of
the bands. So for each choice of that many bands, sort by their bits and compare within runs of equals. More bands mean
more sorts and fewer comparisons by chance; the number of hashes says which number is cheapest.

Real hashes cluster, and a run of a thousand has half a million pairs. So each member of a run is compared with the next
few; by then most of a cluster is connected, and only members of different groups are left to be compared: all of them
where the run is short, else by the same method again, with bands of the bits in which the run's members differ. Memory
is a few numbers a hash, however many pairs there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import combinations, pairwise
from math import comb

import numpy as np

from corpusmith.operators.dedup.components import Components

MAX_RADIUS = 12

_BITS = 64
_FIRST_OTHERS = 32
"""With how many others of its run a hash is compared before the run is sorted by group."""
_SORT_COST = 20.0
"""Of one hash in one table, as a multiple of comparing one pair; measured."""
_ODD = np.uint64(0x9E3779B97F4A7C15)
"""Spreads the numbers of contexts over all bits (the golden ratio's)."""


def connected(hashes: np.ndarray, contexts: np.ndarray, radius: int) -> np.ndarray:
    """Number the groups of hashes that are connected within one context.

    Args:
        hashes: (N,) uint64.
        contexts: (N,) uint64; hashes of different contexts are never neighbours.
        radius: neighbours differ in at most so many bits, 0 to MAX_RADIUS.

    Returns:
        (N,) int64: for each hash the lowest position of its group.
    """
    search = _Search(hashes, contexts, radius)
    if len(hashes) > 1:
        search.connect_near(np.arange(len(hashes)))
    return search.groups.labels


class _Search:
    """Hashes, and the groups that are found among them."""

    def __init__(self, hashes: np.ndarray, contexts: np.ndarray, radius: int) -> None:
        self.groups = Components(len(hashes))
        self._hashes, self._contexts, self._radius = hashes, contexts, radius

    def connect_near(self, rows: np.ndarray) -> None:
        """Connect all neighbours among the hashes at these positions."""
        bits = self._differing_bits(rows)
        bands = _cheapest_bands(len(rows), len(bits), self._radius)
        for mask in _masks(bits, bands, self._radius):
            self._connect_equals(rows, mask)
            labels = self.groups.labels[rows]
            if (labels == labels[0]).all():
                return

    def _differing_bits(self, rows: np.ndarray) -> list[int]:
        differing = int(np.bitwise_or.reduce(self._hashes[rows] ^ self._hashes[rows[0]]))
        return [bit for bit in range(_BITS) if differing >> bit & 1]

    def _connect_equals(self, rows: np.ndarray, mask: np.uint64) -> None:
        """Connect all neighbours that are equal in the bits of the mask."""
        total, others = len(rows), _FIRST_OTHERS
        keys = (self._hashes[rows] & mask) ^ (self._contexts[rows] * _ODD)
        order = np.argsort(keys)
        rows, keys = rows[order], keys[order]
        group_ends, run_ends = np.arange(1, total + 1), _ends(keys)
        while (unfinished := self._compare(rows, group_ends, run_ends, others)).size:
            open_ends = np.unique(run_ends[unfinished])
            is_open = np.isin(run_ends, open_ends)
            rows, keys = rows[is_open], keys[is_open]
            if others > _FIRST_OTHERS:
                is_left = ~self._search_long_runs(rows, _ends(keys), total)
                rows, keys = rows[is_left], keys[is_left]
                if not rows.size:
                    return
            labels = self.groups.labels[rows]
            order = np.lexsort((labels, keys))
            rows, keys, labels = rows[order], keys[order], labels[order]
            group_ends, run_ends = _ends(keys, labels), _ends(keys)
            others *= 4

    def _search_long_runs(self, rows: np.ndarray, run_ends: np.ndarray, total: int) -> np.ndarray:
        """Search runs by themselves where that costs less than all their pairs; a mask of those places."""
        is_done = np.zeros(len(rows), bool)
        ends = np.unique(run_ends)
        for start, end in zip(np.append(0, ends[:-1]), ends, strict=True):
            run = rows[start:end]
            bits = len(self._differing_bits(run))
            if len(run) < total and _cheapest_bands(len(run), bits, self._radius) > self._radius:
                self.connect_near(run)
                is_done[start:end] = True
        return is_done

    def _compare(self, rows: np.ndarray, group_ends: np.ndarray, run_ends: np.ndarray, others: int) -> np.ndarray:
        """Compare each hash with so many that come behind its group in its run; connect those that are near.

        Args:
            rows: positions of hashes, in the order that is meant.
            group_ends: for each place of the order where its known group ends.
            run_ends: for each place of the order where its run ends.
            others: comparisons for each hash at most.

        Returns:
            Places that are not through with their run.
        """
        hashes, contexts = self._hashes[rows], self._contexts[rows]
        left = np.flatnonzero(group_ends < run_ends)
        for step in range(others):
            right = group_ends[left] + step
            is_near = np.bitwise_count(hashes[left] ^ hashes[right]) <= self._radius
            is_near &= contexts[left] == contexts[right]
            self.groups.connect(rows[left[is_near]], rows[right[is_near]])
            left = left[right + 1 < run_ends[left]]
            if not left.size:
                break
        return left


def _cheapest_bands(count: int, bits: int, radius: int) -> int:
    """The number of bands that costs least for evenly spread hashes; `radius` means to compare all pairs."""

    def cost(bands: int) -> float:
        pairs_by_chance = count**2 / 2 / 2.0 ** (bits * (bands - radius) / max(bands, 1))
        return comb(bands, radius) * (_SORT_COST * count + pairs_by_chance)

    return min(range(radius, max(radius, min(2 * radius + 1, bits)) + 1), key=cost)


def _masks(bits: Sequence[int], bands: int, radius: int) -> Iterator[np.uint64]:
    """For each choice of `bands - radius` bands the bits that these hold, as a mask."""
    edges = [len(bits) * i // max(bands, 1) for i in range(bands + 1)]
    held = [sum(1 << bit for bit in bits[start:end]) for start, end in pairwise(edges)]
    for chosen in combinations(held, bands - radius):
        yield np.uint64(reduce(int.__or__, chosen, 0))


def _ends(*sorted_by: np.ndarray) -> np.ndarray:
    """For each place the end of the stretch of equals that it lies in."""
    differs = np.zeros(len(sorted_by[0]), bool)
    differs[-1] = True
    for values in sorted_by:
        differs[:-1] |= values[1:] != values[:-1]
    ends = np.flatnonzero(differs) + 1
    return np.repeat(ends, np.diff(ends, prepend=0))
