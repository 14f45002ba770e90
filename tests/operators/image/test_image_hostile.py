"""Hostile pictures: each ends as a picture or as a failure that a person understands, quickly and in bounded memory."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pyarrow as pa
import pytest
import simplejpeg
import sklearn.datasets
from PIL import Image as Pillow
from PIL import ImageCms

from corpusmith.operators.image.image import Image, ImageConfig
from corpusmith.pipelines.cell import IsolatedOperator
from corpusmith.schemas.fates import RowFailed

pillow_heif.register_heif_opener()

BROKEN = {"truncated image", "corrupt image"}
REFUSED = {*BROKEN, "not an image", "unsupported image format", "too many pixels", "too small"}
MIB = 2**20
TIME_CAP_S = 5.0


@cache
def photo(width: int = 640, height: int = 427) -> Pillow.Image:
    path = Path(sklearn.datasets.__file__).parent / "images" / "china.jpg"
    image = Pillow.open(path).convert("RGB").resize((width, height))
    image.info.clear()
    return image


def encoded(image: Pillow.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@cache
def files(width: int, height: int) -> dict[str, bytes]:
    """A real picture in each format and in the rarer forms of some."""
    image = photo(width, height)
    exif = Pillow.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    about = {"exif": exif, "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    return {
        "jpeg": encoded(image, "jpeg", quality=90, **about),
        "progressive jpeg": encoded(image, "jpeg", quality=90, progressive=True),
        "cmyk jpeg": encoded(image.convert("CMYK"), "jpeg"),
        "png": encoded(image, "png", **about),
        "palette png": encoded(image.convert("P"), "png", transparency=3),
        "gif": encoded(image, "gif"),
        "animated gif": encoded(image, "gif", save_all=True, append_images=[image.rotate(9)]),
        "webp": encoded(image, "webp", **about),
        "lossless webp": encoded(image.convert("RGBA"), "webp", lossless=True),
        "bmp": encoded(image, "bmp"),
        "tiff": encoded(image, "tiff"),
        "lzw tiff": encoded(image, "tiff", compression="tiff_lzw"),
        "jpeg tiff": encoded(image, "tiff", compression="jpeg"),
        "avif": encoded(image, "avif", **about),
        "heif": encoded(image, "heif", **about),
    }


@cache
def operator(**config: Any) -> Image:
    image = Image(ImageConfig(**{"size": 64, "max_pixels": 2_000_000, **config}))
    image.setup()
    return image


def fate(media: bytes, **config: Any) -> str:
    """ "ok", or the class of the failure; anything else than RowFailed fails the test, and so does a long time."""
    started = time.process_time()
    try:
        result = operator(**config).process_row({"uid": "u", "media": media})
    except RowFailed as failure:
        found = failure.row_error.error
        assert failure.row_error.message and len(str(failure)) < 400
    else:
        found = "ok"
        assert simplejpeg.decode_jpeg_header(result["media"])[:2] == (result["height"], result["width"])
        assert json.loads(result["exif"] or "{}") is not None
    assert time.process_time() - started < TIME_CAP_S
    return found


@pytest.mark.parametrize("kind", sorted(files(300, 200)))
def test_truncated_at_every_kilobyte(kind: str) -> None:
    media = files(300, 200)[kind]
    assert fate(media) == "ok"
    cuts = {end: fate(media[:end]) for end in range(1024, len(media), 1024)}
    allowed = {"ok", *BROKEN} if kind == "animated gif" else BROKEN
    assert cuts and set(cuts.values()) <= allowed
    truncated = sum(found == "truncated image" for found in cuts.values())
    assert truncated >= (0.4 if kind == "animated gif" else 0.9) * len(cuts)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, *extra: bytes) -> bytes:
    """A gray PNG header with 1,000 bytes of pixels, chunks before them."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = zlib.compress(bytes((width + 1) * height if width * height < 10**6 else 1000))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def claiming(kind: str, width: int, height: int) -> bytes:
    """A real small file whose header claims another size."""
    data = bytearray(files(300, 200)[kind])
    if kind == "jpeg":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    elif kind == "gif":
        data[6:10] = struct.pack("<HH", width, height)
        at = data.index(b"\x2c\0\0\0\0", 781) + 5
        data[at : at + 4] = struct.pack("<HH", width, height)
    elif kind == "webp":
        assert data[12:16] == b"VP8X"
        data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif kind == "bmp":
        data[18:26] = struct.pack("<ii", width, height)
    elif kind == "tiff":
        (first,) = struct.unpack_from("<I", data, 4)
        for i in range(struct.unpack_from("<H", data, first)[0]):
            at = first + 2 + 12 * i
            tag = struct.unpack_from("<H", data, at)[0]
            if tag in (256, 257):
                data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, width if tag == 256 else height)
    else:
        at = data.index(b"ispe") + 8
        data[at : at + 8] = struct.pack(">II", width, height)
    return bytes(data)


@pytest.mark.parametrize("size", [(65500, 65500), (31623, 31623), (16383, 16383), (9000, 4000)])
@pytest.mark.parametrize("kind", ["jpeg", "gif", "webp", "bmp", "tiff", "avif", "heif", "png"])
def test_headers_that_claim_too_much(kind: str, size: tuple[int, int]) -> None:
    media = png_of(*size) if kind == "png" else claiming(kind, *size)
    expected = {"too many pixels"}
    if kind in ("avif", "heif"):
        expected |= BROKEN  # their libraries have bounds of their own, and compare sizes
    assert fate(media) in expected


@pytest.mark.parametrize("kind", ["jpeg", "gif", "webp", "bmp", "tiff", "avif", "heif"])
def test_headers_that_lie(kind: str) -> None:
    """More or fewer pixels than there are, within what is allowed: no surprise, whatever comes of it."""
    for size in ((600, 400), (301, 200), (300, 201), (150, 100), (1, 20000), (20000, 1), (1, 1)):
        assert fate(claiming(kind, *size)) in {"ok", *REFUSED}


@pytest.mark.parametrize("kind", ["jpeg", "gif", "bmp", "tiff", "avif", "heif"])
def test_no_pixels(kind: str) -> None:
    assert fate(claiming(kind, 0, 0)) in {"too small", *BROKEN}
    assert fate(png_of(0, 0)) in {"too small", *BROKEN}


@pytest.mark.parametrize("kind", ["jpeg", "png", "bmp", "tiff", "gif"])
@pytest.mark.parametrize("size", [(1, 20000), (20000, 1)])
def test_threads(kind: str, size: tuple[int, int]) -> None:
    media = encoded(Pillow.new("RGB", size, "red"), kind)
    assert fate(media) == "ok"
    assert fate(media, resize="keep_ratio_largest") == "ok"
    assert fate(media, resize="center_crop", only_if_bigger=False) == "too many pixels"
    assert fate(media, max_aspect_ratio=3.0) == "aspect ratio"


def gif_frame(width: int, height: int) -> bytes:
    return b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\0"


GIF_HEAD = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)


def test_endless_gifs() -> None:
    for frame in (gif_frame(1, 1), gif_frame(0, 0)):
        endless = GIF_HEAD + gif_frame(1, 1) + frame * 300_000
        assert fate(endless) == "ok"
        assert fate(endless, animations="refuse") == "animated image"
    assert fate(GIF_HEAD + gif_frame(0, 0) * 300_000) in {"ok", *BROKEN}
    assert fate(GIF_HEAD + (b"\x21\xfe" + (b"\xff" + bytes(255)) * 40_000 + b"\0") + gif_frame(1, 1)) == "ok"
    assert fate(GIF_HEAD + b"\x21\xfe" + (b"\xff" + bytes(255)) * 40_000) == "truncated image"
    assert fate(GIF_HEAD + b"\x21\xf9\0" * 2_000_000) == "corrupt image"


def test_polyglots_and_impostors() -> None:
    media = files(300, 200)
    script = b"GIF89a=1;/*" + media["gif"][11:] + b"*/alert(1)"
    assert fate(script) in {"ok", *BROKEN, "too many pixels"}
    archive = media["jpeg"] + b"PK\x03\x04" + bytes(500)
    assert fate(archive) == "ok"
    assert (
        operator(resize="no", max_pixels=10**6, reencode="always")
        .process_row({"media": archive})["media"]
        .find(b"PK\x03\x04")
        == -1
    )
    assert fate(b"%PDF-1.7\n" + media["jpeg"]) == "not an image"
    assert fate(b"<html><body>gone</body></html>") == "not an image"
    assert fate(b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>') == "unsupported image format"
    assert fate(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50)) == "unsupported image format"
    with pytest.raises(RowFailed, match=r"text/html, 30 bytes"):
        operator().process_row({"media": b"<html><body>gone</body></html>"})


def directory(order: str, *entries: tuple[int, int, int, int]) -> bytes:
    packed = b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
    return struct.pack(order + "H", len(entries)) + packed + bytes(4)


def greedy_exif(size: int, tags: int = 5000) -> bytes:
    """Tags that all claim the same bytes."""
    start = 8 + 2 + 12 * tags + 4
    body = directory("<", *((1000 + i, 7, size, start) for i in range(tags)))
    return b"II*\0" + struct.pack("<I", 8) + body + bytes(size)


LOOP = b"II*\0" + struct.pack("<I", 8) + directory("<", (0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0xA005, 4, 1, 8))


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    packed = b"".join(struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data for marker, data in segments)
    media = files(300, 200)["progressive jpeg"]
    return media[:2] + packed + media[2:]


def test_absurd_metadata_of_jpegs() -> None:
    assert fate(jpeg_with((0xE1, b"Exif\0\0" + LOOP))) == "ok"
    assert fate(jpeg_with((0xE1, b"Exif\0\0" + greedy_exif(5000)[:65000]))) == "ok"
    assert fate(jpeg_with(*[(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + bytes(60_000))] * 160)) == "ok"
    assert fate(jpeg_with(*[(0xE4, b"x")] * 900)) == "ok"
    assert fate(jpeg_with(*[(0xE4, b"x")] * 1000)) == "corrupt image"
    assert fate(jpeg_with(*[(0xE2, b"ICC_PROFILE\0" + bytes((i, 250)) + bytes(60_000)) for i in range(250)])) == "ok"
    scans = files(300, 200)["progressive jpeg"]
    last = scans.rindex(b"\xff\xda")
    assert fate(scans[:-2] + scans[last:-2] * 300 + b"\xff\xd9") == "corrupt image"


def test_absurd_metadata_of_pngs() -> None:
    bomb = zlib.compress(bytes(100 * MIB), 9)
    assert fate(png_of(100, 50, chunk(b"zTXt", b"key\0\0" + bomb))) == "ok"
    assert fate(png_of(100, 50, chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb))) == "ok"
    assert fate(png_of(100, 50, chunk(b"iCCP", b"icc\0\0" + bomb))) == "ok"
    assert fate(png_of(100, 50, chunk(b"eXIf", greedy_exif(10 * MIB, 60_000)))) == "ok"
    assert fate(png_of(100, 50, chunk(b"eXIf", LOOP))) == "ok"
    assert fate(png_of(100, 50, *[chunk(b"tEXt", b"a\0b")] * 50_000)) == "ok"
    assert fate(png_of(100, 50, *[chunk(b"tEXt", b"a\0b")] * 200_000)) == "corrupt image"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["webp", "avif", "heif"])
def test_absurd_exif_of_others(kind: str) -> None:
    written = 0
    for exif in (greedy_exif(MIB, 60_000), LOOP, b"II*\0" + b"\xff" * 40):
        try:
            media = encoded(photo(64, 48), kind, exif=b"Exif\0\0" + exif)
        except (ValueError, OSError, RuntimeError):  # the writer itself would not have it
            continue
        assert fate(media) in {"ok", "corrupt image"}
        written += 1
    assert written


def test_absurd_tags_of_tiffs() -> None:
    assert fate(greedy_exif(MIB, 60_000)) == "corrupt image"
    assert fate(LOOP) in BROKEN
    tiles = ((256, 4, 1, 10), (257, 4, 1, 10), (322, 4, 1, 2**20), (323, 4, 1, 2**20), (324, 4, 1, 8), (325, 4, 1, 9))
    assert fate(b"II*\0" + struct.pack("<I", 8) + directory("<", *tiles)) == "corrupt image"
    assert fate(b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**63)) in BROKEN


def mutated(media: bytes, draw: random.Random) -> bytes:
    """Bytes flipped, runs put in, taken out and doubled; more of that near the start, where headers are."""
    data = bytearray(media)
    for _ in range(draw.randint(1, 6)):
        at, length = int(draw.random() ** draw.choice((1, 3)) * len(data)), draw.choice((1, 2, 4, 16, 300))
        change = draw.randrange(4)
        if change == 0:
            for i in range(at, min(at + length, len(data))):
                data[i] = draw.randrange(256)
        elif change == 1:
            data[at:at] = draw.randbytes(length)
        elif change == 2:
            del data[at : at + length]
        else:
            data[at:at] = data[max(at - length, 0) : at]
    return bytes(data)


def mutants(count: int) -> list[bytes]:
    draw = random.Random(4)
    seeds = list(files(120, 80).values())
    return [mutated(draw.choice(seeds), draw) for _ in range(count)]


CHILD = """
import pickle, resource, sys, time
from corpusmith.operators.image.image import Image, ImageConfig
from corpusmith.schemas.fates import RowFailed
media = pickle.load(sys.stdin.buffer)
image = Image(ImageConfig(size=64, max_pixels=2_000_000))
image.setup()
image.process_row({"media": media[0]})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fates, longest = [], 0.0
for data in media:
    started = time.process_time()
    try:
        image.process_row({"media": data})
        fates.append("ok")
    except RowFailed as failure:
        fates.append(failure.row_error.error)
    longest = max(longest, time.process_time() - started)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pickle.dump((fates, longest, (after - before) * 1024), sys.stdout.buffer)
"""


def in_a_child(media: list[bytes]) -> tuple[list[str], float, int]:
    """Fates, the longest time of one and by how much peak memory grew; any other exception fails the child."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input=pickle.dumps(media), capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return pickle.loads(done.stdout)


def test_a_thousand_mutants() -> None:
    fates, longest_s, grown = in_a_child([files(120, 80)["jpeg"], *mutants(1000)])
    counted = Counter(fates)
    assert set(counted) <= {"ok", *REFUSED, "cannot resize"}
    assert counted["ok"] > 100 and counted["corrupt image"] > 200 and counted["truncated image"] > 50
    assert longest_s < TIME_CAP_S
    assert grown < 100 * MIB


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bombs_stay_small() -> None:
    bomb = zlib.compress(bytes(200 * MIB), 9)
    media = [
        files(120, 80)["jpeg"],
        *(claiming(kind, 16383, 16383) for kind in ("jpeg", "gif", "webp", "bmp", "tiff", "avif", "heif")),
        png_of(65500, 65500),
        *(png_of(100, 50, chunk(kind, b"key\0\0" + bomb)) for kind in (b"zTXt", b"iCCP")),
        jpeg_with((0xE1, b"Exif\0\0" + greedy_exif(5000)[:65000])),
        greedy_exif(MIB, 60_000),
    ]
    for kind in ("webp", "avif", "heif"):
        media.append(encoded(photo(64, 48), kind, exif=b"Exif\0\0" + greedy_exif(30_000, 2000)))
    fates, longest_s, grown = in_a_child(media)
    assert set(fates) <= {"ok", *REFUSED}
    assert longest_s < TIME_CAP_S and grown < 100 * MIB


@pytest.mark.slow
def test_a_thousand_mutants_in_an_isolated_cell() -> None:
    media = mutants(1000)
    image = Image(ImageConfig(size=64, max_pixels=2_000_000))
    isolated = IsolatedOperator(image)
    try:
        for start in range(0, len(media), image.batch_rows):
            some = media[start : start + image.batch_rows]
            batch = pa.table({"uid": list(map(str, range(len(some)))), "media": pa.array(some, pa.large_binary())})
            parts = isolated.process(batch)
            assert isinstance(parts, list)
            for part in parts:
                made: Any = part.columns["media"]
                for i, value in enumerate(made.to_pylist()):
                    assert (value is None) == (i in part.errors)
                    assert value is None or np.asarray(Pillow.open(io.BytesIO(value))).size
                assert {error.error for error in part.errors.values()} <= {*REFUSED, "cannot resize"}
        assert len(isolated.pids) == 1
    finally:
        isolated.close()
