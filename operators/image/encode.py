"""From pixels to encoded bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from corpusmith.schemas.fates import RowFailed

EncodedFormat = Literal["jpg", "png", "webp"]

FORMAT_OF: dict[EncodedFormat, str] = {"jpg": "jpeg", "png": "png", "webp": "webp"}
_LONGEST_SIDE: dict[EncodedFormat, int] = {"jpg": 65500, "png": 1_000_000, "webp": 16383}
"""What libjpeg, libpng and libwebp take."""


@dataclass(frozen=True)
class Encoding:
    """How pictures are written; `quality` 1 to 100 is for jpg and webp, `png_compression` 0 to 9 for png."""

    format: EncodedFormat
    quality: int
    png_compression: int

    def encoded(self, pixels: np.ndarray) -> bytes:
        """Encode (H, W) gray or (H, W, 3) RGB, uint8.

        Raises:
            RowFailed: "cannot encode".
        """
        side, bound = max(pixels.shape), _LONGEST_SIDE[self.format]
        if side > bound:
            raise RowFailed("cannot encode", f"longer side = {side} > {bound} of {self.format}")
        try:
            return self._jpeg(pixels) if self.format == "jpg" else self._by_opencv(pixels)
        except Exception as error:
            about = f"{self.format} of {pixels.shape[1]} × {pixels.shape[0]}: {type(error).__name__}: {error}"
            raise RowFailed("cannot encode", about[:200]) from error

    def _jpeg(self, pixels: np.ndarray) -> bytes:
        """A baseline JPEG; colour is halved in both directions, as OpenCV and img2dataset do."""
        import simplejpeg

        if pixels.ndim == 2:
            gray = np.ascontiguousarray(pixels[:, :, None])
            return simplejpeg.encode_jpeg(gray, self.quality, "GRAY", "Gray", fastdct=False)
        return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), self.quality, "RGB", "420", fastdct=False)

    def _by_opencv(self, pixels: np.ndarray) -> bytes:
        import cv2

        if self.format == "webp":
            options = [cv2.IMWRITE_WEBP_QUALITY, self.quality]
        else:
            options = [cv2.IMWRITE_PNG_COMPRESSION, self.png_compression]
        _, encoded = cv2.imencode(f".{self.format}", pixels if pixels.ndim == 2 else pixels[:, :, ::-1], options)
        return encoded.tobytes()
