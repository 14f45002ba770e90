"""Sizes and filters against img2dataset's rules, written naively, and against OpenCV as img2dataset calls it."""

from __future__ import annotations

import io
import random
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
import skimage.data
from PIL import Image as Pillow

from corpusmith.operators.image.image import Image, ImageConfig
from corpusmith.operators.image.resample import Scaling
from corpusmith.operators.image.sizes import Bounds, Resizing, fitted
from corpusmith.schemas.fates import RowFailed

MODES = ("no", "keep_ratio", "keep_ratio_largest", "center_crop", "border")


def made(media: bytes, **config: Any) -> dict[str, Any]:
    image = Image(ImageConfig(**config))
    image.setup()
    return dict(image.process_row({"uid": "u", "media": media}))


def decoded(media: bytes) -> np.ndarray:
    return np.asarray(Pillow.open(io.BytesIO(media)))


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Pillow.fromarray(pixels).save(out, "png", compress_level=1)
    return out.getvalue()


def wanted_size(width: int, height: int, mode: str, target: int, only_if_bigger: bool) -> tuple[int, int]:
    """img2dataset's Resizer with Albumentations' SmallestMaxSize, LongestMaxSize, CenterCrop and PadIfNeeded."""
    if mode == "no":
        return width, height
    question = min(height, width) if mode in ("keep_ratio", "center_crop") else max(height, width)
    if only_if_bigger and not question > target:
        return width, height
    if mode in ("center_crop", "border"):
        return target, target
    scale = target / question
    return max(1, round(width * scale)), max(1, round(height * scale))


def test_planned_sizes_are_those_of_img2dataset() -> None:
    draw = random.Random(0)
    for _ in range(15_000):
        width, height = (int(10 ** draw.uniform(0, 4)) for _ in "wh")
        target, mode, bigger = draw.choice((1, 7, 224, 256, 333, 512, 1024)), draw.choice(MODES), draw.random() < 0.5
        scaled, final = Resizing(mode, target, bigger, 10**15).plan(width, height)  # type: ignore[arg-type]
        assert final == wanted_size(width, height, mode, target, bigger), (width, height, mode, target, bigger)
        assert min(scaled) >= 1


@pytest.mark.parametrize("mode", MODES)
def test_sizes_of_pictures_are_those_of_img2dataset(mode: str) -> None:
    draw = random.Random(1)
    for _ in range(25):
        width, height, target = draw.randint(1, 90), draw.randint(1, 90), draw.choice((5, 16, 31, 32, 50))
        bigger = draw.random() < 0.5
        media = png(np.zeros((height, width, 3), np.uint8))
        result = made(media, resize=mode, size=target, only_if_bigger=bigger)
        size = (result["width"], result["height"])
        assert size == wanted_size(width, height, mode, target, bigger)
        assert decoded(result["media"]).shape[1::-1] == size


OPENCV = {
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
    "cubic": cv2.INTER_CUBIC,
    "linear": cv2.INTER_LINEAR,
    "nearest": cv2.INTER_NEAREST,
}


@pytest.mark.parametrize("name", sorted(OPENCV))
@pytest.mark.parametrize("size", [100, 256, 500])
def test_fine_pixels_are_those_of_opencv(name: str, size: int) -> None:
    media = simplejpeg.encode_jpeg(np.ascontiguousarray(skimage.data.coffee()), 92, colorsubsampling="420")
    options = {"fidelity": "fine", "downscale": name, "upscale": name, "only_if_bigger": False, "encode": "png"}
    result = decoded(made(media, size=size, **options)["media"])
    whole = cv2.imdecode(np.frombuffer(media, np.uint8), cv2.IMREAD_UNCHANGED)
    assert whole is not None
    scaled = cv2.resize(whole, (round(600 * (size / 400)), size), interpolation=OPENCV[name])
    assert (result == scaled[:, :, ::-1]).all()


def test_crop_and_border_lie_as_in_img2dataset() -> None:
    coffee = skimage.data.coffee()[:301, :402]
    scaled = cv2.resize(coffee, (134, 100), interpolation=cv2.INTER_AREA)
    options = {"size": 100, "encode": "png", "fidelity": "fine"}
    assert (decoded(made(png(coffee), resize="center_crop", **options)["media"]) == scaled[:, 17:117]).all()
    bordered = decoded(made(png(coffee), resize="border", **options)["media"])
    inner = cv2.resize(coffee, (100, 75), interpolation=cv2.INTER_AREA)
    assert (bordered[12:87] == inner).all()
    assert (bordered[:12] == 255).all() and (bordered[87:] == 255).all()


def test_bounds_are_those_of_img2dataset() -> None:
    draw = random.Random(2)
    seen: set[str | None] = set()
    for _ in range(5_000):
        width, height = (int(10 ** draw.uniform(0, 4)) for _ in "wh")
        least, area, ratio = draw.choice((0, 20, 200)), draw.choice((0, 10**4, 10**6)), draw.choice((0.0, 1.5, 3.0))
        wanted = None
        if min(height, width) < least:
            wanted = "too small"
        elif height * width > (area or float("inf")):
            wanted = "area too large"
        elif max(height, width) / min(height, width) > (ratio or float("inf")):
            wanted = "aspect ratio"
        try:
            Bounds(10**12, least, ratio, area).check(width, height)
            found = None
        except RowFailed as failure:
            found = failure.row_error.error
        assert found == wanted
        seen.add(found)
    assert seen == {None, "too small", "area too large", "aspect ratio"}


def test_shrinking_leaves_enough() -> None:
    draw = random.Random(3)
    for _ in range(5_000):
        width, height = draw.randint(1, 9000), draw.randint(1, 9000)
        _, size = Resizing("keep_ratio", 256, True, 10**9).plan(width, height)
        factor = Scaling().shrink_factor((width, height), size)
        assert -(-width // factor) >= size[0] and -(-height // factor) >= size[1]
        assert Scaling(fidelity="fine").shrink_factor((width, height), size) == 1
        assert factor == 8 or min(width / size[0], height / size[1]) <= 2.4 * factor


def test_fitted_keeps_gray_gray() -> None:
    gray = np.zeros((3, 8), np.uint8)
    assert fitted(gray, (8, 8)).shape == (8, 8) and fitted(gray, (4, 3)).shape == (3, 4)
