"""Which sizes pictures are refused for, and which they get: the rules of img2dataset 1.47.

Its sizes are those of Albumentations (SmallestMaxSize, LongestMaxSize): `max(1, round(side × (size ÷ side in
question)))`, halves to even, with the quotient rounded to a double first. Taking the same steps gives the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from corpusmith.schemas.fates import RowFailed

ResizeMode = Literal["no", "keep_ratio", "keep_ratio_largest", "center_crop", "border"]
Size = tuple[int, int]

_WHITE = 255


@dataclass(frozen=True)
class Bounds:
    """What pictures are accepted; 0 is no bound, but for `max_pixels`."""

    max_pixels: int
    min_side: int
    max_aspect_ratio: float
    max_area: int

    def check(self, width: int, height: int) -> None:
        """Hold a picture's size against the bounds.

        Raises:
            RowFailed: "too many pixels", "too small", "area too large" or "aspect ratio".
        """
        shorter, longer = sorted((width, height))
        if width * height > self.max_pixels:
            raise RowFailed("too many pixels", f"{width} × {height} > {self.max_pixels}")
        if shorter < max(self.min_side, 1):
            raise RowFailed("too small", f"shorter side = {shorter} < {max(self.min_side, 1)}")
        if self.max_area and width * height > self.max_area:
            raise RowFailed("area too large", f"{width} × {height} > {self.max_area}")
        if self.max_aspect_ratio and longer / shorter > self.max_aspect_ratio:
            raise RowFailed("aspect ratio", f"{longer / shorter:.3f} > {self.max_aspect_ratio:g}")


@dataclass(frozen=True)
class Resizing:
    """The target of a resize."""

    mode: ResizeMode
    size: int
    only_if_bigger: bool
    max_pixels: int

    def plan(self, width: int, height: int) -> tuple[Size, Size]:
        """Size (width, height) to scale to, and size of the result, which is cropped or bordered to that.

        Raises:
            RowFailed: "too many pixels" after resizing.
        """
        if self.mode == "no":
            return (width, height), (width, height)
        side = min(width, height) if self.mode in ("keep_ratio", "center_crop") else max(width, height)
        if self.only_if_bigger and side <= self.size:
            return (width, height), (width, height)
        scale = self.size / side
        scaled = max(round(width * scale), 1), max(round(height * scale), 1)
        if scaled[0] * scaled[1] > self.max_pixels:
            raise RowFailed("too many pixels", f"{scaled[0]} × {scaled[1]} after resizing > {self.max_pixels}")
        return scaled, (self.size, self.size) if self.mode in ("center_crop", "border") else scaled


def fitted(pixels: np.ndarray, size: Size) -> np.ndarray:
    """The middle of pixels (H, W) or (H, W, 3), or pixels in the middle of white: whatever brings them to a size."""
    width, height = size
    if pixels.shape[0] >= height and pixels.shape[1] >= width:
        top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
        return pixels[top : top + height, left : left + width]
    canvas = np.full((height, width, *pixels.shape[2:]), _WHITE, np.uint8)
    top, left = (height - pixels.shape[0]) // 2, (width - pixels.shape[1]) // 2
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas
