"""One request by libcurl: what libcurl may do, where it may connect to, and how much it may take.

libcurl keeps connections, speaks HTTP/1.1, and HTTP/2 over TLS where the server offers it. What it might decide by
itself is taken from it: it follows no redirects, reads no proxies, cookies or netrc files, undoes no encodings, and
connects to no address that `Allowed` refuses, which is asked for each socket with the very address that the socket is
opened for. A connection is used again for the same host name only, and the address of whoever answered is judged once
more with the answer.

No request waits for the connection of another to show whether it is HTTP/2 (PIPEWAIT): with HTTP/1.1 it would wait for
the other's answer. The path is given apart from the URL, whose escapes libcurl would spell anew.

Time-outs are our own, because libcurl knows silence only in whole seconds, and would count the pauses that a byte
budget makes.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

import pycurl

from corpusmith.operators.fetch.config import DownloadConfig
from corpusmith.operators.fetch.failures import Ending, failure_of
from corpusmith.operators.fetch.promises import Promise
from corpusmith.operators.fetch.responses import Head, Reply
from corpusmith.operators.fetch.targets import Target
from corpusmith.operators.fetch.throttle import Throttle
from corpusmith.operators.fetch.transient import TransientFailure
from corpusmith.schemas.fates import RowFailed

MAX_HEADER_BYTES = 65536
"""Of all header blocks of one answer, the interim ones (1xx) included."""

PARK_AFTER_S = 0.25
"""Silence after which a request no longer keeps others from beginning."""

_DRAINED_BYTES = 16384
"""A body this small that nobody wants is read all the same: the connection can then be used again."""

_BUFFER_BYTES = 131072
_IDLE_CONNECTION_S = 30

Judge = Callable[[str, str], str | None]
"""Allowed.refusal_of."""


@dataclass(frozen=True, slots=True)
class Request:
    """One GET.

    Args:
        target: what is asked for.
        addresses: of the host, as its resolver gave them; none for a literal address.
        timeout_s: for all of it.
        max_bytes: of the body.
        park: called once the server has been silent for a while.
        is_cut: a longer body is cut there, instead of failing.
        check: raises RowFailed for a head whose body is not wanted.
    """

    target: Target
    addresses: tuple[str, ...]
    timeout_s: float
    max_bytes: int
    check: Callable[[Head], None]
    park: Callable[[], None]
    is_cut: bool = False


class Transfer:
    """One easy handle, and the request that it works on."""

    def __init__(self, config: DownloadConfig, judge: Judge, throttle: Throttle | None) -> None:
        self._config = config
        self._refusal_of = judge
        self._throttle = throttle
        self.handle = pycurl.Curl()
        _set_up(self.handle, config.user_agent)
        self.handle.setopt(pycurl.HEADERFUNCTION, self._on_header)
        self.handle.setopt(pycurl.WRITEFUNCTION, self._on_body)
        self.handle.setopt(pycurl.OPENSOCKETFUNCTION, self._on_socket)
        self._has_addresses = False

    def begin(self, request: Request, promise: Promise[Reply]) -> None:
        """Take on a request."""
        self.request = request
        self.promise = promise
        self.head: Head | None = None
        self.failure: RowFailed | None = None
        self.is_cut = False
        self.is_paused = False
        self._lines: list[bytes] = []
        self._header_bytes = 0
        self._chunks: list[bytes] = []
        self._size_bytes = 0
        self._refusals: list[str] = []
        self._sockets = 0
        self._started_s = self._heard_s = time.monotonic()
        self._deadline_s = self._started_s + request.timeout_s
        self.check_s = self._started_s + min(
            request.timeout_s, self._config.connect_timeout_s, self._config.idle_timeout_s, PARK_AFTER_S
        )
        self.handle.setopt(pycurl.URL, request.target.site.prefix + "/")
        self.handle.setopt(pycurl.REQUEST_TARGET, request.target.path)
        if request.addresses or self._has_addresses:
            self.handle.setopt(pycurl.RESOLVE, _resolved(request))
            self._has_addresses = bool(request.addresses)

    def watch(self, now: float) -> bool:
        """Whether time is up; `failure` then says which. Sets when to look again."""
        if self.is_paused:
            return False
        pretransfer_s = self.handle.getinfo(pycurl.PRETRANSFER_TIME)
        if not pretransfer_s:
            limit_s, since_s = self._config.connect_timeout_s, self._started_s
            told = f"no connection within {limit_s:g} s"
        else:
            limit_s, since_s = self._config.idle_timeout_s, max(self._heard_s, self._started_s + pretransfer_s)
            told = f"the server was silent for {limit_s:g} s"
        self.check_s = min(self._deadline_s, since_s + limit_s)
        if now - since_s >= PARK_AFTER_S:
            self.request.park()
        else:
            self.check_s = min(self.check_s, since_s + PARK_AFTER_S)
        if self.check_s > now:
            return False
        if self._deadline_s <= now:
            told = f"not finished within {self._config.timeout_s:g} s"
        self.failure = self.failure or TransientFailure("Timeout", told)
        return True

    def resume(self, paused_s: float) -> None:
        """Go on after a pause of our own, which is not the server's: it takes nothing of the time that there is."""
        self.is_paused = False
        self._heard_s = time.monotonic()
        self._deadline_s += paused_s
        self.handle.pause(pycurl.PAUSE_CONT)

    def end(self, code: int, message: str) -> None:
        """Settle the request: `code` and `message` are libcurl's error, 0 for none."""
        self.is_paused = False
        chunks, self._chunks = self._chunks, []
        if self.failure is None and self.head is not None and (code == 0 or self.is_cut):
            peer = self.handle.getinfo(pycurl.PRIMARY_IP)
            refusal = self._refusal_of(self.request.target.site.host, peer) if peer else None
            if refusal is None:
                self.promise.fulfil(Reply(self.head, b"".join(chunks)))
                return
            self.failure = RowFailed("address refused", f"{self.request.target.site.host}: {peer} is {refusal}")
        self.promise.fail(self.failure or self._failure(code, message))

    def _failure(self, code: int, message: str) -> RowFailed:
        if code == 0:
            return TransientFailure("truncated body", "the connection ended within the headers")
        errno = self.handle.getinfo(pycurl.OS_ERRNO)
        has_head = self.head is not None
        host = self.request.target.site.host
        return failure_of(Ending(code, message, errno, tuple(self._refusals), has_head, self._sockets, host))

    def _on_header(self, line: bytes) -> int | None:
        self._heard_s = time.monotonic()
        self._header_bytes += len(line)
        if self._header_bytes > MAX_HEADER_BYTES:
            self.failure = self.failure or RowFailed("bad response", f"more than {MAX_HEADER_BYTES} bytes of headers")
            return -1
        if self.head is not None:
            return None  # trailers say nothing that is asked for
        if line not in (b"\r\n", b"\n"):
            self._lines.append(line)
            return None
        lines, self._lines = self._lines, []
        return self._on_head(lines)

    def _on_head(self, lines: list[bytes]) -> int | None:
        try:
            head = Head.of(lines)
            if head.status < 200:
                return None
            self.head = head
            self.request.check(head)
        except RowFailed as failure:
            self.failure = failure
            return None if self.head is not None and _is_soon_over(self.head) else -1
        return None

    def _on_body(self, chunk: bytes) -> int | None:
        if self._throttle is not None and not self._throttle.admits(self, len(chunk)):
            self.is_paused = True
            return pycurl.WRITEFUNC_PAUSE
        self._heard_s = time.monotonic()
        left_bytes = self.request.max_bytes - self._size_bytes
        self._size_bytes += len(chunk)
        if self.failure is not None:
            return None if self._size_bytes <= _DRAINED_BYTES else -1
        if len(chunk) <= left_bytes:
            self._chunks.append(chunk)
            return None
        if self.request.is_cut:
            self._chunks.append(chunk[:left_bytes])
            self.is_cut = True
        else:
            self.failure = RowFailed("too large", f"more than {self.request.max_bytes} bytes")
        return -1

    def _on_socket(self, purpose: int, where: tuple[int, int, int, tuple]) -> socket.socket | int:
        """Open a socket for an address that libcurl is about to connect to, or refuse it."""
        family, kind, protocol, address = where
        host = self.request.target.site.host
        refusal = self._refusal_of(host, address[0]) if family in (socket.AF_INET, socket.AF_INET6) else "odd"
        if refusal:
            self._refusals.append(f"{address[0]} is {refusal}")
            return pycurl.SOCKET_BAD
        self._sockets += 1
        return socket.socket(family, kind, protocol)


def _set_up(handle: pycurl.Curl, user_agent: str) -> None:
    """Options that no request changes."""
    ca_file = ssl.get_default_verify_paths().cafile
    if ca_file:
        handle.setopt(pycurl.CAINFO, ca_file)
    headers = ["Accept: */*", "Accept-Encoding: identity"]
    for option, value in (
        (pycurl.USERAGENT, user_agent),
        (pycurl.HTTPHEADER, headers),
        (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS),
        (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
        (pycurl.FOLLOWLOCATION, 0),
        (pycurl.PROXY, ""),
        (pycurl.NETRC, 0),
        (pycurl.PATH_AS_IS, 1),
        (pycurl.HTTP_CONTENT_DECODING, 0),
        (pycurl.HTTP09_ALLOWED, 0),
        (pycurl.NOSIGNAL, 1),
        (pycurl.BUFFERSIZE, _BUFFER_BYTES),
        (pycurl.MAXAGE_CONN, _IDLE_CONNECTION_S),
    ):
        handle.setopt(option, value)


def _resolved(request: Request) -> list[str]:
    """The resolver's answer in libcurl's spelling: `+` for an entry that is forgotten as others are."""
    if not request.addresses:
        return []
    addresses = ",".join(f"[{a}]" if ":" in a else a for a in request.addresses)
    return [f"+{request.target.site.host}:{request.target.site.port}:{addresses}"]


def _is_soon_over(head: Head) -> bool:
    """Whether so little body follows that reading it costs less than another connection."""
    return head.status in (204, 304) or (head.length_bytes is not None and head.length_bytes <= _DRAINED_BYTES)
