"""`corpusmith remove`: samples leave a finished corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from corpusmith.pipelines.commands.options import CorpusArgument, existing_corpus
from corpusmith.pipelines.commands.telling import note


def remove(
    corpus: CorpusArgument,
    uids: Annotated[
        Path,
        typer.Option(
            "--uids",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A text file, one uid a line.",
            show_default=False,
        ),
    ],
) -> None:
    """Take samples, and what was split from them, out of a finished corpus, and record that it was done.

    \b
    Example:
      corpusmith remove corpus --uids opted-out.txt
    """
    from corpusmith.pipelines.removal import read_uids
    from corpusmith.pipelines.removal import remove as remove_samples

    removed = remove_samples(existing_corpus(corpus), read_uids(uids))
    if removed.ended:
        note(f"an earlier removal was interrupted: {removed.ended:,} samples have gone only now")
    if removed.unknown:
        note(f"{removed.unknown:,} of the uids are not in this corpus")
    print(f"removed {removed.samples:,} samples; the ledger says so, and later runs leave them out")  # noqa: T201
