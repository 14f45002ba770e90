"""Every packaged recipe makes a sound corpus from the misbehaving server; nothing is downloaded twice."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from corpora import fates, shard_bytes

from corpusmith.pipelines.bind import load_recipe, packaged_recipes
from corpusmith.pipelines.demo.pictures import prepare as prepare_pictures
from corpusmith.pipelines.demo.server import DemoServer
from corpusmith.pipelines.progress import Progress
from corpusmith.pipelines.run import RunOptions, RunResult, prepare, run
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.verify import verify


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    """The demo's server with a few of its pictures."""
    demo_input = prepare_pictures(tmp_path_factory.mktemp("demo"), limit=150)
    with DemoServer(demo_input.folder, port=0, slow_s=0.2) as running:
        yield running


def run_packaged(name: str, server: DemoServer, output: Path) -> RunResult:
    """Run a packaged recipe against the server."""
    overrides = [
        'download.allow_hosts=["127.0.0.1"]',
        f"input.path={server.write_urls()}",
        "output.samples_per_shard=40",
    ]
    spec, source = load_recipe(name, overrides)
    return run(prepare(spec, source), str(output), RunOptions("inline"), Progress(stream=io.StringIO(), quiet=True))


def test_the_recipes_are_those_of_the_readme() -> None:
    assert packaged_recipes() == ["datacomp-basic", "datacomp-none", "demo-images", "metaclip"]


@pytest.mark.parametrize("name", ["datacomp-basic", "datacomp-none", "demo-images", "metaclip"])
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
