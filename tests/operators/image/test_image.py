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
import pillow_heif
import pyarrow as pa
import pytest
import simplejpeg
import skimage.data
import sklearn.datasets
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageCms, ImageOps

from corpusmith.operators.image import decode
from corpusmith.operators.image.image import Image, ImageConfig
from corpusmith.operators.image.sniff import image_format
from corpusmith.pipelines.cell import IsolatedOperator
from corpusmith.schemas.fates import RowFailed

pillow_heif.register_heif_opener()


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


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "webp", "bmp", "tiff", "avif", "heif"])
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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "avif", "heif"])
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


def lanczos(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Pillow.fromarray(pixels).resize(size, Pillow.Resampling.LANCZOS))


@pytest.mark.parametrize("short_side", [300, 427, 512, 640, 1080])
def test_fast_is_nearly_as_faithful_as_the_area_average_of_the_whole(short_side: int) -> None:
    lost: list[float] = []
    for picture in (decoded(china()), astronaut(), skimage.data.coffee()):
        scale = short_side / min(picture.shape[:2])
        larger = lanczos(picture, (round(picture.shape[1] * scale), round(picture.shape[0] * scale)))
        media = encoded(larger, "jpeg", quality=95, subsampling="4:2:0")
        for size in (256, 61):
            result = made(media, size=size, encode="png")
            wanted = lanczos(decoded(media), (result["width"], result["height"]))
            by_area = cv2.resize(decoded(media), (result["width"], result["height"]), interpolation=cv2.INTER_AREA)
            fast = psnr(decoded(result["media"]), wanted)
            assert fast > 33
            lost.append(psnr(by_area, wanted) - fast)
            finest = made(media, size=size, encode="png", downscale="lanczos_antialias", fidelity="fine")
            assert psnr(decoded(finest["media"]), wanted) > 60
    assert max(lost) < 3.5 and np.mean(lost) < 1.5


def test_chroma_sampling_that_the_fast_decoder_does_not_know() -> None:
    media = bytearray(encoded(astronaut(), "jpeg", quality=90, subsampling="4:2:0"))
    media[media.index(b"\xff\xc0") + 11] = 0x42
    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg(bytes(media))
    result = made(bytes(media), resize="no", encode="png")
    assert (decoded(result["media"]) == decoded(bytes(media))).all()
    result = made(bytes(media), size=61, encode="png")
    assert psnr(decoded(result["media"]), lanczos(decoded(bytes(media)), (61, 61))) > 33


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


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "avif", "tiff"])
def test_animations_give_their_first_frame_or_are_refused(kind: str) -> None:
    frames = [Pillow.fromarray(np.full((32, 32, 3), value, np.uint8)) for value in (250, 10)]
    media = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    pixels = decoded(made(media, encode="png")["media"])
    assert np.abs(pixels.astype(int) - 250).max() <= 3
    assert failure(media, animations="refuse") == "animated image"
    assert made(encoded(frames[0], kind), animations="refuse")["width"] == 32


def test_cmyk_is_inverted_only_by_adobe() -> None:
    inks = np.zeros((64, 64, 4), np.uint8)
    inks[:, :, 0] = 255
    by_adobe = encoded(Pillow.fromarray(inks, "CMYK"), "jpeg", quality=100)
    assert b"Adobe" in by_adobe[:64]
    for media in (by_adobe, bare_cmyk(by_adobe)):
        pixels = decoded(made(media, encode="png")["media"]).astype(int)
        assert np.abs(pixels - (0, 255, 255)).max() <= 3
    ycck = simplejpeg.encode_jpeg(255 - inks, 100, "CMYK", "444")
    assert ycck[ycck.index(b"Adobe") + 11] == 2
    assert np.abs(decoded(made(ycck, encode="png")["media"]).astype(int) - (0, 255, 255)).max() <= 3


def bare_cmyk(by_adobe: bytes) -> bytes:
    """The same inks as a CMYK JPEG that is not inverted and does not say Adobe."""
    inverted = encoded(
        Pillow.fromarray(255 - np.asarray(Pillow.open(io.BytesIO(by_adobe))), "CMYK"), "jpeg", quality=100
    )
    at = inverted.index(b"\xff\xee")
    return inverted[:at] + inverted[at + 2 + int.from_bytes(inverted[at + 2 : at + 4], "big") :]


def test_deep_colour_keeps_its_tones() -> None:
    ramp = np.linspace(0, 65535, 256 * 16).reshape(16, 256).astype(np.uint16)
    deep = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=2)
    for extension in (".png", ".tiff"):
        media = cv2.imencode(extension, deep[:, :, ::-1])[1].tobytes()
        pixels = decoded(made(media, resize="no", encode="png")["media"]).astype(int)
        assert np.abs(pixels - deep / 257).max() <= 1


def test_reencode() -> None:
    media = encoded(astronaut(), "jpeg", quality=90)
    assert made(media, size=512)["media"] == media
    assert made(media, size=512, reencode="always")["media"] != media
    turned = Pillow.Exif()
    turned[0x0112] = 6
    for kept in (media, encoded(astronaut()[:100], "gif"), encoded(astronaut()[:100], "png", exif=turned)):
        result = made(kept, size=64, resize="border", reencode="never")
        assert result["media"] == kept
        assert (result["width"], result["height"]) == (result["original_width"], result["original_height"])
    assert failure(media[:9000], reencode="never") == "truncated image"
    assert failure(media, reencode="never", min_side=513) == "too small"


def test_png_compression() -> None:
    sizes = [len(made(china(), encode="png", png_compression=level)["media"]) for level in (0, 1, 9)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_bytes_behind_the_pixels_do_no_harm() -> None:
    media = encoded(astronaut(), "jpeg")
    padded = media[:-2] + bytes(50) + media[-2:]
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(padded)
    assert (decoded(made(padded, encode="png")["media"]) == decoded(made(media, encode="png")["media"])).all()


def test_heif_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    media = encoded(astronaut(), "heif")
    assert made(media)["image_format"] == "heif"
    monkeypatch.setattr(decode, "_has_heif", lambda: False)
    with pytest.raises(RowFailed, match=r"unsupported image format: heif: install corpusmith\[heic\]"):
        made(media)


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


def gray_profile() -> bytes:
    """A gray profile of gamma 1 (ICC.1, 8.3): what is linear there is lighter in sRGB."""
    text = b"desc" + bytes(4) + struct.pack(">I", 7) + b"linear\0" + bytes(79)
    tags = [(b"desc", text), (b"wtpt", b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061))]
    tags.append((b"kTRC", b"curv" + bytes(8)))
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags:
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    about = b"mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    head = struct.pack(">I4sI", at + len(body), b"lcms", 0x02100000) + about
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff"])
def test_gray_profiles_are_heeded(kind: str) -> None:
    ImageCms.ImageCmsProfile(io.BytesIO(gray_profile()))
    gray = np.full((32, 32), 64, np.uint8)
    pixels = decoded(made(encoded(gray, kind, icc_profile=gray_profile()), encode="png")["media"])
    assert pixels.shape == (32, 32) and np.abs(pixels.astype(int) - 137).max() <= 2
    plain = decoded(made(encoded(gray, kind, icc_profile=wide_gamut_profile()), encode="png")["media"])
    assert np.abs(plain.astype(int) - 64).max() <= 1


def test_palettes_have_profiles_too() -> None:
    red = Pillow.new("P", (16, 16), 1)
    red.putpalette([0, 0, 0, 255, 0, 0])
    pixels = decoded(made(encoded(red, "png", icc_profile=wide_gamut_profile()), encode="png")["media"])
    assert np.abs(pixels[8, 8].astype(int) - (0, 255, 0)).max() <= 12


def test_exif_tells_the_place_only_if_asked() -> None:
    exif = Pillow.Exif()
    exif[0x8825] = {0: b"\2\3\0\0", 1: "N", 2: (48.0, 8.0, 0.5)}
    for kind in ("jpeg", "png", "webp"):
        media = encoded(astronaut(), kind, exif=exif)
        assert made(media)["exif"] is None
        place = json.loads(made(media, exif_location=True)["exif"])["GPSInfo"]
        assert place["GPSLatitudeRef"] == "N" and place["GPSLatitude"] == [48.0, 8.0, 0.5]


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
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", {}, "unsupported image format"),
        (b"\0\0\0\x1cftypheic\0\0\0\0heicmif1" + bytes(100), {}, "corrupt image"),
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
        (china(), {"max_area": 640 * 427 - 1}, "area too large"),
        (encoded(Pillow.new("LAB", (9, 9)), "tiff"), {}, "unsupported image format"),
        (china().replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), {}, "unsupported image format"),
        (encoded(astronaut(), "png"), {"size": 16383, "only_if_bigger": False, "max_pixels": 10**6}, "too many pixels"),
        (encoded(astronaut()[:4], "png"), {"size": 150, "only_if_bigger": False, "encode": "webp"}, "cannot encode"),
    ],
)
def test_what_fails_says_why(media: bytes | None, config: dict[str, Any], error: str) -> None:
    assert failure(media, **config) == error


def test_bounds_are_inclusive() -> None:
    assert made(china(), max_pixels=640 * 427, max_area=640 * 427, min_side=427, max_aspect_ratio=1.5)["width"] == 384


SEEDS = [encoded(astronaut()[:48, :64], k) for k in ("jpeg", "png", "gif", "webp", "bmp", "tiff", "avif")]
SEEDS.append(encoded(Pillow.fromarray(astronaut()[:48, :64]).convert("CMYK"), "jpeg", exif=Pillow.Exif()))


@settings(max_examples=200, deadline=None)
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


@settings(max_examples=100, deadline=None)
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
