"""`corpusmith balance` on captions drawn from real titles: seconds, peak memory, and what ten times the rows cost.

Run `python tests/benchmarks/bench_balance.py [--rows 1000000 --rows 10000000] [--entries 500000]`. Each size is one
command of its own over one Parquet file, two passes, all cores; the list holds the titles and pairs of their words, as
many entries as asked for. Beside it the published loop's way to decide (a dictionary of counts, one row at a time, on
the matches at hand) on the first rows of the same pool: what remains of the published code once matching is free.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from timing import COMMAND, Sampler, say

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' helpers

from captions import drawn_captions, real_titles

from corpusmith.operators.balance.lexicon import Lexicon
from corpusmith.operators.balance.matching import Matcher
from corpusmith.operators.balance.rule import DECISIONS, Count, Decide, Matching
from corpusmith.operators.balance.wording import quoted
from corpusmith.schemas.identity import uids_of_urls

T = 20
LOOP_ROWS = 100_000
PIECE_ROWS = 1 << 15
LIMIT = 11.0
"""What ten times the rows may cost."""


def entries_of(count: int) -> list[str]:
    """Titles, then pairs of their words, each once."""
    titles = real_titles()
    words = sorted({word for title in titles for word in title.split()})
    drawn = random.Random(0)
    entries = dict.fromkeys(titles)
    while len(entries) < count:
        entries[f"{drawn.choice(words)} {drawn.choice(words)}"] = None
    return list(entries)


def write_pool(path: Path, rows: int) -> None:
    """Captions with URLs."""
    schema = pa.schema([("url", pa.string()), ("caption", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        first = 0
        for texts in drawn_captions(rows):
            urls = [f"http://host/{i}" for i in range(first, first + len(texts))]
            writer.write_table(pa.table([pa.array(urls), texts], schema=schema))
            first += len(texts)


def measure(folder: Path, rows: int) -> float:
    """Print one line: a command's seconds and peak; returns the seconds."""
    write_pool(folder / f"{rows}.parquet", rows)
    command = [COMMAND, "balance", folder / f"{rows}.parquet", "--entries", folder / "entries.txt"]
    command += ["--t", str(max(1, 10 * T * rows // 1_000_000)), "-o", folder / f"{rows}-kept.parquet"]
    log = (folder / "log").open("wb")
    started = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)
    with Sampler(process.pid, every_s=0.1) as sampler:
        process.wait()
    taken_s = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError((folder / "log").read_text()[-2000:])
    kept = pq.read_metadata(folder / f"{rows}-kept.parquet").num_rows
    peak = sampler.peak_bytes() / 2**20
    say(f"{rows:11,} rows: {taken_s:7.1f} s, {rows / taken_s:9,.0f} rows/s, peak {peak:6,.0f} MiB, {kept:,} kept")
    return taken_s


def compare_deciding(entries: Sequence[str]) -> None:
    """Print one line: the published loop and ours, rows a second of one core, once pairs are known."""
    texts = pa.concat_arrays(list(drawn_captions(LOOP_ROWS)))
    uids = pa.array(uids_of_urls([f"http://host/{i}" for i in range(LOOP_ROWS)], texts))
    found = Matcher(entries).match(texts)
    ends = np.searchsorted(found.rows, np.arange(LOOP_ROWS), "right")
    ids = [part.tolist() for part in np.split(found.entries, ends[:-1])]
    started = time.thread_time()
    loop_counts = dict.fromkeys(range(len(entries)), 0)
    for row in ids:
        for entry in row:
            loop_counts[entry] += 1
    probability = {entry: min(1.0, T / count) if count else 1.0 for entry, count in loop_counts.items()}
    sum(any(random.random() < probability[entry] for entry in row) for row in ids)
    loop_s = time.thread_time() - started
    matching = Matching(Lexicon(pa.array(entries), None, None), "caption", None)
    table, labels = pa.table({"uid": uids, "caption": texts}), quoted(pa.array(entries))
    pieces = [table.slice(i, PIECE_ROWS) for i in range(0, LOOP_ROWS, PIECE_ROWS)]
    matched_s = []
    for _ in range(3):
        started = time.thread_time()
        for piece in pieces:
            matching.match(piece)
        matched_s.append(time.thread_time() - started)
    match_s = min(matched_s)
    started = time.thread_time()
    counts = np.zeros(matching.lexicon.slots, np.int64)
    for piece in pieces:
        Count(matching)(piece).add_to(counts)
    misses = 1 - np.minimum(1, T / np.maximum(counts, 1))
    decide = Decide(matching, misses, np.array([T]), labels, 0, is_online=False)
    batches = [decide(piece).batch for piece in pieces]
    ours_s = time.thread_time() - started - 2 * match_s
    dropped = pa.Table.from_batches(batches, DECISIONS).column("reason").drop_null()
    say(
        f"deciding alone: loop {LOOP_ROWS / loop_s:,.0f} rows/s, ours {LOOP_ROWS / ours_s:,.0f} rows/s "
        f"(×{loop_s / ours_s:.1f}), {len(dropped):,} reasons written; matching {LOOP_ROWS / match_s:,.0f} rows/s"
    )


def main() -> None:
    """Print each size's line, and the ratio of the last to the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--entries", type=int, default=500_000)
    arguments = parser.parse_args()
    entries = entries_of(arguments.entries)
    compare_deciding(entries)
    sizes = arguments.rows or [100_000, 1_000_000]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "entries.txt").write_text("\n".join(entries))
        taken = [measure(Path(folder), rows) for rows in sizes]
    say(f"×{sizes[-1] / sizes[0]:g} rows: ×{taken[-1] / taken[0]:.1f} seconds (limit ×{LIMIT} for ×10)")


if __name__ == "__main__":
    main()
