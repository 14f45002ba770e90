"""To 8-bit sRGB or gray: colour profiles, deep values, transparency."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image as PillowImage

MAX_PROFILE_BYTES = 2**21
"""Larger profiles are ignored; those of printing presses, the largest in use, have about half of that."""

_MODES = {"RGB ": "RGB", "CMYK": "CMYK", "GRAY": "L"}

Conversion = Callable[[np.ndarray], np.ndarray]


def srgb_converter(profile: bytes, mode: str) -> Conversion | None:
    """How to turn pixels of a colour profile (ICC.1) into sRGB.

    Args:
        profile: the encoded profile, or b"".
        mode: what the pixels are: "RGB", "CMYK" or "L". Gray pixels stay gray: (H, W) in and out.

    Returns:
        None if the pixels are sRGB already, or if the profile is broken or meant for other pixels.
    """
    if not profile or len(profile) > MAX_PROFILE_BYTES:
        return None
    return _converter(profile, mode)


@lru_cache(maxsize=32)
def _converter(profile: bytes, mode: str) -> Conversion | None:
    from PIL import Image, ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        about: Any = source.profile
        if _MODES.get(about.xcolor_space) != mode or "srgb" in (about.profile_description or "").lower():
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None

    def converted(pixels: np.ndarray) -> np.ndarray:
        result = ImageCms.applyTransform(Image.fromarray(pixels, mode), transform)
        assert result is not None
        return np.asarray(result)

    if mode != "L":
        return converted
    tones = np.ascontiguousarray(converted(np.arange(256, dtype=np.uint8)[None])[0, :, 1])
    return lambda pixels: tones[pixels]


def on_white(image: PillowImage.Image) -> PillowImage.Image:
    """The picture with what is transparent made white."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def eight_bits(values: np.ndarray) -> np.ndarray:
    """Deep gray values as 8 bits: integers span 16 bits (deeper ones are clipped to that), floats span 0 to 1."""
    if values.dtype.kind == "f":
        return np.rint(np.nan_to_num(values, nan=0.0).clip(0.0, 1.0) * 255.0).astype(np.uint8)
    tones = ((np.arange(65536) + 128) // 257).astype(np.uint8)
    return tones[values if values.dtype.itemsize == 2 else values.clip(0, 65535).astype(np.uint16)]
