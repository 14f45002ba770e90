"""A new pool against finished corpora, by recipes: whatever the order and the files, and anew when a corpus changes."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fakes  # noqa: F401 (registers operators)
import pytest
from captions import real_titles
from corpora import fates, outcome, run_recipe, write_rows

from corpusmith.pipelines.explain import explain, explanation_lines
from corpusmith.pipelines.run import RunResult
from corpusmith.pipelines.storage import Storage
from corpusmith.schemas.errors import UserError

ROWS = 300
TITLES = real_titles()[:150]


def url_of(i: int) -> str:
    """Addresses in several spellings, each picture under about two."""
    scheme, host = (("http", "web"), ("https", "WEB:443"), ("HTTP", "web."))[i % 3]
    return f"{scheme}://{host}/ok/{i // 2}{'?utm_source=mail' if i % 5 == 0 else ''}"


def caption_of(i: int) -> str:
    """Real titles, some shouted, about half of them twice."""
    title = TITLES[i * 7 % len(TITLES)] if i < 250 else f"{TITLES[i % 9]} {i}"
    return f"  {title.upper()}!" if i % 3 == 0 else title


def run_pool(
    folder: Path, numbers: Sequence[int], dedup: dict[str, Any], *, files: int = 1, name: str = "pool"
) -> RunResult:
    """Run a recipe over some rows in that many files; its corpus lies in folder/corpus."""
    for file in range(files):
        write_rows(folder / "in" / f"{file:02d}.parquet", numbers[file::files], url=url_of, caption=caption_of)
    recipe = {"corpus": name, "input": {"path": str(folder / "in" / "*.parquet")}, "steps": [{"dedup.exact": dedup}]}
    return run_recipe(json.dumps({**recipe, "output": {"samples_per_shard": 40}}), folder / "corpus")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory, calls_path: Path) -> list[str]:
    """Two finished corpora, of which the second has samples of the first."""
    folder = tmp_path_factory.mktemp("earlier")
    for name, numbers in (("first", range(120)), ("second", range(80, 200))):
        run_pool(folder / name, numbers, {"on": ["url"]}, name=name)
    return [str(folder / name / "corpus") for name in ("first", "second")]


DEDUP = {"on": ["url", "caption"], "forms": {"url": "url_without_tracking", "caption": "text"}}
ONE = {"on": ["url"], "forms": {"url": "url_without_tracking"}}


@pytest.mark.parametrize("dedup", [DEDUP, ONE], ids=["two columns", "one column"])
def test_order_and_files_mean_nothing(tmp_path: Path, earlier: list[str], dedup: dict[str, Any]) -> None:
    outcomes = []
    for files in (1, 7, 64):
        numbers = random.Random(files).sample(range(ROWS), ROWS)
        run_pool(tmp_path / f"{files}", numbers, {**dedup, "against": earlier}, files=files)
        outcomes.append(outcome(tmp_path / f"{files}" / "corpus"))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    reasons = [row["reason"] for row in fates(tmp_path / "1" / "corpus").values() if row["fate"] == "rejected"]
    told = {place: sum(reason.endswith(place) for reason in reasons) for place in (" in first", " in second")}
    assert min(told.values()) > 20
    assert 0 < sum(told.values()) <= len(reasons) < ROWS


def test_samples_delivered_before_are_not_delivered_again(tmp_path: Path, earlier: list[str]) -> None:
    run_pool(tmp_path, range(ROWS), {"on": ["caption"], "against": earlier})
    before = {uid for corpus in earlier for uid, row in fates(Path(corpus)).items() if row["fate"] == "kept"}
    found = fates(tmp_path / "corpus")
    again = before & set(found)
    assert len(again) > 50
    assert {found[uid]["fate"] for uid in again} == {"rejected"}
    assert any(row["fate"] == "kept" for row in found.values())


def test_decisions_are_reused_until_a_corpus_changes(tmp_path: Path, calls_path: Path) -> None:
    run_pool(tmp_path / "old", range(40), {"on": ["url"]}, name="old")
    old = str(tmp_path / "old" / "corpus")
    dedup = {**ONE, "against": [old]}
    first = run_pool(tmp_path / "new", range(20, 80), dedup)
    assert first.stats["dedup.exact"].reused == 0
    before = outcome(tmp_path / "new" / "corpus")
    second = run_pool(tmp_path / "new", range(20, 80), dedup)
    assert second.stats["dedup.exact"].computed == 0
    assert second.stats["dedup.exact"].reused > 0
    assert outcome(tmp_path / "new" / "corpus") == before

    run_pool(tmp_path / "old", range(70), {"on": ["url"]}, name="old")
    third = run_pool(tmp_path / "new", range(20, 80), dedup)
    assert third.stats["dedup.exact"].reused == 0
    run_pool(tmp_path / "fresh", range(20, 80), dedup)
    after = outcome(tmp_path / "new" / "corpus")
    assert after == outcome(tmp_path / "fresh" / "corpus")
    assert after != before


def test_what_is_no_corpus_is_told_with_its_line(tmp_path: Path, earlier: list[str]) -> None:
    with pytest.raises(UserError, match="this is no finished corpus") as told:
        run_pool(tmp_path, range(3), {"on": ["url"], "against": [*earlier, str(tmp_path / "nowhere")]})
    assert "test.yaml:1" in str(told.value)
    assert str(tmp_path / "nowhere") in str(told.value)
    steps = [{"url_parts": {}}, {"dedup.exact": {"on": ["host"], "against": earlier}}]
    recipe = {"corpus": "x", "input": {"path": str(tmp_path / "in" / "*.parquet")}, "steps": steps}
    with pytest.raises(UserError, match="the corpus has no column 'host'") as told:
        run_recipe(json.dumps(recipe), tmp_path / "corpus")
    assert told.value.where == earlier[0]


def test_explain_shows_the_twin_in_the_other_corpus(tmp_path: Path, earlier: list[str]) -> None:
    run_pool(tmp_path, range(ROWS), {**ONE, "against": earlier})
    corpus = Storage(str(tmp_path / "corpus"))
    for name, folder in zip(("first", "second"), earlier, strict=True):
        ends = f" in {name}"
        uid = next(u for u, row in sorted(fates(tmp_path / "corpus").items()) if (row["reason"] or "").endswith(ends))
        (found,) = explain(corpus, uid)
        assert found.twin is not None
        assert found.twin.ledger is not None
        assert found.twin.ledger == fates(Path(folder))[found.twin.twin.uid]
        told = "\n".join(explanation_lines(found))
        assert f"twin            {found.twin.twin.uid}, kept in the corpus {name} at {folder}" in told
        assert f"twin's url      {found.twin.ledger['url']}" in told
        assert "twin's caption  " in told
        assert "twin's shard    shards/0000" in told


def test_explain_says_where_a_lost_corpus_was(tmp_path: Path, calls_path: Path) -> None:
    run_pool(tmp_path / "old", range(40), {"on": ["url"]}, name="old")
    old = tmp_path / "old" / "corpus"
    run_pool(tmp_path / "new", range(40), {"on": ["url"], "against": [str(old)]})
    uid = min(fates(tmp_path / "new" / "corpus"))
    old.rename(tmp_path / "moved")
    (found,) = explain(Storage(str(tmp_path / "new" / "corpus")), uid)
    told = "\n".join(explanation_lines(found))
    assert f"a sample of the corpus old, not found at {old}" in told
