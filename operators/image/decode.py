"""From encoded bytes to upright 8-bit sRGB or gray pixels.

JPEG, most of the web, goes straight to libjpeg-turbo, which can shrink by up to 8 while it decodes. Everything else,
and the rare kinds of JPEG (CMYK, odd chroma sampling), goes through Pillow. Nothing is decoded before its header has
been held against the limits.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from corpusmith.operators.image.sniff import JpegHeader, image_format, jpeg_header
from corpusmith.schemas.fates import RowFailed

if TYPE_CHECKING:
    from PIL import Image as PillowImage

ORIENTATION_TAG = 0x0112
_EXIF_SUB_IFD = 0x8769
_MAX_EXIF_TEXT = 200
_DECODABLE = ("jpeg", "png", "gif", "webp", "bmp", "tiff", "avif")

CheckSize = Callable[[int, int], None]
"""Given the width and height of a header, raises RowFailed if the picture shall not be decoded."""


class Original(Protocol):
    """A picture whose header has been read and accepted.

    `width` and `height` are upright pixels. `is_plain` says that nothing about colour or orientation keeps its bytes
    from being used as they are.
    """

    format: str
    width: int
    height: int
    exif: str | None
    is_plain: bool

    def pixels(self, min_width: int, min_height: int) -> np.ndarray:
        """Upright pixels: (H, W) gray or (H, W, 3) RGB, uint8; smaller than the original but at least as asked.

        Raises:
            RowFailed: "truncated image" or "corrupt image".
        """
        ...


def opened(data: bytes, check_size: CheckSize) -> Original:
    """Read the header of a picture.

    Raises:
        RowFailed: "not an image", "unsupported image format", "truncated image", "corrupt image", or what
            `check_size` raises.
    """
    found = image_format(data)
    if found is None:
        raise RowFailed("not an image", f"{len(data)} bytes that start with {data[:8].hex() or 'nothing'}")
    if found not in _DECODABLE:
        raise RowFailed("unsupported image format", found)
    if found == "jpeg":
        header = jpeg_header(data)
        check_size(header.width, header.height)
        if header.components in (1, 3):
            return _Jpeg(data, header)
    return _Other(data, found, check_size)


class _Jpeg:
    format = "jpeg"

    def __init__(self, data: bytes, header: JpegHeader) -> None:
        self._data = data
        self._header = header
        exif = _read_exif(header.exif)
        self._orientation = exif.orientation
        self.exif = exif.as_json
        self.width, self.height = _upright(header.width, header.height, exif.orientation)
        self._to_srgb = srgb_converter(header.icc_profile) if header.components == 3 else None
        self.is_plain = exif.orientation == 1 and self._to_srgb is None

    def pixels(self, min_width: int, min_height: int) -> np.ndarray:
        min_width, min_height = _upright(min_width, min_height, self._orientation)
        pixels = self._decoded(min_width, min_height)
        if pixels.shape[2] == 1:
            pixels = pixels[:, :, 0]
        if self._to_srgb is not None:
            pixels = self._to_srgb(pixels)
        return oriented(pixels, self._orientation)

    def _decoded(self, min_width: int, min_height: int) -> np.ndarray:
        import simplejpeg

        size = {"min_width": min_width, "min_height": min_height}
        colorspace = "GRAY" if self._header.components == 1 else "RGB"
        try:
            return simplejpeg.decode_jpeg(self._data, colorspace, **size)
        except ValueError as error:
            if "subsampling" in str(error):
                pixels = _Other(self._data, "jpeg", lambda width, height: None).raw_pixels()
                return pixels[:, :, None] if pixels.ndim == 2 else pixels
            if not _is_harmless(str(error)):
                raise _failure(error) from error
        try:
            return simplejpeg.decode_jpeg(self._data, colorspace, strict=False, **size)
        except ValueError as error:
            raise _failure(error) from error


def _is_harmless(warning: str) -> bool:
    """Whether libjpeg's complaint leaves the pixels whole, such as stray bytes between segments."""
    return "extraneous bytes" in warning or not warning.startswith(("Premature end", "Corrupt JPEG data"))


class _Other:
    """A picture that Pillow opens; animations give their first frame."""

    def __init__(self, data: bytes, found: str, check_size: CheckSize) -> None:
        from PIL import Image

        self.format = found
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about metadata and sizes, both of which are held against limits here
                self._image = Image.open(io.BytesIO(data), formats=[found])
                self.width, self.height = self._image.size
                check_size(self.width, self.height)
                self._image.load()
                exif = _described(self._image.getexif())
        except RowFailed:
            raise
        except Exception as error:
            raise _failure(error) from error
        self._orientation = exif.orientation
        self.exif = exif.as_json
        self.width, self.height = _upright(self.width, self.height, exif.orientation)
        profile = self._image.info.get("icc_profile") or b""
        self._to_srgb = srgb_converter(profile) if self._image.mode not in ("1", "L", "LA", "I", "I;16", "F") else None
        is_simple = self._image.mode in ("L", "RGB") and "transparency" not in self._image.info
        is_still = getattr(self._image, "n_frames", 1) == 1
        self.is_plain = is_simple and is_still and exif.orientation == 1 and self._to_srgb is None

    def pixels(self, min_width: int, min_height: int) -> np.ndarray:
        del min_width, min_height
        try:
            pixels = self.raw_pixels()
        except Exception as error:
            raise _failure(error) from error
        return oriented(pixels, self._orientation)

    def raw_pixels(self) -> np.ndarray:
        """Pixels as stored: not yet upright."""
        image = self._image
        if image.mode == "CMYK" and self._to_srgb is not None:
            return self._to_srgb(np.asarray(image))
        if image.mode == "L" or image.mode == "1":
            return np.asarray(image.convert("L"))
        if image.mode.startswith("I") or image.mode == "F":
            return _eight_bits(np.asarray(image))
        gray = image.mode == "LA"
        pixels = np.asarray(_on_white(image).convert("L" if gray else "RGB"))
        return self._to_srgb(pixels) if self._to_srgb is not None and not gray else pixels


def _on_white(image: PillowImage.Image) -> PillowImage.Image:
    """The picture with what is transparent made white."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Deep gray values as 8 bits: integers span 16 bits (deeper ones are clipped to that), floats span 0 to 1."""
    if values.dtype.kind == "f":
        return np.rint(np.nan_to_num(values, nan=0.0).clip(0.0, 1.0) * 255.0).astype(np.uint8)
    wide = values.astype(np.int64).clip(0, 65535)
    return ((wide + 128) // 257).astype(np.uint8)


def _failure(error: Exception) -> RowFailed:
    text = f"{type(error).__name__}: {error}"[:200]
    is_short = any(
        word in text.lower() for word in ("truncated", "premature end of jpeg", "unexpected end", "eoferror")
    )
    return RowFailed("truncated image" if is_short else "corrupt image", text)


def _upright(width: int, height: int, orientation: int) -> tuple[int, int]:
    return (height, width) if orientation >= 5 else (width, height)


def oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels as they are meant to be seen, by the EXIF orientation 1 to 8 (CIPA DC-008, 4.6.4 A)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


@dataclass(frozen=True)
class _Exif:
    orientation: int = 1
    as_json: str | None = None


def _read_exif(raw: bytes) -> _Exif:
    """EXIF of a JPEG; what cannot be read counts as absent, for it says nothing about the pixels."""
    if not raw:
        return _Exif()
    from PIL import Image

    exif = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exif.load(raw)
            return _described(exif)
    except Exception:  # noqa: BLE001 (hostile bytes raise anything; the docstring says what becomes of them)
        return _Exif()


def _described(exif: PillowImage.Exif) -> _Exif:
    """Orientation, and tags by name. Where the picture was taken and binary notes of the maker are left out."""
    from PIL import ExifTags

    orientation = exif.get(ORIENTATION_TAG)
    tags = {**exif, **exif.get_ifd(_EXIF_SUB_IFD)}
    named = {ExifTags.TAGS[tag]: _json_value(value) for tag, value in tags.items() if tag in ExifTags.TAGS}
    shown = {
        name: value for name, value in named.items() if value is not None and name not in ("ExifOffset", "GPSInfo")
    }
    as_json = json.dumps(shown, sort_keys=True) if shown else None
    is_known = isinstance(orientation, int) and 1 <= orientation <= 8
    return _Exif(orientation if is_known and orientation is not None else 1, as_json)


def _json_value(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "").strip()[:_MAX_EXIF_TEXT] or None
    if isinstance(value, int):
        return value
    if isinstance(value, tuple):
        parts = [_json_value(part) for part in value[:8]]
        return parts if None not in parts else None
    if isinstance(value, bytes) or not hasattr(value, "__float__"):
        return None
    number = float(value)
    return round(number, 6) if math.isfinite(number) else None


@lru_cache(maxsize=64)
def srgb_converter(profile: bytes) -> Callable[[np.ndarray], np.ndarray] | None:
    """How to turn pixels of a colour profile (ICC.1) into sRGB; None where they are sRGB or the profile is of no use."""
    if not profile:
        return None
    from PIL import Image, ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = {"RGB ": "RGB", "CMYK": "CMYK"}.get(source.profile.xcolor_space)
        if mode is None or "srgb" in (source.profile.profile_description or "").lower():
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None

    def to_srgb(pixels: np.ndarray) -> np.ndarray:
        if pixels.ndim != 3 or pixels.shape[2] != len(mode):
            return pixels
        converted = ImageCms.applyTransform(Image.fromarray(pixels, mode), transform)
        assert converted is not None
        return np.asarray(converted)

    return to_srgb
