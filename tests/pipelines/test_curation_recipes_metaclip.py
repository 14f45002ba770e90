"""The recipes metaclip and metaclip2 on pools of real names in several languages, with real pictures from loopback."""

from __future__ import annotations

import io
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from captions import emoji_names, icon_texts
from corpora import fates, outcome
from shuffled import ShuffledRows, decided

from corpusmith.operators.balance.balance import Balance
from corpusmith.pipelines.bind import load_recipe
from corpusmith.pipelines.demo.pictures import prepare as prepare_pictures
from corpusmith.pipelines.progress import Progress
from corpusmith.pipelines.run import RunOptions, RunResult, prepare, run
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.verify import verify
from corpusmith.schemas.identity import uids_of_urls

PICTURES = 20
WITHOUT_PICTURES = ("download", "image")
LANGUAGES = ("en", "de", "ja", "ar")


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder, whatever the query."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Addresses of real pictures."""
    folder = prepare_pictures(tmp_path_factory.mktemp("demo"), limit=PICTURES).folder
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield [f"http://127.0.0.1:{server.server_address[1]}/{name}" for name in names]
        server.shutdown()
        thread.join()


def english_pool(urls: list[str]) -> pa.Table:
    """Sentences over icons' labels and terms, some words far more frequent than others."""
    drawn = random.Random(0)
    labels = [label.lower() for label, _ in icon_texts()][:60]
    weights = [1 / (k + 1) for k in range(len(labels))]
    texts = []
    for _ in range(120):
        first, second = drawn.choices(labels, weights, k=2)
        texts.append(f"this is a picture of the {first} with some {second} on it")
    texts[:10] = ["das ist ein Bild von einem Haus in der Stadt und es regnet"] * 10
    return pa.table({"url": [f"{urls[i % len(urls)]}?{i}" for i in range(len(texts))], "text": texts})


def worldwide_pool(urls: list[str]) -> pa.Table:
    """Names of emoji in four languages, two texts an image."""
    drawn = random.Random(1)
    texts = []
    for language in LANGUAGES:
        names = emoji_names(language)[:40]
        weights = [1 / (k + 1) for k in range(len(names))]
        for _ in range(80 if language == "ja" else 25):
            pairs = [drawn.choices(names, weights, k=4) for _ in range(2)]
            texts.append([" ".join(words) for words in pairs])
    return pa.table({"url": [f"{urls[i % len(urls)]}?{i}" for i in range(len(texts))], "text": texts})


def run_over(
    name: str, pool: pa.Table, folder: Path, *, files: int = 1, order: int = 0, skip: Sequence[str] = (), **options: Any
) -> RunResult:
    """Run a packaged recipe over the pool's rows, shuffled into so many files; the corpus is `folder / "corpus"`."""
    places = random.Random(order).sample(range(len(pool)), len(pool))
    (folder / "in").mkdir(parents=True)
    for i in range(files):
        part = pool.take(pa.array(places[i::files], pa.int64()))
        pq.write_table(part, folder / "in" / f"{i:03d}.parquet")
    overrides = [] if "download" in skip else ['download.allow_hosts=["127.0.0.1"]']
    overrides += [f"input.path={folder / 'in'}", "output.samples_per_shard=40"]
    overrides += [f"balance.{key}={value}" for key, value in options.items()]
    prepared = prepare(*load_recipe(name, overrides, skip))
    return run(prepared, str(folder / "corpus"), RunOptions("inline"), Progress(io.StringIO(), quiet=True))


def summary_of(corpus: Path) -> dict[str, Any]:
    """What the balance told of itself."""
    facts = [json.loads(path.read_text()) for path in (corpus / ".work").rglob("*.json")]
    return next(one for one in facts if "matches_after" in one)


def test_metaclip_balances_english(urls: list[str], tmp_path: Path) -> None:
    pool = english_pool(urls)
    result = run_over("metaclip", pool, tmp_path)
    assert verify(Storage(str(tmp_path / "corpus"))) == []
    assert "Over the whole pool" in Path(result.report).read_text()
    rows = fates(tmp_path / "corpus")
    uids = uids_of_urls(pool.column("url").to_pylist(), pool.column("text").to_pylist())
    steps = {uid: rows[uid]["step"] if rows[uid]["fate"] != "kept" else None for uid in uids}
    reach = [i for i, uid in enumerate(uids) if steps[uid] not in ("keep", "dedup.exact")]
    assert Counter(steps.values())["keep"] >= 10
    table = pa.table({"uid": [uids[i] for i in reach], "caption": pool.column("text").take(pa.array(reach))})
    config = Balance.Config(entries="pool", tail_share=0.06, min_count=3, min_pmi=3)
    by_uid = {row["uid"]: row for row in decided(Balance(config).reduce(ShuffledRows(table, tmp_path))).to_pylist()}
    for uid in table.column("uid").to_pylist():
        assert (steps[uid] == "balance") == (by_uid[uid]["fate"] == "rejected")
        if steps[uid] == "balance":
            assert rows[uid]["reason"] == by_uid[uid]["reason"]
    assert 0 < Counter(steps.values())["balance"] < len(reach) / 2


def test_metaclip2_balances_each_language(urls: list[str], tmp_path: Path) -> None:
    pool = worldwide_pool(urls)
    result = run_over("metaclip2", pool, tmp_path, tail_share=0.4)
    assert verify(Storage(str(tmp_path / "corpus"))) == []
    assert "Over the whole pool" in Path(result.report).read_text()
    tables = [pq.read_table(path) for path in sorted((tmp_path / "corpus" / "shards").glob("*.parquet"))]
    kept = pa.concat_tables(tables).to_pylist()
    texts = dict(zip(pool.column("url").to_pylist(), pool.column("text").to_pylist(), strict=True))
    chosen = Counter(texts[row["url"]].index(row["caption"]) for row in kept)
    assert min(chosen[0], chosen[1]) > len(kept) / 5
    assert all(0 < row["balance_probability"] <= 1 for row in kept)
    told = summary_of(tmp_path / "corpus")
    large = [one for one in told["languages"] if one["rows"] >= 10]
    assert {one["language"]: one["t"] for one in large}["ja"] > max(
        one["t"] for one in large if one["language"] != "ja"
    )
    rejected = sum(row["step"] == "balance" for row in fates(tmp_path / "corpus").values())
    assert told["rows"] - told["kept"] == rejected
    assert 0 < told["expected"] < told["rows"]


@pytest.mark.parametrize(
    ("name", "make"),
    [pytest.param("metaclip", english_pool, marks=pytest.mark.slow), ("metaclip2", worldwide_pool)],
)
def test_order_and_files_change_nothing(name: str, make: Any, urls: list[str], tmp_path: Path) -> None:
    outcomes = []
    for order, files in enumerate((1, 7, 64)):
        run_over(name, make(urls), tmp_path / str(files), files=files, order=order, skip=WITHOUT_PICTURES)
        outcomes.append(outcome(tmp_path / str(files) / "corpus"))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_online_keeps_all_with_their_weight(urls: list[str], tmp_path: Path) -> None:
    run_over("metaclip", english_pool(urls), tmp_path, mode="online", skip=WITHOUT_PICTURES)
    assert "balance" not in {row["step"] for row in fates(tmp_path / "corpus").values()}
    tables = [pq.read_table(path) for path in (tmp_path / "corpus" / "shards").glob("*.parquet")]
    weights = pa.concat_tables(tables).column("balance_probability").to_pylist()
    assert min(weights) < 0.9 < max(weights) <= 1


def test_lists_of_each_language(urls: list[str], tmp_path: Path) -> None:
    """Entries by language from a file, and t for English."""
    pool = worldwide_pool(urls)
    path = tmp_path / "entries.json"
    lists = ", ".join(f'"{language}": {list(emoji_names(language)[:40])!r}' for language in LANGUAGES)
    path.write_text("{" + lists.replace("'", '"') + "}")
    run_over("metaclip2", pool, tmp_path / "run", entries=path, skip=WITHOUT_PICTURES, tail_share="null", t=2)
    told = summary_of(tmp_path / "run" / "corpus")
    assert told["t"] == 2
    assert told["entries"] == 40 * len(LANGUAGES)
    assert 0 < told["expected"] < told["rows"]
