"""How soon the first download of a large metadata input starts: planned, filtered and deduplicated before.

Run `python tests/benchmarks/bench_metadata.py [--rows 1000000] [--executor ray|inline]`. Of a Parquet of URLs and
captions a tenth of the URLs come twice, under other captions. It goes through text → keep → dedup.exact towards a
download, and the run is stopped where the stream with the download would begin. The phases' times are told; the exit
code is 1 if they take longer together than 20 seconds for a million rows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from timing import Phases, recipe_of, say

from corpusmith.pipelines.run import RunOptions, prepare, run
from corpusmith.schemas.recipe import parse_recipe

LIMIT_S = 20.0
LIMIT_ROWS = 1_000_000
CPUS = 2
DUPLICATES = 0.1
STEPS = ["text", "keep: word_count > 2 AND char_count < 300", "dedup.exact: {on: [url]}", "download"]
WORDS = (
    *(
        "photo",
        "of",
        "the",
        "a",
        "in",
        "with",
        "and",
        "new",
        "vintage",
        "red",
        "blue",
        "black",
        "white",
        "old",
        "house",
    ),
    *("dog", "cat", "car", "street", "beach", "wedding", "cake", "shoes", "dress", "table", "chair", "garden", "lake"),
    *("portrait", "woman", "child", "city", "tree", "kitchen", "design", "poster", "print", "canvas", "stock", "best"),
    *("vector", "illustration", "free", "download", "2019", "2020", "New York", "London", "Paris", "café"),
)


class Reached(Exception):
    """The stream with the download would begin now."""


class UpToDownload(Phases):
    """Ends the run at its second stream."""

    def start(self, phase: str, total: int, unit: str = "rows", *, steps: Sequence[str] = ()) -> None:
        """See Progress.start."""
        if phase.startswith("stream 2 "):
            raise Reached
        super().start(phase, total, unit, steps=steps)


def write_metadata(path: Path, rows: int) -> None:
    """An input of `rows` rows: URLs of many hosts, captions of 2 to 15 words."""
    draws = np.random.default_rng(0)
    own = int(rows / (1 + DUPLICATES))
    numbers = np.concatenate([np.arange(own), draws.integers(0, own, rows - own)])
    hosts = pa.array([f"https://images{i}.example{i % 97}.com/wp-content/uploads/" for i in range(5000)])
    names = pc.cast(pa.array(numbers), pa.string())
    urls = pc.binary_join_element_wise(hosts.take(pa.array(numbers % 5000)), names, pa.scalar("-1024x768.jpg"), "")
    picked = draws.integers(0, len(WORDS), (rows, 15))
    lengths = draws.integers(2, 16, rows)
    captions = [" ".join(WORDS[w] for w in row[:n]) for row, n in zip(picked.tolist(), lengths.tolist(), strict=True)]
    table = pa.table({"url": urls, "caption": captions}).take(pa.array(draws.permutation(rows)))
    pq.write_table(table, path, row_group_size=100_000)


def measure(source: Path, corpus: Path, executor: str) -> dict[str, float]:
    """Seconds of each phase up to the first download."""
    phases = UpToDownload()
    began = time.time()
    prepared = prepare(parse_recipe(recipe_of(STEPS, source), source="bench.yaml"), "bench.yaml")
    planned = time.time()
    with suppress(Reached):
        run(prepared, str(corpus), RunOptions(executor=executor, cpus=CPUS), phases)
    ended = time.time()
    stream, reduce = phases.began_s
    return {
        "plan": planned - began,
        "ingest": phases.began_s[stream] - planned,
        "text, keep": phases.ended_s[stream] - phases.began_s[stream],
        "dedup": phases.ended_s[reduce] - phases.ended_s[stream],
        "all": ended - began,
    }


def main() -> None:
    """Print one line for each executor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=LIMIT_ROWS)
    parser.add_argument("--executor", choices=["ray", "inline"], action="append")
    options = parser.parse_args()
    limit_s = LIMIT_S * options.rows / LIMIT_ROWS
    slow = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        source = Path(folder) / "input.parquet"
        write_metadata(source, options.rows)
        say(f"{options.rows:,} rows, {source.stat().st_size / 1e6:.0f} MB, {CPUS} cores, limit {limit_s:g} s")
        for executor in options.executor or ["inline", "ray"]:
            found = measure(source, Path(folder) / executor, executor)
            say(f"{executor:7}" + "".join(f"{name}: {seconds:6.1f} s   " for name, seconds in found.items()))
            slow += [executor] if found["all"] > limit_s else []
    sys.exit(1 if slow else 0)


if __name__ == "__main__":
    main()
