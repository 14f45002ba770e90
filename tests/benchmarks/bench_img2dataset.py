"""`corpusmith download` against img2dataset, as commands with the same flags, and against what the codec alone allows.

Run by hand: `python tests/benchmarks/bench_img2dataset.py [--images 5000] [--rounds 2]`. Real photos of 100 to 300 kB
come from one server on loopback; the tools take turns, so that a machine that is busy with other things is so for all.

- cold: from the start of the command to its end;
- steady: from the first shard's start to the last one's end, by the statistics that both tools write;
- codec alone: one process a core that fetches each photo over a plain socket and puts it through the image operator:
  the least that any downloader has to do;
- tiny files, with `--tiny 20000` in place of the photos: pictures of some 2 kB, only fetched and counted, so that
  requests are what costs.
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
TINY_FLAGS = {**FLAGS, "output_format": "dummy", "disable_all_reencoding": "True"}
TINY_FILES = 200
CORPUSMITH = [str(Path(sysconfig.get_path("scripts")) / "corpusmith"), "download", "--allow_hosts", "127.0.0.1"]


def run_tool(
    command: list[str], urls: Path, output: Path, images: int, given: dict[str, str] = FLAGS
) -> tuple[float, float]:
    """Images per second of one run: cold, steady."""
    shutil.rmtree(output, ignore_errors=True)
    flags = {**given, "url_list": str(urls), "output_folder": str(output)}
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


def make_tiny(folder: Path) -> None:
    """Pictures of about 2 kB, made where they are not there yet."""
    import cv2
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(TINY_FILES):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
        (folder / f"{number:04d}.jpg").write_bytes(encoded.tobytes())


def write_urls(served: list[str], count: int, path: Path) -> list[str]:
    """So many different URLs of the served files, as both tools read them."""
    urls = [f"{served[i % len(served)]}?{i}" for i in range(count)]
    pq.write_table(pa.table({"url": urls, "caption": [f"photo {i}" for i in range(count)]}), path)
    return urls


def measure_photos(tools: dict[str, list[str]], photos: Path, images: int, rounds: int) -> dict[str, list[float]]:
    """Rates of the tools and of the codec alone, by name."""
    workers = int(FLAGS["processes_count"])
    rates: dict[str, list[float]] = {}
    with (
        serving(photos) as served,
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(workers, get_context("spawn")) as pool,
    ):
        urls = write_urls(served, images, Path(folder) / "urls.parquet")
        run_codec(pool, workers, urls[: 20 * workers])
        for _ in range(rounds):
            for name, command in tools.items():
                cold, steady = run_tool(command, Path(folder) / "urls.parquet", Path(folder) / "out", images)
                rates.setdefault(f"{name} cold", []).append(cold)
                rates.setdefault(f"{name} steady", []).append(steady)
            rates.setdefault("codec alone", []).append(run_codec(pool, workers, urls))
    return rates


def measure_tiny(tools: dict[str, list[str]], pictures: Path, images: int, rounds: int) -> dict[str, list[float]]:
    """Rates of the tools where requests are what costs, by name."""
    rates: dict[str, list[float]] = {}
    with serving(pictures) as served, tempfile.TemporaryDirectory() as folder:
        write_urls(served, images, Path(folder) / "urls.parquet")
        for _ in range(rounds):
            for name, command in tools.items():
                urls, output = Path(folder) / "urls.parquet", Path(folder) / "out"
                cold, steady = run_tool(command, urls, output, images, TINY_FLAGS)
                rates.setdefault(f"{name} cold", []).append(cold)
                rates.setdefault(f"{name} steady", []).append(steady)
    return rates


def main() -> None:
    """Print rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tiny", type=int, metavar="FILES", help="measure with so many tiny files instead")
    parser.add_argument("--processes", type=int, default=2, help="processes_count of both tools")
    options = parser.parse_args()
    for flags in (FLAGS, TINY_FLAGS):
        flags["processes_count"] = str(options.processes)
    img2dataset = peer("img2dataset", ["img2dataset==1.47.0"]).with_name("img2dataset")
    tools = {"img2dataset": [str(img2dataset)], "corpusmith": CORPUSMITH}
    # a folder of the user's own: names in the system's folder for temporary files can be taken by others
    pictures = Path(tempfile.gettempdir()) / f"corpusmith-photos-{os.getuid()}"
    if options.tiny:
        make_tiny(pictures / "tiny")
        report("tiny files", options.tiny, measure_tiny(tools, pictures / "tiny", options.tiny, options.rounds))
        return
    make_photos(pictures, PHOTOS)
    rates = measure_photos(tools, pictures, options.images, options.rounds)
    report("photos of 100 to 300 kB", options.images, rates)


def report(what: str, images: int, rates: dict[str, list[float]]) -> None:
    """Rates of all rounds, and the ratios of the best ones."""
    best = {name: max(values) for name, values in rates.items()}
    lines = [f"{images:,} {what}, {os.cpu_count()} cores, images/s"]
    for name, values in rates.items():
        lines.append(f"  {name:20} {best[name]:7.0f}   rounds: {', '.join(f'{value:.0f}' for value in values)}")
    for kind in ("cold", "steady"):
        ours = best[f"corpusmith {kind}"]
        lines.append(f"  {kind}: {ours / best[f'img2dataset {kind}']:.2f} × img2dataset")
        if "codec alone" in best:
            lines.append(f"  {kind}: {ours / best['codec alone']:.2f} of the codec alone")
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
