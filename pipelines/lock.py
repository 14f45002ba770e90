"""The lock: one run at a time on a corpus.

An object that names host, process and time, refreshed while the run lives. It is taken over when its process is gone
from this host, or when it was not refreshed for a while (a machine that was lost). On a file system it is created
exclusively; object stores offer no such thing everywhere, so there the writer waits a moment and looks whose it is.
"""

from __future__ import annotations

import json
import os
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


class CorpusLock:
    """Context manager that holds the lock of the corpus whose work folder is `work`.

    Raises:
        UserError: another run holds it; says which.
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
        raise self._refusal(self._holder() or {})

    def _try_to_take(self) -> bool:
        holder = self._holder()
        if holder is not None and not _is_gone(holder):
            raise self._refusal(holder)
        if self._work.is_local:
            if holder is not None:
                self._work.delete(_PATH)
            return self._create_exclusively()
        self._work.publish(_PATH, self._content())
        time.sleep(SETTLE_S)
        return self._is_mine()

    def _create_exclusively(self) -> bool:
        path = Path(self._work.full(_PATH))
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".tmp-{self._token}")
        draft.write_bytes(self._content())
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        if self._is_mine():
            self._work.delete(_PATH)

    def _refresh(self) -> None:
        while not self._stop.wait(REFRESH_EVERY_S):
            if self._is_mine():
                self._work.publish(_PATH, self._content())

    def _content(self) -> bytes:
        process = psutil.Process()
        return json.dumps(
            {
                "token": self._token,
                "host": socket.gethostname(),
                "pid": process.pid,
                "started": process.create_time(),
                "refreshed": time.time(),
            }
        ).encode()

    def _holder(self) -> dict | None:
        try:
            return json.loads(self._work.read(_PATH))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}

    def _is_mine(self) -> bool:
        return (self._holder() or {}).get("token") == self._token

    def _refusal(self, holder: dict) -> UserError:
        return UserError(
            f"another run is at work on this corpus: process {holder.get('pid')} on {holder.get('host')}",
            where=self._work.root,
            hint="wait for it, stop it, or choose another --output; the lock of a dead run is taken over by itself",
        )


def _is_gone(holder: dict) -> bool:
    """Whether the process that holds the lock no longer runs."""
    if holder.get("host") == socket.gethostname():
        try:
            return abs(psutil.Process(holder["pid"]).create_time() - holder["started"]) > 1.0
        except (psutil.NoSuchProcess, KeyError):
            return True
    return time.time() - holder.get("refreshed", 0) > STALE_AFTER_S
