"""From encoded bytes to upright 8-bit sRGB or gray pixels.

JPEG, most of the web, goes straight to libjpeg-turbo, which can shrink by up to 8 while it decodes. Everything else,
and the rare kinds of JPEG (CMYK, odd chroma sampling), goes through Pillow. Nothing is decoded before its header has
been held against the limits.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from corpusmith.operators.image.exif import oriented, read_exif, upright
from corpusmith.operators.image.sniff import JpegHeader, image_format, jpeg_header
from corpusmith.schemas.fates import RowFailed

if TYPE_CHECKING:
    from PIL import Image as PillowImage

_OVERSAMPLING = 1.5
"""How much larger than asked a shrunk JPEG stays: with less, the two steps together blur more than one step would."""
_PNG_BIT_DEPTH = 24
_SIGNS_OF_TRUNCATION = ("truncated", "premature end of jpeg", "unexpected end", "eoferror")
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

    def pixels(self, width: int, height: int) -> np.ndarray:
        """The picture at a size: upright, (H, W) gray or (H, W, 3) RGB, uint8.

        Raises:
            RowFailed: "truncated image" or "corrupt image".
        """
        ...

    def check(self) -> None:
        """Find out whether the picture decodes.

        Raises:
            RowFailed: as pixels().
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
        exif = read_exif(self._exif)
        self._orientation = exif.orientation
        self.exif = exif.as_json
        self.width, self.height = upright(header.width, header.height, exif.orientation)
        self._to_srgb = srgb_converter(header.icc_profile) if header.components == 3 else None
        self.is_plain = exif.orientation == 1 and self._to_srgb is None

    def _exif(self) -> PillowImage.Exif:
        from PIL import Image

        exif = Image.Exif()
        if self._header.exif:
            exif.load(self._header.exif)
        return exif

    def pixels(self, width: int, height: int) -> np.ndarray:
        size = upright(width, height, self._orientation)
        factor = self._shrink_factor(*size)
        pixels = resized(self._decoded(factor), size, (self._header.width / factor, self._header.height / factor))
        if self._to_srgb is not None:
            pixels = self._to_srgb(pixels)
        return oriented(pixels, self._orientation)

    def check(self) -> None:
        self._decoded(factor=8)

    def _decoded(self, factor: int) -> np.ndarray:
        import simplejpeg

        try:
            pixels = simplejpeg.decode_jpeg(
                self._data,
                "GRAY" if self._header.components == 1 else "RGB",
                min_width=math.ceil(self._header.width / factor),
                min_height=math.ceil(self._header.height / factor),
            )
        except ValueError as error:
            if "subsampling" not in str(error):
                raise _failure(error) from error
            return self._decoded_by_pillow(factor)
        return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels

    def _shrink_factor(self, width: int, height: int) -> int:
        """By how much to shrink while decoding; powers of two alone, for the others are slow and misplace pixels."""
        for factor in (8, 4, 2):
            least = factor * _OVERSAMPLING
            if self._header.width >= width * least and self._header.height >= height * least:
                return factor
        return 1

    def _decoded_by_pillow(self, factor: int) -> np.ndarray:
        """For chroma sampling that libjpeg-turbo's simple interface does not know."""
        from PIL import Image

        try:
            image = Image.open(io.BytesIO(self._data), formats=["jpeg"])
            return np.asarray(image.convert("L" if self._header.components == 1 else "RGB").reduce(factor))
        except Exception as error:
            raise _failure(error) from error


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
        except RowFailed:
            raise
        except Exception as error:
            raise _failure(error) from error
        exif = read_exif(self._image.getexif)
        self._orientation = exif.orientation
        self.exif = exif.as_json
        self.width, self.height = upright(self.width, self.height, exif.orientation)
        profile = self._image.info.get("icc_profile") or b""
        self._to_srgb = srgb_converter(profile) if self._image.mode not in ("1", "L", "LA", "I", "I;16", "F") else None
        self.is_plain = (
            self._image.mode in ("L", "RGB")
            and "transparency" not in self._image.info
            and getattr(self._image, "n_frames", 1) == 1
            and (found != "png" or data[_PNG_BIT_DEPTH] == 8)
            and exif.orientation == 1
            and self._to_srgb is None
        )

    def pixels(self, width: int, height: int) -> np.ndarray:
        try:
            pixels = self._stored_pixels()
        except Exception as error:
            raise _failure(error) from error
        return oriented(resized(pixels, upright(width, height, self._orientation)), self._orientation)

    def check(self) -> None:
        """Nothing is left to find out: the pixels were loaded with the header."""

    def _stored_pixels(self) -> np.ndarray:
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


def resized(pixels: np.ndarray, size: tuple[int, int], extent: tuple[float, float] | None = None) -> np.ndarray:
    """Pixels at another size: area averages for less, cubic interpolation for more.

    Args:
        pixels: (H, W) or (H, W, 3), uint8.
        size: the wanted width and height.
        extent: how much of the width and height is picture; shrunk JPEGs end within their last column and row.
    """
    import cv2

    height, width = pixels.shape[:2]
    extent_width, extent_height = extent or (width, height)
    if (width, height) == size == (extent_width, extent_height):
        return pixels
    x_scale, y_scale = size[0] / extent_width, size[1] / extent_height
    interpolation = cv2.INTER_AREA if min(x_scale, y_scale) < 1 else cv2.INTER_CUBIC
    if (width, height) == (extent_width, extent_height):
        return cv2.resize(pixels, size, interpolation=interpolation)
    scaled = cv2.resize(pixels, None, fx=x_scale, fy=y_scale, interpolation=interpolation)
    return scaled[: size[1], : size[0]]


def _failure(error: Exception) -> RowFailed:
    text = f"{type(error).__name__}: {error}"[:200]
    is_short = any(sign in text.lower() for sign in _SIGNS_OF_TRUNCATION)
    return RowFailed("truncated image" if is_short else "corrupt image", text)


@lru_cache(maxsize=64)
def srgb_converter(profile: bytes) -> Callable[[np.ndarray], np.ndarray] | None:
    """How to turn pixels of a colour profile (ICC.1) into sRGB; None if they are that, or the profile is unusable."""
    if not profile:
        return None
    from PIL import Image, ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        about: Any = source.profile
        mode = {"RGB ": "RGB", "CMYK": "CMYK"}.get(about.xcolor_space)
        if mode is None or "srgb" in (about.profile_description or "").lower():
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
