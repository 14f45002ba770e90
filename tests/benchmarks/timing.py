"""Running recipes under a stopwatch: in this process, or by the command as users start it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from corpusmith.pipelines.progress import Progress
from corpusmith.pipelines.run import RunOptions, RunResult, prepare, run
from corpusmith.schemas.recipe import parse_recipe

WATCH_EVERY_S = 0.1
COMMAND = Path(sysconfig.get_path("scripts")) / "corpusmith"


def recipe_of(steps: Sequence[str], source: Path) -> str:
    """A recipe's YAML from its steps' lines."""
    lines = [f"- {step}" for step in steps]
    return "\n".join(["corpus: bench", f"input: {{path: '{source}'}}", "steps:", *lines, ""])


class Phases(Progress):
    """Says nothing; remembers when each phase of a run began and ended, in seconds of the wall clock."""

    def __init__(self) -> None:
        super().__init__(io.StringIO(), quiet=True)
        self.began_s: dict[str, float] = {}
        self.ended_s: dict[str, float] = {}
        self._name = ""

    def start(self, phase: str, total: int, unit: str = "rows", *, steps: Sequence[str] = ()) -> None:
        """See Progress.start."""
        self._name = phase
        self.began_s[phase] = time.time()
        super().start(phase, total, unit, steps=steps)

    def end(self) -> None:
        """See Progress.end."""
        super().end()
        self.ended_s[self._name] = time.time()


def run_text(text: str, output: Path, *, executor: str, cpus: int) -> tuple[RunResult, Phases]:
    """Run a recipe given as YAML text."""
    phases = Phases()
    prepared = prepare(parse_recipe(text, source="bench.yaml"), "bench.yaml")
    return run(prepared, str(output), RunOptions(executor=executor, cpus=cpus), phases), phases


class Sampler:
    """Watches a process and all below it while a block runs: their cores' time and their memory, a few times a second.

    Args:
        pid: root of the tree; this process by default.
    """

    def __init__(self, pid: int | None = None, *, every_s: float = 0.25) -> None:
        self._root = psutil.Process(pid)
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._cpu_s: dict[tuple[int, float], float] = {}
        self.samples: list[tuple[float, float, int]] = []
        """Time of the wall clock in seconds, cores' time so far in seconds, memory now in bytes."""

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            memory = 0
            for process in [self._root, *self._root.children(recursive=True)]:
                try:
                    with process.oneshot():
                        times = process.cpu_times()
                        self._cpu_s[process.pid, process.create_time()] = times.user + times.system
                        memory += process.memory_info().rss - process.memory_info().shared
                except psutil.NoSuchProcess:
                    continue
            self.samples.append((time.time(), sum(self._cpu_s.values()), memory))

    def cpu_s(self, start_s: float, end_s: float) -> float:
        """Seconds of cores that were used between two times of the wall clock."""
        within = [cpu for at, cpu, _ in self.samples if start_s <= at <= end_s]
        return within[-1] - within[0]

    def peak_bytes(self) -> int:
        """The most memory at once: what is resident and not shared, files mapped into memory left out."""
        return max(memory for _, _, memory in self.samples)


def command_environment(folder: Path) -> dict[str, str]:
    """An environment in which `corpusmith` knows the operators of `workloads`, by entry points in `folder`."""
    metadata = folder / "bench_operators-1.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-operators\nVersion: 1\n")
    entries = ["bench_hash = workloads:BenchHash", "bench_hash_rows = workloads:BenchHashRows"]
    entries.append("bench_pictures = workloads:BenchPictures")
    (metadata / "entry_points.txt").write_text("\n".join(["[corpusmith.operators]", *entries, ""]))
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join([str(folder), str(Path(__file__).parent), *filter(None, inherited)])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def start_command(recipe: Path, output: Path, *, executor: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start `corpusmith run`."""
    command = [str(COMMAND), "run", str(recipe), "--output", str(output), "--executor", executor]
    log = output.with_suffix(".log").open("ab")
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def watched(process: subprocess.Popen[bytes], log: Path) -> tuple[float, str]:
    """Wait for a command; its peak memory in bytes, and the last line of progress before that.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    peak_bytes, peak_line = 0.0, ""
    with Sampler(process.pid, every_s=WATCH_EVERY_S) as sampler:
        while process.poll() is None:
            time.sleep(WATCH_EVERY_S)
            if sampler.samples and sampler.peak_bytes() > peak_bytes:
                peak_bytes = sampler.peak_bytes()
                peak_line = log.read_text().strip().rpartition("\n")[2]
    if process.returncode:
        raise RuntimeError(log.read_text()[-2000:])
    return peak_bytes, re.split(r"[:,] ", peak_line)[0]


def say(line: str) -> None:
    """One line of a benchmark's table."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
