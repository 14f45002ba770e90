"""A large pool of captions through exact deduplication, matching and balancing: time by size, and resident memory.

Run `python tests/benchmarks/bench_curation.py [--rows 1000000 --rows 10000000] [--executor ray]`. Captions are drawn
from real titles (see `tests/captions.py`), about one in ten is a repeat. Each size is one `corpusmith run` of its own
over Parquets of a million rows: `dedup.exact` on the caption, then `balance` over a list of entries (real titles, their
words and pairs of words), then shards of what is left, ledger and report. Memory is what is resident and not shared in
the command and all its children, ten times a second; files that are read by mapping them belong to the page cache.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from timing import command_environment, recipe_of, say, start_command, watched

sys.path.insert(0, str(Path(__file__).parents[1]))
from captions import drawn_captions, real_titles

FILE_ROWS = 1_000_000
LIMIT_BYTES = 4e9
LIMIT_RATIO = 11.0
"""Time of ten times the rows, in parts of the smaller run's."""


def entries() -> list[str]:
    """Titles, words and word pairs of the titles, each once."""
    words = [title.split() for title in real_titles()]
    pairs = (" ".join(pair) for each in words for pair in pairwise(each))
    return list(dict.fromkeys([*real_titles(), *(word for each in words for word in each), *pairs]))


def write_pool(folder: Path, rows: int) -> None:
    """Parquets with `url` and `caption`."""
    folder.mkdir()
    done = 0
    for captions in drawn_captions(rows, batch_rows=FILE_ROWS):
        urls = pa.array([f"https://pictures.example/{i}.jpg" for i in range(done, done + len(captions))])
        pq.write_table(pa.table({"url": urls, "caption": captions}), folder / f"{done:09d}.parquet")
        done += len(captions)


def measure(folder: Path, rows: int, t: int, executor: str) -> tuple[float, float, str, Iterable[str]]:
    """Seconds, peak in bytes, the last line of progress before the peak, and what the command said at its end."""
    write_pool(folder / "pool", rows)
    (folder / "entries.json").write_text(json.dumps(entries()))
    steps = ["dedup.exact: [caption]", f"balance: {{entries: '{folder / 'entries.json'}', t: {t}}}"]
    (folder / "recipe.yaml").write_text(recipe_of(steps, folder / "pool"))
    environment = command_environment(folder / "path")
    started_s = time.time()
    process = start_command(folder / "recipe.yaml", folder / "corpus", executor=executor, environment=environment)
    log = folder / "corpus.log"
    peak_bytes, where = watched(process, log)
    return time.time() - started_s, peak_bytes, where, log.read_text().splitlines()


def main() -> None:
    """Print each size's time and peak, and the ratio of the last to the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--executor", default="inline", choices=["inline", "ray"])
    parser.add_argument("--log", action="store_true", help="print what the runs said")
    options = parser.parse_args()
    taken: list[float] = []
    sizes = options.rows or [1_000_000, 10_000_000]
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            taken_s, peak_bytes, where, said = measure(Path(folder), rows, max(1, rows // 20_000), options.executor)
        if options.log:
            say("\n".join(said))
        taken.append(taken_s)
        say(
            f"{rows:11,} rows: {taken_s:7.1f} s ({rows / taken_s:8,.0f} rows/s), peak {peak_bytes / 1e9:.2f} GB "
            f"(limit {LIMIT_BYTES / 1e9:.0f}); after: {where}"
        )
    if len(sizes) > 1:
        say(f"time {taken[-1] / taken[0]:.2f} for {sizes[-1] / sizes[0]:.0f} times the rows (limit {LIMIT_RATIO})")
    say(f"{psutil.cpu_count()} cores")


if __name__ == "__main__":
    main()
