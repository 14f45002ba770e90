"""Real photos, parts of them, and how far hashes are apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simplejpeg
import skimage.data
import sklearn.datasets


def jpeg(pixels: np.ndarray, quality: int = 92) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, colorsubsampling="420")


def all_photos() -> list[np.ndarray]:
    """Five photos, (H, W, 3)."""
    files = [Path(sklearn.datasets.__file__).parent / "images" / name for name in ("china.jpg", "flower.jpg")]
    shown = [simplejpeg.decode_jpeg(path.read_bytes()) for path in files]
    return [*shown, skimage.data.coffee(), skimage.data.astronaut(), skimage.data.chelsea()]


def crops(photos: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """Parts of the photos that stand for so many photos."""
    drawn = np.random.default_rng(0)
    made = []
    for i in range(count):
        photo = photos[i % len(photos)]
        height, width = (int(drawn.integers(side // 3, side)) for side in photo.shape[:2])
        top, left = drawn.integers(0, photo.shape[0] - height), drawn.integers(0, photo.shape[1] - width)
        made.append(photo[top : top + height, left : left + width])
    return made


def distances(pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Bits in which the hashes of each pair differ."""
    return np.array([(a ^ b).bit_count() for a, b in pairs])
