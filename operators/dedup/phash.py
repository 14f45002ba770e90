"""phash: what a picture looks like, in 64 bits.

The DCT hash of imagehash and of COYO's `image_phash`: the picture in gray at 32 × 32 by Lanczos, its two-dimensional
DCT-II without normalisation, the 8 × 8 lowest frequencies, a bit each for those above their median, row by row. (The
method: C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1; that text
normalises and leaves the constant term out, imagehash does neither, and its bits are what data sets publish.)

Two differences. A JPEG is shrunk while it is decoded, and every picture passes through 64 × 64, so that most pixels of
a large one are never made: about one picture in eight then has two bits that imagehash would have otherwise. And
pictures are hashed as people see them: upright, in sRGB, on white where they are transparent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from corpusmith.operators.contract import AnnotateRows
from corpusmith.operators.image.decode import PixelBound, Reading, opened, prepare_decoders
from corpusmith.operators.image.resample import Scaling
from corpusmith.operators.image.sizes import Bounds
from corpusmith.schemas.columns import MEDIA, Column

PHASH = Column("phash", pa.string(), "64-bit DCT hash of what the picture looks like, 16 hex digits")

_SIDE = 32
_DECODED_SIDE = 64
_FREQUENCIES = 8
_NOISE = 1e-6
"""Coefficients that differ by less are equal: floats are exact to 1e-9 here, and a flat picture's are all 0."""
_COSINES = np.cos(np.pi * np.outer(np.arange(_FREQUENCIES), 2 * np.arange(_SIDE) + 1) / (2 * _SIDE))


class Phash(AnnotateRows, name="phash", version=1):
    """Hash what a picture looks like: pictures that look alike differ in few of 64 bits."""

    class Config(PixelBound):
        pass

    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return (MEDIA.name,)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (PHASH,)

    def setup(self) -> None:
        import cv2

        cv2.setNumThreads(1)
        prepare_decoders()
        bounds = Bounds(self.config.max_pixels, min_side=0, max_aspect_ratio=0.0, max_area=0)
        self._reading = Reading(bounds.check, Scaling(downscale="lanczos_antialias"))

    def process_row(self, row: dict[str, Any]) -> Mapping[str, Any]:
        original = opened(row[MEDIA.name] or b"", self._reading)
        size = min(original.width, _DECODED_SIDE), min(original.height, _DECODED_SIDE)
        return {PHASH.name: f"{hash_of(_gray(original.pixels(*size))):016x}"}


def hash_of(gray: np.ndarray) -> int:
    """The hash of a picture, 64 bits, the lowest frequency in the highest bit.

    Args:
        gray: (H, W), uint8; scaled to 32 × 32 by Lanczos.
    """
    from PIL import Image

    if gray.shape != (_SIDE, _SIDE):
        gray = np.asarray(Image.fromarray(gray).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))
    lowest = (_COSINES @ gray.astype(np.float64) @ _COSINES.T).ravel()
    bits = lowest - np.median(lowest) > _NOISE
    return int.from_bytes(np.packbits(bits).tobytes())


def _gray(pixels: np.ndarray) -> np.ndarray:
    import cv2

    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
