"""Blur of given boxes, so that nobody is recognised by a face.

The effect of K. Yang et al., "A Study of Face Obfuscation in ImageNet" (ICML 2022), section 4, as img2dataset took it
over: boxes grow by a tenth of their longer side each way, the Gaussian's sigma is a tenth of the longest side of all,
and the same Gaussian softens the edges of what is replaced.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from corpusmith.schemas.fates import RowFailed

Box = tuple[float, float, float, float]
"""Left, top, right and bottom as fractions of the width and height."""

_GROWTH = 0.1
_SIGMA = 0.1
_FARTHEST_OUTSIDE = 1.0
"""Beyond this many widths or heights outside of the picture a box cannot be in fractions."""
_LARGEST_SIGMA_PX = 12.0
"""Above that the blur is computed on a smaller picture: what is left after it has no detail to lose."""


def boxes_of(value: Any) -> list[Box]:
    """Boxes out of a column's value: a list of [left, top, right, bottom], or that as JSON text; null is no box.

    Raises:
        RowFailed: "bad boxes".
    """
    if value is None or value == "":
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RowFailed("bad boxes", f"neither a list nor JSON: {error}"[:200]) from error
    if value is None:
        return []
    if not isinstance(value, list):
        raise RowFailed("bad boxes", f"{type(value).__name__} in place of a list")
    return [_box(box) for box in value]


def _box(value: Any) -> Box:
    is_four = isinstance(value, list | tuple) and len(value) == 4
    if not is_four or not all(isinstance(side, int | float) and not isinstance(side, bool) for side in value):
        raise RowFailed("bad boxes", f"a box is [left, top, right, bottom], not {value!r}"[:200])
    if not all(-_FARTHEST_OUTSIDE <= side <= 1 + _FARTHEST_OUTSIDE for side in value):
        raise RowFailed("bad boxes", f"{value} is not in fractions of the width and height"[:200])
    left, top, right, bottom = (float(side) for side in value)
    if left > right or top > bottom:
        raise RowFailed("bad boxes", f"{value} ends before it begins")
    return left, top, right, bottom


def blurred(pixels: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """Pixels, (H, W) or (H, W, 3) uint8, with boxes blurred; what lies farther away keeps its values."""
    height, width = pixels.shape[:2]
    sides = [(box[0] * width, box[1] * height, box[2] * width, box[3] * height) for box in boxes]
    inside = [_clipped(side, width, height) for side in sides if side[2] > side[0] and side[3] > side[1]]
    inside = [side for side in inside if side[2] > side[0] and side[3] > side[1]]
    if not inside:
        return pixels
    sigma = max(_SIGMA * max(max(s[2] - s[0], s[3] - s[1]) for s in sides), 1.0)
    reach = math.ceil(3 * sigma)
    left, top = max(min(s[0] for s in inside) - reach, 0), max(min(s[1] for s in inside) - reach, 0)
    right, bottom = (max(s[2] for s in inside) + reach, max(s[3] for s in inside) + reach)
    part = np.s_[top : min(bottom, height), left : min(right, width)]
    mask = np.zeros((height, width), np.float32)
    for x0, y0, x1, y1 in inside:
        mask[y0:y1, x0:x1] = 1
    result = pixels.copy()
    result[part] = _blended(pixels[part], mask[part], sigma)
    return result


def _clipped(side: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """A box in pixels, grown and cut to the picture."""
    growth = _GROWTH * max(side[2] - side[0], side[3] - side[1])
    left, top = max(math.floor(side[0] - growth), 0), max(math.floor(side[1] - growth), 0)
    return left, top, min(math.ceil(side[2] + growth), width), min(math.ceil(side[3] + growth), height)


def _blended(pixels: np.ndarray, mask: np.ndarray, sigma: float) -> np.ndarray:
    import cv2

    height, width = mask.shape
    scale = min(_LARGEST_SIGMA_PX / sigma, 1.0)
    small_size = max(round(width * scale), 1), max(round(height * scale), 1)
    smeared: list[np.ndarray] = []
    for layer in (pixels, mask):
        small = cv2.resize(layer, small_size, interpolation=cv2.INTER_AREA)
        soft = cv2.GaussianBlur(small, (0, 0), sigma * scale, borderType=cv2.BORDER_REFLECT_101)
        smeared.append(cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR))
    weight = smeared[1] if pixels.ndim == 2 else smeared[1][:, :, None]
    return np.rint(pixels + (smeared[0] - pixels.astype(np.float32)) * weight).astype(np.uint8)
