"""`corpusmith operators`: what steps a recipe may have."""

from __future__ import annotations

from typing import Annotated

import typer

from corpusmith.pipelines.commands.telling import print_lines


def operators(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Tell about this one: its columns and parameters.", show_default=False),
    ] = None,
) -> None:
    """List the operators, which are the steps that a recipe may have; or tell all about one.

    \b
    Examples:
      corpusmith operators
      corpusmith operators download
    """
    from corpusmith.operators.registry import operator_class
    from corpusmith.pipelines.describe import operator_lines, operator_list

    print_lines(operator_lines(operator_class(name)) if name is not None else operator_list())
