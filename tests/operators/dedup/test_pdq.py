"""pdq: the published hash and quality of the same pixels, nearly the same for large JPEGs, little change for copies."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from corpora import fates, run_recipe
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from peers import peer
from pictures import all_photos, crops, distances, jpeg
from PIL import Image, ImageDraw

from corpusmith.operators.dedup.pdq import Pdq, hash_of
from corpusmith.operators.registry import operator_class
from corpusmith.schemas.fates import RowFailed


def boxed(values: np.ndarray, window: int) -> np.ndarray:
    """Each value of a row becomes the mean of `window` values about it, of which those count that there are."""
    ahead = (window + 2) // 2
    places = range(values.shape[1])
    return np.stack([values[:, max(i - (window - ahead), 0) : i + ahead].mean(axis=1) for i in places], axis=1)


def reference(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The published steps one by one: coefficients, 256 bits, quality."""
    gray = pixels.astype(np.float64)
    if gray.ndim == 3:
        gray = gray @ np.array([0.299, 0.587, 0.114])
    height, width = gray.shape
    if gray.shape != (64, 64):
        for _ in range(2):
            gray = boxed(gray, (width + 127) // 128)
            gray = boxed(gray.T, (height + 127) // 128).T
        rows, columns = (((np.arange(64) + 0.5) * side / 64).astype(int) for side in (height, width))
        gray = gray[rows][:, columns]
    steps = [np.trunc(np.diff(gray, axis=axis) * 100 / 255) for axis in (0, 1)]
    quality = min(100, int(sum(np.abs(step).sum() for step in steps)) // 90)
    cosines = [[np.sqrt(2 / 64) * np.cos(np.pi / 128 * i * (2 * j + 1)) for j in range(64)] for i in range(1, 17)]
    lowest = (np.array(cosines) @ gray @ np.array(cosines).T).ravel()
    return lowest, lowest > np.sort(lowest)[127], quality


def number_of(bits: np.ndarray) -> int:
    return sum(1 << i for i in np.flatnonzero(bits).tolist())


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return all_photos()


@pytest.fixture(scope="module")
def pdq() -> Callable[[bytes], tuple[int, int]]:
    operator = Pdq()
    operator.setup()

    def of(media: bytes) -> tuple[int, int]:
        made = operator.process_row({"uid": "", "media": media})
        assert len(made["pdq"]) == 64 and made["pdq"] == made["pdq"].lower()
        return int(made["pdq"], 16), made["pdq_quality"]

    return of


@given(
    pixels=arrays.arrays(
        np.uint8,
        arrays.array_shapes(min_dims=2, max_dims=2, min_side=5, max_side=200).map(lambda shape: (*shape, 3)),
        elements={"min_value": 0, "max_value": 255},
        fill=arrays.from_dtype(np.dtype(np.uint8)),
    )
)
@settings(max_examples=40, deadline=None)
def test_is_the_published_steps(pixels: np.ndarray) -> None:
    """Coefficients at the median are the exception, and pictures of which many are: there the bits are noise."""
    lowest, bits, quality = reference(pixels)
    is_clear = np.abs(lowest - np.sort(lowest)[127]) > 1e-3
    clear = number_of(is_clear)
    number, found_quality = hash_of(pixels)
    assert number & clear == number_of(bits) & clear
    assert abs(found_quality - quality) <= 1


def test_photos_are_the_published_steps(photos: list[np.ndarray]) -> None:
    for photo in [*crops(photos, 10), photos[0][:64, :64], photos[1][:5, :300]]:
        _, bits, quality = reference(photo)
        assert hash_of(photo) == (number_of(bits), quality)


def icon(number: int) -> np.ndarray:
    """A drawing of a few shapes on white."""
    drawn = np.random.default_rng(number)
    picture = Image.new("RGB", (int(drawn.integers(40, 300)), int(drawn.integers(40, 300))), "white")
    pen = ImageDraw.Draw(picture)
    for _ in range(4):
        box = np.sort(drawn.integers(0, picture.size[::1], (2, 2)), axis=0).ravel().tolist()
        colour = tuple(drawn.integers(0, 256, 3).tolist())
        (pen.ellipse if drawn.random() < 0.5 else pen.rectangle)(box, fill=colour)
    return np.asarray(picture)


PDQHASH = """
import json, pickle, sys, numpy as np, pdqhash
made = [pdqhash.compute(picture) for picture in pickle.load(sys.stdin.buffer)]
print(json.dumps([[np.packbits(vector.astype(np.uint8)).tobytes().hex(), int(quality)] for vector, quality in made]))
"""


def by_pdqhash(pictures: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Hashes and qualities of Meta's code, as its wheel compiles it."""
    python = peer("pdqhash", ["pdqhash==0.2.8", "numpy", "pillow"])
    rgb = [picture if picture.ndim == 3 else np.dstack([picture] * 3) for picture in pictures]
    made = subprocess.run([python, "-c", PDQHASH], input=pickle.dumps(rgb), stdout=subprocess.PIPE, check=True)
    return [(int(text, 16), quality) for text, quality in json.loads(made.stdout)]


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_bit_for_bit_pdqhash(photos: list[np.ndarray]) -> None:
    pictures = [*crops(photos, 60), *photos, *(icon(i) for i in range(40)), photos[0][:5, :5], photos[0][:64, :64]]
    assert [hash_of(picture) for picture in pictures] == by_pdqhash(pictures)


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_large_jpegs_are_near_pdqhash(pdq: Callable[[bytes], Any], photos: list[np.ndarray]) -> None:
    large = [cv2.resize(p, None, fx=f, fy=f, interpolation=cv2.INTER_CUBIC) for p in photos for f in (1.3, 2, 2.9, 4)]
    media = [jpeg(picture, 88) for picture in large]
    decoded = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in media]
    found, theirs = [pdq(data) for data in media], by_pdqhash(decoded)
    apart = distances([(ours[0], other[0]) for ours, other in zip(found, theirs, strict=True)])
    assert apart.mean() < 3 and apart.max() <= 8
    assert max(abs(ours[1] - other[1]) for ours, other in zip(found, theirs, strict=True)) <= 2


def test_copies_are_near_and_others_far(pdq: Callable[[bytes], Any], photos: list[np.ndarray]) -> None:
    hashes = [pdq(jpeg(photo))[0] for photo in photos]
    for photo, original in zip(photos, hashes, strict=True):
        half = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        double = cv2.resize(photo, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
        for copy in (jpeg(photo, 40), jpeg(half), jpeg(double)):
            assert (pdq(copy)[0] ^ original).bit_count() <= 31
        for other in (photo[:, ::-1], np.rot90(photo)):
            assert (pdq(jpeg(other))[0] ^ original).bit_count() > 90
    apart = distances([(a, b) for i, a in enumerate(hashes) for b in hashes[:i]])
    assert apart.min() > 90


def test_half_of_the_bits_are_set(pdq: Callable[[bytes], Any], photos: list[np.ndarray]) -> None:
    assert {pdq(jpeg(photo))[0].bit_count() for photo in photos} == {128}


def test_quality_tells_what_is_flat(pdq: Callable[[bytes], Any], photos: list[np.ndarray]) -> None:
    assert min(pdq(jpeg(photo))[1] for photo in photos) >= 50
    sky = np.linspace(180, 200, 300, dtype=np.uint8)[:, None].repeat(400, axis=1)
    assert pdq(jpeg(np.dstack([sky] * 3)))[1] < 20


@pytest.mark.parametrize("value", [0, 1, 127, 255])
@pytest.mark.parametrize("size", [(1, 1), (4, 300), (64, 64), (640, 480)])
def test_flat_and_tiny_pictures_have_hash_0(pdq: Callable[[bytes], Any], value: int, size: tuple[int, int]) -> None:
    file = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(file, "png")
    assert pdq(file.getvalue()) == (0, 0)


def test_pictures_are_hashed_as_people_see_them(pdq: Callable[[bytes], Any], photos: list[np.ndarray]) -> None:
    large = cv2.resize(photos[0], None, fx=2.5, fy=2.5, interpolation=cv2.INTER_CUBIC)
    upright = Image.fromarray(large)
    turned, exif, plain = io.BytesIO(), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(turned, "jpeg", quality=95, exif=exif)
    upright.save(plain, "jpeg", quality=95)
    assert (pdq(turned.getvalue())[0] ^ pdq(plain.getvalue())[0]).bit_count() <= 8
    gray, png = io.BytesIO(), io.BytesIO()
    upright.convert("L").save(gray, "jpeg", quality=95)
    upright.save(png, "png")
    for other in (gray, png):
        assert (pdq(other.getvalue())[0] ^ pdq(plain.getvalue())[0]).bit_count() <= 8


def test_what_is_no_picture_fails(photos: list[np.ndarray]) -> None:
    operator = Pdq(Pdq.Config(max_pixels=1000))
    operator.setup()
    whole = jpeg(photos[0])
    for media, error in ((None, "not an image"), (b"", "not an image"), (whole, "too many pixels")):
        with pytest.raises(RowFailed) as caught:
            operator.process_row({"uid": "", "media": media})
        assert caught.value.row_error.error == error


def test_near_duplicates_of_a_folder(tmp_path: Path, photos: list[np.ndarray]) -> None:
    """From files to fates: two copies of one photo, another photo, a flat picture, and a file that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    flat = np.full((90, 90, 3), 200, np.uint8)
    for name, data in {
        "a": jpeg(skimage.data.coffee(), 95),
        "b": jpeg(skimage.data.coffee()[::2, ::2], 40),
        "c": jpeg(photos[1]),
        "d": jpeg(flat),
        "e": b"\xff\xd8\xff\xe0 and then nothing",
    }.items():
        (folder / f"{name}.jpg").write_bytes(data)
    recipe = f"""
        corpus: t
        input: {{path: {folder}}}
        steps:
          - pdq
          - keep: pdq_quality >= 50
          - dedup.perceptual: {{column: pdq}}
    """
    run_recipe(recipe, tmp_path / "out")
    found = sorted((row["fate"], row["step"] or "") for row in fates(tmp_path / "out").values())
    assert [fate for fate, _ in found] == ["failed", "kept", "kept", "rejected", "rejected"]
    assert [step for _, step in found] == ["pdq", "", "", "dedup.perceptual", "keep"]


def test_what_recipes_write() -> None:
    assert operator_class("pdq") is Pdq
    assert [column.name for column in Pdq().produces] == ["pdq", "pdq_quality"]
    assert Pdq().requires == ("media",)
