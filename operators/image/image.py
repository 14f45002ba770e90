"""The image step: hostile bytes in; an upright, resized, re-encoded picture of known size out.

Work is avoided where it can be: a picture is refused by its header, a JPEG is shrunk while it is decoded, and one that
need not change is passed on byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator

from corpusmith.operators.contract import AnnotateRows, Config
from corpusmith.operators.image.blur import Box, blurred, boxes_of
from corpusmith.operators.image.decode import opened, prepare_decoders
from corpusmith.operators.image.encode import FORMAT_OF, EncodedFormat, Encoding
from corpusmith.operators.image.original import Original, Reading
from corpusmith.operators.image.resample import Downscale, Fidelity, Scaling, Upscale
from corpusmith.operators.image.sizes import Bounds, ResizeMode, Resizing, fitted
from corpusmith.schemas.columns import MEDIA, Column
from corpusmith.schemas.fates import RowFailed


class ImageConfig(Config):
    """Parameters of `image`."""

    size: int = Field(default=256, ge=1, le=16383, description="pixels: the target of `resize`")
    resize: ResizeMode = Field(
        default="keep_ratio",
        description="keep_ratio: shorter side to `size`; keep_ratio_largest: longer side to `size`; center_crop: "
        "keep_ratio, then the middle square; border: keep_ratio_largest, then white up to a square; no: as it is",
    )
    only_if_bigger: bool = Field(
        default=True,
        description="leave a picture alone (no crop, no border either) whose side in question is at most `size`",
    )
    downscale: Downscale = Field(
        default="area",
        description="filter for smaller results; lanczos_antialias is the finest and slowest, the others are OpenCV's, "
        "of which only area averages all pixels",
    )
    upscale: Upscale = Field(default="lanczos", description="filter for larger results")
    fidelity: Fidelity = Field(
        default="fast",
        description="fast: a JPEG is shrunk by 2, 4 or 8 while it is decoded and a short filter does the rest of area; "
        "fine: every pixel is decoded and filtered once, as OpenCV does, at up to five times the cost",
    )
    encode: EncodedFormat = Field(default="jpg", description="format of the result")
    quality: int = Field(default=95, ge=1, le=100, description="quality of jpg and webp, 1 to 100")
    png_compression: int = Field(
        default=1, ge=0, le=9, description="effort for png, 0 to 9: 1 is quick, 9 saves a few percent at 10 times"
    )
    reencode: Literal["when_needed", "always", "never"] = Field(
        default="when_needed",
        description="when_needed: a picture that already is as asked keeps its bytes; never: all keep their bytes, "
        "which are only checked and measured",
    )
    max_pixels: int = Field(
        default=100_000_000,
        ge=1,
        description="refuse pictures of more pixels, before decoding; each takes up to 25 bytes of memory",
    )
    min_side: int = Field(default=0, ge=0, description="pixels: refuse pictures with a shorter side below; 0: no bound")
    max_aspect_ratio: float = Field(default=0.0, ge=0.0, description="refuse a longer/shorter side above; 0: no bound")
    max_area: int = Field(default=0, ge=0, description="refuse originals of more pixels than that; 0: no bound")
    animations: Literal["first", "refuse"] = Field(
        default="first", description="of several pictures in a file take the first, or refuse the file"
    )
    exif_location: bool = Field(default=False, description="keep the location among the EXIF tags")
    blur_boxes: str | None = Field(
        default=None,
        description="column with boxes to blur (faces): a list of [left, top, right, bottom], fractions of the upright "
        "width and height, as DataComp's face_bboxes; null or empty for none",
    )

    @model_validator(mode="after")
    def _never_means_never(self) -> Self:
        if self.reencode == "never" and self.blur_boxes is not None:
            raise ValueError("`reencode: never` leaves nothing to `blur_boxes`: leave one of them out")
        return self


class Image(AnnotateRows, name="image", version=2):
    """Decode, turn upright, resize and re-encode a picture; refuse what is none.

    Resize modes mean what they mean in img2dataset. A picture that already is as asked keeps its bytes. Results are
    8-bit gray or sRGB; transparency becomes white, animations give their first frame.
    """

    Config = ImageConfig
    row_timeout_s = 60.0

    @property
    def requires(self) -> tuple[str, ...]:
        boxes = self._config.blur_boxes
        return (MEDIA.name,) if boxes is None else (MEDIA.name, boxes)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (
            MEDIA,
            Column("width", pa.int64(), "width of the picture", "px"),
            Column("height", pa.int64(), "height of the picture", "px"),
            Column("original_width", pa.int64(), "width before resizing, upright", "px"),
            Column("original_height", pa.int64(), "height before resizing, upright", "px"),
            Column(
                "image_format", pa.string(), "format before re-encoding: jpeg, png, gif, webp, bmp, tiff, avif, heif"
            ),
            Column(
                "exif", pa.string(), "EXIF tags of the original as JSON, its location only if asked for; null if none"
            ),
        )

    def setup(self) -> None:
        import cv2

        cv2.setNumThreads(1)
        prepare_decoders()
        config = self._config
        bounds = Bounds(config.max_pixels, config.min_side, config.max_aspect_ratio, config.max_area)
        scaling = Scaling(config.downscale, config.upscale, config.fidelity)
        self._reading = Reading(bounds.check, scaling, config.exif_location)
        self._resizing = Resizing(config.resize, config.size, config.only_if_bigger, config.max_pixels)
        self._encoding = Encoding(config.encode, config.quality, config.png_compression)
        self._boxes = config.blur_boxes
        self._reencode = config.reencode

    def process_row(self, row: dict[str, Any]) -> Mapping[str, Any]:
        data = row[MEDIA.name] or b""
        boxes = boxes_of(row[self._boxes]) if self._boxes is not None else []
        original = opened(data, self._reading)
        if original.is_animated and self._config.animations == "refuse":
            raise RowFailed("animated image", f"{original.format} of several pictures")
        media, width, height = self._made(data, original, boxes)
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

    def _made(self, data: bytes, original: Original, boxes: list[Box]) -> tuple[bytes, int, int]:
        size = (original.width, original.height)
        if self._reencode == "never":
            original.check()
            return data, *size
        scaled_size, final_size = self._resizing.plan(*size)
        is_as_asked = size == scaled_size == final_size and original.is_plain and not boxes
        if is_as_asked and self._reencode == "when_needed" and original.format == FORMAT_OF[self._encoding.format]:
            original.check()
            return data, *size
        pixels = original.pixels(*scaled_size)
        if boxes:
            pixels = blurred(pixels, boxes)
        if final_size != scaled_size:
            pixels = fitted(pixels, final_size)
        return self._encoding.encoded(pixels), *final_size
