"""`corpusmith plan`: what a run would do, without doing it."""

from __future__ import annotations

from corpusmith.pipelines.commands.options import (
    InputOption,
    LimitOption,
    OutputOption,
    RecipeArgument,
    SetOption,
    SkipOption,
    output_of,
    prepared_recipe,
)
from corpusmith.pipelines.commands.telling import print_plan


def plan(
    recipe: RecipeArgument,
    inputs: InputOption = None,
    output: OutputOption = None,
    settings: SetOption = None,
    skip: SkipOption = None,
    limit: LimitOption = None,
) -> None:
    """Check a recipe against its input and print what a run would do, without doing it.

    Ends with exit code 1 if a step needs something that is not here, such as a model; `run` would refuse.

    \b
    Examples:
      corpusmith plan metaclip --input urls.parquet
      corpusmith plan laion --input urls.parquet --skip clip_score
    """
    prepared = prepared_recipe(recipe, inputs, settings, skip)
    print_plan(prepared, output_of(prepared, output), limit)
