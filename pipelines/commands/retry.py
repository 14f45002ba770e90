"""`corpusmith retry`: failed rows once more."""

from __future__ import annotations

from typing import Annotated

import typer

from corpusmith.pipelines.commands.options import (
    AddressOption,
    CorpusArgument,
    CpusOption,
    ExecutorName,
    ExecutorOption,
    existing_corpus,
    run_options,
)
from corpusmith.pipelines.commands.telling import note, run_to_end
from corpusmith.schemas.errors import UserError


def retry(
    corpus: CorpusArgument,
    failed: Annotated[bool, typer.Option("--failed", help="Try failed rows again.")] = False,
    reason: Annotated[
        str | None,
        typer.Option("--reason", metavar="CLASS", help="Only failures of this class.", show_default="all"),
    ] = None,
    address: AddressOption = None,
    executor: ExecutorOption = ExecutorName.RAY,
    cpus: CpusOption = None,
) -> None:
    """Try failed rows again, with the recipe and the input of the corpus's last run.

    \b
    Examples:
      corpusmith retry corpus --failed
      corpusmith retry corpus --failed --reason Timeout
    """
    from corpusmith.pipelines.run import last_run
    from corpusmith.pipelines.upkeep import forget_failures
    from corpusmith.schemas.manifest import WORK_FOLDER

    if not failed:
        raise UserError("say what to retry", where="retry", hint="corpusmith retry CORPUS --failed")
    storage = existing_corpus(corpus)
    prepared, limit = last_run(storage)
    options = run_options(executor, address, cpus, limit)
    dropped = forget_failures(storage.below(WORK_FOLDER), prepared.plan, reason=reason)
    for step, number in dropped.items():
        note(f"{step}: {number:,} failures will be tried again")
    if not dropped:
        note("no published failure to retry; the run goes on with what is left")
    run_to_end(prepared, corpus, options)
