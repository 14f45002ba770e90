"""`corpusmith status`: how far a corpus is."""

from __future__ import annotations

from corpusmith.pipelines.commands.options import CorpusArgument, existing_corpus
from corpusmith.pipelines.commands.telling import print_lines


def status(corpus: CorpusArgument) -> None:
    """Say how far a corpus is: finished or not, its counts, who works on it, what its steps have published.

    \b
    Example:
      corpusmith status corpus
    """
    from corpusmith.pipelines.status import corpus_status

    print_lines(corpus_status(existing_corpus(corpus)))
