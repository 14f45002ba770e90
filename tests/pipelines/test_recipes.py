"""Every packaged recipe makes a sound corpus from the misbehaving server; nothing is downloaded twice.

The rules of the published recipes are told apart on pools made for them: a row for each rule, one beside each bound.
"""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import fates, shard_bytes

from corpusmith.pipelines.bind import load_recipe, packaged_recipes
from corpusmith.pipelines.demo.pictures import prepare as prepare_pictures
from corpusmith.pipelines.demo.server import DemoServer
from corpusmith.pipelines.describe import plan_lines
from corpusmith.pipelines.progress import Progress
from corpusmith.pipelines.run import RunOptions, RunResult, prepare, run
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.verify import verify
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.identity import uids_of_urls


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    """The demo's server with a few of its pictures."""
    demo_input = prepare_pictures(tmp_path_factory.mktemp("demo"), limit=150)
    with DemoServer(demo_input.folder, port=0, slow_s=0.2) as running:
        yield running


PACKAGED = ["coyo", "datacomp-basic", "datacomp-none", "demo-images", "laion", "metaclip"]
TESTED_ELSEWHERE = ["datacomp-image", "datacomp-image-clip", "datacomp-text", "hashtags", "metaclip2", "semdedup"]
"""Recipes that want columns or files of their user's: test_datacomp_recipes.py, test_semdedup.py and others."""
MODEL_STEPS = {"laion": ["clip_score", "keep#4", "nsfw"], "coyo": ["nsfw", "keep#6"]}
"""Steps that need a model, and those that decide by it, as the recipes' comments tell to leave them out."""


def run_packaged(name: str, server: DemoServer, output: Path) -> RunResult:
    """Run a packaged recipe against the server."""
    overrides = [
        'download.allow_hosts=["127.0.0.1"]',
        f"input.path={server.write_urls()}",
        "output.samples_per_shard=40",
    ]
    spec, source = load_recipe(name, overrides, MODEL_STEPS.get(name, []))
    return run(prepare(spec, source), str(output), RunOptions("inline"), Progress(stream=io.StringIO(), quiet=True))


def test_the_recipes_are_those_of_the_readme() -> None:
    assert packaged_recipes() == sorted([*PACKAGED, *TESTED_ELSEWHERE])


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_recipe(name: str, server: DemoServer, tmp_path: Path) -> None:
    server.requests.clear()
    result = run_packaged(name, server, tmp_path / "corpus")
    counts = result.manifest.counts
    assert counts.rows_in == pq.read_metadata(server.write_urls()).num_rows - counts.duplicates
    assert counts.kept + counts.rejected + counts.failed == counts.rows_in
    assert counts.kept > 20
    assert verify(Storage(str(tmp_path / "corpus"))) == []
    page = Path(result.report).read_text()
    assert f"{counts.kept:,} of {counts.rows_in:,} rows kept" in page
    served = Counter({path: n for path, n in server.requests.items() if path.startswith("/pictures/")})
    assert served
    assert max(served.values()) == 1

    server.requests.clear()
    before = shard_bytes(tmp_path / "corpus")
    run_packaged(name, server, tmp_path / "corpus")
    assert not server.requests
    assert shard_bytes(tmp_path / "corpus") == before


def test_the_identity_keeps_what_is_an_image(server: DemoServer, tmp_path: Path) -> None:
    run_packaged("datacomp-none", server, tmp_path / "corpus")
    rows = fates(tmp_path / "corpus").values()
    assert {row["step"] for row in rows if row["fate"] != "kept"} <= {"download", "image"}
    assert not [row for row in rows if row["fate"] == "rejected"]


def photo(name: str, width: int, height: int, grain: int) -> bytes:
    """A JPEG of colours that flow into each other, as its name says which; `grain` makes its file larger."""
    drawn = np.random.default_rng(list(name.encode()))
    colours = drawn.integers(0, 256, (6, 6, 3)).astype(np.uint8)
    picture = cv2.resize(colours, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    picture += drawn.integers(-grain, grain + 1, picture.shape).astype(np.int16)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95 if grain else 30]
    return cv2.imencode(".jpg", picture.clip(0, 255).astype(np.uint8), quality)[1].tobytes()


class Photos(BaseHTTPRequestHandler):
    """`/NAME-WIDTHxHEIGHT-GRAIN.jpg` is that photo; a query changes nothing; all else is not found."""

    def do_GET(self) -> None:
        name, _, form = self.path.partition("?")[0].strip("/").removesuffix(".jpg").partition("-")
        if name == "gone":
            self.send_error(404)
            return
        size, _, grain = form.partition("-")
        width, height = size.split("x")
        body = photo(name, int(width), int(height), int(grain))
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def photos() -> Iterator[str]:
    """Address of a server of photos."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Photos)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


ENGLISH = "a brown dog is running through the green garden of our house in summer"
GERMAN = "ein brauner Hund rennt im Sommer durch den grünen Garten hinter unserem Haus"
WIDE, NARROW, GONE = "960x320-9", "961x320-9", "gone-400x300-9"

Fates = list[tuple[str, str, str]]
"""Path of a picture, text, and what becomes of them: `kept`, or the step and the label of the reason."""

COYO: Fates = [
    ("a-400x300-9", ENGLISH, "kept or dedup.exact duplicate phash, caption"),
    ("a-400x300-9?again", ENGLISH, "kept or dedup.exact duplicate phash, caption"),
    ("a-400x300-9?other", f"{ENGLISH} again", "kept"),
    ("b-400x300-9", "brown dog", "keep word_count BETWEEN 3 AND 256"),
    ("c-400x300-9", "the brown dog", "kept"),
    ("d-400x300-9", "dog " * 256, "keep char_count BETWEEN 6 AND 1000"),
    ("e-400x300-9", "a " * 257, "keep word_count BETWEEN 3 AND 256"),
    ("f-400x300-9", "a b c", "keep char_count BETWEEN 6 AND 1000"),
    *((f"g{i}-400x300-9", f"{ENGLISH} and it is on ten", "kept") for i in range(10)),
    *((f"h{i}-400x300-9", f"{ENGLISH}  and it is on eleven ", "keep#2 text_count <= 10") for i in range(11)),
    ("i-400x300-9", GERMAN, "keep#3 language = 'en'"),
    ("j-300x300-0", f"{ENGLISH} j", "keep#4 size_bytes >= 5000"),
    ("k-199x400-9", f"{ENGLISH} k", "keep#5 LEAST(original_width, original_height) >= 200"),
    ("l-200x400-9", f"{ENGLISH} l", "kept"),
    (f"m-{WIDE}", f"{ENGLISH} m", "kept"),
    (f"n-{NARROW}", f"{ENGLISH} n", "keep#5 GREATEST(original_width, original_height)"),
    (GONE, f"{ENGLISH} o", "download HTTPStatus 404"),
]
LAION: Fates = [
    ("a-400x300-9", f"{ENGLISH} &amp; more", "kept or dedup.exact duplicate url, caption"),
    ("a-400x300-9", f"{ENGLISH} &  more", "kept or dedup.exact duplicate url, caption"),
    ("a-400x300-9", ENGLISH, "kept"),
    ("b-400x300-9", ENGLISH, "kept"),
    ("c-400x300-9", "dogs", "keep char_count >= 5"),
    ("d-400x300-9", GERMAN, "keep#2 language = 'en'"),
    ("e-300x300-0", ENGLISH, "keep#3 size_bytes >= 5000"),
    ("f-100x100-60", ENGLISH, "kept"),
    (GONE, ENGLISH, "download HTTPStatus 404"),
]
DATACOMP: Fates = [
    ("a-400x300-9", ENGLISH, "kept"),
    ("b-400x300-9", "brown dog", "keep word_count > 2"),
    ("c-400x300-9", "a b c", "keep char_count > 5"),
    ("d-400x300-9", GERMAN, "keep#2 language = 'en'"),
    ("e-300x300-0", f"{ENGLISH} e", "kept"),
    ("f-199x400-9", f"{ENGLISH} f", "keep#3 LEAST(original_width, original_height) >= 200"),
    (f"g-{WIDE}", f"{ENGLISH} g", "kept"),
    (f"h-{NARROW}", f"{ENGLISH} h", "keep#4 GREATEST(original_width, original_height)"),
]


@pytest.mark.parametrize(
    ("name", "columns", "pool", "duplicates"),
    [
        ("coyo", ("url", "text"), COYO, 1),
        ("laion", ("URL", "TEXT"), LAION, 1),
        ("datacomp-basic", ("url", "text"), DATACOMP, 0),
    ],
)
def test_the_rules_of_a_published_recipe(
    name: str, columns: tuple[str, str], pool: Fates, duplicates: int, photos: str, tmp_path: Path
) -> None:
    urls = [f"{photos}/{path}" for path, _, _ in pool]
    pq.write_table(pa.table([urls, [text for _, text, _ in pool]], names=list(columns)), tmp_path / "pool.parquet")
    overrides = ['download.allow_hosts=["127.0.0.1"]', f"input.path={tmp_path / 'pool.parquet'}"]
    spec, source = load_recipe(name, overrides, MODEL_STEPS.get(name, []))
    run(prepare(spec, source), str(tmp_path / "corpus"), RunOptions("inline"), Progress(io.StringIO(), quiet=True))
    rows = fates(tmp_path / "corpus")
    uids = uids_of_urls(urls, [text for _, text, _ in pool])
    assert rows.keys() == set(uids)
    told = {}
    for uid, (path, text, _) in zip(uids, pool, strict=True):
        row = rows[uid]
        told[path, text] = row["fate"] if row["fate"] == "kept" else f"{row['step']} {row['error'] or row['reason']}"
    for path, text, fate in pool:
        choices = fate.split(" or ")
        found = told[path, text]
        assert any(found == c or (c != "kept" and found.startswith(c)) for c in choices), (path, text, found)
    assert sum("duplicate" in fate for fate in told.values()) == duplicates


def test_a_recipe_says_at_its_plan_which_models_are_missing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["http://a.example/b.jpg"], "text": ["a dog"]}), tmp_path / "pool.parquet")
    for name in MODEL_STEPS:
        prepared = prepare(*load_recipe(name, [f"input.path={tmp_path / 'pool.parquet'}"]))
        assert set(prepared.missing) <= {"clip_score", "nsfw"}
        if not prepared.missing:
            continue
        shown = "\n".join(plan_lines(prepared, "corpus"))
        assert all(lack in shown for lack in prepared.missing.values())
        with pytest.raises(UserError, match=next(iter(prepared.missing))):
            run(prepared, str(tmp_path / "corpus"), RunOptions("inline"), Progress(io.StringIO(), quiet=True))
        assert not (tmp_path / "corpus" / "manifest.json").exists()
