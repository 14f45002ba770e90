"""Words and word pairs of captions, counted by `corpusmith entries build`: time, growth and memory, beside counters.

Run it as `python tests/benchmarks/bench_entries.py [captions]`; 10 million captions take some GB below TMPDIR. The
reference is the loop that NLTK's collocation finder comes down to: two `Counter`s over the tokens of each caption, as
its own spacing gives them. It counts the first captions only, and holds all that it has counted.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from timing import COMMAND, Sampler, say

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' helpers

from captions import drawn_captions

LOOP_CAPTIONS = 200_000
MIB = 1 << 20


def write_captions(path: Path, count: int) -> None:
    """Captions drawn from real titles."""
    schema = pa.schema([("caption", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for captions in drawn_captions(count, 1):
            writer.write_table(pa.table([captions], schema=schema))


def loop_rate(path: Path) -> float:
    """Captions a second of a core by counters."""
    batches = islice(pq.ParquetFile(path).iter_batches(LOOP_CAPTIONS), 1)
    texts = next(iter(batches)).column(0).to_pylist()
    started = time.process_time()
    words: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for text in texts:
        tokens = text.split()
        words.update(tokens)
        pairs.update(pairwise(tokens))
    return len(texts) / (time.process_time() - started)


def build(path: Path, folder: Path) -> tuple[float, float, int]:
    """Seconds of the wall clock, seconds of cores, and bytes at most."""
    options = ["--min-count", "100", "--bigrams", "--min-pmi", "5", "--min-pair-count", "5", "--overwrite"]
    command = [str(COMMAND), "entries", "build", str(folder / "entries.parquet"), "--texts", str(path), *options]
    started = time.time()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with Sampler(process.pid) as sampler:
        _, told = process.communicate()
    if process.returncode:
        raise SystemExit(told)
    return time.time() - started, max(cpu for _, cpu, _ in sampler.samples), sampler.peak_bytes()


def main() -> None:
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        walls, cores = [], []
        for count in (most // 10, most):
            path = folder / "captions.parquet"
            write_captions(path, count)
            reference = loop_rate(path)
            wall_s, cpu_s, peak = build(path, folder)
            walls.append(wall_s)
            cores.append(cpu_s)
            rate = count / cpu_s
            beside = f"×{rate / reference:.1f} of counters, {reference:,.0f}"
            say(f"{count:,} captions: {wall_s:.1f} s, {rate:,.0f}/s of a core ({beside}), {peak / MIB:,.0f} MiB")
        say(f"ten times the captions: ×{walls[1] / walls[0]:.1f} by the clock, ×{cores[1] / cores[0]:.1f} of the cores")


if __name__ == "__main__":
    main()
