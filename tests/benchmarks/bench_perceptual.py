"""Hashes of pictures a second on one core, beside imagehash's and Meta's, and pools of a million hashes beside FAISS.

Run it as `python tests/benchmarks/bench_perceptual.py`, with a count of hashes to use another than a million. Times are
of the cores' clock, so that others at work on the machine count for little.

`phash`: the loop is imagehash's: Pillow decodes, makes gray and scales by Lanczos; two DCTs, a median. imagehash takes
SciPy's DCT; two products with a matrix of cosines stand for it here, which cost less. Both take turns on the same
pictures, and the medians of their turns are compared.

`pdq`: the loop is Pillow and the wheel `pdqhash`, in an environment of its own, on the same pictures.

Pools are made of real hashes of parts of photos: a picture's is put together from the 16-bit (64-bit) words of four of
them, so that runs are as uneven as real ones; three in ten are copies, which differ by what re-encoding, shrinking,
brightening or cutting did to real hashes; one in a hundred is flat, and one in fifty a copy of one picture. FAISS's
time is measured on some of the hashes as queries, on one core, and multiplied for all: it finds pairs and connects
none. That both find the same is checked: the pairs that FAISS finds for these queries lie within our groups, and on a
part of the pool all its pairs, connected, are our groups.
"""

from __future__ import annotations

import io
import json
import pickle
import statistics
import subprocess
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

from peers import peer
from shuffled import ShuffledRows, decided

from corpusmith.operators.contract import AnnotateRows
from corpusmith.operators.dedup.hamming import connected
from corpusmith.operators.dedup.pdq import Pdq
from corpusmith.operators.dedup.perceptual import RADIUS, Perceptual
from corpusmith.operators.dedup.phash import Phash

TURNS = 5
TURN_S = 0.5
PARTS, EDITED = 4000, 500
QUERIES, COMPARED = 500, 30_000
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


PDQHASH = """
import io, json, pickle, sys, time, numpy as np, pdqhash
from PIL import Image
media, turn_s = pickle.load(sys.stdin.buffer)
def work(data):
    return pdqhash.compute(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
started, done = time.thread_time(), 0
while (elapsed := time.thread_time() - started) < turn_s or done < len(media):
    work(media[done % len(media)])
    done += 1
hashes = [np.packbits(work(data)[0].astype(np.uint8)).tobytes().hex() for data in media]
print(json.dumps([done / elapsed, hashes]))
"""


def pdqhash(media: list[bytes]) -> tuple[float, list[int]]:
    """Pictures a second of one turn of Pillow and Meta's code, and the hashes."""
    python = peer("pdqhash", ["pdqhash==0.2.8", "numpy", "pillow"])
    given = pickle.dumps((media, TURN_S))
    made = subprocess.run([python, "-c", PDQHASH], input=given, stdout=subprocess.PIPE, check=True)
    speed, hashes = json.loads(made.stdout)
    return speed, [int(text, 16) for text in hashes]


def compare_with_pdqhash(name: str, work: Callable[[bytes], int], media: list[bytes]) -> None:
    """Print one line: both ways, per second of one core, and how far their hashes are apart."""
    turns = [(pdqhash(media), rate(work, media)) for _ in range(3)]
    slow = statistics.median(turn[0][0] for turn in turns)
    fast = statistics.median(turn[1] for turn in turns)
    apart = [(work(data) ^ theirs).bit_count() for data, theirs in zip(media, turns[0][0][1], strict=True)]
    told = f"bits apart {statistics.mean(apart):.1f} on average, {max(apart)} at most"
    say(f"{name}: pdqhash {slow:.0f}/s; pdq {fast:.0f}/s (×{fast / slow:.1f}); {told}")


def edits(media: bytes) -> list[bytes]:
    """A picture re-encoded, shrunk, brightened, and with its margins cut."""
    picture = simplejpeg.decode_jpeg(media)
    small = cv2.resize(picture, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    brighter = cv2.convertScaleAbs(picture, alpha=1.05, beta=8)
    cut = picture[picture.shape[0] // 60 :, picture.shape[1] // 60 :]
    made = ((picture, 50), (small, 85), (brighter, 85), (cut, 90))
    return [simplejpeg.encode_jpeg(np.ascontiguousarray(p), q, colorsubsampling="420") for p, q in made]


def words_of(hashes: list[int], bits: int) -> np.ndarray:
    """(N, bits / 64) uint64."""
    raw = b"".join(value.to_bytes(bits // 8) for value in hashes)
    return np.frombuffer(raw, ">u8").astype(np.uint64).reshape(len(hashes), bits // 64)


def pool(count: int, bits: int, work: Callable[[bytes], int]) -> np.ndarray:
    """(count, bits / 64) hashes of a crawl's kind; see above."""
    drawn = np.random.default_rng(0)
    parts = crops(photos(None), PARTS // 7)
    real = words_of([work(data) for data in parts], bits).view(np.uint16 if bits == 64 else np.uint64)
    changes = [work(data) ^ work(edit) for data in parts[:EDITED] for edit in edits(data)]
    masks = words_of([change for change in changes if change.bit_count() <= RADIUS[bits]], bits)
    rows = drawn.integers(0, len(real), (count * 7 // 10, 4))
    bases = np.ascontiguousarray(real[rows, np.arange(4)]).view(np.uint64)
    hashes = bases[np.append(np.arange(len(bases)), drawn.integers(0, len(bases), count - len(bases)))]
    hashes[len(bases) :] ^= masks[drawn.integers(0, len(masks), count - len(bases))]
    hashes[::50] = bases[0] ^ masks[drawn.integers(0, len(masks), len(hashes[::50]))]
    hashes[1::100] = 0
    return hashes[drawn.permutation(count)]


def deduplicate(hashes: np.ndarray, radius: int) -> None:
    """Print one line: the whole reduce in seconds of a core."""
    texts = [row.tobytes().hex() for row in hashes.astype(">u8")]
    table = pa.table({"uid": [f"{i:032x}" for i in range(len(hashes))], "hash": texts})
    with tempfile.TemporaryDirectory() as folder:
        rows = ShuffledRows(table, Path(folder))
        started = time.process_time()
        reduced = Perceptual(Perceptual.Config(column="hash", radius=radius)).reduce(rows)
        decided(reduced)
        whole_s = time.process_time() - started
    facts = {name: f"{reduced.summary[name]:,}" for name in ("groups", "largest")}
    say(f"{len(hashes):,} rows of {64 * hashes.shape[1]} bits, radius {radius}: {whole_s:.1f} s; {facts}")


def compare_with_faiss(hashes: np.ndarray, radius: int) -> None:
    """Print one line: the search alone, and FAISS's two ways for all hashes, in seconds of a core."""
    import faiss

    faiss.omp_set_num_threads(1)
    distinct = np.unique(hashes, axis=0)
    contexts = np.zeros(len(distinct), np.int64)
    started = time.process_time()
    groups = connected(distinct, contexts, radius)
    ours_s = time.process_time() - started
    bits, raw = 64 * hashes.shape[1], distinct.view(np.uint8)
    bands = (5, 12, 0) if bits == 64 else (16, 16, 1)
    multi = faiss.IndexBinaryMultiHash(bits, *bands[:2])
    multi.nflip = bands[2]
    asked = np.random.default_rng(1).choice(len(distinct), QUERIES, replace=False)
    told = []
    for name, index in (("Flat", faiss.IndexBinaryFlat(bits)), ("MultiHash", multi)):
        started = time.process_time()
        index.add(raw)
        built_s, started = time.process_time() - started, time.process_time()
        limits, _, found = index.range_search(raw[asked], radius + 1)
        all_s = built_s + (time.process_time() - started) * len(distinct) / QUERIES
        assert (groups[found] == np.repeat(groups[asked], np.diff(limits).astype(np.int64))).all()
        told.append(f"{name} about {all_s:,.0f} s (×{all_s / ours_s:,.0f})")
    check_groups(distinct[:: max(len(distinct) // COMPARED, 1)], radius)
    say(f"{len(distinct):,} distinct of {bits} bits, radius {radius}: ours {ours_s:.1f} s; FAISS {', '.join(told)}")


def check_groups(hashes: np.ndarray, radius: int) -> None:
    """See that FAISS's pairs, connected, are our groups."""
    import faiss
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    index = faiss.IndexBinaryFlat(64 * hashes.shape[1])
    index.add(hashes.view(np.uint8))
    limits, _, found = index.range_search(hashes.view(np.uint8), radius + 1)
    pairs = csr_array((np.ones(len(found), np.int8), found, limits.astype(np.int64)), shape=(len(hashes),) * 2)
    count, theirs = connected_components(pairs, directed=False)
    ours = connected(hashes, np.zeros(len(hashes), np.int64), radius)
    assert len(np.unique(ours)) == count == len(np.unique(np.stack([ours, theirs]), axis=1).T)


def hasher(operator: AnnotateRows, column: str) -> Callable[[bytes], int]:
    """Bytes of a picture → its hash."""
    operator.setup()
    return lambda media: int(operator.process_row({"uid": "", "media": media})[column], 16)


def main() -> None:
    cv2.setNumThreads(1)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    phash, pdq = hasher(Phash(), "phash"), hasher(Pdq(), "pdq")
    for side in (256, 512, 1080):
        compare_rates(f"shorter side {side} px", phash, photos(side))
        compare_with_pdqhash(f"shorter side {side} px", pdq, photos(side))
    compare_hashes(phash, crops(photos(None), 100))
    for bits, work, radii in ((64, phash, (0, 4, 6)), (256, pdq, (31,))):
        hashes = pool(count, bits, work)
        connected(hashes[:5000], np.zeros(5000, np.int64), RADIUS[bits])  # compiles
        for radius in radii:
            deduplicate(hashes, radius)
        compare_with_faiss(hashes, RADIUS[bits])


if __name__ == "__main__":
    main()
