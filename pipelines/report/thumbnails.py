"""Thumbnails: encoded pictures of any size become small WebP data URIs.

Pictures of dropped samples are exactly those that made trouble, so bytes that cannot be read are an expected case:
they become a thumbnail without a picture that says why. Every thumbnail has a bound in bytes, which bounds the page.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image, ImageOps

MAX_SIDE_PX = 160
MAX_BYTES = 5_000
MAX_SOURCE_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")

_LADDER = ((MAX_SIDE_PX, 72), (MAX_SIDE_PX, 50), (128, 40), (96, 30), (64, 20))
"""(longer side in pixels, WebP quality), tried in order until the bytes fit; noise needs the last rungs."""


@dataclass(frozen=True)
class Thumbnail:
    """A picture to put on the page.

    Args:
        uri: `data:` URI; empty where there is no picture.
        width, height: pixels.
        problem: why the bytes could not be shown; empty otherwise.
    """

    uri: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


def make_thumbnail(encoded: bytes | None) -> Thumbnail:
    """Shrink an encoded picture to at most 160 px and 5,000 bytes; never raises, whatever the bytes are."""
    if encoded is None:
        return Thumbnail()
    try:
        picture = _decode(encoded)
        return _encode(picture)
    except Exception as exception:  # noqa: BLE001 - decoders raise anything; it is told on the page
        return Thumbnail(problem=_in_words(exception))


def _decode(encoded: bytes) -> Image.Image:
    """First frame at thumbnail size, upright, on white."""
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        if image.width * image.height > MAX_SOURCE_PIXELS:
            raise ValueError(f"too large to show: {image.width} × {image.height} pixels")
        image.draft("RGB", (2 * MAX_SIDE_PX, 2 * MAX_SIDE_PX))
        small = _to_eight_bits(image) if image.mode.startswith("I") else image
        small.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
        upright = ImageOps.exif_transpose(small).convert("RGBA")
    paper = Image.new("RGB", upright.size, "white")
    paper.paste(upright, mask=upright.getchannel("A"))
    return paper


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """A 16-bit grey picture in 8 bits; `convert` alone would clip it to white."""
    return image.convert("I").point(lambda level: level * (1 / 257)).convert("L")


def _encode(picture: Image.Image) -> Thumbnail:
    for side, quality in _LADDER:
        picture.thumbnail((side, side))
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=quality)
        if buffer.tell() <= MAX_BYTES:
            text = base64.b64encode(buffer.getvalue()).decode("ascii")
            return Thumbnail(f"data:image/webp;base64,{text}", picture.width, picture.height)
    raise ValueError("too detailed to show")


def _in_words(exception: Exception) -> str:
    if isinstance(exception, Image.UnidentifiedImageError):
        return "not a picture"
    return (str(exception) or type(exception).__name__)[:80]
