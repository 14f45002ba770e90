"""`corpusmith verify`: whether a finished corpus is sound."""

from __future__ import annotations

import typer

from corpusmith.pipelines.commands.options import CorpusArgument, existing_corpus
from corpusmith.pipelines.commands.telling import EXIT_PROBLEMS, note, print_lines


def verify(corpus: CorpusArgument) -> None:
    """Check a finished corpus: hashes, tar and Parquet agree, no gaps, no duplicates, one fate a row.

    Prints a line for each problem, and then ends with exit code 1.

    \b
    Example:
      corpusmith verify corpus
    """
    from corpusmith.pipelines.verify import verify as verify_corpus

    problems = verify_corpus(existing_corpus(corpus), note)
    print_lines(problems)
    if problems:
        raise typer.Exit(EXIT_PROBLEMS)
    print("sound: every file is as the manifest says, and every row has one fate")  # noqa: T201
