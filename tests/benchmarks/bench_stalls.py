"""What servers that stall cost: 5 % of the URLs of a list lead to a server that never answers.

Run by hand: `python tests/benchmarks/bench_stalls.py [--images 12000] [--timeout-s 1]`. The others are real photos from
one server on loopback, made 256 px small, so that the codec is what bounds the run. Measured are `corpusmith download`
and a recipe in one process, at equal concurrency, each without stalls and with them. A stall ends with the time-out,
without a retry; the run's end waits for one time-out in any case, so the list has to be long beside it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from photo_server import make_photos, serving
from timing import say

PHOTOS = 500
STALLS_EVERY = 20
LIMIT = 1.1
CORPUSMITH = str(Path(sysconfig.get_path("scripts")) / "corpusmith")


@contextmanager
def silent_server() -> Iterator[str]:
    """The root URL of a server whose connections are accepted by the system and never answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=65535) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def download_command(table: Path, folder: Path, timeout_s: float) -> list[str]:
    """`corpusmith download` over a list."""
    flags = {
        "url_list": table,
        "output_folder": folder / "out",
        "input_format": "parquet",
        "output_format": "webdataset",
        "resize_mode": "keep_ratio",
        "timeout": timeout_s,
        "allow_hosts": "127.0.0.1",
        "processes_count": 2,
        "thread_count": 64,
        "number_sample_per_shard": 2000,
    }
    return [CORPUSMITH, "download", *(f"--{name}={value}" for name, value in flags.items())]


def run_command(table: Path, folder: Path, timeout_s: float) -> list[str]:
    """A recipe over the same list, in one process."""
    recipe = folder / "stalls.yaml"
    limits = f"timeout_s: {timeout_s}, retries: 0, concurrency: 128, per_host: 4096, allow_hosts: [127.0.0.1]"
    recipe.write_text(
        f"corpus: stalls\ninput: {{path: {table}}}\nsteps:\n  - download: {{{limits}}}\n  - image: {{size: 256}}\n"
    )
    return [CORPUSMITH, "run", str(recipe), "--output", str(folder / "out"), "--executor", "inline"]


def taken_s(command: Sequence[str], folder: Path) -> float:
    """Seconds of one command."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    began_s = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began_s


WAYS = {"download": download_command, "run": run_command}


def main() -> None:
    """Print what stalls cost each way; the exit code is 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--timeout-s", type=float, default=1.0)
    parser.add_argument("--way", choices=WAYS, action="append", help="only this one")
    options = parser.parse_args()
    photos = Path(tempfile.gettempdir()) / f"corpusmith-photos-{os.getuid()}"
    make_photos(photos, PHOTOS)
    worst = 0.0
    with serving(photos) as served, silent_server() as silent, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = [f"{served[i % len(served)]}?{i}" for i in range(options.images)]
        stalled = [f"{silent}/{i}" if i % STALLS_EVERY == 0 else url for i, url in enumerate(plain)]
        for title, urls in (("plain", plain), ("stalled", stalled)):
            pq.write_table(pa.table({"url": urls, "caption": urls}), folder / f"{title}.parquet")
        for way in options.way or WAYS:
            times = [
                taken_s(WAYS[way](folder / f"{title}.parquet", folder, options.timeout_s), folder)
                for title in ("plain", "stalled")
            ]
            worst = max(worst, times[1] / times[0])
            say(f"{way:10} {times[0]:6.1f} s without, {times[1]:6.1f} s with stalls: {times[1] / times[0]:.2f}×")
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    main()
