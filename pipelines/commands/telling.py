"""What commands tell: results on stdout, notes and progress on stderr, and the exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from corpusmith.pipelines.run import Prepared, RunOptions, RunResult

EXIT_PROBLEMS = 1
"""A check has found problems."""

EXIT_USER_ERROR = 2
"""Something that the user can mend."""


def note(text: str) -> None:
    """A line for the person at the terminal, beside the results."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def print_lines(lines: Iterable[str]) -> None:
    """Lines of a result."""
    from corpusmith.pipelines.describe import folded

    for line in folded(lines, sys.stdout):
        print(line)  # noqa: T201


def run_to_end(prepared: Prepared, output: str, options: RunOptions) -> RunResult:
    """Run a recipe to its end, with its progress told, and tell what it made.

    Raises:
        UserError: see `corpusmith.pipelines.run.run`.
    """
    from corpusmith.pipelines.describe import result_lines
    from corpusmith.pipelines.lean import collect_seldom
    from corpusmith.pipelines.progress import Progress
    from corpusmith.pipelines.run import run

    collect_seldom()
    with Progress() as progress:
        result = run(prepared, output, options, progress)
    print_lines(result_lines(result))
    return result


def print_plan(prepared: Prepared, output: str, limit: int | None) -> None:
    """Tell what a run would do.

    Raises:
        Exit: a run would be refused, since a step needs what is not here.
    """
    from corpusmith.pipelines.describe import plan_lines

    print_lines(plan_lines(prepared, output, limit))
    if prepared.missing:
        raise typer.Exit(EXIT_PROBLEMS)
