"""`download` against the way in which img2dataset fetches, and against servers that stall.

Run by hand: `python tests/benchmarks/bench_download.py tiny` and `… stalls` (sizes: `--help`). The server is a process
of its own that sends prebuilt answers, so that the client is what is measured, as far as two on one machine can.

- tiny: many bodies of 2 kB. The baseline does what img2dataset's `download_image` does for each URL: urllib.request
  with its user agent, a connection each, the opt-out header looked at, sha256, in a pool of threads.
- stalls: the same number of requests to a server that lets some wait 10 s and to one that does not. The time-out is
  shorter, so that a stall ends as `Timeout`, without a retry. The last stalls add up to one time-out to the end of
  either run, whatever the client does; so the number of requests has to be such that the run is longer than ten.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import multiprocessing
import resource
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection

import pyarrow as pa

from corpusmith.operators.fetch.config import DownloadConfig
from corpusmith.operators.fetch.download import Download

STALL_S = 10.0
BATCHES_IN_HAND = 4


class Answers(asyncio.Protocol):
    """Answers each request with the same bytes, `/stall/…` after a wait."""

    def __init__(self, body: bytes) -> None:
        self._answer = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._rest += data
        while b"\r\n\r\n" in self._rest:
            head, _, self._rest = self._rest.partition(b"\r\n\r\n")
            wait_s = _wait_s(head)
            if wait_s:
                asyncio.get_running_loop().call_later(wait_s, self._transport.write, self._answer)
            else:
                self._transport.write(self._answer)


def _wait_s(head: bytes) -> float:
    return STALL_S if head.startswith(b"GET /stall") else 0.0


async def _serve(pipe: Connection, size_bytes: int) -> None:
    body = b"\xff\xd8\xff" + bytes(size_bytes - 3)
    server = await asyncio.get_running_loop().create_server(lambda: Answers(body), "127.0.0.1", 0, backlog=4096)
    pipe.send(server.sockets[0].getsockname()[1])
    await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
    server.close()


def serve(pipe: Connection, size_bytes: int) -> None:
    """Serve until the other end says so."""
    asyncio.run(_serve(pipe, size_bytes))


@contextmanager
def running_server(size_bytes: int) -> Iterator[str]:
    """The root URL of a server in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, size_bytes), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        ours.send("end")
        process.join(10)
        process.kill()


def cpu_s() -> float:
    """Seconds of cores that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run_operator(urls: list[str], concurrency: int, per_host: int, timeout_s: float = 10.0) -> dict[str, int]:
    """Download as the engine does, some batches in hand at once; the number of rows by error."""
    config = DownloadConfig(
        allow_hosts=("127.0.0.1",),
        timeout_s=timeout_s,
        concurrency=concurrency,
        per_host=per_host,
        retries=0,
        recent_max_bytes=0,
    )
    operator = Download(config)
    operator.setup()
    counts: dict[str, int] = {}
    lock = threading.Lock()
    size = operator.batch_rows

    def work(batch: list[str]) -> None:
        for part in operator.process(pa.table({"uid": batch, "url": batch})):
            with lock:
                for error in part.errors.values():
                    counts[error.error] = counts.get(error.error, 0) + 1
                counts[""] = counts.get("", 0) + len(part.rows or ()) - len(part.errors)

    with ThreadPoolExecutor(max(BATCHES_IN_HAND, 2 * per_host // size)) as threads:
        list(threads.map(work, (urls[i : i + size] for i in range(0, len(urls), size))))
    operator.close()
    return counts


def run_like_img2dataset(urls: list[str], threads: int) -> None:
    """urllib, a thread and a connection for each request, as img2dataset's download_image does."""
    agent = "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:72.0) Gecko/20100101 Firefox/72.0"

    def fetch(url: str) -> str:
        request = urllib.request.Request(url, data=None, headers={"User-Agent": agent})
        with urllib.request.urlopen(request, timeout=10) as response:
            for directives in response.headers.get_all("X-Robots-Tag", []):
                assert "noai" not in directives
            return hashlib.sha256(response.read()).hexdigest()

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(fetch, urls):
            pass


def tiny(count: int, size_bytes: int) -> None:
    """Print requests a second of both ways."""
    with running_server(size_bytes) as root:
        urls = [f"{root}/tiny/{i}.jpg" for i in range(count)]
        run_operator(urls[:500], 64, 64)
        began_s, began_cpu_s = time.perf_counter(), cpu_s()
        assert run_operator(urls, 64, 64) == {"": count}
        ours_s, ours_cpu_s = time.perf_counter() - began_s, cpu_s() - began_cpu_s
        say(f"download, 64 in flight: {count / ours_s:.0f} requests/s, {ours_cpu_s / count * 1000:.3f} ms CPU each")
        for threads in (64, 256):
            began_s, began_cpu_s = time.perf_counter(), cpu_s()
            run_like_img2dataset(urls, threads)
            taken_s, taken_cpu_s = time.perf_counter() - began_s, cpu_s() - began_cpu_s
            say(
                f"as img2dataset fetches, {threads} threads: {count / taken_s:.0f} requests/s, "
                f"{taken_cpu_s / count * 1000:.3f} ms CPU each; download is {taken_s / ours_s:.1f}× as fast"
            )


def stalls(count: int, concurrency: int, size_bytes: int, timeout_s: float) -> None:
    """Print what 5 % of stalls cost; the one host may have all that the worker has, parked requests included."""
    with running_server(size_bytes) as root:
        plain = [f"{root}/good/{i}" for i in range(count)]
        run_operator(plain[:500], concurrency, 4096)
        stalled = [f"{root}/stall/{i}" if i % 20 == 0 else url for i, url in enumerate(plain)]
        taken_s: list[float] = []
        for urls in (plain, stalled):
            began_s, began_cpu_s = time.perf_counter(), cpu_s()
            counts = run_operator(urls, concurrency, 4096, timeout_s)
            taken_s.append(time.perf_counter() - began_s)
            used_s = cpu_s() - began_cpu_s
            say(f"{count} requests, {concurrency} in flight: {taken_s[-1]:.2f} s, {used_s:.2f} s CPU, {counts}")
        say(f"5 % of stalls, which end after {timeout_s:g} s, cost {taken_s[1] / taken_s[0]:.2f}×")


def say(line: str) -> None:
    """One line of the result."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the command line and run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    small = kinds.add_parser("tiny")
    small.add_argument("--count", type=int, default=5000, help="requests; 20000 for the record")
    small.add_argument("--size-bytes", type=int, default=2000)
    waiting = kinds.add_parser("stalls")
    waiting.add_argument("--count", type=int, default=5000, help="requests; 120000 for the record")
    waiting.add_argument("--concurrency", type=int, default=256)
    waiting.add_argument("--size-bytes", type=int, default=100_000)
    waiting.add_argument("--timeout-s", type=float, default=2.0, help="when a stall ends")
    given = parser.parse_args()
    if given.kind == "tiny":
        tiny(given.count, given.size_bytes)
    else:
        stalls(given.count, given.concurrency, given.size_bytes, given.timeout_s)


if __name__ == "__main__":
    main()
