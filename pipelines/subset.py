"""Subsets: ids of a corpus's samples as the `.npy` files by which DataComp exchanges selections."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.select.subset import SUBSET_DTYPE, halves_of, sorted_halves
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.verify import finished_manifest
from corpusmith.schemas.columns import SOURCE_UID, UID
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import Fate
from corpusmith.schemas.identity import UID_HEX_DIGITS


@dataclass(frozen=True)
class Written:
    """What a subset file holds.

    Args:
        samples: of the corpus that were asked for.
        ids: in the file; fewer than samples where some share one.
    """

    samples: int
    ids: int


def write_subset(corpus: Storage, output: Path, *, by: str, fate: str | None, step: str | None) -> Written:
    """Write the ids of some of a finished corpus's samples, sorted, each once, as an array of dtype `u8,u8`.

    Args:
        corpus: a finished corpus; its ledger is read, 16 bytes an id are held.
        output: the file; replaced as a whole.
        by: `source_uid`, the ids that the source gave, or `uid`, ours.
        fate: of the samples; None for kept ones, or for all whose fate `step` decided.
        step: that decided their fate; None for any.

    Raises:
        UserError: an id is not 32 hex digits, no sample met its fate at that step, or the file cannot be written.
    """
    manifest = finished_manifest(corpus)
    columns = list(dict.fromkeys([by, UID.name, "fate", "step"]))
    found, steps = [np.zeros((0, 2), np.uint64)], set[str]()
    for path in manifest.ledger:
        ledger = corpus.read_table(path, columns)
        steps.update(filter(None, pc.unique(ledger.column("step")).to_pylist()))
        found += _ids(ledger.filter(_chosen(ledger, fate, step)), by, corpus.root)
    if step is not None and step not in steps:
        hint = f"steps that decided fates: {', '.join(sorted(steps)) or 'none'}"
        raise UserError(f"no sample met its fate at {step!r}", where=corpus.root, hint=hint)
    ids = np.concatenate(found)
    samples, ids = len(ids), sorted_halves(ids)
    array = np.empty(len(ids), SUBSET_DTYPE)
    array["f0"], array["f1"] = ids[:, 0], ids[:, 1]
    _save(array, output)
    return Written(samples, len(ids))


def _chosen(ledger: pa.Table, fate: str | None, step: str | None) -> pa.ChunkedArray:
    at_step = pc.fill_null(pc.equal(ledger.column("step"), step or ""), False)
    if fate is None and step is not None:
        return at_step
    of_fate = pc.equal(ledger.column("fate"), fate or Fate.KEPT.value)
    return pc.and_(of_fate, at_step) if step is not None else of_fate


def _ids(ledger: pa.Table, by: str, where: str) -> Iterator[np.ndarray]:
    for batch in ledger.to_batches():
        halves, is_id = halves_of(batch.column(by))
        if not is_id.all():
            place = int(np.argmin(is_id))
            value, uid = batch.column(by)[place].as_py(), batch.column(UID.name)[place].as_py()
            shown = "no" if value is None else f"the id {value[:40]!r} as"
            what = f"the sample {uid} has {shown} {by}: a subset file holds {UID_HEX_DIGITS} hex digits of each"
            hint = "--uid uid writes our own ids, which every sample has" if by == SOURCE_UID.name else None
            raise UserError(what, where=where, hint=hint)
        yield halves


def _save(array: np.ndarray, output: Path) -> None:
    """Write the file beside its place, then move it there."""
    if not output.parent.is_dir():
        raise UserError("there is no such folder", where=str(output.parent), hint="make it, or name another file")
    partial = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as file:
            np.save(file, array)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
