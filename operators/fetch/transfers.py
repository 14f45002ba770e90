"""HTTP by libcurl: one multi handle, driven by the loop, and a pool of easy handles that are used again."""

from __future__ import annotations

import math
import time
from functools import lru_cache

import pycurl

from corpusmith.operators.fetch.addresses import Allowed
from corpusmith.operators.fetch.config import DownloadConfig
from corpusmith.operators.fetch.promises import Loop, Promise
from corpusmith.operators.fetch.responses import Reply
from corpusmith.operators.fetch.throttle import Throttle
from corpusmith.operators.fetch.transfer import Request, Transfer

_WATCH_EVERY_S = 0.05
_MOST_CONNECTIONS = 1024
_KNOWN_ADDRESSES = 4096

_EVENTS = {pycurl.POLL_IN: 1, pycurl.POLL_OUT: 2, pycurl.POLL_INOUT: 3}
"""libcurl's wishes as the bits of `selectors`, which are libcurl's own CSELECT bits as well."""


class Transfers:
    """Requests in flight, by one multi handle.

    Args:
        bytes_per_s: of bodies, over all requests; 0 for no limit.
    """

    def __init__(self, loop: Loop, config: DownloadConfig, allowed: Allowed, bytes_per_s: float) -> None:
        self._loop = loop
        self._config = config
        self._judge = lru_cache(_KNOWN_ADDRESSES)(allowed.refusal_of)
        self._throttle = Throttle(loop, bytes_per_s, self._reap) if bytes_per_s else None
        self._idle: list[Transfer] = []
        self._active: dict[pycurl.Curl, Transfer] = {}
        self._is_watching = False
        self._is_read_up = False
        self._watch_due_s = math.inf
        self._due_s = self._armed_s = math.inf
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_wish)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, min(config.concurrency * 4, _MOST_CONNECTIONS))

    def get(self, request: Request) -> Promise[Reply]:
        """Begin a request; the promise fails with RowFailed."""
        promise: Promise[Reply] = Promise(self._loop)
        transfer = self._idle.pop() if self._idle else Transfer(self._config, self._judge, self._throttle)
        transfer.begin(request, promise)
        self._active[transfer.handle] = transfer
        self._multi.add_handle(transfer.handle)
        if not self._is_watching:
            self._is_watching = True
            self._watch_in(_WATCH_EVERY_S)
        return promise

    def close(self) -> None:
        """End all requests; their promises stay open."""
        for transfer in self._active.values():
            self._multi.remove_handle(transfer.handle)
        for transfer in [*self._active.values(), *self._idle]:
            transfer.handle.close()
        self._active.clear()
        self._idle.clear()
        self._multi.close()

    def _on_wish(self, wish: int, fd: int, *_: object) -> None:
        if wish == pycurl.POLL_REMOVE:
            self._loop.unwatch(fd)
        else:
            self._loop.watch(fd, _EVENTS[wish], self._on_event)

    def _on_timer(self, wait_ms: int) -> None:
        """libcurl wants to be called in so long, or (-1) not at all; the wish before no longer counts."""
        self._due_s = time.monotonic() + wait_ms / 1000 if wait_ms >= 0 else math.inf
        if self._due_s < self._armed_s:
            self._armed_s = self._due_s
            if wait_ms:
                self._loop.after(wait_ms / 1000).then(self._on_time)
            else:
                self._loop.soon(self._on_time, None)

    def _on_time(self, _: object) -> None:
        wait_s = self._due_s - time.monotonic()
        self._armed_s = math.inf
        if wait_s <= 0:
            self._due_s = math.inf
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
            self._reap()
        elif wait_s < math.inf:
            self._armed_s = self._due_s
            self._loop.after(wait_s).then(self._on_time)

    def _on_event(self, fd: int, events: int) -> None:
        self._multi.socket_action(fd, events)
        self._reap()

    def _reap(self) -> None:
        """Settle what has ended."""
        more = 1
        while more:
            more, good, bad = self._multi.info_read()
            for handle in good:
                self._end(self._active[handle], 0, "")
            for handle, code, message in bad:
                self._end(self._active[handle], code, message)

    def _end(self, transfer: Transfer, code: int, message: str) -> None:
        self._multi.remove_handle(transfer.handle)
        del self._active[transfer.handle]
        transfer.end(code, message)
        self._idle.append(transfer)

    def _watch(self, _: Promise[None]) -> None:
        """Look for time-outs; after a pause of this thread, what came meanwhile is read before, once."""
        now = time.monotonic()
        if now > self._watch_due_s + _WATCH_EVERY_S and not self._is_read_up:
            self._is_read_up = True
            self._watch_in(0.0)
            return
        self._is_read_up = False
        for transfer in list(self._active.values()):
            if transfer.check_s <= now and transfer.watch(now):
                self._end(transfer, pycurl.E_OPERATION_TIMEDOUT, "")
        self._is_watching = bool(self._active)
        if self._is_watching:
            self._watch_in(_WATCH_EVERY_S)

    def _watch_in(self, wait_s: float) -> None:
        self._watch_due_s = time.monotonic() + wait_s
        self._loop.after(wait_s).then(self._watch)
