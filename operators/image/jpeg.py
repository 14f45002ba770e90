"""Gray and colour JPEG, most of the web: straight to libjpeg-turbo, which can shrink by up to 8 while it decodes."""

from __future__ import annotations

import io
import math

import numpy as np

from corpusmith.operators.image.colour import srgb_converter
from corpusmith.operators.image.exif import oriented, read_exif, upright
from corpusmith.operators.image.jpeg_header import JpegHeader, without_metadata
from corpusmith.operators.image.original import Reading, decoding_failure
from corpusmith.schemas.fates import RowFailed

_BEHIND_THE_PIXELS = "extraneous bytes before marker 0xd9"
_BROKEN_PROFILE = "ICC"
"""What libjpeg warns of though every pixel is there, or may be."""


class Jpeg:
    """An Original; its header has been held against the limits."""

    format = "jpeg"
    is_animated = False

    def __init__(self, data: bytes, header: JpegHeader, reading: Reading) -> None:
        self._data = data
        self._header = header
        self._scaling = reading.scaling
        exif = read_exif(header.exif, with_location=reading.with_location)
        self._orientation = exif.orientation
        self.exif = exif.as_json
        self.width, self.height = upright(header.width, header.height, exif.orientation)
        self._to_srgb = srgb_converter(header.icc_profile, "L" if header.components == 1 else "RGB")
        self.is_plain = exif.orientation == 1 and self._to_srgb is None

    def pixels(self, width: int, height: int) -> np.ndarray:
        size = upright(width, height, self._orientation)
        factor = self._scaling.shrink_factor((self._header.width, self._header.height), size)
        extent = (self._header.width / factor, self._header.height / factor)
        pixels = self._scaling.of_jpeg(self._decoded(factor), size, extent)
        if self._to_srgb is not None:
            pixels = self._to_srgb(pixels)
        return oriented(pixels, self._orientation)

    def check(self) -> None:
        self._decoded(factor=8)

    def _decoded(self, factor: int) -> np.ndarray:
        import simplejpeg

        try:
            stored = simplejpeg.decode_jpeg_header(self._data, strict=False)[1::-1]
            if stored != (self._header.width, self._header.height):
                raise RowFailed(
                    "corrupt image", f"JPEG of {self._header.width} × {self._header.height} and of {stored}"
                )
            try:
                return self._decoded_by_turbo(self._data, factor)
            except ValueError as error:
                if _BEHIND_THE_PIXELS in str(error):
                    return self._decoded_by_turbo(self._data, factor, is_strict=False)
                if _BROKEN_PROFILE in str(error):
                    return self._decoded_by_turbo(without_metadata(self._data, self._header), factor)
                raise
        except (ValueError, KeyError, MemoryError) as error:
            if isinstance(error, KeyError) or "subsampling" in str(error):  # a sampling that has no name
                return self._decoded_by_pillow(factor)
            raise decoding_failure(error) from error

    def _decoded_by_turbo(self, data: bytes, factor: int, *, is_strict: bool = True) -> np.ndarray:
        import simplejpeg

        pixels = simplejpeg.decode_jpeg(
            data,
            "GRAY" if self._header.components == 1 else "RGB",
            min_width=math.ceil(self._header.width / factor),
            min_height=math.ceil(self._header.height / factor),
            strict=is_strict,
        )
        return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels

    def _decoded_by_pillow(self, factor: int) -> np.ndarray:
        """For chroma sampling that libjpeg-turbo's simple interface does not know."""
        from PIL import Image

        try:
            image = Image.open(io.BytesIO(without_metadata(self._data, self._header)), formats=["jpeg"])
            return np.asarray(image.convert("L" if self._header.components == 1 else "RGB").reduce(factor))
        except Exception as error:
            raise decoding_failure(error) from error
