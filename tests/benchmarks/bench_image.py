"""Images a second on one core: the image step against the loop that users have today, and what its speed costs.

The loop is img2dataset's: `cv2.imdecode`, `cv2.resize` with INTER_AREA, `cv2.imencode`. All make a JPEG of quality 95
with the shorter side at 256; the loop does not look at orientation, colour profiles, EXIF or truncation. All ways take
turns on the same pictures and are measured by processor time; a ratio is the median of the ratios within a turn. Real
photos, scaled by Pillow's LANCZOS to a common shorter side; at 640 to 1,000 pixels they have 100 to 300 kB.

The second table is PSNR in dB, mean and least over the photos, against Pillow's LANCZOS of the whole picture: how near
to an ideal filter a result is before it is encoded. Run it as `python tests/benchmarks/bench_image.py`.
"""

from __future__ import annotations

import io
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
from PIL import Image as Pillow

from corpusmith.operators.image.image import Image, ImageConfig
from corpusmith.pipelines.cell import IsolatedOperator

SIZE = 256
TURNS = 5
TURN_S = 0.2


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
        pixels = lanczos(picture, (round(picture.shape[1] * scale), round(picture.shape[0] * scale)))
        scaled.append(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), 92, colorsubsampling="420"))
    return scaled


def lanczos(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The yardstick."""
    return np.asarray(Pillow.fromarray(pixels).resize(size, Pillow.Resampling.LANCZOS))


def shrunk_by_opencv(media: bytes) -> np.ndarray:
    """img2dataset's pixels, BGR."""
    pixels = cv2.imdecode(np.frombuffer(media, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    height, width = pixels.shape[:2]
    scale = SIZE / min(width, height)
    if scale >= 1:
        return pixels
    return cv2.resize(pixels, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


def loop(media: bytes) -> bytes:
    """img2dataset's way."""
    return cv2.imencode(".jpg", shrunk_by_opencv(media), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def operator(**config: str) -> Image:
    """The image step, set up."""
    image = Image(ImageConfig.model_validate({"size": SIZE, **config}))
    image.setup()
    return image


def rate(work: Callable[[], object], images: int) -> float:
    """Images a second of this process's own time, which others on the machine cannot take."""
    started, done = time.process_time(), 0
    while (elapsed := time.process_time() - started) < TURN_S:
        work()
        done += images
    return done / elapsed


def compare(name: str, media: list[bytes]) -> None:
    """Print one line of rates."""
    fast, fine = operator(), operator(fidelity="fine")
    ways: dict[str, Callable[[], object]] = {
        "loop": lambda: [loop(m) for m in media],
        "fast": lambda: [fast.process_row({"uid": "", "media": m}) for m in media],
        "fine": lambda: [fine.process_row({"uid": "", "media": m}) for m in media],
    }
    turns = [{way: rate(work, len(media)) for way, work in ways.items()} for _ in range(TURNS)]
    shown = [f"{way} {statistics.median(t[way] for t in turns):.0f}/s" for way in ways]
    ratios = [f"(×{statistics.median(t[way] / t['loop'] for t in turns):.2f})" for way in ways]
    told = "; ".join(f"{value} {ratio}" for value, ratio in zip(shown, ratios, strict=True))
    sys.stdout.write(f"{name}, {statistics.mean(map(len, media)) / 1e3:.0f} kB: {told}\n")
    sys.stdout.flush()


def child_cost(media: list[bytes]) -> None:
    """Print what the pipes to and from the isolated child cost an image: wall time less the child's own."""
    batch = pa.table({"uid": list(map(str, range(len(media)))), "media": pa.array(media, pa.large_binary())})
    isolated = IsolatedOperator(Image(ImageConfig(size=SIZE)))
    isolated.process(batch)
    costs, works = [], []
    for _ in range(4 * TURNS):
        started, busy_before_s = time.perf_counter(), isolated.busy_s
        isolated.process(batch)
        works.append((isolated.busy_s - busy_before_s) / len(media))
        costs.append((time.perf_counter() - started) / len(media) - works[-1])
    isolated.close()
    size_kb = statistics.mean(map(len, media)) / 1e3
    told = f"{1e3 * min(costs):.2f} ms (median {1e3 * statistics.median(costs):.2f})"
    sys.stdout.write(f"child process, {size_kb:.0f} kB: {told} an image beside {1e3 * min(works):.2f} ms of work\n")


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal to noise ratio in dB, 99 for equal pixels."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return 99.0 if error == 0 else 10 * float(np.log10(255**2 / error))


def fidelity(name: str, media: list[bytes]) -> None:
    """Print one line of PSNR."""
    options = {
        "fast": operator(encode="png"),
        "fine": operator(encode="png", fidelity="fine"),
        "fast lanczos_antialias": operator(encode="png", downscale="lanczos_antialias"),
        "fine lanczos_antialias": operator(encode="png", downscale="lanczos_antialias", fidelity="fine"),
    }
    found: dict[str, list[float]] = {"OpenCV AREA": [], **{way: [] for way in options}}
    for picture in media:
        by_opencv = shrunk_by_opencv(picture)[:, :, ::-1]
        wanted = lanczos(simplejpeg.decode_jpeg(picture), (by_opencv.shape[1], by_opencv.shape[0]))
        found["OpenCV AREA"].append(psnr(by_opencv, wanted))
        for way, image in options.items():
            made = image.process_row({"uid": "", "media": picture})["media"]
            found[way].append(psnr(np.asarray(Pillow.open(io.BytesIO(made))), wanted))
    told = "; ".join(f"{way} {statistics.mean(v):.1f} (least {min(v):.1f})" for way, v in found.items())
    sys.stdout.write(f"{name}: {told}\n")


if __name__ == "__main__":
    cv2.setNumThreads(1)
    sides = (640, 800, 1000, 1080, 1411, 2160)
    compare("as they come, 300–1411 px", photos(None))
    for side in sides:
        compare(f"shorter side {side} px", photos(side))
    small = operator()
    compare(f"{SIZE} px already", [small.process_row({"uid": "", "media": m})["media"] for m in photos(640)])
    child_cost(photos(850))
    fidelity("PSNR as they come", photos(None))
    for side in sides:
        fidelity(f"PSNR {side} px", photos(side))
