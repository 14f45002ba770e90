"""Limits on what is asked of others: requests in flight, for one host and in all, and how often one
host is asked.

Waiting for a turn takes nothing from anybody: hosts with requests that wait take turns, so that a list with one busy
host goes on with the others. Nor does waiting for a server that has gone silent: such a request is parked, and another
may begin in its place, though not at the same host. So servers that stall cost their own rows time, and no others.
"""

from __future__ import annotations

import time
from collections import deque
from functools import partial

from corpusmith.operators.fetch.promises import Loop, Promise


class Turn:
    """Leave to work on one request; whoever holds it calls end()."""

    __slots__ = ("_gate", "host", "is_parked")

    def __init__(self, gate: HostGate, host: str) -> None:
        self._gate = gate
        self.host = host
        self.is_parked = False

    def park(self) -> None:
        """Let another request begin while this one waits in silence, as long as there are not too many of them."""
        self._gate.park(self)

    def end(self) -> None:
        """The request has ended."""
        self._gate.leave(self)


class _Host:
    """One host's requests."""

    __slots__ = ("active", "is_queued", "next_s", "waiting")

    def __init__(self) -> None:
        self.active = 0
        self.waiting: deque[tuple[Promise[Turn], float]] = deque()
        self.next_s = 0.0
        self.is_queued = False


class HostGate:
    """Lets requests begin; a host without requests takes no memory.

    Args:
        most: requests in flight in all, parked ones apart.
        most_parked: requests parked at once.
        per_host: requests in flight to one host.
    """

    def __init__(self, loop: Loop, *, most: int, most_parked: int, per_host: int) -> None:
        self._loop = loop
        self._left = most
        self._left_parked = most_parked
        self._per_host = per_host
        self._hosts: dict[str, _Host] = {}
        self._turns: deque[str] = deque()
        self._is_held = False

    def hold(self, is_held: bool) -> None:
        """Begin nothing for a while, or go on; requests in flight are not concerned."""
        self._is_held = is_held
        self._dispatch()

    def enter(self, host: str, interval_s: float) -> Promise[Turn]:
        """A turn, not earlier than `interval_s` after the host's one before."""
        state = self._hosts.get(host)
        if state is None:
            state = self._hosts[host] = _Host()
        promise: Promise[Turn] = Promise(self._loop)
        state.waiting.append((promise, interval_s))
        self._queue(host)
        self._dispatch()
        return promise

    def leave(self, turn: Turn) -> None:
        """End a turn."""
        self._hosts[turn.host].active -= 1
        if turn.is_parked:
            self._left_parked += 1
        else:
            self._left += 1
        self._queue(turn.host)
        self._dispatch()

    def park(self, turn: Turn) -> None:
        """Take a turn out of the count, if there is room for it."""
        if self._left_parked and not turn.is_parked:
            turn.is_parked = True
            self._left_parked -= 1
            self._left += 1
            self._dispatch()

    def _queue(self, host: str) -> None:
        """Give a host its place among those that take turns, if it can use one."""
        state = self._hosts.get(host)
        if state is None or state.is_queued:
            return
        if state.waiting and state.active < self._per_host:
            state.is_queued = True
            self._turns.append(host)
        elif not state.waiting and not state.active:
            self._forget(host, state)

    def _forget(self, host: str, state: _Host) -> None:
        """Drop a host without requests, once it may be asked again at any time."""
        rest_s = state.next_s - time.monotonic()
        if rest_s <= 0:
            del self._hosts[host]
        else:
            state.is_queued = True
            self._loop.after(rest_s).then(partial(self._rested, host))

    def _dispatch(self) -> None:
        while self._left and self._turns and not self._is_held:
            host = self._turns.popleft()
            state = self._hosts[host]
            now = time.monotonic()
            if state.next_s > now:
                self._loop.after(state.next_s - now).then(partial(self._rested, host))
                continue
            promise, interval_s = state.waiting.popleft()
            state.next_s = now + interval_s
            state.active += 1
            self._left -= 1
            state.is_queued = False
            self._queue(host)
            promise.fulfil(Turn(self, host))

    def _rested(self, host: str, _: Promise[None]) -> None:
        self._hosts[host].is_queued = False
        self._queue(host)
        self._dispatch()
