"""Killed in the middle of a download, a run goes on without asking again for what it has."""

from __future__ import annotations

import contextlib
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from corpora import shard_bytes, write_rows

from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.verify import verify

ROWS = 200
ANSWER_S = 0.04


class SlowWeb(http.server.ThreadingHTTPServer):
    """Answers every path with a picture of its own, after a while; counts requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: Counter[str] = Counter()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, SlowWeb)
        self.server.requests[self.path] += 1
        time.sleep(ANSWER_S)
        noise = np.random.default_rng(int(self.path.rsplit("/", 1)[-1])).integers(0, 255, (64, 64, 3), np.uint8)
        body = cv2.imencode(".jpg", noise)[1].tobytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def web() -> Iterator[SlowWeb]:
    server = SlowWeb()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def command(folder: Path, output: str) -> list[str]:
    """A run of the identity recipe, two requests at a time."""
    settings = ["download.allow_hosts=[127.0.0.1]", "download.concurrency=2", "output.samples_per_shard=90"]
    return [
        *(sys.executable, "-m", "corpusmith.pipelines.cli", "run", "datacomp-none", "--executor", "inline"),
        *("--input", str(folder / "urls.parquet"), "--output", str(folder / output)),
        *(word for setting in settings for word in ("--set", setting)),
    ]


def finished_urls(corpus: Path) -> set[str]:
    """Addresses whose download is published, told by the source rows."""
    source: dict[str, str] = {}
    work = Storage(str(corpus / ".work"))
    for entry in work.list("source"):
        if entry.path.endswith(".parquet"):
            table = work.read_table(entry.path, ["uid", "url"])
            source |= dict(zip(table["uid"].to_pylist(), table["url"].to_pylist(), strict=True))
    done: set[str] = set()
    for entry in work.list("results"):
        if "/download-" in entry.path:
            done |= set(work.read_table(entry.path, ["uid"])["uid"].to_pylist())
    return {source[uid] for uid in done}


def test_finished_downloads_are_not_repeated(tmp_path: Path, web: SlowWeb) -> None:
    base = f"http://127.0.0.1:{web.server_port}"
    write_rows(tmp_path / "urls.parquet", range(ROWS), url=lambda i: f"{base}/{i}")
    process = subprocess.Popen(command(tmp_path, "a"), start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not finished_urls(tmp_path / "a") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = finished_urls(tmp_path / "a")
    assert 0 < len(done) < ROWS
    assert not (tmp_path / "a" / "manifest.json").exists()

    web.requests.clear()
    subprocess.run(command(tmp_path, "a"), check=True, capture_output=True)
    again = {f"{base}{path}" for path in web.requests}
    assert not again & done
    assert len(again) == ROWS - len(done)
    assert max(web.requests.values()) == 1

    subprocess.run(command(tmp_path, "fresh"), check=True, capture_output=True)
    assert shard_bytes(tmp_path / "a") == shard_bytes(tmp_path / "fresh")
    assert verify(Storage(str(tmp_path / "a"))) == []
