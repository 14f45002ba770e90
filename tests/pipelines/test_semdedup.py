"""The recipe semdedup over real photos: what was encoded anew is found by its embedding, other photos stay.

Embeddings are what can be had without a model: 16 x 16 gray thumbnails, their mean taken off, in clip-retrieval's
layout, keyed by url. Photos come from the wheels of scikit-image and scikit-learn: whole, and cut into quarters, which
are photos of their own; copies of both in another size, at another quality.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage
import sklearn.datasets
from corpora import fates, outcome

from corpusmith.pipelines.bind import load_recipe
from corpusmith.pipelines.progress import Progress
from corpusmith.pipelines.run import RunOptions, RunResult, prepare, run
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.identity import uids_of_urls

FILES = (
    *(Path(skimage.__file__).parent / "data" / f"{name}.png" for name in ("astronaut", "camera", "coffee", "coins")),
    *(Path(skimage.__file__).parent / "data" / name for name in ("chelsea.png", "rocket.jpg")),
    *(Path(sklearn.datasets.__file__).parent / "images" / name for name in ("china.jpg", "flower.jpg")),
)
SIDE = 16
EPSILON = 0.02


@cache
def pictures() -> dict[str, bytes]:
    """Path on the server → JPEG; `photo-0-a.jpg` is photo-0, `-b` and `-c` are its copies."""
    made: dict[str, bytes] = {}
    for number, path in enumerate(path for path in FILES if path.exists()):
        photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
        assert photo is not None
        middle = photo.shape[0] // 2, photo.shape[1] // 2
        halves = [(slice(None, at), slice(at, None)) for at in middle]
        quarters = [photo[rows, columns] for rows in halves[0] for columns in halves[1]]
        for part, cut in enumerate([photo, *quarters]):
            for copy, (factor, quality) in {"a": (1, 92), "b": (0.8, 60), "c": (1.3, 25)}.items():
                scaled = cv2.resize(cut, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
                encoded = cv2.imencode(".jpg", scaled, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
                made[f"{path.stem}{number}-{part}-{copy}.jpg"] = encoded.tobytes()
    return made


def embedding(picture: bytes) -> np.ndarray:
    gray = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert gray is not None
    small = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return (small - small.mean()).ravel()


class Photos(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = pictures().get(self.path.strip("/"))
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Pool:
    """Pictures on a server and their embeddings in a folder; `urls` by the pictures' names."""

    folder: Path
    urls: dict[str, str]

    def uids(self) -> dict[str, str]:
        """uid → name of the picture."""
        found = uids_of_urls(list(self.urls.values()), [f"the picture {name}" for name in self.urls])
        return dict(zip(found, self.urls, strict=True))

    def write(self, folder: Path, order: Sequence[int], files: int) -> str:
        """The input in an order, cut into files; a pattern that matches them."""
        names = [list(self.urls)[i] for i in order]
        table = pa.table(
            {"url": [self.urls[name] for name in names], "text": [f"the picture {name}" for name in names]}
        )
        folder.mkdir()
        bounds = np.linspace(0, len(names), files + 1).astype(int).tolist()
        for number, (start, stop) in enumerate(pairwise(bounds)):
            pq.write_table(table.slice(start, stop - start), folder / f"{number:03d}.parquet")
        return str(folder / "*.parquet")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Photos)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    folder = tmp_path_factory.mktemp("semdedup") / "embeddings"
    urls = {name: f"http://127.0.0.1:{server.server_address[1]}/{name}" for name in pictures()}
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    names = sorted(urls, key=lambda name: name[::-1])
    for number, part in enumerate((names[:50], names[50:])):
        matrix = np.stack([embedding(pictures()[name]) for name in part]).astype(np.float16)
        np.save(folder / f"img_emb/img_emb_{number}.npy", matrix)
        table = pa.table({"key": [str(i) for i in range(len(part))], "url": [urls[name] for name in part]})
        pq.write_table(table, folder / f"metadata/metadata_{number}.parquet")
    yield Pool(folder, urls)
    server.shutdown()
    thread.join()
    server.server_close()


def run_over(pool: Pool, source: str, output: Path, *overrides: str, with_media: bool = False) -> RunResult:
    """Run the recipe; without media it decides the same and takes a fraction of the time."""
    left_out = [] if with_media else ["download", "image"]
    given = [
        f"input.path={source}",
        f"embeddings.path={pool.folder}",
        *(['download.allow_hosts=["127.0.0.1"]'] if with_media else []),
        f"dedup.semantic.epsilon={EPSILON}",
        "dedup.semantic.k=6",
        "output.samples_per_shard=40",
        *overrides,
    ]
    spec, origin = load_recipe("semdedup", given, left_out)
    return run(prepare(spec, origin), str(output), RunOptions("inline"), Progress(io.StringIO(), quiet=True))


def test_one_copy_of_each_photo_stays(pool: Pool, tmp_path: Path) -> None:
    source = pool.write(tmp_path / "in", range(len(pool.urls)), 1)
    result = run_over(pool, source, tmp_path / "corpus", with_media=True)
    names, rows = pool.uids(), fates(tmp_path / "corpus")
    assert rows.keys() == names.keys()
    kept = sorted(names[uid].rpartition("-")[0] for uid, row in rows.items() if row["fate"] == "kept")
    photos = sorted({name.rpartition("-")[0] for name in pool.urls})
    assert len(photos) == 40
    assert kept == photos
    for uid, row in rows.items():
        if row["fate"] == "kept":
            continue
        assert (row["fate"], row["step"]) == ("rejected", "dedup.semantic")
        label, _, rest = row["reason"].partition(": of ")
        twin, _, measure = rest.partition(" (cosine ")
        assert label == "near-duplicate embedding"
        assert names[twin].rpartition("-")[0] == names[uid].rpartition("-")[0]
        assert 1 - EPSILON - 0.01 < float(measure.rstrip(")")) <= 1
    samples = pa.concat_tables(pq.read_table(path) for path in sorted((tmp_path / "corpus/shards").glob("*.parquet")))
    assert samples.schema.field("embedding").type == pa.list_(pa.float16())
    assert set(samples["dedup_size"].to_pylist()) == {3}
    assert result.manifest.counts.rejected == 2 * len(photos)


def test_the_corpus_is_the_same_in_any_order_and_files(pool: Pool, tmp_path: Path) -> None:
    found = []
    for seed, files in enumerate((1, 7, 64)):
        order = np.random.default_rng(seed).permutation(len(pool.urls)).tolist()
        run_over(pool, pool.write(tmp_path / f"in{seed}", order, files), tmp_path / f"corpus{seed}")
        found.append(outcome(tmp_path / f"corpus{seed}"))
    assert found[0] == found[1] == found[2]


def test_a_second_pool_against_the_corpus_of_the_first(pool: Pool, tmp_path: Path) -> None:
    firsts = [i for i, name in enumerate(pool.urls) if name.endswith("-a.jpg") and "-0-" in name]
    run_over(pool, pool.write(tmp_path / "first", firsts, 1), tmp_path / "old")
    others = [i for i, name in enumerate(pool.urls) if not name.endswith("-a.jpg")]
    source = pool.write(tmp_path / "second", others, 2)
    against = f'dedup.semantic.against=["{tmp_path / "old"}"]'
    run_over(pool, source, tmp_path / "new", against, "dedup.semantic.k=1")
    names, rows = pool.uids(), fates(tmp_path / "new")
    whole = {uid for uid in rows if "-0-" in names[uid]}
    assert len(whole) == 16
    assert all(" in semdedup (cosine " in rows[uid]["reason"] for uid in whole)
    assert sum(row["fate"] == "kept" for row in rows.values()) == 32


def test_rows_without_an_embedding_fail(pool: Pool, tmp_path: Path) -> None:
    more = Pool(pool.folder, {**pool.urls, "none.jpg": "http://127.0.0.1:9/none.jpg"})
    run_over(more, more.write(tmp_path / "in", [0, len(pool.urls)], 1), tmp_path / "corpus")
    told = {more.uids()[uid]: (row["fate"], row["error"]) for uid, row in fates(tmp_path / "corpus").items()}
    assert told == {next(iter(pool.urls)): ("kept", None), "none.jpg": ("failed", "missing embedding")}


def test_the_recipe_says_what_it_needs(tmp_path: Path) -> None:
    spec, origin = load_recipe("semdedup", [f"input.path={tmp_path}"])
    with pytest.raises(UserError, match=r"(?s)embeddings.*there is nothing.*name a folder"):
        prepare(spec, origin)
