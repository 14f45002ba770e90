"""Download media by URL: bounded in bytes, time and redirects, polite to hosts, and honest about every failure.

One asyncio loop a worker holds a window of requests over all of its batches, so that a slow server delays nobody
else. A row ends with the bytes as the server gave them and what they say about themselves (hash, size, type by
content), or with one of a few stable classes of error, by which a run's losses can be counted.

Limits of sharing: rows that name the same URL share one download while it is in flight, and for as long as the body
stays among the recent ones (`recent_max_bytes` in each worker). Repeats that lie further apart, or reach another
worker, are downloaded again; `dedup.exact` on `url` before the download avoids that.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import Field, field_validator
from yarl import URL

from corpusmith.operators.contract import AnnotateAsync, Config
from corpusmith.operators.fetch.addresses import (
    Allowed,
    GuardedResolver,
    TransientFailure,
    checked_url,
    redirect_target,
)
from corpusmith.schemas.columns import MEDIA, Column
from corpusmith.schemas.fates import RowFailed

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

MIB = 2**20

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT_STATUSES = frozenset({408, 425, 429, *range(500, 600)})
_FIRST_BACKOFF_S = 0.5
_DNS_CACHE_S = 300
_IDLE_CONNECTION_S = 2.0
"""Idle connections are kept for neighbours on the same host only: each holds a file descriptor."""
_MAX_HEADER_BYTES = 32768
_MAX_RESOLVER_THREADS = 64


class DownloadConfig(Config):
    """Parameters of `download`."""

    timeout_s: float = Field(
        default=10.0, gt=0, le=3600, description="seconds for one attempt, redirects and body included"
    )
    connect_timeout_s: float = Field(
        default=5.0, gt=0, le=3600, description="seconds for a name lookup, and for a connection"
    )
    idle_timeout_s: float = Field(default=5.0, gt=0, le=3600, description="seconds that a server may stay silent")
    retries: int = Field(
        default=2,
        ge=0,
        le=20,
        description="further attempts after connection errors, time-outs and status 408, 425, 429, 5xx",
    )
    backoff_max_s: float = Field(
        default=30.0,
        ge=0,
        le=600,
        description="seconds to wait before a retry at most, also where Retry-After asks for more",
    )
    max_bytes: int = Field(default=20 * MIB, ge=1, description="bytes of a body at most, as sent and as decompressed")
    max_redirects: int = Field(default=5, ge=0, le=30, description="redirects followed at most")
    concurrency: int = Field(default=64, ge=1, le=4096, description="requests in flight in each worker")
    per_host: int = Field(default=8, ge=1, le=4096, description="requests in flight to one host in each worker")
    allow_hosts: tuple[str, ...] = Field(
        default=(), description="host names, addresses or networks (10.0.0.0/8) to contact although private or local"
    )
    user_agent: str = Field(
        default="corpusmith (+https://example.org/contact)",
        pattern=r"^[\x20-\x7e]+$",
        description="User-Agent header; put a page there that tells site owners who crawls",
    )
    disallowed_header_directives: tuple[str, ...] = Field(
        default=("noai", "noimageai", "noindex", "noimageindex"),
        description="X-Robots-Tag directives that opt media out; an empty list ignores the header",
    )
    recent_max_bytes: int = Field(
        default=64 * MIB, ge=0, description="bytes of recent bodies kept for repeats of a URL"
    )

    @field_validator("allow_hosts")
    @classmethod
    def _are_hosts(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        Allowed.of(entries)
        return entries


class Download(AnnotateAsync, name="download", version=1):
    """Download the media at `url`: http(s) alone, public addresses alone, opt-out headers honoured.

    Errors: `HTTPStatus N`, `Timeout`, `DNS failure`, `connection failed`, `truncated body`, `too large`,
    `address refused`, `scheme refused`, `invalid URL`, `too many redirects`, `opted out`, `empty body`, and
    `bad response` for what is no HTTP or has an encoding that cannot be undone.
    """

    Config = DownloadConfig
    config: DownloadConfig

    @property
    def requires(self) -> tuple[str, ...]:
        return ("url",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (
            MEDIA,
            Column("sha256", pa.string(), "sha256 of the bytes as downloaded, hex"),
            Column("size_bytes", pa.int64(), "size as downloaded", "bytes"),
            Column("mime", pa.string(), "media type, found from the content; null if not known"),
            Column("etag", pa.string(), "ETag that the server sent"),
            Column("http_status", pa.int64(), "status of the last response"),
        )

    @property
    def window(self) -> int:
        return self.config.concurrency

    async def open(self) -> None:
        self._allowed = Allowed.of(self.config.allow_hosts)
        self._hosts = _HostSlots(self.config.per_host)
        self._recent = _RecentResults(self.config.recent_max_bytes)
        self._flights: dict[str, asyncio.Task[Mapping[str, Any]]] = {}
        threads = min(self.config.concurrency, _MAX_RESOLVER_THREADS)
        self._resolver = GuardedResolver(self._allowed, self.config.connect_timeout_s, threads)
        self._session = _session(self.config, self._resolver)

    async def aclose(self) -> None:
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        await self._session.close()
        await self._resolver.close()

    async def process_row(self, row: dict[str, Any]) -> Mapping[str, Any]:
        """Download one row's URL, or share the download that another row began."""
        url: str = row["url"] or ""
        recent = self._recent.get(url)
        if recent is not None:
            return recent
        flight = self._flights.get(url)
        if flight is None:
            flight = self._flights[url] = asyncio.create_task(self._fetch(url))
            flight.add_done_callback(lambda done: self._landed(url, done))
        return await asyncio.shield(flight)

    def _landed(self, url: str, flight: asyncio.Task[Mapping[str, Any]]) -> None:
        del self._flights[url]
        if not flight.cancelled() and flight.exception() is None:
            self._recent.put(url, flight.result())

    async def _fetch(self, url: str) -> Mapping[str, Any]:
        """Attempts until one succeeds, fails for good, or none is left."""
        import aiohttp

        retries_left = self.config.retries
        backoff_s = _FIRST_BACKOFF_S
        while True:
            try:
                return await self._attempt(url)
            except (aiohttp.ClientError, OSError, RowFailed) as error:
                failure = _as_failure(error, self.config)
            if not isinstance(failure, TransientFailure) or not retries_left:
                raise failure
            wait_s = failure.wait_s if failure.wait_s is not None else backoff_s * random.uniform(0.5, 1.5)
            await asyncio.sleep(min(wait_s, self.config.backoff_max_s))
            retries_left -= 1
            backoff_s *= 2

    async def _attempt(self, text: str) -> Mapping[str, Any]:
        """One request and the redirects that it leads to. Waiting for a host's slot is not part of its time."""
        clock = asyncio.get_running_loop()
        url = checked_url(text, self._allowed)
        left_s = self.config.timeout_s
        for _ in range(self.config.max_redirects + 1):
            async with self._hosts.slot(url.raw_host or ""):
                started_s = clock.time()
                async with asyncio.timeout(left_s):
                    answer = await self._hop(url)
                left_s -= clock.time() - started_s
            if not isinstance(answer, URL):
                return answer
            url = answer
        raise RowFailed("too many redirects", f"more than {self.config.max_redirects}")

    async def _hop(self, url: URL) -> Mapping[str, Any] | URL:
        """One request: the row's values, or the checked address that it redirects to."""
        async with self._session.get(url, allow_redirects=False) as response:
            location = response.headers.get("Location")
            if response.status in _REDIRECTS and location:
                return redirect_target(url, location, self._allowed)
            _check_head(response, self.config)
            body = _decompressed(
                await _read(response, self.config.max_bytes),
                response.headers.get("Content-Encoding", ""),
                self.config.max_bytes,
            )
        if not body:
            raise RowFailed("empty body", f"status {response.status}")
        return {
            "media": body,
            "sha256": hashlib.sha256(body).hexdigest(),
            "size_bytes": len(body),
            "mime": mime_of(body),
            "etag": _valid_text(response.headers.get("ETag")),
            "http_status": response.status,
        }


class _HostSlots:
    """A bounded number of requests for each host; a host without requests takes no memory."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}

    @asynccontextmanager
    async def slot(self, host: str) -> AsyncIterator[None]:
        slots = self._slots.setdefault(host, asyncio.Semaphore(self._per_host))
        self._users[host] = self._users.get(host, 0) + 1
        try:
            async with slots:
                yield
        finally:
            self._users[host] -= 1
            if not self._users[host]:
                del self._users[host], self._slots[host]


class _RecentResults:
    """Results by URL, the longest unused dropped first, within a bound on the bytes of their bodies."""

    def __init__(self, max_bytes: int) -> None:
        self._left_bytes = max_bytes
        self._results: OrderedDict[str, Mapping[str, Any]] = OrderedDict()

    def get(self, url: str) -> Mapping[str, Any] | None:
        if url in self._results:
            self._results.move_to_end(url)
        return self._results.get(url)

    def put(self, url: str, result: Mapping[str, Any]) -> None:
        self._results[url] = result
        self._left_bytes -= result["size_bytes"]
        while self._left_bytes < 0:
            _, dropped = self._results.popitem(last=False)
            self._left_bytes += dropped["size_bytes"]


def _session(config: DownloadConfig, resolver: GuardedResolver) -> ClientSession:
    """A client without cookies, proxies, automatic redirects or decompression: each of these is ours to bound."""
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=resolver, limit=0, ttl_dns_cache=_DNS_CACHE_S, keepalive_timeout=_IDLE_CONNECTION_S
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        headers={"User-Agent": config.user_agent, "Accept": "*/*", "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=config.connect_timeout_s, sock_read=config.idle_timeout_s
        ),
        max_line_size=_MAX_HEADER_BYTES,
        max_field_size=_MAX_HEADER_BYTES,
    )


def _as_failure(error: Exception, config: DownloadConfig) -> RowFailed:
    """The stable class of an error, without the URL, which aiohttp's own messages carry in full."""
    import aiohttp

    match error:
        case RowFailed():
            return error
        case aiohttp.ConnectionTimeoutError():
            return TransientFailure("Timeout", f"no connection within {config.connect_timeout_s:g} s")
        case aiohttp.ServerTimeoutError():
            return TransientFailure("Timeout", f"the server was silent for {config.idle_timeout_s:g} s")
        case TimeoutError():
            return TransientFailure("Timeout", f"not finished within {config.timeout_s:g} s")
        case aiohttp.ClientConnectorCertificateError():
            return RowFailed("connection failed", "the server's certificate is not valid")
        case aiohttp.ClientPayloadError():
            return TransientFailure("truncated body", "the connection ended before the body did")
        case aiohttp.ClientConnectionError() | OSError():
            detail = getattr(error, "strerror", None) or type(error).__name__
            return TransientFailure("connection failed", _valid_text(str(detail)) or "")
        case _:
            return RowFailed("bad response", f"not HTTP: {type(error).__name__}")


def _check_head(response: ClientResponse, config: DownloadConfig) -> None:
    """Raise if a response's status or headers say that its body is not to be read."""
    status = response.status
    if status in _TRANSIENT_STATUSES:
        raise TransientFailure(f"HTTPStatus {status}", wait_s=retry_after_s(response.headers.get("Retry-After")))
    if not 200 <= status < 300 or status == 206:
        raise RowFailed(f"HTTPStatus {status}")
    token = re.split(r"[/\s]", config.user_agent, maxsplit=1)[0]
    directive = opt_out(response.headers.getall("X-Robots-Tag", ()), token, config.disallowed_header_directives)
    if directive:
        raise RowFailed("opted out", f"X-Robots-Tag: {directive}")
    if (response.content_length or 0) > config.max_bytes:
        raise RowFailed("too large", f"Content-Length {response.content_length} > {config.max_bytes} bytes")


async def _read(response: ClientResponse, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size_bytes = 0
    async for chunk in response.content.iter_any():
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise RowFailed("too large", f"more than {max_bytes} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _decompressed(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body without its Content-Encoding: at most `max_bytes`, and whole.

    Raises:
        RowFailed: `too large`, `truncated body`, or `bad response` if the encoding is not known or the data not of it.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity") or not body:
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise RowFailed("bad response", f"Content-Encoding {_valid_text(encoding[:32])}, which was not asked for")
    raw_deflate = encoding == "deflate" and body[0] & 0xF != 8
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS if raw_deflate else zlib.MAX_WBITS | 32)
    try:
        plain = decompressor.decompress(body, max_bytes + 1)
    except zlib.error:
        raise RowFailed("bad response", f"the body is not {encoding}") from None
    if len(plain) > max_bytes:
        raise RowFailed("too large", f"more than {max_bytes} bytes when decompressed")
    if not decompressor.eof:
        raise TransientFailure("truncated body", f"the {encoding} data ends early")
    if decompressor.unused_data:
        raise RowFailed("bad response", f"data follows the {encoding} data")
    return plain


def retry_after_s(header: str | None) -> float | None:
    """Seconds that a Retry-After header (RFC 9110, section 10.2.3: seconds or a date) asks to wait; None if none."""
    if not header:
        return None
    if re.fullmatch(r"\s*[0-9]{1,9}\s*", header):
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


_AGENT_PREFIX = re.compile(r"\s*(?!max-|unavailable_after)(\*|[a-z][a-z0-9_.-]*)\s*:")


def opt_out(headers: Iterable[str], agent: str, disallowed: Iterable[str]) -> str | None:
    """The first directive of X-Robots-Tag headers that opts the media out for this agent, or None.

    A header is a list of directives, which a prefix may confine to one agent: `otherbot: noai, noindex`. `none` stands
    for `noindex, nofollow`. Directives with values (`max-snippet: 5`) look like a prefix and are none.
    """
    refused = {directive.lower() for directive in disallowed}
    if "noindex" in refused:
        refused.add("none")
    for header in headers:
        concerns_us = True
        for item in header.lower().split(","):
            confined = _AGENT_PREFIX.match(item)
            if confined:
                concerns_us = confined[1] in ("*", agent.lower())
            directive = item[confined.end() if confined else 0 :].strip()
            if concerns_us and directive in refused:
                return directive
    return None


_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"II+\0", "image/tiff"),
    (b"MM\0+", "image/tiff"),
    (b"\xff\x0a", "image/jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
    (b"\0\0\x01\0", "image/x-icon"),
    (b"FLV\x01", "video/x-flv"),
    (b"OggS", "application/ogg"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
)
_RIFF_FORMS = {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo", b"WAVE": "audio/wav"}
_ISO_BRANDS = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "image/heic"),
    b"mif1": "image/heif",
    b"msf1": "image/heif",
    b"qt  ": "video/quicktime",
    b"M4A ": "audio/mp4",
}
_MARKUP = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--[^>]*>\s*)*<(?:!doctype\s+)?(html|head|body|script|svg)\b", re.I
)


def mime_of(body: bytes) -> str | None:
    """The media type that the first bytes of a file show, or None; names and headers are never asked."""
    for magic, mime in _MAGIC:
        if body.startswith(magic):
            return mime
    if body[:4] == b"RIFF":
        return _RIFF_FORMS.get(body[8:12])
    if body[4:8] == b"ftyp":
        return _ISO_BRANDS.get(body[8:12], "video/mp4")
    if body[:4] == b"\x1aE\xdf\xa3":
        return "video/webm" if b"webm" in body[:64] else "video/x-matroska"
    if body[:2] == b"BM" and body[6:10] == bytes(4):
        return "image/bmp"
    markup = _MARKUP.match(body[:1024])
    return None if markup is None else "image/svg+xml" if markup[1].lower() == b"svg" else "text/html"


def _valid_text(text: str | None) -> str | None:
    """Header text that Arrow can hold: raw bytes of a header reach us as lone surrogates."""
    return text if text is None else text[:1024].encode("utf-8", "backslashreplace").decode()
