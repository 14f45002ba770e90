"""Pixels of the demo: an SVG drawing or a cut of a photo, encoded as the name of the picture says.

System fonts are left out, so that a drawing has the same pixels on every machine.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

JPEG_QUALITY = 85


@dataclass(frozen=True)
class Drawing:
    """SVG markup, drawn `width_px` wide on `background` (a CSS colour; None leaves it transparent)."""

    markup: str
    width_px: int
    background: str | None = "#ffffff"


@dataclass(frozen=True)
class Cut:
    """A part of a photo, scaled down.

    Args:
        file: the photo.
        box: left, top, right, bottom as fractions of its sides.
        longer_side_px: the cut is shrunk to fit; never enlarged.
        quality: JPEG quality, 1 to 95.
    """

    file: Path
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    longer_side_px: int = 512
    quality: int = JPEG_QUALITY


@dataclass(frozen=True)
class Picture:
    """One picture of the demo with the texts that come with it.

    Args:
        key: path below the folder of pictures, with `.jpg` or `.png` as its end.
        look: how its pixels are made; a Path is a file that is passed on byte for byte.
        captions: its texts, None for a picture without one. Each makes a row.
        source: the package that it comes from.
        license: of the picture, as its package names it.
    """

    key: str
    look: Drawing | Cut | Path
    captions: tuple[str | None, ...]
    source: str
    license: str


def render(picture: Picture) -> bytes:
    """Encoded bytes of a picture.

    Raises:
        ValueError: the SVG cannot be drawn.
        OSError: the photo cannot be read.
    """
    if isinstance(picture.look, Path):
        return picture.look.read_bytes()
    if isinstance(picture.look, Cut):
        return _render_cut(picture.look, picture.key)
    return _render_drawing(picture.look, picture.key)


def write_picture(picture: Picture, folder: Path) -> str | None:
    """Render a picture into `folder`, visible only when whole.

    Returns:
        None, or why it could not be drawn.
    """
    try:
        encoded = render(picture)
    except (ValueError, OSError) as error:
        return str(error)
    target = folder / picture.key
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, encoded)
    return None


def write_atomically(target: Path, content: bytes) -> None:
    """Write a file that readers see whole or not at all."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(target)


def _render_drawing(drawing: Drawing, key: str) -> bytes:
    import resvg_py

    png = resvg_py.svg_to_bytes(
        svg_string=drawing.markup, width=drawing.width_px, background=drawing.background, skip_system_fonts=True
    )
    if key.endswith(".png"):
        return png
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        return _encode(image, key, JPEG_QUALITY)


def _render_cut(cut: Cut, key: str) -> bytes:
    from PIL import Image

    left, top, right, bottom = cut.box
    with Image.open(cut.file) as image:
        width, height = image.size
        part = image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))
    part.thumbnail((cut.longer_side_px, cut.longer_side_px))
    return _encode(part, key, cut.quality)


def _encode(image: Image.Image, key: str, quality: int) -> bytes:
    encoded = io.BytesIO()
    if key.endswith(".png"):
        image.save(encoded, "PNG")
    else:
        opaque = image if image.mode in ("L", "RGB") else image.convert("RGB")
        opaque.save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()
