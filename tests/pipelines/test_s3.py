"""A corpus on S3: input, state and output lie on an S3-protocol server, and all is as on a disk of this machine.

The server is moto's, spoken to over HTTP; the picture web is the demo's. A run that is killed on S3 goes on there.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corpora import cli_command, fates, outcome, run_recipe, write_rows
from fakes import calls, forget_calls
from s3_server import fetch, s3_bucket, s3_environment
from s3fs import S3FileSystem

from corpusmith.pipelines.bind import load_recipe
from corpusmith.pipelines.demo.pictures import prepare as prepare_pictures
from corpusmith.pipelines.demo.server import DemoServer
from corpusmith.pipelines.explain import explain
from corpusmith.pipelines.progress import Progress
from corpusmith.pipelines.removal import remove
from corpusmith.pipelines.run import WORK_FOLDER, RunOptions, RunResult, last_run, prepare, run
from corpusmith.pipelines.status import corpus_status
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.upkeep import clean
from corpusmith.pipelines.verify import verify
from corpusmith.schemas.errors import UserError

pytestmark = pytest.mark.usefixtures("counted")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_bucket() as url:
        yield url


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    """The demo's server with a few of its pictures."""
    demo_input = prepare_pictures(tmp_path_factory.mktemp("demo"), limit=70)
    with DemoServer(demo_input.folder, port=0, slow_s=0.2) as running:
        yield running


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what is asked of S3, by method."""
    counts: Counter[str] = Counter()
    call = S3FileSystem._call_s3

    async def counted(self: S3FileSystem, method: str, *args: Any, **kwargs: Any) -> Any:
        counts[method] += 1
        return await call(self, method, *args, **kwargs)

    monkeypatch.setattr(S3FileSystem, "_call_s3", counted)
    return counts


def run_demo(web: DemoServer, table: str, output: str) -> RunResult:
    """Run the packaged recipe of the demo from the start."""
    web.requests.clear()
    spec, source = load_recipe("demo-images", [f"input.path={table}", "output.samples_per_shard=10"])
    return run(prepare(spec, source), output, RunOptions("inline"), Progress(stream=io.StringIO(), quiet=True))


def test_the_demo_on_s3(bucket: str, web: DemoServer, tmp_path: Path, requests: Counter[str]) -> None:
    """All of the packaged recipe, its upkeep included, as on a local disk."""
    table, url = web.write_urls(), f"{bucket}/demo/corpus"
    Storage(f"{bucket}/demo").publish("urls/urls.parquet", table.read_bytes())
    run_demo(web, str(table), str(tmp_path / "local"))
    requests.clear()
    result = run_demo(web, f"{bucket}/demo/urls/*.parquet", url)
    assert result.report == f"{url}/report/index.html"
    assert requests.total() < 500, "requests must not grow with the rows"
    expected = outcome(tmp_path / "local")
    assert len(expected[0]) >= 4
    assert outcome(fetch(url, tmp_path / "s3")) == expected

    corpus = Storage(url)
    assert verify(corpus) == []
    kept, failed = (next(r for r in fates(tmp_path / "s3").values() if r["fate"] == f) for f in ("kept", "failed"))
    (told,) = explain(corpus, kept["uid"])
    assert told.shard is not None
    assert [e.ledger["error"] for e in explain(corpus, failed["url"])] == [failed["error"]]
    assert f"{result.manifest.counts.kept:,}" in "\n".join(corpus_status(corpus))

    run_demo(web, f"{bucket}/demo/urls/*.parquet", url)
    assert not web.requests, "nothing is downloaded twice"
    assert outcome(fetch(url, tmp_path / "again")) == expected

    assert remove(corpus, [kept["uid"]]).samples == 1
    assert verify(corpus) == []
    assert explain(corpus, kept["uid"])[0].ledger["fate"] == "rejected"
    prepared, _ = last_run(corpus)
    assert clean(corpus, prepared.plan, staging=True).size_bytes > 0
    assert [e.path for e in corpus.list(f"{WORK_FOLDER}/media")] == []


ROWS = 200
FAKES = """
corpus: killed
input: {{path: '{bucket}/killed/input/*.parquet'}}
steps:
- fake_score: {{sleep_s: 0.002}}
- keep: score >= 100
- fake_fetch: {{sleep_s: 0.005}}
- fake_shrink
- fake_rank
- fake_top: {{keep: 0.7}}
- fake_crops
output: {{samples_per_shard: 50}}
"""


def start_run(recipe: Path, output: str) -> subprocess.Popen[bytes]:
    """A run in a process group of its own."""
    command = cli_command("run", str(recipe), "--output", output, "--executor", "inline", "--cpus", "2")
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def await_results(run: subprocess.Popen[bytes], work: Storage, beyond: int) -> int:
    """Wait until more than so many result files are published; returns their number."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if run.poll() is not None:
            pytest.fail((run.communicate()[0] or b"").decode()[-2000:])
        if (published := len(work.list("results"))) > beyond:
            return published
        time.sleep(0.02)
    pytest.fail("nothing was published")


def test_a_run_on_s3_is_killed_and_goes_on(bucket: str, tmp_path: Path) -> None:
    """And while it runs, its lock keeps others away."""
    input_folder, url = Storage(f"{bucket}/killed/input"), f"{bucket}/killed/corpus"
    work = Storage(f"{url}/{WORK_FOLDER}")
    kinds = {i: "fail" if i % 10 == 3 else "ok" for i in range(ROWS)}
    write_rows(tmp_path / "rows.parquet", range(ROWS), url=lambda i: f"http://web/{kinds[i]}/{i}")
    input_folder.publish("0.parquet", (tmp_path / "rows.parquet").read_bytes())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(FAKES.format(bucket=bucket))

    running = start_run(recipe, url)
    published = await_results(running, work, 2)
    with pytest.raises(UserError, match=f"another run is at work on this corpus: process {running.pid} "):
        run_recipe(recipe.read_text(), url)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    running = start_run(recipe, url)
    await_results(running, work, published)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not Storage(url).exists("manifest.json")

    tables = [work.read_table(e.path, ["uid"]) for e in work.list("results") if "fake_fetch" in e.path]
    done = {uid for table in tables for uid in table.column("uid").to_pylist()}
    forget_calls()
    run_recipe(recipe.read_text(), url)
    assert done
    assert not done & set(calls("fake_fetch")), "what was published is used"
    run_recipe(recipe.read_text(), tmp_path / "fresh")
    assert outcome(fetch(url, tmp_path / "s3")) == outcome(tmp_path / "fresh")
    assert verify(Storage(url)) == []
    assert not work.exists("lock.json")


def test_rows_appended_on_s3_are_seen_by_the_same_process(bucket: str, tmp_path: Path) -> None:
    recipe = f"corpus: more\ninput: {{path: '{bucket}/more/*.parquet'}}\nsteps: [fake_score]\n"
    for number, rows in enumerate((range(20), range(20, 50))):
        write_rows(tmp_path / "rows.parquet", rows)
        Storage(f"{bucket}/more").publish(f"{number}.parquet", (tmp_path / "rows.parquet").read_bytes())
        forget_calls()
        result = run_recipe(recipe, f"{bucket}/more-corpus")
        assert result.manifest.counts.rows_in == rows[-1] + 1
        assert len(calls("fake_score")) == len(rows)


ON_RAY = """
import json, sys
import ray
tests, address, recipe, output, environment = sys.argv[1:]
sys.path.insert(0, tests)
ray.init(address, runtime_env={"env_vars": json.loads(environment)}, log_to_driver=False, logging_level="ERROR")
import fakes
from corpora import run_recipe
run_recipe(recipe, output, executor="ray")
"""


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_ray_workers_work_on_s3(bucket: str, tmp_path: Path) -> None:
    import ray

    write_rows(tmp_path / "rows.parquet", range(120))
    recipe = f"corpus: c\ninput: {{path: '{tmp_path}/rows.parquet'}}\nsteps: [fake_score, fake_fetch, fake_shrink]\n"
    address = ray.get_runtime_context().gcs_address
    tests = str(Path(__file__).parent.parent)
    command = [sys.executable, "-c", ON_RAY, tests, address, recipe, f"{bucket}/ray", json.dumps(s3_environment())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stderr[-3000:]
    run_recipe(recipe, tmp_path / "fresh")
    assert outcome(fetch(f"{bucket}/ray", tmp_path / "s3")) == outcome(tmp_path / "fresh")
