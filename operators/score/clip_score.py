"""clip_score: how well picture and caption fit, as the cosine of their embeddings.

The measure behind LAION's and DataComp's filters (Hessel et al., "CLIPScore", EMNLP 2021, without its factor of 2.5):
what counts as a good fit depends on the encoder, so that a threshold belongs to one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from corpusmith.operators.contract import OPERATIONAL, Annotate, Part, Resources
from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.image.decode import Reading, opened, prepare_decoders
from corpusmith.operators.image.resample import Scaling
from corpusmith.operators.image.sizes import Bounds
from corpusmith.operators.score.encoder import PATTERN, Device, EncoderName, OpenClipEncoder, Precision
from corpusmith.schemas.columns import CAPTION, MEDIA, Column
from corpusmith.schemas.fates import RowError, RowFailed

CLIP_SIMILARITY = Column("clip_similarity", pa.float64(), "cosine of the embeddings of picture and caption, −1 to 1")

_MEMORY_BYTES = 3 << 30


class ClipScore(Annotate, name="clip_score", version=1):
    """Score how well picture and caption fit: the cosine of their embeddings by an image-text encoder."""

    class Config(BaseConfig):
        encoder: str = Field(
            pattern=PATTERN,
            description="open_clip:ARCHITECTURE@TAG, such as open_clip:ViT-B-32@openai; "
            "open_clip:ARCHITECTURE@/PATH/OF/weights.safetensors; open_clip:local-dir:/PATH; "
            "open_clip:hf-hub:ORGANISATION/NAME",
        )
        precision: Precision = Field(default="fp32", description="of the model: fp32; fp16 and bf16 are for GPUs")
        max_pixels: int = Field(
            default=100_000_000, ge=1, description="refuse pictures of more pixels, before decoding"
        )
        device: Device = Field(
            default="auto", description="auto: a GPU where there is one", json_schema_extra=OPERATIONAL
        )
        gpus: float = Field(
            default=0.0,
            ge=0.0,
            description="GPUs that a worker holds on a cluster, fractions allowed; 0: workers there see none",
            json_schema_extra=OPERATIONAL,
        )
        batch_size: int = Field(
            default=32, ge=1, le=1024, description="pairs that are encoded at once", json_schema_extra=OPERATIONAL
        )

        def deciding(self) -> dict[str, Any]:
            """The parameters, and what local files of weights hold: a file trained anew scores anew."""
            held = EncoderName.parsed(self.encoder).fingerprint()
            return super().deciding() | ({"encoder_sha256": held} if held else {})

    positional = "encoder"
    batch_rows = 256
    row_timeout_s = 600.0
    config: Config

    @property
    def resources(self) -> Resources:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As configured: whether a GPU is held is the user's choice."""
        return Resources(gpus=self.config.gpus, memory_bytes=_MEMORY_BYTES)

    @property
    def requires(self) -> tuple[str, ...]:
        return (MEDIA.name, CAPTION.name)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (CLIP_SIMILARITY,)

    def missing(self) -> str | None:
        return EncoderName.parsed(self.config.encoder).missing()

    def setup(self) -> None:
        prepare_decoders()
        bounds = Bounds(self.config.max_pixels, min_side=0, max_aspect_ratio=0.0, max_area=0)
        self._reading = Reading(bounds.check, Scaling(fidelity="fine"))
        self._encoder = OpenClipEncoder(self.config.encoder, self.config.device, self.config.precision)

    def process(self, batch: pa.Table) -> Iterator[Part]:
        for start in range(0, batch.num_rows, self.config.batch_size):
            rows = batch.slice(start, self.config.batch_size)
            yield self._scored(rows, range(start, start + rows.num_rows))

    def _scored(self, rows: pa.Table, places: range) -> Part:
        errors: dict[int, RowError] = {}
        pictures: dict[int, Any] = {}
        captions = rows.column(CAPTION.name).to_pylist()
        for i, media in enumerate(rows.column(MEDIA.name)):
            try:
                pictures[i] = self._prepared(media.as_py(), captions[i])
            except Exception as error:  # noqa: BLE001 - the row's fate tells it
                errors[i] = RowError.of(error)
        scores: list[float | None] = [None] * rows.num_rows
        if pictures:
            texts = self._encoder.texts([captions[i] for i in pictures])
            cosines = np.einsum("nd,nd->n", self._encoder.images(list(pictures.values())), texts, dtype=np.float64)
            for i, cosine in zip(pictures, cosines.tolist(), strict=True):
                if np.isfinite(cosine):
                    scores[i] = cosine
                else:
                    errors[i] = RowError("not finite", "the encoder gives no finite embedding")
        return Part({CLIP_SIMILARITY.name: scores}, errors, rows=list(places))

    def _prepared(self, media: bytes | None, caption: str | None) -> Any:
        from PIL import Image

        if caption is None:
            raise RowFailed(f"missing {CAPTION.name}")
        original = opened(media or b"", self._reading)
        return self._encoder.prepared(Image.fromarray(original.pixels(original.width, original.height)))
