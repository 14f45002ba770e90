"""What a kill costs: killed with signal 9 at nine tenths and run again, against a run that nobody stops.

Run `python tests/benchmarks/bench_resume.py [--executor ray|inline] [--work-s 60]`. The command `corpusmith run` works
through rows whose operator takes 3 ms of a core each, `--work-s` seconds over all rows, on two cores; it is killed when
nine tenths of the rows have been begun. A killed run starts twice (from the start of the command to its first row), so
the ratio of times is given with and without the second start. The rows that were worked on twice are counted as well:
that number does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from timing import command_environment, recipe_of, say, start_command
from workloads import first_row_s, kilobytes_for, rows_begun, write_input

ROW_MS = 3.0
KILL_AT = 0.9
LIMIT = 1.15
POLL_S = 0.01


@dataclass(frozen=True)
class Part:
    """One command: seconds until its first row, seconds from there to its end, rows that were begun."""

    startup_s: float
    work_s: float
    rows: int


class Bench:
    """Runs the command in one folder, always with the same recipe.

    Args:
        folder: an empty folder.
        executor: `ray` or `inline`.
        work_s: seconds of a core that all rows take together.
    """

    def __init__(self, folder: Path, executor: str, work_s: float) -> None:
        self.folder = folder
        self.executor = executor
        self.rows = round(work_s / ROW_MS * 1e3)
        self._marks = folder / "marks"
        self._environment = command_environment(folder / "path")
        self._recipe = folder / "recipe.yaml"
        write_input(folder / "input.parquet", self.rows)
        step = f"bench_hash: {{kilobytes: {kilobytes_for(ROW_MS)}, marks: '{self._marks}'}}"
        self._recipe.write_text(recipe_of([step, "keep: number >= 500"], folder / "input.parquet"))

    def run(self, output: str, kill_at_rows: int | None = None) -> Part:
        """Run the command to its end, or kill it when so many rows have been begun."""
        for path in self._marks.glob("*"):
            path.unlink()
        started_s = time.time()
        process = start_command(
            self._recipe, self.folder / output, executor=self.executor, environment=self._environment
        )
        while process.poll() is None:
            if kill_at_rows is not None and rows_begun(self._marks) >= kill_at_rows:
                process.kill()
            time.sleep(POLL_S)
        ended_s = time.time()
        expected = 0 if kill_at_rows is None else -signal.SIGKILL
        first_s = first_row_s(self._marks)
        if process.returncode != expected or first_s is None:
            raise RuntimeError((self.folder / f"{output}.log").read_text()[-2000:])
        return Part(first_s - started_s, ended_s - first_s, rows_begun(self._marks))


def main() -> None:
    """Print the times and the ratios of each executor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor", choices=["ray", "inline"], action="append")
    parser.add_argument("--work-s", type=float, default=60.0)
    options = parser.parse_args()
    for executor in options.executor or ["inline", "ray"]:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            bench = Bench(Path(folder), executor, options.work_s)
            whole = bench.run("whole")
            first = bench.run("killed", round(KILL_AT * bench.rows))
            rest = bench.run("killed")
        tell(executor, bench.rows, {"uninterrupted": whole, "killed": first, "run again": rest})


def tell(executor: str, rows: int, parts: dict[str, Part]) -> None:
    """Print one executor's times and ratios."""
    say(f"{executor}, {rows:,} rows of {ROW_MS:g} ms")
    for name, part in parts.items():
        say(
            f"  {name:13} {part.startup_s:5.1f} s to the first row, {part.work_s:5.1f} s from there, {part.rows:,} rows"
        )
    whole, first, rest = parts.values()
    total_s = whole.startup_s + whole.work_s
    both_s = first.startup_s + first.work_s + rest.startup_s + rest.work_s
    say(f"  together {both_s:.1f} s / {total_s:.1f} s = {both_s / total_s:.3f} (limit {LIMIT})")
    say(f"  without the second start: {(both_s - rest.startup_s) / total_s:.3f}")
    say(f"  rows worked on twice: {first.rows + rest.rows - rows:,} = {(first.rows + rest.rows) / rows - 1:.1%}")


if __name__ == "__main__":
    main()
