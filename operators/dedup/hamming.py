"""Hashes of 64 or 256 bits that differ in few: their groups, and the nearest of them, exactly and not by all pairs.

Multi-index hashing (Norouzi, Punjani, Fleet, "Fast Exact Search in Hamming Space with Multi-Index Hashing", CVPR 2012,
section 3): cut the bits into m bands, and let r = m s + a; two hashes that differ in at most r bits differ in at most s
bits of one of the first a + 1 bands, or in at most s - 1 of one of the others. So for each band, sort by its bits and
compare runs whose keys differ so little. The number of hashes says which m is cheapest; the fewest bits in which the
hashes differ at all make up the bands.

Real hashes cluster, and a run of a thousand has half a million pairs. So each run is covered by balls: a leader, and
members that are its neighbours, all of one group therefore. Two balls are compared by their leaders alone where these
are of one group already, or farther apart than radius and reach of both balls allow for any pair of their members. A
dense cluster is one ball in each run and costs what its members cost. Memory is a few numbers a hash, however many
pairs there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

MAX_RADIUS = {64: 12, 256: 40}
"""Bits of a hash → bits in which neighbours may differ at most: beyond, unrelated pictures are near by chance."""

_MAX_KEY_BITS = 24
_SORT_NS, _VISIT_NS, _PAIR_NS = 60.0, 10.0, 3.5
"""Measured: sorting a hash, looking up a run, comparing two hashes."""
_SHORT_CONTEXT = 2048
"""Hashes of one context up to which all of them are one run."""

Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]


def connected(hashes: Words, contexts: Ints, radius: int) -> Ints:
    """Number the groups of hashes that are connected within one context.

    Args:
        hashes: (N, W) uint64, W = 1 or 4; best without equals of one context, for which nothing is saved here.
        contexts: (N,) integers; hashes of different contexts are never neighbours.
        radius: neighbours differ in at most so many bits, 0 to MAX_RADIUS.

    Returns:
        (N,) int64: for each hash the lowest position of its group.
    """
    from corpusmith.operators.dedup.hamming_kernels import connect_within, flatten

    parents = np.arange(len(hashes))
    order = np.argsort(contexts, kind="stable")
    edges = np.flatnonzero(np.diff(contexts[order])) + 1
    bounds = np.concatenate([[0], edges, [len(order)]])
    is_long = np.diff(bounds) > _SHORT_CONTEXT
    if not is_long.all():
        in_short = order[np.repeat(~is_long, np.diff(bounds))]
        starts = np.append(0, np.cumsum(np.diff(bounds)[~is_long]))
        connect_within(hashes[in_short], in_short, starts, radius, parents)
    for start, end in zip(bounds[:-1][is_long], bounds[1:][is_long], strict=True):
        _connect(hashes, order[start:end], radius, parents)
    flatten(parents)
    return parents


class Nearest:
    """Hashes in which the nearest of another hash is sought, within a radius.

    Args:
        hashes: (N, W) uint64.
        radius: the nearest differs in at most so many bits.
    """

    def __init__(self, hashes: Words, radius: int) -> None:
        self._radius, self._tables = radius, []
        for band in _bands(hashes, radius):
            table = _sorted(hashes, band)
            self._tables.append((band, hashes[table[0]], *table))

    def of(self, queries: Words) -> tuple[Ints, Ints]:
        """For each query the position of the nearest hash, -1 where none is near enough, and how many bits it is off.

        Args:
            queries: (Q, W) uint64.

        Returns:
            (Q,) positions, the lowest of equally near ones; (Q,) distances, radius + 1 where there is none.
        """
        from corpusmith.operators.dedup.hamming_kernels import improve_nearest, keys_of

        found, distances = np.full(len(queries), -1), np.full(len(queries), self._radius + 1)
        for band, hashes, order, starts in self._tables:
            keys = keys_of(queries, band.bits)
            improve_nearest(queries, keys, hashes, order, starts, band.masks, found, distances)
        return found, distances


@dataclass(frozen=True)
class _Band:
    """Some of the bits, and how many of them may differ.

    Args:
        bits: (B,) int64.
        masks: (M,) int64: what a key may differ by, 0 first.
    """

    bits: Ints
    masks: Ints


def _connect(hashes: Words, rows: Ints, radius: int, parents: Ints) -> None:
    """Connect all neighbours among the hashes at these positions."""
    from corpusmith.operators.dedup.hamming_kernels import connect_across, connect_within

    chosen = hashes[rows]
    for band in _bands(chosen, radius):
        order, starts = _sorted(chosen, band)
        ordered, numbers = chosen[order], rows[order]
        balls = connect_within(ordered, numbers, starts, radius, parents)
        if len(band.masks) > 1:
            connect_across(ordered, numbers, starts, band.masks[1:], radius, parents, balls)


def _sorted(hashes: Words, band: _Band) -> tuple[Ints, Ints]:
    from corpusmith.operators.dedup.hamming_kernels import keys_of, sorted_by

    return sorted_by(keys_of(hashes, band.bits), len(band.bits))


def _bands(hashes: Words, radius: int) -> list[_Band]:
    """The cheapest bands for these hashes; one of no bits at all where all pairs are cheapest."""
    differing = _differing_bits(hashes)
    most = max(2 * radius + 2, -(-len(differing) // _MAX_KEY_BITS))
    counts = [0, *range(1, min(len(differing), most) + 1)]
    return list(_cut(differing, min(counts, key=lambda m: _cost(len(hashes), len(differing), radius, m)), radius))


def _differing_bits(hashes: Words) -> Ints:
    """The bits in which not all hashes are equal."""
    if not len(hashes):
        return np.zeros(0, np.int64)
    differing = np.bitwise_or.reduce(hashes ^ hashes[0], axis=0)
    return np.array([64 * w + bit for w, word in enumerate(differing.tolist()) for bit in range(64) if word >> bit & 1])


def _widths(bits: int, radius: int, bands: int) -> Iterator[tuple[int, int]]:
    """For each band that is of use, how many bits it has and in how many of them keys may differ."""
    each, left = divmod(radius, bands)
    for band in range(bands):
        allowed = each if band <= left else each - 1
        if allowed >= 0:
            yield len(range(band, bits, bands)), allowed


def _cost(count: int, bits: int, radius: int, bands: int) -> float:
    """Nanoseconds for evenly spread hashes."""
    if bands == 0:
        return _PAIR_NS * count**2 / 2
    cost = 0.0
    for width, allowed in _widths(bits, radius, bands):
        if width > _MAX_KEY_BITS:
            return float("inf")
        masks = sum(comb(width, k) for k in range(allowed + 1))
        visits = min(count, 1 << width) * masks / 2 + (1 << width)
        cost += _SORT_NS * count + _VISIT_NS * visits + _PAIR_NS * masks * count**2 / 2 / (1 << width)
    return cost


def _cut(bits: Ints, bands: int, radius: int) -> Iterator[_Band]:
    """The bands; the bits are dealt, for neighbours among them may go together."""
    if bands == 0:
        yield _Band(np.zeros(0, np.int64), np.zeros(1, np.int64))
        return
    for band, (width, allowed) in enumerate(_widths(len(bits), radius, bands)):
        masks = [
            sum(1 << bit for bit in chosen) for k in range(allowed + 1) for chosen in combinations(range(width), k)
        ]
        yield _Band(bits[band::bands], np.array(masks, np.int64))
