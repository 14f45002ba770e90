"""The parent's side of one child process: start it, exchange messages without ever blocking on it, end it.

A child may hang at any point, so both pipes are non-blocking, and time without progress is what ends an exchange:
progress is an announced row, or bytes that move.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from corpusmith.pipelines.cell_worker import PREFIX, PROGRESS, message, table_of
from corpusmith.schemas.fates import RowError

CLOSE_TIMEOUT_S = 2.0
STDERR_TAIL_BYTES = 4096
POLL_S = 0.5

_WRITE_BYTES = 1 << 20
_PIPE_BYTES = 1 << 20
"""Of pipes, where the system allows it: each fill of a small one costs both sides a turn."""


@dataclass(frozen=True)
class Answer:
    """What a child sent: a header, and a table as an Arrow stream."""

    header: dict[str, Any]
    payload: pa.Buffer

    def table(self) -> pa.Table:
        """The rows of the payload, without a copy."""
        return table_of(self.payload)


@dataclass(frozen=True)
class Death:
    """How a child was lost.

    Args:
        hung: it was killed because it made no progress.
        detail: the signal, the exit code, or the time without progress.
        row: position of the last announced row; −1 before the first.
    """

    hung: bool
    detail: str
    row: int

    def row_error(self) -> RowError:
        """The error of the row that did it."""
        if self.hung:
            return RowError("worker hung", self.detail)
        return RowError("worker died", f"{self.detail} while processing this row")


class ChildProcess:
    """A running child. One thread at a time may use it; `interrupt()` may be called from any."""

    def __init__(self) -> None:
        self._shared = tempfile.TemporaryFile()  # noqa: SIM115 (closed by end())
        self._shared.write(PROGRESS.pack(0, -1))
        self._shared.flush()
        self._page = mmap.mmap(self._shared.fileno(), PROGRESS.size)
        self._tail = bytearray()
        started: Future[subprocess.Popen[bytes]] = Future()
        self._keeper = threading.Thread(
            target=_keep, args=(started, self._shared.fileno(), self._tail), name="cell-keeper", daemon=True
        )
        self._keeper.start()
        self._process = started.result()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        os.set_blocking(self._requests.fileno(), False)
        os.set_blocking(self._answers.fileno(), False)
        _widen(self._requests.fileno(), self._answers.fileno())
        self._finalizer = weakref.finalize(self, _kill_and_reap, self._process)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def exchange(self, header: dict[str, Any], payload: memoryview, timeout_s: float) -> Answer | Death:
        """Send a request and wait for its answer; after a Death only `end()` is left to call.

        Args:
            header: what JSON can carry.
            payload: an Arrow stream, or the pickled operator.
            timeout_s: seconds without progress after which the child is given up.
        """
        PROGRESS.pack_into(self._page, 0, 0, -1)
        outgoing = _Outgoing(message(header, payload))
        incoming = _Incoming()
        seen, since = None, time.monotonic()
        while not incoming.complete:
            state = (self._announcement(), outgoing.sent, incoming.received)
            if state != seen:
                seen, since = state, time.monotonic()
            elif time.monotonic() - since > timeout_s:
                return Death(True, f"no progress for {timeout_s:g} s", self._announcement()[1])
            if not self._move(outgoing, incoming, min(POLL_S, timeout_s / 8)):
                return Death(False, self._exit_detail(), self._announcement()[1])
        return incoming.answer()

    def _move(self, outgoing: _Outgoing, incoming: _Incoming, wait_s: float) -> bool:
        """Move bytes when the child is ready for it; False if the child is lost."""
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        if not outgoing.complete:
            poll.register(self._requests, select.POLLOUT)
        ready = {fd for fd, _ in poll.poll(wait_s * 1000)}
        if not ready:
            return not _has_ended(self._process)
        try:
            if self._requests.fileno() in ready:
                outgoing.write_some(self._requests.fileno())
            return self._answers.fileno() not in ready or incoming.read_some(self._answers.fileno())
        except (BrokenPipeError, ConnectionResetError):
            return False

    def _announcement(self) -> tuple[int, int]:
        return PROGRESS.unpack_from(self._page)

    def _exit_detail(self) -> str:
        _await_end(self._process)
        _kill_and_reap(self._process)
        code = self._process.returncode
        return f"exit signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def interrupt(self) -> None:
        """Kill the child under the thread that waits for it."""
        _kill(self._process)

    def end(self, *, gently: bool = False) -> str:
        """End the child and all that it started; again is harmless.

        Args:
            gently: let it close its operator first.

        Returns:
            The end of what it wrote to stderr.
        """
        self._requests.close()
        if gently:
            _await_end(self._process)
        _kill_and_reap(self._process)
        self._finalizer.detach()
        self._keeper.join(CLOSE_TIMEOUT_S)
        self._answers.close()
        self._page.close()
        self._shared.close()
        return bytes(self._tail).decode(errors="replace").strip()


class _Outgoing:
    """A message on its way into a pipe that does not block."""

    def __init__(self, pieces: tuple[bytes, memoryview]) -> None:
        self._left = [memoryview(piece) for piece in pieces if len(piece)]
        self.sent = 0

    @property
    def complete(self) -> bool:
        """Whether all is sent."""
        return not self._left

    def write_some(self, fd: int) -> None:
        """Write what the pipe takes."""
        count = os.write(fd, self._left[0][:_WRITE_BYTES])
        self.sent += count
        self._left[0] = self._left[0][count:]
        if not len(self._left[0]):
            del self._left[0]


class _Incoming:
    """A message on its way out of a pipe that does not block."""

    def __init__(self) -> None:
        self._head_bytes: int | None = None
        self._target = pa.allocate_buffer(PREFIX.size)
        self._left = memoryview(self._target)
        self.received = 0

    @property
    def complete(self) -> bool:
        """Whether all is there."""
        return self._head_bytes is not None and not len(self._left)

    def read_some(self, fd: int) -> bool:
        """Read what is there; False at the end of the stream."""
        count = os.readv(fd, [self._left])
        self.received += count
        self._left = self._left[count:]
        if self._head_bytes is None and not len(self._left):
            self._head_bytes, payload_bytes = PREFIX.unpack(self._target)
            self._target = pa.allocate_buffer(self._head_bytes + payload_bytes)
            self._left = memoryview(self._target)
        return count > 0

    def answer(self) -> Answer:
        """The complete message."""
        assert self._head_bytes is not None
        header = json.loads(self._target.slice(0, self._head_bytes).to_pybytes())
        return Answer(header, self._target.slice(self._head_bytes))


def _keep(started: Future[subprocess.Popen[bytes]], shared_fd: int, tail: bytearray) -> None:
    """Start a child and stay with it, keeping the end of what it writes to stderr.

    The child asks the kernel to kill it when its parent dies, and to the kernel that is the thread that started it: so
    this thread must live as long as the child. It leaves the child unreaped, so that its process id stays its own.
    """
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "corpusmith.pipelines.cell_worker", str(shared_fd)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[shared_fd],
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
        )
    except (OSError, ValueError, subprocess.SubprocessError) as exception:
        started.set_exception(exception)
        return
    started.set_result(process)
    del started
    assert process.stderr is not None
    with process.stderr as stderr:
        while chunk := stderr.read(STDERR_TAIL_BYTES):
            tail[:] = (tail + chunk)[-STDERR_TAIL_BYTES:]
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def _widen(*pipes: int) -> None:
    """Make pipes as wide as an unprivileged process may; the system may refuse once a user has many of them."""
    for pipe in pipes:
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a child has ended; leaves it unreaped."""
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    except ChildProcessError:
        return True


def _await_end(process: subprocess.Popen[bytes]) -> None:
    """Give a child time to end by itself."""
    deadline = time.monotonic() + CLOSE_TIMEOUT_S
    while not _has_ended(process) and time.monotonic() < deadline:
        time.sleep(0.002)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a child and what it started: it leads a session of its own."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _kill_and_reap(process: subprocess.Popen[bytes]) -> None:
    _kill(process)
    process.wait()
