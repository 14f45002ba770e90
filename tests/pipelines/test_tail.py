"""Slow rows hold up nobody but themselves: not the units beside theirs, not what is ready to be published."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
from corpora import fates, run_recipe, write_rows

from corpusmith.operators.contract import AnnotateRows
from corpusmith.operators.registry import register
from corpusmith.pipelines.storage import Storage
from corpusmith.schemas.columns import Column

TIMEOUT_S = 2.0
released = threading.Event()


class Stalling(BaseHTTPRequestHandler):
    """Answers at once, but for one address that it never answers."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    ending = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/stalled":
            self.ending.wait(60)
            return
        body = b"GIF89a" + b"\0" * 60
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@contextmanager
def stalling_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stalling)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        Stalling.ending.set()
        server.shutdown()
        server.server_close()


@register
class FakeHolds(AnnotateRows, name="fake_holds", version=1):
    """Waits for a test to let it go on."""

    isolated = False

    @property
    def requires(self) -> tuple[str, ...]:
        return ("caption",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("held", pa.bool_(), "true"),)

    def process_row(self, row: dict[str, Any]) -> dict[str, Any]:
        released.wait(60)
        return {"held": True}


def run_stalled(folder: Path, url: str, *, stalled: int | None) -> float:
    """Run 600 downloads, one of which may stall; returns the seconds that it takes."""
    folder.mkdir()
    write_rows(folder / "rows.parquet", range(600), url=lambda i: f"{url}/{'stalled' if i == stalled else f'{i}.gif'}")
    options = f"{{allow_hosts: ['127.0.0.1'], retries: 0, timeout_s: {TIMEOUT_S}}}"
    recipe = f"corpus: tail\ninput: {{path: '{folder}/rows.parquet'}}\nsteps: [download: {options}]\n"
    started = time.monotonic()
    run_recipe(recipe, folder / "corpus")
    return time.monotonic() - started


def test_one_stalled_address_costs_its_own_timeout_and_no_more(tmp_path: Path) -> None:
    with stalling_server() as url:
        without_s = run_stalled(tmp_path / "without", url, stalled=None)
        with_s = run_stalled(tmp_path / "with", url, stalled=599)
    (failed,) = [row for row in fates(tmp_path / "with/corpus").values() if row["fate"] == "failed"]
    assert failed["error"] == "Timeout"
    assert with_s < without_s + TIMEOUT_S + 1.5, "the others were held up"


def test_what_is_ready_is_published_while_a_later_step_is_busy(tmp_path: Path, counted: Path) -> None:
    """One step has results, the next holds the unit's thread: a kill must not cost the first step's work."""
    del counted
    released.clear()
    write_rows(tmp_path / "rows.parquet", range(40))
    recipe = f"corpus: held\ninput: {{path: '{tmp_path}/rows.parquet'}}\nsteps: [fake_score, fake_holds]\n"
    running = threading.Thread(target=run_recipe, args=(recipe, tmp_path / "corpus"), daemon=True)
    running.start()
    work = Storage(str(tmp_path / "corpus/.work"))
    deadline = time.monotonic() + 20
    published = 0
    while published < 40 and time.monotonic() < deadline:
        time.sleep(0.1)
        paths = [e.path for e in work.list("results") if "fake_score" in e.path]
        published = sum(work.read_table(path, ["uid"]).num_rows for path in paths)
    released.set()
    running.join(timeout=30)
    assert published == 40
    assert not running.is_alive() and (tmp_path / "corpus/manifest.json").exists()
    assert {row["fate"] for row in fates(tmp_path / "corpus").values()} == {"kept"}
