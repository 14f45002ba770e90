"""`corpusmith recipes`: what recipes come with the package."""

from __future__ import annotations

from corpusmith.pipelines.commands.telling import print_lines


def recipes() -> None:
    """List the packaged recipes: what each is, and its steps.

    \b
    Example:
      corpusmith recipes
    """
    from corpusmith.pipelines.describe import recipe_list

    print_lines(recipe_list())
