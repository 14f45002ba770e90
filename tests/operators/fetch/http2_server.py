"""A small HTTP/2 server (RFC 9113) for tests: answers each stream with 200 and the same body, and counts.

Written out because no installed package has one. It reads no request headers, so that it needs no header compression:
each answer is the indexed field `:status: 200` and a literal content-length.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BODY = b"\xff\xd8\xff over HTTP/2"

_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _answer(stream: int) -> bytes:
    length = b"%d" % len(BODY)
    head = b"\x88" + b"\x00\x0econtent-length" + bytes([len(length)]) + length
    return _frame(_HEADERS, _END_HEADERS, stream, head) + _frame(_DATA, _END_STREAM, stream, BODY)


class Http2Server:
    """Context manager: serves HTTP/2 over TLS on 127.0.0.1 from a thread of its own.

    Args:
        tls: the certificate; ALPN is set here.
        delay_s: before each answer.
    """

    def __init__(self, tls: ssl.SSLContext, delay_s: float = 0.0) -> None:
        tls.set_alpn_protocols(["h2"])
        self._tls = tls
        self._delay_s = delay_s
        self.connections = 0
        self.streams = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            assert await reader.readexactly(len(PREFACE)) == PREFACE
            writer.write(_frame(_SETTINGS, 0, 0))
            while True:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:9], "big")
                if kind == _SETTINGS and not flags & _ACK:
                    writer.write(_frame(_SETTINGS, _ACK, 0))
                elif kind == _PING and not flags & _ACK:
                    writer.write(_frame(_PING, _ACK, 0, payload))
                elif kind == _HEADERS:
                    self.streams += 1
                    self._loop.call_later(self._delay_s, writer.write, _answer(stream))
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
