"""pdq: what a picture looks like, in 256 bits, and how much there is to go by.

Facebook's hash (Dalins, Wilson, Boudry, "PDQ & TMK + PDQF", 2019, section 3; ThreatExchange publishes the code): the
luminance is smoothed by two passes of a box filter each way, sampled at 64 × 64, and of its DCT-II the 16 × 16 lowest
frequencies without the constant ones give a bit each: whether they exceed the median. Two passes of boxes and the
sampling are linear, so they are one product here, with a tent for each of 64 rows and columns. The quality is the sum
of the gradients of the 64 × 64 pixels, 0 to 100; below 50 a hash says little, and the authors advise to drop it.

Written as the published code prints it: 64 hex digits, the lowest frequency in the lowest bit. For given pixels the
hash is the published code's, bit for bit, with two differences. A large JPEG is shrunk by its decoder, as far as leaves
256 pixels a side, and its fewer pixels are weighed as what they stand for: some of the bits nearest to the median then
differ (of photos up to 2,500 pixels wide 1.4 on average, 6 at most). And coefficients that differ by less than a
float's noise are equal, so that a flat picture has hash 0 anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from corpusmith.operators.contract import AnnotateRows
from corpusmith.operators.image.decode import PixelBound, Reading, opened, prepare_decoders
from corpusmith.operators.image.resample import Scaling
from corpusmith.operators.image.sizes import Bounds
from corpusmith.schemas.columns import MEDIA, Column

PDQ = Column("pdq", pa.string(), "256-bit PDQ hash of what the picture looks like, 64 hex digits")
PDQ_QUALITY = Column("pdq_quality", pa.int64(), "how much the PDQ hash has to go by, 0 to 100; useful from 50 on")

_SIDE = 64
_LEAST_SHRUNK = 256
_LEAST_SIDE = 5
"""Smaller pictures have hash 0 and quality 0."""
_FREQUENCIES = 16
_NOISE = 1e-4
"""Coefficients that differ by less are equal: the filters' floats are exact to 1e-5 here."""
_COSINES = np.sqrt(2 / _SIDE) * np.cos(
    np.pi * np.outer(np.arange(1, _FREQUENCIES + 1), 2 * np.arange(_SIDE) + 1) / (2 * _SIDE)
)


@dataclass(frozen=True)
class _AsDecoded(Scaling):
    """Pixels as the decoder leaves them, of a large JPEG fewer than there are."""

    def shrink_factor(self, stored: tuple[int, int], size: tuple[int, int]) -> int:
        return next((f for f in (8, 4, 2) if min(stored) >= _LEAST_SHRUNK * f), 1)

    def of_jpeg(self, pixels: np.ndarray, size: tuple[int, int], extent: tuple[float, float]) -> np.ndarray:
        return pixels

    def of(self, pixels: np.ndarray, size: tuple[int, int], extent: tuple[float, float]) -> np.ndarray:
        return pixels


class Pdq(AnnotateRows, name="pdq", version=1):
    """Hash what a picture looks like: pictures that look alike differ in at most 31 of 256 bits."""

    class Config(PixelBound):
        pass

    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return (MEDIA.name,)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (PDQ, PDQ_QUALITY)

    def setup(self) -> None:
        import cv2

        cv2.setNumThreads(1)
        prepare_decoders()
        bounds = Bounds(self.config.max_pixels, min_side=0, max_aspect_ratio=0.0, max_area=0)
        self._reading = Reading(bounds.check, _AsDecoded())
        hash_of(np.zeros((_SIDE, _SIDE), np.uint8))  # compiles, before any row's time runs

    def process_row(self, row: dict[str, Any]) -> Mapping[str, Any]:
        original = opened(row[MEDIA.name] or b"", self._reading)
        pixels = original.pixels(original.width, original.height)
        number, quality = hash_of(pixels, (original.height, original.width))
        return {PDQ.name: f"{number:064x}", PDQ_QUALITY.name: quality}


def hash_of(pixels: np.ndarray, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """The hash of a picture, 256 bits, and its quality, 0 to 100.

    Args:
        pixels: (H, W) gray or (H, W, 3) RGB, uint8.
        size: height and width of the picture that was shrunk to these pixels; None for theirs.
    """
    from corpusmith.operators.dedup.pdq_kernels import filtered

    height, width = size or pixels.shape[:2]
    if min(height, width) < _LEAST_SIDE:
        return 0, 0
    pixels = np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1))
    tents = (*_tents(height, pixels.shape[0]), *_tents(width, pixels.shape[1]))
    small = filtered(pixels, *tents)
    lowest = (_COSINES @ small @ _COSINES.T).ravel()
    median = np.partition(lowest, len(lowest) // 2 - 1)[len(lowest) // 2 - 1]
    bits = lowest - median > _NOISE
    return int.from_bytes(np.packbits(bits[::-1]).tobytes()), _quality(small)


def _quality(small: np.ndarray) -> int:
    """The published sum: steps from pixel to pixel as whole hundredths of the range, in units of 90."""
    steps = [np.trunc(np.diff(small, axis=axis) * 100 / 255) for axis in (0, 1)]
    return min(100, int(sum(np.abs(step).sum() for step in steps) // 90))


@lru_cache(1024)
def _tents(length: int, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """What two passes of the box and the sampling do along a side, as weights of its pixels after shrinking.

    A pixel stands for a stretch of the original's and gets the weights of all of that, so that neither the filter's
    width nor the places of the samples depend on how far the picture was shrunk.

    Args:
        length: pixels of the original's side.
        pixels: of the side as it is.

    Returns:
        (64, pixels) float32 weights; (64, 2): where each row's weights start and end.
    """
    if length == _SIDE:
        return np.eye(_SIDE, dtype=np.float32), np.arange(_SIDE)[:, None] + np.arange(2)
    window = (length + 2 * _SIDE - 1) // (2 * _SIDE)
    ahead = (window + 2) // 2
    sampled = ((np.arange(_SIDE) + 0.5) * length / _SIDE).astype(np.int64)
    places = np.arange(length)
    starts, ends = np.maximum(places - (window - ahead), 0), np.minimum(places + ahead, length)
    steps = np.zeros((_SIDE, length + 1))
    for row, sample in enumerate(sampled.tolist()):
        within = np.arange(int(starts[sample]), int(ends[sample]))
        weights = 1 / (len(within) * (ends - starts)[within])
        np.add.at(steps[row], starts[within], weights)
        np.add.at(steps[row], ends[within], -weights)
    sums = np.zeros((_SIDE, length + 1))
    sums[:, 1:] = np.cumsum(np.cumsum(steps[:, :-1], axis=1), axis=1)
    edges = np.arange(pixels + 1) * (length / pixels)
    folded = np.diff(np.stack([np.interp(edges, np.arange(length + 1), row) for row in sums]), axis=1)
    first, last = starts[starts[sampled]], ends[ends[sampled] - 1]
    bounds = np.stack([np.floor(first * pixels / length), np.ceil(last * pixels / length)], axis=1)
    return np.ascontiguousarray(folded, np.float32), bounds.astype(np.int64)
