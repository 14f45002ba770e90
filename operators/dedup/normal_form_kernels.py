"""The compiled loop of text forms: letters folded and spaces squeezed in one sweep over Arrow's bytes."""

from __future__ import annotations

import numpy as np

from corpusmith.operators.kernels import compiled

SPACE = 32


@compiled
def squeeze(data: np.ndarray, bounds: np.ndarray, table: np.ndarray, out: np.ndarray, out_bounds: np.ndarray) -> None:
    """Write texts by the bytes of a table, each run of spaces as one, and none at the ends.

    Args:
        data: (B,) uint8, the texts' bytes.
        bounds: (N + 1,) int64, where each text begins and ends in `data`.
        table: (256,) uint8, what stands for each byte.
        out: (B,) uint8, written from its beginning.
        out_bounds: (N + 1,) int64, written.
    """
    written = 0
    out_bounds[0] = 0
    for row in range(len(bounds) - 1):
        first, is_parted = written, False
        for i in range(bounds[row], bounds[row + 1]):
            char = table[data[i]]
            if char == SPACE:
                is_parted = written > first
                continue
            if is_parted:
                out[written] = SPACE
                written += 1
                is_parted = False
            out[written] = char
            written += 1
        out_bounds[row + 1] = written
