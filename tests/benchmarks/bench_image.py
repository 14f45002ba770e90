"""Images a second on one core: the image step against the loop that users have today, on the same pictures.

The loop is img2dataset's: `cv2.imdecode`, `cv2.resize` with INTER_AREA, `cv2.imencode`. Both make a JPEG of quality 95
with the shorter side at 256; the loop does not look at orientation, colour profiles, EXIF or truncation. Run it as
`python tests/benchmarks/bench_image.py`; both take turns, and the medians of their turns are compared.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import simplejpeg
import skimage.data
import sklearn.datasets

from corpusmith.operators.image.image import Image, ImageConfig
from corpusmith.pipelines.cell import IsolatedOperator

SIZE = 256
TURNS = 7
TURN_S = 0.7


def photos(short_side: int | None) -> list[bytes]:
    """Real photos as JPEGs; scaled to a common shorter side, or as they come (300 to 1,411 pixels)."""
    skimage_files = [Path(skimage.data.__file__).parent / name for name in ("retina.jpg", "hubble_deep_field.jpg")]
    sklearn_files = [Path(sklearn.datasets.__file__).parent / "images" / name for name in ("china.jpg", "flower.jpg")]
    media = [path.read_bytes() for path in (*skimage_files, *sklearn_files)]
    arrays = [skimage.data.coffee(), skimage.data.astronaut(), skimage.data.chelsea()]
    media += [simplejpeg.encode_jpeg(np.ascontiguousarray(a), 92, colorsubsampling="420") for a in arrays]
    if short_side is None:
        return media
    scaled = []
    for picture in map(simplejpeg.decode_jpeg, media):
        scale = short_side / min(picture.shape[:2])
        pixels = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        scaled.append(simplejpeg.encode_jpeg(pixels, 92, colorsubsampling="420"))
    return scaled


def loop(media: bytes) -> bytes:
    """img2dataset's way."""
    pixels = cv2.imdecode(np.frombuffer(media, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    height, width = pixels.shape[:2]
    scale = SIZE / min(width, height)
    if scale < 1:
        pixels = cv2.resize(pixels, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def rate(work: Callable[[], int]) -> float:
    """Images a second of one turn; `work` returns how many it did."""
    started, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < TURN_S:
        done += work()
    return done / elapsed


def compare(name: str, media: list[bytes]) -> None:
    """Print one line."""
    image = Image(ImageConfig(size=SIZE))
    image.setup()
    batch = pa.table({"uid": list(map(str, range(len(media)))), "media": pa.array(media, pa.large_binary())})
    isolated = IsolatedOperator(Image(ImageConfig(size=SIZE)))
    isolated.process(batch)
    ways: dict[str, Callable[[], int]] = {
        "loop": lambda: len([loop(m) for m in media]),
        "image": lambda: len([image.process_row({"uid": "", "media": m}) for m in media]),
        "image in a cell": lambda: len(media) if isolated.process(batch) else 0,
    }
    turns = [{way: rate(work) for way, work in ways.items()} for _ in range(TURNS)]
    isolated.close()
    medians = {way: statistics.median(turn[way] for turn in turns) for way in ways}
    shown = "; ".join(f"{way} {value:.0f}/s (×{value / medians['loop']:.2f})" for way, value in medians.items())
    sys.stdout.write(f"{name}: {shown}\n")


if __name__ == "__main__":
    cv2.setNumThreads(1)
    compare("as they come, 300–1411 px", photos(None))
    for side in (640, 800, 1080, 2160):
        compare(f"shorter side {side} px", photos(side))
    compare(f"shorter side {SIZE} px already", photos(SIZE))
