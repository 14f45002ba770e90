"""Plans and operators in words, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from corpusmith.operators.contract import Operator
from corpusmith.pipelines.bind import Step
from corpusmith.pipelines.run import Prepared
from corpusmith.schemas.columns import MEDIA

MEDIA_BYTES_GUESS = 25_000
"""A 256-pixel JPEG of quality 95 takes about this much; for the estimate of disk only."""


def plan_lines(prepared: Prepared) -> Iterator[str]:
    """What a run would do: input, streams and barriers with their columns, an estimate."""
    plan, spec = prepared.plan, prepared.spec
    size = sum(f.size for f in prepared.files)
    yield f"corpus {spec.corpus} from {prepared.source_name}"
    yield f"input: {len(prepared.files)} file(s), {size / 1e6:.1f} MB; columns {', '.join(c.name for c in plan.source_columns)}"
    for segment in plan.segments:
        if segment.stream:
            yield "stream"
        for step in segment.stream:
            yield from _step_lines(step, plan.fingerprints[step.id], staged=step.id == segment.staging)
        if segment.reduce is not None:
            yield "barrier"
            yield from _step_lines(segment.reduce, plan.fingerprints[segment.reduce.id], staged=False)
    yield f"write\n  shards of {spec.output.samples_per_shard:,} samples"
    yield from _estimate(prepared)


def _step_lines(step: Step, fingerprint: str, *, staged: bool) -> Iterator[str]:
    operator = step.operator
    parameters = ", ".join(f"{k}={v!r}" for k, v in operator.config.model_dump().items())
    kept = "stored" if operator.stored and operator.kind != "reduce" else "computed each run"
    if operator.kind == "reduce":
        kept = "stored by input set"
    yield f"  {step.id} ({operator.kind}, {kept}, {fingerprint[:8]})"
    if parameters:
        yield f"    {parameters}"
    yield f"    reads {', '.join(operator.requires) or 'uid'}"
    if operator.produces:
        yield f"    makes {', '.join(c.name for c in operator.produces)}{', media staged' if staged else ''}"


def _estimate(prepared: Prepared) -> Iterator[str]:
    rows = _known_rows(prepared)
    steps = prepared.plan.steps
    dear = [s.id for s in steps if s.operator.resources.gpus]
    downloads = [s.id for s in steps if s.operator.name == "download"]
    if rows is None:
        yield "estimate: the number of rows is known once the input is read"
        return
    yield f"estimate, at most: {rows:,} rows"
    for step in downloads:
        yield f"  {rows:,} downloads by {step}"
    if any(MEDIA.name in (c.name for c in s.operator.produces) for s in steps):
        disk_gb = 2 * rows * MEDIA_BYTES_GUESS / 1e9
        yield f"  {disk_gb:.2f} GB of disk for staging and shards, at {MEDIA_BYTES_GUESS // 1000} kB an image"
    yield f"  model work: {', '.join(dear)} over {rows:,} rows" if dear else "  no model work"


def _known_rows(prepared: Prepared) -> int | None:
    """Rows of Parquet inputs, from their footers; None for other formats."""
    import fsspec

    total = 0
    for file in prepared.files:
        if not file.path.endswith(".parquet"):
            return None
        with fsspec.open(file.path, "rb") as opened:
            total += pq.read_metadata(opened).num_rows
    return total


def operator_lines(cls: type[Operator]) -> Iterator[str]:
    """All about one operator: what it does, its columns and parameters."""
    yield f"{cls.name} ({cls.kind}, version {cls.version})"
    yield from (f"  {line}" for line in (cls.__doc__ or "").strip().splitlines())
    required = [name for name, f in cls.Config.model_fields.items() if f.is_required()]
    if not required:
        yield from _column_lines(cls())
    yield "parameters" if cls.Config.model_fields else "no parameters"
    for name, f in cls.Config.model_fields.items():
        default: Any = "required" if f.is_required() else f"default {f.get_default(call_default_factory=True)!r}"
        bare = ", may stand alone" if cls.positional == name else ""
        yield f"  {name} ({default}{bare})"
        if f.description:
            yield f"      {f.description}"


def _column_lines(operator: Operator) -> Iterator[str]:
    yield f"reads {', '.join(operator.requires) or 'uid'}"
    if operator.produces:
        yield "makes"
    width = max((len(c.name) for c in operator.produces), default=0)
    for column in operator.produces:
        unit = f" [{column.unit}]" if column.unit else ""
        yield f"  {column.name:<{width}}  {column.type}{unit}: {column.meaning}"
