"""Every format but JPEG, and JPEG in CMYK: through Pillow."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np

from corpusmith.operators.image.colour import eight_bits, on_white, srgb_converter
from corpusmith.operators.image.container import Container
from corpusmith.operators.image.exif import oriented, read_exif, upright
from corpusmith.operators.image.original import CheckSize, Reading, decoding_failure
from corpusmith.schemas.fates import RowFailed

if TYPE_CHECKING:
    from PIL import Image as PillowImage

_PNG_BIT_DEPTH = 24
_DEEP = ("I", "I;16", "I;16B", "I;16L", "F")
_CONVERTIBLE = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", *_DEEP)


class General:
    """A picture that Pillow opens; animations give their first frame.

    Args:
        is_inverted: Pillow takes CMYK for inverted though it is not.
    """

    def __init__(self, container: Container, found: str, reading: Reading, *, is_inverted: bool = False) -> None:
        self.format = found
        self._scaling = reading.scaling
        self._is_inverted = is_inverted
        self._image = _loaded(container.data, found, reading.check_size)
        info = self._image.info
        stated = container.exif if container.exif is not None else info.get("exif") or b""
        if found == "tiff":  # Pillow has turned it already
            stated = container.data
        exif = read_exif(stated, with_location=reading.with_location)
        self._orientation = 1 if found == "tiff" else exif.orientation
        self.exif = exif.as_json
        self.width, self.height = upright(*self._image.size, self._orientation)
        profile = container.icc_profile if container.icc_profile is not None else info.get("icc_profile") or b""
        self._to_srgb = srgb_converter(profile, _profile_mode(self._image.mode))
        animated = (
            getattr(self._image, "is_animated", False) if container.is_animated is None else container.is_animated
        )
        self.is_animated = bool(animated)
        self.is_plain = (
            self._image.mode in ("L", "RGB")
            and "transparency" not in info
            and not self.is_animated
            and (found != "png" or container.data[_PNG_BIT_DEPTH] == 8)
            and self._orientation == 1
            and self._to_srgb is None
        )

    def pixels(self, width: int, height: int) -> np.ndarray:
        size = upright(width, height, self._orientation)
        try:
            pixels = self._stored_pixels()
            extent = pixels.shape[1], pixels.shape[0]
            return oriented(self._scaling.of(pixels, size, extent), self._orientation)
        except RowFailed:
            raise
        except Exception as error:
            raise decoding_failure(error) from error

    def check(self) -> None:
        """Nothing is left to find out: the pixels were loaded with the header."""

    def _stored_pixels(self) -> np.ndarray:
        image = self._image
        if image.mode == "CMYK":
            return self._from_cmyk(np.asarray(image))
        if image.mode in _DEEP:
            pixels = eight_bits(np.asarray(image))
        else:
            is_gray = image.mode in ("1", "L", "LA", "La")
            pixels = np.asarray(on_white(image).convert("L" if is_gray else "RGB"))
        return self._to_srgb(pixels) if self._to_srgb is not None else pixels

    def _from_cmyk(self, inks: np.ndarray) -> np.ndarray:
        from PIL import Image

        inks = 255 - inks if self._is_inverted else inks
        return self._to_srgb(inks) if self._to_srgb else np.asarray(Image.fromarray(inks, "CMYK").convert("RGB"))


def _loaded(data: bytes, found: str, check_size: CheckSize) -> PillowImage.Image:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata and sizes, both of which are held against limits here
            image = Image.open(io.BytesIO(data), formats=[found])
            check_size(*image.size)
            if image.mode not in _CONVERTIBLE:
                raise RowFailed("unsupported image format", f"{found} in colour mode {image.mode}")
            image.load()
    except RowFailed:
        raise
    except Exception as error:
        raise decoding_failure(error) from error
    return image


def _profile_mode(mode: str) -> str:
    """What pixels of a Pillow mode are when a colour profile is applied to them."""
    return "CMYK" if mode == "CMYK" else "L" if mode in ("1", "L", "LA", "La", *_DEEP) else "RGB"
