"""A packaged recipe over a web where most servers misbehave and most pictures are mangled: the run does not mind.

Every kind of misbehaviour that the hostile server knows, a hundred mutated pictures, and good ones between them: each
row ends with a fate that a person understands, in bounded time, and all that was good is kept.
"""

from __future__ import annotations

import http.server
import io
import re
import sys
import threading
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage.data
from corpora import fates
from PIL import Image

from corpusmith.pipelines.progress import Progress
from corpusmith.pipelines.run import RunOptions, prepare, run
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.verify import verify
from corpusmith.schemas.recipe import parse_recipe

sys.path.insert(0, str(Path(__file__).parents[1] / "operators" / "fetch"))
from hostile_server import HostileServer  # pyright: ignore[reportMissingImports]
from raw_answers import ENDLESS, RAW  # pyright: ignore[reportMissingImports]

MISBEHAVIOUR = (
    *(f"raw/{name}" for name in RAW),
    *(f"endless/{name}" for name in ENDLESS),
    *("huge_declared", "huge_chunked", "bomb", "compressed", "cut_compressed", "odd_encoding/br", "wrong_type"),
    *("slow/20", "slow_head/0.02", "drip/0.02", "stall", "reset", "reset_after/head", "reset_after/body", "garbage"),
    *(f"status/{code}" for code in (204, 205, 206, 304, 401, 403, 404, 410, 418, 429, 451, 500, 503)),
    *("empty", "loop/0", "robots/noai", "robots/noindex", "flaky/1/503/", "flaky/9/429/3600", "good_then_gone"),
    "redirect/http%3A%2F%2F169.254.169.254%2Flatest%2Fmeta-data",
    "redirect/http%3A%2F%2F127.0.0.2%3A1%2F",
    *(f"redirect/{scheme}%3A%2F%2F127.0.0.1%2F" for scheme in ("gopher", "file", "ftp", "data")),
    "redirect/http%3A%2F%2F%5B%2F",
)
NO_SERVER = (
    "http://127.0.0.1:1/refused.jpg",
    "http://no-such-host.invalid/a.jpg",
    "http://10.0.0.1/private.jpg",
    "http://169.254.169.254/latest/meta-data",
    "http://[::1]/a.jpg",
    "http://0x7f.1/a.jpg",
    "file:///etc/passwd",
    "ftp://127.0.0.1/a.jpg",
    "javascript:alert(1)",
    "//no.scheme/a.jpg",
    "http://",
    "http://user:secret@",
    "http://a b/c d.jpg",
    "not a URL at all",
    "http://127.0.0.1:99999/a.jpg",
    "http://xn--\u00fc.example/\x00\n",
    "http://" + "a" * 300 + ".example/",
)
MUTATED, GOOD = 100, 24
UNREADABLE = re.compile(r"<class|Traceback|object at 0x|NoneType|\w+(Error|Exception)\(|\bb'|errno", re.IGNORECASE)
"""What speaks to programmers alone."""

WALL_S = 60.0


def encoded(number: int) -> bytes:
    """A small real picture, in one of four formats."""
    name, form = (("coffee", "JPEG"), ("rocket", "PNG"), ("chelsea", "WEBP"), ("astronaut", "GIF"))[number % 4]
    photo = Image.fromarray(getattr(skimage.data, name)())
    buffer = io.BytesIO()
    photo.crop((number, number, 160 + number, 120 + number)).save(buffer, form)
    return buffer.getvalue()


def mutated(number: int) -> bytes:
    """The same, cut, overwritten or with bytes put between, at random places."""
    rng = np.random.default_rng(number)
    data = bytearray(encoded(number))
    for _ in range(int(rng.integers(1, 9))):
        at = int(rng.integers(len(data)))
        if number % 3 == 0:
            del data[max(at, 1) :]
        elif number % 3 == 1:
            data[at] = int(rng.integers(256))
        else:
            data[at:at] = rng.bytes(int(rng.integers(1, 40)))
    return bytes(data)


@pytest.fixture(scope="module")
def pictures() -> Iterator[str]:
    """A well-behaved server of good and of mutated pictures; its URL."""
    bodies = {f"/good/{i}": encoded(i) for i in range(GOOD)} | {f"/mutated/{i}": mutated(i) for i in range(MUTATED)}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = bodies.get(self.path, b"")
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run_over(urls: list[str], folder: Path, executor: str) -> list[dict[str, Any]]:
    """Run `datacomp-none` over the URLs; returns the ledger's rows."""
    captions = [f"caption {i}" for i in range(len(urls))]
    pq.write_table(pa.table({"url": urls, "caption": captions, "number": range(len(urls))}), folder / "urls.parquet")
    text = (files("corpusmith.pipelines.recipes") / "datacomp-none.yaml").read_text()
    limits = {"timeout_s": 1.5, "idle_timeout_s": 0.8, "retries": 0, "max_bytes": 1 << 20}
    overrides = [f"download.{name}={value}" for name, value in limits.items()]
    overrides += ["download.allow_hosts=[127.0.0.1]", f"input.path={folder / 'urls.parquet'}"]
    prepared = prepare(parse_recipe(text, source="datacomp-none", overrides=overrides), "datacomp-none")
    progress = Progress(stream=io.StringIO(), quiet=True)
    result = run(prepared, str(folder / "corpus"), RunOptions(executor=executor, cpus=2), progress)
    counts = result.manifest.counts
    assert counts.rows_in == len(urls) == counts.kept + counts.rejected + counts.failed
    assert verify(Storage(str(folder / "corpus"))) == []
    ledger = list(fates(folder / "corpus").values())
    assert len(ledger) == len(urls)
    return ledger


def is_understood(error: str | None, reason: str | None) -> bool:
    """Whether an error says something to a person; `HTTPStatus 404` does by itself."""
    is_told = bool(error) and (bool(reason) or str(error).startswith("HTTPStatus "))
    is_short = len(error or "") <= 60 and len(reason or "") <= 1000
    return is_told and is_short and not UNREADABLE.search(f"{error} {reason}")


def check(folder: Path, pictures: str, executor: str) -> None:
    """Run, and look at every fate."""
    good = [f"{pictures}/good/{i}" for i in range(GOOD)]
    started_s = time.monotonic()
    with HostileServer() as hostile:
        bad = [hostile.url(path) for path in MISBEHAVIOUR] + [f"{pictures}/mutated/{i}" for i in range(MUTATED)]
        urls = [*good[: GOOD // 2], *bad, *NO_SERVER, *good[GOOD // 2 :]]
        rows = run_over(urls, folder, executor)
    assert time.monotonic() - started_s < WALL_S
    ended = [row for row in rows if row["fate"] != "kept"]
    assert {(row["fate"], row["step"]) for row in ended} <= {("failed", s) for s in ("input", "download", "image")}
    assert [row for row in ended if not is_understood(row["error"], row["reason"])] == []
    shards = pa.concat_tables([pq.read_table(p) for p in (folder / "corpus" / "shards").glob("*.parquet")])
    assert set(good) <= set(shards["url"].to_pylist())
    told = {row["error"] for row in rows if row["error"]}
    assert len(told) >= 10, "kinds are told apart"


def test_inline(tmp_path: Path, pictures: str) -> None:
    check(tmp_path, pictures, "inline")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_on_ray(tmp_path: Path, pictures: str) -> None:
    check(tmp_path, pictures, "ray")
