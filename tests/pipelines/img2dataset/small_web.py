"""A small web with pictures in it, and what the command has written."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq


def picture(width: int, height: int, format: str = "JPEG", **options: Any) -> bytes:
    """A picture of noise that JPEG can bear."""
    pixels = np.random.default_rng(width * height).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    data = io.BytesIO()
    PIL.Image.fromarray(pixels).resize((width, height)).save(data, format, **options)
    return data.getvalue()


class Web:
    """Answers by path; counts requests; `gate` holds back answers to paths that begin with /held."""

    def __init__(self) -> None:
        self.bodies = {
            "/wide": picture(600, 400),
            "/tall": picture(300, 700),
            "/small": picture(100, 80),
            "/png": picture(400, 300, "PNG"),
            "/long": picture(1200, 100),
            "/bad": b"not an image",
            "/cut": picture(600, 400)[:3000],
        }
        self.headers: dict[str, dict[str, str]] = {"/noai": {"X-Robots-Tag": "noai"}}
        self.bodies["/noai"] = self.bodies["/wide"]
        self.asked: list[str] = []
        self.agents: list[str] = []
        self.gate = threading.Event()
        self.arrived = threading.Event()
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0]
        self.asked.append(request.path)
        self.agents.append(request.headers.get("User-Agent", ""))
        if path.startswith("/held"):
            self.arrived.set()
            self.gate.wait(90)
            path = "/small"
        body = self.bodies.get(path)
        request.send_response(404 if body is None else 200)
        for name, value in self.headers.get(path, {}).items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body or b"")))
        with suppress(ConnectionError):  # the client gave up, or was killed
            request.end_headers()
            request.wfile.write(body or b"")

    def url(self, path: str) -> str:
        """The URL of a path."""
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def __enter__(self) -> Web:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()


def write_input(path: Path, columns: dict[str, list[Any]]) -> Path:
    """A Parquet of URLs."""
    pq.write_table(pa.table(columns), path)
    return path


def records(output: Path, stem: str = "00000") -> list[dict[str, Any]]:
    """The rows of a shard's Parquet."""
    return pq.read_table(output / f"{stem}.parquet").to_pylist()


def members(path: Path) -> dict[str, bytes]:
    """Name → bytes of a tar, in order."""
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # pyright: ignore


def stats(output: Path, stem: str = "00000") -> dict[str, Any]:
    """A shard's statistics."""
    return json.loads((output / f"{stem}_stats.json").read_text())
