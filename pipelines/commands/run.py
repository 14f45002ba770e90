"""`corpusmith run`: a recipe and an input become a corpus."""

from __future__ import annotations

from typing import Annotated

import typer

from corpusmith.pipelines.commands.options import (
    AddressOption,
    CpusOption,
    ExecutorName,
    ExecutorOption,
    InputOption,
    LimitOption,
    OutputOption,
    RecipeArgument,
    SetOption,
    SkipOption,
    output_of,
    prepared_recipe,
    run_options,
)
from corpusmith.pipelines.commands.telling import print_plan, run_to_end


def run(
    recipe: RecipeArgument,
    inputs: InputOption = None,
    output: OutputOption = None,
    settings: SetOption = None,
    skip: SkipOption = None,
    address: AddressOption = None,
    executor: ExecutorOption = ExecutorName.RAY,
    cpus: CpusOption = None,
    limit: LimitOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop; exit code as plan's.")] = False,
) -> None:
    """Run a recipe to a finished corpus.

    It may be stopped anywhere: the same command goes on from there. A changed recipe or a longer input computes only
    what is new.

    \b
    Examples:
      corpusmith run datacomp-basic --input urls.parquet --output corpus
      corpusmith run my-recipe.yaml --set image.size=384 --set download.retries=3
      corpusmith run laion --input urls.parquet --skip clip_score --skip keep#4
      corpusmith run metaclip --input "s3://bucket/urls/*.parquet" \\
          --output s3://bucket/corpus --address auto
    """
    options = run_options(executor, address, cpus, limit)
    prepared = prepared_recipe(recipe, inputs, settings, skip)
    if dry_run:
        print_plan(prepared, output_of(prepared, output), limit)
        return
    run_to_end(prepared, output_of(prepared, output), options)
