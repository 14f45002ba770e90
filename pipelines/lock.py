"""The lock: one run at a time on a corpus.

An object that names host, process and time, refreshed while the run lives. It is taken over when its process is gone
from this host, or when it was not refreshed for a while (a machine that was lost). It is created exclusively; but not
every object store knows that, and taking over is a replacement everywhere, so there the writer waits a moment and
looks whose it is.
"""

from __future__ import annotations

import json
import logging
import secrets
import socket
import threading
import time
from pathlib import Path
from types import TracebackType

import psutil

from corpusmith.pipelines.storage import Storage
from corpusmith.schemas.errors import UserError

REFRESH_EVERY_S = 10.0
STALE_AFTER_S = 60.0
SETTLE_S = 0.5
_PATH = "lock.json"

_log = logging.getLogger(__name__)


class CorpusLock:
    """Context manager that holds the lock of the corpus whose work folder is `work`.

    Raises:
        UserError: another run holds it; says which. Or the work folder cannot be written.
    """

    def __init__(self, work: Storage) -> None:
        self._work = work
        self._token = secrets.token_hex(8)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="corpus-lock", daemon=True)

    def __enter__(self) -> CorpusLock:
        for _ in range(3):
            if self._try_to_take():
                self._thread.start()
                return self
        raise self._refusal(_holder(self._work) or {})

    def _try_to_take(self) -> bool:
        holder = _holder(self._work)
        if holder is not None and not _is_gone(holder):
            raise self._refusal(holder)
        if holder is not None:
            self._work.publish(_PATH, self._content())
        elif not self._work.create(_PATH, self._content()):
            return False
        elif self._work.is_local:
            return True
        time.sleep(SETTLE_S)
        return self._is_mine()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        if self._is_mine():
            self._work.delete(_PATH)

    def _refresh(self) -> None:
        while not self._stop.wait(REFRESH_EVERY_S):
            try:
                if not self._is_mine():
                    _log.warning("another run has taken over the lock of %s", self._work.root)
                    return
                self._work.publish(_PATH, self._content())
            except (OSError, UserError) as error:
                # a full disk is told by the run itself; the next refresh may succeed
                _log.debug("the lock could not be refreshed: %s", error)

    def _content(self) -> bytes:
        process = psutil.Process()
        return json.dumps(
            {
                "token": self._token,
                "host": socket.gethostname(),
                "processes": _process_table(),
                "pid": process.pid,
                "started": process.create_time(),
                "refreshed": time.time(),
            }
        ).encode()

    def _is_mine(self) -> bool:
        return (_holder(self._work) or {}).get("token") == self._token

    def _refusal(self, holder: dict) -> UserError:
        return UserError(
            f"another run is at work on this corpus: process {holder.get('pid')} on {holder.get('host')}",
            where=self._work.root,
            hint="wait for it, stop it, or choose another --output; the lock of a dead run is taken over by itself",
        )


def lock_text(work: Storage) -> str | None:
    """Who holds the lock of a work folder, in words; None while nobody does."""
    holder = _holder(work)
    if holder is None:
        return None
    if _is_gone(holder):
        return f"the last run ended without a word: process {holder.get('pid')} on {holder.get('host')} is gone"
    return f"a run is at work on it: process {holder.get('pid')} on {holder.get('host')}"


def _holder(work: Storage) -> dict | None:
    try:
        return json.loads(work.read(_PATH))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def _is_gone(holder: dict) -> bool:
    """Whether the process that holds the lock no longer runs."""
    here = _process_table()
    if holder.get("host") == socket.gethostname() and holder.get("processes", here) == here:
        try:
            return abs(psutil.Process(holder["pid"]).create_time() - holder["started"]) > 1.0
        except (psutil.NoSuchProcess, KeyError):
            return True
    return time.time() - holder.get("refreshed", 0) > STALE_AFTER_S


def _process_table() -> str | None:
    """Names the set of processes that this one can see: containers that share a host's name have sets of their own."""
    table = Path("/proc/self/ns/pid")
    return str(table.readlink()) if table.is_symlink() else None
