"""`corpusmith download` against img2dataset, as commands with the same flags, and against what the codec alone allows.

Run by hand: `python tests/benchmarks/bench_img2dataset.py [--images 5000] [--rounds 2]`. Real photos of 100 to 300 kB
come from one server on loopback; the tools take turns, so that a machine that is busy with other things is so for all.

- cold: from the start of the command to its end;
- steady: from the first shard's start to the last one's end, by the statistics that both tools write;
- codec alone: one process a core that fetches each photo over a plain socket and puts it through the image operator:
  the least that any downloader has to do.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from photo_server import make_photos, serving

sys.path.insert(0, str(Path(__file__).parents[1]))
from peers import peer

PHOTOS = 500
SHARDS = 4
FLAGS = {
    "input_format": "parquet",
    "caption_col": "caption",
    "output_format": "webdataset",
    "image_size": "256",
    "resize_mode": "keep_ratio",
    "processes_count": "2",
    "thread_count": "64",
}
CORPUSMITH = [str(Path(sysconfig.get_path("scripts")) / "corpusmith"), "download", "--allow_hosts", "127.0.0.1"]


def run_tool(command: list[str], urls: Path, output: Path, images: int) -> tuple[float, float]:
    """Images per second of one run: cold, steady."""
    shutil.rmtree(output, ignore_errors=True)
    flags = {**FLAGS, "url_list": str(urls), "output_folder": str(output)}
    flags["number_sample_per_shard"] = str(-(-images // SHARDS))
    words = [f"--{name}={value}" for name, value in flags.items()]
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
    started = time.perf_counter()
    subprocess.run(
        [*command, *words], check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    taken_s = time.perf_counter() - started
    stats = [json.loads(path.read_text()) for path in output.glob("*_stats.json")]
    assert sum(shard["successes"] for shard in stats) == images, stats
    steady_s = max(shard["end_time"] for shard in stats) - min(shard["start_time"] for shard in stats)
    return images / taken_s, images / steady_s


def code(urls: list[str]) -> None:
    """Fetch photos over a plain socket, one after the other, and put each through the image operator."""
    from corpusmith.operators.image.image import Image, ImageConfig

    operator = Image(ImageConfig(size=256, resize="keep_ratio", only_if_bigger=False, reencode="always"))
    operator.setup()
    host, _, port = urls[0].split("/")[2].partition(":")
    buffer = bytearray(1 << 20)
    with socket.create_connection((host, int(port))) as connection:
        for url in urls:
            connection.sendall(f"GET /{url.split('/', 3)[3]} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            operator.process_row({"media": body_of(connection, buffer)})


def body_of(connection: socket.socket, buffer: bytearray) -> bytes:
    """One answer's body."""
    filled, end = 0, len(buffer)
    start = -1
    while filled < end:
        filled += connection.recv_into(memoryview(buffer)[filled:])
        if start < 0 and (blank := buffer.find(b"\r\n\r\n", 0, filled)) >= 0:
            start = blank + 4
            end = start + int(buffer[:blank].lower().partition(b"content-length:")[2].split()[0])
    return bytes(memoryview(buffer)[start:end])


def run_codec(pool: ProcessPoolExecutor, workers: int, urls: list[str]) -> float:
    """Images per second of the codec alone."""
    started = time.perf_counter()
    list(pool.map(code, [urls[i::workers] for i in range(workers)]))
    return len(urls) / (time.perf_counter() - started)


def main() -> None:
    """Print rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    # a folder of the user's own: names in the system's folder for temporary files can be taken by others
    photos = Path(tempfile.gettempdir()) / f"corpusmith-photos-{os.getuid()}"
    make_photos(photos, PHOTOS)
    img2dataset = peer("img2dataset", ["img2dataset==1.47.0"]).with_name("img2dataset")
    workers = int(FLAGS["processes_count"])
    with (
        serving(photos) as served,
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(workers, get_context("spawn")) as pool,
    ):
        urls = [f"{served[i % len(served)]}?{i}" for i in range(options.images)]
        table = Path(folder) / "urls.parquet"
        pq.write_table(pa.table({"url": urls, "caption": [f"photo {i}" for i in range(len(urls))]}), table)
        run_codec(pool, workers, urls[: 20 * workers])
        rates: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for name, command in (("img2dataset", [str(img2dataset)]), ("corpusmith", CORPUSMITH)):
                cold, steady = run_tool(command, table, Path(folder) / "out", options.images)
                rates.setdefault(f"{name} cold", []).append(cold)
                rates.setdefault(f"{name} steady", []).append(steady)
            rates.setdefault("codec alone", []).append(run_codec(pool, workers, urls))
    report(rates, options.images)


def report(rates: dict[str, list[float]], images: int) -> None:
    """Rates of all rounds, and the ratios of the best ones."""
    best = {name: max(values) for name, values in rates.items()}
    lines = [f"{images} photos of 100 to 300 kB, {os.cpu_count()} cores, images/s"]
    for name, values in rates.items():
        lines.append(f"  {name:20} {best[name]:7.0f}   rounds: {', '.join(f'{value:.0f}' for value in values)}")
    for kind in ("cold", "steady"):
        ours = best[f"corpusmith {kind}"]
        lines.append(f"  {kind}: {ours / best[f'img2dataset {kind}']:.2f} × img2dataset")
        lines.append(f"  {kind}: {ours / best['codec alone']:.2f} of the codec alone")
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
