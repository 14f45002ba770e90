"""Blurred boxes against img2dataset's blurrer, written naively with the sigma of the paper that it follows."""

from __future__ import annotations

import io
import json
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image as Pillow

from corpusmith.operators.image.blur import blurred
from corpusmith.operators.image.image import Image, ImageConfig
from corpusmith.schemas.fates import RowFailed

FACE = [0.36, 0.1, 0.54, 0.37]


def photo(kind: str = "png", **options: Any) -> bytes:
    out = io.BytesIO()
    Pillow.fromarray(skimage.data.astronaut()).save(out, kind, **options)
    return out.getvalue()


def made(boxes: Any, media: bytes, **config: Any) -> np.ndarray:
    image = Image(ImageConfig(blur_boxes="faces", **{"encode": "png", "resize": "no", **config}))
    image.setup()
    assert image.requires == ("media", "faces")
    result = image.process_row({"uid": "u", "media": media, "faces": boxes})
    return np.asarray(Pillow.open(io.BytesIO(result["media"])))


def naive(pixels: np.ndarray, boxes: list[list[float]]) -> np.ndarray:
    height, width = pixels.shape[:2]
    image = pixels.astype(np.float64) / 255
    mask, longest = np.zeros((height, width)), 0
    for box in boxes:
        left, top, right, bottom = box[0] * width, box[1] * height, box[2] * width, box[3] * height
        side = max(right - left, bottom - top)
        longest = max(longest, side)
        rows = slice(max(int(top - 0.1 * side), 0), int(bottom + 0.1 * side) + 1)
        mask[rows, max(int(left - 0.1 * side), 0) : int(right + 0.1 * side) + 1] = 1
    sigma = 0.1 * longest
    soft, weight = cv2.GaussianBlur(image, (0, 0), sigma), cv2.GaussianBlur(mask, (0, 0), sigma)[:, :, None]
    return np.rint(255 * (image * (1 - weight) + soft * weight))


@pytest.mark.parametrize(
    "boxes", [[FACE], [FACE, [0.0, 0.8, 0.1, 1.0]], [[0.9, 0.9, 1.0, 1.0]], [[0.0, 0.0, 1.0, 1.0]]]
)
@pytest.mark.parametrize("size", [96, 512])
def test_the_effect_is_that_of_the_paper(boxes: list[list[float]], size: int) -> None:
    pixels = cv2.resize(skimage.data.astronaut(), (size, size), interpolation=cv2.INTER_AREA)
    result, wanted = blurred(pixels, [(b[0], b[1], b[2], b[3]) for b in boxes]), naive(pixels, boxes)
    error = np.abs(result.astype(float) - wanted)
    assert error.mean() < 1.0 and np.percentile(error, 99.9) < 12
    assert np.abs(pixels.astype(float) - wanted).mean() > 3 * error.mean()


def test_a_face_loses_its_detail_and_the_rest_keeps_its_pixels() -> None:
    result, whole = made([FACE], photo()), skimage.data.astronaut()
    face = np.s_[70:170, 200:265]
    detail = [cv2.Laplacian(cv2.cvtColor(p[face], cv2.COLOR_RGB2GRAY), cv2.CV_64F).std() for p in (result, whole)]
    assert detail[0] < detail[1] / 10
    assert (result[300:] == whole[300:]).all() and (result[:, :100] == whole[:, :100]).all()


def test_gray_resized_and_cropped_pictures_are_blurred_too() -> None:
    gray = io.BytesIO()
    Pillow.fromarray(skimage.data.astronaut()[:, :, 0]).save(gray, "png")
    assert made([FACE], gray.getvalue()).shape == (512, 512)
    plain, soft = (made(boxes, photo(), resize="center_crop", size=128) for boxes in ([], [FACE]))
    assert np.abs(plain[20:45, 48:68].astype(int) - soft[20:45, 48:68]).mean() > 8
    assert (plain[100:] == soft[100:]).all()


def test_boxes_are_those_of_the_upright_picture() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    turned = photo("png", exif=exif)
    result, plain = made([[0.0, 0.0, 0.3, 0.3]], turned), made([], turned)
    assert (plain == np.rot90(skimage.data.astronaut(), -1)).all()
    assert (result[300:, 300:] == plain[300:, 300:]).all() and (result[:100, :100] != plain[:100, :100]).any()


@pytest.mark.parametrize("boxes", [None, [], "[]", "null", "", [[0.2, 0.2, 0.2, 0.2]]])
def test_without_boxes_bytes_pass(boxes: Any) -> None:
    media = photo()
    assert (made(boxes, media) == skimage.data.astronaut()).all()


def test_boxes_may_be_json_and_reach_outside() -> None:
    assert (made(json.dumps([FACE]), photo()) == made([FACE], photo())).all()
    assert (made([[-0.2, -0.1, 0.3, 0.2]], photo()) != skimage.data.astronaut()).any()
    assert (made([[1.2, 1.3, 1.8, 1.9]], photo()) == skimage.data.astronaut()).all()


@pytest.mark.parametrize(
    "boxes",
    [
        [[0.1, 0.2, 0.3]],
        [[0.1, 0.2, 0.3, None]],
        [[0.1, 0.2, 0.3, "0.4"]],
        [[0.1, 0.2, float("nan"), 0.4]],
        [[0.1, 0.2, float("inf"), 0.4]],
        [[True, False, True, True]],
        [[0.5, 0.2, 0.3, 0.4]],
        [[100, 50, 200, 150]],
        [0.1, 0.2, 0.3, 0.4],
        [None],
        {"left": 0.1},
        0.5,
        "no JSON",
        "[" * 5000,
    ],
)
def test_malformed_boxes_fail_the_row(boxes: Any) -> None:
    with pytest.raises(RowFailed) as raised:
        made(boxes, photo())
    assert raised.value.row_error.error == "bad boxes" and raised.value.row_error.message


def test_unchanged_bytes_cannot_be_blurred() -> None:
    with pytest.raises(ValueError, match="blur_boxes"):
        ImageConfig(reencode="never", blur_boxes="faces")
