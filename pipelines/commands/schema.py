"""`corpusmith schema`: the JSON Schema of recipes, for editors."""

from __future__ import annotations

import json


def schema() -> None:
    """Print the JSON Schema of recipe files, by which editors complete and check them.

    \b
    Example:
      corpusmith schema > recipe.schema.json
    """
    from corpusmith.pipelines.bind import step_schemas
    from corpusmith.schemas.recipe import recipe_json_schema

    print(json.dumps(recipe_json_schema(step_schemas()), indent=1))  # noqa: T201
