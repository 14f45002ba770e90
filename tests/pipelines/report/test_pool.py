"""What steps over the whole pool tell is on the page, whatever its shape."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from captions import emoji_names
from corpora import fates, run_recipe

from corpusmith.pipelines.report.data import PoolFacts, ReportData
from corpusmith.pipelines.report.pool import FEW_POINTS, pool_facts
from corpusmith.pipelines.report.render import MAX_POOL_ROWS, render_report

HOSTILE = "{{ 7*7 }}<script>alert(1)</script></dl></section><img src=x onerror=alert(2)>\"'"


def pool_section(html: str) -> str:
    found = re.search(r'<section id="pool">.*?</section>', html, re.DOTALL)
    return found.group() if found else ""


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def page_of(*pools: PoolFacts) -> str:
    data = ReportData("", "", "", "", 0, 0, 0, {}, 0, 0, 0.0, [], [], [], [], [], pools, [], {})
    return render_report(data)


def told(summary: dict[str, Any], mark: str = "", **parameters: Any) -> PoolFacts:
    return pool_facts("step", "a.reduce", summary, parameters, mark)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    texts = [*emoji_names("en")[:120], *(text.upper() for text in emoji_names("en")[:30]), *emoji_names("ja")[:40]]
    draw = np.random.default_rng(0)
    near = draw.normal(size=(20, 8))[draw.integers(0, 20, len(texts))] + draw.normal(size=(len(texts), 8)) * 0.1
    columns = {
        "url": [f"https://pictures.example/{i}.png" for i in range(len(texts))],
        "caption": texts,
        "language": ["en"] * 150 + ["ja"] * 40,
        "score": draw.integers(0, 50, len(texts)),
        "embedding": pa.array(list(near.astype(np.float32))),
    }
    pq.write_table(pa.table(columns), folder / "pool.parquet")
    recipe = f"""
corpus: curated
input: {{path: {folder / "pool.parquet"}}}
steps:
  - dedup.exact: {{on: [caption], forms: {{caption: text}}}}
  - dedup.semantic: {{epsilon: 0.05, k: 4, mark: is_far}}
  - balance: {{entries: pool, t: 4, min_count: 2, language_column: language, mark: is_even}}
  - resample: {{by: language, keep: 0.9}}
  - top_fraction: {{by: score, keep: 0.9, within: language}}
  - mix: {{by: language, weights: {{en: 3, ja: 1}}}}
"""
    run_recipe(recipe, folder / "out", cpus=1)
    return folder / "out"


def test_each_step_over_the_pool_of_a_run_is_told(corpus: Path) -> None:
    section = pool_section((corpus / "report/index.html").read_text())
    assert re.findall(r"<h3>([a-z_.]+)", section) == [
        "dedup.exact",
        "dedup.semantic",
        "balance",
        "resample",
        "top_fraction",
        "mix",
    ]
    own = {text_of(part).split()[0]: text_of(part) for part in section.split("<h3>")[1:]}
    steps = [row["step"] for row in fates(corpus).values() if row["fate"] == "rejected"]
    assert f"Rows 190 Groups 160 Dropped {steps.count('dedup.exact')} " in own["dedup.exact"]
    assert steps.count("dedup.exact") == 30
    assert "marks rows in is_far" in own["dedup.semantic"] and "Would drop " in own["dedup.semantic"]
    chosen = re.search(r"0\.05 in the recipe ([\d,]+)", own["dedup.semantic"])
    assert chosen and f"Would drop {chosen[1]} " in own["dedup.semantic"]
    assert own["dedup.semantic"].count("in the recipe") == 1
    assert re.search(r"Languages language t tail share rows .*en 4 [\d.]+ % 120 \d+ ja \d+ ", own["balance"])
    assert "rank by rows before" in own["balance"] and " t = 4 " in own["balance"]
    gone = steps.count("resample")
    assert f"Kept {160 - gone} " in own["resample"] and "of 120" in own["resample"] and "of 40" in own["resample"]
    assert f"Dropped {steps.count('top_fraction')} " in own["top_fraction"]
    assert "Cut of each value value rows kept cut value en " in own["top_fraction"]
    assert f"Kept {len(fates(corpus)) - len(steps)} " in own["mix"] and "Parts rows after, of rows before" in own["mix"]


def test_shapes_of_anybody_s_summary_are_told() -> None:
    facts = told(
        {
            "some_rows": 12345,
            "is_fine": True,
            "note": None,
            "tail_share": 0.125,
            "seeds": [1, 2],
            "by_host": {"a.example": 4, "b.example": 1500},
            "of_each": {"x": {"size": 1, "cut": 0.5}, "y": {"size": 2}},
            "moved": {"left": [10, 4]},
            "listed": [["c", 1, 2, 0.25]],
            "odd": [{"deep": {"er": 1}}, 3],
        }
    )
    text = text_of(pool_section(page_of(facts)))
    for words in (
        "Some rows 12,345",
        "Is fine yes",
        "Note –",
        "Tail share 12.5 %",
        "Seeds 1, 2",
        "a.example 4 b.example 1,500",
        "Of each size cut value x 1 0.5 y 2 –",
        "left 4 of 10",
        "Listed c 1 2 0.25",
        'Odd [{"deep": {"er": 1}}, 3]',
    ):
        assert words in text, words


def test_the_value_in_the_recipe_is_marked() -> None:
    summary = {"dropped_by_radius": {"3": 1, "31": 5}, "dropped_by_epsilon": {"0.1": 2, "0.07": 1}}
    radius, epsilon = told(summary, radius=31, epsilon=0.07).tables
    assert (radius.chosen, epsilon.chosen) == (1, 1)
    assert told(summary, radius=None, epsilon=0.5).tables[0].chosen is None


def test_long_tables_are_cut_and_say_so() -> None:
    facts = told({"sizes": {f"name{i}": i for i in range(1000)}, "parts": {f"part{i}": [2, 1] for i in range(55)}})
    html = pool_section(page_of(facts))
    assert f"name{MAX_POOL_ROWS - 1}" in html and f"name{MAX_POOL_ROWS}<" not in html
    assert "and 980 more" in html and "and 35 more" in html


def test_a_curve_of_few_points_is_told_by_bars_alone() -> None:
    curve = [[i, 100 // i, 50 // i] for i in range(1, FEW_POINTS + 1)]
    assert told({"curve": curve, "t": 4, "top": [["a", 100, 50]]}).curve is not None
    assert told({"curve": curve[:3]}).curve is not None
    assert told({"curve": curve[:3], "top": [["a", 100, 50]]}).curve is None
    assert told({"curve": [[1, 2]]}).tables[0].rows == [[1, 2]]


def test_hostile_summaries_stay_text() -> None:
    summary: dict[str, Any] = {
        HOSTILE: HOSTILE,
        f"table {HOSTILE}": {HOSTILE: HOSTILE},
        f"nested {HOSTILE}": {HOSTILE: {HOSTILE: HOSTILE}},
        f"list {HOSTILE}": [{HOSTILE: HOSTILE}],
        f"moved {HOSTILE}": [[HOSTILE, 3, 2]],
        f"odd {HOSTILE}": [[HOSTILE], HOSTILE],
        "half": "\ud800\x00\u202e",
    }
    html = page_of(pool_facts(HOSTILE, HOSTILE, summary, {HOSTILE: HOSTILE}, HOSTILE))
    html.encode("utf-8")
    assert "<script" not in html and "<img" not in html and not re.search("[\x00\u202e]", html)
    assert text_of(pool_section(html)).count("alert(1)") >= 10 and "{{ 7*7 }}" in text_of(pool_section(html))


def test_steps_that_tell_nothing_have_no_section() -> None:
    assert told({}).is_empty and told({"cuts": [], "parts": {}, "curve": []}).is_empty
    body = page_of().split("</style>")[1]
    assert "Over the whole pool" not in body and "#pool" not in body
