"""Groups within clusters of unit vectors: rows whose cosine exceeds 1 - epsilon, by blocks of a matrix product.

The work is one product of 32-bit floats for each pair of blocks of a cluster; a compiled loop looks at each similarity
once (`semantic_kernels`), and pairs that are nearer to a threshold than the product is exact are computed again in
doubles, which are exact for vectors of 16-bit floats (`vectors.dots`). So results are the same for any library,
number of threads and size of blocks.

Memory: two blocks of rows as 32-bit floats and their similarities, below 50 MB at 1,024 dimensions, whatever the size
of a cluster; about 50 bytes a row, and 40 more for each row of the largest cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from corpusmith.operators.embedding.kmeans import dot_error
from corpusmith.operators.embedding.vectors import Doubles, Floats, Halves, Ints, dots

_BLOCK_ROWS = 2048
_PAIRS_AT_ONCE = 1 << 16

Take = Callable[[Ints], Halves]


@dataclass(frozen=True)
class Rule:
    """What connects two rows of a cluster.

    Args:
        epsilon: rows whose cosine is greater than 1 - epsilon are near-duplicates.
        is_published: a row goes where an earlier row is its near-duplicate, and belongs to the first such row's
            group; else groups are connected components.
        curve: other values of epsilon to count for.
    """

    epsilon: float
    is_published: bool
    curve: tuple[float, ...] = ()

    @property
    def epsilons(self) -> tuple[float, ...]:
        """All of them, each once, from the largest on."""
        return tuple(sorted({self.epsilon, *self.curve}, reverse=True))


@dataclass(frozen=True)
class Groups:
    """What is found for P rows.

    Args:
        representatives: (P,) the row that represents each row's group.
        sizes: (P,) rows of each row's group.
        cosines: (P,) of each row and its representative.
        dropped: epsilon -> rows that are not fixed and do not represent a group, were that the epsilon.
    """

    representatives: Ints
    sizes: Ints
    cosines: Doubles
    dropped: dict[float, int]


def grouped(
    take: Take, dimension: int, order: Ints, clusters: Ints, is_fixed: npt.NDArray[np.bool_], rule: Rule
) -> Groups:
    """Group P rows within clusters.

    Args:
        take: the vectors of rows: (B,) rows -> (B, d) unit vectors.
        dimension: d.
        order: (P,) rows, sorted by cluster, and within a cluster those that are fixed first, then in the order in which
            they would represent a group.
        clusters: (P,) the cluster of each row.
        is_fixed: (P,) rows that stay whatever they are near to; they are not compared with each other.
        rule: what connects two rows.
    """
    found = Groups(np.arange(len(order)), np.ones(len(order), np.int64), np.ones(len(order)), {})
    dropped = np.zeros(len(rule.epsilons), np.int64)
    deciding = rule.epsilons.index(rule.epsilon)
    pairs = np.zeros((_PAIRS_AT_ONCE, 2), np.int64)
    starts = np.flatnonzero(np.diff(clusters[order], prepend=-1, append=-1))
    for start, stop in pairwise(starts.tolist()):
        rows = order[start:stop]
        fixed = int(np.count_nonzero(is_fixed[rows]))
        parents = _Cluster(take, dimension, rows, fixed, rule, pairs).searched()
        dropped += np.count_nonzero(parents[:, fixed:] != np.arange(fixed, len(rows)), axis=1)
        found.representatives[rows] = rows[parents[deciding]]
        found.sizes[rows] = np.bincount(parents[deciding], minlength=len(rows))[parents[deciding]]
        _measure(take, rows, parents[deciding], found.cosines)
    found.dropped.update(zip(rule.epsilons, dropped.tolist(), strict=True))
    return found


def cosines_of(left: Halves, right: Halves) -> Doubles:
    """(B,) cosines of rows of two (B, d) matrices, from exact products."""
    return dots(left, right) / (np.sqrt(dots(left, left)) * np.sqrt(dots(right, right)))


def _measure(take: Take, rows: Ints, parents: npt.NDArray[np.int32], cosines: Doubles) -> None:
    """Note the cosines of the rows of a cluster and of those that represent them."""
    others = np.flatnonzero(parents != np.arange(len(rows)))
    for start in range(0, len(others), _BLOCK_ROWS):
        part = others[start : start + _BLOCK_ROWS]
        cosines[rows[part]] = cosines_of(take(rows[part]), take(rows[parents[part]]))


class _Cluster:
    """The search within one cluster of m rows.

    Args:
        take: as of `grouped`.
        dimension: as of `grouped`.
        rows: (m,) in their order.
        fixed: how many of them, the first ones, are.
        rule: what connects two rows.
        pairs: (P, 2) to work with, P at least as many as rows of a block.
    """

    def __init__(self, take: Take, dimension: int, rows: Ints, fixed: int, rule: Rule, pairs: Ints) -> None:
        self._take, self._rows, self._fixed, self._pairs = take, rows, fixed, pairs
        self._thresholds, self._is_published = 1 - np.array(rule.epsilons), rule.is_published
        self._parents: npt.NDArray[np.int32] = np.tile(np.arange(len(rows), dtype=np.int32), (len(rule.epsilons), 1))
        self._scales = np.ones(len(rows), np.float32)
        # of a product, and of two lengths to divide by, each the root of such a product
        self._error = 2 * dot_error(dimension)

    def searched(self) -> npt.NDArray[np.int32]:
        """(T, m) by epsilon: the representative of each row, as a number within the cluster."""
        from corpusmith.operators.dedup.semantic_kernels import settle_roots

        for start in range(0, len(self._rows), _BLOCK_ROWS):
            later = self._block(start)
            similarities = later @ later.T
            self._scales[start : start + len(later)] = 1 / np.sqrt(np.diag(similarities))
            self._compare(similarities, start, start)
            for before in range(0, start, _BLOCK_ROWS):
                self._compare(later @ self._block(before).T, start, before)
        settle_roots(self._parents)
        return self._parents

    def _block(self, start: int) -> Floats:
        return self._take(self._rows[start : start + _BLOCK_ROWS]).astype(np.float32)

    def _compare(self, similarities: Floats, first_row: int, first_column: int) -> None:
        from corpusmith.operators.dedup.semantic_kernels import scan, settle

        block = (similarities, self._scales, first_row, first_column, self._fixed, self._error)
        rule, next_row = (self._thresholds, self._is_published, self._parents), 0
        while next_row < len(similarities):
            count, next_row = scan(*block, *rule, self._pairs, next_row)
            for start in range(0, count, _BLOCK_ROWS):
                part = self._pairs[start : min(start + _BLOCK_ROWS, count)]
                earlier, later = (self._take(self._rows[part[:, side]]) for side in (0, 1))
                settle(part, cosines_of(earlier, later), *rule)
