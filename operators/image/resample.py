"""Pixels at another size, by the filters that img2dataset offers, and how far a JPEG may be shrunk while it is decoded.

`fast` takes half, a quarter or an eighth of a JPEG from the decoder, which leaves 1.2 to 2.4 times the size that is
asked for: with less, the decoder's average and the second filter together would blur visibly. OpenCV's area average for
that rest takes about as long as the decoding. A Gaussian over 3 × 3 pixels and cubic interpolation take a third of that
time and come as close to an ideal filter of the whole picture as the area average of the whole picture does. `fine`
decodes every pixel and filters once, as OpenCV.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from corpusmith.schemas.fates import RowFailed

Downscale = Literal["area", "lanczos", "cubic", "linear", "nearest", "lanczos_antialias"]
Upscale = Literal["lanczos", "cubic", "linear", "nearest", "area"]
Fidelity = Literal["fast", "fine"]

_LEAST_RATIO = 1.2
"""Original ÷ result that shrinking leaves, and from which pixels are smoothed before cubic interpolation."""
_SIGMA = 0.3
"""Of the Gaussian, in pixels for each unit of original ÷ result; measured by the script `bench_image.py`."""


@dataclass(frozen=True)
class Scaling:
    """How pixels are brought to another size."""

    downscale: Downscale = "area"
    upscale: Upscale = "lanczos"
    fidelity: Fidelity = "fast"

    def shrink_factor(self, stored: tuple[int, int], size: tuple[int, int]) -> int:
        """By how much to shrink a JPEG while decoding it; powers of two alone, for the others take longer."""
        if self.fidelity == "fine" or self.downscale == "nearest":
            return 1
        ratio = min(stored[0] / size[0], stored[1] / size[1])
        return next((f for f in (8, 4, 2) if ratio >= _LEAST_RATIO * f), 1)

    def of_jpeg(self, pixels: np.ndarray, size: tuple[int, int], extent: tuple[float, float]) -> np.ndarray:
        """The pixels of a JPEG, shrunk or not, at another size; see resized()."""
        import cv2

        ratio = max(extent[0] / size[0], extent[1] / size[1])
        if self.downscale != "area" or self.fidelity == "fine" or not 1 < ratio < 2 * _LEAST_RATIO:
            return self.of(pixels, size, extent)
        if ratio >= _LEAST_RATIO:
            pixels = cv2.GaussianBlur(pixels, (3, 3), _SIGMA * ratio)
        return resized(pixels, size, extent, "cubic")

    def of(self, pixels: np.ndarray, size: tuple[int, int], extent: tuple[float, float]) -> np.ndarray:
        """Pixels at another size; see resized()."""
        is_smaller = size[0] < extent[0] or size[1] < extent[1]
        return resized(pixels, size, extent, self.downscale if is_smaller else self.upscale)


def resized(
    pixels: np.ndarray, size: tuple[int, int], extent: tuple[float, float], name: Downscale | Upscale
) -> np.ndarray:
    """Pixels at another size.

    Args:
        pixels: (H, W) or (H, W, 3), uint8.
        size: the wanted width and height.
        extent: how much of the width and height is picture; shrunk JPEGs end within their last column and row.
        name: the filter; all are OpenCV's, but `lanczos_antialias`, which is Pillow's.

    Raises:
        RowFailed: "cannot resize".
    """
    import cv2

    height, width = pixels.shape[:2]
    if (width, height) == size == extent:
        return pixels
    if name == "lanczos_antialias":
        return _antialiased(pixels, size, extent)
    filters = {
        "area": cv2.INTER_AREA,
        "lanczos": cv2.INTER_LANCZOS4,
        "cubic": cv2.INTER_CUBIC,
        "linear": cv2.INTER_LINEAR,
        "nearest": cv2.INTER_NEAREST,
    }
    try:
        if (width, height) == extent:
            return cv2.resize(pixels, size, interpolation=filters[name])
        scale_x, scale_y = size[0] / extent[0], size[1] / extent[1]
        scaled = cv2.resize(pixels, None, fx=scale_x, fy=scale_y, interpolation=filters[name])
    except cv2.error as error:
        raise RowFailed("cannot resize", f"{width} × {height} to {size[0]} × {size[1]}: {error}"[:200]) from error
    return scaled[: size[1], : size[0]]


def _antialiased(pixels: np.ndarray, size: tuple[int, int], extent: tuple[float, float]) -> np.ndarray:
    from PIL import Image

    scaled = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, box=(0, 0, *extent))
    return np.asarray(scaled)
