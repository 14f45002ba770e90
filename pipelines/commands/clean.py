"""`corpusmith clean`: results and left-overs that are of no more use go."""

from __future__ import annotations

from typing import Annotated

import typer

from corpusmith.pipelines.commands.options import CorpusArgument, existing_corpus


def clean(
    corpus: CorpusArgument,
    staging: Annotated[bool, typer.Option("--staging", help="Staged media, too; a later run makes it again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove results of old parameters and left-overs of killed runs; the corpus itself stays as it is.

    \b
    Examples:
      corpusmith clean corpus --dry-run
      corpusmith clean corpus --staging
    """
    from corpusmith.pipelines.describe import size_text
    from corpusmith.pipelines.run import last_run
    from corpusmith.pipelines.upkeep import clean as clean_corpus

    storage = existing_corpus(corpus)
    prepared, _ = last_run(storage)
    cleaned = clean_corpus(storage, prepared.plan, staging=staging, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    for folder, (files, size) in cleaned.by_folder().items():
        print(f"  {folder}: {files:,} files, {size_text(size)}")  # noqa: T201
    print(f"{verb} {len(cleaned.entries):,} files, {size_text(cleaned.size_bytes)}")  # noqa: T201
