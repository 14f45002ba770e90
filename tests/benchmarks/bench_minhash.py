"""Near-duplicate captions found by dedup.minhash, datasketch and rensa, beside brute force; and what larger pools cost.

Run it as `python tests/benchmarks/bench_minhash.py`; ARGS: `[captions] [sizes of larger pools …]`.

All see the same captions (`near_captions.edited_captions`) cut into the same shingles, with 112 permutations in 14
bands of 8. The other two are handed texts in normal form, so that ours alone pays for that; they cut texts in Python,
as their users do, insert, and query each. Their candidates are taken as they come, and, in another row, decided by the
Jaccard similarity of the Python sets, as ours are. Pairs are connected to groups; of each the first row stays.

Truth are all pairs of similarity 0.8 or more, from a sparse product of all sets with all. Precision: the share of
dropped rows that truth connects with the row that they were dropped for. Recall: the share of true pairs, of texts
whose normal forms differ, whose ends are in one group. Times are of the cores' clock; ours is the best of a few turns,
without the compiler's time. Larger pools are `captions.drawn_captions`; each runs in a process of its own, from a
Parquet file with one thread; memory is the most that was resident, files mapped into memory included.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from timing import say

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' helpers

from captions import drawn_captions
from near_captions import edited_captions
from peers import peer

from corpusmith.operators.dedup.minhash import MinHash
from corpusmith.operators.dedup.normal_forms import normal_form

TURNS = 3
PIECE_ROWS = 16_384
PEERS = ("datasketch==2.0.0", "rensa==0.5.0", "pyarrow", "scipy")
"""Licences: MIT, MIT, Apache-2.0, BSD-3-Clause."""

OTHERS = """
import itertools, json, sys, time
import numpy as np
tool, texts_path, labels_path = sys.argv[1:]
texts = json.load(open(texts_path))

def shingles(text):
    words = text.split(" ")
    items, size = (words, 5) if len(words) >= 10 else (text, 5)
    join = " ".join if len(words) >= 10 else "".join
    return {join(items[i : i + size]) for i in range(max(len(items) - size, 0) + 1)}

def grouped(pairs):
    labels = list(range(len(texts)))
    def root(i):
        while labels[i] != i:
            labels[i] = i = labels[labels[i]]
        return i
    for i, j in pairs:
        i, j = root(i), root(j)
        labels[max(i, j)] = min(i, j)
    return [root(i) for i in range(len(texts))]

def alike(sets, i, j):
    both = len(sets[i] & sets[j])
    return both / (len(sets[i]) + len(sets[j]) - both) >= 0.8

def by_datasketch(sets):
    from datasketch import MinHash, MinHashLSH
    index = MinHashLSH(num_perm=112, params=(14, 8))
    for i, minhash in enumerate(MinHash.generator(([s.encode() for s in found] for found in sets), num_perm=112)):
        yield from ((j, i) for j in index.query(minhash))
        index.insert(i, minhash, check_duplication=False)

def by_rensa(sets):
    from rensa import RMinHash, RMinHashLSH
    index = RMinHashLSH(threshold=0.8, num_perm=112, num_bands=14)
    minhashes = RMinHash.from_token_sets([list(found) for found in sets], num_perm=112, seed=42)
    index.insert_many(minhashes)
    for i, found in enumerate(index.query_all(minhashes)):
        yield from ((j, i) for j in found if j < i)

def by_all_pairs(sets):
    import scipy.sparse
    numbers = {shingle: k for k, shingle in enumerate(set().union(*sets))}
    columns = [numbers[shingle] for found in sets for shingle in found]
    sizes = np.array([len(found) for found in sets])
    rows = np.repeat(np.arange(len(sets)), sizes)
    matrix = scipy.sparse.csr_array((np.ones(len(rows), np.int32), (rows, columns)))
    for start in range(0, len(sets), 500):
        both = (matrix[start : start + 500] @ matrix.T).tocoo()
        i, j = both.coords[0] + start, both.coords[1]
        is_pair = (both.data / (sizes[i] + sizes[j] - both.data) >= 0.8) & (i < j)
        yield from zip(i[is_pair].tolist(), j[is_pair].tolist())

begun, process_begun = time.time(), time.process_time()
sets = [shingles(text) for text in texts]
name, _, is_checked = tool.partition("+")
pairs = {"datasketch": by_datasketch, "rensa": by_rensa, "truth": by_all_pairs}[name](sets)
if is_checked:
    pairs = (pair for pair in pairs if alike(sets, *pair))
if name == "truth":
    pairs = list(pairs)
labels = grouped(pairs)
spent = [time.process_time() - process_begun, time.time() - begun]
np.savez(labels_path, labels=labels, pairs=np.array(pairs if name == "truth" else []), spent=spent)
"""


class FileRows:
    """Live rows of a Parquet file, in its order, worked on by one thread."""

    seed = 0

    def __init__(self, path: Path, scratch_dir: str) -> None:
        self.count = pq.ParquetFile(path).metadata.num_rows
        self.scratch_dir = scratch_dir
        self._path = path

    def reader(self, columns: Sequence[str]) -> pa.RecordBatchReader:
        raise NotImplementedError("dedup.minhash maps")

    def map(self, work: Callable[[pa.Table], Any], columns: Sequence[str]) -> Iterator[Any]:
        for batch in pq.ParquetFile(self._path).iter_batches(PIECE_ROWS, columns=["uid", *columns]):
            yield work(pa.Table.from_batches([batch]))


def write_pool(path: Path, captions: Iterable[pa.Array]) -> None:
    """A Parquet with uids that count."""
    schema, count = pa.schema([("uid", pa.string()), ("caption", pa.string())]), 0
    with pq.ParquetWriter(path, schema) as writer:
        for batch in captions:
            uids = pa.array([f"{i:032x}" for i in range(count, count + len(batch))])
            writer.write_batch(pa.record_batch([uids, batch], schema=schema))
            count += len(batch)


def deduplicate(path: Path) -> tuple[np.ndarray, float, float]:
    """The first row of each row's group; seconds of the cores and of the wall."""
    begun, process_begun = time.time(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        reduced = MinHash().reduce(FileRows(path, folder))
        groups = [pc.struct_field(batch.to_struct_array(), "dedup_group") for batch in reduced.decisions]
        spent = time.process_time() - process_begun, time.time() - begun
    return np.array([int(uid, 16) for group in groups for uid in group.to_pylist()]), *spent


def by_other(tool: str, texts_path: Path, folder: Path) -> dict[str, np.ndarray]:
    """Labels, pairs and seconds, from the peers' environment."""
    found = folder / "labels.npz"
    python = peer("minhash", PEERS)
    subprocess.run([str(python), "-c", OTHERS, tool, str(texts_path), str(found)], check=True)
    return dict(np.load(found))


@dataclass(frozen=True)
class Truth:
    """The first row of each row's group, and pairs of alike texts whose normal forms differ."""

    labels: np.ndarray
    left: np.ndarray
    right: np.ndarray

    def told(self, labels: np.ndarray) -> str:
        """How right groups are."""
        dropped = np.flatnonzero(labels != np.arange(len(labels)))
        precision = (self.labels[dropped] == self.labels[labels[dropped]]).mean()
        recall = (labels[self.left] == labels[self.right]).mean()
        return f"precision {precision:.4f}, recall {recall:.4f}, {len(dropped):,} dropped"


def compare(captions: list[str], folder: Path) -> None:
    """Print a line for each way."""
    write_pool(folder / "pool.parquet", [pa.array(captions)])
    texts = normal_form(pa.array(captions), "text").to_pylist()
    (folder / "texts.json").write_text(json.dumps(texts))
    found = by_other("truth", folder / "texts.json", folder)
    pairs = found["pairs"][[texts[i] != texts[j] for i, j in found["pairs"].tolist()]]
    truth = Truth(found["labels"], *pairs.T)
    say(f"{len(captions):,} captions, {len(pairs):,} true pairs; brute force {found['spent'][0]:.1f} s")
    deduplicate(folder / "pool.parquet")
    turns = [deduplicate(folder / "pool.parquet") for _ in range(TURNS)]
    labels, own_s, wall_s = min(turns, key=lambda turn: turn[1])
    rate = len(captions) / own_s
    say(f"dedup.minhash: {own_s:.2f} s (wall {wall_s:.2f}), {rate:,.0f} captions/s; {truth.told(labels)}")
    for tool in ("datasketch", "datasketch+checked", "rensa", "rensa+checked"):
        found = by_other(tool, folder / "texts.json", folder)
        spent_s, wall_s = found["spent"].tolist()
        rate, told = len(captions) / spent_s, truth.told(found["labels"])
        say(f"{tool}: {spent_s:.2f} s (wall {wall_s:.2f}), {rate:,.0f} captions/s (×{spent_s / own_s:.1f}); {told}")


def measured(path: Path) -> tuple[int, float, float, int, int]:
    """In a process of its own: groups, seconds of the cores and of the wall, and bytes before and at the peak."""
    deduplicate(path.with_name("warm.parquet"))
    before = peak_bytes()
    begun, process_begun = time.time(), time.process_time()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        reduced = MinHash().reduce(FileRows(path, folder))
        for _ in reduced.decisions:
            pass
    spent = time.process_time() - process_begun, time.time() - begun
    return reduced.summary["groups"], *spent, before, peak_bytes()


def peak_bytes() -> int:
    """The most memory that was ever resident in this process."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))


def scale(count: int, folder: Path) -> None:
    """Print one line for a pool of this size."""
    path = folder / f"{count}.parquet"
    write_pool(path, drawn_captions(count, seed=1))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        groups, spent_s, wall_s, before, peak = pool.apply(measured, (path,))
    say(
        f"{count:,} captions: {spent_s:.1f} s (wall {wall_s:.1f}), {count / spent_s:,.0f} captions/s; "
        f"peak {peak / 1e9:.2f} GB, {before / 1e9:.2f} of it before; {groups:,} groups"
    )


def main(arguments: Sequence[str]) -> None:
    count, *sizes = [int(argument) for argument in arguments] or [20_000, 100_000, 1_000_000]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compare(edited_captions(count), folder)
        write_pool(folder / "warm.parquet", [pa.array(edited_captions(2_000))])
        for size in sizes:
            scale(size, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
