"""The two steps of the work, downloads and images, as the flags ask for them."""

from __future__ import annotations

import math
from typing import Literal

from corpusmith.operators.fetch.config import DownloadConfig
from corpusmith.operators.image.image import ImageConfig
from corpusmith.pipelines.img2dataset.flags import OPT_OUTS, Flags
from corpusmith.pipelines.img2dataset.inputs import EXPECTED

_LEAST_QUALITY = 1
_NO_LIMIT = 4096
"""More than may wait at one host beside the requests that are in flight."""
_FILTERS: dict[str, Literal["area", "lanczos", "cubic", "linear", "nearest"]] = {
    "area": "area",
    "lanczos": "lanczos",
    "lanczos4": "lanczos",
    "cubic": "cubic",
    "linear": "linear",
    "nearest": "nearest",
}


def download_config(flags: Flags) -> DownloadConfig:
    """How to download. A time-out is a bound on each wait and on the attempt as a whole."""
    directives = flags.disallowed_header_directives
    agent = DownloadConfig.model_fields["user_agent"].default
    return DownloadConfig(
        timeout_s=flags.timeout,
        connect_timeout_s=flags.timeout,
        idle_timeout_s=flags.timeout,
        retries=flags.retries,
        concurrency=flags.requests,
        per_host=flags.per_host or _NO_LIMIT,
        allow_hosts=tuple(flags.allow_hosts),
        user_agent=f"{flags.user_agent_token} {agent}" if flags.user_agent_token else agent,
        disallowed_header_directives=OPT_OUTS if directives is None else tuple(directives),
        robots=flags.robots,
        hash_column=EXPECTED if flags.verify_hash else None,
        hash_type=flags.verify_hash[1] if flags.verify_hash else "sha256",
    )


def image_config(flags: Flags) -> ImageConfig | None:
    """What to do with images; None to leave them as they are."""
    if flags.disable_all_reencoding:
        return None
    is_png = flags.encode_format == "png"
    return ImageConfig(
        size=flags.image_size,
        resize=flags.resize_mode,
        only_if_bigger=flags.resize_only_if_bigger,
        downscale=_FILTERS[flags.downscale_interpolation],
        upscale=_FILTERS[flags.upscale_interpolation],
        encode=flags.encode_format,
        quality=_LEAST_QUALITY if is_png else max(flags.encode_quality, _LEAST_QUALITY),
        png_compression=flags.encode_quality if is_png else 1,
        reencode="when_needed" if flags.skip_reencode else "always",
        min_side=flags.min_image_size,
        max_aspect_ratio=flags.max_aspect_ratio if math.isfinite(flags.max_aspect_ratio) else 0.0,
        max_area=max(int(flags.max_image_area), 1) if math.isfinite(flags.max_image_area) else 0,
        blur_boxes=flags.bbox_col,
    )
