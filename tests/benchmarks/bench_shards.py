"""Shard writing against webdataset's TarWriter and against the plain write of the same bytes.

Run `python tests/benchmarks/bench_shards.py [FOLDER]`; FOLDER (default: a temporary one) is where the files are
written. The writers take turns within each repetition, on the same samples (jpg, txt and json, encoded beforehand)
and into new files of the same folder, whose page cache takes them: nothing is synced. Medians and the range of the
repetitions' ratios are printed. MB are 10⁶ bytes of the members.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import webdataset

from corpusmith.operators.write.check import check_shard
from corpusmith.operators.write.shards import Shards
from corpusmith.operators.write.tar import TarWriter
from corpusmith.schemas.identity import uid_of

REPETITIONS = 7
TOTAL_BYTES = 100_000_000
MEDIA_BYTES = (10_000, 100_000)


@dataclass(frozen=True)
class Sample:
    key: str
    jpg: bytes
    txt: bytes
    json: bytes


def samples_of(media_bytes: int) -> list[Sample]:
    """Samples with media of `media_bytes`: a JPEG's magic and noise, for no writer looks further."""
    rng = random.Random(media_bytes)
    samples = []
    for i in range(TOTAL_BYTES // media_bytes):
        key, url, caption = (
            f"{i:09d}",
            f"https://example.org/images/{i}.jpg",
            f"a caption of sample {i}, some words long",
        )
        meta = {"key": key, "url": url, "caption": caption, "uid": uid_of("url", url, caption), "width": 256}
        jpg = b"\xff\xd8\xff\xe0" + rng.randbytes(media_bytes - 4)
        samples.append(Sample(key, jpg, caption.encode(), json.dumps(meta).encode()))
    return samples


def write_tar(samples: list[Sample], folder: Path) -> None:
    with (folder / "00000.tar").open("wb") as file, TarWriter(file) as tar:
        for sample in samples:
            tar.add(f"{sample.key}.jpg", sample.jpg)
            tar.add(f"{sample.key}.json", sample.json)
            tar.add(f"{sample.key}.txt", sample.txt)


def write_webdataset(samples: list[Sample], folder: Path) -> None:
    with (folder / "00000.tar").open("wb") as file, webdataset.TarWriter(file, encoder=False, mtime=0) as tar:
        for sample in samples:
            tar.write({"__key__": sample.key, "jpg": sample.jpg, "json": sample.json, "txt": sample.txt})


def write_plain(samples: list[Sample], folder: Path) -> None:
    """The limit: the members' bytes alone, no headers."""
    with (folder / "00000.raw").open("wb", buffering=1 << 20) as file:
        for sample in samples:
            file.writelines((sample.jpg, sample.json, sample.txt))


def shard_writer(samples: list[Sample]) -> Callable[[list[Sample], Path], None]:
    """The whole operator: extensions by content, metadata as JSON, tar, Parquet and stats."""
    rows = pa.Table.from_pylist([json.loads(sample.json) for sample in samples])

    def write(samples: list[Sample], folder: Path) -> None:
        Shards().write_shard(0, rows, (sample.jpg for sample in samples), str(folder))

    return write


def seconds_of(write: Callable[[list[Sample], Path], None], samples: list[Sample], folder: Path) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    started_s = time.perf_counter()
    write(samples, folder)
    return time.perf_counter() - started_s


def compare(media_bytes: int, folder: Path) -> None:
    samples = samples_of(media_bytes)
    writers = {
        "webdataset TarWriter": write_webdataset,
        "corpusmith TarWriter": write_tar,
        "corpusmith shards": shard_writer(samples),
        "plain write": write_plain,
    }
    times: dict[str, list[float]] = {name: [] for name in writers}
    for _ in range(REPETITIONS):
        for name, write in writers.items():
            times[name].append(seconds_of(write, samples, folder / name))
    payload_mb = sum(len(s.jpg) + len(s.txt) + len(s.json) for s in samples) / 1e6
    say(f"{len(samples)} samples, media of {media_bytes} bytes, {payload_mb:.1f} MB, {REPETITIONS} repetitions")
    for name, seconds in times.items():
        median_s = statistics.median(seconds)
        ratios = sorted(base / own for base, own in zip(times["webdataset TarWriter"], seconds, strict=True))
        say(
            f"  {name:22} {median_s:7.3f} s {payload_mb / median_s:7.0f} MB/s {len(samples) / median_s:8.0f} samples/s"
            f" {statistics.median(ratios):6.1f}x webdataset ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        )
    shard = folder / "corpusmith shards"
    started_s = time.perf_counter()
    problems = check_shard(shard / "00000.tar", shard / "00000.parquet")
    say(f"  check_shard            {time.perf_counter() - started_s:7.3f} s, problems: {problems}")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        for media_bytes in MEDIA_BYTES:
            compare(media_bytes, Path(folder))


if __name__ == "__main__":
    main()
