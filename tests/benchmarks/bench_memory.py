"""Peak memory of a run against its number of rows: it must not grow with the input.

Run `python tests/benchmarks/bench_memory.py [--rows 10000 --rows 100000]`. Each size is one `corpusmith run --executor
inline` of its own: small JPEGs are made from URLs, resized by the `image` step in child processes, filtered, and
written as shards. What is sampled, ten times a second, is the memory of the command and all its children that is
resident and not shared: Parquet files that are read by mapping them belong to the page cache, which gives way.
The phase in which the peak fell is told, so that a culprit is easily found.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from timing import command_environment, recipe_of, say, start_command, watched
from workloads import write_input

LIMIT = 1.25
"""Peaks of a run ten times larger, in parts of the smaller: buffers fill up to their bounds, and no further."""


def measure(folder: Path, rows: int) -> tuple[float, float, str]:
    """Seconds, peak in bytes, and the last line of progress before the peak."""
    write_input(folder / "input.parquet", rows)
    steps = ["bench_pictures", "image: {size: 32}", "keep: width >= 32"]
    (folder / "recipe.yaml").write_text(recipe_of(steps, folder / "input.parquet"))
    environment = command_environment(folder / "path")
    started_s = time.time()
    process = start_command(folder / "recipe.yaml", folder / "corpus", executor="inline", environment=environment)
    log = folder / "corpus.log"
    peak_bytes, where = watched(process, log)
    return time.time() - started_s, peak_bytes, where


def main() -> None:
    """Print each size's peak, and the ratio of the last to the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, action="append")
    peaks = []
    for rows in parser.parse_args().rows or [10_000, 100_000]:
        with tempfile.TemporaryDirectory() as folder:
            taken_s, peak_bytes, where = measure(Path(folder), rows)
        peaks.append(peak_bytes)
        say(f"{rows:9,} rows: peak {peak_bytes / 2**20:6.0f} MiB, {taken_s:6.1f} s; after: {where}")
    say(f"ratio {peaks[-1] / peaks[0]:.3f} (limit {LIMIT})")


if __name__ == "__main__":
    main()
