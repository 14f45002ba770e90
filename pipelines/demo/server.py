"""A small web on loopback that serves the demo's pictures, some of them badly, as the real web does.

The first part of a URL's path is the way in which the picture is served (`Way`); what a way does depends on the path
alone, so that every run meets the same answers. Every request is counted by its path, so that it can be shown that
nothing is downloaded twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import mimetypes
import socket
import threading
from collections import Counter
from enum import StrEnum
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq
from aiohttp import web

from corpusmith.pipelines.demo.choice import fraction
from corpusmith.pipelines.demo.render import write_atomically
from corpusmith.schemas.errors import UserError

HOST = "127.0.0.1"
DEFAULT_PORT = 8799
PICTURES_DIR = "pictures"
ROWS_FILE = "rows.parquet"
URLS_FILE = "urls.parquet"
STOP_TIMEOUT_S = 10.0


class Way(StrEnum):
    """How a picture is served."""

    PLAIN = "pictures"
    MIRROR = "mirror"
    """The same bytes under a second address."""
    MOVED = "moved"
    """A redirect to the plain address."""
    ELSEWHERE = "elsewhere"
    """A redirect to an address that a downloader must refuse: loopback under another name."""
    FLAKY = "flaky"
    """Status 500 at the first request, the picture from then on."""
    GONE = "gone"
    """Status 404."""
    SLOW = "slow"
    """Half of the body at once, the rest after `slow_s`."""
    TRUNCATED = "truncated"
    """The full Content-Length, half of the body, end of connection."""
    PAGE = "page"
    """An HTML page under the picture's name, half of the time with the picture's type."""
    OPTED_OUT = "opted-out"
    """The picture, with a header that forbids its use for training."""


class DemoServer:
    """Serves `folder` on 127.0.0.1 from a thread of this process, within a `with` block.

    Args:
        folder: what `pictures.prepare` made.
        port: 0 for any free port; None for 8799, or any free port if that is taken.
        slow_s: how long slow bodies wait in their middle, in seconds.

    Attributes:
        requests: number of requests for each path.
    """

    def __init__(self, folder: Path, port: int | None = None, *, slow_s: float = 1.5) -> None:
        self.folder = Path(folder)
        self.slow_s = slow_s
        self.requests: Counter[str] = Counter()
        self._wanted_port = port
        self._port: int | None = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        if self._port is None:
            raise RuntimeError("the demo server is not running: use it in a `with` block")
        return self._port

    @property
    def base_url(self) -> str:
        """Address of the server, without a slash at its end."""
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> DemoServer:
        listening = _listen(self._wanted_port)
        self._port = listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="demo-server", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(listening), self._loop).result(timeout=STOP_TIMEOUT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(timeout=STOP_TIMEOUT_S)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=STOP_TIMEOUT_S)
            self._loop.close()
            self._port = None

    def write_urls(self, base_url: str | None = None) -> Path:
        """Write `urls.parquet`, the list of the demo's rows: url, caption, source, license.

        A sample's uid comes from the URL as given, the port included: the demo makes the same corpus again as long
        as the server has the same port, which is 8799 wherever it is free.

        Args:
            base_url: address to put before the paths; this server's own if not given.

        Returns:
            Path of the file. Its bytes depend on the rows and `base_url` alone.
        """
        rows = pq.read_table(self.folder / ROWS_FILE)
        prefix = (base_url or self.base_url).rstrip("/") + "/"
        urls = pa.array([prefix + path for path in rows["path"].to_pylist()], pa.string())
        target = self.folder / URLS_FILE
        write_table(target, rows.drop_columns(["path"]).add_column(0, "url", urls))
        return target

    async def _start(self, listening: socket.socket) -> None:
        app = web.Application()
        app.router.add_get("/{way}/{key:.+}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, listening).start()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests[request.path] += 1
        way, key = request.match_info["way"], request.match_info["key"]
        if way == Way.PAGE:
            return _page(key)
        picture = self._find(key)
        if picture is None or way == Way.GONE or way not in set(Way):
            return web.Response(status=404, text="no such picture")
        if way == Way.MOVED:
            raise web.HTTPFound(f"/{Way.PLAIN}/{key}")
        if way == Way.ELSEWHERE:
            raise web.HTTPFound(f"http://[::1]:{self.port}/{Way.PLAIN}/{key}")
        if way == Way.FLAKY and self.requests[request.path] == 1:
            return web.Response(status=500, text="try again")
        return await self._send(request, Way(way), picture)

    def _find(self, key: str) -> Path | None:
        root = (self.folder / PICTURES_DIR).resolve()
        path = (root / key).resolve()
        return path if path.is_relative_to(root) and path.is_file() else None

    async def _send(self, request: web.Request, way: Way, picture: Path) -> web.StreamResponse:
        body = picture.read_bytes()
        response = web.StreamResponse(headers={"ETag": f'"{hashlib.sha256(body).hexdigest()[:16]}"'})
        response.content_type = mimetypes.guess_type(picture.name)[0] or "application/octet-stream"
        response.content_length = len(body)
        if way == Way.OPTED_OUT:
            response.headers["X-Robots-Tag"] = "noai, noimageai"
        half = len(body) // 2
        with contextlib.suppress(ConnectionResetError):  # the client may leave at any time
            await response.prepare(request)
            await response.write(body[:half])
            if way == Way.TRUNCATED:
                _hang_up(request)
                return response
            if way == Way.SLOW:
                await asyncio.sleep(self.slow_s)
            await response.write(body[half:])
            await response.write_eof()
        return response


def write_table(target: Path, table: pa.Table) -> None:
    """Write a Parquet file that readers see whole or not at all."""
    encoded = io.BytesIO()
    pq.write_table(table, encoded, compression="zstd")
    write_atomically(target, encoded.getvalue())


def _listen(port: int | None) -> socket.socket:
    if port is None:
        with contextlib.suppress(OSError):  # taken by somebody else: any other will do
            return socket.create_server((HOST, DEFAULT_PORT))
    try:
        return socket.create_server((HOST, port or 0))
    except OSError as error:
        raise UserError(f"cannot listen on {HOST}:{port}: {error.strerror}", hint="give another port") from error


def _page(key: str) -> web.Response:
    lying = fraction("page", key) < 0.5
    text = "<!doctype html><title>Not here</title><p>The picture is on another page."
    return web.Response(text=text, content_type="image/jpeg" if lying else "text/html")


def _hang_up(request: web.Request) -> None:
    """Close the connection after what has been written, without the rest that was promised."""
    if request.transport is not None:
        request.transport.close()
