"""Connected components over numbered members, fed with edges as they are found."""

from __future__ import annotations

import numpy as np

_EDGES_AT_ONCE = 1 << 20


class Components:
    """Sets that are merged: each member is labelled with the lowest member of its set.

    Memory is a number for each member and a bounded number of edges.

    Args:
        count: members, numbered from 0.
    """

    def __init__(self, count: int) -> None:
        self._labels = np.arange(count)
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._waiting_count = 0

    def connect(self, left: np.ndarray, right: np.ndarray) -> None:
        """Merge the sets of left[i] and right[i] for each i; (E,) integers each."""
        self._waiting.append((left, right))
        self._waiting_count += len(left)
        if self._waiting_count >= _EDGES_AT_ONCE:
            self._merge()

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64: the lowest member of each member's set."""
        if self._waiting_count:
            self._merge()
        return self._labels

    def _merge(self) -> None:
        """Hang each root below its lowest neighbour and shorten all paths, until no edge joins two roots.

        At least half of the roots that have another neighbour vanish in each round.
        """
        left, right = (np.concatenate(ends) for ends in zip(*self._waiting, strict=True))
        self._waiting, self._waiting_count = [], 0
        labels = self._labels
        while True:
            left, right = labels[left], labels[right]
            is_joining = left != right
            left, right = left[is_joining], right[is_joining]
            if not left.size:
                return
            np.minimum.at(labels, np.maximum(left, right), np.minimum(left, right))
            while not np.array_equal(labels, shorter := labels[labels]):
                labels[:] = shorter
