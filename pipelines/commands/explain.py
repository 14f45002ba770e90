"""`corpusmith explain`: what became of a sample."""

from __future__ import annotations

from typing import Annotated

import typer

from corpusmith.pipelines.commands.options import CorpusArgument, existing_corpus
from corpusmith.pipelines.commands.telling import print_lines


def explain(
    corpus: CorpusArgument,
    sample: Annotated[
        str,
        typer.Argument(metavar="SAMPLE", help="A uid, or a URL exactly as the input has it.", show_default=False),
    ],
) -> None:
    """Tell what became of a sample, and why.

    A sample dropped as a duplicate is shown with its twin, in this corpus or in another, and that one with the rows
    that it stands for.

    \b
    Examples:
      corpusmith explain corpus https://example.org/cat.jpg
      corpusmith explain corpus 0f3c2a9be17d4e558c6a1b2d3e4f5a6b
    """
    from corpusmith.pipelines.explain import explain as explain_sample
    from corpusmith.pipelines.explain import explanation_lines

    for explanation in explain_sample(existing_corpus(corpus), sample):
        print_lines(explanation_lines(explanation))
