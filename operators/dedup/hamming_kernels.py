"""The loops of the search for hashes that differ in few bits; `hamming` says what they are for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import intrinsic

from corpusmith.operators.kernels import compiled

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Int = Any
"""An int, or what an array of them holds."""

_WORDS = 4


def _popcount(_: Any, word: Any) -> Any:
    """Number of bits set in a uint64: one instruction."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


_ones: Any = intrinsic(_popcount)


@compiled
def _apart(left: Words, i: Int, right: Words, j: Int) -> Int:
    """Bits in which two hashes differ: row i of (N, W) and row j of (M, W)."""
    if left.shape[1] == _WORDS:
        upper = _ones(left[i, 0] ^ right[j, 0]) + _ones(left[i, 1] ^ right[j, 1])
        return np.int64(upper + _ones(left[i, 2] ^ right[j, 2]) + _ones(left[i, 3] ^ right[j, 3]))
    return np.int64(_ones(left[i, 0] ^ right[j, 0]))


@compiled
def _root(parents: Ints, member: Int) -> Int:
    while parents[member] != member:
        parents[member] = parents[parents[member]]
        member = parents[member]
    return member


@compiled
def _connect(parents: Ints, left: Int, right: Int) -> None:
    """Merge two groups; the lower root stays one, so that a root is the lowest of its group."""
    left, right = _root(parents, left), _root(parents, right)
    if left < right:
        parents[right] = left
    else:
        parents[left] = right


@compiled
def flatten(parents: Ints) -> None:
    """Let each member's parent be its root."""
    for member in range(len(parents)):
        parents[member] = _root(parents, member)


@compiled
def keys_of(hashes: Words, bits: Ints) -> Ints:
    """The named bits of each hash as a number.

    Args:
        hashes: (N, W) uint64.
        bits: (B,) int64: of the first word 0 to 63, lowest first, of the second 64 to 127, and so on.

    Returns:
        (N,) int64, below 2^B.
    """
    keys = np.zeros(len(hashes), np.int64)
    for place in range(len(bits)):
        word, shift = bits[place] >> 6, np.uint64(bits[place] & 63)
        for i in range(len(hashes)):
            keys[i] |= np.int64((hashes[i, word] >> shift) & np.uint64(1)) << place
    return keys


@compiled
def sorted_by(keys: Ints, bits: int) -> tuple[Ints, Ints]:
    """The order of keys below 2^bits, equals as they stand, and where the run of each key starts.

    Returns:
        (N,) int64 order; (2^bits + 1,) int64 starts.
    """
    starts = np.zeros((1 << bits) + 1, np.int64)
    for key in keys:
        starts[key + 1] += 1
    for key in range(1 << bits):
        starts[key + 1] += starts[key]
    order, at = np.empty(len(keys), np.int64), starts.copy()
    for i in range(len(keys)):
        order[at[keys[i]]] = i
        at[keys[i]] += 1
    return order, starts


@compiled
def connect_within(
    hashes: Words, rows: Ints, starts: Ints, radius: int, parents: Ints
) -> tuple[Words, Ints, Ints, Ints, Ints]:
    """Connect all neighbours within each run, and tell of its balls: leaders, with members that are near them.

    Args:
        hashes: (N, W) uint64, run by run.
        rows: (N,) the number of each hash in `parents`.
        starts: (R + 1,) where runs start.
        radius: neighbours differ in at most so many bits.
        parents: the groups so far, changed here.

    Returns:
        (N, W) the leaders' hashes, those of each run from its start on; (N,) their places; (N,) how far the members
        of each are at most; (N,) the next member of the same ball by place, -1 for none; (R,) leaders of each run.
    """
    leaders, places = np.empty_like(hashes), np.empty(len(hashes), np.int64)
    reaches, following = np.zeros(len(hashes), np.int64), np.full(len(hashes), -1)
    counts = np.zeros(len(starts) - 1, np.int64)
    for run in range(len(starts) - 1):
        first, last = starts[run], starts[run]
        for place in range(starts[run], starts[run + 1]):
            home = -1
            for ball in range(first, last):
                apart = _apart(hashes, place, leaders, ball)
                if apart > radius + reaches[ball]:
                    continue
                if apart <= radius:
                    _connect(parents, rows[place], rows[places[ball]])
                    home = ball
                elif _root(parents, rows[place]) != _root(parents, rows[places[ball]]):
                    _connect_to_ball(hashes, place, places[ball], following, radius, rows, parents)
            if home < 0:
                leaders[last], places[last] = hashes[place], place
                last += 1
                continue
            following[place], following[places[home]] = following[places[home]], place
            reaches[home] = max(reaches[home], _apart(hashes, place, leaders, home))
        counts[run] = last - first
    return leaders, places, reaches, following, counts


@compiled
def _connect_to_ball(
    hashes: Words,
    place: Int,
    member: Int,
    following: Ints,
    radius: int,
    rows: Ints,
    parents: Ints,
) -> bool:
    """Connect a hash with a ball, all of which is one group, if any member of it is near."""
    while member >= 0:
        if _apart(hashes, place, hashes, member) <= radius:
            _connect(parents, rows[place], rows[member])
            return True
        member = following[member]
    return False


@compiled
def connect_across(
    hashes: Words,
    rows: Ints,
    starts: Ints,
    masks: Ints,
    radius: int,
    parents: Ints,
    balls: tuple[Words, Ints, Ints, Ints, Ints],
) -> None:
    """Connect all neighbours in runs whose keys differ by one of the masks.

    Args:
        hashes, rows, starts, radius, parents: as connect_within; run k is that of key k.
        masks: (M,) bits in which two keys may differ.
        balls: what connect_within tells.
    """
    leaders, places, reaches, following, counts = balls
    for key in range(len(counts)):
        if counts[key] == 0:
            continue
        for mask in masks:
            other = key ^ mask
            if other <= key or counts[other] == 0:
                continue
            for left in range(starts[key], starts[key] + counts[key]):
                for right in range(starts[other], starts[other] + counts[other]):
                    apart = _apart(leaders, left, leaders, right)
                    if apart > radius + reaches[left] + reaches[right]:
                        continue
                    if _root(parents, rows[places[left]]) == _root(parents, rows[places[right]]):
                        continue
                    member = places[left]
                    while member >= 0:
                        is_near = _apart(hashes, member, leaders, right) <= radius + reaches[right]
                        if is_near and _connect_to_ball(
                            hashes, member, places[right], following, radius, rows, parents
                        ):
                            break
                        member = following[member]


@compiled
def improve_nearest(
    queries: Words,
    keys: Ints,
    hashes: Words,
    order: Ints,
    starts: Ints,
    masks: Ints,
    found: Ints,
    distances: Ints,
) -> None:
    """For each query the nearest of the hashes whose keys differ from its own by one of the masks; ties to the lowest.

    Args:
        queries: (Q, W) uint64; keys: (Q,) their keys.
        hashes: (N, W) uint64, sorted by key; order: (N,) the number of each.
        starts: (2^B + 1,) where the run of each key starts.
        masks: (M,) bits in which two keys may differ, 0 among them.
        found: (Q,) number of the nearest so far, changed here.
        distances: (Q,) how near it is, changed here; at first one more than is near enough.
    """
    for i in range(len(queries)):
        for mask in masks:
            for place in range(starts[keys[i] ^ mask], starts[(keys[i] ^ mask) + 1]):
                apart = _apart(queries, i, hashes, place)
                if apart < distances[i] or (apart == distances[i] and order[place] < found[i]):
                    distances[i], found[i] = apart, order[place]
