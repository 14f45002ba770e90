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
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import Field, field_validator
from yarl import URL

from corpusmith.operators.contract import OPERATIONAL, AnnotateAsync, Config
from corpusmith.operators.fetch.addresses import (
    Allowed,
    GuardedResolver,
    TransientFailure,
    checked_url,
    redirect_target,
)
from corpusmith.operators.fetch.responses import check_head, decompressed, read_body, valid_text
from corpusmith.operators.media_type import media_type
from corpusmith.schemas.columns import MEDIA, Column
from corpusmith.schemas.fates import RowFailed

if TYPE_CHECKING:
    from aiohttp import ClientSession

MIB = 2**20

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FIRST_BACKOFF_S = 0.5
_DNS_CACHE_S = 300
_IDLE_CONNECTION_S = 2.0
"""Idle connections are kept for neighbours on the same host only: each holds a file descriptor."""
_MAX_HEADER_BYTES = 32768
_MAX_RESOLVER_THREADS = 64


class DownloadConfig(Config):
    """Parameters of `download`."""

    timeout_s: float = Field(
        json_schema_extra=OPERATIONAL,
        default=10.0,
        gt=0,
        le=3600,
        description="seconds for one attempt, redirects and body included",
    )
    connect_timeout_s: float = Field(
        json_schema_extra=OPERATIONAL,
        default=5.0,
        gt=0,
        le=3600,
        description="seconds for a name lookup, and for a connection",
    )
    idle_timeout_s: float = Field(
        json_schema_extra=OPERATIONAL, default=5.0, gt=0, le=3600, description="seconds that a server may stay silent"
    )
    retries: int = Field(
        json_schema_extra=OPERATIONAL,
        default=2,
        ge=0,
        le=20,
        description="further attempts after connection errors, time-outs and status 408, 425, 429, 5xx",
    )
    backoff_max_s: float = Field(
        json_schema_extra=OPERATIONAL,
        default=30.0,
        ge=0,
        le=600,
        description="seconds to wait before a retry at most, also where Retry-After asks for more",
    )
    max_bytes: int = Field(default=20 * MIB, ge=1, description="bytes of a body at most, as sent and as decompressed")
    max_redirects: int = Field(default=5, ge=0, le=30, description="redirects followed at most")
    concurrency: int = Field(
        json_schema_extra=OPERATIONAL, default=64, ge=1, le=4096, description="requests in flight in each worker"
    )
    per_host: int = Field(
        json_schema_extra=OPERATIONAL,
        default=8,
        ge=1,
        le=4096,
        description="requests in flight to one host in each worker",
    )
    allow_hosts: tuple[str, ...] = Field(
        default=(), description="host names, addresses or networks (10.0.0.0/8) to contact although private or local"
    )
    user_agent: str = Field(
        json_schema_extra=OPERATIONAL,
        default="corpusmith (+https://example.org/contact)",
        pattern=r"^[\x20-\x7e]+$",
        description="User-Agent header; put a page there that tells site owners who crawls",
    )
    disallowed_header_directives: tuple[str, ...] = Field(
        default=("noai", "noimageai", "noindex", "noimageindex"),
        description="X-Robots-Tag directives that opt media out; an empty list ignores the header",
    )
    recent_max_bytes: int = Field(
        json_schema_extra=OPERATIONAL,
        default=64 * MIB,
        ge=0,
        description="bytes of recent bodies kept for repeats of a URL",
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
            check_head(response, self.config)
            body = decompressed(
                await read_body(response, self.config.max_bytes),
                response.headers.get("Content-Encoding", ""),
                self.config.max_bytes,
            )
        if not body:
            raise RowFailed("empty body", f"status {response.status}")
        return {
            "media": body,
            "sha256": hashlib.sha256(body).hexdigest(),
            "size_bytes": len(body),
            "mime": media_type(body),
            "etag": valid_text(response.headers.get("ETag")),
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
            return TransientFailure("connection failed", valid_text(str(detail)) or "")
        case _:
            return RowFailed("bad response", f"not HTTP: {type(error).__name__}")
