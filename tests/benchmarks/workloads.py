"""Operators and input that the benchmarks of the engine share: work of a known cost, told apart from the engine's own.

The work is sha256 over megabytes: it takes a core, gives up Python's lock as decoders and models do, and costs the same
for each row, so that the wall time which it should take is known. Each worker notes when it began and how far it is.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from pydantic import Field

from corpusmith.operators.contract import Annotate, AnnotateRows, Config, Part
from corpusmith.operators.registry import register
from corpusmith.schemas.columns import MEDIA, Column


class WorkConfig(Config):
    """What a row costs, and where that is noted."""

    kilobytes: int = Field(4096, ge=1, description="kilobytes that are hashed for each row")
    marks: str = Field(
        "",
        description="folder with a file a worker: its name says when it began, its size how many rows it began",
    )


class _Work:
    """The work itself."""

    def __init__(self, config: WorkConfig) -> None:
        self._buffer = bytes(config.kilobytes << 10)
        self._marks = config.marks
        self._file: int | None = None

    def __call__(self, caption: str) -> int:
        if self._marks:
            self._mark()
        state = hashlib.sha256(caption.encode())
        state.update(self._buffer)
        return int(state.hexdigest()[:8], 16) % 1000

    def _mark(self) -> None:
        if self._file is None:
            Path(self._marks).mkdir(parents=True, exist_ok=True)
            name = f"{time.time_ns()}-{os.getpid()}-{threading.get_ident()}"
            self._file = os.open(Path(self._marks) / name, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(self._file, b".")


class BenchHash(Annotate, name="bench_hash", version=1):
    """Hashes, a batch at a time, in the worker's own process."""

    Config = WorkConfig
    config: WorkConfig  # type: ignore[assignment]
    isolated = False
    batch_rows = 256

    @property
    def requires(self) -> tuple[str, ...]:
        return ("caption",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("number", pa.int64(), "a number"),)

    def setup(self) -> None:
        self._work = _Work(self.config)

    def process(self, batch: pa.Table) -> Part:
        return Part({"number": [self._work(caption) for caption in batch.column("caption").to_pylist()]})


class BenchHashRows(AnnotateRows, name="bench_hash_rows", version=1):
    """Hashes, a row at a time, in a child process."""

    Config = WorkConfig
    config: WorkConfig  # type: ignore[assignment]

    @property
    def requires(self) -> tuple[str, ...]:
        return ("caption",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("number", pa.int64(), "a number"),)

    def setup(self) -> None:
        self._work = _Work(self.config)

    def process_row(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"number": self._work(row["caption"])}


class PictureConfig(Config):
    """What the pictures are like."""

    side: int = Field(48, ge=8, description="width and height in pixels")


class BenchPictures(Annotate, name="bench_pictures", version=1):
    """Makes a small JPEG from each URL, another one for each."""

    Config = PictureConfig
    config: PictureConfig  # type: ignore[assignment]
    isolated = False
    batch_rows = 128

    @property
    def requires(self) -> tuple[str, ...]:
        return ("url",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (MEDIA,)

    def process(self, batch: pa.Table) -> Part:
        return Part({"media": [self._picture(url) for url in batch.column("url").to_pylist()]})

    def _picture(self, url: str) -> bytes:
        seed = int.from_bytes(hashlib.sha256(url.encode()).digest()[:4])
        pixels = np.random.default_rng(seed).integers(0, 256, (self.config.side, self.config.side, 3), np.uint8)
        return simplejpeg.encode_jpeg(pixels, 90)


def register_all() -> None:
    """Make the operators known in this process; the command knows them by entry points."""
    register(BenchHash)
    register(BenchHashRows)
    register(BenchPictures)


def first_row_s(marks: Path) -> float | None:
    """When the first row began, in seconds of the wall clock; None while none has."""
    return min((int(path.name.split("-")[0]) / 1e9 for path in marks.glob("*")), default=None)


def rows_begun(marks: Path) -> int:
    """Rows whose work has begun, repeats included."""
    return sum(path.stat().st_size for path in marks.glob("*"))


def kilobytes_for(row_ms: float) -> int:
    """Kilobytes whose hashing takes so many milliseconds on one core of this machine."""
    buffer = bytes(8 << 20)
    times_s = []
    for _ in range(9):
        started = time.perf_counter()
        hashlib.sha256(buffer).digest()
        times_s.append(time.perf_counter() - started)
    return max(1, round(row_ms / 1e3 / min(times_s) * (8 << 10)))


def write_input(path: Path, rows: int) -> None:
    """Rows with a URL and a caption each."""
    numbers = range(rows)
    columns = {"url": [f"http://web/{i}" for i in numbers], "caption": [f"caption {i}" for i in numbers]}
    pq.write_table(pa.table(columns), path)
