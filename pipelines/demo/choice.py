"""Choices by hash: the demo looks random and is the same on every machine and in every run."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate


def fraction(*key: str) -> float:
    """A number in [0, 1) that depends on `key` alone and is spread evenly over keys."""
    digest = hashlib.sha256("\x00".join(key).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def choose(weights: Mapping[str, float], *key: str) -> str:
    """One of the names in `weights`, drawn with their relative weights by the hash of `key`."""
    bounds = list(accumulate(weights.values()))
    position = bisect_right(bounds, fraction(*key) * bounds[-1])
    return list(weights)[min(position, len(bounds) - 1)]
