"""From the command to its first row: `corpusmith run` on Ray against a plain script that does the least with Ray.

Run `python tests/benchmarks/bench_startup.py [--turns 5]`. The command starts from nothing: Python, imports, recipe,
input (1,000 rows), Ray, actors; its first row is when an operator of the recipe is called for the first time. The plain
scripts start Ray and call one function, which notes the time: one with `ray.init()` as it comes (on this machine, even
where a cluster runs already), one with the options that corpusmith starts Ray with (no dashboard among them). All take
turns; medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import command_environment, recipe_of, say, start_command
from workloads import first_row_s, write_input

ROWS = 1000
LIMIT_S = 2.0
TIMEOUT_S = 120
PLAIN = """
import sys, time
import ray
ray.init({options})

@ray.remote
def first():
    return time.time()

print(ray.get(first.remote()), flush=True)
"""
OWN_OPTIONS = 'address="local", include_dashboard=False, log_to_driver=False, object_store_memory=1 << 30'


def of_command(folder: Path, executor: str) -> float:
    """Seconds from the start of the command to its first row."""
    marks = folder / "marks"
    write_input(folder / "input.parquet", ROWS)
    recipe = folder / "recipe.yaml"
    steps = [f"bench_hash: {{kilobytes: 1, marks: '{marks}'}}", "keep: number >= 500"]
    recipe.write_text(recipe_of(steps, folder / "input.parquet"))
    environment = command_environment(folder / "path")
    started_s = time.time()
    process = start_command(recipe, folder / "corpus", executor=executor, environment=environment)
    if process.wait():
        raise RuntimeError((folder / "corpus.log").read_text()[-2000:])
    first_s = first_row_s(marks)
    assert first_s is not None
    return first_s - started_s


def of_script(options: str) -> float:
    """Seconds from the start of a plain script to its first task."""
    started_s = time.time()
    command = [sys.executable, "-c", PLAIN.format(options=options)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=TIMEOUT_S)
    return float(answer.stdout.split()[-1]) - started_s


def turn() -> dict[str, float]:
    """Seconds of each way, one after the other."""
    found: dict[str, float] = {}
    for executor in ("ray", "inline"):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            found[f"corpusmith run, {executor}"] = of_command(Path(folder), executor)
    found["ray.init()"] = of_script('address="local"')
    found["ray.init(as corpusmith)"] = of_script(OWN_OPTIONS)
    return found


def main() -> None:
    """Print the medians, and what the command takes beyond the plain scripts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    turns = [turn() for _ in range(parser.parse_args().turns)]
    for way in turns[0]:
        times_s = sorted(found[way] for found in turns)
        say(f"{way:24} {statistics.median(times_s):6.2f} s ({times_s[0]:.2f} to {times_s[-1]:.2f})")
    for plain in ("ray.init()", "ray.init(as corpusmith)"):
        beyond_s = statistics.median(found["corpusmith run, ray"] - found[plain] for found in turns)
        say(f"corpusmith run on Ray beyond {plain}: {beyond_s:.2f} s (limit {LIMIT_S:g} s)")


if __name__ == "__main__":
    main()
