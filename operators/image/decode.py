"""From encoded bytes to upright 8-bit sRGB or gray pixels: which decoder gets them, and what it needs.

Nothing is decoded before its header has been held against the limits.
"""

from __future__ import annotations

from importlib.util import find_spec

from pydantic import Field

from corpusmith.operators.contract import Config
from corpusmith.operators.image.container import Container, walked
from corpusmith.operators.image.general import General
from corpusmith.operators.image.jpeg import Jpeg
from corpusmith.operators.image.jpeg_header import jpeg_header, without_metadata
from corpusmith.operators.image.original import Original, Reading
from corpusmith.operators.image.sniff import image_format
from corpusmith.operators.media_type import media_type
from corpusmith.schemas.fates import RowFailed

_KNOWN_KINDS = ("image/svg+xml", "image/jxl", "image/x-icon")


class PixelBound(Config):
    """Parameters of a step that looks at pictures and only has to refuse bombs."""

    max_pixels: int = Field(default=100_000_000, ge=1, description="refuse pictures of more pixels, before decoding")


def prepare_decoders() -> None:
    """Bring Pillow into the state that opened() counts on: its plug-ins, no threads, no bound of its own on sizes."""
    import PIL.Image
    from PIL import AvifImagePlugin

    PIL.Image.MAX_IMAGE_PIXELS = None  # `check_size` takes its place, also above Pillow's own bound
    PIL.Image.init()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    if _has_heif():
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


def _has_heif() -> bool:
    return find_spec("pillow_heif") is not None


def opened(data: bytes, reading: Reading) -> Original:
    """Read the header of a picture.

    Raises:
        RowFailed: "not an image", "unsupported image format", "truncated image", "corrupt image", or what
            `check_size` raises.
    """
    found = image_format(data)
    if found is None:
        raise _no_image(data)
    if found == "heif" and not _has_heif():
        raise RowFailed("unsupported image format", "heif: install corpusmith[heic] to read it")
    if found == "jpeg":
        header = jpeg_header(data)
        reading.check_size(header.width, header.height)
        if header.components in (1, 3):
            return Jpeg(data, header, reading)
        plain = Container(without_metadata(data, header), None, header.icc_profile, header.exif, False)
        return General(plain, "jpeg", reading, is_inverted=not header.is_adobe)
    container = walked(data, found)
    if container.size is not None:
        reading.check_size(*container.size)
    return General(container, found, reading)


def _no_image(data: bytes) -> RowFailed:
    kind = media_type(data)
    if kind in _KNOWN_KINDS:
        return RowFailed("unsupported image format", kind)
    about = kind or f"bytes that start with {data[:8].hex() or 'nothing'}"
    return RowFailed("not an image", f"{about}, {len(data)} bytes")
