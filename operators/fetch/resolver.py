"""Host names to addresses: by the system's resolver, each name once in a while, with failures that say why.

libcurl resolves names itself but tells only that it failed. So it is given the addresses found here; whether it may
connect to them is decided when it does (see transfer.py).
"""

from __future__ import annotations

import socket
import time
from collections import OrderedDict
from functools import partial

from corpusmith.operators.fetch.promises import Loop, Promise
from corpusmith.operators.fetch.threads import BlockingPool
from corpusmith.operators.fetch.transient import TransientFailure
from corpusmith.schemas.fates import RowFailed

_KEEP_S = 300.0
_KEEP_FAILURE_S = 60.0
_MOST_NAMES = 20_000
_MOST_THREADS = 256


class Resolver:
    """Looks names up in threads of its own and remembers the answers for five minutes, final failures for one."""

    def __init__(self, loop: Loop, timeout_s: float, threads: int) -> None:
        self._loop = loop
        self._timeout_s = timeout_s
        self._pool = BlockingPool(loop, min(threads, _MOST_THREADS), "resolve")
        self._known: OrderedDict[str, tuple[float, Promise[tuple[str, ...]]]] = OrderedDict()

    def resolve(self, host: str) -> Promise[tuple[str, ...]]:
        """The addresses of a host, as text.

        Fails with RowFailed: `DNS failure`, transient if the resolver says so or does not answer in time.
        """
        expires_s, promise = self._known.get(host, (0.0, None))
        if promise is not None and expires_s > time.monotonic():
            return promise
        late = TransientFailure("DNS failure", f"{host}: no answer within {self._timeout_s:g} s")
        promise = self._pool.run(partial(_look_up, host), self._timeout_s, late)
        self._known[host] = (time.monotonic() + _KEEP_S, promise)
        self._known.move_to_end(host)
        if len(self._known) > _MOST_NAMES:
            self._known.popitem(last=False)
        promise.then(partial(self._keep_failure, host))
        return promise

    def close(self) -> None:
        """Let the threads go; a lookup that hangs is not waited for."""
        self._pool.close()

    def _keep_failure(self, host: str, promise: Promise[tuple[str, ...]]) -> None:
        """A failure is kept for a shorter time, one that may pass not at all."""
        if promise.error is None or self._known.get(host, (0.0, None))[1] is not promise:
            return
        if isinstance(promise.error, TransientFailure):
            del self._known[host]
        else:
            self._known[host] = (time.monotonic() + _KEEP_FAILURE_S, promise)


def _look_up(host: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, None, socket.AF_UNSPEC, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except socket.gaierror as error:
        kind = TransientFailure if error.errno == socket.EAI_AGAIN else RowFailed
        raise kind("DNS failure", f"{host}: {error.strerror}") from None
    except (OSError, UnicodeError) as error:
        raise RowFailed("DNS failure", f"{host}: {type(error).__name__}") from None
    addresses = tuple(dict.fromkeys(str(address[0]) for *_, address in found))
    if not addresses:
        raise RowFailed("DNS failure", f"{host}: no addresses")
    return addresses
