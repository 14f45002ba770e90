"""Hashes of pictures a second on one core, how far they are from imagehash's, and a pool of hashes deduplicated.

Run it as `python tests/benchmarks/bench_perceptual.py`. The loop is imagehash's: Pillow decodes, makes gray and scales
by Lanczos; two DCTs, a median. imagehash takes SciPy's DCT; two products with a matrix of cosines stand for it here,
which cost less. Both take turns on the same pictures, and the medians of their turns are compared. Times are of the
cores' clock, so that others at work on the machine count for little.
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import simplejpeg
from bench_image import photos
from PIL import Image
from timing import say

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' helpers

from shuffled import ShuffledRows

from corpusmith.operators.dedup import hamming
from corpusmith.operators.dedup.perceptual import Perceptual
from corpusmith.operators.dedup.phash import Phash

TURNS = 5
TURN_S = 0.5
COSINES = 2 * np.cos(np.pi * np.outer(np.arange(32), 2 * np.arange(32) + 1) / 64)


def loop(media: bytes) -> int:
    """imagehash's way."""
    gray = np.asarray(Image.open(io.BytesIO(media)).convert("L").resize((32, 32), Image.Resampling.LANCZOS))
    lowest = (COSINES @ gray.astype(np.float64) @ COSINES.T)[:8, :8]
    return int.from_bytes(np.packbits(lowest > np.median(lowest)).tobytes())


def crops(media: list[bytes], each: int) -> list[bytes]:
    """Parts of the photos, which stand for so many photos."""
    drawn, made = np.random.default_rng(0), []
    for picture in map(simplejpeg.decode_jpeg, media):
        for _ in range(each):
            height, width = (int(drawn.integers(side // 4, side)) for side in picture.shape[:2])
            top, left = drawn.integers(0, picture.shape[0] - height), drawn.integers(0, picture.shape[1] - width)
            part = np.ascontiguousarray(picture[top : top + height, left : left + width])
            made.append(simplejpeg.encode_jpeg(part, 90, colorsubsampling="420"))
    return made


def rate(work: Callable[[bytes], int], media: list[bytes]) -> float:
    """Pictures a second of one turn."""
    started, done = time.thread_time(), 0
    while (elapsed := time.thread_time() - started) < TURN_S:
        work(media[done % len(media)])
        done += 1
    return done / elapsed


def compare_rates(name: str, work: Callable[[bytes], int], media: list[bytes]) -> None:
    """Print one line: both ways, per second of one core."""
    turns = [(rate(loop, media), rate(work, media)) for _ in range(TURNS)]
    slow, fast = (statistics.median(turn[i] for turn in turns) for i in range(2))
    say(f"{name}: loop {slow:.0f}/s; phash {fast:.0f}/s (×{fast / slow:.2f})")


def compare_hashes(work: Callable[[bytes], int], media: list[bytes]) -> None:
    """Print how many pictures have how many other bits than imagehash gives them."""
    apart = np.bincount([(loop(data) ^ work(data)).bit_count() for data in media])
    shown = ", ".join(f"{bits}: {count}" for bits, count in enumerate(apart) if count)
    say(f"bits apart from imagehash's, of {len(media)} parts of photos: {shown}")


def pool(count: int) -> np.ndarray:
    """Hashes of a crawl's kind: seven in ten pictures are one of a kind, the others copies with 0 to 3 bits changed;
    every hundredth is flat."""
    drawn = np.random.default_rng(0)
    bases = drawn.integers(0, 2**64, count * 7 // 10, np.uint64, endpoint=False)
    hashes = bases[drawn.integers(0, len(bases), count)]
    for _ in range(3):
        flips = np.uint64(1) << drawn.integers(0, 64, count, np.uint64)
        hashes = np.where(drawn.random(count) < 0.5, hashes ^ flips, hashes)
    hashes[::100] = 1 << 63
    return hashes


def deduplicate(count: int, radius: int) -> None:
    """Print one line: the whole reduce, and the search within it, in seconds of a core."""
    hashes = pool(count)
    table = pa.table({"uid": [f"{i:032x}" for i in range(count)], "phash": [f"{value:016x}" for value in hashes]})
    with tempfile.TemporaryDirectory() as folder:
        rows = ShuffledRows(table, Path(folder))
        started = time.process_time()
        reduced = Perceptual(Perceptual.Config(radius=radius)).reduce(rows)
        whole_s = time.process_time() - started
    distinct = np.unique(hashes)
    started = time.process_time()
    hamming.connected(distinct, np.zeros(len(distinct), np.uint64), radius)
    search_s = time.process_time() - started
    groups = reduced.summary["groups"]
    say(f"{count:,} rows, radius {radius}: {whole_s:.1f} s, of which the search {search_s:.1f} s; {groups:,} groups")


def main() -> None:
    cv2.setNumThreads(1)
    operator = Phash()
    operator.setup()

    def work(media: bytes) -> int:
        return int(operator.process_row({"uid": "", "media": media})["phash"], 16)

    for side in (256, 512, 1080):
        compare_rates(f"shorter side {side} px", work, photos(side))
    compare_hashes(work, crops(photos(None), 100))
    for radius in (0, 4, 6):
        deduplicate(1_000_000, radius)


if __name__ == "__main__":
    main()
