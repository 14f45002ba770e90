"""What a manifest and a report show of a recipe: no signature of any address in it."""

from __future__ import annotations

from corpusmith.pipelines.run import without_secrets
from corpusmith.schemas.recipe import parse_recipe, recipe_yaml

RECIPE = """
corpus: secret
input: {path: ["https://x/urls.parquet?sig=s3cr3t", "local.parquet?sig=file"]}
steps:
  - dedup.exact: {on: [url], against: ["https://user:s3cr3t@x/corpus"]}
  - keep: "url LIKE 'https://x/%?sig=a b'"
  - balance: {entries: "s3://bucket/entries.json?X-Amz-Signature=s3cr3t"}
  - fetch: {headers: {referer: "https://x/?token=s3cr3t"}, timeout_s: 3}
"""


def test_addresses_lose_their_signatures_and_nothing_else_changes() -> None:
    spec = parse_recipe(RECIPE, source="r.yaml")
    before = recipe_yaml(spec)
    shown = without_secrets(spec)
    assert "s3cr3t" not in recipe_yaml(shown) and recipe_yaml(shown).count("REDACTED") == 3
    assert shown.input.path == ["https://x/urls.parquet?sig=REDACTED", "local.parquet?sig=file"]
    assert shown.steps[0].params == {"on": ["url"], "against": ["https://x/corpus"]}
    assert shown.steps[1].params == spec.steps[1].params
    assert recipe_yaml(spec) == before
