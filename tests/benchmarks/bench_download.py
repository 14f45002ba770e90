"""`download` against a plain sequential loop, from one loopback server in a process of its own.

Run by hand: `python tests/benchmarks/bench_download.py`. The server answers at once, so that the cost of client and
server is the limit, or after 20 ms, as a near host on the Internet does.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
import urllib.request
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa

from corpusmith.operators.fetch.download import Download, DownloadConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "operators" / "fetch"))
from hostile_server import HostileServer  # pyright: ignore[reportMissingImports]

URLS = 3000
SEQUENTIAL_URLS = 150


def serve(pipe: Connection) -> None:
    """Serve until the other end says so."""
    with HostileServer() as server:
        pipe.send(server.url(""))
        pipe.recv()


def rate_of_operator(urls: list[str]) -> float:
    """Images per second of one worker."""
    operator = Download(DownloadConfig(allow_hosts=("127.0.0.1",), concurrency=64, per_host=64))
    operator.setup()
    started = time.perf_counter()
    for first in range(0, len(urls), operator.batch_rows):
        batch = urls[first : first + operator.batch_rows]
        for part in operator.process(pa.table({"uid": batch, "url": batch})):
            assert not part.errors, part.errors
    taken_s = time.perf_counter() - started
    operator.close()
    return len(urls) / taken_s


def rate_of_loop(urls: list[str]) -> float:
    """Images per second of urllib, one after the other."""
    started = time.perf_counter()
    for url in urls:
        with urllib.request.urlopen(url, timeout=10) as response:
            response.read()
    return len(urls) / (time.perf_counter() - started)


def main() -> None:
    """Print both rates for both servers."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    try:
        root = ours.recv()
        for path in ("good", "slow/0.02"):
            urls = [f"{root}{path}/{i}" for i in range(URLS)]
            loop, operator = rate_of_loop(urls[:SEQUENTIAL_URLS]), rate_of_operator(urls)
            sys.stdout.write(f"{path}: loop {loop:.0f} images/s, download {operator:.0f} images/s\n")
    finally:
        ours.send("end")
        server.join(10)


if __name__ == "__main__":
    main()
