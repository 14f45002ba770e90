"""The image step: hostile bytes in; an upright, resized, re-encoded picture of known size out.

Work is avoided where it can be: a picture is refused by its header, a JPEG is shrunk while it is decoded, and one that
need not change is passed on byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from corpusmith.operators.contract import AnnotateRows, Config
from corpusmith.operators.image.decode import Original, opened
from corpusmith.schemas.columns import MEDIA, Column
from corpusmith.schemas.fates import RowFailed

if TYPE_CHECKING:
    from types import ModuleType

_FORMAT_OF = {"jpg": "jpeg", "png": "png", "webp": "webp"}
_LONGEST_SIDE = {"jpg": 65500, "png": 2**31 - 1, "webp": 16383}
_WHITE = 255


class ImageConfig(Config):
    """Parameters of `image`."""

    size: int = Field(default=256, ge=1, le=16383, description="pixels: the target of `resize`")
    resize: Literal["no", "keep_ratio", "keep_ratio_largest", "center_crop", "border"] = Field(
        default="keep_ratio",
        description="keep_ratio: shorter side to `size`; keep_ratio_largest: longer side to `size`; center_crop: "
        "keep_ratio, then the middle square; border: keep_ratio_largest, then white up to a square; no: as it is",
    )
    only_if_bigger: bool = Field(
        default=True,
        description="leave a picture alone (no crop, no border either) whose side in question is at most `size`",
    )
    encode: Literal["jpg", "png", "webp"] = Field(default="jpg", description="format of the result")
    quality: int = Field(default=95, ge=1, le=100, description="quality of jpg and webp, 1 to 100")
    max_pixels: int = Field(default=100_000_000, ge=1, description="refuse pictures of more pixels, before decoding")
    min_side: int = Field(default=0, ge=0, description="pixels: refuse pictures with a shorter side below; 0: no bound")
    max_aspect_ratio: float = Field(default=0.0, ge=0.0, description="refuse a longer/shorter side above; 0: no bound")


class Image(AnnotateRows, name="image", version=1):
    """Decode, turn upright, resize and re-encode a picture; refuse what is none.

    Resize modes mean what they mean in img2dataset. A picture that already is as asked keeps its bytes. Results are
    8-bit gray or sRGB; transparency becomes white, animations give their first frame.
    """

    Config = ImageConfig

    @property
    def requires(self) -> tuple[str, ...]:
        return (MEDIA.name,)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (
            MEDIA,
            Column("width", pa.int64(), "width of the picture", "px"),
            Column("height", pa.int64(), "height of the picture", "px"),
            Column("original_width", pa.int64(), "width before resizing, upright", "px"),
            Column("original_height", pa.int64(), "height before resizing, upright", "px"),
            Column("image_format", pa.string(), "format before re-encoding: jpeg, png, gif, webp, bmp, tiff, avif"),
            Column("exif", pa.string(), "EXIF tags of the original as JSON, without its location; null if none"),
        )

    def setup(self) -> None:
        import cv2
        import PIL.Image

        cv2.setNumThreads(1)
        PIL.Image.MAX_IMAGE_PIXELS = None  # `max_pixels` takes its place, also above Pillow's own bound
        PIL.Image.init()
        self._cv2: ModuleType = cv2

    def process_row(self, row: dict[str, Any]) -> Mapping[str, Any]:
        original = opened(row[MEDIA.name] or b"", self._check_size)
        scaled_size, canvas_size = self._plan(original.width, original.height)
        media, width, height = self._made(row[MEDIA.name], original, scaled_size, canvas_size)
        return {
            "media": media,
            "width": width,
            "height": height,
            "original_width": original.width,
            "original_height": original.height,
            "image_format": original.format,
            "exif": original.exif,
        }

    @property
    def _config(self) -> ImageConfig:
        assert isinstance(self.config, ImageConfig)
        return self.config

    def _check_size(self, width: int, height: int) -> None:
        shorter, longer = sorted((width, height))
        bound = self._config.max_aspect_ratio
        if width * height > self._config.max_pixels:
            raise RowFailed("too many pixels", f"{width} × {height} > {self._config.max_pixels}")
        if shorter < max(self._config.min_side, 1):
            raise RowFailed("too small", f"shorter side = {shorter} < {self._config.min_side}")
        if bound and longer > bound * shorter:
            raise RowFailed("aspect ratio", f"{longer / shorter:.3f} > {bound:g}")

    def _plan(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Size (width, height) to scale to, and size of the result, which is cropped or bordered to that."""
        config = self._config
        if config.resize == "no":
            return (width, height), (width, height)
        by_shorter = config.resize in ("keep_ratio", "center_crop")
        side = min(width, height) if by_shorter else max(width, height)
        if config.only_if_bigger and side <= config.size:
            return (width, height), (width, height)
        scaled = max(round(width * config.size / side), 1), max(round(height * config.size / side), 1)
        if scaled[0] * scaled[1] > config.max_pixels:
            raise RowFailed("too many pixels", f"{scaled[0]} × {scaled[1]} after resizing > {config.max_pixels}")
        is_square = config.resize in ("center_crop", "border")
        return scaled, (config.size, config.size) if is_square else scaled

    def _made(
        self, data: bytes, original: Original, scaled_size: tuple[int, int], canvas_size: tuple[int, int]
    ) -> tuple[bytes, int, int]:
        is_same_size = (original.width, original.height) == scaled_size == canvas_size
        if is_same_size and original.is_plain and original.format == _FORMAT_OF[self._config.encode]:
            original.check()
            return data, original.width, original.height
        pixels = original.pixels(*scaled_size)
        if canvas_size != scaled_size:
            pixels = _cropped(pixels, canvas_size) if self._config.resize == "center_crop" else self._bordered(pixels)
        return self._encoded(pixels), pixels.shape[1], pixels.shape[0]

    def _bordered(self, pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        size = self._config.size
        canvas = np.full((size, size, *pixels.shape[2:]), _WHITE, np.uint8)
        top, left = (size - height) // 2, (size - width) // 2
        canvas[top : top + height, left : left + width] = pixels
        return canvas

    def _encoded(self, pixels: np.ndarray) -> bytes:
        encode, quality = self._config.encode, self._config.quality
        side, bound = max(pixels.shape), _LONGEST_SIDE[self._config.encode]
        if side > bound:
            raise RowFailed("cannot encode", f"longer side = {side} > {bound} of {encode}")
        if encode == "jpg":
            return _jpeg(pixels, quality)
        options = [self._cv2.IMWRITE_WEBP_QUALITY, quality] if encode == "webp" else []
        done, encoded = self._cv2.imencode(f".{encode}", pixels if pixels.ndim == 2 else pixels[:, :, ::-1], options)
        if not done:
            raise RowFailed("cannot encode", f"{encode} of {pixels.shape[1]} × {pixels.shape[0]}")
        return encoded.tobytes()


def _cropped(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    width, height = size
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """A baseline JPEG; colour is halved in both directions, as OpenCV and img2dataset do."""
    import simplejpeg

    gray = pixels.ndim == 2
    pixels = np.ascontiguousarray(pixels[:, :, None] if gray else pixels)
    sampling = {"colorspace": "GRAY", "colorsubsampling": "Gray"} if gray else {"colorsubsampling": "420"}
    return simplejpeg.encode_jpeg(pixels, quality, fastdct=False, **sampling)
