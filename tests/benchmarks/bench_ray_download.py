"""Downloading through Ray against `corpusmith download`, and against the same recipe in one process.

Run by hand: `python tests/benchmarks/bench_ray_download.py [--images 50000] [--rounds 2] [--profile]`. Real photos of
100 to 300 kB come from one server on loopback; the ways take turns, so that a machine that is busy with other things is
so for all. Each does the same work: fetch, shorter side to 256, JPEG, shards. A recipe's run also stages what it made,
keeps it for later runs, writes a ledger and a report.

- cold: from the start of the command to its end;
- steady: from the start of the first stream (or shard) to the end of the last shard, as the tools themselves tell.

`--profile` also tells the cores' time of each way by kind of process, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from photo_server import make_photos, serving
from timing import COMMAND, recipe_of, say

PHOTOS = 500
CPUS = 2
SHARDS = 4
STEPS = (
    "download: {allow_hosts: [127.0.0.1], timeout_s: 10, retries: 0}",
    "image: {size: 256, resize: keep_ratio}",
)
LIMIT = 0.9
"""Of the rate of `corpusmith download`, at 50,000 images."""

SECONDS = re.compile(r"^(\d\d):(\d\d):(\d\d) (stream|shards).*took (?:(\d+) min )?([\d.]+) s", re.MULTILINE)


class Watch:
    """The cores' time of a process and all below it, by kind of process."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._cpu_s: dict[tuple[str, int], float] = {}

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.3):
            try:
                for process in [self._root, *self._root.children(recursive=True)]:
                    times = process.cpu_times()
                    words = " ".join(process.cmdline())[:200]
                    self._cpu_s[_kind(words, process.pid == self._root.pid), process.pid] = times.user + times.system
            except psutil.Error:
                continue

    def tell(self, images: int) -> None:
        """Print the cores' time of each kind of process."""
        total: dict[str, float] = {}
        for (kind, _), cpu_s in self._cpu_s.items():
            total[kind] = total.get(kind, 0.0) + cpu_s
        ranked = sorted(total.items(), key=lambda item: -item[1])
        for kind, cpu_s in [*ranked, ("all", sum(total.values()))]:
            say(f"    {kind:16} {cpu_s:7.1f} s of cores {1000 * cpu_s / images:7.2f} ms an image")


def _kind(words: str, is_root: bool) -> str:
    known = ("ray::IDLE", "ray::", "gcs_server", "raylet", "dashboard", "log_monitor", "monitor.py", "cell_worker")
    return "the command" if is_root else next((name for name in known if name in words), "other children")


def run_recipe(table: Path, output: Path, images: int, executor: str, *, is_told: bool) -> tuple[float, float]:
    """Images per second of a recipe's run: cold, steady."""
    recipe = output.with_suffix(".yaml")
    text = recipe_of(STEPS, table) + f"output: {{samples_per_shard: {-(-images // SHARDS)}}}\n"
    recipe.write_text(text)
    command = [str(COMMAND), "run", str(recipe), "--output", str(output), "--executor", executor, "--cpus", str(CPUS)]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        with Watch(process.pid) as watch:
            said = process.stderr.read()
            process.wait()
    taken_s = time.perf_counter() - started
    assert process.returncode == 0, said
    kept = json.loads((output / "manifest.json").read_text())["counts"]["kept"]
    assert kept == images, said
    phases = {match[4]: 60 * int(match[5] or 0) + float(match[6]) for match in SECONDS.finditer(said)}
    assert phases.keys() == {"stream", "shards"}, said
    if is_told:
        say(f"  {executor}: stream {phases['stream']:.1f} s, shards {phases['shards']:.1f} s, all {taken_s:.1f} s")
        watch.tell(images)
    return images / taken_s, images / sum(phases.values())


def run_download(table: Path, output: Path, images: int, *, is_told: bool) -> tuple[float, float]:
    """Images per second of `corpusmith download`: cold, steady."""
    flags = {
        "url_list": str(table),
        "output_folder": str(output),
        "input_format": "parquet",
        "caption_col": "caption",
        "output_format": "webdataset",
        "image_size": "256",
        "resize_mode": "keep_ratio",
        "processes_count": str(CPUS),
        "thread_count": "64",
        "number_sample_per_shard": str(-(-images // SHARDS)),
        "allow_hosts": "127.0.0.1",
    }
    command = [str(COMMAND), "download", *(f"--{name}={value}" for name, value in flags.items())]
    started = time.perf_counter()
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process,
        Watch(process.pid) as watch,
    ):
        assert process.wait() == 0
    taken_s = time.perf_counter() - started
    stats = [json.loads(path.read_text()) for path in output.glob("*_stats.json")]
    assert sum(shard["successes"] for shard in stats) == images, stats
    steady_s = max(shard["end_time"] for shard in stats) - min(shard["start_time"] for shard in stats)
    if is_told:
        say(f"  download: shards {steady_s:.1f} s, all {taken_s:.1f} s")
        watch.tell(images)
    return images / taken_s, images / steady_s


def main() -> None:
    """Print rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    photos = Path(tempfile.gettempdir()) / f"corpusmith-photos-{os.getuid()}"
    make_photos(photos, PHOTOS)
    best: dict[str, tuple[float, float]] = {}
    say(f"{options.images:,} photos of 100 to 300 kB, {os.cpu_count()} cores")
    with serving(photos) as served, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        urls = [f"{served[i % len(served)]}?{i}" for i in range(options.images)]
        table, output = Path(folder) / "urls.parquet", Path(folder) / "out"
        pq.write_table(pa.table({"url": urls, "caption": [f"photo {i}" for i in range(len(urls))]}), table)
        for _ in range(options.rounds):
            for way in ("download", "inline", "ray"):
                shutil.rmtree(output, ignore_errors=True)
                if way == "download":
                    rates = run_download(table, output, options.images, is_told=options.profile)
                else:
                    rates = run_recipe(table, output, options.images, way, is_told=options.profile)
                before = best.get(way, (0.0, 0.0))
                best[way] = (max(before[0], rates[0]), max(before[1], rates[1]))
    for way, (cold, steady) in best.items():
        ratios = f"{cold / best['download'][0]:.2f} cold, {steady / best['download'][1]:.2f} steady"
        say(f"  {way:9} {cold:6.0f} images/s cold {steady:6.0f} steady; of download: {ratios} (limit {LIMIT})")


if __name__ == "__main__":
    main()
