"""The published results themselves: publishing, compaction, listing and looking up, in rows a second.

Run `python tests/benchmarks/bench_state.py [--rows 1000000] [--operators 8] [--s3]`. Results of each operator are
published in fragments as a stream does (units of at most 8,192 rows, three fragments each, rows in the order of their
arrival), compacted into buckets, listed, and looked up for every unit of every operator: the anti-join that a resumed
run starts with. Nothing but the state is at work: digests are drawn, no operator runs, two threads stand for two cores.

`--s3` does the same on an S3-protocol server on loopback, moto's, which is written in Python and runs in this process:
its rates say that the requests are right and few, not what an object store would give.
"""

from __future__ import annotations

import argparse
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from timing import say

from corpusmith.pipelines.buckets import Bucket, all_buckets, bucket_bits
from corpusmith.pipelines.plan import MAX_UNIT_ROWS
from corpusmith.pipelines.state import DIGEST, ERROR, MESSAGE, Store
from corpusmith.pipelines.storage import Storage
from corpusmith.schemas.columns import ROOT, UID, Column

CPUS = 2
FRAGMENTS_A_UNIT = 3
PRODUCES = (Column("score", pa.float64(), "a score"), Column("label", pa.string(), "a word"))
WORDS = pa.array(["street", "dog", "a red boat on a lake", "portrait", None])


@dataclass(frozen=True)
class Work:
    """One unit's rows: its bucket, and the table of uids and digests, sorted by uid."""

    bucket: Bucket
    keys: pa.Table


def units_of(rows: int, seed: int = 0) -> list[Work]:
    """Random rows, cut into buckets and units as ingest does."""
    rng = np.random.default_rng(seed)
    bits = bucket_bits(rows)
    units: list[Work] = []
    for bucket, number in zip(all_buckets(bits), rng.multinomial(rows, [2.0**-bits] * (1 << bits)), strict=True):
        keys = _keys(rng, bucket, number)
        units += [Work(bucket, keys.slice(start, MAX_UNIT_ROWS)) for start in range(0, number, MAX_UNIT_ROWS)]
    return units


def _keys(rng: np.random.Generator, bucket: Bucket, number: int) -> pa.Table:
    raw = rng.integers(0, 256, (number, 16), np.uint8)
    head = (raw[:, 0].astype(np.uint32) << 8 | raw[:, 1]) >> bucket.bits | bucket.index << (16 - bucket.bits)
    raw[:, 0], raw[:, 1] = head >> 8, head & 255
    text = raw.tobytes().hex()
    uids = pa.array(sorted(text[i : i + 32] for i in range(0, len(text), 32)), pa.string())
    return pa.table({UID.name: uids, DIGEST: _digests(rng, number)})


def _digests(rng: np.random.Generator, number: int) -> pa.Array:
    return pa.Array.from_buffers(pa.binary(16), number, [None, pa.py_buffer(rng.bytes(16 * number))])


def results_of(keys: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Results as an annotate step hands them to its store: one in a hundred failed."""
    failed = pa.array(rng.random(keys.num_rows) < 0.01)
    words = WORDS.take(pa.array(rng.integers(0, len(WORDS), keys.num_rows)))
    columns = {
        UID.name: keys.column(UID.name),
        ROOT.name: keys.column(UID.name),
        DIGEST: keys.column(DIGEST),
        ERROR: pc.if_else(failed, "Timeout", pa.scalar(None, pa.string())),
        MESSAGE: pc.if_else(failed, "no answer within 10 s", pa.scalar(None, pa.string())),
        "score": pa.array(rng.random(keys.num_rows)),
        "label": words,
    }
    return pa.table(columns)


def publish(stores: Sequence[Store], units: Sequence[Work], pool: ThreadPoolExecutor) -> None:
    """Publish every unit's results of every operator, in fragments."""

    def one(numbered: tuple[int, Work]) -> None:
        number, unit = numbered
        rng = np.random.default_rng(number)
        # rows leave a unit in whatever order they become ready
        keys = unit.keys.take(pa.array(rng.permutation(unit.keys.num_rows)))
        size = -(-keys.num_rows // FRAGMENTS_A_UNIT)
        results = results_of(keys, rng)
        for store in stores:
            for start in range(0, keys.num_rows, size):
                store.publish(unit.bucket, results.slice(start, size))

    for _ in pool.map(one, enumerate(units)):
        pass


def compact(stores: Sequence[Store], bits: int) -> None:
    """Merge fragments into bucket files."""
    for store in stores:
        store.compact(bits)


def look_up(stores: Sequence[Store], units: Sequence[Work], pool: ThreadPoolExecutor) -> None:
    """Find every row's result, as a stream does before it computes: batches of 1,024 rows."""

    def one(unit: Work) -> int:
        uids, found = unit.keys.column(UID.name), 0
        for store in stores:
            results = store.results(unit.bucket, uids[0].as_py(), uids[-1].as_py())
            for start in range(0, unit.keys.num_rows, 1024):
                batch = unit.keys.slice(start, 1024)
                positions = results.find(batch.column(UID.name), batch.column(DIGEST).combine_chunks())
                found += int((positions >= 0).sum())
        return found

    found = sum(pool.map(one, units))
    expected = sum(unit.keys.num_rows for unit in units) * len(stores)
    assert found == expected, f"{found:,} of {expected:,} results found"


def timed(name: str, number: int, unit: str, work: Callable[[], object]) -> None:
    """Do a part and print its rate."""
    started = time.perf_counter()
    work()
    taken_s = time.perf_counter() - started
    say(f"  {name:24} {taken_s:8.2f} s {number / taken_s:12,.0f} {unit}/s")


def list_all(stores: Sequence[Store]) -> None:
    """Look again at what is published."""
    for store in stores:
        store.refresh()


def files_of(stores: Sequence[Store]) -> int:
    """How many files there are."""
    list_all(stores)
    return sum(len(store.files) for store in stores)


def measure(root: str, rows: int, operators: int) -> None:
    """Print the rate of each part on one storage."""
    storage = Storage(root)
    started = time.perf_counter()
    units = units_of(rows)
    bits = bucket_bits(rows)
    say(f"{rows:,} rows x {operators} operators, {len(units):,} units, {1 << bits} buckets, {root.split(':')[0]}")
    stores = [Store(storage, f"results/op{i}-{secrets.token_hex(8)}", PRODUCES) for i in range(operators)]
    results = rows * operators
    with ThreadPoolExecutor(CPUS) as pool:
        timed("publish", results, "results", lambda: publish(stores, units, pool))
        timed("list fragments", files_of(stores), "files", lambda: list_all(stores))
        timed("find among fragments", rows, "results", lambda: look_up(stores[:1], units, pool))
        timed("compact", results, "results", lambda: compact(stores, bits))
        timed("list bucket files", files_of(stores), "files", lambda: list_all(stores))
        timed("find", results, "results", lambda: look_up(stores, units, pool))
        timed("compact once more", results, "results", lambda: compact(stores, bits))
    size = sum(entry.size for entry in storage.list("results"))
    say(f"  {size / results:.0f} bytes a result; all parts together {time.perf_counter() - started:.0f} s")


@contextmanager
def s3_server() -> Iterator[str]:
    """An S3-protocol server on loopback with a bucket; the root of a storage there."""
    import boto3
    from moto.server import ThreadedMotoServer

    keys = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1"}
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        os.environ.update(keys, AWS_ENDPOINT_URL=f"http://{host}:{port}")
        boto3.client("s3").create_bucket(Bucket="bench")
        yield "s3://bench/corpus"
    finally:
        server.stop()


def main() -> None:
    """Measure on local disk, or on the S3-protocol server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--operators", type=int)
    parser.add_argument("--folder", help="where the files are written; a temporary folder by default")
    parser.add_argument("--s3", action="store_true")
    options = parser.parse_args()
    if options.s3:
        with s3_server() as root:
            measure(root, options.rows or 200_000, options.operators or 2)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(folder, options.rows or 1_000_000, options.operators or 8)


if __name__ == "__main__":
    main()
