"""The one loop of PDQ that touches every pixel: gray and the tent filter in one pass over each picture."""

from __future__ import annotations

import numpy as np

from corpusmith.operators.kernels import compiled

_RED, _GREEN, _BLUE = np.float32(0.299), np.float32(0.587), np.float32(0.114)


@compiled
def filtered(
    pixels: np.ndarray, down: np.ndarray, down_ends: np.ndarray, across: np.ndarray, across_ends: np.ndarray
) -> np.ndarray:
    """`down @ gray @ across.T`, of which only what lies between the ends of a filter's row is not zero.

    Args:
        pixels: (H, W, 1) gray or (H, W, 3) RGB, uint8; gray is 0.299 R + 0.587 G + 0.114 B.
        down: (64, H) float32.
        down_ends: (64, 2) where the weights of each of its rows start and end.
        across: (64, W) float32.
        across_ends: (64, 2) as down_ends.

    Returns:
        (64, 64) float64.
    """
    side, width = down.shape[0], pixels.shape[1]
    made = np.empty((side, side), np.float64)
    row = np.empty(width, np.float32)
    for i in range(side):
        row[:] = 0
        for y in range(down_ends[i, 0], down_ends[i, 1]):
            if pixels.shape[2] == 1:
                for x in range(width):
                    row[x] += down[i, y] * pixels[y, x, 0]
            else:
                red, green, blue = down[i, y] * _RED, down[i, y] * _GREEN, down[i, y] * _BLUE
                for x in range(width):
                    row[x] += red * pixels[y, x, 0] + green * pixels[y, x, 1] + blue * pixels[y, x, 2]
        for j in range(side):
            total = 0.0
            for x in range(across_ends[j, 0], across_ends[j, 1]):
                total += across[j, x] * row[x]
            made[i, j] = total
    return made
