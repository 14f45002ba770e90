"""What commands are given: arguments and options that several share, and what becomes of them.

Nothing heavy is imported before a command runs: help is quick.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from corpusmith.schemas.errors import UserError

if TYPE_CHECKING:
    from corpusmith.pipelines.run import Prepared, RunOptions
    from corpusmith.pipelines.storage import Storage


class ExecutorName(StrEnum):
    """Who runs the work."""

    RAY = "ray"
    INLINE = "inline"


RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's YAML file, or a packaged recipe's name.", show_default=False)
]
CorpusArgument = Annotated[
    str, typer.Argument(metavar="CORPUS", help="Folder of a corpus, or its URL (s3://…).", show_default=False)
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input", metavar="PATH", help="Input: file, folder, pattern or URL. Repeatable.", show_default=False
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change the recipe: image.size=384. Repeatable.", show_default=False
    ),
]
SkipOption = Annotated[
    list[str] | None,
    typer.Option(
        "--skip", metavar="STEP", help="Leave a step out: clip_score, keep#3. Repeatable.", show_default=False
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option("--output", metavar="PATH", help="Folder of the corpus.", show_default="the recipe's, else ./NAME"),
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="A Ray cluster; or auto.", show_default="this machine"),
]
ExecutorOption = Annotated[
    ExecutorName, typer.Option("--executor", metavar="NAME", help="ray; or inline: threads of one process, no Ray.")
]
CpusOption = Annotated[int | None, typer.Option("--cpus", metavar="N", min=1, help="Cores to use.", show_default="all")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Take only the first N rows.", show_default="all rows")
]


def prepared_recipe(
    recipe: str,
    inputs: Sequence[str] | None = None,
    settings: Sequence[str] | None = None,
    skip: Sequence[str] | None = None,
) -> Prepared:
    """A recipe with its options, checked against its input.

    Raises:
        UserError: for whatever is wrong with recipe, options or input.
    """
    from corpusmith.pipelines.bind import load_recipe
    from corpusmith.pipelines.run import prepare

    overrides = list(settings or [])
    if inputs:
        overrides.append(f"input.path={json.dumps(list(inputs))}")
    spec, source = load_recipe(recipe, overrides, skip or ())
    # `retry` and `clean` find the input from any folder
    paths = [spec.input.path] if isinstance(spec.input.path, str) else spec.input.path
    spec.input.path = [_absolute(path) for path in paths] if paths else None
    return prepare(spec, source, skipped=skip or ())


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().absolute())


def output_of(prepared: Prepared, output: str | None) -> str:
    """The folder of the corpus: as asked, else the recipe's, else one named as the corpus."""
    return output or prepared.spec.output.path or prepared.spec.corpus


def run_options(executor: ExecutorName, address: str | None, cpus: int | None, limit: int | None) -> RunOptions:
    """How to run.

    Raises:
        UserError: the options contradict each other.
    """
    from corpusmith.pipelines.run import RunOptions

    if executor is ExecutorName.INLINE and address is not None:
        raise UserError("a cluster is for --executor ray", where="--address", hint="leave one of the two out")
    return RunOptions(executor.value, address, cpus, limit)


def existing_corpus(corpus: str) -> Storage:
    """The corpus in a folder.

    Raises:
        UserError: there is no such folder.
    """
    from corpusmith.pipelines.storage import Storage

    storage = Storage(corpus)
    if not storage.fs.exists(storage.full("")):
        raise UserError("there is no such folder", where=corpus, hint="give the folder that `corpusmith run` wrote to")
    return storage
