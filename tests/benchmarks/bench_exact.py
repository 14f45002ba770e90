"""Exact deduplication: captions a second and memory, beside a Python set and polars on the same captions.

Run it as `python tests/benchmarks/bench_exact.py [ROWS …]`; 1,000,000 and 10,000,000 by default. Captions are drawn
from real titles and written to a Parquet; each way runs in a process of its own, reads that file by batches and goes
through all of its decisions. A set and polars tell only which rows come first, and hold all of them; dedup.exact also
tells the lowest uid of each group and its size, whatever the order. Seconds are of the wall clock on two cores, without
imports; memory is what is resident at most. The last lines are the normal forms alone, on one core.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from timing import say

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' helpers

from captions import drawn_captions
from peers import peer

from corpusmith.operators.dedup.exact import Exact
from corpusmith.operators.dedup.normal_forms import Form, normal_form

POLARS = ("polars==2.1.0", "pyarrow>=20")
_UID_STEP = 0x9E3779B97F4A7C15F39CC0605CEDC835
"""Odd, so that uids are all distinct and come in no order."""


def write_pool(path: Path, rows: int) -> None:
    """Captions with uids, and URLs as a crawl has them."""
    schema = pa.schema([(name, pa.string()) for name in ("uid", "caption", "url")])
    with pq.ParquetWriter(path, schema) as writer:
        start = 0
        for captions in drawn_captions(rows):
            numbers = range(start, start := start + len(captions))
            uids = [f"{i * _UID_STEP % (1 << 128):032x}" for i in numbers]
            urls = [f"http{'s' * (i % 2)}://img{i // 2 % 977}.example.org/2026/{i // 2}.jpg?w=640" for i in numbers]
            writer.write_batch(pa.record_batch([pa.array(uids), captions, pa.array(urls)], schema=schema))


class Pool:
    """The pool as a reduce reads it."""

    seed = 0

    def __init__(self, path: Path, scratch_dir: str) -> None:
        self.count = pq.read_metadata(path).num_rows
        self.scratch_dir = scratch_dir
        self._path = path

    def reader(self, columns: Sequence[str]) -> pa.RecordBatchReader:
        """Batches of the file."""
        file = pq.ParquetFile(self._path)
        names = ["uid", *columns]
        schema = pa.schema([file.schema_arrow.field(name) for name in names])
        return pa.RecordBatchReader.from_batches(schema, file.iter_batches(65_536, columns=names))

    def map(self, work: Callable[[pa.Table], Any], columns: Sequence[str]) -> Iterator[Any]:
        """One after the other."""
        return (work(pa.Table.from_batches([batch])) for batch in self.reader(columns))


def by_set(path: Path) -> int:
    """Captions that are new, by a set."""
    seen: set[str] = set()
    kept = 0
    for batch in pq.ParquetFile(path).iter_batches(65_536, columns=["caption"]):
        for caption in batch.column(0).to_pylist():
            if caption not in seen:
                seen.add(caption)
                kept += 1
    return kept


def by_exact(path: Path, forms: dict[str, str]) -> int:
    """Rows that dedup.exact lets go on, all decisions read."""
    column = next(iter(forms), "caption")
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        config = Exact.Config.model_validate({"on": [column], "forms": forms})
        reduced = Exact(config).reduce(Pool(path, scratch))
        assert not isinstance(reduced.decisions, pa.Table)
        assert sum(batch.column("fate").null_count for batch in reduced.decisions) == reduced.summary["groups"]
    return int(reduced.summary["groups"])


_BY_POLARS = """
import json, resource, sys, time
import polars
started = time.perf_counter()
kept = polars.read_parquet(sys.argv[1], columns=["uid", "caption"]).unique("caption", keep="first").height
took_s = time.perf_counter() - started
print(json.dumps([kept, took_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def measured(command: list[str]) -> tuple[int, float, int]:
    """What a process tells: rows that go on, seconds, kilobytes at most."""
    said = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"POLARS_MAX_THREADS": "2"}
    )
    kept, took_s, kilobytes = json.loads(said.stdout)
    return kept, took_s, kilobytes


def compare(path: Path, rows: int) -> None:
    """Print a line for each way."""
    own = [sys.executable, __file__, "--one", str(path)]
    ways = {
        "Python set": [*own, "set"],
        "polars unique": [str(peer("polars", POLARS)), "-c", _BY_POLARS, str(path)],
        "dedup.exact": [*own, "exact"],
        "dedup.exact, form text": [*own, "text"],
        "dedup.exact, form url": [*own, "url"],
    }
    for name, command in ways.items():
        kept, took_s, kilobytes = measured(command)
        rate = rows / took_s / 1e6
        say(f"{rows:,} rows: {name}: {took_s:.1f} s ({rate:.2f}M/s), {kilobytes / 1e6:.2f} GB, {kept:,} go on")


def form_rates() -> None:
    """Print the normal forms' rates."""
    captions = next(drawn_captions(100_000))
    plain = pa.array([f"https://img{i % 977}.example.org/2026/{i}.jpg?w={i % 640}" for i in range(100_000)])
    dirty = pa.array([f"HTTP://Img{i % 977}.example.org:80/a%2d/{i}.jpg?w={i % 640}#x" for i in range(100_000)])
    cases: tuple[tuple[str, pa.Array, Form], ...] = (
        ("captions", captions, "text"),
        ("plain URLs", plain, "url"),
        ("plain URLs", plain, "url_without_tracking"),
        ("URLs that all have to be rewritten", dirty, "url"),
    )
    for name, values, form in cases:
        normal_form(values.slice(0, 10), form)
        started = time.thread_time()
        normal_form(values, form)
        say(f"form {form}: {len(values) / (time.thread_time() - started) / 1e6:.2f}M {name} a second of one core")


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        path, way = Path(sys.argv[2]), sys.argv[3]
        normal_form(pa.array(["a"]), "text")  # the compiled loop is loaded
        started = time.perf_counter()
        column = {"text": "caption", "url": "url"}.get(way)
        kept = by_set(path) if way == "set" else by_exact(path, {column: way} if column else {})
        took_s = time.perf_counter() - started
        say(json.dumps([kept, took_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
        return
    for rows in map(int, sys.argv[1:] or ("1000000", "10000000")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pool.parquet"
            write_pool(path, rows)
            compare(path, rows)
    form_rates()


if __name__ == "__main__":
    main()
