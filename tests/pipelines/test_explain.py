"""Explaining: each fate is told with its reason, by uid and by URL, and secrets stay where they were."""

from __future__ import annotations

import json
import re
from pathlib import Path

import fakes  # noqa: F401 (registers operators)
import pytest
from corpora import fates, run_recipe, write_rows

from corpusmith.pipelines.explain import Explanation, explain, explanation_lines
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.twins import SHOWN_DUPLICATES
from corpusmith.schemas.errors import UserError

SECRET = "s3cr3t"


def url_of(i: int) -> str:
    """The URL of a row, with a signature."""
    return f"http://user:{SECRET}@web/{'fail' if i % 10 == 3 else 'ok'}/{i}?page={i}&token={SECRET}{i}"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, calls_path: Path) -> Path:
    """A corpus with all four fates; the rows 0 and 1 are one picture under two texts."""
    folder = tmp_path_factory.mktemp("explained")
    write_rows(folder / "in.parquet", range(80), url=lambda i: url_of(max(1, i)))
    steps = ["fake_score", {"fake_fetch": {"size": 64}}, {"keep": "score >= 200"}, "fake_crops"]
    recipe = {"corpus": "x", "input": {"path": str(folder / "in.parquet")}, "steps": steps}
    run_recipe(json.dumps({**recipe, "output": {"samples_per_shard": 30}}), folder / "corpus")
    return folder / "corpus"


def first(corpus: Path, fate: str) -> str:
    """The uid of a row of a fate."""
    return next(uid for uid, row in sorted(fates(corpus).items()) if row["fate"] == fate)


def text(explanation: Explanation) -> str:
    """The explanation as it is printed."""
    return "\n".join(explanation_lines(explanation))


def test_a_kept_sample_names_its_shard_and_its_values(corpus: Path) -> None:
    uid = first(corpus, "kept")
    (found,) = explain(Storage(str(corpus)), uid.upper())
    told = text(found)
    assert told.startswith(f"{uid}  kept\n")
    assert found.shard is not None
    tar, sample = found.shard
    media = (corpus / tar).read_bytes()[sample["tar_offset"] :][: sample["tar_size"]]
    assert len(media) == 64
    assert f"{tar}, key {sample['key']}" in told
    assert "score" in told
    assert found.ledger["parent_uid"] in told
    assert found.ledger["root_uid"] in told


def test_a_rejected_sample_names_column_value_and_bound(corpus: Path) -> None:
    (found,) = explain(Storage(str(corpus)), first(corpus, "rejected"))
    told = text(found)
    assert "step    keep" in told
    assert "reason  score >= 200: score = " in told
    assert "root_uid" not in told, "an input row is its own root"


def test_a_failed_sample_names_the_error(corpus: Path) -> None:
    (found,) = explain(Storage(str(corpus)), first(corpus, "failed"))
    told = text(found)
    assert "HTTPStatus 404" in told
    assert "no such picture" in told


def test_a_split_sample_names_its_children(corpus: Path) -> None:
    uid = next(uid for uid, row in fates(corpus).items() if row["fate"] == "split" and row["children"] > 1)
    (found,) = explain(Storage(str(corpus)), uid)
    children = {u for u, row in fates(corpus).items() if row["parent_uid"] == uid}
    assert set(found.children) == children
    assert all(child in text(found) for child in children)


def test_a_url_is_found_by_its_secret_text_and_shown_without(corpus: Path) -> None:
    found = explain(Storage(str(corpus)), url_of(13))
    assert [row.ledger["fate"] for row in found] == ["failed"]
    assert "token=REDACTED" in text(found[0])
    shown = found[0].ledger["url"]
    assert [row.ledger["uid"] for row in explain(Storage(str(corpus)), shown)] == [found[0].ledger["uid"]]


def test_one_url_under_two_texts_is_two_samples(corpus: Path) -> None:
    found = explain(Storage(str(corpus)), url_of(1))
    assert len({row.ledger["root_uid"] for row in found}) == 2


def test_no_secret_leaves_the_work_folder(corpus: Path) -> None:
    files = [p for p in corpus.rglob("*") if p.is_file() and ".work" not in p.parts]
    assert len(files) > 5
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path
    for uid in fates(corpus):
        for found in explain(Storage(str(corpus)), uid):
            assert SECRET not in text(found)


@pytest.fixture(scope="module")
def deduplicated(tmp_path_factory: pytest.TempPathFactory, calls_path: Path) -> Path:
    """A corpus of 60 rows under 4 captions, of which one in ten has a URL that fails, and a second deduplication."""
    folder = tmp_path_factory.mktemp("deduplicated")
    write_rows(folder / "in.parquet", range(60), url=url_of, caption=lambda i: f"caption {min(i % 20, 3)}")
    steps = [{"dedup.exact": {"on": ["caption"]}}, {"fake_fetch": {"size": 64}}, {"keep": "caption <> 'caption 0'"}]
    recipe = {"corpus": "x", "input": {"path": str(folder / "in.parquet")}, "steps": steps}
    run_recipe(json.dumps(recipe), folder / "corpus")
    return folder / "corpus"


def test_a_duplicate_shows_its_twin(deduplicated: Path) -> None:
    rows = fates(deduplicated)
    for uid, row in rows.items():
        if row["step"] != "dedup.exact":
            continue
        (found,) = explain(Storage(str(deduplicated)), uid)
        told = text(found)
        twin = rows[row["reason"].rpartition(" ")[2]]
        assert f"twin            {twin['uid']}, {twin['fate']} in this corpus" in told or twin["fate"] != "kept"
        assert twin["url"] in told
        if twin["fate"] == "kept":
            assert found.twin is not None
            assert found.twin.shard is not None
            assert f"twin's caption  {found.twin.shard[1]['caption']}" in told
        else:
            assert re.search(rf"twin's reason +{re.escape(twin['reason'])}", told)
        assert SECRET not in told


def test_a_representative_shows_what_it_stands_for(deduplicated: Path) -> None:
    rows = fates(deduplicated)
    stand = {uid for uid, row in rows.items() if row["step"] != "dedup.exact"}
    assert len(stand) == 4
    for uid in stand:
        (found,) = explain(Storage(str(deduplicated)), uid)
        dropped = sorted(u for u, row in rows.items() if (row["reason"] or "").endswith(f": of {uid}"))
        assert found.duplicates.count == len(dropped) >= 2
        assert [row["uid"] for row in found.duplicates.first] == dropped[:SHOWN_DUPLICATES]
        told = text(found)
        assert f"{len(dropped)} rows, dropped as its duplicates:" in told
        assert f"    {dropped[0]}  duplicate caption  {rows[dropped[0]]['url']}" in told
        assert ("more" in told.splitlines()[-1]) == (len(dropped) > SHOWN_DUPLICATES)
        assert SECRET not in told


def test_rows_without_duplicates_say_nothing_of_them(corpus: Path) -> None:
    (found,) = explain(Storage(str(corpus)), first(corpus, "kept"))
    assert found.twin is None
    assert found.duplicates.count == 0
    assert "twin" not in text(found)
    assert "stands for" not in text(found)


@pytest.mark.parametrize("unknown", ["0" * 32, "http://web/nowhere", "", "kept"])
def test_what_is_unknown_is_told(corpus: Path, unknown: str) -> None:
    with pytest.raises(UserError, match="no sample of this corpus has that"):
        explain(Storage(str(corpus)), unknown)


def test_an_unfinished_corpus_explains_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no manifest"):
        explain(Storage(str(tmp_path)), "0" * 32)
