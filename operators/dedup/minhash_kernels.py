"""Compiled loops of MinHash: signatures in bands, and the texts of one bucket connected where they are alike enough.

Minima: Broder, "On the resemblance and containment of documents" (1997), with one good hash a shingle and cheap
permutations of it, `a * h + b` modulo 2³² with odd a. Thirty-two bits fill twice the lanes of a processor; two shingles
that share them only make a pair to look at. A band is told by a 64-bit hash of all its minima.

A bucket holds texts that agree in a band. What is looked for is which of them are connected by pairs alike enough, so a
pair whose ends are connected already is not looked at. Few texts are compared pair by pair. Many are first compared
with a few of them, which connects a cluster in one sweep; what is left is joined by the prefix filter (Chaudhuri, Ganti
and Kaushik, ICDE 2006; Bayardo, Ma and Srikant, "Scaling Up All Pairs Similarity Search", WWW 2007): order the shingles
by how rare they are in the bucket; two sets alike enough share one of their first |x| - ⌈t |x|⌉ + 1. Both ways find the
same groups as all pairs would.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from corpusmith.operators.dedup.shingle_kernels import hash_shingles, jaccard, mixed
from corpusmith.operators.dedup.shingles import Sizes
from corpusmith.operators.kernels import compiled

FEW = 32
"""Texts in a bucket that are compared pair by pair."""
_SWEEPS = 4
_SLACK = 1e-12
"""Bounds on counts of shingles allow for rounding; the decision itself is the quotient's."""
_BAND = np.uint64(0x9E3779B97F4A7C15)


class Texts(NamedTuple):
    """Texts that are compared: UTF-8 end to end, (N + 1,) offsets, how they are cut, and from where they are alike."""

    data: np.ndarray
    offsets: np.ndarray
    sizes: Sizes
    threshold: float


class Room(NamedTuple):
    """Memory that comparing two texts takes: four arrays of uint64 and one of uint8, all overwritten."""

    points: np.ndarray
    left: np.ndarray
    right: np.ndarray
    keys: np.ndarray
    states: np.ndarray


def room_for(longest: int) -> Room:
    """Room to compare texts of up to so many bytes; what is never used is never resident."""
    table = 16
    while table < 4 * longest:
        table *= 2
    points, left, right = (np.empty(longest, np.uint64) for _ in range(3))
    return Room(points, left, right, np.empty(table, np.uint64), np.empty(table, np.uint8))


@compiled
def band_keys(
    data: np.ndarray,
    offsets: np.ndarray,
    sizes: Sizes,
    multipliers: np.ndarray,
    addends: np.ndarray,
    bands: int,
    contexts: np.ndarray,
) -> np.ndarray:
    """(bands, N) uint64: a hash of each text's minima in each band and of its context; 0 for empty texts.

    Args:
        data, offsets: N texts.
        sizes: how they are cut.
        multipliers, addends: (bands * rows,) uint32, one permutation each.
        bands: how many.
        contexts: (N,) uint64; texts of two contexts agree in no band.
    """
    count = len(offsets) - 1
    found = np.zeros((bands, count), np.uint64)
    longest = 0
    for i in range(count):
        longest = max(longest, offsets[i + 1] - offsets[i])
    points, hashes = np.empty(longest, np.uint64), np.empty(longest, np.uint64)
    minima = np.empty(len(multipliers), np.uint32)
    rows = len(multipliers) // bands
    for i in range(count):
        if offsets[i + 1] > offsets[i]:
            shingles = hash_shingles(data, offsets[i], offsets[i + 1], sizes, points, hashes)
            _fill_minima(hashes[:shingles], multipliers, addends, minima)
            for band in range(bands):
                key = mixed(contexts[i] + _BAND * np.uint64(band + 1))
                for k in range(band * rows, (band + 1) * rows):
                    key = mixed(key ^ np.uint64(minima[k]))
                found[band, i] = key
    return found


@compiled
def _fill_minima(hashes: np.ndarray, multipliers: np.ndarray, addends: np.ndarray, minima: np.ndarray) -> None:
    minima[:] = np.uint32(0xFFFFFFFF)
    for value in hashes:
        low = np.uint32(value)
        for k in range(len(minima)):
            minima[k] = min(minima[k], np.uint32(np.uint32(multipliers[k] * low) + addends[k]))


@compiled
def text_hashes(data: np.ndarray, offsets: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """(N,) uint64: a hash of each text's bytes and of its context."""
    found = np.empty(len(offsets) - 1, np.uint64)
    for i in range(len(found)):
        value = mixed(contexts[i] ^ np.uint64(offsets[i + 1] - offsets[i]))
        packed = np.uint64(0)
        for at in range(offsets[i], offsets[i + 1]):
            packed = packed << np.uint64(8) | np.uint64(data[at])
            if (at - offsets[i]) % 8 == 7:
                value = mixed(value ^ packed)
                packed = np.uint64(0)
        found[i] = mixed(value ^ packed)
    return found


@compiled
def merge_equals(
    order: np.ndarray, hashes: np.ndarray, data: np.ndarray, offsets: np.ndarray, parents: np.ndarray
) -> None:
    """Hang each text below the first of equal bytes.

    Args:
        order: (L,) texts by hash, equals by number.
        hashes: (L,) their hashes.
        data, offsets: the texts.
        parents: (N,) of which each is its own so far.
    """
    first = 0
    for i in range(1, len(order)):
        if hashes[i] != hashes[first]:
            first = i
        elif _are_equal(data, offsets, order[first], order[i]):
            parents[order[i]] = order[first]


@compiled
def _are_equal(data: np.ndarray, offsets: np.ndarray, a: int, b: int) -> bool:
    if offsets[a + 1] - offsets[a] != offsets[b + 1] - offsets[b]:
        return False
    for k in range(offsets[a + 1] - offsets[a]):  # noqa: SIM110 - numba knows no all()
        if data[offsets[a] + k] != data[offsets[b] + k]:
            return False
    return True


@compiled
def root_of(parents: np.ndarray, member: int) -> int:
    """The lowest member of a set; shortens the path to it."""
    while parents[member] != member:
        parents[member] = parents[parents[member]]
        member = parents[member]
    return member


@compiled
def _join(parents: np.ndarray, a: int, b: int) -> None:
    a, b = root_of(parents, a), root_of(parents, b)
    parents[max(a, b)] = min(a, b)


@compiled
def settle(parents: np.ndarray) -> None:
    """Hang each member directly below the lowest of its set."""
    for member in range(len(parents)):
        parents[member] = root_of(parents, member)


@compiled
def similarities(rows: np.ndarray, others: np.ndarray, texts: Texts, room: Room) -> np.ndarray:
    """(N,) Jaccard similarity of the text of rows[i] and that of others[i]."""
    found = np.ones(len(rows))
    for i in range(len(rows)):
        if not _are_equal(texts.data, texts.offsets, rows[i], others[i]):
            count = _shingles(texts, rows[i], room.points, room.left)
            found[i] = _similarity(texts, count, others[i], room)
    return found


@compiled
def _shingles(texts: Texts, text: int, points: np.ndarray, hashes: np.ndarray) -> int:
    return hash_shingles(texts.data, texts.offsets[text], texts.offsets[text + 1], texts.sizes, points, hashes)


@compiled
def _similarity(texts: Texts, count: int, other: int, room: Room) -> float:
    """Of the text whose hashes stand in room.left, and another."""
    others = _shingles(texts, other, room.points, room.right)
    return jaccard(room.left[:count], room.right[:others], room.keys, room.states)


@compiled
def connect_few(
    order: np.ndarray, starts: np.ndarray, stops: np.ndarray, texts: Texts, parents: np.ndarray, room: Room
) -> None:
    """Connect within buckets, pair by pair.

    Args:
        order: texts by bucket.
        starts, stops: (B,) where each bucket lies in `order`.
        texts: all.
        parents: (N,) sets so far, merged in place.
        room: for the longest.
    """
    for bucket in range(len(starts)):
        for i in range(starts[bucket], stops[bucket] - 1):
            _sweep(i, order[: stops[bucket]], texts, parents, room)


@compiled
def _sweep(i: int, order: np.ndarray, texts: Texts, parents: np.ndarray, room: Room) -> None:
    """Compare order[i] with each later one that is not connected with it."""
    count = 0
    for j in range(i + 1, len(order)):
        if root_of(parents, order[i]) != root_of(parents, order[j]):
            if count == 0:
                count = _shingles(texts, order[i], room.points, room.left)
            if _similarity(texts, count, order[j], room) >= texts.threshold:
                _join(parents, order[i], order[j])


@compiled
def sweep(members: np.ndarray, texts: Texts, parents: np.ndarray, room: Room) -> bool:
    """Compare the first few of one bucket with all others of it; whether it is one group now.

    Args:
        members: (M,) texts.
        texts, parents, room: as for connect_few.
    """
    for i in range(min(_SWEEPS, len(members))):
        _sweep(i, members, texts, parents, room)
    first = root_of(parents, members[0])
    for member in members:  # noqa: SIM110 - numba knows no all()
        if root_of(parents, member) != first:
            return False
    return True


@compiled
def hashes_of(members: np.ndarray, texts: Texts, room: Room) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the shingles of some texts, repeats included, and the place in `members` of each one's owner."""
    total = 0
    for member in members:
        total += _shingles(texts, member, room.points, room.left)
    hashes, owners, end = np.empty(total, np.uint64), np.empty(total, np.int64), 0
    for i in range(len(members)):
        count = _shingles(texts, members[i], room.points, room.left)
        hashes[end : end + count] = room.left[:count]
        owners[end : end + count] = i
        end += count
    return hashes, owners


@compiled
def roots_of(members: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """(M,) the lowest member of each one's set."""
    roots = np.empty(len(members), np.int64)
    for i in range(len(members)):
        roots[i] = root_of(parents, members[i])
    return roots


def prefix_lengths(sizes: np.ndarray, threshold: float) -> np.ndarray:
    """How many of a set's rarest shingles meet those of every set that is alike enough; for sets of these sizes."""
    return sizes - np.ceil(threshold * sizes * (1 - _SLACK)).astype(np.int64) + 1


@compiled
def join_sharers(
    sharers: tuple[np.ndarray, np.ndarray, np.ndarray],
    members: np.ndarray,
    tokens: np.ndarray,
    places: np.ndarray,
    threshold: float,
    parents: np.ndarray,
) -> None:
    """Connect sets alike enough among those that share a token of their prefixes.

    Args:
        sharers: (P,) tokens of prefixes, whose each is, and that one's set so far; sorted by token and set.
        members: (M,) texts.
        tokens, places: their sets, sorted, end to end, and (M + 1,) where each begins.
        threshold, parents: as for connect_few.
    """
    keys, owners, roots = sharers
    stop = others = 0
    for i in range(len(keys)):
        if i == stop:
            while stop < len(keys) and keys[stop] == keys[i]:
                stop += 1
        if i == others:
            while others < stop and roots[others] == roots[i]:
                others += 1
        a: int = owners[i]
        for j in range(others, stop):
            b: int = owners[j]
            if root_of(parents, members[a]) != root_of(parents, members[b]) and _are_alike(
                keys[i], tokens[places[a] : places[a + 1]], tokens[places[b] : places[b + 1]], threshold
            ):
                _join(parents, members[a], members[b])


@compiled
def _are_alike(token: int, left: np.ndarray, right: np.ndarray, threshold: float) -> bool:
    """Whether two sorted sets are alike enough; False, too, where a lower token than this one has found the pair."""
    if min(len(left), len(right)) < threshold * max(len(left), len(right)) * (1 - _SLACK):
        return False
    i = j = both = 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            if both == 0 and left[i] != token:
                return False
            both += 1
            i += 1
            j += 1
        elif left[i] < right[j]:
            i += 1
        else:
            j += 1
    return both / (len(left) + len(right) - both) >= threshold
