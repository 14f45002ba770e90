"""What a kill costs: killed with signal 9 at nine tenths and run again, against a run that nobody stops.

Run `python tests/benchmarks/bench_resume.py [--executor ray|inline] [--work-s 60]`. The command `corpusmith run` works
through rows whose operator takes 3 ms of a core each, `--work-s` seconds over all rows, on two cores. A killed run
starts twice (from the start of the command to its first row), so the ratio is given with and without the second start.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from timing import command_environment, recipe_of, say, start_command
from workloads import first_mark_s, kilobytes_for, write_input

ROW_MS = 3.0
KILL_AT = 0.9
LIMIT = 1.15
TIMEOUT_S = 600


@dataclass(frozen=True)
class Timed:
    """Seconds of one command: until its first row, and from there to its end."""

    startup_s: float
    work_s: float


class Bench:
    """Runs the command in one folder, all with the same input and recipe.

    Args:
        folder: an empty folder.
        executor: `ray` or `inline`.
        work_s: seconds of a core that all rows take together.
    """

    def __init__(self, folder: Path, executor: str, work_s: float) -> None:
        self.folder = folder
        self.executor = executor
        self.environment = command_environment(folder / "path")
        write_input(folder / "input.parquet", round(work_s / ROW_MS * 1e3))
        self._kilobytes = kilobytes_for(ROW_MS)

    def start(self, output: str, marks: str) -> tuple[subprocess.Popen[bytes], float, float]:
        """Start the command and wait for its first row; when it was started, and when that row began."""
        # the folder is one of the operator's parameters, and results of other parameters do not count: one name for all
        link = self.folder / "marks"
        link.unlink(missing_ok=True)
        (self.folder / marks).mkdir()
        link.symlink_to(self.folder / marks)
        step = f"bench_hash: {{kilobytes: {self._kilobytes}, marks: '{link}'}}"
        recipe = self.folder / "recipe.yaml"
        recipe.write_text(recipe_of([step, "keep: number >= 500"], self.folder / "input.parquet"))
        started_s = time.time()
        process = start_command(recipe, self.folder / output, executor=self.executor, environment=self.environment)
        while (first_s := first_mark_s(self.folder / marks)) is None:
            if process.poll() is not None:
                raise RuntimeError((self.folder / f"{output}.log").read_text()[-2000:])
            time.sleep(0.01)
        return process, started_s, first_s

    def to_end(self, output: str, marks: str) -> Timed:
        """Run the command to its end."""
        process, started_s, first_s = self.start(output, marks)
        if process.wait(TIMEOUT_S):
            raise RuntimeError((self.folder / f"{output}.log").read_text()[-2000:])
        return Timed(first_s - started_s, time.time() - first_s)

    def killed(self, output: str, marks: str, after_s: float) -> Timed:
        """Run the command and kill it so long after its first row."""
        process, started_s, first_s = self.start(output, marks)
        time.sleep(max(0.0, first_s + after_s - time.time()))
        if process.poll() is not None:
            raise RuntimeError("the run had ended before it was killed")
        process.kill()
        process.wait()
        return Timed(first_s - started_s, time.time() - first_s)


def main() -> None:
    """Print the times and the ratios of each executor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor", choices=["ray", "inline"], action="append")
    parser.add_argument("--work-s", type=float, default=60.0)
    options = parser.parse_args()
    for executor in options.executor or ["inline", "ray"]:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(Path(folder), executor, options.work_s)
            whole = bench.to_end("whole", "marks-whole")
            first = bench.killed("killed", "marks-killed", KILL_AT * whole.work_s)
            rest = bench.to_end("killed", "marks-resumed")
        total_s = whole.startup_s + whole.work_s
        both_s = first.startup_s + first.work_s + rest.startup_s + rest.work_s
        say(f"{executor}, {options.work_s:.0f} s of work on two cores")
        say(f"  uninterrupted: {whole.startup_s:5.1f} s to the first row, {whole.work_s:5.1f} s from there")
        say(f"  killed:        {first.startup_s:5.1f} s to the first row, {first.work_s:5.1f} s from there")
        say(f"  run again:     {rest.startup_s:5.1f} s to the first row, {rest.work_s:5.1f} s from there")
        say(f"  together {both_s:.1f} s / {total_s:.1f} s = {both_s / total_s:.3f} (limit {LIMIT})")
        say(f"  without the second start: {(both_s - rest.startup_s) / total_s:.3f}")


if __name__ == "__main__":
    main()
