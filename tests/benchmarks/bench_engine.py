"""What the engine adds to the work itself: the wall of a stream against its operators' time over the cores.

Run `python tests/benchmarks/bench_engine.py [--rows 20000] [--row-ms 3] [--executor ray|inline]`. A stream of one
operator of known cost and a `keep` runs with each executor on two cores; the operator hashes in the worker's own
process by batches, or in a child process row by row. The operators' time is what the run itself reports,
`RunResult.stats`; spread over the cores it is the least that the stream could take. Three ratios to it are told:

- wall: from the first row that any worker begins to the end of the stream. Ray's actors come up meanwhile.
- steady: the same without what does not grow with the rows: the difference to a run of a quarter of the rows.
- cpu: the cores' time of all processes, Ray's own among them, over the span of the wall ratio. Where the machine does
  other work too, this one is disturbed least; an isolated operator's time is wall time in its child, so there the
  ratio falls below one.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

from timing import Sampler, recipe_of, run_text, say
from workloads import first_row_s, kilobytes_for, register_all, write_input

CPUS = 2
LIMIT = 1.15
STREAM = "stream 1 of 1"
OPERATORS = ("bench_hash", "bench_hash_rows")


@dataclass(frozen=True)
class Measured:
    """Seconds of one run: of its stream before the first row and from there; of its operators; of all cores."""

    start_s: float
    wall_s: float
    operators_s: float
    cpu_s: float


def measure(folder: Path, rows: int, operator: str, executor: str, kilobytes: int) -> Measured:
    """Run the recipe over so many rows, in an empty folder."""
    write_input(folder / "input.parquet", rows)
    marks = folder / "marks"
    steps = [f"{operator}: {{kilobytes: {kilobytes}, marks: '{marks}'}}", "keep: number >= 500"]
    text = recipe_of(steps, folder / "input.parquet")
    with Sampler() as sampler:
        result, phases = run_text(text, folder / "corpus", executor=executor, cpus=CPUS)
    first_s, ended_s = first_row_s(marks), phases.ended_s[STREAM]
    assert first_s is not None
    operators_s = sum(count.time_s for step, count in result.stats.items() if step in (operator, "keep"))
    return Measured(first_s - phases.began_s[STREAM], ended_s - first_s, operators_s, sampler.cpu_s(first_s, ended_s))


def main() -> None:
    """Print one line for each executor and operator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--row-ms", type=float, default=3.0)
    parser.add_argument("--executor", choices=["ray", "inline"], action="append")
    options = parser.parse_args()
    register_all()
    kilobytes = kilobytes_for(options.row_ms)
    say(f"{options.rows:,} rows of {options.row_ms:g} ms ({kilobytes:,} kB hashed), {CPUS} cores, limit {LIMIT}")
    heads = ("start", "wall", "work/cores", "wall ratio", "steady", "cpu ratio")
    say(f"{'executor':9} {'operator':16}" + "".join(f"{head:>11}" for head in heads))
    for executor in options.executor or ["inline", "ray"]:
        for operator in OPERATORS:
            found: list[Measured] = []
            for rows in (options.rows // 4, options.rows):
                with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                    found.append(measure(Path(folder), rows, operator, executor, kilobytes))
            say(f"{executor:9} {operator:16}{told(*found)}")


def told(part: Measured, whole: Measured) -> str:
    """The columns of one line, from the runs of a quarter of the rows and of all."""
    times_s = (whole.start_s, whole.wall_s, whole.operators_s / CPUS)
    steady = (whole.wall_s - part.wall_s) / (whole.operators_s - part.operators_s) * CPUS
    ratios = (whole.wall_s / whole.operators_s * CPUS, steady, whole.cpu_s / whole.operators_s)
    return "".join(f"{seconds:9.1f} s" for seconds in times_s) + "".join(f"{ratio:11.3f}" for ratio in ratios)


if __name__ == "__main__":
    main()
