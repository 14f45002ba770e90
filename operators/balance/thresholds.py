"""From counts to t, the rows up to which an entry keeps all, and from one language's t to the others'.

MetaCLIP 2 (Chuang et al., "Meta CLIP 2: A Worldwide Scaling Recipe", 2025, section 3.2, and its public code) carries t
from English to other languages by the share that the tail has: p is the share of English matches that belong to
entries of fewer than t rows, and a language's own t is the count whose cumulative share of its sorted counts is
nearest to p. The same step from a share to t serves pools of any size, for an absolute t fits one size only.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def tail_share(counts: Ints, t: int) -> float:
    """The share of all matches that belongs to entries of fewer than t rows; 0 where nothing matches."""
    total = int(counts.sum())
    return int(counts[counts < t].sum()) / total if total else 0.0


def tail_threshold(counts: Ints, share: float) -> int:
    """The count whose cumulative share of the counts, sorted ascending, is nearest to a share; of two the lower.

    Entries without a row take no part, so that t is 1 at least; it is 1 where no entry has a row.

    Args:
        counts: rows of each entry.
        share: of the sum of counts, from 0 to 1.
    """
    ascending = np.sort(counts[counts > 0])
    if not len(ascending):
        return 1
    cumulative = np.cumsum(ascending)
    return int(ascending[np.argmin(np.abs(cumulative / cumulative[-1] - share))])


def group_thresholds(counts: Ints, groups: Ints, number: int, *, t: int | None, share: float, reference: int) -> Ints:
    """The t of each group (language).

    Args:
        counts: rows of each slot, a slot being an entry within a group.
        groups: group of each slot.
        number: of groups, at least one.
        t: of the reference group, whose tail share the others then have; None to use `share` for all groups.
        share: of the tail, where t is None.
        reference: the group that t is of.

    Returns:
        (number,) thresholds, 1 at least.
    """
    order = np.argsort(groups, kind="stable")
    bounds = np.searchsorted(groups[order], np.arange(number + 1))
    own = [counts[order[first:last]] for first, last in pairwise(bounds.tolist())]
    if t is not None:
        share = tail_share(own[reference], t)
    found = [tail_threshold(one, share) for one in own]
    if t is not None:
        found[reference] = t
    return np.array(found, np.int64)
