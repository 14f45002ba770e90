"""Flows: streams that cut the source differently hand each other every row once."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import fakes  # noqa: F401 (registers operators)
import pytest
from corpora import fates, outcome, run_recipe, write_rows

from corpusmith.pipelines import plan as plan_module
from corpusmith.pipelines import run as run_module
from corpusmith.pipelines.bind import bind_steps
from corpusmith.pipelines.flow import joined, units_for
from corpusmith.pipelines.ingest import ingest
from corpusmith.pipelines.plan import Plan
from corpusmith.pipelines.run import prepare
from corpusmith.pipelines.storage import Storage
from corpusmith.schemas.recipe import parse_recipe

pytestmark = pytest.mark.usefixtures("counted")

RECIPE = """
corpus: flows
input: {{path: '{folder}/rows.parquet'}}
steps:
- fake_score
- fake_top: {{keep: 0.9}}
- fake_fetch
- fake_shrink
- fake_top: {{keep: 0.8}}
- fake_crops
- keep: crop < 2
- fake_top: {{keep: 0.9}}
output: {{samples_per_shard: 100}}
"""
ROWS = 400


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    write_rows(
        tmp_path / "rows.parquet", range(ROWS), url=lambda i: f"http://web/{'fail' if i % 10 == 3 else 'ok'}/{i}"
    )
    return RECIPE.format(folder=tmp_path)


def test_large_and_small_units_side_by_side_make_the_same_corpus(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_recipe(recipe, tmp_path / "alike")
    used: list[int] = []

    def noting(*arguments: object) -> object:
        units, each = units_for(*arguments)  # type: ignore[arg-type]
        used.append(each)
        return units, each

    monkeypatch.setattr(plan_module, "MIN_UNIT_ROWS", 4)
    monkeypatch.setattr(plan_module, "MEDIA_UNIT_ROWS", 7)
    monkeypatch.setattr(run_module, "units_for", noting)
    run_recipe(recipe, tmp_path / "mixed")
    assert used == [3, 1, 3, 3]
    assert outcome(tmp_path / "mixed") == outcome(tmp_path / "alike")
    ends = Counter(row["fate"] for row in fates(tmp_path / "mixed").values())
    assert set(ends) == {"kept", "rejected", "failed", "split"} and min(ends.values()) > 15


def test_joined_units_are_the_same_rows_in_the_same_order(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "MIN_UNIT_ROWS", 4)
    monkeypatch.setattr(plan_module, "MEDIA_UNIT_ROWS", 7)
    prepared = prepare(parse_recipe(recipe, source="flows.yaml"), "flows.yaml")
    source = ingest(Storage(str(tmp_path / "work")), prepared.files, prepared.spec.input, prepared.plan, None)
    wide = joined(source.units, 4)
    assert len(wide) < len(source.units) / 2
    assert sum(unit.row_groups for unit in wide) == len(source.units)
    assert sum(unit.rows for unit in wide) == ROWS
    assert len({unit.name for unit in wide}) == len(wide)
    for before, after in pairwise(wide):
        assert before.low <= before.high < after.low


@pytest.mark.parametrize(("steps", "is_wide"), [("[fake_score]", True), ("[fake_fetch]", False)])
def test_only_streams_without_media_take_many_rows(steps: str, is_wide: bool) -> None:
    text = f"corpus: x\ninput: {{path: x}}\nsteps: {steps}\n"
    bound = bind_steps(parse_recipe(text, source="x"), source="x")
    segment = plan_module.Segment(0, tuple(bound), None, None, ())
    plan = Plan(tuple(bound), (segment,), (), unit_rows_cap=512)
    assert (units_for(segment, plan, (), 1_000_000)[1] == 16) == is_wide
