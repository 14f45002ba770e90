"""The child's side of a cell: a small program that holds one operator and answers requests over two pipes.

It imports as little as it can, because each start costs the run. A message is `PREFIX`, a JSON header padded to
`ALIGNMENT`, and a payload, which is an Arrow stream save in the first request, where it is the pickled operator. Before
each row it writes to a page shared with the parent which row is at hand, so that the parent knows whom to suspect.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import pickle
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

import pyarrow as pa

from corpusmith.operators.contract import Operator
from corpusmith.pipelines.capture import OperatorContractError, process_captured
from corpusmith.pipelines.lean import keep_pandas_out
from corpusmith.schemas.errors import UserError

ALIGNMENT = 64
PREFIX = struct.Struct("<QQ")
"""Bytes of the JSON header, bytes of the payload."""
PROGRESS = struct.Struct("<qq")
"""The shared page: number of announcements so far, position of the row at hand (−1 before the first)."""

_NO_PAYLOAD = memoryview(b"")
_PR_SET_PDEATHSIG = 1


def message(header: dict[str, Any], payload: memoryview) -> tuple[bytes, memoryview]:
    """A message as two pieces to write one after the other."""
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % ALIGNMENT)
    return PREFIX.pack(len(head), len(payload)) + head, payload


def stream_of(table: pa.Table) -> memoryview:
    """A table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


def table_of(payload: pa.Buffer) -> pa.Table:
    """The table in an Arrow stream, without a copy."""
    return pa.ipc.open_stream(payload).read_all()


def main() -> None:
    """Set the operator up, answer requests until the parent closes its end or dies."""
    requests, answers = _claim_pipes()
    _harden()
    announce = _announcer(int(sys.argv[1]))
    first = _receive(requests)
    if first is None:
        return
    header, pickled = first
    _restore_python_path(header["python_path"])
    if header["lean"]:
        keep_pandas_out()
    pa.array([None])  # pyarrow loads pandas at its first conversion, which must not count against a row
    operator = pickle.loads(pickled)
    try:
        operator.setup()
    except UserError as error:
        _send(answers, {"user_error": {"what": error.what, "where": error.where, "hint": error.hint}})
        return
    _send(answers, {"ready": True})
    while (request := _receive(requests)) is not None:
        _answer(answers, operator, table_of(request[1]), announce)
    operator.close()


def _answer(answers: BinaryIO, operator: Operator, batch: pa.Table, announce: Callable[[int], None]) -> None:
    started = time.perf_counter()
    try:
        outcome = process_captured(operator, batch, announce)
    except OperatorContractError as violation:
        traceback.print_exc()
        _send(answers, {"violation": str(violation), "busy_s": time.perf_counter() - started})
        return
    header: dict[str, Any] = {"busy_s": time.perf_counter() - started}
    schema = pa.schema([(c.name, c.type) for c in operator.produces])
    if isinstance(outcome, list):
        tables = [_table(part.columns, schema, len(part.rows or ())) for part in outcome]
        header["parts"] = [{"rows": part.rows, "errors": _plain(part.errors)} for part in outcome]
        table = pa.concat_tables(tables) if tables else schema.empty_table()
    else:
        table = _table(outcome.columns, schema, len(outcome.keys))
        header |= {"parents": outcome.parents, "keys": outcome.keys, "errors": _plain(outcome.errors)}
    _send(answers, header, stream_of(table))


def _table(columns: Any, schema: pa.Schema, rows: int) -> pa.Table:
    if not schema.names:
        return pa.table({"": pa.nulls(rows)}).select([])
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _plain(errors: Any) -> dict[int, tuple[str, str]]:
    return {position: (error.error, error.message) for position, error in errors.items()}


def _claim_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The protocol's pipes under numbers that nobody else knows: what libraries print goes to stderr."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(requests, "rb", buffering=0), os.fdopen(answers, "wb", buffering=0)


def _harden() -> None:
    """Die with the parent, leave no core dumps."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _restore_python_path(python_path: str | None) -> None:
    os.environ.pop("PYTHONPATH", None)
    if python_path is not None:
        os.environ["PYTHONPATH"] = python_path


def _announcer(shared_fd: int) -> Callable[[int], None]:
    page = mmap.mmap(shared_fd, PROGRESS.size)

    def announce(row: int) -> None:
        PROGRESS.pack_into(page, 0, PROGRESS.unpack_from(page)[0] + 1, row)

    return announce


def _receive(requests: BinaryIO) -> tuple[dict[str, Any], pa.Buffer] | None:
    """The next request; None when there are no more."""
    prefix = _read(requests, PREFIX.size)
    if prefix is None:
        return None
    head_bytes, payload_bytes = PREFIX.unpack(prefix)
    body = _read(requests, head_bytes + payload_bytes)
    if body is None:
        return None
    return json.loads(body.slice(0, head_bytes).to_pybytes()), body.slice(head_bytes)


def _read(requests: BinaryIO, size: int) -> pa.Buffer | None:
    buffer = pa.allocate_buffer(size)
    view = memoryview(buffer)
    filled = 0
    while filled < size:
        count = os.readv(requests.fileno(), [view[filled:]])
        if count == 0:
            return None
        filled += count
    return buffer


def _send(answers: BinaryIO, header: dict[str, Any], payload: memoryview = _NO_PAYLOAD) -> None:
    for piece in message(header, payload):
        view = memoryview(piece)
        while len(view):
            view = view[answers.write(view) :]


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # nobody is left to be told anything
        main()
