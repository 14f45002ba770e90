"""The image step on real and hostile bytes, against Pillow and a full decode."""

from __future__ import annotations

import io
import json
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
import skimage.data
import sklearn.datasets
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageCms, ImageOps

from corpusmith.operators.image.image import Image, ImageConfig
from corpusmith.operators.image.sniff import image_format
from corpusmith.pipelines.cell import IsolatedOperator
from corpusmith.schemas.fates import RowFailed


@cache
def china() -> bytes:
    return (Path(sklearn.datasets.__file__).parent / "images" / "china.jpg").read_bytes()


@cache
def astronaut() -> np.ndarray:
    return skimage.data.astronaut()


def encoded(picture: np.ndarray | Pillow.Image, kind: str, **options: Any) -> bytes:
    image = picture if isinstance(picture, Pillow.Image) else Pillow.fromarray(picture)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def operator(**config: Any) -> Image:
    image = Image(ImageConfig(**config))
    image.setup()
    return image


def made(media: bytes | None, **config: Any) -> dict[str, Any]:
    return dict(operator(**config).process_row({"uid": "u", "media": media}))


def decoded(media: bytes) -> np.ndarray:
    return np.asarray(Pillow.open(io.BytesIO(media)))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def failure(media: bytes | None, **config: Any) -> str:
    with pytest.raises(RowFailed) as raised:
        made(media, **config)
    return raised.value.row_error.error


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "webp", "bmp", "tiff", "avif"])
def test_every_format(kind: str) -> None:
    result = made(encoded(astronaut(), kind), size=128)
    assert {k: result[k] for k in ("width", "height", "original_width", "original_height", "image_format")} == {
        "width": 128,
        "height": 128,
        "original_width": 512,
        "original_height": 512,
        "image_format": kind,
    }
    wanted = cv2.resize(astronaut(), (128, 128), interpolation=cv2.INTER_AREA)
    assert psnr(decoded(result["media"]), wanted) > (26 if kind == "gif" else 32)


@pytest.mark.parametrize(
    ("resize", "size", "bigger", "wanted"),
    [
        ("no", 256, False, (640, 427)),
        ("keep_ratio", 256, True, (384, 256)),
        ("keep_ratio_largest", 256, True, (256, 171)),
        ("center_crop", 256, True, (256, 256)),
        ("border", 256, True, (256, 256)),
        ("keep_ratio", 500, True, (640, 427)),
        ("center_crop", 427, True, (640, 427)),
        ("center_crop", 427, False, (427, 427)),
        ("border", 640, True, (640, 427)),
        ("keep_ratio", 500, False, (749, 500)),
        ("keep_ratio_largest", 700, False, (700, 467)),
    ],
)
def test_resize_modes(resize: str, size: int, bigger: bool, wanted: tuple[int, int]) -> None:
    result = made(china(), resize=resize, size=size, only_if_bigger=bigger)
    assert (result["width"], result["height"]) == wanted
    assert decoded(result["media"]).shape == (*wanted[::-1], 3)
    assert (result["original_width"], result["original_height"]) == (640, 427)


def test_crop_is_the_middle_and_border_is_white() -> None:
    full = decoded(china())
    scaled = cv2.resize(full, (384, 256), interpolation=cv2.INTER_AREA)
    assert psnr(decoded(made(china(), resize="center_crop", encode="png")["media"]), scaled[:, 64:320]) > 40
    bordered = decoded(made(china(), resize="border", encode="png")["media"])
    assert (bordered[:42] == 255).all() and (bordered[42 + 171 :] == 255).all()
    assert psnr(bordered[42:213], cv2.resize(full, (256, 171), interpolation=cv2.INTER_AREA)) > 30


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "avif"])
def test_orientation(kind: str, orientation: int) -> None:
    stored = Pillow.fromarray(astronaut()[100:420, 40:480])
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    media = encoded(stored, kind, exif=exif)
    upright = ImageOps.exif_transpose(Pillow.open(io.BytesIO(media)))
    result = made(media, resize="no", encode="png")
    assert (result["original_width"], result["original_height"]) == upright.size
    assert psnr(decoded(result["media"]), np.asarray(upright.convert("RGB"))) > 45
    result = made(media, size=96)
    size = result["width"], result["height"]
    wanted = cv2.resize(np.asarray(upright.convert("RGB")), size, interpolation=cv2.INTER_AREA)
    assert psnr(decoded(result["media"]), wanted) > 30
    assert Pillow.open(io.BytesIO(result["media"])).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize(
    ("media", "config"),
    [
        (china(), {"resize": "no"}),
        (china(), {"size": 427}),
        (china(), {"size": 1000, "resize": "border"}),
        (china() + b"trailing bytes", {"resize": "no"}),
        (encoded(astronaut()[:, :, 0], "jpeg"), {"size": 512}),
        (encoded(astronaut(), "jpeg", progressive=True), {"size": 512, "only_if_bigger": False}),
        (encoded(astronaut(), "png"), {"size": 512, "encode": "png"}),
        (encoded(astronaut(), "webp"), {"size": 512, "encode": "webp"}),
    ],
)
def test_what_need_not_change_is_passed_on_byte_for_byte(media: bytes, config: dict[str, Any]) -> None:
    assert made(media, **config)["media"] == media


@pytest.mark.parametrize(
    ("media", "config"),
    [
        (china(), {"resize": "no", "encode": "png"}),
        (encoded(astronaut(), "png"), {"resize": "no"}),
        (encoded(Pillow.fromarray(astronaut()).convert("P"), "png"), {"resize": "no", "encode": "png"}),
        (encoded(Pillow.fromarray(astronaut()).convert("CMYK"), "jpeg"), {"resize": "no"}),
        (encoded(np.full((40, 40), 300, np.uint16), "png"), {"resize": "no", "encode": "png"}),
    ],
)
def test_what_must_change_does(media: bytes, config: dict[str, Any]) -> None:
    result = made(media, **config)["media"]
    assert result != media
    assert Pillow.open(io.BytesIO(result)).mode in ("RGB", "L")


@pytest.mark.parametrize("short_side", [427, 512, 640, 900, 1100])
def test_shrinking_while_decoding_loses_nothing_that_one_sees(short_side: int) -> None:
    for picture in (decoded(china()), astronaut(), skimage.data.coffee()):
        scale = short_side / min(picture.shape[:2])
        larger = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        media = encoded(larger, "jpeg", quality=95)
        full = decoded(media)
        for size in (256, 120, 61):
            result = made(media, size=size, encode="png")
            wanted = cv2.resize(full, (result["width"], result["height"]), interpolation=cv2.INTER_AREA)
            assert psnr(decoded(result["media"]), wanted) > 35


def test_chroma_sampling_that_the_fast_decoder_does_not_know() -> None:
    media = bytearray(encoded(astronaut(), "jpeg", quality=90, subsampling="4:2:0"))
    media[media.index(b"\xff\xc0") + 11] = 0x42
    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg(bytes(media))
    result = made(bytes(media), resize="no", encode="png")
    assert (decoded(result["media"]) == decoded(bytes(media))).all()
    result = made(bytes(media), size=61, encode="png")
    wanted = cv2.resize(decoded(bytes(media)), (61, 61), interpolation=cv2.INTER_AREA)
    assert psnr(decoded(result["media"]), wanted) > 35


def test_transparency_becomes_white() -> None:
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[:32] = (255, 0, 0, 255)
    rgba[32:] = (0, 0, 0, 128)
    rgba[32:, 32:, 3] = 0
    for kind in ("png", "webp", "tiff"):
        pixels = decoded(made(encoded(rgba, kind), encode="png")["media"]).astype(int)
        assert np.abs(pixels[8, 8] - (255, 0, 0)).max() <= 4
        assert np.abs(pixels[48, 8] - 127).max() <= 4
        assert (pixels[48, 48] >= 252).all()
    palette = Pillow.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 0, 0, 255])
    palette.putpixel((0, 0), 0)
    pixels = decoded(made(encoded(palette, "gif", transparency=0), encode="png")["media"])
    assert pixels[0, 0].tolist() == [255, 255, 255] and pixels[5, 5].tolist() == [0, 0, 255]
    gray = np.zeros((8, 8, 2), np.uint8)
    gray[0, 0] = (200, 255)
    pixels = decoded(made(encoded(Pillow.fromarray(gray, "LA"), "png"), encode="png")["media"])
    assert pixels.shape == (8, 8) and pixels[0, 0] == 200 and pixels[5, 5] == 255


def test_deep_gray_keeps_its_tones() -> None:
    ramp = np.linspace(0, 65535, 256 * 16).reshape(16, 256).astype(np.uint16)
    wanted = np.rint(ramp / 257).astype(np.uint8)
    for kind in ("png", "tiff"):
        assert (decoded(made(encoded(ramp, kind), resize="no", encode="png")["media"]) == wanted).all()
    floats = (ramp / 65535).astype(np.float32)
    assert (decoded(made(encoded(floats, "tiff"), resize="no", encode="png")["media"]) == wanted).all()


def test_cmyk() -> None:
    for kind in ("jpeg", "tiff"):
        media = encoded(Pillow.fromarray(astronaut()).convert("CMYK"), kind)
        wanted = np.asarray(Pillow.open(io.BytesIO(media)).convert("RGB"))
        assert psnr(decoded(made(media, resize="no", encode="png")["media"]), wanted) > 45


def test_animations_give_their_first_frame() -> None:
    frames = [Pillow.fromarray(np.full((32, 32, 3), value, np.uint8)) for value in (250, 10)]
    for kind in ("gif", "webp", "png", "avif", "tiff"):
        media = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        pixels = decoded(made(media, encode="png")["media"])
        assert np.abs(pixels.astype(int) - 250).max() <= 3


def wide_gamut_profile() -> bytes:
    """A profile whose red and green are swapped: unmistakable when it is heeded."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for tag, other in ((b"rXYZ", b"tmp!"), (b"gXYZ", b"rXYZ"), (b"tmp!", b"gXYZ")):
        at = profile.index(tag, 128)
        profile[at : at + 4] = other
    at = profile.index(b"mluc", profile.index(b"desc", 128) + 12)
    description = profile.index("sRGB".encode("utf-16-be"), at)
    profile[description : description + 8] = "Odd!".encode("utf-16-be")
    return bytes(profile)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
def test_colour_profiles_are_heeded(kind: str) -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[:, :, 0] = 255
    plain = made(encoded(red, kind), encode="png")["media"]
    assert np.abs(decoded(plain)[32, 32].astype(int) - (255, 0, 0)).max() <= 3
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = made(encoded(red, kind, icc_profile=srgb), encode="png")["media"]
    assert (decoded(same) == decoded(plain)).all()
    odd = made(encoded(red, kind, icc_profile=wide_gamut_profile()), encode="png")["media"]
    assert np.abs(decoded(odd)[32, 32].astype(int) - (0, 255, 0)).max() <= 12
    broken = made(encoded(red, kind, icc_profile=b"no profile at all" * 20), encode="png")["media"]
    assert (decoded(broken) == decoded(plain)).all()


def test_exif_tags_without_the_place() -> None:
    exif = Pillow.Exif()
    exif[0x010F] = "Maker \ud800"[:6]
    exif[0x8769] = {0x829A: 0.004, 0x8827: 200, 0x927C: b"\0\1\2"}
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 0.0)}
    tags = json.loads(made(encoded(astronaut(), "jpeg", exif=exif))["exif"])
    assert tags == {"Make": "Maker", "ExposureTime": 0.004, "ISOSpeedRatings": 200}
    assert made(encoded(astronaut(), "jpeg"))["exif"] is None
    broken = encoded(astronaut(), "jpeg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xff" * 40)
    assert made(broken)["exif"] is None


def huge_png() -> bytes:
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(head)) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", len(data)) + b"IDAT" + data


def huge_jpeg() -> bytes:
    at = china().index(b"\xff\xc0") + 5
    return china()[:at] + struct.pack(">HH", 60000, 60000) + china()[at + 4 :]


@pytest.mark.parametrize(
    ("media", "config", "error"),
    [
        (None, {}, "not an image"),
        (b"", {}, "not an image"),
        (b"\0" * 1000, {}, "not an image"),
        (b"<!doctype html><html><body>404</body></html>", {}, "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", {}, "not an image"),
        (b"\0\0\0\x1cftypheic\0\0\0\0heicmif1" + bytes(100), {}, "unsupported image format"),
        (b"\0\0\0\x1cftypmp42\0\0\0\0mp42isom" + bytes(100), {}, "not an image"),
        (china()[:300], {}, "truncated image"),
        (china()[:50_000], {}, "truncated image"),
        (china()[:-2], {"resize": "no"}, "truncated image"),
        (china()[:50_000] + bytes(range(256)) * 4 + china()[51_024:], {}, "corrupt image"),
        (encoded(astronaut(), "png")[:20_000], {}, "truncated image"),
        (encoded(astronaut(), "bmp")[:20_000], {}, "truncated image"),
        (huge_png(), {}, "too many pixels"),
        (huge_jpeg(), {}, "too many pixels"),
        (china(), {"max_pixels": 640 * 427 - 1}, "too many pixels"),
        (encoded(astronaut()[:300, :1], "png"), {"only_if_bigger": False, "size": 10_000}, "too many pixels"),
        (china(), {"min_side": 428}, "too small"),
        (china(), {"max_aspect_ratio": 1.49}, "aspect ratio"),
        (encoded(astronaut(), "png"), {"size": 16383, "only_if_bigger": False, "max_pixels": 10**6}, "too many pixels"),
        (encoded(astronaut()[:4], "png"), {"size": 150, "only_if_bigger": False, "encode": "webp"}, "cannot encode"),
    ],
)
def test_what_fails_says_why(media: bytes | None, config: dict[str, Any], error: str) -> None:
    assert failure(media, **config) == error


def test_bounds_are_inclusive() -> None:
    assert made(china(), max_pixels=640 * 427, min_side=427, max_aspect_ratio=1.5)["width"] == 384


SEEDS = [encoded(astronaut()[:48, :64], k) for k in ("jpeg", "png", "gif", "webp", "bmp", "tiff", "avif")]
SEEDS.append(encoded(Pillow.fromarray(astronaut()[:48, :64]).convert("CMYK"), "jpeg", exif=Pillow.Exif()))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    st.floats(0.02, 1),
)
@example(SEEDS[0], [], 1.0)
def test_damaged_pictures_fail_or_succeed_but_never_surprise(
    media: bytes, damage: list[tuple[float, int]], part: float
) -> None:
    damaged = bytearray(media)
    for at, value in damage:
        damaged[int(at * len(damaged))] = value
    try:
        result = made(bytes(damaged[: int(part * len(damaged))]), size=32, max_pixels=1_000_000)
    except RowFailed:
        return
    assert decoded(result["media"]).shape[:2] == (result["height"], result["width"])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", *(seed[:16] for seed in SEEDS)]))
def test_random_bytes_fail(noise: bytes, head: bytes) -> None:
    with pytest.raises(RowFailed):
        made(head + noise)


def test_sniffing_is_by_content() -> None:
    kinds = ("jpeg", "png", "gif", "webp", "bmp", "tiff", "avif")
    assert [image_format(encoded(astronaut(), kind)) for kind in kinds] == list(kinds)
    assert image_format(b"BM") is None


def test_bytes_are_the_same_in_a_child_and_twice() -> None:
    media = [china(), encoded(astronaut(), "png"), b"junk", encoded(astronaut(), "webp")]
    batch = pa.table({"uid": list("abcd"), "media": pa.array(media, pa.large_binary())})
    image = Image(ImageConfig(size=100))
    isolated = IsolatedOperator(image)
    try:
        parts = isolated.process(batch)
    finally:
        isolated.close()
    assert isinstance(parts, list)
    (part,) = parts
    assert {i: e.error for i, e in part.errors.items()} == {2: "not an image"}
    column: Any = part.columns["media"]
    assert column.to_pylist() == [None if i == 2 else made(m, size=100)["media"] for i, m in enumerate(media)]
