"""A small HTTP server on loopback that misbehaves on demand: what it does is written in the path.

It speaks HTTP by hand, because servers of libraries refuse to lie. Everything is bounded (connections, requests on
each, seconds, bytes), and leaving the context manager ends all of it.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import struct
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Self
from urllib.parse import unquote

sys.path.insert(0, str(Path(__file__).parent))
from raw_answers import ENDLESS, RAW

MAX_CONNECTIONS = 256
MAX_REQUESTS_PER_CONNECTION = 1000
MAX_CONNECTION_S = 30.0
MAX_STREAM_BYTES = 64 * 2**20
TLS_HANDSHAKE = b"\x16"

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(range(256)) * 8
"""Looks like a JPEG as far as its first bytes go."""

Headers = Mapping[str, str]


@dataclass
class Exchange:
    """One request and the ways to answer it."""

    path: str
    headers: Headers
    writer: asyncio.StreamWriter
    times_seen: int
    is_open: bool = True
    argument: str = field(init=False)

    def __post_init__(self) -> None:
        self.argument = unquote(self.path.partition("?")[0].removeprefix("/").partition("/")[2])

    def head(self, status: int, headers: Headers) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in headers.items())]
        self.writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")

    def answer(self, status: int = 200, body: bytes = b"", headers: Headers | None = None) -> None:
        self.head(status, {"Content-Length": str(len(body)), **(headers or {})})
        self.writer.write(body)

    def hang_up(self, *, reset: bool = False) -> None:
        if reset:
            linger_0_s = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_0_s)
        self.is_open = False


async def good(to: Exchange) -> None:
    to.answer(body=JPEG + to.argument.encode())


async def status(to: Exchange) -> None:
    has_body = to.argument not in ("204", "304")
    to.answer(int(to.argument), b"an error page" if has_body else b"")


async def flaky(to: Exchange) -> None:
    """/flaky/TIMES/STATUS/RETRY_AFTER: that status so often, then a good answer."""
    times, code, retry_after = to.argument.split("/")
    if to.times_seen <= int(times):
        to.answer(int(code), headers={"Retry-After": retry_after} if retry_after else None)
    else:
        to.answer(body=JPEG)


async def slow(to: Exchange) -> None:
    """/slow/SECONDS/ANYTHING: silent so long, then a good answer."""
    await asyncio.sleep(float(to.argument.partition("/")[0]))
    to.answer(body=JPEG)


async def empty(to: Exchange) -> None:
    to.answer()


async def drip(to: Exchange) -> None:
    """/drip/SECONDS: a byte now and then."""
    to.head(200, {"Content-Length": "100000"})
    for _ in range(1000):
        to.writer.write(b"\xff")
        await to.writer.drain()
        await asyncio.sleep(float(to.argument))
    to.hang_up()


async def stall(to: Exchange) -> None:
    to.head(200, {"Content-Length": "100000"})
    to.writer.write(JPEG)
    await asyncio.sleep(MAX_CONNECTION_S)


async def truncated(to: Exchange) -> None:
    to.head(200, {"Content-Length": "100000"})
    to.writer.write(JPEG)
    to.hang_up()


async def compressed(to: Exchange) -> None:
    to.answer(body=gzip.compress(JPEG), headers={"Content-Encoding": "gzip"})


async def cut_compressed(to: Exchange) -> None:
    to.answer(body=gzip.compress(JPEG)[:-20], headers={"Content-Encoding": "gzip"})


@lru_cache
def bomb_body() -> bytes:
    return gzip.compress(bytes(MAX_STREAM_BYTES // 2), 1)


async def bomb(to: Exchange) -> None:
    to.answer(body=bomb_body(), headers={"Content-Encoding": "gzip"})


async def odd_encoding(to: Exchange) -> None:
    to.answer(body=JPEG, headers={"Content-Encoding": to.argument})


async def wrong_type(to: Exchange) -> None:
    to.answer(body=JPEG, headers={"Content-Type": "text/html"})


async def redirect(to: Exchange) -> None:
    """/redirect/LOCATION: percent-encoded."""
    to.answer(302, headers={"Location": to.argument})


async def loop(to: Exchange) -> None:
    to.answer(301, headers={"Location": f"/loop/{int(to.argument) + 1}"})


async def echo_path(to: Exchange) -> None:
    to.answer(body=to.path.encode())


async def echo_headers(to: Exchange) -> None:
    to.answer(body=repr(dict(to.headers)).encode(), headers={"Set-Cookie": "id=1"})


async def huge_declared(to: Exchange) -> None:
    to.head(200, {"Content-Length": str(MAX_STREAM_BYTES)})
    to.hang_up()


async def huge_chunked(to: Exchange) -> None:
    to.head(200, {"Transfer-Encoding": "chunked"})
    chunk = b"%x\r\n%s\r\n" % (65536, bytes(65536))
    for _ in range(MAX_STREAM_BYTES // 65536):
        to.writer.write(chunk)
        await to.writer.drain()
    to.writer.write(b"0\r\n\r\n")


async def robots(to: Exchange) -> None:
    to.answer(body=JPEG, headers={"X-Robots-Tag": to.argument})


async def etag(to: Exchange) -> None:
    to.answer(body=JPEG, headers={"ETag": to.argument})


async def reset(to: Exchange) -> None:
    to.hang_up(reset=True)


async def garbage(to: Exchange) -> None:
    to.writer.write(b"\x00\x01 not HTTP at all\r\n\r\n")
    to.hang_up()


async def raw(to: Exchange) -> None:
    """/raw/NAME: bytes that are no proper answer, then the end of the connection."""
    to.writer.write(RAW[to.argument])
    to.hang_up()


async def endless(to: Exchange) -> None:
    """/endless/NAME: so much of one thing that whoever reads all of it has lost."""
    first, again = ENDLESS[to.argument]
    to.writer.write(first)
    for _ in range(MAX_STREAM_BYTES // len(again)):
        to.writer.write(again)
        await to.writer.drain()
    to.hang_up()


async def slow_head(to: Exchange) -> None:
    """/slow_head/SECONDS: a byte of a header now and then."""
    to.writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(1000):
        to.writer.write(b"a")
        await to.writer.drain()
        await asyncio.sleep(float(to.argument))


async def reset_after(to: Exchange) -> None:
    """/reset_after/head or body: the connection is reset within the headers, or within the body."""
    to.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n")
    if to.argument == "body":
        to.writer.write(b"\r\n" + JPEG)
    await to.writer.drain()
    await asyncio.sleep(0.05)
    to.hang_up(reset=True)


async def good_then_gone(to: Exchange) -> None:
    """A good answer that promises to keep the connection, which ends with it."""
    to.answer(body=JPEG, headers={"Connection": "keep-alive", "Keep-Alive": "timeout=60"})
    to.hang_up()


async def text(to: Exchange) -> None:
    """/text/WORDS: as a robots.txt is served."""
    to.answer(body=to.argument.encode(), headers={"Content-Type": "text/plain"})


async def not_found(to: Exchange) -> None:
    to.answer(404)


_Behaviour = Callable[[Exchange], Awaitable[None]]
_BEHAVIOURS: dict[str, _Behaviour] = {
    behaviour.__name__: behaviour
    for behaviour in (
        *(good, empty, status, flaky, slow, drip, stall, truncated, compressed, cut_compressed, bomb, odd_encoding),
        *(
            wrong_type,
            redirect,
            loop,
            echo_path,
            echo_headers,
            huge_declared,
            huge_chunked,
            robots,
            etag,
            reset,
            garbage,
        ),
        *(raw, endless, slow_head, reset_after, good_then_gone, text),
    )
}


class HostileServer:
    """Context manager: serves from a thread of its own on 127.0.0.1 and counts connections and requests.

    Args:
        tls: serve TLS with this.
        pages: path → path that is served in its place (`/robots.txt` → `/status/404`).
    """

    def __init__(self, tls: ssl.SSLContext | None = None, pages: Mapping[str, str] | None = None) -> None:
        self._tls = tls
        self._pages = pages or {}
        self.connections = 0
        self.open_now = 0
        self.most_open = 0
        self.requests: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None] | None] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}/{path}"

    async def _start(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=65536, backlog=512, ssl=self._tls)

    async def _stop(self) -> None:
        self._server.close()
        tasks = [task for task in self._tasks if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        self.connections += 1
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            if self.open_now <= MAX_CONNECTIONS:
                async with asyncio.timeout(MAX_CONNECTION_S):
                    await self._converse(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # the client left, time is up, or the server stops
        finally:
            self.open_now -= 1
            self._tasks.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(MAX_REQUESTS_PER_CONNECTION):
            first = await reader.readexactly(1)
            if first == TLS_HANDSHAKE:
                writer.write(b"HTTP/1.1 400 Plain HTTP only\r\n\r\n")
                break
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            path = head[0].split(" ")[1]
            self.requests[path] += 1
            path = self._pages.get(path, path)
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            exchange = Exchange(path, headers, writer, self.requests[path])
            await _BEHAVIOURS.get(path.partition("?")[0].split("/")[1], not_found)(exchange)
            if not exchange.is_open:
                break
            await writer.drain()
