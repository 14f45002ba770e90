"""DataComp's selections and hashtags as packaged: each on a small real pool, against its rule in plain Python.

The pool is the demo's: drawings, icons and photos with their titles, from a server on loopback. An embedding is what a
person would call the look of a picture: its colours on a grid of four by four cells, less their mean.
"""

from __future__ import annotations

import io
import math
import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import fates, outcome
from wordnet_files import Meaning, write_wordnet

from corpusmith.operators.balance.wordnet import WordNet
from corpusmith.operators.text.text import Text
from corpusmith.pipelines.bind import load_recipe
from corpusmith.pipelines.demo.pictures import prepare as prepare_pictures
from corpusmith.pipelines.demo.server import DemoServer
from corpusmith.pipelines.progress import Progress
from corpusmith.pipelines.run import RunOptions, prepare, run
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.verify import verify
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.identity import uids_of_urls

GRID = 4
"""Cells along a side."""
DOWNLOAD = ("download", "image")
"""Steps that follow the selection, left out where they have been seen."""


MEANINGS = (
    Meaning("bus.n.1", ("bus",), "a long car for many"),
    Meaning("car.n.1", ("car", "auto", "automobile"), "what drives on four wheels"),
    Meaning("hand.n.1", ("hand", "fist"), "what an arm ends in"),
    Meaning("house.n.1", ("house",), "what people live in"),
    Meaning("vehicle.n.1", ("vehicle",), "what carries people"),
    Meaning("video_game.n.1", ("video_game",), "a game on a screen"),
    Meaning("icon.n.1", ("icon",), "a small picture"),
    Meaning("book.n.1", ("book",), "pages between covers"),
    Meaning("light.a.1", ("light",), "not dark"),
    Meaning("stand.v.1", ("stand",), "to be upright"),
)
WANTED = ("bus.n.1", "car.n.1", "hand.n.1", "book.n.1")


@dataclass(frozen=True)
class Pool:
    """Pictures of the demo, as its server gives them.

    Args:
        rows: `url`, `text`, `embedding`, `clip_similarity`; no encoder is at hand, so that the last is the contrast of
            a picture's look, in a few steps, so that there are ties.
        paths: of the pictures' files.
        wordnet: folder of a WordNet that knows MEANINGS.
        numbers: its synsets by name.
    """

    rows: pa.Table
    paths: list[Path]
    wordnet: str
    numbers: dict[str, str]

    @property
    def uids(self) -> list[str]:
        """Of the rows."""
        return uids_of_urls(self.rows.column("url"), self.rows.column("text"))

    def reference(self, folder: Path, *places: int) -> str:
        """A file of the embeddings of some rows."""
        np.save(
            folder / "reference.npy", np.stack([self.rows.column("embedding")[i].values.to_numpy() for i in places])
        )
        return str(folder / "reference.npy")


def run_packaged(
    name: str, rows: pa.Table, folder: Path, *overrides: str, files: int = 1, skip: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Run a packaged recipe over rows in some files; returns uid → row of the ledger."""
    for i in range(files):
        pq.write_table(rows.take(list(range(i, rows.num_rows, files))), folder / f"{i:02d}.parquet")
    given = ['download.allow_hosts=["127.0.0.1"]', f"input.path={folder}/*.parquet", "output.samples_per_shard=40"]
    prepared = prepare(*load_recipe(name, [*given, *overrides], skip))
    output = folder / "corpus"
    run(prepared, str(output), RunOptions("inline"), Progress(stream=io.StringIO(), quiet=True))
    assert verify(Storage(str(output))) == []
    return fates(output)


def kept(ledger: dict[str, dict[str, Any]]) -> set[str]:
    return {uid for uid, row in ledger.items() if row["fate"] == "kept"}


def failed(ledger: dict[str, dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """Uid → error and message."""
    return {uid: (row["error"], row["reason"]) for uid, row in ledger.items() if row["fate"] == "failed"}


def selected(ledger: dict[str, dict[str, Any]]) -> set[str]:
    """Rows that a selection lets through, whatever becomes of their download on a busy machine."""
    return kept(ledger) | at(ledger, *DOWNLOAD)


def at(ledger: dict[str, dict[str, Any]], *steps: str) -> set[str]:
    """Rows whose fate some steps decided."""
    return {uid for uid, row in ledger.items() if row["step"] in steps}


def look(picture: bytes) -> np.ndarray:
    """(48,) float32."""
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    cells = cv2.resize(pixels, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    return cells - cells.mean() + np.float32(1e-3)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    demo = prepare_pictures(tmp_path_factory.mktemp("demo"), limit=120)
    words = tmp_path_factory.mktemp("wordnet")
    numbers = write_wordnet(words, MEANINGS)
    with DemoServer(demo.folder, port=0, slow_s=0.01) as server:
        rows, paths = [], []
        for row in pq.read_table(server.write_urls()).to_pylist():
            way, _, path = row["url"].removeprefix(f"{server.base_url}/").partition("/")
            if way == "pictures":
                vector = look((demo.folder / "pictures" / path).read_bytes())
                score = float(vector.std() // 10)
                rows.append({"url": row["url"], "text": row["caption"], "embedding": vector, "clip_similarity": score})
                paths.append(demo.folder / "pictures" / path)
        yield Pool(pa.Table.from_pylist(rows), paths, str(words), numbers)


def clean(texts: pa.ChunkedArray) -> list[str | None]:
    """Captions as the step `text` leaves them."""
    operator = Text()
    operator.setup()
    part: Any = operator.process(pa.table({"uid": [""] * len(texts), "caption": texts}))
    return pa.array(part.columns["caption"]).to_pylist()


def test_text_based(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "wanted.txt").write_text("\n".join(pool.numbers[name] for name in WANTED))
    overrides = [f"synset_select.synsets={tmp_path}/wanted.txt", f"synsets.wordnet_path={pool.wordnet}"]
    ledger = run_packaged("datacomp-text", pool.rows, tmp_path, *overrides)
    wordnet, wanted = WordNet(pool.wordnet), {pool.numbers[name] for name in WANTED}
    names_one = set()
    for uid, text in zip(pool.uids, clean(pool.rows.column("text")), strict=True):
        firsts = [wordnet.first_synset(word) for word in (text or "").split()]
        if wanted & {first.wnid for first in firsts if first}:
            names_one.add(uid)
    judged = ledger.keys() - at(ledger, "keep", "language", "text")
    assert len(judged) > 50
    assert selected(ledger) == judged & names_one
    assert at(ledger, "synset_select") == judged - names_one
    assert len(kept(ledger)) > 3
    assert {row["reason"] for row in ledger.values() if row["step"] == "synset_select"} >= {
        "no synset of wanted.txt: synsets = none"
    }


def test_image_based(pool: Pool, tmp_path: Path) -> None:
    ledger = run_packaged(
        "datacomp-image", pool.rows, tmp_path, f"cluster_select.reference={pool.reference(tmp_path, 10, 30, 50)}"
    )
    texts = ("keep", "keep#2", "language", "text")
    assert len(at(ledger, *texts)) > 5
    for uid, text in zip(pool.uids, clean(pool.rows.column("text")), strict=True):
        is_long = text is not None and len(text.split()) > 1 and len(text) > 5
        assert (uid in at(ledger, "keep", "text")) == (not is_long)
    judged = ledger.keys() - at(ledger, *texts)
    assert {pool.uids[i] for i in (10, 30, 50)} & judged <= selected(ledger)
    assert selected(ledger) | at(ledger, "cluster_select") == judged
    assert len(kept(ledger)) > 3
    assert len(at(ledger, "cluster_select")) > 3
    reasons = Counter(row["reason"] for row in ledger.values() if row["step"] == "cluster_select")
    dropped = {int(reason.rpartition(" = ")[2]) for reason in reasons}
    shards = pq.read_table(sorted((tmp_path / "corpus" / "shards").glob("*.parquet")))
    clusters = set(shards.column("cluster").to_pylist())
    assert not clusters & dropped
    assert 1 <= len(clusters) <= 3
    assert max(clusters | dropped) < round(math.sqrt(len(judged)))


def test_image_based_and_clip_score_is_their_intersection_in_any_order_and_files(pool: Pool, tmp_path: Path) -> None:
    reference = f"cluster_select.reference={pool.reference(tmp_path, 10, 30, 50)}"
    (tmp_path / "image").mkdir()
    ledger = run_packaged("datacomp-image", pool.rows, tmp_path / "image", reference, skip=DOWNLOAD)
    images, failures = kept(ledger), failed(ledger)
    scores = dict(zip(pool.uids, pool.rows.column("clip_similarity").to_pylist(), strict=True))  # one row a uid
    ranked = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
    assert len(ranked) == len(ledger) - len(at(ledger, "input"))
    top = {uid for uid, _ in ranked[: 3 * len(ranked) // 10]}
    assert ranked[len(top) - 1][1] == ranked[len(top)][1]  # a tie that uids break
    outcomes = []
    for files in (1, 7, 64):
        folder = tmp_path / f"{files}"
        folder.mkdir()
        order = random.Random(files).sample(range(pool.rows.num_rows), pool.rows.num_rows)
        rows = pool.rows.take(order)
        ledger = run_packaged("datacomp-image-clip", rows, folder, reference, files=files, skip=DOWNLOAD)
        assert failed(ledger) == failures
        assert kept(ledger) == images & top
        outcomes.append(outcome(folder / "corpus"))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert 0 < len(images & top) < min(len(images), len(top))


def test_hashtags(pool: Pool, tmp_path: Path) -> None:
    tags = []
    for text in pool.rows.column("text").to_pylist():
        terms = [re.findall(r"[A-Za-z]+", term) for term in (text or "").split(",")]
        tags.append(" ".join(f"#{''.join(word.capitalize() for word in words)}" for words in terms if words))
    rows = pool.rows.set_column(1, "text", pa.array(tags))
    uids = uids_of_urls(rows.column("url"), rows.column("text"))
    known = {lemma.replace("_", "") for one in MEANINGS if one.name.endswith(".n.1") for lemma in one.lemmas}
    tagged = [i for i, text in enumerate(tags) if re.search(rf"#({'|'.join(known)})s?\b", text.lower())]
    (tmp_path / "seen").mkdir()
    for i in tagged[:2]:
        shutil.copy(pool.paths[i], tmp_path / "seen")
    sets = f"decontaminate.sets={{seen: {{images: {tmp_path}/seen}}}}"
    ledger = run_packaged("hashtags", rows, tmp_path, sets, f"synsets.wordnet_path={pool.wordnet}")
    assert ledger.keys() - at(ledger, "keep") == {uids[i] for i in tagged}
    assert {uids[i] for i in tagged[:2]} <= at(ledger, "decontaminate", *DOWNLOAD)
    assert at(ledger, "resample")
    assert kept(ledger)
    shards = pq.read_table(sorted((tmp_path / "corpus" / "shards").glob("*.parquet")))
    assert set(shards.column("synsets").combine_chunks().flatten().to_pylist()) <= set(pool.numbers.values())


def test_what_a_user_has_to_bring_is_said_before_anything_starts(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "wanted.txt").write_text(pool.numbers["bus.n.1"])
    for name, given, lack in (
        ("datacomp-image", [], "no reference embeddings are named"),
        ("datacomp-image-clip", [], "no reference embeddings are named"),
        ("hashtags", [f"synsets.wordnet_path={pool.wordnet}"], "no evaluation set is named"),
    ):
        with pytest.raises(UserError, match=lack):
            run_packaged(name, pool.rows, tmp_path, *given)
        assert not (tmp_path / "corpus").exists()
