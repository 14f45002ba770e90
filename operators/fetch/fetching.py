"""The way from a URL to its bytes: turns, attempts, redirects, robots.txt, and what is shared between rows.

Everything here runs in the loop's thread, as flows (see promises.py).
"""

from __future__ import annotations

import random
import resource
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from corpusmith.operators.fetch.addresses import Allowed
from corpusmith.operators.fetch.config import DownloadConfig
from corpusmith.operators.fetch.gates import HostGate, Turn
from corpusmith.operators.fetch.promises import Flow, Loop, Promise, T
from corpusmith.operators.fetch.resolver import Resolver
from corpusmith.operators.fetch.responses import Head, Reply, check_head, decompressed, retry_after_s, valid_text
from corpusmith.operators.fetch.results import Downloaded, RecentDownloads
from corpusmith.operators.fetch.robots import MAX_ROBOTS_BYTES, Robots, parse_robots
from corpusmith.operators.fetch.stores import read_object, store_of
from corpusmith.operators.fetch.targets import Target, checked_url, redirect_target, scheme_of
from corpusmith.operators.fetch.threads import BlockingPool
from corpusmith.operators.fetch.transfer import PARK_AFTER_S, Request
from corpusmith.operators.fetch.transfers import Transfers
from corpusmith.operators.fetch.transient import TransientFailure
from corpusmith.schemas.fates import RowFailed

_FIRST_BACKOFF_S = 0.5
_STORE_THREADS = 32
_PARKED_FOR_ONE = 4
_ROBOTS_KEPT_S = 24 * 3600.0
_ROBOTS_FAILURE_KEPT_S = 60.0
_MOST_ROBOTS = 10_000
_ROBOTS_REDIRECTS = 5
"""RFC 9309, sections 2.4 and 2.3.1.2."""


@dataclass(frozen=True)
class _Wish:
    """What is fetched, and within which limits.

    Args:
        check: raises RowFailed for a head whose body is not wanted.
        max_bytes: of the body.
        max_redirects: redirects followed at most.
        is_cut: a longer body is cut there, instead of failing.
        obeys_robots: whether robots.txt is asked first.
    """

    check: Callable[[Head], None]
    max_bytes: int
    max_redirects: int
    is_cut: bool = False
    obeys_robots: bool = False


class Fetcher:
    """Downloads URLs, each once while it is in flight or among the recent ones.

    Args:
        share: the part of the run that this worker is; limits of the run are multiplied by it.
    """

    def __init__(self, loop: Loop, config: DownloadConfig, share: float) -> None:
        self._loop = loop
        self._config = config
        self._allowed = Allowed.of(config.allow_hosts)
        per_host = max(1, round(config.per_host * share))
        most_parked = _most_parked(config.concurrency)
        self._gate = HostGate(loop, most=config.concurrency, most_parked=most_parked, per_host=per_host)
        self._interval_s = 1 / (config.per_host_rate * share) if config.per_host_rate else 0.0
        self._share = share
        self._resolver = Resolver(loop, config.connect_timeout_s, config.concurrency)
        self._transfers = Transfers(loop, config, self._allowed, config.max_bytes_per_s * share)
        self._stores = BlockingPool(loop, min(config.concurrency, _STORE_THREADS), "store")
        self._recent = RecentDownloads(config.recent_max_bytes)
        self._flights: dict[str, Promise[Downloaded]] = {}
        media_check = partial(check_head, config=config)
        self._media_wish = _Wish(media_check, config.max_bytes, config.max_redirects, obeys_robots=config.robots)
        self._robots_wish = _Wish(_check_robots_head, MAX_ROBOTS_BYTES, _ROBOTS_REDIRECTS, is_cut=True)
        self._robots: OrderedDict[str, tuple[float, Promise[Robots]]] = OrderedDict()

    def fetch(self, url: str) -> Promise[Downloaded]:
        """The promise of a URL's download; it fails with RowFailed."""
        flight = self._flights.get(url)
        if flight is not None:
            return flight
        recent = self._recent.get(url)
        if recent is not None:
            known: Promise[Downloaded] = Promise(self._loop)
            known.fulfil(recent)
            return known
        flight = self._flights[url] = self._loop.start(self._retrying(partial(self._attempt, url)))
        flight.then(partial(self._landed, url))
        return flight

    def hold(self, is_held: bool) -> None:
        """Begin no request for a while, or go on."""
        self._gate.hold(is_held)

    def close(self) -> None:
        """Drop what is in flight."""
        self._transfers.close()
        self._resolver.close()
        self._stores.close()

    def _landed(self, url: str, flight: Promise[Downloaded]) -> None:
        del self._flights[url]
        if flight.value is not None:
            self._recent.put(url, flight.value)

    def _retrying(self, attempt: Callable[[], Flow[T]]) -> Flow[T]:
        """Attempts until one succeeds, fails for good, or none is left."""
        backoff_s = _FIRST_BACKOFF_S
        for retries_left in range(self._config.retries, -1, -1):
            try:
                return (yield from attempt())
            except TransientFailure as failure:
                if not retries_left:
                    raise
                wait_s = failure.wait_s
            if wait_s is None:
                wait_s = backoff_s * random.uniform(0.5, 1.5)
            yield self._loop.after(min(wait_s, self._config.backoff_max_s))
            backoff_s *= 2
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, url: str) -> Flow[Downloaded]:
        if self._config.allow_schemes and scheme_of(url) in self._config.allow_schemes:
            return (yield from self._read(url))
        reply = yield from self._get(checked_url(url, self._allowed), self._media_wish)
        encoding = ", ".join(reply.head.headers.get("content-encoding", ()))
        body = decompressed(reply.body, encoding, self._config.max_bytes)
        if not body:
            raise RowFailed("empty body", f"status {reply.head.status}")
        return Downloaded(body, valid_text(reply.head.first("etag")), reply.head.status)

    def _read(self, url: str) -> Flow[Downloaded]:
        """One object or file; a thread that hangs is left behind."""
        limit_s = self._config.timeout_s
        turn = yield self._gate.enter(store_of(url), 0.0)
        try:
            late = TransientFailure("Timeout", f"not finished within {limit_s:g} s")
            return (yield self._stores.run(partial(read_object, url, self._config.max_bytes), limit_s, late))
        finally:
            turn.end()

    def _get(self, target: Target, wish: _Wish) -> Flow[Reply]:
        """One request and the redirects that it leads to. Waiting for a turn is not part of its time."""
        left_s = self._config.timeout_s
        for _ in range(wish.max_redirects + 1):
            interval_s = self._interval_s
            if wish.obeys_robots:
                interval_s = max(interval_s, (yield from self._crawl_delay_s(target)))
            reply, taken_s = yield from self._hop(target, wish, left_s, interval_s)
            location = reply.head.location
            if location is None:
                return reply
            target = redirect_target(target, location, self._allowed)
            left_s -= taken_s
        raise RowFailed("too many redirects", f"more than {wish.max_redirects}")

    def _hop(self, target: Target, wish: _Wish, left_s: float, interval_s: float) -> Flow[tuple[Reply, float]]:
        """One request when it is its turn, and the seconds that it took."""
        turn = yield self._gate.enter(target.site.host, interval_s)
        started_s = time.monotonic()
        try:
            addresses = () if target.site.is_literal else (yield self._addresses(turn))
            left_s -= time.monotonic() - started_s
            request = Request(target, addresses, left_s, wish.max_bytes, wish.check, turn.park, wish.is_cut)
            reply = yield self._transfers.get(request)
            return reply, time.monotonic() - started_s
        finally:
            turn.end()

    def _addresses(self, turn: Turn) -> Promise[tuple[str, ...]]:
        """Addresses of a turn's host; a resolver that is silent is waited for as a server is."""
        addresses = self._resolver.resolve(turn.host)
        if not addresses.is_done:
            self._loop.after(PARK_AFTER_S).then(lambda _: None if addresses.is_done else turn.park())
        return addresses

    def _crawl_delay_s(self, target: Target) -> Flow[float]:
        """Seconds between requests that a site asks of this worker.

        Raises:
            RowFailed: `robots disallowed`.
        """
        robots = yield self._robots_of(target)
        if not robots.allows(target.path):
            raise RowFailed("robots disallowed", f"robots.txt of {target.site.host}")
        return robots.crawl_delay_s / self._share

    def _robots_of(self, target: Target) -> Promise[Robots]:
        """What a site asks, remembered for a day, or for a minute if it could not be read."""
        expires_s, promise = self._robots.get(target.site.origin, (0.0, None))
        if promise is not None and (expires_s > time.monotonic() or not promise.is_done):
            return promise
        promise = self._loop.start(self._read_robots(target))
        self._robots[target.site.origin] = (time.monotonic() + _ROBOTS_KEPT_S, promise)
        self._robots.move_to_end(target.site.origin)
        if len(self._robots) > _MOST_ROBOTS:
            self._robots.popitem(last=False)
        promise.then(partial(self._keep_failure, target.site.origin))
        return promise

    def _keep_failure(self, origin: str, promise: Promise[Robots]) -> None:
        if promise.error is not None and origin in self._robots:
            self._robots[origin] = (time.monotonic() + _ROBOTS_FAILURE_KEPT_S, promise)

    def _read_robots(self, target: Target) -> Flow[Robots]:
        """RFC 9309, section 2.3.1: none to be had is leave; none to be reached is not."""
        place = checked_url(f"{target.site.origin}/robots.txt", self._allowed)
        try:
            reply = yield from self._retrying(partial(self._get, place, self._robots_wish))
            if not 200 <= reply.head.status < 300:
                return Robots()
            encoding = ", ".join(reply.head.headers.get("content-encoding", ()))
            return parse_robots(decompressed(reply.body, encoding, MAX_ROBOTS_BYTES), self._config.agent_token)
        except RowFailed as failure:
            error = failure.row_error.error
            if error == "too many redirects":
                return Robots()
            if error in ("DNS failure", "address refused"):
                raise
            raise RowFailed("robots disallowed", f"robots.txt of {target.site.host} is out of reach: {error}") from None


def _most_parked(concurrency: int) -> int:
    """Requests that may wait in silence beside the others: half of the files that this process may open, at most."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(0, min(_PARKED_FOR_ONE * concurrency, files // 2 - concurrency))


def _check_robots_head(head: Head) -> None:
    if head.status == 429 or head.status >= 500:
        raise TransientFailure(f"HTTPStatus {head.status}", wait_s=retry_after_s(head.first("retry-after")))
