"""phash: imagehash's bits for the same pixels, nearly the same for whole pictures, little change for copies."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from corpora import fates, run_recipe
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from pictures import all_photos, crops, distances, jpeg
from PIL import Image

from corpusmith.operators.dedup.phash import Phash, hash_of
from corpusmith.operators.registry import operator_class
from corpusmith.schemas.fates import RowFailed


def dct(values: np.ndarray) -> np.ndarray:
    """The DCT-II of each row by its definition, without normalisation: 2 Σ x(n) cos(π k (2n + 1) / 2N)."""
    count = values.shape[1]
    n, k = np.arange(count), np.arange(count)[:, None]
    return 2 * values @ np.cos(np.pi * k * (2 * n + 1) / (2 * count)).T


def reference(gray: np.ndarray) -> int:
    """imagehash.phash() of its 32 × 32 pixels."""
    lowest = dct(dct(gray.astype(np.float64).T).T)[:8, :8].ravel()
    bits = "".join("1" if value > np.median(lowest) else "0" for value in lowest)
    return int(bits, 2)


def reference_of_picture(media: bytes) -> int:
    picture = Image.open(io.BytesIO(media)).convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    return reference(np.asarray(picture))


@pytest.fixture(scope="module")
def phash() -> Callable[[bytes], int]:
    operator = Phash()
    operator.setup()

    def of(media: bytes) -> int:
        text = operator.process_row({"uid": "", "media": media})["phash"]
        assert len(text) == 16 and text == text.lower()
        return int(text, 16)

    return of


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return all_photos()


@given(pixels=arrays.arrays(np.uint8, (32, 32)))
@settings(max_examples=150, deadline=None)
def test_bit_for_bit_imagehash_on_its_pixels(pixels: np.ndarray) -> None:
    """Coefficients closer to the median than a float's noise are the exception: there imagehash's bits are chance."""
    lowest = dct(dct(pixels.astype(np.float64).T).T)[:8, :8].ravel()
    is_clear = np.abs(lowest - np.median(lowest)) > 1e-5
    clear = int("".join("1" if bit else "0" for bit in is_clear), 2)
    assert hash_of(pixels) & clear == reference(pixels) & clear


def test_bit_for_bit_imagehash_on_photos(photos: list[np.ndarray]) -> None:
    for photo in crops(photos, 40):
        gray = Image.fromarray(photo).convert("L")
        small = gray.resize((32, 32), Image.Resampling.LANCZOS)
        assert hash_of(np.asarray(gray)) == reference(np.asarray(small))


def test_whole_pictures_are_near_imagehash(phash: Callable[[bytes], int], photos: list[np.ndarray]) -> None:
    media = [jpeg(photo) for photo in crops(photos, 150)]
    found = distances([(phash(data), reference_of_picture(data)) for data in media])
    assert (found == 0).mean() > 0.75
    assert (found <= 2).mean() > 0.97
    assert found.max() <= 6


def test_copies_are_near_and_others_far(phash: Callable[[bytes], int], photos: list[np.ndarray]) -> None:
    hashes = [phash(jpeg(photo)) for photo in photos]
    for photo, original in zip(photos, hashes, strict=True):
        half = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        brighter = np.clip(photo.astype(np.int16) + 12, 0, 255).astype(np.uint8)
        for copy in (jpeg(photo, 50), jpeg(half), jpeg(brighter)):
            assert (phash(copy) ^ original).bit_count() <= 4
    apart = distances([(a, b) for i, a in enumerate(hashes) for b in hashes[:i]])
    assert apart.min() > 12


@pytest.mark.parametrize("value", [0, 1, 127, 255])
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (32, 32), (640, 480)])
def test_flat_pictures_have_a_hash_by_rule(phash: Callable[[bytes], int], value: int, size: tuple[int, int]) -> None:
    file = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(file, "png")
    assert phash(file.getvalue()) == (1 << 63 if value else 0)


def test_pictures_are_hashed_as_people_see_them(phash: Callable[[bytes], int], photos: list[np.ndarray]) -> None:
    upright = Image.fromarray(photos[0])
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(turned, "jpeg", quality=95, exif=exif)
    plain, white, clear = io.BytesIO(), io.BytesIO(), io.BytesIO()
    upright.save(plain, "jpeg", quality=95)
    assert (phash(turned.getvalue()) ^ phash(plain.getvalue())).bit_count() <= 2
    cut = upright.convert("RGBA")
    cut.paste((0, 0, 0, 0), (0, 0, 200, 200))
    cut.save(clear, "png")
    on_white = upright.copy()
    on_white.paste("white", (0, 0, 200, 200))
    on_white.save(white, "png")
    assert phash(clear.getvalue()) == phash(white.getvalue())


def test_gray_cmyk_and_deep_pictures(phash: Callable[[bytes], int], photos: list[np.ndarray]) -> None:
    gray = Image.fromarray(photos[2]).convert("L")
    hashes = []
    for picture, kind in ((gray, "png"), (gray.convert("CMYK"), "jpeg"), (gray.convert("I;16"), "png")):
        file = io.BytesIO()
        if picture.mode == "I;16":
            picture = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
        picture.save(file, kind)
        hashes.append(phash(file.getvalue()))
    assert distances([(hashes[0], other) for other in hashes[1:]]).max() <= 4


def test_what_is_no_picture_fails(photos: list[np.ndarray]) -> None:
    operator = Phash(Phash.Config(max_pixels=1000))
    operator.setup()
    whole = jpeg(photos[0])
    for media, error in ((None, "not an image"), (b"", "not an image"), (whole, "too many pixels")):
        with pytest.raises(RowFailed) as caught:
            operator.process_row({"uid": "", "media": media})
        assert caught.value.row_error.error == error
    operator = Phash()
    operator.setup()
    with pytest.raises(RowFailed) as caught:
        operator.process_row({"uid": "", "media": whole[: len(whole) // 2]})
    assert caught.value.row_error.error in ("truncated image", "corrupt image")


def test_near_duplicates_of_a_folder(tmp_path: Path, photos: list[np.ndarray]) -> None:
    """From files to fates: two copies of one photo, another photo, and a file that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, data in {
        "a": jpeg(photos[0], 95),
        "b": jpeg(photos[0], 40),
        "c": jpeg(photos[1]),
        "d": b"\xff\xd8\xff\xe0 and then nothing",
    }.items():
        (folder / f"{name}.jpg").write_bytes(data)
    recipe = f"""
        corpus: t
        input: {{path: {folder}}}
        steps:
          - phash
          - dedup.perceptual
    """
    run_recipe(recipe, tmp_path / "out")
    found = sorted((row["fate"], row["step"] or "") for row in fates(tmp_path / "out").values())
    assert found == [("failed", "phash"), ("kept", ""), ("kept", ""), ("rejected", "dedup.perceptual")]


def test_what_recipes_write() -> None:
    assert operator_class("phash") is Phash
    assert [column.name for column in Phash().produces] == ["phash"]
    assert Phash().requires == ("media",)
