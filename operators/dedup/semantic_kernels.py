"""Compiled loops of dedup.semantic: thresholds over a block of similarities, and what is connected by them.

Rows of a cluster are numbered in the order in which they would represent a group. A similarity in 32-bit floats decides
only where it is further from every threshold than its error can be; what is nearer is handed back as a pair to compute
exactly. So no decision depends on the order in which a matrix product adds up.
"""

from __future__ import annotations

import numpy as np

from corpusmith.operators.kernels import compiled


@compiled
def scan(
    similarities: np.ndarray,
    scales: np.ndarray,
    first_row: int,
    first_column: int,
    fixed: int,
    error: float,
    thresholds: np.ndarray,
    is_published: bool,
    parents: np.ndarray,
    pairs: np.ndarray,
    start: int,
) -> tuple[int, int]:
    """Compare later rows of a cluster of m rows with earlier ones.

    Args:
        similarities: (J, I) float32 dot products of rows with earlier rows (columns).
        scales: (m,) float32, what makes unit vectors of the cluster's rows.
        first_row, first_column: numbers of the first row and column.
        fixed: how many rows, the first ones, are not compared with each other.
        error: by how much a similarity may be wrong.
        thresholds: (T,) ascending.
        is_published: connect a row to its first near-duplicate alone; else all in one component.
        parents: (T, m) int32, by threshold: an earlier row of the group, or the row itself; changed.
        pairs: (P, 2) int64; receives (earlier, later) of the pairs to compute.
        start: row of the block to begin with.

    Returns:
        Number of pairs; the row to go on with, J at the end: P may be too small for all at once.
    """
    count = 0
    rows, columns = similarities.shape
    low = np.float32(thresholds[0] - 2 * error)
    strictest = len(thresholds) - 1
    for j in range(start, rows):
        later = first_row + j
        if later < fixed:
            continue
        if count + columns > len(pairs):
            return count, j
        scale = scales[later]
        for i in range(min(columns, later - first_column)):
            cosine = similarities[j, i] * scale * scales[first_column + i]
            earlier = first_column + i
            if cosine >= low and _is_news(parents, strictest, earlier, later, is_published):
                sure = _exceeded(cosine - error, thresholds, 0)
                _join(parents, sure, earlier, later, is_published)
                possible = _exceeded(cosine + error, thresholds, sure)
                for t in range(sure, possible):
                    if _is_news(parents, t, earlier, later, is_published):
                        pairs[count, 0], pairs[count, 1] = earlier, later
                        count += 1
                        break
    return count, rows


@compiled
def settle(
    pairs: np.ndarray, cosines: np.ndarray, thresholds: np.ndarray, is_published: bool, parents: np.ndarray
) -> None:
    """As `scan`, for pairs whose (P,) cosines are exact."""
    for p in range(len(cosines)):
        _join(parents, _exceeded(cosines[p], thresholds, 0), pairs[p, 0], pairs[p, 1], is_published)


@compiled
def settle_roots(parents: np.ndarray) -> None:
    """Point every row at the one that represents its group: parents come before their children."""
    for t in range(len(parents)):
        for row in range(parents.shape[1]):
            parents[t, row] = parents[t, parents[t, row]]


@compiled
def _exceeded(cosine: float, thresholds: np.ndarray, count: int) -> int:
    """How many of the thresholds a cosine is greater than, `count` at least."""
    while count < len(thresholds) and cosine > thresholds[count]:
        count += 1
    return count


@compiled
def _join(parents: np.ndarray, count: int, earlier: int, later: int, is_published: bool) -> None:
    """Connect two rows at the first `count` thresholds; what is connected at one of them is at those before it."""
    for t in range(count - 1, -1, -1):
        if not _is_news(parents, t, earlier, later, is_published):
            return
        if is_published:
            parents[t, later] = earlier
        else:
            left, right = _root(parents, t, earlier), _root(parents, t, later)
            parents[t, max(left, right)] = min(left, right)


@compiled
def _is_news(parents: np.ndarray, t: int, earlier: int, later: int, is_published: bool) -> bool:
    """Whether it would change anything if the two were joined at threshold t."""
    if is_published:
        return parents[t, later] > earlier
    return _root(parents, t, earlier) != _root(parents, t, later)


@compiled
def _root(parents: np.ndarray, t: int, row: int) -> int:
    while parents[t, row] != row:
        parents[t, row] = parents[t, parents[t, row]]
        row = parents[t, row]
    return row
