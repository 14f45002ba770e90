"""Decisions that wait on disk: a reduce knows its summary only when it has decided on the last row.

They are written to the scratch folder as they are made and read once, so that a large pool's are never held.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa


def spooled(batches: Iterable[pa.RecordBatch], schema: pa.Schema, scratch_dir: str) -> pa.RecordBatchReader:
    """The batches, all of them taken before this returns, to be read once.

    Args:
        batches: of `schema`.
        schema: of the reader.
        scratch_dir: a local folder, which has to outlive the reader.
    """
    with tempfile.NamedTemporaryFile(dir=scratch_dir, suffix=".arrow", delete=False) as file:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_stream(file, schema, options=options) as writer:
            for batch in batches:
                writer.write_batch(batch)
    return pa.RecordBatchReader.from_batches(schema, _read(Path(file.name)))


def _read(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(path)) as source, pa.ipc.open_stream(source) as reader:
        yield from reader
    path.unlink()
